"""FITS cards: headers made clean, and what crops, pads, flips and scales do to CRPIX, CDELT, PC and CD.

Sources: Greisen & Calabretta 2002 (A&A 395, 1061) for the pixel-to-intermediate matrix; scaling pixel axis j
by s multiplies column j of that matrix, and moves CRPIX as (CRPIX - 0.5 - origin) / s + 0.5. CROTA2 rotates
after CDELT has scaled (Calabretta & Greisen 2002, equation 189), so no scale or flip changes it. SIP:
Shupe et al. 2005 (ADASS XIV, 491).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from streamgeo.errors import GridError

View = Sequence[tuple[float, float, int]]


def crpix(value: float, origin: float, step: float) -> float:
    """CRPIX of the view, from CRPIX of the whole."""
    return value - origin if step == 1 else (value - 0.5 - origin) / step + 0.5


def view_wcs(wcs: Any, view: View) -> Any:
    """A copy of ``wcs`` for a view given as (origin, step, size) by FITS axis.

    Raises:
        GridError: for an image with look-up distortion tables, which cannot be cut or scaled.
    """
    moves = any((origin, step) != (0, 1) for origin, step, _ in view)
    if moves and any((wcs.cpdis1, wcs.cpdis2, wcs.det2im1, wcs.det2im2)):
        raise GridError("wcs: an image with distortion look-up tables cannot be cropped or scaled")
    out = wcs.deepcopy()
    steps = np.array([step for _, step, _ in view])
    out.wcs.crpix = [crpix(c, o, s) for c, (o, s, _) in zip(out.wcs.crpix, view)]
    if not np.all(steps == 1):
        if out.wcs.has_cd():
            out.wcs.cd = np.asarray(out.wcs.cd) * steps
        else:
            out.wcs.pc, out.wcs.cdelt = scale_pc(
                np.asarray(out.wcs.get_pc()), np.asarray(out.wcs.cdelt), steps
            )
    if out.sip is not None:
        out.sip = _view_sip(wcs.sip, view)
    out.pixel_shape = [size for _, _, size in view]
    out.wcs.set()
    return out


def scale_pc(pc: Any, cdelt: Any, steps: Any) -> tuple[Any, Any]:
    """PC and CDELT after scaling the pixel axes by ``steps``, split so that PC keeps rotations only.

    CDELT_i takes the step of axis i, PC_ij the ratio step_j / step_i that remains.
    """
    return pc * (steps[np.newaxis, :] / steps[:, np.newaxis]), cdelt * steps


def _view_sip(sip: Any, view: View) -> Any:
    from astropy.wcs import Sip

    x, y = view[0][1], view[1][1]
    moved = [crpix(c, o, s) for c, (o, s, _) in zip(sip.crpix, view)]
    scaled = [
        None if c is None else c * _sip_factors(x, y, len(c), unit)
        for c, unit in ((sip.a, x), (sip.b, y), (sip.ap, x), (sip.bp, y))
    ]
    return Sip(*scaled, moved)


def _sip_factors(x: float, y: float, size: int, unit: float) -> Any:
    """What multiplies the coefficient of u^p v^q when pixels grow by x and y, and the result by ``unit``."""
    powers = np.arange(size, dtype=np.float64)
    return np.float64(x) ** powers[:, np.newaxis] * np.float64(y) ** powers[np.newaxis, :] / unit


# -- cards of the world coordinate system ---------------------------------------------------------------

_AXIS = re.compile(r"(CTYPE|CUNIT|CRVAL|CDELT|CRPIX|CROTA|CNAME|CRDER|CSYER|CPERI|CZPHS)([1-9]\d?)([A-Z]?)")
_MATRIX = re.compile(r"(PC|CD|PV|PS)([1-9]\d?)_(\d{1,2})([A-Z]?)|(PC|CD)(\d{3})(\d{3})()")
_SIP = re.compile(r"(A|B|AP|BP)_(?:([0-9])_([0-9])|ORDER|DMAX)")
_GENERAL = re.compile(
    r"(WCSAXES|WCSNAME|LONPOLE|LATPOLE|RADESYS|EQUINOX|SPECSYS|SSYSOBS|SSYSSRC|VELOSYS)([A-Z]?)"
)
_CELESTIAL = re.compile(r"(RA--|DEC-|[A-Z](?:LON|LAT)|[A-Z]{2}(?:LN|LT))-[A-Z]{3}")
_PLACES = ("CTYPE", "CRVAL", "CDELT", "CRPIX", "PC", "CD")


class WcsKey(NamedTuple):
    """A keyword taken apart: ``row`` is its world axis i, ``column`` its pixel axis j; None: it has none."""

    kind: str
    row: int | None
    column: int | None
    alternate: str


def wcs_key(keyword: str) -> WcsKey | None:
    """The parts of a keyword that belongs to one axis or pair of axes of a WCS, else None."""
    if found := _AXIS.fullmatch(keyword):
        kind, axis, alternate = found.group(1), int(found.group(2)), found.group(3)
        return WcsKey(kind, None if kind == "CRPIX" else axis, axis if kind == "CRPIX" else None, alternate)
    if found := _MATRIX.fullmatch(keyword):
        kind, row, column, alternate = (g for g in found.groups() if g is not None)
        return WcsKey(kind, int(row), int(column) if kind in ("PC", "CD") else None, alternate)
    return None


def is_wcs(keyword: str) -> bool:
    """Whether a keyword says where pixels lie."""
    return bool(wcs_key(keyword) or _SIP.fullmatch(keyword) or _GENERAL.fullmatch(keyword))


def is_number(value: Any) -> bool:
    """Whether a card holds a number (True and False are none)."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def has_wcs(keywords: Sequence[str]) -> bool:
    """Whether there is a primary WCS at all."""
    keys = (wcs_key(keyword) for keyword in keywords)
    return any(key is not None and key.kind in _PLACES and not key.alternate for key in keys)


