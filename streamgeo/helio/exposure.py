"""Exposure time: counts to counts per second."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from streamgeo.errors import StepError
from streamgeo.helio.disc import first_number
from streamgeo.pointwise import Array, pointwise
from streamgeo.step import POINT, Step, register

CARDS = ("EXPTIME", "XPOSURE")  # both in seconds by the FITS standard
_PER_SECOND = re.compile(
    r"""(/|\bper\b)\s*(\([^)]*\b)?[mun]?s(ec(onds?)?)?\b  # DN/s, DN / (pixel s), counts per second
    | \bs(ec)?\s*(\*\*|\^)?\s*\(?-\s*1                   # DN s-1, DN s^-1, DN s**(-1)""",
    re.VERBOSE | re.IGNORECASE,
)


@register("helio.exposure")
def exposure(card: str | None = None) -> Step:
    """Divide by the exposure time in seconds, from the header; the inverse multiplies by it.

    The units become those per second, in what is saved and for the steps behind it: so it refuses to divide a
    second time. NaN stays NaN. Floats keep their dtype, integers become float32.

    Args:
        card: the header card that holds the exposure time in seconds; by default EXPTIME, else XPOSURE.

    Raises:
        StepError: when it runs on a file without the card, with a time that is not above 0, or whose values
            are per second already (BUNIT such as ``DN/s``).

    >>> exposure()([6.0, 9.0], attrs={"EXPTIME": 3.0}).tolist()
    [2.0, 3.0]
    """
    if card is not None and (not isinstance(card, str) or not card.strip()):
        raise StepError(f"helio.exposure: card={card!r} must be the name of a header card")
    return Step(partial(_per_second, card=card), partial(_total, card=card), reach=POINT, units=_rate)


def _rate(units: str) -> str:
    return f"{units}/s" if units else "s-1"


def _per_second(x: Array, *, attrs: Mapping[str, Any], card: str | None) -> Array:
    unit = str(attrs.get("BUNIT", ""))
    if _PER_SECOND.search(unit):
        raise StepError(
            f"helio.exposure: BUNIT={unit!r} says that the values are per second already; leave this step out"
        )
    seconds = _seconds(attrs, card)
    return pointwise(lambda v: v / seconds, x)


def _total(y: Array, *, attrs: Mapping[str, Any], card: str | None) -> Array:
    seconds = _seconds(attrs, card)
    return pointwise(lambda v: v * seconds, y)


def _seconds(attrs: Mapping[str, Any], card: str | None) -> float:
    cards = (card,) if card is not None else CARDS
    found = first_number(attrs, cards)
    if found is None:
        like = [name for name in attrs if any(part in str(name).upper() for part in ("EXP", "SHT"))]
        hint = f"; it has {', '.join(like[:8])}: give the one in seconds as card=" if like else ""
        raise StepError(f"helio.exposure: no {' or '.join(cards)} with a number in the header{hint}")
    name, seconds = found
    if seconds <= 0:
        raise StepError(f"helio.exposure: {name}={seconds:g} s must be above 0; filter such files out")
    return seconds
