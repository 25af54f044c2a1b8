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
        starts, stops = (
            np.array([observed({"T_OBS": str(v)}, _WHAT).utc.jd for v in self.columns[name]])
            for name in ("T_START", "T_STOP")
        )
        return starts, stops


@register("helio.pointing")
def pointing(table: Mapping[str, Sequence[Any]] | None = None) -> Step:
    """Where the pixels of a level 1 image of SDO/AIA lie, by the master pointing table; no pixel changes.

    ``CRPIX = X0_MP + 1`` (X0_MP counts from 0), ``CDELT = IMSCALE``, ``CROTA2 = INSTROT + SAT_ROT``; the grid
    follows, so registration and all that asks for the place of a pixel use it. Use it before any step that moves
    pixels. The inverse restores the cards of the file.

    Args:
        table: the columns T_START, T_STOP (dates) and, by wavelength, A_171_X0, A_171_Y0, A_171_IMSCALE (arcsec)
            and A_171_INSTROT (degrees), such as those of ``aiapy.calibrate.utils.get_pointing_table``; the row is
            that with ``T_START <= T_OBS < T_STOP``, and CRPIX moves by what X0_MP and Y0_MP of the header differ,
            so that images that were cut out keep their place. By default the cards X0_MP, Y0_MP, IMSCL_MP,
            INSTROT and SAT_ROT of the file itself, for images of the full frame.

    Source: SDO/AIA FITS keyword document, AIA02840.

    Raises:
        StepError: for a table without these columns; when it runs, for a header without the cards, a date outside
            of the table, or a grid without WCS.
    """
    rows = None if table is None else _columns(table)
    moves = Moves(partial(_pointed, table=rows), _same_window)
    return Step(_as_it_is, _as_it_is, reach=POINT, grid=moves, dtype=np.dtype)


def _columns(table: Mapping[str, Sequence[Any]]) -> Pointings:
    missing = [name for name in ("T_START", "T_STOP") if name not in table]
    if missing or not any(str(name).endswith("_X0") for name in table):
        raise StepError(
            f"{_WHAT}: the table needs T_START, T_STOP and A_<wavelength>_X0, ...; it has {sorted(table)}"
        )
    columns = {str(name): tuple(values) for name, values in table.items()}
    if len({len(values) for values in columns.values()}) != 1 or not columns["T_START"]:
        raise StepError(f"{_WHAT}: the columns of the table must have one length, 1 or more")
    return Pointings(columns)


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
