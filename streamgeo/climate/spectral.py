"""Fourier transforms over time or space, and back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from streamgeo.climate.axes import named, time_dim
from streamgeo.errors import StepError
from streamgeo.grid import Grid
from streamgeo.names import unique
from streamgeo.pointwise import Array, as_floats, settle
from streamgeo.step import POINT, Moves, Step, register
from streamgeo.window import Window

Dims = tuple[str | int, ...] | None


@register("climate.fft")
def fft(dims: str | int | Sequence[str | int] | None = None, shift: bool = False) -> Step:
    """Fourier transform over time or space: real and imaginary part in a new leading dim of size 2.

    Args:
        dims: names (or numbers) of the dims, such as ``"time"`` or ``("lat", "lon")``; by default that of the
            time coordinate.
        shift: frequency 0 in the middle instead of at the beginning.

    Normalised to keep the sum of squares (``norm="ortho"``), full length, in the order of ``numpy.fft.fftfreq``;
    the dims become frequencies, and their coordinates do not follow. The inverse is the inverse transform, its
    real part. A pixel that is NaN at all times (land), or a slice that is NaN throughout, is NaN in all
    frequencies. Floats keep their dtype, integers become float32; it is computed in float64. A patch reads these
    dims whole.

    Raises:
        StepError: when it runs, for NaN beside values along these dims (of which no frequency is known), for
            complex values, and without such dims.

    >>> y = fft(dims=0)(np.array([1.0, 1.0, 1.0, 1.0]))
    >>> y.tolist(), fft(dims=0).undo(y).tolist()
    ([[2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]], [1.0, 1.0, 1.0, 1.0])
    """
    chosen = None if dims is None else (dims,) if isinstance(dims, (str, int)) else tuple(dims)
    if chosen is not None and (not chosen or len(set(chosen)) != len(chosen)):
        raise StepError(f"climate.fft: dims={dims!r} must name a dim, each once")
    bound: dict[str, Any] = {"dims": chosen, "shift": bool(shift)}
    moves = Moves(
        partial(_spectrum_grid, dims=chosen),
        partial(_spectrum_source, dims=chosen),
        partial(_spectrum_window, **bound),
        windowed=True,
    )
    return Step(
        partial(_spectrum, **bound),
        partial(_signal, **bound),
        reach=POINT,
        grid=moves,
    )


def _names(grid: Grid, dims: Dims) -> list[str]:
    return [time_dim(grid, None, "climate.fft")] if dims is None else named(grid, dims, "climate.fft")


def _axes(ndim: int, grid: Grid | None, dims: Dims) -> tuple[int, ...]:
    if grid is not None and len(grid.dims) == ndim:
        return tuple(grid.dims.index(name) for name in _names(grid, dims))
    names = [f"dim_{i}" for i in range(ndim)]
    found = []
    for dim in dims or ():
        if isinstance(dim, str) and dim in names:
            found.append(names.index(dim))
        elif not isinstance(dim, str) and -ndim <= dim < ndim:
            found.append(dim % ndim)
        else:
            raise StepError(
                f"climate.fft: an array without a grid has the dims {names}, not {dim!r}; give grid="
            )
    if not found:
        raise StepError("climate.fft: an array without a grid has no time; say which dims with dims=")
    return tuple(found)


def _spectrum(x: Array, *, dims: Dims, shift: bool, grid: Grid | None = None) -> Array:
    work, dtype = as_floats(x)
    if work.dtype.kind == "c":
        raise StepError(
            "climate.fft: values are complex; give their real and imaginary parts as dims of floats"
        )
    axes = _axes(work.ndim, grid, dims)
    gaps = np.isnan(work)
    without = gaps.all(axes, keepdims=True)
    partly = gaps & ~without
    if partly.any():
        raise StepError(
            f"climate.fft: {int(np.count_nonzero(partly))} of {work.size} values are NaN beside others that are not, "
            "so no frequency is known; use climate.fill_time(...), climate.fill_gaps(...) or sg.fill_nan(...) before it"
        )
    spectrum = np.fft.fftn(work.astype(np.float64), axes=axes, norm="ortho")
    if shift:
        spectrum = np.fft.fftshift(spectrum, axes)
    return settle(np.where(without, np.nan, np.stack([spectrum.real, spectrum.imag])), dtype)


def _signal(y: Array, *, dims: Dims, shift: bool, grid: Grid | None = None) -> Array:
    work, dtype = as_floats(y)
    if work.ndim < 1 or work.shape[0] != 2:
        raise StepError(
            f"inverse of climate.fft: a prediction of shape {work.shape} has no real and imaginary part in its "
            "first dim"
        )
    axes = _axes(work.ndim - 1, grid, dims)
    spectrum = work[0].astype(np.float64) + 1j * work[1]
    if shift:
        spectrum = np.fft.ifftshift(spectrum, axes)
    return settle(np.fft.ifftn(spectrum, axes=axes, norm="ortho").real, dtype)


def _spectrum_grid(grid: Grid, *, dims: Dims) -> Grid:
    frequencies = grid.resize(**{name: grid.sizes[name] for name in _names(grid, dims)})
    return frequencies.insert(0, unique("part", grid.dims), 2)


def _spectrum_source(out: Window, grid: Grid, *, dims: Dims) -> Window:
    names = _names(grid, dims)
    return Window({dim: (0, grid.sizes[dim]) if dim in names else out[dim] for dim in grid.dims})


def _spectrum_window(x: Array, *, window: Window, whole: Grid, grid: Grid, dims: Dims, shift: bool) -> Array:
    spectrum = _spectrum(x, dims=dims, shift=shift, grid=grid)
    names = _names(whole, dims)
    parts = [window[dim] if dim in names else slice(None) for dim in whole.dims]
    return spectrum[(window[unique("part", whole.dims)], *parts)]
