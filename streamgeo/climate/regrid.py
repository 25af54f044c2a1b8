"""Other latitudes and longitudes: bilinear, nearest and conservative regridding."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamgeo.climate.axes import Sphere, goes_round, sphere
from streamgeo.climate.weights import Weights, closest, edges, linear, overlaps
from streamgeo.errors import GridError, StepError
from streamgeo.grid import Axis, Grid
from streamgeo.locate import Coord, CoordLocator, Locator
from streamgeo.pointwise import Array, as_floats, settle
from streamgeo.step import POINT, Moves, Step, register
from streamgeo.window import Window

Method = Literal["bilinear", "nearest", "conservative"]
Floats = NDArray[np.float64]
Pair = tuple[Weights, Weights]


class Target(NamedTuple):
    """Where to: latitudes and longitudes (as tuples, so that they can be looked up), and how."""

    lat: tuple[float, ...]
    lon: tuple[float, ...]
    method: str


@register("climate.regrid")
def regrid(lat: ArrayLike, lon: ArrayLike, method: Method = "bilinear", valid: float = 1.0) -> Step:
    """Values at other latitudes and longitudes.

    Args:
        lat, lon: vectors of the new pixel centres in degrees, rising or falling steadily. Longitudes may be in
            another convention than the file's.
        method: ``"bilinear"`` interpolates between the four centres around; ``"nearest"`` takes the nearest
            centre in latitude and in longitude; ``"conservative"`` (first order) is the mean over the area of
            the new cell on the sphere, so that area means are kept. Cells reach half way to the next centre.
        valid: the share of the weights, 0 to 1, that must fall on values that are not NaN and inside the file;
            a pixel with less becomes NaN. With less than 1 the mean is that of what is there.

    The grid must have latitude and longitude vectors, in a file or as CRS and affine in degrees; longitudes that
    go round the globe are taken to do so. Outside of the file's centres (``"bilinear"``) or cells the result is
    NaN. The inverse goes back to the file's pixels by the same method: detail finer than the coarser of the two
    grids is lost. Floats keep their dtype, integers become float32; it is computed in float64. Source for
    ``"conservative"``: Jones 1999, Mon. Weather Rev. 127, 2204.

    Raises:
        StepError: for vectors that are not steady, another method or share; when it runs, without a grid.
        GridError: for a grid without latitude and longitude vectors.

    >>> regrid(lat=[10, 5, 0], lon=[0, 5, 10], method="conservative")
    sg.climate.regrid(lat=[10, 5, 0], lon=[0, 5, 10], method='conservative')
    """
    if method not in ("bilinear", "nearest", "conservative"):
        raise StepError(f'climate.regrid: method={method!r} must be "bilinear", "nearest" or "conservative"')
    if not 0 < valid <= 1:
        raise StepError(f"climate.regrid: valid={valid!r} must be a share, above 0 and at most 1")
    target = Target(_vector("lat", lat), _vector("lon", lon), method)
    if max(np.abs(target.lat)) > 90:
        raise StepError(f"climate.regrid: lat reaches {max(np.abs(target.lat)):g}; it must be from -90 to 90")
    moves = Moves(
        partial(_there_grid, target=target),
        partial(_there_source, target=target),
        partial(_there_window, target=target, valid=float(valid)),
        windowed=True,
    )
    return Step(
        partial(_there, target=target, valid=float(valid)),
        partial(_back, target=target, valid=float(valid)),
        reach=POINT,
        grid=moves,
        lossy="detail finer than the coarser of the two grids",
    )


def _vector(name: str, values: ArrayLike) -> tuple[float, ...]:
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise StepError(f"climate.regrid: {name} holds no numbers; give a vector in degrees") from None
    steps = np.diff(array) if array.ndim == 1 else np.zeros(1)
    if (
        array.ndim != 1
        or array.size < 2
        or not np.isfinite(array).all()
        or not (np.all(steps > 0) or np.all(steps < 0))
    ):
        raise StepError(
            f"climate.regrid: {name} of shape {array.shape} must be a vector of two or more degrees that rises or "
            "falls steadily"
        )
    return tuple(array.tolist())


# -- weights --------------------------------------------------------------------------------------------


def _weights(old: tuple[Floats, Floats], new: tuple[Floats, Floats], method: str) -> Pair:
    """Weights of the latitudes and of the longitudes; those of a pixel are their products."""
    (lat, lon), (lats, lons) = old, new
    if method == "conservative":
        sines = [np.sin(np.radians(np.clip(edges(v), -90, 90))) for v in (lat, lats)]
        return overlaps(sines[0], sines[1], None), overlaps(edges(lon), edges(lons), 360.0)
    period = 360.0 if goes_round(lon) else None
    if period is None:  # the convention of the file
        middle = (lon.max() + lon.min()) / 2
        lons = lons - 360 * np.round((lons - middle) / 360)
    kind = linear if method == "bilinear" else closest
    return kind(lat, lats, None), kind(lon, lons, period)


@lru_cache(maxsize=32)
def _there_weights(locator: Locator | None, axes: tuple[Axis, ...], target: Target) -> Pair:
    where = _vectors(Grid(axes, locator))
    return _weights((where.lat, where.lon), (np.array(target.lat), np.array(target.lon)), target.method)


@lru_cache(maxsize=32)
def _back_weights(locator: Locator | None, axes: tuple[Axis, ...], target: Target) -> Pair:
    where = _vectors(Grid(axes, locator))
    return _weights((np.array(target.lat), np.array(target.lon)), (where.lat, where.lon), target.method)


def _vectors(grid: Grid) -> Sphere:
    where = sphere(grid, "climate.regrid")
    if not where.vectors:
        raise GridError(
            f"climate.regrid: latitude and longitude lie on {where.lat_dims}; they must be vectors"
        )
    if min(where.lat.size, where.lon.size) < 2:
        raise GridError(
            f"climate.regrid: {where.lat.size} latitudes and {where.lon.size} longitudes; it takes two or more of each"
        )
    return where


def _weighted(x: Array, grid: Grid, rows: Weights, columns: Weights, valid: float) -> Array:
    """The products of weights and values over the two horizontal dims."""
    work, dtype = as_floats(x)
    where = _vectors(grid)
    axes = grid.dims.index(where.lat_dims[0]), grid.dims.index(where.lon_dims[0])
    values = np.moveaxis(work, axes, (-2, -1)).astype(np.float64)
    if values.shape[-2:] != (rows.size, columns.size):
        raise StepError(
            f"climate.regrid: {values.shape[-2:]} pixels in latitude and longitude, where the grid has "
            f"{(rows.size, columns.size)}"
        )
    there = ~np.isnan(values)
    total = columns.summed(rows.summed(np.where(there, values, 0), -2), -1)
    share = columns.summed(rows.summed(there.astype(np.float64), -2), -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where((share >= valid - 1e-9) & (share > 1e-12), total / share, np.nan)
    return settle(np.ascontiguousarray(np.moveaxis(mean, (-2, -1), axes)), dtype)


# -- forward, window, inverse ---------------------------------------------------------------------------


def _there(x: Array, *, target: Target, valid: float, grid: Grid) -> Array:
    return _weighted(x, grid, *_there_weights(grid.locator, grid.axes, target), valid)


def _back(y: Array, *, target: Target, valid: float, grid: Grid) -> Array:
    return _weighted(y, grid, *_back_weights(grid.locator, grid.axes, target), valid)


def _there_source(out: Window, grid: Grid, *, target: Target) -> Window:
    where = _vectors(grid)
    rows, columns = _there_weights(grid.locator, grid.axes, target)
    ydim, xdim = where.lat_dims[0], where.lon_dims[0]
    box = {ydim: slice(*rows.used(out[ydim])), xdim: slice(*columns.used(out[xdim]))}
    return Window({dim: box.get(dim, out[dim]) for dim in grid.dims})


def _there_window(x: Array, *, window: Window, whole: Grid, target: Target, valid: float) -> Array:
    where = _vectors(whole)
    rows, columns = _there_weights(whole.locator, whole.axes, target)
    y, x_ = window[where.lat_dims[0]], window[where.lon_dims[0]]
    return _weighted(x, whole, rows.cut(y), columns.cut(x_), valid)


def _there_grid(grid: Grid, *, target: Target) -> Grid:
    where = _vectors(grid)
    ydim, xdim = where.lat_dims[0], where.lon_dims[0]
    sizes = {ydim: len(target.lat), xdim: len(target.lon)}
    kept = [c for c in grid.coords if not {ydim, xdim} & set(c.dims)]
    new = [_coordinate(grid, dim, v) for dim, v in ((ydim, target.lat), (xdim, target.lon))]
    crs: Any = grid.locator.crs if isinstance(grid.locator, CoordLocator) else None
    if crs is None and grid.crs is not None:
        crs = {**grid.crs.to_cf(), "name": "spatial_ref"}
    axes = tuple(Axis(a.name, sizes.get(a.name, a.size), located=a.located) for a in grid.axes)
    return Grid(axes, CoordLocator((*kept, *new), (ydim, xdim), crs))


def _coordinate(grid: Grid, dim: str, values: tuple[float, ...]) -> Coord:
    """The coordinate of a dim with new values."""
    for coord in grid.coords:
        if coord.dims == (dim,) and coord.numeric:
            plain = coord.with_values(np.array(values))
            return Coord(
                plain.name, plain.dims, plain.raw, {k: v for k, v in plain.attrs.items() if k != "bounds"}
            )
    kind = "latitude" if dim == grid.spatial[0] else "longitude"
    units = "degrees_north" if kind == "latitude" else "degrees_east"
    return Coord(dim, (dim,), np.array(values), {"standard_name": kind, "units": units})
