"""When an image was taken, from its header."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from streamgeo.errors import StepError

CARDS = ("T_OBS", "DATE-OBS", "DATE_OBS", "DATE-AVG", "DATE-BEG")
_CLOCK = ("TIME-OBS", "TIME_OBS")
_SCALES = ("tai", "tt", "tdb", "tcg", "tcb")  # of TIMESYS, beside UTC
_TIMED = re.compile(r"\d[T_ ]\d\d")
_JSOC = re.compile(r"\A(\d{4})\.(\d\d)\.(\d\d)_(.*)_UTC\Z")
_OLD = re.compile(r"\A(\d\d)/(\d\d)/(\d\d)(?!\d)")  # DD/MM/YY, of the years 1900 to 1999 (FITS standard 4.0)


def observed(attrs: Mapping[str, Any], what: str, cards: tuple[str, ...] = CARDS) -> Any:
    """Time of an observation as ``astropy.time.Time``, from the first card that is there.

    ISO dates, those of JSOC (``2011.02.15_00:00:00_TAI``), those from before 1999 (``15/02/98``), and a date with
    the time of day in TIME-OBS. The scale is UTC, unless the text or TIMESYS says another.

    Raises:
        StepError: without such a card, or for text that is no date.
    """
    card = next((name for name in cards if str(attrs.get(name) or "").strip()), None)
    if card is None:
        raise StepError(f"{what}: the header has no date: none of {', '.join(cards)}")
    text = str(attrs[card]).strip()
    clock = next((str(attrs[name]).strip() for name in _CLOCK if attrs.get(name)), "")
    if clock and not _TIMED.search(text):
        text = f"{text} {clock}"
    return parsed(text, card, what, str(attrs.get("TIMESYS") or "").strip().lower())


@lru_cache(maxsize=4096)
def parsed(text: str, card: str, what: str, scale: str = "") -> Any:
    """A date as ``astropy.time.Time``; ``card`` is what it is called, ``scale`` that of text which says none.

    Raises:
        StepError: for text that is no date.
    """
    from sunpy.time import parse_time

    plain = _JSOC.sub(r"\1-\2-\3T\4Z", text).removesuffix("Z")
    options = {"scale": scale} if scale in _SCALES and plain == text and not text.endswith("_TAI") else {}
    try:
        return parse_time(_OLD.sub(r"19\3-\2-\1", plain), **options)
    except Exception as error:
        raise StepError(
            f"{what}: {card}={text!r} is not a date; give one such as 2011-02-15T00:00:00"
        ) from error
