"""Gaps filled from what lies around them, in space or in time; the inverse opens them again."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from streamgeo.climate.axes import goes_round, places_along, sphere, time_dim, whole_along
from streamgeo.errors import GridError, StepError
from streamgeo.grid import Grid
from streamgeo.optional import optional
from streamgeo.pointwise import Array, as_floats, settle
from streamgeo.step import POINT, SCENE, Step, register
from streamgeo.steps.gaps import refined

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
_DIRECT = 40_000  # unknowns up to which the equations are solved directly


@register("climate.fill_gaps")
def fill_gaps(
    method: Literal["nearest", "inpaint"] = "nearest", limit: float | None = None, restore: bool = True
) -> Step:
    """Fill NaN from the pixels around it, in the two horizontal dims, each slice on its own.

    Args:
        method: ``"nearest"`` takes the nearest pixel that is there (distance in pixels; rows before columns
            where two are as near). ``"inpaint"`` makes a surface without bumps across the gap: the solution of
            Laplace's equation, which every filled pixel being the mean of its neighbours means.
        limit: how far from a pixel that is there a gap is filled, in pixels; what lies farther stays NaN. By
            default all is filled.
        restore: whether the inverse puts NaN back where it was (the forward function also returns the mask, its
            residual, which a chain carries). With False what is filled stays: for a product without gaps.

    Longitudes that go round the globe are taken to do so. A slice without any value stays NaN. Floats keep
    their dtype, integers become float32. It needs the whole scene, so ``patch`` reads from memory behind it.
    Needs scipy (``pip install 'streamgeo[xarray]'``).

    Raises:
        StepError: for another method or a limit not above 0, and where scipy is not installed.

    >>> x = np.array([[1.0, np.nan, np.nan, 4.0]])
    >>> fill_gaps("inpaint")(x).round(6).tolist(), fill_gaps(limit=1)(np.array([[1, np.nan, np.nan]])).tolist()
    ([[1.0, 2.0, 3.0, 4.0]], [[1.0, 1.0, nan]])
    """
    if method not in ("nearest", "inpaint"):
        raise StepError(f'climate.fill_gaps: method={method!r} must be "nearest" or "inpaint"')
    if limit is not None and not limit > 0:
        raise StepError(f"climate.fill_gaps: limit={limit!r} must be above 0, in pixels")
    far = np.inf if limit is None else float(limit)
    bound: dict[str, Any] = {"method": method, "limit": far}
    if restore:
        return Step(partial(_fill, **bound), _reopen, reach=SCENE)
    return Step(partial(_filled, **bound), _stay, reach=SCENE, lossy="where the gaps were")


def _fill(x: Array, *, method: str, limit: float, grid: Grid | None = None) -> tuple[Array, Bools]:
    work, dtype = as_floats(x)
    mask = np.isnan(work)
    if not mask.any():
        return settle(work, dtype), mask
    axes = tuple(range(max(work.ndim - 2, 0), work.ndim))
    if grid is not None and len(grid.dims) == work.ndim:
        axes = tuple(grid.dims.index(dim) for dim in grid.spatial)
    moved = np.moveaxis(work, axes, range(work.ndim - len(axes), work.ndim))
    slices = moved.reshape(
        -1, *((1,) if len(axes) == 1 else ()), *moved.shape[work.ndim - len(axes) :]
    ).copy()
    round_ = _goes_round(grid)
    for plane in slices:
        gaps = np.isnan(plane)
        if gaps.any() and not gaps.all():
            plane[...] = _fill_plane(plane, gaps, method, limit, round_)
    filled = np.moveaxis(slices.reshape(moved.shape), range(work.ndim - len(axes), work.ndim), axes)
    return settle(np.ascontiguousarray(filled), dtype), mask


def _filled(x: Array, *, method: str, limit: float, grid: Grid | None = None) -> Array:
    return _fill(x, method=method, limit=limit, grid=grid)[0]


def _reopen(y: Array, *, residual: Bools) -> Array:
    work, dtype = as_floats(y)
    mask = refined(residual.astype(bool), work.shape, "climate.fill_gaps")
    return settle(np.where(mask, np.asarray(np.nan, work.dtype), work), dtype)


def _stay(y: Array) -> Array:
    return settle(*as_floats(y))


def _goes_round(grid: Grid | None) -> bool:
    """Whether the last of the horizontal dims are longitudes all around the globe."""
    if grid is None or grid.locator is None:
        return False
    try:
        where = sphere(grid, "climate.fill_gaps")
    except GridError:
        return False
    return where.vectors and where.lon_dims[0] == grid.spatial[-1] and goes_round(where.lon)


def _fill_plane(plane: Array, gaps: Bools, method: str, limit: float, round_: bool) -> Array:
    distance, rows, columns = _nearest(gaps, round_)
    near = plane[rows, columns]
    if method == "inpaint":
        near = _inpaint(plane, gaps, near, round_)
    return np.where(distance <= limit, near, plane)


def _scipy(part: str) -> Any:
    return optional(f"scipy.{part}", "xarray", "climate.fill_gaps")


def _nearest(gaps: Bools, round_: bool) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Distance of each pixel to the nearest that is there, and that one's row and column."""
    transform = _scipy("ndimage").distance_transform_edt
    nx = gaps.shape[1]
    half = nx // 2 if round_ else 0
    wide = np.pad(gaps, ((0, 0), (half, half)), mode="wrap") if half else gaps
    distance, (rows, columns) = transform(wide, return_indices=True)
    inner = (slice(None), slice(half, half + nx))
    return distance[inner], rows[inner], (columns[inner] - half) % nx


