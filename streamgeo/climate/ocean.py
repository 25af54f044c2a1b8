"""Geostrophic velocity from sea level."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.climate.axes import Sphere, goes_round, sphere
from streamgeo.errors import GridError, StepError
from streamgeo.grid import Grid
from streamgeo.names import unique
from streamgeo.parameters import in_unit
from streamgeo.pointwise import Array, as_floats, settle
from streamgeo.step import POINT, Moves, Step, register
from streamgeo.window import Window

Floats = NDArray[np.float64]
RADIUS = 6371000.0  # of the sphere, m
OMEGA = 7.2921e-5  # rotation of the Earth, rad/s
_POLE = 90 - 1e-6  # degrees; nearer to the pole than that is the pole, rounded


@register("climate.geostrophic")
def geostrophic(equator: float = 5.0, gravity: float = 9.81) -> Step:
    """Surface velocity in geostrophic balance from sea level: eastward and northward, in a new leading dim of size 2.

    ``u = -(g / f) dh/dy`` and ``v = (g / f) dh/dx`` with ``f = 2 Omega sin(lat)``, Omega = 7.2921e-5 rad/s, on a
    sphere of 6371 km. Derivatives are central differences (one-sided at the edges of the file; longitudes that
    go round the globe are taken to do so).

    Args:
        equator: within so many degrees of latitude of it ``f`` is too small, and the velocity is NaN; 0 leaves out
            the equator itself, where it is 0.
        gravity: in m/s2.

    Sea level in m gives m/s. NaN, and NaN on either side in latitude or longitude, gives NaN. Floats keep their
    dtype, integers become float32; derivatives are taken in float64. At a pole, where no direction is east, the
    velocity is NaN. The grid must have latitude and longitude vectors. There is no inverse, since the mean of the
    sea level is lost. Source: Gill 1982, Atmosphere-Ocean Dynamics, section 7.6.

    Raises:
        StepError: for an equator that is not from 0 to 90, gravity not above 0, fewer than two pixels in
            latitude or longitude, or without a grid.
        GridError: for a grid without latitude and longitude vectors.

    >>> geostrophic(equator=2.0)
    sg.climate.geostrophic(equator=2.0)
    """
    band = in_unit(equator, "deg", "climate.geostrophic: equator")
    pull = in_unit(gravity, "m / s2", "climate.geostrophic: gravity")
    if not 0 <= band <= 90 or pull <= 0:
        raise StepError(
            f"climate.geostrophic: equator={band} must be from 0 to 90 degrees, and gravity={pull} above 0"
        )
    bound: dict[str, Any] = {"equator": band, "gravity": pull}
    moves = Moves(_velocity_grid, _velocity_source, partial(_velocity_window, **bound), windowed=True)
    return Step(
        partial(_velocity, **bound),
        reach=POINT,
        grid=moves,
        lossy="the mean of the sea level, and its equator",
        units="m s-1",
    )


def _velocity(x: Array, *, equator: float, gravity: float, grid: Grid) -> Array:
    if x.shape != grid.shape:
        raise StepError(f"climate.geostrophic: the array has shape {x.shape}, its grid {grid.sizes}")
    return _of(x, grid.window, grid, equator, gravity)


def _of(x: Array, window: Window, whole: Grid, equator: float, gravity: float) -> Array:
    """Velocities of the pixels of a window of a grid."""
    work, dtype = as_floats(x)
    where, ydim, xdim = _vectors(whole)
    yaxis, xaxis = whole.dims.index(ydim), whole.dims.index(xdim)
    lats = where.lat[window[ydim]]
    north, east = (np.radians(v) * RADIUS for v in (lats, where.lon[window[xdim]]))
    round_ = east.size == where.lon.size and goes_round(where.lon)
    level, lat = work.astype(np.float64), np.radians(_shaped(lats, yaxis, work.ndim))
    turn = 2 * OMEGA * np.sin(lat)
    away = np.abs(_shaped(lats, yaxis, work.ndim))
    turn = np.where((away < equator) | (turn == 0) | (away > _POLE), np.nan, turn)
    with np.errstate(divide="ignore", invalid="ignore"):
        u = -gravity / turn * _slope(level, north, yaxis, False)
        v = gravity / turn * _slope(level, east, xaxis, round_) / np.cos(lat)
    velocity = np.stack([u, v])
    velocity[:, np.isnan(level)] = np.nan
    return settle(velocity, dtype)


def _vectors(grid: Grid) -> tuple[Sphere, str, str]:
    where = sphere(grid, "climate.geostrophic")
    if not where.vectors:
        raise GridError("climate.geostrophic: latitude and longitude must be vectors; regrid(...) it first")
    if min(where.lat.size, where.lon.size) < 2:
        raise StepError("climate.geostrophic: latitude and longitude need two pixels or more")
    return where, where.lat_dims[0], where.lon_dims[0]


def _shaped(values: Floats, axis: int, ndim: int) -> Floats:
    return values.reshape([-1 if i == axis else 1 for i in range(ndim)])


def _slope(level: Floats, place: Floats, axis: int, round_: bool) -> Floats:
    """Central differences along an axis, one-sided at the ends of what is there."""
    size = place.size
    numbers = np.arange(size)
    if round_:
        before, after = (numbers - 1) % size, (numbers + 1) % size
        circle = np.sign(place[-1] - place[0]) * 2 * np.pi * RADIUS
        span = np.where(after < numbers, circle, 0) + np.where(before > numbers, circle, 0)
    else:
        before, after = np.maximum(numbers - 1, 0), np.minimum(numbers + 1, size - 1)
        span = np.zeros(size)
    span = span + place[after] - place[before]
    rise = np.take(level, after, axis) - np.take(level, before, axis)
    return np.asarray(rise / _shaped(span, axis, level.ndim))


def _velocity_grid(grid: Grid) -> Grid:
    return grid.insert(0, unique("component", grid.dims), 2)


def _velocity_source(out: Window, grid: Grid) -> Window:
    where, ydim, xdim = _vectors(grid)
    around = Window({dim: out[dim] for dim in grid.dims}).expand(1, (ydim, xdim))
    past = around[xdim].start < 0 or around[xdim].stop > grid.sizes[xdim]
    if past and goes_round(where.lon):
        around = Window({**around, xdim: slice(0, grid.sizes[xdim])})
    return around.clip(grid.dims, grid.shape)


def _velocity_window(x: Array, *, window: Window, whole: Grid, equator: float, gravity: float) -> Array:
    source = _velocity_source(window, whole)
    velocity = _of(x, source, whole, equator, gravity)
    parts = Window({dim: window[dim] for dim in whole.dims}).relative_to(source).slices(whole.dims)
    return velocity[(window[unique("component", whole.dims)], *parts)]
