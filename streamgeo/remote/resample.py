"""Finer and coarser pixels by a whole factor, so that bands of several resolutions share one grid."""

from __future__ import annotations

from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import StepError
from streamgeo.grid import Grid
from streamgeo.pointwise import Array, as_floats, settle
from streamgeo.step import POINT, Moves, Step, register
from streamgeo.window import Window

Method = Literal["nearest", "bilinear"]
_LAST = (-2, -1)


@register("remote.upsample")
def upsample(factor: int, method: Method = "nearest") -> Step:
    """Finer pixels: each becomes ``factor`` x ``factor``, such as 20 m bands of Sentinel-2 on the 10 m grid.

    Args:
        factor: a whole number, 1 or more.
        method: ``"nearest"`` repeats pixels; ``"bilinear"`` interpolates between their centres (and repeats
            the outermost values in the outer half pixel).

    The two horizontal dims of the grid are meant (the last two without a grid), and the outer edges of the
    grid stay. The inverse averages blocks, which is exact for ``"nearest"``. NaN stays NaN, and with
    ``"bilinear"`` so does every pixel that is interpolated from one. Floats keep their dtype, integers become
    float32.

    Raises:
        StepError: for another factor or method.

    >>> upsample(2)(np.array([[1.0, 2.0]])).tolist()
    [[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]]
    >>> upsample(2, "bilinear")(np.array([[1.0, 2.0]]))[0].tolist()
    [1.0, 1.25, 1.75, 2.0]
    """
    number = _factor("remote.upsample", factor)
    if method not in ("nearest", "bilinear"):
        raise StepError(f'remote.upsample: method={method!r} must be "nearest" or "bilinear"')
    margin = int(method == "bilinear")
    moves = Moves(
        partial(_finer, factor=number),
        partial(_finer_source, factor=number, margin=margin),
        partial(_up_window, factor=number, margin=margin),
        windowed=True,
    )
    return Step(
        partial(_up, factor=number, margin=margin),
        partial(_down, factor=number, valid=0.0),
        reach=POINT,
        grid=moves,
        lossy=None if method == "nearest" else "contrast between neighbours, which interpolation smooths",
    )


@register("remote.downsample")
def downsample(factor: int, valid: float = 0.5) -> Step:
    """Coarser pixels: the mean of each block of ``factor`` x ``factor`` becomes one.

    Args:
        factor: a whole number, 1 or more. What does not fill a block at the end of a dim is cut.
        valid: the share of a block that must not be NaN, 0 to 1; the mean is that of the pixels that are not.
            A block with less, or with none, becomes NaN.

    The two horizontal dims of the grid are meant (the last two without a grid). The inverse repeats pixels;
    what was cut is NaN. Floats keep their dtype, integers become float32.

    Raises:
        StepError: for another factor or share.

    >>> downsample(2)(np.array([[1.0, 3.0, 5.0], [1.0, np.nan, 5.0]])).round(3).tolist()
    [[1.667]]
    """
    number = _factor("remote.downsample", factor)
    if not 0 <= valid <= 1:
        raise StepError(f"remote.downsample: valid={valid!r} must be a share, 0 to 1")
    moves = Moves(partial(_coarser, factor=number), partial(_coarser_source, factor=number), None)
    return Step(
        partial(_down, factor=number, valid=float(valid)),
        partial(_repeat, factor=number),
        reach=POINT,
        grid=moves,
        lossy=f"differences within blocks of {number} x {number} pixels",
    )


def _factor(what: str, factor: int) -> int:
    if isinstance(factor, bool) or not isinstance(factor, (int, np.integer)) or factor < 1:
        raise StepError(f"{what}: factor={factor!r} must be a whole number, 1 or more")
    return int(factor)


def _axes(x: Array, grid: Grid | None) -> tuple[int, ...]:
    if grid is None or len(grid.dims) != x.ndim:
        return tuple(axis % x.ndim for axis in _LAST[-x.ndim :])
    return tuple(grid.dims.index(dim) for dim in grid.spatial)


# -- finer ----------------------------------------------------------------------------------------------


def _finer(grid: Grid, *, factor: int) -> Grid:
    return grid.coarsen(**dict.fromkeys(grid.spatial, 1 / factor))