def _inpaint(plane: Array, gaps: Bools, near: Array, round_: bool) -> Array:
    """The surface across the gaps; where they are large, from that of pixels twice as wide, which is a good start."""
    if int(gaps.sum()) <= _DIRECT or min(plane.shape) < 8:
        return _laplace(plane, gaps, near, round_)
    ny, nx = plane.shape
    even = np.pad(plane.astype(np.float64), ((0, ny % 2), (0, nx % 2)), mode="edge")
    there = ~np.isnan(even)
    total, count = (
        v[::2, ::2] + v[1::2, ::2] + v[::2, 1::2] + v[1::2, 1::2]
        for v in (np.where(there, even, 0), there * 1)
    )
    coarse = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    holes = np.isnan(coarse)
    if holes.any():
        _, rows, columns = _nearest(holes, round_)
        coarse = _inpaint(coarse, holes, coarse[rows, columns], round_)
    for axis in (0, 1):
        coarse = _halved(coarse, axis)
    return _laplace(plane, gaps, coarse[:ny, :nx], round_)


def _halved(x: Array, axis: int) -> Array:
    """Pixels half as wide, interpolated linearly."""
    size = x.shape[axis]
    at = np.arange(size)
    before, after = (np.take(x, np.clip(at + shift, 0, size - 1), axis) for shift in (-1, 1))
    pair = np.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1)
    return np.asarray(pair.reshape([2 * n if i == axis else n for i, n in enumerate(x.shape)]))


def _laplace(plane: Array, gaps: Bools, start: Array, round_: bool) -> Array:
    """Each pixel of a gap the mean of its neighbours (of three or two at the edges of the array)."""
    sparse, linalg = (_scipy(name) for name in ("sparse", "sparse.linalg"))
    number = np.full(gaps.shape, -1)
    number[gaps] = np.arange(int(gaps.sum()))
    rows: list[Any] = []
    columns: list[Any] = []
    count, known = np.zeros(gaps.shape), np.zeros(gaps.shape)
    values = np.where(gaps, 0, plane).astype(np.float64)
    for axis, shift in ((0, 1), (0, -1), (1, 1), (1, -1)):
        there = np.ones(gaps.shape, bool)
        if not (round_ and axis == 1):
            edge = 0 if shift == 1 else -1
            there[(edge, slice(None)) if axis == 0 else (slice(None), edge)] = False
        beside = np.roll(number, shift, axis)
        count += there
        known += np.where(there & (beside < 0), np.roll(values, shift, axis), 0)
        link = gaps & there & (beside >= 0)
        rows.append(number[link])
        columns.append(beside[link])
    total = int(gaps.sum())
    row, column = np.concatenate(rows), np.concatenate(columns)
    matrix = sparse.diags(count[gaps]) - sparse.coo_matrix((np.ones(row.size), (row, column)), (total, total))
    out = plane.astype(np.float64)
    if total <= _DIRECT:
        out[gaps] = linalg.spsolve(matrix.tocsc(), known[gaps])
        return out
    scale = sparse.diags(1 / count[gaps])
    found, failed = linalg.cg(
        matrix.tocsr(), known[gaps], x0=start[gaps].astype(np.float64), rtol=1e-7, maxiter=5000, M=scale
    )
    if failed:
        raise StepError(
            f"climate.fill_gaps: inpainting {total} pixels did not converge; use limit= or method='nearest'"
        )
    out[gaps] = found
    return out


