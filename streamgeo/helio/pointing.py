"""Pointing: where the telescope looked, by the master pointing table of SDO/AIA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np

from streamgeo.errors import StepError
from streamgeo.fits_cards import wcs_key
from streamgeo.grid import Grid
from streamgeo.helio.dates import observed
from streamgeo.helio.disc import card_number, wcs_of
from streamgeo.locate import WcsLocator
from streamgeo.pointwise import Array
from streamgeo.step import POINT, Moves, Step, register
from streamgeo.window import Window

_WHAT = "helio.pointing"
_PARTS = ("X0", "Y0", "IMSCALE", "INSTROT")


@dataclass(frozen=True, eq=False)
class Pointings:
    """The columns of a pointing table."""

    columns: Mapping[str, tuple[Any, ...]]

    @cached_property
    def spans(self) -> tuple[Any, Any]:
        """Start and stop of each row as Julian days."""
        starts, stops = (_dates(self.columns[name]).jd for name in ("T_START", "T_STOP"))
        return starts, stops


@register("helio.pointing")
def pointing(table: Mapping[str, Sequence[Any]] | None = None) -> Step:
    """Where the pixels of a level 1 image of SDO/AIA lie, by the master pointing table; no pixel changes.

    ``CRPIX = X0_MP + 1`` (X0_MP counts from 0), ``CDELT = IMSCALE``, ``CROTA2 = INSTROT + SAT_ROT``; the grid
    follows, so registration and all that asks for the place of a pixel use it. Use it before any step that moves
    pixels. The inverse restores the cards of the file. Values, NaN among them, and their dtype stay.

    Args:
        table: the columns T_START, T_STOP (dates) and, by wavelength, A_171_X0, A_171_Y0, A_171_IMSCALE (arcsec)
            and A_171_INSTROT (degrees), as :func:`pointing_table` makes them of what aiapy fetches; the row is that
            with ``T_START <= T_OBS < T_STOP``, and CRPIX moves by what X0_MP and Y0_MP of the header differ,
            so that images that were cut out keep their place. By default the cards X0_MP, Y0_MP, IMSCL_MP,
            INSTROT and SAT_ROT of the file itself, for images of the full frame.

    Source: SDO/AIA FITS keyword document, AIA02840.

    Raises:
        StepError: for a table without these columns; when it runs, for a header without the cards, a date outside
            of the table, or a grid without WCS.

    >>> pointing()
    sg.helio.pointing()
    """
    rows = None if table is None else _columns(table)
    moves = Moves(partial(_pointed, table=rows), _same_window)
    return Step(_as_it_is, _as_it_is, reach=POINT, grid=moves, dtype=np.dtype)


def _columns(table: Mapping[str, Sequence[Any]]) -> Pointings:
    if not isinstance(table, Mapping):
        raise StepError(
            f"{_WHAT}: table is a {type(table).__name__}; give columns by name, such as helio.pointing_table(table)"
        )
    missing = [name for name in ("T_START", "T_STOP") if name not in table]
    if missing or not any(str(name).endswith("_X0") for name in table):
        raise StepError(
            f"{_WHAT}: the table needs T_START, T_STOP and A_<wavelength>_X0, ...; it has {sorted(table)}"
        )
    columns = {str(name): tuple(values) for name, values in table.items()}
    for name, values in columns.items():
        kinds = str if name in ("T_START", "T_STOP") else (int, float, np.number)
        wrong = [value for value in values if not isinstance(value, kinds)]
        if wrong and (name in ("T_START", "T_STOP") or name.endswith(_PARTS)):
            raise StepError(
                f"{_WHAT}: {name} of the table has {wrong[0]!r}, a {type(wrong[0]).__name__}; dates are text and the "
                "rest plain numbers, as helio.pointing_table(table) makes them"
            )
    if len({len(values) for values in columns.values()}) != 1 or not columns["T_START"]:
        raise StepError(f"{_WHAT}: the columns of the table must have one length, 1 or more")
    return Pointings(columns)


def pointing_table(
    table: Any, *wavelengths: int, start: Any = None, stop: Any = None
) -> dict[str, list[Any]]:
    """The columns that :func:`pointing` takes, as text and plain numbers: so the step saves to JSON.

    Args:
        table: from ``aiapy.calibrate.utils.get_pointing_table``, or any table whose columns go by name.
        wavelengths: in Angstrom; by default all that the table has.
        start, stop: dates; rows that end by ``start`` or begin after ``stop`` are left out, which makes a table of
            years a small one.

    Raises:
        StepError: for a table without these columns, a date that is none, or a time without rows.
    """
    names = [
        str(name) for name in getattr(table, "colnames", None) or getattr(table, "columns", None) or table
    ]
    parts = [name for name in names if name.startswith("A_") and name.endswith(_PARTS)]
    if wavelengths:
        missing = [w for w in wavelengths if f"A_{w:03d}_X0" not in parts]
        if missing:
            raise StepError(f"helio.pointing_table: the table has no A_{missing[0]:03d}_X0")
        parts = [name for name in parts if int(name.split("_")[1]) in wavelengths]
    if not parts or not {"T_START", "T_STOP"} <= set(names):
        raise StepError(
            f"helio.pointing_table: it needs T_START, T_STOP and A_<wavelength>_X0, ...; it has {names}"
        )
    begins, ends = (_dates(table[name]) for name in ("T_START", "T_STOP"))
    kept = np.ones(begins.shape, bool)
    if start is not None:
        kept &= ends.jd > _dates([start])[0].jd
    if stop is not None:
        kept &= begins.jd <= _dates([stop])[0].jd
    rows = np.flatnonzero(kept)
    if not rows.size:
        raise StepError(f"helio.pointing_table: no row between {start} and {stop}")
    units = {"IMSCALE": "arcsec / pix", "INSTROT": "deg"}
    found: dict[str, list[Any]] = {
        "T_START": begins.isot[rows].tolist(), "T_STOP": ends.isot[rows].tolist(),
    }  # fmt: skip
    for name in parts:
        unit = units.get(name.rsplit("_", 1)[1], "pix")
        column = table[name]
        values = column.to_value(unit) if hasattr(column, "to_value") else column
        numbers = np.ma.filled(np.ma.asarray(values, np.float64), np.nan)
        found[name] = numbers[rows].tolist()
    return found


def _dates(column: Any) -> Any:
    """Dates as one ``astropy.time.Time``, all at once: tables of years have tens of thousands of rows."""
    from sunpy.time import parse_time

    if hasattr(column, "utc"):
        return column.utc
    texts = [str(getattr(value, "isot", value)).removesuffix("Z") for value in column]
    try:
        return parse_time(texts).utc
    except Exception as error:
        raise StepError(f"{_WHAT}: {texts[:2]} are not dates ({error})") from error


def _as_it_is(x: Array) -> Array:
    return x


def _same_window(out: Window, grid: Grid) -> Window:
    return out


def _pointed(grid: Grid, *, table: Pointings | None) -> Grid:
    locator = wcs_of(grid, _WHAT)
    return Grid(grid.axes, WcsLocator(_header(locator.header, table), locator.dims, locator.spatial))


@lru_cache(maxsize=256)
def _header(text: str, table: Pointings | None) -> str:
    """The header with the new cards; a matrix that stands beside CROTA2 would contradict it, so it goes."""
    from astropy.io.fits import Header

    header = Header.fromstring(text)
    cards = _cards(header, table)
    out = Header()
    for card in header.cards:
        key = wcs_key(card.keyword)
        turns = key is not None and key.kind in ("PC", "CD", "CROTA")
        if not (turns and key is not None and not key.alternate):
            out.append(card, end=True)
    for name, value in cards.items():
        out[name] = value
    found: str = out.tostring(sep="", endcard=True, padding=False)
    return found


def _cards(header: Mapping[str, Any], table: Pointings | None) -> dict[str, float]:
    if table is None:
        x0, y0, scale, instrot, sat_rot = (
            _need(header, card) for card in ("X0_MP", "Y0_MP", "IMSCL_MP", "INSTROT", "SAT_ROT")
        )
        place = x0 + 1, y0 + 1
    else:
        x0, y0, scale, instrot = _row(header, table)
        sat_rot = _need(header, "SAT_ROT")
        place = (
            _need(header, "CRPIX1") + x0 - _need(header, "X0_MP"),
            _need(header, "CRPIX2") + y0 - _need(header, "Y0_MP"),
        )
    return {
        "CRPIX1": place[0], "CRPIX2": place[1], "CDELT1": scale, "CDELT2": scale, "CROTA2": instrot + sat_rot,
    }  # fmt: skip


def _row(header: Mapping[str, Any], table: Pointings) -> list[float]:
    wavelength = f"{_need(header, 'WAVELNTH'):03.0f}"
    names = [f"A_{wavelength}_{part}" for part in _PARTS]
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise StepError(f"{_WHAT}: the table has no {missing[0]}")
    time = observed(header, _WHAT)
    starts, stops = table.spans
    rows = np.flatnonzero((starts <= time.utc.jd) & (time.utc.jd < stops))
    if not rows.size:
        first, last = table.columns["T_START"][0], table.columns["T_STOP"][-1]
        raise StepError(f"{_WHAT}: {time.isot} is in no row of the table, which is from {first} to {last}")
    found = [float(table.columns[name][rows[0]]) for name in names]
    if not np.isfinite(found).all():
        raise StepError(
            f"{_WHAT}: a value is missing in the row of {table.columns['T_START'][rows[0]]}: {found}"
        )
    return found


def _need(header: Mapping[str, Any], card: str) -> float:
    value = card_number(header, card)
    if value is None:
        raise StepError(f"{_WHAT}: the header has no {card} with a number")
    return value