def _finer_source(out: Window, grid: Grid, *, factor: int, margin: int) -> Window:
    box: dict[str, tuple[int, int]] = {}
    for dim, part in out.items():
        if dim in grid.spatial:
            low, high = part.start // factor - margin, -(-part.stop // factor) + margin
            box[dim] = (max(low, 0), min(high, grid.sizes[dim]))
        else:
            box[dim] = (part.start, part.stop)
    return Window(box)


def _up(x: Array, *, factor: int, margin: int, grid: Grid | None = None) -> Array:
    work, dtype = as_floats(x)
    for axis in _axes(work, grid):
        work = _stretch(work, axis, 0, work.shape[axis] * factor, 0, factor, margin)
    return settle(work, dtype)


def _up_window(x: Array, *, window: Window, whole: Grid, factor: int, margin: int) -> Array:
    work, dtype = as_floats(x)
    for axis in _axes(work, whole):
        part = window[whole.dims[axis]]
        first = max(part.start // factor - margin, 0)
        work = _stretch(work, axis, part.start, part.stop, first, factor, margin)
    return settle(work, dtype)


def _stretch(x: Array, axis: int, start: int, stop: int, first: int, factor: int, margin: int) -> Array:
    """Pixels ``start`` to ``stop`` of the finer axis; ``x`` begins with pixel ``first`` of the coarser one."""
    places = np.arange(start, stop)
    if not margin:
        return np.take(x, places // factor - first, axis)
    at = (places + 0.5) / factor - 0.5
    low = np.floor(at)
    weight = (at - low).astype(x.dtype)
    below = np.clip(low.astype(np.int64) - first, 0, x.shape[axis] - 1)
    above = np.where(weight == 0, below, np.clip(low.astype(np.int64) + 1 - first, 0, x.shape[axis] - 1))
    weight = weight.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    lower, upper = np.take(x, below, axis), np.take(x, above, axis)
    return np.asarray(lower * (1 - weight) + upper * weight)


# -- coarser --------------------------------------------------------------------------------------------


def _coarser(grid: Grid, *, factor: int) -> Grid:
    small = [dim for dim in grid.spatial if grid.sizes[dim] < factor]
    if small:
        raise StepError(
            f"remote.downsample: factor {factor} exceeds {small[0]}={grid.sizes[small[0]]}; use a smaller one"
        )
    return grid.coarsen(**dict.fromkeys(grid.spatial, factor))


def _coarser_source(out: Window, grid: Grid, *, factor: int) -> Window:
    return Window(
        {
            dim: (part.start * factor, part.stop * factor) if dim in grid.spatial else part
            for dim, part in out.items()
        }
    )


def _down(x: Array, *, factor: int, valid: float, grid: Grid | None = None) -> Array:
    work, dtype = as_floats(x)
    axes = _axes(work, grid)
    gaps = np.isnan(work)
    total = _blocks(np.where(gaps, 0, work).astype(np.float64), axes, factor)
    count = _blocks((~gaps).astype(np.float64), axes, factor)
    enough = (count > 0) & (count >= valid * factor ** len(axes))
    return settle(np.where(enough, total / np.maximum(count, 1), np.nan), dtype)


def _blocks(x: NDArray[np.float64], axes: tuple[int, ...], factor: int) -> NDArray[np.float64]:
    """Sums of blocks along the axes."""
    for axis in axes:
        count = x.shape[axis] // factor
        x = np.take(x, np.arange(count * factor), axis)
        x = x.reshape(*x.shape[:axis], count, factor, *x.shape[axis + 1 :]).sum(axis=axis + 1)
    return x


def _repeat(y: Array, *, factor: int, grid: Grid | None = None) -> Array:
    work, dtype = as_floats(y)
    for axis in _axes(work, grid):
        work = np.repeat(work, factor, axis)
        missing = 0 if grid is None else grid.shape[axis] - work.shape[axis]
        if missing > 0:  # what did not fill a block
            margins = [(0, missing) if i == axis else (0, 0) for i in range(work.ndim)]
            work = np.pad(work, margins, constant_values=np.nan)
    return settle(work, dtype)
