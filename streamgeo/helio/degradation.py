"""Degradation: what an instrument has lost of its sensitivity since its launch."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from functools import lru_cache, partial
from importlib.util import find_spec
from inspect import signature
from typing import Any

from streamgeo.errors import StepError
from streamgeo.helio.dates import observed
from streamgeo.helio.disc import card_number
from streamgeo.optional import optional
from streamgeo.parameters import in_unit
from streamgeo.pointwise import Array, pointwise
from streamgeo.step import POINT, Step, register

_WHAT = "helio.degradation"

Table = tuple[tuple[str, float], ...]


@register("helio.degradation")
def degradation(
    table: Mapping[str, float] | str, wavelength: Any = None, *, version: int | None = None
) -> Step:
    """Divide by the sensitivity at the time of the observation, relative to that at launch; the inverse multiplies.

    Args:
        table: the sensitivity by date, such as ``{"2010-05-13": 1.0, "2020-01-01": 0.42}``, taken to change
            linearly between the dates. Or, for SDO/AIA, the path (as text) of a response table of SolarSoft
            (``aia_V*_response_table.txt``), or ``"SSW"`` or ``"JSOC"`` to fetch the newest: then aiapy works out
            ``EA(t) / EA(t0) (1 + p1 D + p2 D^2 + p3 D^3)``, with D the days since the start of the epoch.
        wavelength: of the channel in Angstrom, or a Quantity, for a response table; by default WAVELNTH in the
            header.
        version: of the calibration, for a response table; by default the newest in the table.

    The date is T_OBS in the header, else DATE-OBS. NaN stays NaN. Floats keep their dtype, integers become
    float32. A response table needs aiapy (``pip install 'streamgeo[sun]'``). Source: Barnes et al. 2020, JOSS 5,
    2801 (aiapy); Boerner et al. 2014, Solar Physics 289, 2377.

    Raises:
        StepError: for a table without dates or with a sensitivity that is not above 0; when it runs, for a header
            without date, a date outside of the table, or where aiapy is not installed.

    >>> step = degradation({"2010-01-01": 1.0, "2020-01-01": 0.5})
    >>> step([6.0], attrs={"DATE-OBS": "2020-01-01T00:00:00"}).tolist()
    [12.0]
    """
    if isinstance(table, str):
        settings: dict[str, Any] = {
            "table": table,
            "wavelength": None
            if wavelength is None
            else in_unit(wavelength, "Angstrom", f"{_WHAT}: wavelength"),
            "version": version,
        }
    elif wavelength is not None or version is not None:
        raise StepError(
            f"{_WHAT}: wavelength= and version= go with a response table, not with sensitivities by date"
        )
    else:
        settings = {"table": _by_date(table), "wavelength": None, "version": None}
    return Step(partial(_corrected, **settings), partial(_degraded, **settings), reach=POINT)


def _by_date(table: Mapping[str, float]) -> Table:
    if not isinstance(table, Mapping) or not table:
        raise StepError(
            f"{_WHAT}: table={table!r} must be sensitivities by date, or the path of a response table"
        )
    found = []
    for date, value in table.items():
        number = in_unit(value, "", f"{_WHAT}: table at {date}")
        if number <= 0:
            raise StepError(f"{_WHAT}: the sensitivity at {date} is {number:g}; it must be above 0")
        found.append((str(date), number))
    return tuple(found)


def _corrected(x: Array, *, attrs: Mapping[str, Any], **settings: Any) -> Array:
    left = _sensitivity(attrs, **settings)
    return pointwise(lambda v: v / left, x)


def _degraded(y: Array, *, attrs: Mapping[str, Any], **settings: Any) -> Array:
    left = _sensitivity(attrs, **settings)
    return pointwise(lambda v: v * left, y)


def _sensitivity(
    attrs: Mapping[str, Any], *, table: Table | str, wavelength: float | None, version: int | None
) -> float:
    time = observed(attrs, _WHAT)
    if not isinstance(table, str):
        return _between(table, str(time.utc.isot))
    channel = wavelength if wavelength is not None else card_number(attrs, "WAVELNTH")
    if channel is None:
        raise StepError(f"{_WHAT}: the header has no WAVELNTH with a number; give wavelength= in Angstrom")
    return _by_aiapy(table, channel, version, str(time.utc.isot))


@lru_cache(maxsize=4096)
def _between(table: Table, date: str) -> float:
    """The sensitivity at a date, linear in time between those of the table."""
    steps = _days(table)
    (day, _), = _days(((date, 0.0),))  # fmt: skip
    if not steps[0][0] <= day <= steps[-1][0]:
        ordered = sorted(name for name, _ in table)
        raise StepError(
            f"{_WHAT}: {date} is not within the table, which is from {ordered[0]} to {ordered[-1]}"
        )
    at = min(bisect_right([step for step, _ in steps], day), len(steps) - 1)
    (low, before), (high, after) = steps[max(at - 1, 0)], steps[at]
    share = (day - low) / (high - low) if high > low else 0.0
    return before + share * (after - before)


@lru_cache(maxsize=64)
def _days(table: Table) -> tuple[tuple[float, float], ...]:
    times = [(observed({"DATE-OBS": date}, _WHAT), value) for date, value in table]
    return tuple(sorted((float(time.utc.mjd), value) for time, value in times))


@lru_cache(maxsize=4096)
def _by_aiapy(source: str, channel: float, version: int | None, date: str) -> float:
    from astropy.units import Angstrom

    calibrate = optional("aiapy.calibrate", "sun", _WHAT)
    table = _response_table(source)
    try:
        chosen = max(int(v) for v in table["VER_NUM"]) if version is None else version
        time = observed({"DATE-OBS": date}, _WHAT)
        options = {"correction_table": table, "calibration_version": chosen}
        if "calibration_version" not in signature(calibrate.degradation).parameters:
            # aiapy for Python 3.11 takes all that the table has; of 4500 Angstrom there is nothing after version 3
            own = min(chosen, 3) if round(channel) == 4500 else chosen
            options = {"correction_table": table[table["VER_NUM"] == own]}
        found = calibrate.degradation(round(channel, 6) * Angstrom, time, **options)
        value = float(found.to_value("").ravel()[0])
    except Exception as error:
        raise StepError(
            f"{_WHAT}: no sensitivity at {channel:g} Angstrom on {date} in {source!r} ({error})"
        ) from error
    if not (math.isfinite(value) and value > 0):
        raise StepError(
            f"{_WHAT}: the sensitivity at {channel:g} Angstrom on {date} is {value:g}; it must be above 0"
        )
    return value


@lru_cache(maxsize=8)
def _response_table(source: str) -> Any:
    name = "utils" if find_spec("aiapy.calibrate.utils") else "util"  # as it is called for Python 3.11
    utils = optional(f"aiapy.calibrate.{name}", "sun", _WHAT)
    try:
        return utils.get_correction_table(source)
    except Exception as error:
        raise StepError(f"{_WHAT}: the response table {source!r} cannot be read ({error})") from error
