"""Where a pixel lies on the solar disc, from the WCS and the header alone.

Sources: Thompson 2006, A&A 449, 791 (helioprojective coordinates); Calabretta & Greisen 2002, A&A 395, 1077
(the gnomonic projection TAN).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import StepError
from streamgeo.grid import Grid, indices
from streamgeo.helio.dates import CARDS, observed
from streamgeo.locate import WcsLocator
from streamgeo.parameters import in_unit

Floats = NDArray[np.float64]

ARCSEC = math.pi / 180 / 3600
_SOLAR_RADIUS = (
    695.7e6  # m, nominal (IAU 2015 Resolution B3), where the header names a distance and no radius
)
_IN_ARCSEC = ("RSUN_OBS", "RSUN_ARC", "RSUN", "RADIUS")
_WIDEST = 36000.0  # arcsec; RSUN and RADIUS are lengths in metres in some headers


def mu(grid: Grid, radius: float, what: str) -> Floats:
    """Cosine of the angle between line of sight and surface normal: 1 at disc centre, 0 off the limb.

    ``mu = sqrt(1 - (sin rho / sin R)**2)`` with rho the angle from disc centre and R that of the limb: exact
    for an observer at any distance, where ``r / R`` is its small-angle form.

    Args:
        grid: helioprojective; of a scene or of any window of it.
        radius: angular radius of the Sun in radians.
        what: the operation, for messages.

    Returns:
        float64 that broadcasts to the shape of the grid.

    Raises:
        StepError: for a grid that is not helioprojective.
    """
    return np.asarray(np.sqrt(np.maximum(1 - squared_distance(grid, radius, what), 0)), np.float64)


def squared_distance(grid: Grid, radius: float, what: str) -> Floats:
    """``(sin rho / sin R)**2``: the square of the distance from disc centre in solar radii, 1 at the limb.

    Arguments and errors as of :func:`mu`.
    """
    x, y, z = directions(grid, what)
    away = y * y + z * z
    return np.asarray(away / (away + x * x) / math.sin(radius) ** 2, np.float64)


def angular_radius(attrs: Mapping[str, Any], what: str) -> float:
    """Angular radius of the Sun in radians, as seen by the observer.

    From the header, the first that is there: RSUN_OBS, RSUN_ARC, RSUN, RADIUS (arcsec); SOLAR_R (arcsec, in
    pixels of CDELT1 for EIT); DSUN_OBS with RSUN_REF (m). Failing that, as seen from Earth on the date in the
    header (any that :func:`streamgeo.helio.dates.observed` knows), with a warning.

    Raises:
        StepError: when the header has none of these, or a date that is none.
    """
    for card in _IN_ARCSEC:
        value = card_number(attrs, card)
        if value is not None and 0 < value < _WIDEST:
            return value * ARCSEC
    pixels = card_number(attrs, "SOLAR_R")
    if pixels is not None and pixels > 0:
        of_eit = str(attrs.get("INSTRUME", "")).strip().upper() == "EIT"
        return pixels * abs(card_number(attrs, "CDELT1") or 1.0 if of_eit else 1.0) * ARCSEC
    distance = card_number(attrs, "DSUN_OBS")
    if distance is not None and distance > _SOLAR_RADIUS:
        return math.asin((card_number(attrs, "RSUN_REF") or _SOLAR_RADIUS) / distance)
    return _from_earth(attrs, what)


def card_number(attrs: Mapping[str, Any], card: str) -> float | None:
    """A finite number from a header; None where the card is missing, empty, text or NaN."""
    try:
        value = float(attrs.get(card, "nan"))
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _from_earth(attrs: Mapping[str, Any], what: str) -> float:
    longitude = card_number(attrs, "HGLN_OBS")
    dated = any(str(attrs.get(card) or "").strip() for card in CARDS)
    if not dated or (longitude is not None and abs(longitude) > 1):
        raise StepError(
            f"{what}: the header has no solar radius ({', '.join(_IN_ARCSEC)}, SOLAR_R) and no DSUN_OBS; "
            "give rsun="
        )
    date = observed(attrs, what).utc.isot
    arcsec = _earth_radius(date)
    warnings.warn(
        f"{what}: the header has no solar radius and no DSUN_OBS; taken as seen from Earth on {date}: "
        f"{arcsec:.2f} arcsec (give rsun= to set it)",
        stacklevel=2,
    )
    return arcsec * ARCSEC


@lru_cache(maxsize=1024)
def _earth_radius(date: str) -> float:
    from sunpy.coordinates import sun

    return float(sun.angular_radius(date).to_value("arcsec"))


@dataclass(frozen=True)
class Tangent:
    """Vectors towards the pixels of a TAN image: ``base + sum of per_axis[j] * (pixel[j] - crpix[j])``.

    Parts towards Sun centre, solar west and solar north. ``crpix`` is 0-based here; ``per_axis`` has one row
    for each FITS axis.
    """

    crpix: tuple[float, ...]
    base: tuple[float, float, float]
    per_axis: tuple[tuple[float, float, float], ...]


def directions(grid: Grid, what: str) -> tuple[Floats, Floats, Floats]:
    """Vectors towards the pixels, of any length: parts towards Sun centre, solar west and solar north.

    Raises:
        StepError: for a grid that is not helioprojective.
    """
    locator = wcs_of(grid, what)
    found = tangent(locator.header, what)
    if found is None:
        return _any_projection(grid, locator)
    parts = []
    for k, base in enumerate(found.base):
        total = np.full((1,) * len(grid.dims), base)
        for dim, reference, step in zip(reversed(locator.dims), found.crpix, found.per_axis):
            if step[k] != 0:
                total = total + step[k] * (_positions(grid, dim) - reference)
        parts.append(total)
    return parts[0], parts[1], parts[2]


def places(grid: Grid, x: Floats, y: Floats, z: Floats, what: str) -> tuple[Floats, Floats]:
    """Pixel positions (row, column) at which vectors from :func:`directions` are seen; NaN behind the observer.

    Raises:
        StepError: for a grid that is not helioprojective, or whose horizontal axes are tied to another.
    """
    locator = wcs_of(grid, what)
    ydim, xdim = locator.spatial
    found = tangent(locator.header, what)
    if found is None:
        file = _seen_by_wcs(locator, x, y, z, what)
    else:
        file = _seen_by_tangent(locator, found, x, y, z, what)
    return grid.axis(ydim).index(file[0]), grid.axis(xdim).index(file[1])


def _seen_by_tangent(
    locator: WcsLocator, found: Tangent, x: Floats, y: Floats, z: Floats, what: str
) -> tuple[Floats, Floats]:
    numbers = [len(locator.dims) - 1 - locator.dims.index(dim) for dim in locator.spatial]
    others = [row for i, row in enumerate(found.per_axis) if i not in numbers]
    if np.any(others):
        raise StepError(
            f"{what}: the horizontal axes of this WCS are tied to another axis; cut that one away"
        )
    columns = [*(found.per_axis[i] for i in numbers), found.base]
    # plain sums, and no product of matrices: a window then gives the same digits as the whole
    rows, cols, depth = (row[0] * x + row[1] * y + row[2] * z for row in np.linalg.inv(np.array(columns).T))
    depth = np.where(depth > 0, depth, np.nan)
    return rows / depth + found.crpix[numbers[0]], cols / depth + found.crpix[numbers[1]]


def _seen_by_wcs(locator: WcsLocator, x: Floats, y: Floats, z: Floats, what: str) -> tuple[Floats, Floats]:
    if len(locator.dims) != 2:
        raise StepError(
            f"{what}: a projection other than TAN is taken for images only, not for {locator.dims}"
        )
    lon, lat = np.degrees(np.arctan2(y, x)), np.degrees(np.arctan2(z, np.hypot(x, y)))
    lon, lat = np.broadcast_arrays(lon, lat)
    pixels = locator.pixel({"HPLN": lon, "HPLT": lat})
    return pixels[locator.spatial[0]], pixels[locator.spatial[1]]


def wcs_of(grid: Grid, what: str) -> WcsLocator:
    """The WCS of a grid.

    Raises:
        StepError: where it has none.
    """
    locator = grid.locator
    if not isinstance(locator, WcsLocator):
        found = "no georeference" if locator is None else type(locator).__name__.removesuffix("Locator")
        raise StepError(f"{what}: needs a helioprojective WCS, and the grid has {found}")
    return locator


def radius_on(x: Any, grid: Grid, attrs: Mapping[str, Any], rsun: float | None, what: str) -> float:
    """Angular radius of the Sun in radians: ``rsun`` in arcsec, else what ``attrs`` say.

    Raises:
        StepError: for an array that does not lie on the grid, or where neither tells the radius.
    """
    if x.shape != grid.shape:
        raise StepError(f"{what}: the array has shape {x.shape}, its grid {grid.sizes}")
    return angular_radius(attrs, what) if rsun is None else rsun * ARCSEC


def first_number(attrs: Mapping[str, Any], cards: Sequence[str]) -> tuple[str, float] | None:
    """The first card that has a finite number, and that number."""
    found = ((card, card_number(attrs, card)) for card in cards)
    return next(((card, number) for card, number in found if number is not None), None)


def radius_of(grid: Grid, rsun: float | None, what: str) -> float:
    """Angular radius of the Sun in radians: ``rsun`` in arcsec, else what the header of the grid says.

    Raises:
        StepError: when neither tells it.
    """
    return angular_radius(header_of(grid, what), what) if rsun is None else rsun * ARCSEC


def header_of(grid: Grid, what: str) -> Mapping[str, Any]:
    """The header that a grid has its WCS from."""
    return _cards(wcs_of(grid, what).header)


@lru_cache(maxsize=64)
def _cards(text: str) -> dict[str, Any]:
    from astropy.io.fits import Header

    return {str(card.keyword): card.value for card in reversed(Header.fromstring(text).cards)}


def checked_radius(rsun: Any, what: str) -> float | None:
    """``rsun`` of a factory in arcsec; None where it is not given.

    Raises:
        StepError: unless it is above 0 and below 90 degrees.
    """
    if rsun is None:
        return None
    arcsec = in_unit(rsun, "arcsec", f"{what}: rsun")
    if not 0 < arcsec < 90 * 3600:
        raise StepError(f"{what}: rsun={arcsec:g} arcsec must be above 0 and below 90 degrees")
    return arcsec


def _positions(grid: Grid, dim: str) -> Floats:
    """Positions in the file along one dim, shaped to broadcast against the array."""
    if dim not in grid.dims:
        return np.zeros(1)  # an axis that was indexed away: its first pixel, as in Grid.pixel_to_world
    return grid.axis(dim).centres(indices(grid)[dim])


def _any_projection(grid: Grid, locator: WcsLocator) -> tuple[Floats, Floats, Floats]:
    arrays = np.broadcast_arrays(*(_positions(grid, dim) for dim in locator.dims))
    world = locator.world(dict(zip(locator.dims, arrays)))
    lon, lat = np.radians(world["HPLN"]), np.radians(world["HPLT"])
    return np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)


@lru_cache(maxsize=64)
def tangent(text: str, what: str) -> Tangent | None:
    """The image's geometry; None for helioprojective images that are not plain TAN."""
    from astropy.io.fits import Header
    from astropy.wcs import WCS

    header = Header.fromstring(text)
    kinds = _kinds(header)
    if sorted(kinds) != ["HPLN", "HPLT"]:
        shown = " / ".join(str(header.get(f"CTYPE{i}", "?")) for i in (1, 2))
        raise StepError(
            f"{what}: needs a helioprojective image (CTYPE HPLN/HPLT or Solar-X/Solar-Y), "
            f"and this one has {shown}"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old headers: wcslib reports each unit and date it repairs
        wcs = WCS(header, relax=True)
        wcs.wcs.set()
    rows = [kinds["HPLN"], kinds["HPLT"]]
    plain = all(str(wcs.wcs.ctype[i]).endswith("-TAN") for i in rows) and not wcs.has_distortion
    if not plain or abs(wcs.wcs.lonpole - 180) > 1e-9 or wcs.wcs.get_pv():
        return None
    matrix = np.radians(wcs.pixel_scale_matrix[rows])
    lon, lat = np.radians(wcs.wcs.crval[rows])
    centre, west, north = _axes(lon, lat)
    per_axis = [tuple((x * west + y * north).tolist()) for x, y in matrix.T]
    return Tangent(tuple(float(c) - 1 for c in wcs.wcs.crpix), tuple(centre.tolist()), tuple(per_axis))


def _kinds(header: Any) -> dict[str, int]:
    """Which FITS axes (from 0) are helioprojective longitude and latitude.

    Headers from before the standard say Solar-X / Solar-Y and mean TAN in arcsec: they are rewritten so,
    since wcslib would take them as linear axes and ignore their CROTA2.
    """
    old = {"SOLAR-X": "HPLN", "SOLAR_X": "HPLN", "SOLAR-Y": "HPLT", "SOLAR_Y": "HPLT"}
    kinds = {}
    for i in range(int(header.get("NAXIS", 2))):
        kind = str(header.get(f"CTYPE{i + 1}", "")).strip().upper()
        if kind in old:
            header[f"CTYPE{i + 1}"] = f"{old[kind]}-TAN"
            if not str(header.get(f"CUNIT{i + 1}", "")).strip():
                header[f"CUNIT{i + 1}"] = "arcsec"
            kind = old[kind]
        if kind[:4] in ("HPLN", "HPLT"):
            kinds[kind[:4]] = i
    return kinds


def _axes(lon: float, lat: float) -> Sequence[Floats]:
    """Unit vectors at a helioprojective position: outwards, towards growing longitude and latitude."""
    cos_lon, sin_lon, cos_lat, sin_lat = math.cos(lon), math.sin(lon), math.cos(lat), math.sin(lat)
    return (
        np.array([cos_lat * cos_lon, cos_lat * sin_lon, sin_lat]),
        np.array([-sin_lon, cos_lon, 0.0]),
        np.array([-sin_lat * cos_lon, -sin_lat * sin_lon, cos_lat]),
    )
