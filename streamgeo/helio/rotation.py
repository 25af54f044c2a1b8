"""Differential rotation: what an image of the Sun would show at another time."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import StepError
from streamgeo.grid import Grid
from streamgeo.helio.dates import observed, parsed
from streamgeo.helio.disc import card_number, checked_radius, directions, header_of, places, radius_of
from streamgeo.helio.resampling import Method, Positions, checked_method, needed, pull
from streamgeo.parameters import in_unit
from streamgeo.pointwise import Array
from streamgeo.step import POINT, Moves, Step, register
from streamgeo.window import Window

_WHAT = "helio.differential_rotation"
_DAY = 86400e-6  # so many radians a day are one microradian a second

# A, B, C in radians a day, in omega = A + B sin(lat)**2 + C sin(lat)**4, against the stars
_MODELS: Mapping[str, tuple[float, float, float]] = {
    "howard": (2.894 * _DAY, -0.428 * _DAY, -0.370 * _DAY),
    "snodgrass": (2.851 * _DAY, -0.343 * _DAY, -0.474 * _DAY),
    "allen": (math.radians(14.44), math.radians(-3.0), 0.0),
    "rigid": (math.radians(14.1844), 0.0, 0.0),
}
_YEAR = math.radians(0.9856)  # of the Earth, a day
_LATITUDE = ("HGLT_OBS", "CRLT_OBS", "SOLAR_B0")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Turn:
    """By how much to turn: one of ``days`` and ``to`` is None."""

    days: float | None
    to: str | None
    model: str
    rsun: float | None


@register("helio.differential_rotation")
def differential_rotation(
    duration: Any = None,
    *,
    to: str | None = None,
    model: str = "howard",
    method: Method = "linear",
    rsun: Any = None,
) -> Step:
    """Turn the Sun to another time, by interpolation: ``omega = A + B sin(lat)**2 + C sin(lat)**4``.

    The observer keeps place and pixels: the same distance, heliographic latitude, and longitude from the Earth's
    (Stonyhurst), while the Earth goes on by its own motion. So the grid stays, and images of one telescope can be
    brought to one time. NaN off the limb, where the result would show what was not seen, outside of the input, and
    wherever a pixel that is interpolated from is NaN. Date, radius and latitude are taken from the header.

    The inverse turns back by the same method. What was off the limb, or has turned behind it, is NaN.

    Args:
        duration: in days, or a Quantity; below 0 for an earlier time. Or:
        to: a date, such as ``"2011-03-20T00:00:00"``.
        model: ``"howard"`` (Howard, Harvey & Forgach 1990, Solar Physics 130, 295), ``"snodgrass"`` (Snodgrass
            1983, ApJ 270, 288), ``"allen"`` (Allen, Astrophysical Quantities) or ``"rigid"`` (14.1844 degrees a day).
        method: ``"nearest"``, ``"linear"`` or ``"cubic"``, as in :func:`registration`.
        rsun: angular radius of the Sun in arcsec, or a Quantity, instead of the header's (as in
            :func:`limb_darkening`).

    Floats keep their dtype, integers become float32.

    Raises:
        StepError: unless one of duration and to is given; for a model, method or date that there is not; when it
            runs, for a grid that is not helioprojective, or a header without date, radius or latitude.

    >>> differential_rotation(to="2011-03-20", model="rigid")
    sg.helio.differential_rotation(to='2011-03-20', model='rigid')
    """
    if (duration is None) == (to is None):
        raise StepError(f"{_WHAT}: give either duration= in days or to= as a date")
    if model not in _MODELS:
        raise StepError(f"{_WHAT}: model={model!r} must be one of {', '.join(_MODELS)}")
    if to is not None:
        parsed(str(to), "to", _WHAT)
    days = None if duration is None else in_unit(duration, "day", f"{_WHAT}: duration")
    turn = Turn(days, None if to is None else str(to), model, checked_radius(rsun, _WHAT))
    settings: dict[str, Any] = {"turn": turn, "method": checked_method(method, _WHAT)}
    moves = Moves(_same_grid, partial(_source, **settings), partial(_cut, **settings), windowed=True)
    return Step(
        partial(_turned, **settings),
        partial(_turned, back=True, **settings),
        reach=POINT,
        grid=moves,
        lossy="detail between pixels, and what lies off the limb or turns behind it",
    )


def _same_grid(grid: Grid) -> Grid:
    return grid


def _source(window: Window, grid: Grid, *, turn: Turn, method: str) -> Window:
    return needed(grid, window, grid.spatial, _locate(grid, turn), method, edges=False)  # type: ignore[arg-type]


def _cut(x: Array, *, window: Window, whole: Grid, turn: Turn, method: str) -> Array:
    source = _source(window, whole, turn=turn, method=method)
    return pull(x, source, whole, window, whole.spatial, _locate(whole, turn), method)  # type: ignore[arg-type]


def _turned(x: Array, *, grid: Grid, turn: Turn, method: str, back: bool = False) -> Array:
    if x.shape != grid.shape:
        raise StepError(f"{_WHAT}: the array has shape {x.shape}, its grid {grid.sizes}")
    locate = _locate(grid, turn, back)
    return pull(x, grid.window, grid, grid.window, grid.spatial, locate, method)  # type: ignore[arg-type]


# -- where pixels come from -------------------------------------------------------------------------------


def _locate(grid: Grid, turn: Turn, back: bool = False) -> Any:
    """A window to the positions, in the grid, at which its pixels were seen before the turn (or will be)."""
    header = header_of(grid, _WHAT)
    tilt, radius = _latitude(header), radius_of(grid, turn.rsun, _WHAT)
    days, earth = _time(observed(header, _WHAT).utc.isot, turn.days, turn.to)
    a, b, c = (part * days for part in _MODELS[turn.model])
    sign = -1.0 if back else 1.0
    rates = (sign * (a - earth), sign * b, sign * c)
    ydim, xdim = grid.spatial
    plane = grid.drop(*(dim for dim in grid.dims if dim not in (ydim, xdim))).transpose(ydim, xdim)
    return partial(_seen, plane=plane, whole=grid, tilt=tilt, distance=1 / math.sin(radius), rates=rates)


def _seen(
    window: Window, *, plane: Grid, whole: Grid, tilt: float, distance: float, rates: tuple[float, ...]
) -> Positions:
    toward, west, north = directions(plane.crop(window), _WHAT)
    length = np.sqrt(toward * toward + west * west + north * north)
    cosine = toward / length
    under = 1 - (1 - cosine * cosine) * distance**2  # below 0 off the limb
    along = (distance * cosine - np.sqrt(np.where(under >= 0, under, np.nan))) / length
    # on the sphere, in radii: towards the observer, west, north of the image
    x, y, z = distance - along * toward, along * west, along * north
    cos, sin = math.cos(tilt), math.sin(tilt)
    x, z = x * cos - z * sin, z * cos + x * sin  # about the axis of the Sun
    square = z * z
    angle = rates[0] + (rates[1] + rates[2] * square) * square
    turned, still = np.sin(angle), np.cos(angle)
    x, y = x * still + y * turned, y * still - x * turned
    x, z = x * cos + z * sin, z * cos - x * sin
    x = np.where(x > 1 / distance, x, np.nan)  # else behind the limb
    return places(whole, distance - x, y, z, _WHAT)


def _latitude(header: Mapping[str, Any]) -> float:
    """Heliographic latitude of the observer in radians; of the Earth, with a warning, where no card tells it."""
    for card in _LATITUDE:
        value = card_number(header, card)
        if value is not None and abs(value) <= 90:
            return math.radians(value)
    longitude = card_number(header, "HGLN_OBS")
    if longitude is not None and abs(longitude) > 1:
        raise StepError(f"{_WHAT}: the header has no heliographic latitude ({', '.join(_LATITUDE)})")
    date = observed(header, _WHAT).utc.isot
    degrees = _tilt(date)
    warnings.warn(
        f"{_WHAT}: the header has no heliographic latitude ({', '.join(_LATITUDE)}); taken as seen from Earth on "
        f"{date}: {degrees:.2f} degrees",
        stacklevel=2,
    )
    return math.radians(degrees)


@lru_cache(maxsize=1024)
def _tilt(date: str) -> float:
    from sunpy.coordinates import sun

    return float(sun.B0(date).to_value("deg"))


@lru_cache(maxsize=1024)
def _time(date: str, days: float | None, to: str | None) -> tuple[float, float]:
    """Days until the time that is turned to, and the angle in radians by which the Earth goes round meanwhile."""
    from astropy.time import TimeDelta

    start = parsed(date, "date", _WHAT)
    end = start + TimeDelta(days, format="jd") if to is None else parsed(to, "to", _WHAT)
    passed = float((end - start).to_value("day"))
    apart = _earth(end.utc.isot) - _earth(start.utc.isot) - _YEAR * passed
    return passed, _YEAR * passed + math.remainder(apart, 2 * math.pi)


@lru_cache(maxsize=1024)
def _earth(date: str) -> float:
    """Longitude of the Earth in the plane of the solar equator, against the stars, in radians."""
    from sunpy.coordinates import HeliocentricInertial, get_earth

    place = get_earth(date)
    return float(place.transform_to(HeliocentricInertial(obstime=place.obstime)).lon.to_value("rad"))