class AxisView(NamedTuple):
    """An axis of the new image: which FITS axis of the old one it was, and its (origin, step) there."""

    axis: int
    origin: float = 0.0
    step: float = 1.0


def view_header(header: Any, axes: Sequence[AxisView | None], old_naxis: int) -> tuple[Any, list[str]]:
    """The header with its WCS cards, primary and alternates, changed for a view; other cards as they are.

    Cards that need no change stay letter for letter, and units stay as they are. Axes that the new image has
    no counterpart of lose their cards, and so do axes whose coordinates depend on one that is gone.

    Args:
        header: an ``astropy.io.fits.Header``; not changed.
        axes: by FITS axis of the new image, what it was in the old one; None for one without coordinates.
        old_naxis: number of axes of the old image. Degenerate axes past it stay only if all others do.

    Returns:
        The new header, and what could not be kept, in words.
    """
    from astropy.io.fits import Header

    pairs = [(card, wcs_key(card.keyword)) for card in header.cards]
    values = {key: card.value for card, key in reversed(pairs) if key}
    views, new_number = _placement(axes, old_naxis, values)
    alternates = list(dict.fromkeys(key.alternate for key in values))
    lost = {
        a: _lost_axes({k: v for k, v in values.items() if k.alternate == a}, new_number) for a in alternates
    }
    out = Header()
    for card, key in pairs:
        if key is None:
            card = _view_other(card, views, len(axes), list(new_number.items()))
        elif {key.row, key.column} & lost[key.alternate]:
            card = None
        else:
            card = _renew(card, _moved(key, card.keyword, new_number), _scaled(key, card.value, views))
        if card is not None:
            out.append(card, end=True)
    _add_defaults(out, values, views, new_number, lost)
    names = {(key.row, key.alternate): value for key, value in values.items() if key.kind == "CTYPE"}
    return out, [
        f"axis {axis}{alternate} ({names.get((axis, alternate), 'no CTYPE')})"
        for alternate in alternates
        for axis in sorted(lost[alternate])
    ]


