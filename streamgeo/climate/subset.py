"""Region and period: the part of a scene inside given coordinates."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from streamgeo.climate.axes import Sphere, decoded, sphere, time_coord
from streamgeo.errors import GridError, StepError
from streamgeo.grid import Axis, Grid
from streamgeo.locate import Coord, CoordLocator, Floats, GeoLocator, Locator
from streamgeo.pointwise import Array
from streamgeo.step import POINT, Moves, Step, register
from streamgeo.window import Window

Pair = tuple[float, float]
Part = tuple[int, int]
Parts = tuple[Part, ...]
_DATE = re.compile(r"^(-?\d{1,5})(?:-(\d\d?))?(?:-(\d\d?))?(?:[T ](\d\d?)(?::(\d\d?))?(?::(\d\d?))?Z?)?$")


@register("climate.subset")
def subset(
    *,
    lon: Pair | None = None,
    lat: Pair | None = None,
    time: tuple[str | None, str | None] | None = None,
    **coords: Pair,
) -> Step:
    """Keep the pixels inside a region and a period; only these are read.

    Args:
        lon: (west, east) in degrees, in any convention: ``(-10, 20)`` is found in 0..360 as well, and crosses
            the file's seam where it must. Then the longitudes run on from ``west``; otherwise the
            coordinates stay as they are in the file. ``(-180, 180)`` turns a globe from 0..360.
        lat: (south, north) in degrees, whichever way the latitudes of the file go.
        time: (first, last) as ISO text, both included, as far as it is told: ``("2001", "2003-06")`` lasts to
            the end of June 2003; None leaves an end open. In any CF calendar.
        coords: (low, high) of other coordinates by name, both included, such as ``depth=(0, 50)``; for a
            GeoTIFF ``x=`` and ``y=`` in the units of the CRS.

    Pixels whose centres lie inside are kept. Of curvilinear latitudes and longitudes (2-D) the smallest box of
    rows and columns that holds the region is kept. The dtype stays. The inverse puts the pixels back where
    they were; the rest is NaN (0 for integers).

    Raises:
        StepError: without any of them, for a range that is not two numbers in order, or text that is no date;
            when it runs, where no pixel lies inside, and for a region across a seam that has a gap.
        GridError: when it runs, for a file without such coordinates.

    >>> subset(lon=(-10, 20), lat=(30, 46), time=("2001", "2003-06"))
    sg.climate.subset(lon=(-10, 20), lat=(30, 46), time=('2001', '2003-06'))
    """
    ranges = {
        name: _pair(name, pair)
        for name, pair in {"lon": lon, "lat": lat, **coords}.items()
        if pair is not None
    }
    if lat is not None and not -90 <= ranges["lat"][0] <= ranges["lat"][1] <= 90:
        raise StepError(f"climate.subset: lat={lat} must be (south, north) from -90 to 90")
    for name, (low, high) in ranges.items():
        if name != "lon" and low > high:
            raise StepError(f"climate.subset: {name}={(low, high)} must be (low, high), in this order")
    period = None if time is None else _period(time)
    if not ranges and period is None:
        raise StepError("climate.subset: give lon, lat, time, or another coordinate by name")
    wanted = (tuple(ranges.items()), period)
    moves = Moves(
        partial(_subset_grid, wanted=wanted),
        partial(_subset_source, wanted=wanted),
        partial(_subset_window, wanted=wanted),
        windowed=True,
    )
    return Step(
        partial(_subset, wanted=wanted),
        partial(_put_back, wanted=wanted),
        reach=POINT,
        grid=moves,
        dtype=np.dtype,
        lossy="the pixels outside the region",
    )


def _pair(name: str, pair: Any) -> Pair:
    try:
        low, high = (float(value) for value in pair)
    except (TypeError, ValueError):
        raise StepError(f"climate.subset: {name}={pair!r} must be two numbers, such as (0, 10)") from None
    if not np.isfinite([low, high]).all():
        raise StepError(f"climate.subset: {name}={pair!r} must be finite")
    return low, high


Date = tuple[int, ...]
Wanted = tuple[tuple[tuple[str, Pair], ...], tuple[Date, Date] | None]


def _period(time: Any) -> tuple[Date, Date]:
    if isinstance(time, str) or len(time) != 2:
        raise StepError(
            f'climate.subset: time={time!r} must be (first, last), such as ("2001-01", "2001-12")'
        )
    first, last = (_date(text) for text in time)
    if first and last and first[: len(last)] > last[: len(first)]:
        raise StepError(f"climate.subset: time={time!r} ends before it begins")
    return first, last


def _date(text: Any) -> Date:
    """Year, month, day, hour, minute and second, as far as they are told."""
    if text is None:
        return ()
    found = _DATE.match(text.strip()) if isinstance(text, str) else None
    if found is None:
        raise StepError(
            f'climate.subset: {text!r} is no date; give ISO text such as "2001-06" or "2001-06-30T12:00"'
        )
    return tuple(int(part) for part in found.groups() if part is not None)


# -- which pixels ---------------------------------------------------------------------------------------


def parts_of(grid: Grid, wanted: Wanted) -> dict[str, Parts]:
    """By dim, the pixels to keep: one stretch, or two where a region crosses the seam of the longitudes."""
    return _parts_of(grid.locator, grid.axes, wanted)


@lru_cache(maxsize=256)
def _parts_of(locator: Locator | None, axes: tuple[Axis, ...], wanted: Wanted) -> dict[str, Parts]:
    grid = Grid(axes, locator)
    ranges, period = dict(wanted[0]), wanted[1]
    parts: dict[str, Parts] = {}
    where = sphere(grid, "climate.subset") if "lat" in ranges or "lon" in ranges else None
    if where is not None and where.vectors:
        if "lat" in ranges:
            parts[where.lat_dims[0]] = _between(where.lat, ranges["lat"], "lat")
        if "lon" in ranges:
            parts[where.lon_dims[0]] = _around(where.lon, ranges["lon"])
    elif where is not None:
        parts.update(_boxed(where, ranges))
    for name, pair in ranges.items():
        if name not in ("lat", "lon"):
            dim, values = _values(grid, name)
            parts[dim] = _between(values, pair, name)
    if period is not None:
        coord = time_coord(grid)
        if coord is None or not coord.dims:
            raise GridError(f"climate.subset: {grid} has no dim with a time coordinate, so no period of it")
        parts[coord.dims[0]] = _during(coord, period)
    return parts


def _stretch(inside: Any, what: str) -> Parts:
    """The one stretch of an axis where ``inside`` holds; steady coordinates have no other."""
    found = np.flatnonzero(inside)
    if not found.size:
        raise StepError(f"climate.subset: no pixel lies in {what}")
    if found[-1] - found[0] + 1 != found.size:
        raise StepError(
            f"climate.subset: the pixels in {what} do not lie together; is the coordinate sorted?"
        )
    return ((int(found[0]), int(found[-1]) + 1),)


def _between(values: Floats, pair: Pair, name: str) -> Parts:
    reach = f"{name} is {np.nanmin(values):g} to {np.nanmax(values):g} here"
    return _stretch((values >= pair[0]) & (values <= pair[1]), f"{name}={pair} ({reach})")


def _offsets(lon: Floats, pair: Pair) -> tuple[Floats, float]:
    """Degrees east of the western end, 0 to 360, and how far the region reaches."""
    width = pair[1] - pair[0]
    width = 360.0 if width >= 360 else width % 360
    offsets = np.mod(lon - pair[0], 360.0)
    return np.where(offsets > 360 - 1e-6, 0.0, offsets), width  # 359.9999999 is west itself, rounded


def _around(lon: Floats, pair: Pair) -> Parts:
    offsets, width = _offsets(lon, pair)
    inside = offsets <= width + 1e-6
    ends = f"lon={pair} (lon is {lon.min():g} to {lon.max():g} here)"
    if inside.all():
        rises = lon.size < 2 or lon[1] > lon[0]
        first = int(np.argmin(offsets) if rises else np.argmax(offsets))
        return ((0, lon.size),) if first == 0 else _joined(lon, first, first, ends)
    if not (inside[0] and inside[-1]):
        return _stretch(inside, ends)
    outside = np.flatnonzero(~inside)
    _stretch(~inside, ends)
    return _joined(lon, int(outside[-1]) + 1, int(outside[0]), ends)


def _joined(lon: Floats, first: int, stop: int, ends: str) -> Parts:
    gap = abs((lon[0] - lon[-1] + 180) % 360 - 180)
    if gap > 1.5 * np.abs(np.diff(lon)).max() + 1e-6:
        raise StepError(f"climate.subset: {ends} goes across a gap of {gap:g} degrees; take one side of it")
    return ((first, lon.size), (0, stop))


def _boxed(where: Sphere, ranges: Mapping[str, Pair]) -> dict[str, Parts]:
    inside = np.ones(where.lat.shape, bool)
    if where.lat_dims != where.lon_dims:
        raise GridError("climate.subset: latitude and longitude lie on different dims")
    if "lat" in ranges:
        inside &= (where.lat >= ranges["lat"][0]) & (where.lat <= ranges["lat"][1])
    if "lon" in ranges:
        offsets, width = _offsets(where.lon, ranges["lon"])
        inside &= offsets <= width + 1e-6
    if not inside.any():
        raise StepError(f"climate.subset: no pixel lies in {dict(ranges)}")
    found: dict[str, Parts] = {}
    for axis, dim in enumerate(where.lat_dims):
        touched = np.flatnonzero(inside.any(axis=tuple(i for i in range(inside.ndim) if i != axis)))
        found[dim] = ((int(touched[0]), int(touched[-1]) + 1),)
    return found


def _values(grid: Grid, name: str) -> tuple[str, Floats]:
    if isinstance(grid.locator, GeoLocator) and name in ("x", "y"):
        dims = dict(zip(("y", "x"), grid.locator.spatial))
        if grid.locator.affine[1] or grid.locator.affine[3]:
            raise GridError(
                "climate.subset: the grid is rotated, so it has no rows and columns of one x or y"
            )
        index = {dims[n]: np.arange(grid.sizes[dims[n]]) if n == name else 0 for n in dims}
        return dims[name], grid.pixel_to_world(**index)[name]
    for coord in grid.coords:
        if coord.name == name and coord.numeric and len(coord.dims) == 1 and coord.dims[0] in grid.dims:
            return coord.dims[0], coord.values
    raise GridError(
        f"climate.subset: no coordinate vector {name!r}; there are {[c.name for c in grid.coords if len(c.dims) == 1]}"
    )


def _during(coord: Coord, period: tuple[Date, Date]) -> Parts:
    dates = [(d.year, d.month, d.day, d.hour, d.minute, d.second) for d in decoded(coord).tolist()]
    first, last = period
    inside = [d[: len(first)] >= first and d[: len(last)] <= last for d in dates]
    reach = f"{'-'.join(map(str, min(dates)[:3]))} to {'-'.join(map(str, max(dates)[:3]))}"
    return _stretch(inside, f"time={period} (time is {reach} here)")


# -- forward, window, grid, inverse ---------------------------------------------------------------------


def _subset(x: Array, *, wanted: Wanted, grid: Grid) -> Array:
    for dim, parts in parts_of(grid, wanted).items():
        x = _take(x, grid.dims.index(dim), parts)
    return x


def _take(x: Array, axis: int, parts: Parts) -> Array:
    before = (slice(None),) * axis
    found = [x[(*before, slice(*part))] for part in parts]
    return found[0] if len(found) == 1 else np.concatenate(found, axis)


def _size(parts: Parts) -> int:
    return sum(stop - start for start, stop in parts)


def _subset_source(out: Window, grid: Grid, *, wanted: Wanted) -> Window:
    parts = parts_of(grid, wanted)
    box: dict[str, Part] = {}
    for dim, part in out.items():
        first, *rest = parts.get(dim, ((0, grid.sizes[dim]),))
        length = first[1] - first[0]
        if not rest or part.stop <= length:
            box[dim] = (first[0] + part.start, first[0] + part.stop)
        elif part.start >= length:
            box[dim] = (part.start - length, part.stop - length)
        else:
            box[dim] = (0, grid.sizes[dim])
    return Window(box)


def _subset_window(x: Array, *, window: Window, whole: Grid, wanted: Wanted) -> Array:
    for dim, parts in parts_of(whole, wanted).items():
        part, length = window[dim], parts[0][1] - parts[0][0]
        if len(parts) == 2 and part.start < length < part.stop:  # across the seam: all longitudes came
            axis = whole.dims.index(dim)
            x = _take(_take(x, axis, parts), axis, ((part.start, part.stop),))
    return x


def _subset_grid(grid: Grid, *, wanted: Wanted) -> Grid:
    parts = parts_of(grid, wanted)
    box = Window({dim: found[0] for dim, found in parts.items() if len(found) == 1})
    cut = grid.crop(box)
    for dim, found in parts.items():
        if len(found) == 2:
            cut = _across(cut, dim, found, dict(wanted[0])["lon"])
    return cut


def _across(grid: Grid, dim: str, parts: Parts, pair: Pair) -> Grid:
    """The grid of two stretches of longitudes side by side, which run on from the western end."""
    where = sphere(grid, "climate.subset")
    if isinstance(grid.locator, GeoLocator):
        start = parts[0][0]
        moved = grid.crop(Window({dim: (start, start + _size(parts))}))
        turns = 360 * np.floor((where.lon[start] - pair[0] + 1e-6) / 360)
        a, b, c, d, e, f = grid.locator.affine
        return replace(moved, locator=replace(grid.locator, affine=(a, b, c - turns, d, e, f)))
    # The coordinates of one and a bit turns of the globe, and a view that begins after the first bit: so a
    # climatology on the grid of the file is not taken to fit what was turned.
    locator = cast(CoordLocator, grid.locator)
    (first, size), (_, stop) = parts
    more = ((0, size), (0, stop))
    offsets, _ = _offsets(where.lon, pair)
    turn = -360.0 if where.lon[-1] > where.lon[0] else 360.0
    unrolled = pair[0] + _take(offsets, 0, more) + np.where(np.arange(size + stop) < first, turn, 0)
    coords = []
    for coord in grid.coords:
        if coord.name == where.lon_name:
            coord = coord.with_values(unrolled)
        elif dim in coord.dims:
            raw = _take(coord.raw, coord.dims.index(dim), more)
            coord = Coord(coord.name, coord.dims, raw, coord.attrs)
        coords.append(coord)
    axes = tuple(
        Axis(a.name, _size(parts), first) if a.name == dim else Axis(a.name, a.size, located=a.located)
        for a in grid.axes
    )
    return Grid(axes, CoordLocator(tuple(coords), locator.spatial, locator.crs))


def _put_back(y: Array, *, wanted: Wanted, grid: Grid) -> Array:
    if y.ndim != len(grid.dims):
        raise StepError(
            f"inverse of climate.subset: a prediction of shape {y.shape} has not the dims {grid.dims}"
        )
    out = np.full(grid.shape, np.nan if y.dtype.kind in "fc" else 0, y.dtype)
    index = [np.arange(size) for size in y.shape]
    for dim, places in _places(y.shape, grid, wanted).items():
        index[grid.dims.index(dim)] = places
    out[np.ix_(*index)] = y
    return out


def _places(shape: tuple[int, ...], grid: Grid, wanted: Wanted) -> dict[str, NDArray[np.int64]]:
    """Where the pixels of a prediction go; a model may have made them finer, which its shape tells."""
    for factor in (1, 2, 3, 4, 5, 6, 8, 10, 12, 16):
        finer = [dim for dim in grid.spatial if grid.sizes[dim] % factor == 0]
        try:
            parts = parts_of(grid.coarsen(**dict.fromkeys(finer, factor)) if factor > 1 else grid, wanted)
        except StepError:  # so coarse that no pixel is left inside
            continue
        scale = {dim: factor if dim in finer else 1 for dim in grid.dims}
        if all(_size(found) * scale[dim] == shape[grid.dims.index(dim)] for dim, found in parts.items()):
            return {
                dim: np.concatenate([np.arange(low * scale[dim], high * scale[dim]) for low, high in found])
                for dim, found in parts.items()
            }
    raise StepError(
        f"inverse of climate.subset: a prediction of shape {shape} is not the region in a grid of {grid.sizes}, nor "
        "that with finer pixels by a whole factor"
    )
