"""Values between pixels: an image seen through a map from its pixels to those of another."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import StepError
from streamgeo.grid import Grid
from streamgeo.pointwise import Array, as_floats, settle
from streamgeo.window import Window

Method = Literal["nearest", "linear", "cubic"]
Floats = NDArray[np.float64]
Positions = tuple[Floats, Floats]
Locate = Callable[[Window], Positions]

METHODS: dict[str, int] = {"nearest": 1, "linear": 2, "cubic": 4}  # pixels that one takes, in each dim
_BLOCK = 1 << 16  # pixels at a time, so that what lies between stays in the processor's cache
_SAME = 1e-6  # of a pixel: taken for the pixel itself, so that its neighbours do not count


def checked_method(method: str, what: str) -> str:
    """The method, if there is such a one.

    Raises:
        StepError: else.
    """
    if method not in METHODS:
        raise StepError(f"{what}: method={method!r} must be one of {', '.join(METHODS)}")
    return method


def pull(
    x: Array, source: Window, whole: Grid, window: Window, dims: tuple[str, str], locate: Locate, method: str
) -> Array:
    """Pixels of a window of the output, each interpolated where ``locate`` finds it in the input.

    NaN where that is outside of the input, or where a pixel that it is interpolated from is NaN.

    Args:
        x: pixels of ``source``.
        source: what of the input is there; it must hold all that :func:`needed` says.
        whole: grid of the whole input.
        window: of the output.
        dims: the two dims (rows, columns) that move, of input and output.
        locate: a window of the output to the positions (rows, columns) of its pixels in the input; NaN for none.
        method: ``"nearest"``, ``"linear"`` or ``"cubic"`` (Keys 1981, IEEE Trans. ASSP 29, 1153, with a = -1/2).
            A cubic with a gap among its outer pixels is taken for a line, so that gaps do not grow.
    """
    axes = tuple(whole.dims.index(dim) for dim in dims)
    work, dtype = as_floats(x)
    planes = np.moveaxis(work, axes, (-2, -1))
    expected = tuple(source[dim].stop - source[dim].start for dim in dims)
    if planes.shape[-2:] != expected:
        raise StepError(f"resampling: the array has {planes.shape[-2:]} pixels in {dims}, not {expected}")
    part = {dim: window[dim] for dim in dims}
    rows, cols = part[dims[0]], part[dims[1]]
    out = np.empty((*planes.shape[:-2], rows.stop - rows.start, cols.stop - cols.start), work.dtype)
    taken = _Taken(planes, source, whole, dims, METHODS[method])
    block = max(1, _BLOCK // max(1, cols.stop - cols.start))
    for start in range(rows.start, rows.stop, block):
        stop = min(rows.stop, start + block)
        places = locate(Window({dims[0]: (start, stop), dims[1]: cols}))
        out[..., start - rows.start : stop - rows.start, :] = taken.at(*np.broadcast_arrays(*places))
    return settle(np.ascontiguousarray(np.moveaxis(out, (-2, -1), axes)), dtype)


def needed(
    whole: Grid, window: Window, dims: tuple[str, str], locate: Locate, method: str, *, edges: bool
) -> Window:
    """The window of the input that a window of the output is interpolated from; one pixel where it needs none.

    Args:
        whole, window, dims, locate, method: as for :func:`pull`.
        edges: look at the edge of the window only, which is enough for a map that has no holes.
    """
    rows, cols = (window[dim] for dim in dims)
    parts: list[dict[str, Any]] = [{dims[0]: rows, dims[1]: cols}]
    if edges:
        parts = [{dims[0]: (at, at + 1), dims[1]: cols} for at in {rows.start, rows.stop - 1}]
        parts += [{dims[0]: rows, dims[1]: (at, at + 1)} for at in {cols.start, cols.stop - 1}]
    found = [np.broadcast_arrays(*locate(Window(part))) for part in parts]
    box: dict[str, Any] = {}
    for k, dim in enumerate(dims):
        values = np.concatenate([positions[k].ravel() for positions in found])
        box[dim] = _span(values, whole.sizes[dim], METHODS[method])
    return Window(
        {dim: box.get(dim, window[dim] if dim in window else (0, whole.sizes[dim])) for dim in whole.dims}
    )


def _span(values: Floats, size: int, taps: int) -> tuple[int, int]:
    values = values[np.isfinite(values)]
    if not values.size:
        return 0, 1
    # one more than the pixels that are taken: between the pixels of the edge it may bulge
    low, high = math.floor(values.min()) - taps // 2 - 1, math.ceil(values.max()) + taps // 2 + 2
    low = min(max(low, 0), size - 1)
    return low, max(min(high, size), low + 1)


class _Taken:
    """The pixels that are there, with their outermost ones repeated, so that no index leaves them."""

    def __init__(self, planes: Array, source: Window, whole: Grid, dims: tuple[str, str], taps: int) -> None:
        margin = [(taps, taps), (taps, taps)]
        padded = np.pad(planes, [(0, 0)] * (planes.ndim - 2) + margin, mode="edge")
        self.width, self.taps = padded.shape[-1], taps
        self.height = padded.shape[-2]
        self.lead = planes.shape[:-2]
        self.flat = np.ascontiguousarray(padded).reshape(-1, self.height * self.width)
        self.first = [taps - source[dim].start for dim in dims]
        self.sizes = [whole.sizes[dim] for dim in dims]
        self.clean = bool(np.isfinite(planes).all())

    def at(self, rows: Floats, cols: Floats) -> Array:
        """Values at positions in the whole input; beside a gap a cubic is taken for a line."""
        out = self._at(rows, cols, self.taps)
        if self.taps > 2 and not self.clean:
            out = np.where(np.isnan(out), self._at(rows, cols, 2), out)
        return out

    def _at(self, rows: Floats, cols: Floats, taps: int) -> Array:
        inside = np.ones(rows.shape, bool)
        base = np.zeros(rows.shape, np.intp)
        weights = []
        for places, first, size, stride in zip((rows, cols), self.first, self.sizes, (self.width, 1)):
            inside &= (places >= -0.5) & (places <= size - 0.5)
            low, shares = _shares(np.where(inside, places, 0.0), taps, self.flat.dtype)
            base += np.where(inside, low + first, 0) * stride
            weights.append(shares)
        out = np.stack([self._summed(plane, base, *weights) for plane in self.flat])
        out[:, ~inside] = np.nan
        return out.reshape(*self.lead, *rows.shape)

    def _summed(self, plane: Array, base: Any, down: list[Array], across: list[Array]) -> Array:
        total = np.zeros(base.shape, plane.dtype)
        for j, v in enumerate(down):
            line = np.zeros(base.shape, plane.dtype)
            for i, h in enumerate(across):
                values = plane[base + (j * self.width + i)]
                # nothing of a pixel is nothing, also where the pixel is NaN
                line += values * h if self.clean else np.where(h * v == 0, 0, values * h)
            total += line * v if self.clean else np.where(v == 0, 0, line * v)
        return total


def _shares(places: Floats, taps: int, dtype: Any) -> tuple[Any, list[Array]]:
    """The first pixel that is taken for each place, and the weights of it and those behind it."""
    near = np.rint(places)
    if taps == 1:
        return near.astype(np.intp), [np.ones(places.shape, dtype)]
    places = np.where(np.abs(places - near) < _SAME, near, places)
    low = np.floor(places)
    t = (places - low).astype(dtype)
    first = low.astype(np.intp)
    if taps == 2:
        return first, [1 - t, t]
    return first - 1, [
        ((-0.5 * t + 1) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1,
        ((-1.5 * t + 2) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    ]