def _placement(
    axes: Sequence[AxisView | None], old_naxis: int, values: Mapping[WcsKey, Any]
) -> tuple[dict[int, AxisView], dict[int, int]]:
    """The view of each old axis that remains, and its new number."""
    views = {view.axis: view for view in axes if view is not None}
    number = {view.axis: i + 1 for i, view in enumerate(axes) if view is not None}
    if len(axes) == old_naxis and all(old == new for old, new in number.items()):
        for axis in {n for key in values for n in (key.row, key.column) if n and n > old_naxis}:
            views[axis], number[axis] = AxisView(axis), axis
    return views, number


def _lost_axes(values: Mapping[WcsKey, Any], kept: Mapping[int, int]) -> set[int]:
    """Axes of one WCS that have gone, or whose coordinates cannot be told without one that has."""
    every = {n for key in values for n in (key.row, key.column) if n}
    lost = every - set(kept)
    sky = {key.row for key, v in values.items() if key.kind == "CTYPE" and _CELESTIAL.match(str(v))}
    if sky & lost:
        lost |= {axis for axis in sky if axis}
    while True:
        coupled = {
            key.row
            for key, v in values.items()
            if key.column in lost and key.row and key.row not in lost and is_number(v) and v != 0
        }
        if not coupled:
            return lost
        lost |= coupled


def _moved(key: WcsKey, keyword: str, number: Mapping[int, int]) -> str:
    """The keyword with the new numbers of its axes."""
    row, column = (number[n] if n else None for n in (key.row, key.column))
    if (row, column) == (key.row, key.column):
        return keyword
    if key.kind in ("PC", "CD"):
        joined = f"{row}_{column}" if "_" in keyword else f"{row:03d}{column:03d}"
        return f"{key.kind}{joined}{key.alternate}"
    if key.kind in ("PV", "PS"):
        return f"{key.kind}{row}_{keyword.split('_')[1]}"
    return f"{key.kind}{row or column}{key.alternate}"


def _scaled(key: WcsKey, value: Any, views: Mapping[int, AxisView]) -> Any:
    """The value of a card in the view."""
    if not is_number(value):
        return value
    row, column = (views.get(n) if n else None for n in (key.row, key.column))
    if key.kind == "CRPIX" and column and (column.origin != 0 or column.step != 1):
        return crpix(float(value), column.origin, column.step)
    if key.kind == "CDELT" and row and row.step != 1:
        return value * row.step
    if key.kind == "CD" and column and column.step != 1:
        return value * column.step
    if key.kind == "PC" and row and column and row.step != column.step:
        return value * (column.step / row.step)
    return value


def _renew(card: Any, keyword: str, value: Any) -> Any:
    """The very card where nothing changes, else one with the same comment."""
    from astropy.io.fits import Card

    if keyword == card.keyword and value is card.value:
        return card
    return Card(keyword, value, card.comment)


def _view_other(card: Any, views: Mapping[int, AxisView], naxis: int, numbers: list[tuple[int, int]]) -> Any:
    """WCSAXES and SIP cards of the view; any other card as it is. None where it no longer holds."""
    if re.fullmatch("WCSAXES[A-Z]?", card.keyword) and isinstance(card.value, int):
        largest = max([naxis, *(new for _, new in numbers)])
        return _renew(card, card.keyword, card.value if card.value == largest else largest)
    if found := _SIP.fullmatch(card.keyword):
        if (1, 1) not in numbers or (2, 2) not in numbers:
            return None
        x, y = views[1].step, views[2].step
        unit = x if found.group(1).startswith("A") else y
        if card.keyword.endswith("_DMAX"):
            return card if unit == 1 else _renew(card, card.keyword, card.value / abs(unit))
        if found.group(2) and (x, y) != (1, 1):
            p, q = int(found.group(2)), int(found.group(3))
            factor = float(_sip_factors(x, y, max(p, q) + 1, unit)[p, q])
            return _renew(card, card.keyword, card.value * factor)
    return card


