"""Linear trends taken out, and put back."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.climate.axes import places_along, whole_along
from streamgeo.climate.gaps import axis_of
from streamgeo.errors import StepError
from streamgeo.grid import Grid
from streamgeo.pointwise import Array, as_floats, settle
from streamgeo.step import POINT, Step, register

Floats = NDArray[np.float64]


@register("climate.detrend")
def detrend(dim: str | None = None) -> Step:
    """Take out the straight line that fits each pixel best over time (least squares), mean included.

    Args:
        dim: the dim; by default that of the time coordinate. Times need not be evenly spaced.

    The forward function also returns slope and intercept of each pixel (its residual), from which the inverse
    puts the line back. Pixels with NaN are fitted to the times that are there; NaN stays NaN, and a pixel with
    one value loses that value as its mean. A patch reads all times of its pixels, so it may cut time as well.
    Floats keep their dtype, integers become float32; the fit is made in float64.

    Raises:
        StepError: when it runs, without such a dim, or in the inverse when the number of times has changed.

    >>> x = np.array([1.0, 3.0, 5.0]).reshape(3, 1, 1)
    >>> y, line = detrend("dim_0").forward(x)
    >>> y.ravel().round(9).tolist(), detrend("dim_0").undo(y, residual=line).ravel().tolist()
    ([0.0, 0.0, 0.0], [1.0, 3.0, 5.0])
    """
    moves = whole_along(partial(_detrend, dim=dim), None if dim is None else (dim,), "climate.detrend")
    return Step(partial(_detrend, dim=dim), partial(_retrend, dim=dim), reach=POINT, grid=moves)


def _detrend(x: Array, *, dim: str | None, grid: Grid | None = None) -> tuple[Array, Floats]:
    work, dtype = as_floats(x)
    axis = axis_of(work, dim, grid, "climate.detrend")
    places = _centred(grid, axis, work.shape[axis])
    # summed along the innermost axis of a copy, so that the digits do not depend on the pixels around
    values = np.ascontiguousarray(np.moveaxis(work, axis, -1), np.float64)
    there = ~np.isnan(values)
    known, when = np.where(there, values, 0), np.where(there, places, 0)
    count = np.maximum(there.sum(-1), 1)
    middle, mean = when.sum(-1) / count, known.sum(-1) / count
    apart = np.where(there, when - middle[..., None], 0)
    spread = (apart**2).sum(-1)
    slope = (apart * (known - mean[..., None])).sum(-1) / np.where(spread == 0, 1, spread)
    line = np.stack([slope, mean - slope * middle])
    return _added(work, line, axis, places, dtype, -1), line


def _retrend(y: Array, *, dim: str | None, residual: Floats, grid: Grid | None = None) -> Array:
    work, dtype = as_floats(y)
    axis = axis_of(work, dim, grid, "inverse of climate.detrend")
    line = np.asarray(residual)
    shape = (2, *(size for i, size in enumerate(work.shape) if i != axis))
    if line.ndim != len(shape) or any(new % old for new, old in zip(shape, line.shape)):
        raise StepError(
            f"inverse of climate.detrend: trends of shape {line.shape[1:]} do not fit a prediction of shape "
            f"{work.shape}; give an inverse of your own with key_transform(..., inverse=...)"
        )
    for i, (new, old) in enumerate(zip(shape, line.shape)):
        line = line if new == old else np.repeat(line, new // old, i)  # a model made pixels finer
    return _added(work, line, axis, _centred(grid, axis, work.shape[axis]), dtype, 1)


def _centred(grid: Grid | None, axis: int, size: int) -> Floats:
    """Times from -1 to 1, so that slopes are of the size of the values."""
    places = places_along(grid, grid.dims[axis] if grid is not None else None, size)
    half = (places.max() - places.min()) / 2 if size > 1 else 1.0
    return np.asarray((places - (places.max() + places.min()) / 2) / half)


def _added(x: Array, line: Floats, axis: int, places: Floats, dtype: Any, sign: int) -> Array:
    shape = [-1 if i == axis else 1 for i in range(x.ndim)]
    slope, intercept = (np.expand_dims(part, axis) for part in line)
    return settle(x + sign * (intercept + slope * places.reshape(shape)), dtype)
