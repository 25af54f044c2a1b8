"""What the steps of this family ask of a grid: its times, its latitudes and longitudes, whether it goes round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import GridError, StepError
from streamgeo.grid import Grid
from streamgeo.locate import Coord, GeoLocator
from streamgeo.pointwise import Array
from streamgeo.sources.cf import Variable, is_latitude, is_longitude
from streamgeo.step import Moves
from streamgeo.window import Window

Floats = NDArray[np.float64]


# -- time -----------------------------------------------------------------------------------------------


def times(where: Any) -> NDArray[Any]:
    """The times of a scene or a grid, decoded by the CF conventions: an array of ``cftime`` datetimes.

    Args:
        where: a :class:`~streamgeo.Scene` or a :class:`~streamgeo.Grid` with a time coordinate, a vector or a
            scalar, in any CF calendar (standard, noleap, 360_day, ...).

    Returns:
        Objects with ``year``, ``month``, ``day``, ``dayofyr`` and so on, of shape ``(n,)`` or ``()``.

    Raises:
        GridError: without a time coordinate, or for units that cannot be decoded. Source: CF conventions 1.11,
            section 4.4.
    """
    grid = where if isinstance(where, Grid) else where.grid
    coord = time_coord(grid)
    if coord is None:
        raise GridError(
            f"climate.times: {grid} has no time coordinate (a variable with units such as 'days since 2000-01-01')"
        )
    return decoded(coord)


def time_coord(grid: Grid) -> Coord | None:
    """The coordinate that holds times: that of a dim before a scalar one, and ``time`` before others."""
    found = [c for c in grid.coords if c.numeric and len(c.dims) <= 1 and " since " in _units(c)]
    found.sort(key=lambda c: (not c.dims, c.attrs.get("standard_name") != "time", c.name != "time"))
    return found[0] if found else None


def decoded(coord: Coord) -> NDArray[Any]:
    """The values of a time coordinate as cftime datetimes."""
    import cftime

    calendar = calendar_of(coord)
    try:
        dates = cftime.num2date(coord.values, _units(coord), calendar, only_use_cftime_datetimes=True)
    except (ValueError, OverflowError) as error:
        raise GridError(
            f"climate.times: {coord.name!r} in {_units(coord)!r} (calendar {calendar}) cannot be decoded ({error})"
        ) from None
    dates = np.ma.asarray(dates, object)
    if np.ma.is_masked(dates):
        missing = np.flatnonzero(np.ma.getmaskarray(dates))
        raise GridError(
            f"climate.times: {missing.size} of {dates.size} times of {coord.name!r} are missing (the first is number "
            f"{missing[0]}); leave them out with sg.crop(...)"
        )
    return np.ma.getdata(dates)


def calendar_of(coord: Coord) -> str:
    """The calendar of a time coordinate, in small letters; ``standard`` where it says none."""
    return str(coord.attrs.get("calendar", "standard")).lower()


def days_in_years(coord: Coord) -> str:
    """What calendars have in common whose days of the year have the same numbers."""
    calendar = calendar_of(coord)
    alike = {"noleap": "365_day", "all_leap": "366_day"}
    leap = ("standard", "gregorian", "proleptic_gregorian", "julian", "tai")
    return "leap years" if calendar in leap else alike.get(calendar, calendar)


def _units(coord: Coord) -> str:
    value = coord.attrs.get("units", "")
    return value.decode() if isinstance(value, bytes) else str(value)


By = Literal["month", "dayofyear"]
GROUPS = {"month": 12, "dayofyear": 366}


def groups_of(grid: Grid, by: str) -> NDArray[np.int64]:
    """The month (0 to 11) or day of the year (0 to 365) of each time."""
    dates = times(grid)
    found = [date.month if by == "month" else date.dayofyr for date in dates.ravel().tolist()]
    return np.array(found, np.int64).reshape(dates.shape) - 1


def time_dim_of(grid: Grid) -> str | None:
    """The dim that the time coordinate lies on; None for a scalar one."""
    coord = time_coord(grid)
    return coord.dims[0] if coord is not None and coord.dims else None


def time_dim(grid: Grid, dim: str | None, what: str) -> str:
    """The dim that is meant: the named one, else that of the time coordinate, else one called ``time``."""
    if dim is not None:
        if dim not in grid.dims:
            raise StepError(f"{what}: no dim {dim!r}; the dims are {grid.dims}")
        return dim
    coord = time_coord(grid)
    if coord is not None and coord.dims and coord.dims[0] in grid.dims:
        return coord.dims[0]
    if "time" in grid.dims:
        return "time"
    raise StepError(f"{what}: the dims {grid.dims} have no time; say which one with dim=")


def places_along(grid: Grid | None, dim: str | None, size: int) -> Floats:
    """Where the pixels of a dim are: the values of its coordinate where it grows steadily, else 0, 1, 2, ..."""
    if grid is not None and dim is not None:
        for coord in grid.coords:
            if coord.dims == (dim,) and coord.numeric and coord.values.size == size and size > 1:
                steps = np.diff(coord.values)
                if np.all(steps > 0) or np.all(steps < 0):
                    return coord.values
    return np.arange(size, dtype=np.float64)


# -- latitude and longitude -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Sphere:
    """Latitudes and longitudes in degrees, vectors or planes, with the dims that they lie on.

    A vector of longitudes runs on where the file's begins anew: 350, 355, 0, 5 is 350, 355, 360, 365 here.
    """

    lat: Floats
    lon: Floats
    lat_dims: tuple[str, ...]
    lon_dims: tuple[str, ...]
    lon_name: str

    @property
    def vectors(self) -> bool:
        """Whether rows have one latitude and columns one longitude."""
        return len(self.lat_dims) == len(self.lon_dims) == 1


def sphere(grid: Grid, what: str) -> Sphere:
    """Latitudes and longitudes of a grid.

    Raises:
        GridError: where it has none.
    """
    if isinstance(grid.locator, GeoLocator):
        crs = grid.crs
        if crs is not None and crs.is_geographic and grid.locator.affine[1] == grid.locator.affine[3] == 0:
            ydim, xdim = grid.locator.spatial
            world = grid.pixel_to_world(**{ydim: np.arange(grid.sizes[ydim]), xdim: np.zeros(1)})
            across = grid.pixel_to_world(**{ydim: np.zeros(1), xdim: np.arange(grid.sizes[xdim])})
            return Sphere(world["y"], across["x"], (ydim,), (xdim,), "x")
    lat, lon = (_coord(grid, test) for test in (is_latitude, is_longitude))
    if lat is None or lon is None:
        raise GridError(
            f"{what}: {grid} has no latitude and longitude; it takes coordinates in degrees, or a CRS in degrees with "
            "an affine that is not rotated"
        )
    east = lon.values if lon.values.ndim > 1 else np.unwrap(lon.values, period=360)
    return Sphere(lat.values, east, lat.dims, lon.dims, lon.name)


def _coord(grid: Grid, test: Any) -> Coord | None:
    found = [
        c for c in grid.coords
        if c.numeric and 1 <= len(c.dims) <= 2 and set(c.dims) <= set(grid.dims)
        and test(Variable(c.name, c.dims, c.dims, c.raw.shape, c.raw.dtype, c.attrs))
    ]  # fmt: skip
    return min(found, key=lambda c: len(c.dims), default=None)


def goes_round(lon: Floats) -> bool:
    """Whether longitudes cover the whole circle, so that the last column neighbours the first."""
    if lon.ndim != 1 or lon.size < 3:
        return False
    steps = np.diff(lon)
    return bool(
        (np.all(steps > 0) or np.all(steps < 0))
        and abs(lon.size * abs(steps.mean()) - 360) < 0.5 * abs(steps.mean())
    )


# -- steps that need the whole of some dims -------------------------------------------------------------


def whole_along(cut: Any, dims: Sequence[str | int] | None, what: str) -> Moves:
    """For a step that keeps the grid, and needs the whole of some dims for any pixel: what a window reads.

    Args:
        cut: the forward function; its result is cut to the window.
        dims: names (or numbers) of the dims; None stands for the dim of time.
        what: the step, for messages.
    """
    return Moves(
        _same, partial(_source, dims=None if dims is None else tuple(dims), what=what), partial(_cut, f=cut),
        windowed=True,
    )  # fmt: skip


def _same(grid: Grid) -> Grid:
    return grid


def _source(out: Window, grid: Grid, *, dims: tuple[str | int, ...] | None, what: str) -> Window:
    names = [time_dim(grid, None, what)] if dims is None else named(grid, dims, what)
    return Window({dim: (0, grid.sizes[dim]) if dim in names else part for dim, part in out.items()})


def named(grid: Grid, dims: Sequence[str | int], what: str) -> list[str]:
    """Dims by name, from names or numbers."""
    found = []
    for dim in dims:
        if isinstance(dim, str) and dim in grid.dims:
            found.append(dim)
        elif not isinstance(dim, str) and -len(grid.dims) <= dim < len(grid.dims):
            found.append(grid.dims[dim])
        else:
            raise StepError(f"{what}: no dim {dim!r}; the dims are {grid.dims}")
    return found


def _cut(x: Array, *, window: Window, whole: Grid, grid: Grid, f: Any) -> Array:
    value = f(x, grid=grid)
    value = value[0] if isinstance(value, tuple) else value
    parts = [  # a dim that was read whole is cut now; the others were read as the window has them
        window[dim] if size == whole.sizes[dim] else slice(None) for dim, size in zip(grid.dims, x.shape)
    ]
    return np.asarray(value[tuple(parts)])