def _add_defaults(
    out: Any,
    values: Mapping[WcsKey, Any],
    views: Mapping[int, AxisView],
    number: Mapping[int, int],
    lost: Mapping[str, set[int]],
) -> None:
    """Cards that the header left to their defaults (CRPIX 0, CDELT 1), where the view changes them."""
    for alternate in lost:
        mine = {key for key in values if key.alternate == alternate and key.kind in _PLACES}
        has_cd = any(key.kind == "CD" for key in mine)
        for axis in {n for key in mine for n in (key.row, key.column) if n} - lost[alternate]:
            view = views[axis]
            if WcsKey("CRPIX", None, axis, alternate) not in mine and (view.origin != 0 or view.step != 1):
                out[f"CRPIX{number[axis]}{alternate}"] = crpix(0.0, view.origin, view.step)
            if WcsKey("CDELT", axis, None, alternate) not in mine and view.step != 1 and not has_cd:
                out[f"CDELT{number[axis]}{alternate}"] = float(view.step)


def unusable(header: Any) -> str | None:
    """The card that keeps the primary WCS from being used, in words: one that should be a number."""
    for keyword, value in header.items():
        key = wcs_key(keyword)
        numeric = (
            key is not None and not key.alternate and key.kind in ("CRPIX", "CRVAL", "CDELT", "PC", "CD")
        )
        if numeric and not is_number(value):
            return f"{keyword} = {value!r} is not a number"
    return None


def flat_axes(header: Any) -> set[int]:
    """Axes on which every pixel lies at the same place: those with CDELT 0."""
    keys = [(wcs_key(keyword), value) for keyword, value in header.items()]
    primary = [(key, value) for key, value in keys if key and not key.alternate]
    if any(key.kind == "CD" for key, _ in primary):  # then CDELT means nothing
        return set()
    return {key.row for key, value in primary if key.kind == "CDELT" and key.row and value == 0}


# -- headers made clean ---------------------------------------------------------------------------------

_NUMBERS = {"nan", "+nan", "-nan", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"}


def clean_header(header: Any) -> tuple[str, dict[str, Any]]:
    """The header as valid text, and its cards as a dict.

    Cards that break the standard are mended: a bare NaN or an unquoted word becomes a string, an illegal
    keyword a HIERARCH card, characters that may not stand in a header question marks; what still does not
    parse becomes a COMMENT that repeats it. In the dict a bare NaN is a float, COMMENT and HISTORY are joined
    by newlines, a keyword without a value is None, and of cards with the same keyword the first counts.
    """
    from astropy.io.fits import Header

    out = Header()
    attrs: dict[str, Any] = {}
    text: dict[str, list[str]] = {"COMMENT": [], "HISTORY": [], "": []}
    for original in header.cards:
        card, value = _clean(original)
        out.append(card, end=True)
        if card.keyword in text:
            text[card.keyword].append(str(value))
        else:
            attrs.setdefault(card.keyword, value)
    attrs.update(
        {key: "\n".join(lines) for key, lines in text.items() if any(line.strip() for line in lines)}
    )
    return out.tostring(sep="", endcard=True, padding=False), attrs


def _clean(card: Any) -> tuple[Any, Any]:
    """The card mended, and its value."""
    from astropy.io.fits import Card, Undefined, VerifyError

    image = getattr(card, "_image", None) or str(card)
    plain = "".join(c if " " <= c <= "~" else "?" for c in image)
    if plain != image:
        card = Card.fromstring(plain)
    try:
        bare = not _parses(card)
        card.verify("silentfix+ignore")
        if not _valid(card):
            legal = re.fullmatch(r"[A-Z0-9_-]{1,8}", card.keyword)
            card = Card(card.keyword if legal else f"HIERARCH {card.keyword}", card.value, card.comment)
        card.verify("exception")
        value = card.value
    except (VerifyError, ValueError, TypeError):
        return Card("COMMENT", plain.strip()[:72]), plain.strip()[:72]
    number = str(value).split("(")[0].lower()
    if bare and number in _NUMBERS:
        value = float(number)
    return card, None if isinstance(value, Undefined) else value


def _parses(card: Any) -> bool:
    from astropy.io.fits import VerifyError

    try:
        return card.value is not card
    except VerifyError:
        return False


def _valid(card: Any) -> bool:
    from astropy.io.fits import VerifyError

    try:
        card.verify("exception")
    except VerifyError:
        return False
    return True
