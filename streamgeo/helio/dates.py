"""When an image was taken, from its header."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from streamgeo.errors import StepError

CARDS = ("T_OBS", "DATE-OBS", "DATE_OBS", "DATE-AVG", "DATE-BEG")
_CLOCK = ("TIME-OBS", "TIME_OBS")


def observed(attrs: Mapping[str, Any], what: str, cards: tuple[str, ...] = CARDS) -> Any:
    """Time of an observation as ``astropy.time.Time``, from the first card that is there.

    ISO dates, those of JSOC (``2011.02.15_00:00:00_TAI``), and a date with the time of day in TIME-OBS.

    Raises:
        StepError: without such a card, or for text that is no date.
    """
    card = next((name for name in cards if str(attrs.get(name) or "").strip()), None)
    if card is None:
        raise StepError(f"{what}: the header has no date: none of {', '.join(cards)}")
    text = str(attrs[card]).strip()
    clock = next((str(attrs[name]).strip() for name in _CLOCK if attrs.get(name)), "")
    if clock and not any(mark in text for mark in ("T", ":", "_")):
        text = f"{text} {clock}"
    return parsed(text, card, what)


@lru_cache(maxsize=4096)
def parsed(text: str, card: str, what: str) -> Any:
    """A date as ``astropy.time.Time``; ``card`` is what it is called.

    Raises:
        StepError: for text that is no date.
    """
    from sunpy.time import parse_time

    try:
        return parse_time(text.removesuffix("Z"))
    except Exception as error:
        raise StepError(f"{what}: {card}={text!r} is not a date ({error})") from error