# -- time -----------------------------------------------------------------------------------------------


@register("climate.fill_time")
def fill_time(dim: str | None = None, ends: bool = False, restore: bool = True) -> Step:
    """Fill NaN by linear interpolation between the times before and after, each pixel on its own.

    Args:
        dim: the dim; by default that of the time coordinate. Times need not be evenly spaced.
        ends: whether gaps at the beginning and the end take the nearest value; otherwise they stay NaN.
        restore: as in :func:`fill_gaps`.

    A pixel without any value (land) stays NaN. The inverse opens the gaps again, as in :func:`fill_gaps`. A patch
    reads all times of its pixels, so it may cut time as well. Floats keep their dtype, integers become float32.

    Raises:
        StepError: when it runs, without such a dim.

    >>> x = np.array([1.0, np.nan, 4.0, np.nan]).reshape(4, 1, 1)
    >>> fill_time("dim_0")(x).ravel().tolist(), fill_time("dim_0", ends=True)(x).ravel().tolist()
    ([1.0, 2.5, 4.0, nan], [1.0, 2.5, 4.0, 4.0])
    """
    bound: dict[str, Any] = {"dim": dim, "ends": bool(ends)}
    moves = whole_along(partial(_bridged, **bound), None if dim is None else (dim,), "climate.fill_time")
    if restore:
        return Step(partial(_bridge, **bound), _reopen, reach=POINT, grid=moves)
    return Step(partial(_bridged, **bound), _stay, reach=POINT, grid=moves, lossy="where the gaps were")


def _bridged(x: Array, *, dim: str | None, ends: bool, grid: Grid | None = None) -> Array:
    return _bridge(x, dim=dim, ends=ends, grid=grid)[0]


def _bridge(x: Array, *, dim: str | None, ends: bool, grid: Grid | None = None) -> tuple[Array, Bools]:
    work, dtype = as_floats(x)
    mask = np.isnan(work)
    axis = axis_of(work, dim, grid, "climate.fill_time")
    size = work.shape[axis]
    name = grid.dims[axis] if grid is not None else None
    places = places_along(grid, name, size)
    values, gaps = np.moveaxis(work, axis, 0).astype(np.float64), np.moveaxis(mask, axis, 0)
    numbers = np.arange(size).reshape(-1, *[1] * (values.ndim - 1))
    before = np.maximum.accumulate(np.where(gaps, -1, numbers), 0)
    after = np.minimum.accumulate(np.where(gaps, size, numbers)[::-1], 0)[::-1]
    low, high = np.clip(before, 0, None), np.clip(after, None, size - 1)
    start, stop = (np.take_along_axis(values, index, 0) for index in (low, high))
    span = places[high] - places[low]
    share = np.where(span == 0, 0, (places[numbers] - places[low]) / np.where(span == 0, 1, span))
    line = start + share * (stop - start)
    line = np.where((before >= 0) & (after < size), line, np.nan)
    if ends:
        line = np.where(before < 0, stop, np.where(after >= size, start, line))
    filled = np.where(gaps, line, values)
    return settle(np.ascontiguousarray(np.moveaxis(filled, 0, axis)), dtype), mask


def axis_of(x: Array, dim: str | None, grid: Grid | None, what: str) -> int:
    """The axis of a dim by name, which an array without a grid has as ``dim_0``, ``dim_1``, ..."""
    if grid is not None and len(grid.dims) == x.ndim:
        return grid.dims.index(time_dim(grid, dim, what))
    names = [f"dim_{i}" for i in range(x.ndim)]
    if dim in names:
        return names.index(dim)
    raise StepError(
        f"{what}: an array without a grid has the dims {names}, not {dim or 'time'!r}; give grid="
    )
