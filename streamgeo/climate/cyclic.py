"""Cyclic padding: columns from the other side of the globe at both ends of the longitudes."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from streamgeo.climate.axes import goes_round, sphere
from streamgeo.errors import GridError, StepError
from streamgeo.grid import Grid
from streamgeo.pointwise import Array
from streamgeo.step import POINT, Moves, Step, register
from streamgeo.window import Window


@register("climate.cyclic")
def cyclic(width: int, dim: str | None = None) -> Step:
    """Pad the longitudes with ``width`` columns from the other side, so that convolutions go round the globe.

    The coordinates run on: 0..359 padded by 2 is -2..361. The inverse crops the padding off, also of a
    prediction with finer pixels by a whole factor.

    Args:
        width: columns on each side, at least 1.
        dim: the dim; by default that of the longitudes, and without coordinates the last horizontal one.

    The dtype stays; NaN stays NaN. Windows of a patch are read from both sides where they need it.

    Raises:
        StepError: for a width below 1, or (when it runs) above the number of columns, a dim that is not
            there, or longitudes that do not go round the globe.

    >>> cyclic(1)(np.array([[1, 2, 3]])).tolist()
    [[3, 1, 2, 3, 1]]
    """
    if isinstance(width, bool) or not isinstance(width, (int, np.integer)) or width < 1:
        raise StepError(f"climate.cyclic: width={width!r} must be a whole number of columns, 1 or more")
    bound: dict[str, Any] = {"width": int(width), "dim": dim}
    moves = Moves(
        partial(_wider, **bound),
        partial(_wider_source, **bound),
        partial(_wrap_window, **bound),
        windowed=True,
    )
    return Step(partial(_wrap, **bound), partial(_unwrap, **bound), reach=POINT, grid=moves, dtype=np.dtype)


def _dim(grid: Grid, dim: str | None, width: int) -> str:
    """The dim of the longitudes, after a check that they go round."""
    try:
        where = sphere(grid, "climate.cyclic")
    except GridError:
        where = None
    found = dim if dim is not None else grid.spatial[-1]
    if where is not None and where.vectors and (dim is None or where.lon_dims == (dim,)):
        found = where.lon_dims[0]
        if not goes_round(where.lon):
            raise StepError(
                f"climate.cyclic: the longitudes, {where.lon.min():g} to {where.lon.max():g} in {where.lon.size} "
                "columns, do not go round the globe"
            )
    if found not in grid.dims:
        raise StepError(f"climate.cyclic: no dim {found!r}; the dims are {grid.dims}")
    if width > grid.sizes[found]:
        raise StepError(
            f"climate.cyclic: width {width} exceeds {found}={grid.sizes[found]}; use a smaller one"
        )
    return found


def _longitude(grid: Grid) -> str:
    try:
        where = sphere(grid, "climate.cyclic")
    except GridError:
        return grid.spatial[-1]
    return where.lon_dims[0] if where.vectors else grid.spatial[-1]


def _wider(grid: Grid, *, width: int, dim: str | None) -> Grid:
    return grid.pad(**{_dim(grid, dim, width): (width, width)})


def _axis(x: Array, grid: Grid | None, dim: str | None, width: int) -> int:
    if grid is not None and len(grid.dims) == x.ndim:
        return grid.dims.index(_dim(grid, dim, width))
    names = [f"dim_{i}" for i in range(x.ndim)]
    if dim is not None and dim not in names:
        raise StepError(
            f"climate.cyclic: an array without a grid has the dims {names}, not {dim!r}; give grid="
        )
    axis = x.ndim - 1 if dim is None else names.index(dim)
    if width > x.shape[axis]:
        raise StepError(
            f"climate.cyclic: width {width} exceeds the {x.shape[axis]} columns; use a smaller one"
        )
    return axis


def _wrap(x: Array, *, width: int, dim: str | None, grid: Grid | None = None) -> Array:
    axis = _axis(x, grid, dim, width)
    size = x.shape[axis]
    return np.asarray(np.take(x, np.arange(-width, size + width) % size, axis))


def _turn(part: slice, width: int, size: int) -> tuple[int, int] | None:
    """The columns of a window where they lie on one turn of the globe; None where it crosses the seam."""
    low, high = part.start - width, part.stop - width
    turn = low // size * size
    return (low - turn, high - turn) if high <= turn + size else None


def _wider_source(out: Window, grid: Grid, *, width: int, dim: str | None) -> Window:
    name = _dim(grid, dim, width)
    box = _turn(out[name], width, grid.sizes[name]) or (0, grid.sizes[name])
    return Window({**out, name: slice(*box)})


def _wrap_window(x: Array, *, window: Window, whole: Grid, width: int, dim: str | None) -> Array:
    name = _dim(whole, dim, width)
    size, part = whole.sizes[name], window[name]
    if _turn(part, width, size) is not None:
        return x
    columns = np.arange(part.start - width, part.stop - width) % size
    return np.asarray(np.take(x, columns, whole.dims.index(name)))


def _unwrap(y: Array, *, width: int, dim: str | None, grid: Grid | None = None) -> Array:
    if grid is None or len(grid.dims) != y.ndim:
        names = [f"dim_{i}" for i in range(y.ndim)]
        axis = y.ndim - 1 if dim is None else names.index(dim)
        margin = width
    else:
        axis = grid.dims.index(dim if dim is not None else _longitude(grid))
        margin, rest = divmod(y.shape[axis] - grid.shape[axis], 2)
        if rest or margin <= 0:
            raise StepError(
                f"inverse of climate.cyclic: {y.shape[axis]} columns cannot be {grid.shape[axis]} with a margin of "
                f"{width} on each side, nor that with finer pixels"
            )
    return np.asarray(np.take(y, np.arange(margin, y.shape[axis] - margin), axis))
