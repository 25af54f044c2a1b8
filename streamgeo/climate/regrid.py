"""Other latitudes and longitudes: bilinear, nearest and conservative regridding."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamgeo.climate.axes import Sphere, goes_round, sphere
from streamgeo.errors import GridError, StepError
from streamgeo.grid import Axis, Grid
from streamgeo.locate import Coord, CoordLocator, Locator
from streamgeo.pointwise import Array, as_floats, settle
from streamgeo.step import POINT, Moves, Step, register
from streamgeo.window import Window

Method = Literal["bilinear", "nearest", "conservative"]
Floats = NDArray[np.float64]


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


def _linear(old: Floats, new: Floats, period: float | None) -> Floats:
    """Weights of interpolation between centres; none outside of them."""
    weights = np.zeros((new.size, old.size))
    order = np.argsort(old)
    places, number = old[order], order
    if period is not None:
        new = places[0] + np.mod(new - places[0], period)
        places, number = np.append(places, places[0] + period), np.append(number, number[0])
    at = np.clip(np.searchsorted(places, new, side="right") - 1, 0, places.size - 2)
    share = (new - places[at]) / (places[at + 1] - places[at])
    share[np.abs(share) < 1e-12], share[np.abs(share - 1) < 1e-12] = 0.0, 1.0
    inside = (share >= 0) & (share <= 1)
    rows = np.flatnonzero(inside)
    np.add.at(weights, (rows, number[at[inside]]), 1 - share[inside])
    np.add.at(weights, (rows, number[at[inside] + 1]), share[inside])
    return weights


def edges(centres: Floats) -> Floats:
    """Edges of cells half way between centres, the outer ones as far out as in."""
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])


def _closest(old: Floats, new: Floats, period: float | None) -> Floats:
    """One for the nearest centre, of those whose cell it is in."""
    apart = new[:, None] - old[None, :]
    if period is not None:
        apart = (apart + period / 2) % period - period / 2
    nearest = np.abs(apart).argmin(1)
    bounds = edges(old)
    reach = np.abs(np.diff(bounds))[nearest] / 2 + 1e-9
    weights = np.zeros((new.size, old.size))
    inside = np.abs(apart[np.arange(new.size), nearest]) <= np.maximum(reach, 0)
    inside |= (new > bounds.min()) & (new < bounds.max())
    weights[np.flatnonzero(inside), nearest[inside]] = 1
    return weights


def _overlaps(old: Floats, new: Floats, period: float | None) -> Floats:
    """The share of each new cell that lies in each old one; ``old`` and ``new`` are edges."""
    low, high = np.minimum(new[1:], new[:-1]), np.maximum(new[1:], new[:-1])
    weights = np.zeros((low.size, old.size - 1))
    turns = (0.0,) if period is None else tuple(period * np.arange(-2, 3))
    for turn in turns:
        left, right = np.minimum(old[1:], old[:-1]) + turn, np.maximum(old[1:], old[:-1]) + turn
        common = np.minimum(high[:, None], right[None]) - np.maximum(low[:, None], left[None])
        weights += np.clip(common, 0, None)
    return np.asarray(weights / (high - low)[:, None])


def _matrices(old: tuple[Floats, Floats], new: tuple[Floats, Floats], method: str) -> tuple[Floats, Floats]:
    """Weights (new, old) of the latitudes and of the longitudes; those of a pixel are their products."""
    (lat, lon), (lats, lons) = old, new
    period = 360.0 if goes_round(lon) else None
    if period is None:  # the convention of the file
        middle = (lon.max() + lon.min()) / 2
        lons = lons - 360 * np.round((lons - middle) / 360)
    if method == "bilinear":
        return _linear(lat, lats, None), _linear(lon, lons, period)
    if method == "nearest":
        return _closest(lat, lats, None), _closest(lon, lons, period)
    sines = [np.sin(np.radians(np.clip(edges(v), -90, 90))) for v in (lat, lats)]
    if period is None and np.any(np.abs(np.diff(lons)) > 180):
        raise StepError("climate.regrid: lon goes across the end of the file; take the part inside of it")
    return _overlaps(sines[0], sines[1], None), _overlaps(edges(lon), edges(lons), 360.0)


@lru_cache(maxsize=32)
def _there_weights(locator: Locator | None, axes: tuple[Axis, ...], target: Target) -> tuple[Floats, Floats]:
    where = _vectors(Grid(axes, locator))
    return _matrices((where.lat, where.lon), (np.array(target.lat), np.array(target.lon)), target.method)


@lru_cache(maxsize=32)
def _back_weights(locator: Locator | None, axes: tuple[Axis, ...], target: Target) -> tuple[Floats, Floats]:
    where = _vectors(Grid(axes, locator))
    return _matrices((np.array(target.lat), np.array(target.lon)), (where.lat, where.lon), target.method)


def _vectors(grid: Grid) -> Sphere:
    where = sphere(grid, "climate.regrid")
    if not where.vectors:
        raise GridError(
            f"climate.regrid: latitude and longitude lie on {where.lat_dims}; they must be vectors"
        )
    return where


def _weighted(x: Array, grid: Grid, rows: Floats, columns: Floats, valid: float) -> Array:
    """The products of weights and values over the two horizontal dims."""
    work, dtype = as_floats(x)
    where = _vectors(grid)
    axes = grid.dims.index(where.lat_dims[0]), grid.dims.index(where.lon_dims[0])
    values = np.moveaxis(work, axes, (-2, -1)).astype(np.float64)
    if values.shape[-2:] != (rows.shape[1], columns.shape[1]):
        raise StepError(
            f"climate.regrid: {values.shape[-2:]} pixels in latitude and longitude, where the grid has "
            f"{(rows.shape[1], columns.shape[1])}"
        )
    there = ~np.isnan(values)
    total = _summed(_summed(np.where(there, values, 0), rows, -2), columns, -1)
    share = _summed(_summed(there.astype(np.float64), rows, -2), columns, -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where((share >= valid - 1e-9) & (share > 1e-12), total / share, np.nan)
    return settle(np.ascontiguousarray(np.moveaxis(mean, (-2, -1), axes)), dtype)


def _summed(x: Floats, weights: Floats, axis: int) -> Floats:
    """The sums of weights and values along an axis, of the few weights of each new pixel that are not 0.

    Always added in the order of the pixels, so that a window gives the same digits as the whole.
    """
    new, old = np.nonzero(weights)
    count = np.bincount(new, minlength=len(weights))
    place = np.arange(new.size) - np.repeat(np.cumsum(count) - count, count)
    index = np.zeros((int(count.max(initial=0)), len(weights)), np.int64)
    share = np.zeros(index.shape)
    index[place, new], share[place, new] = old, weights[new, old]
    shape = [-1 if i == x.ndim + axis else 1 for i in range(x.ndim)]
    out = np.zeros([len(weights) if i == x.ndim + axis else size for i, size in enumerate(x.shape)])
    for pixels, part in zip(index, share):
        out += np.take(x, pixels, axis) * part.reshape(shape)
    return out


# -- forward, window, inverse ---------------------------------------------------------------------------


def _there(x: Array, *, target: Target, valid: float, grid: Grid) -> Array:
    return _weighted(x, grid, *_there_weights(grid.locator, grid.axes, target), valid)


def _back(y: Array, *, target: Target, valid: float, grid: Grid) -> Array:
    return _weighted(y, grid, *_back_weights(grid.locator, grid.axes, target), valid)


def _used(weights: Floats, part: slice) -> tuple[int, int]:
    """The first and last pixel that a part of the new ones needs; the first pixel where it needs none."""
    found = np.flatnonzero(weights[part].any(axis=0))
    return (int(found[0]), int(found[-1]) + 1) if found.size else (0, 1)


def _there_source(out: Window, grid: Grid, *, target: Target) -> Window:
    where = _vectors(grid)
    rows, columns = _there_weights(grid.locator, grid.axes, target)
    ydim, xdim = where.lat_dims[0], where.lon_dims[0]
    box = {ydim: slice(*_used(rows, out[ydim])), xdim: slice(*_used(columns, out[xdim]))}
    return Window({dim: box.get(dim, out[dim]) for dim in grid.dims})


def _there_window(x: Array, *, window: Window, whole: Grid, target: Target, valid: float) -> Array:
    where = _vectors(whole)
    rows, columns = _there_weights(whole.locator, whole.axes, target)
    y, x_ = window[where.lat_dims[0]], window[where.lon_dims[0]]
    near = _there_source(window, whole, target=target)
    rows = rows[y, near[where.lat_dims[0]]]
    return _weighted(x, whole, rows, columns[x_, near[where.lon_dims[0]]], valid)


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
