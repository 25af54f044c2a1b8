"""Checks of headers, for ``filter_by_attrs``: whether an image is worth reading, and why not."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from streamgeo.errors import StepError
from streamgeo.helio.dates import observed
from streamgeo.helio.disc import angular_radius, card_number, first_number
from streamgeo.helio.exposure import CARDS
from streamgeo.parameters import in_unit

Attrs = Mapping[str, Any]
Reason = str | None


@dataclass(frozen=True)
class Check:
    """A check of a header that knows its reason: ``check(attrs)`` tells whether, ``check.why(attrs)`` why not."""

    rule: Callable[[Attrs], Reason] = field(
        compare=False
    )  # partials compare by identity; the text has it all
    text: str

    def __call__(self, attrs: Attrs) -> bool:
        """Whether a header passes."""
        return self.why(attrs) is None

    def why(self, attrs: Attrs) -> Reason:
        """Why a header does not pass; None where it does."""
        return self.rule(attrs)

    def __repr__(self) -> str:
        return f"sg.helio.select.{self.text}"


def quality(allowed: int | Sequence[int] = (), *, card: str = "QUALITY", absent: bool = False) -> Check:
    """Whether no quality flag is set.

    Args:
        allowed: bits that may be set (0 the lowest), such as ``(30,)`` for near-real-time images of AIA.
        card: the card that holds the flags, as a number or as text such as ``0x40000000``.
        absent: whether a header without the card passes.

    Raises:
        StepError: for a bit that is not from 0 to 63.

    >>> check = quality()
    >>> check({"QUALITY": 0}), check.why({"QUALITY": 0x40000000})
    (True, 'QUALITY=0x40000000: bit 30 is set')
    """
    bits = (allowed,) if isinstance(allowed, int) else tuple(allowed)
    wrong = [bit for bit in bits if isinstance(bit, bool) or not isinstance(bit, int) or not 0 <= bit < 64]
    if wrong:
        raise StepError(f"helio.select.quality: bit {wrong[0]!r} must be a whole number from 0 to 63")
    rule = partial(_flags, allowed=sum(1 << bit for bit in set(bits)), card=card, absent=absent)
    return Check(
        rule, _call("quality", *([bits] if bits else []), card=(card, "QUALITY"), absent=(absent, False))
    )


def _flags(attrs: Attrs, *, allowed: int, card: str, absent: bool) -> Reason:
    value = attrs.get(card)
    if value is None or str(value).strip() == "":
        return None if absent else f"the header has no {card}"
    try:
        flags = int(str(value).strip(), 0) if isinstance(value, str) else int(value)
    except ValueError:
        return f"{card}={value!r} is not a number"
    if flags < 0:  # stored as a signed number, where the highest bit counts as negative
        flags += 1 << (32 if flags >= -(1 << 31) else 64)
    found = [bit for bit in range(64) if (flags & ~allowed) >> bit & 1]
    if not found:
        return None
    told = f"bit {found[0]} is" if len(found) == 1 else f"bits {', '.join(map(str, found))} are"
    return f"{card}=0x{flags:08x}: {told} set"


def exposure(low: Any = 0.0, high: Any = None, *, card: str | None = None) -> Check:
    """Whether the exposure time is above ``low`` and at most ``high``.

    Args:
        low, high: in seconds, or Quantities; no upper limit by default.
        card: the card that holds it; by default EXPTIME, else XPOSURE.

    Raises:
        StepError: when low is not below high.
    """
    lowest = in_unit(low, "s", "helio.select.exposure: low")
    highest = None if high is None else in_unit(high, "s", "helio.select.exposure: high")
    if highest is not None and not lowest < highest:
        raise StepError(f"helio.select.exposure: low={lowest:g} s must be below high={highest:g} s")
    cards = CARDS if card is None else (card,)
    rule = partial(_exposed, low=lowest, high=highest, cards=cards)
    return Check(rule, _call("exposure", lowest, high=(highest, None), card=(card, None)))


def _exposed(attrs: Attrs, *, low: float, high: float | None, cards: tuple[str, ...]) -> Reason:
    found = first_number(attrs, cards)
    if found is None:
        return f"the header has no {' or '.join(cards)} with a number"
    name, seconds = found
    if not seconds > low:
        return f"{name}={seconds:g} s is not above {low:g} s"
    if high is not None and seconds > high:
        return f"{name}={seconds:g} s is above {high:g} s"
    return None


def missing_values(most: float = 0, *, card: str = "MISSVALS", absent: bool = False) -> Check:
    """Whether no more values than ``most`` are missing.

    Args:
        most: a number of pixels; or, as a float below 1, a share of TOTVALS.
        card: the card that holds the number.
        absent: whether a header without the card passes.

    Raises:
        StepError: when ``most`` is below 0.
    """
    limit = in_unit(most, "", "helio.select.missing_values: most")
    if limit < 0:
        raise StepError(f"helio.select.missing_values: most={limit:g} must be 0 or more")
    rule = partial(_missing, most=limit, card=card, absent=absent)
    return Check(rule, _call("missing_values", most, card=(card, "MISSVALS"), absent=(absent, False)))


def _missing(attrs: Attrs, *, most: float, card: str, absent: bool) -> Reason:
    count = card_number(attrs, card)
    if count is None:
        return None if absent else f"the header has no {card} with a number"
    if 0 < most < 1:
        total = card_number(attrs, "TOTVALS")
        if total is None or total <= 0:
            return "the header has no TOTVALS above 0, which the share is of"
        told = f"{card}={count:.15g} of {total:.15g} is more than {100 * most:g} %"
        return None if count <= most * total else told
    return None if count <= most else f"{card}={count:.15g} is more than {most:.15g}"


def valid(*needs: str) -> Check:
    """Whether the header has what steps need; see :func:`validate`."""
    return Check(partial(_valid, needs=_needs(needs)), _call("valid", *needs))


def _valid(attrs: Attrs, *, needs: tuple[str, ...]) -> Reason:
    return "; ".join(validate(attrs, *needs)) or None


def validate(attrs: Attrs, *needs: str) -> list[str]:
    """What is wrong with a header, in words; an empty list where nothing is.

    Args:
        attrs: the header, such as ``scene.attrs``.
        needs: what to look at, of ``"wcs"`` (two helioprojective axes with numbers in CRPIX, CRVAL and CDELT or
            CD), ``"date"``, ``"radius"`` (the angular radius of the Sun, or what it follows from), ``"exposure"``
            (a time above 0) and ``"wavelength"`` (WAVELNTH above 0); by default the first three.

    Raises:
        StepError: for another need.

    >>> validate({"CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN"}, "wcs")[0], validate({"EXPTIME": 2}, "exposure")
    ('CRPIX1 is not a number', [])
    """
    return [reason for need in _needs(needs) for reason in _LOOK[need](attrs)]


def _needs(needs: Sequence[str]) -> tuple[str, ...]:
    unknown = [need for need in needs if need not in _LOOK]
    if unknown:
        raise StepError(f"helio.validate: {unknown[0]!r} must be one of {', '.join(_LOOK)}")
    return tuple(needs) or ("wcs", "date", "radius")


def _wcs(attrs: Attrs) -> list[str]:
    kinds = [str(attrs.get(f"CTYPE{axis}") or "").strip().upper() for axis in (1, 2)]
    sky = sorted(
        kind.replace("_", "-")[:7].replace("SOLAR-X", "HPLN").replace("SOLAR-Y", "HPLT")[:4] for kind in kinds
    )
    if sky != ["HPLN", "HPLT"]:
        return [f"CTYPE1 and CTYPE2 are not helioprojective: {kinds[0] or 'none'} and {kinds[1] or 'none'}"]
    by_matrix = any(card_number(attrs, f"CD{i}_{j}") for i in (1, 2) for j in (1, 2))
    cards = [
        f"{name}{axis}" for name in ("CRPIX", "CRVAL", *([] if by_matrix else ["CDELT"])) for axis in (1, 2)
    ]
    wrong = []
    for card in cards:
        number = card_number(attrs, card)
        if number is None:
            wrong.append(f"{card} is not a number")
        elif number == 0 and card.startswith("CDELT"):
            wrong.append(f"{card} is 0")
    return wrong


def _date(attrs: Attrs) -> list[str]:
    return _raised(partial(observed, attrs, "date"))


def _radius(attrs: Attrs) -> list[str]:
    return _raised(partial(angular_radius, attrs, "radius"))


def _raised(look: Callable[[], Any]) -> list[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a radius taken from the date is one, for a check
            look()
    except StepError as error:
        return [str(error)]
    return []


def _exposure(attrs: Attrs) -> list[str]:
    reason = _exposed(attrs, low=0.0, high=None, cards=CARDS)
    return [] if reason is None else [reason]


def _wavelength(attrs: Attrs) -> list[str]:
    number = card_number(attrs, "WAVELNTH")
    return [] if number is not None and number > 0 else ["WAVELNTH is not a number above 0"]


_LOOK: Mapping[str, Callable[[Attrs], list[str]]] = {
    "wcs": _wcs, "date": _date, "radius": _radius, "exposure": _exposure, "wavelength": _wavelength,
}  # fmt: skip


def _call(name: str, *args: Any, **options: tuple[Any, Any]) -> str:
    """A call as text, without options at their defaults."""
    given = [f"{key}={value!r}" for key, (value, default) in options.items() if value != default]
    return f"{name}({', '.join([*map(repr, args), *given])})"
