"""The few cards of a FITS header that say how pixels are stored, read without parsing the rest.

A header of a solar image has hundreds of cards, and astropy takes milliseconds for them. Here only the cards that are
needed are looked at, and only in the form that the standard prescribes. Whatever looks unusual is left to astropy.
Format: FITS standard 4.0, sections 3, 4 and 10.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

BLOCK = 2880
_CARD = 80
_FIRST = 10 * BLOCK  # bytes that are read at first: most headers end within them
_LONGEST = 1 << 24  # bytes of a header
_END = b"END" + b" " * 77
_BADLY_ENDED = re.compile(rb"END *[^A-Z0-9_ -].*|END {1,76}[^ ].*", re.DOTALL)
_WANTED = re.compile(  # and those over which astropy would refuse the image
    rb"SIMPLE|EXTEND|XTENSION|BITPIX|NAXIS\d*|PCOUNT|GCOUNT|GROUPS|EXTNAME|BSCALE|BZERO|BLANK|CTYPE\d+|TFIELDS|THEAP"
    rb"|T(?:TYPE|FORM|SCAL|ZERO|NULL|UNIT|DISP|DIM)\d+|ZIMAGE|ZBITPIX|ZNAXIS\d*|ZTILE\d+|ZCMPTYPE|ZNAME\d+|ZVAL\d+"
    rb"|ZQUANTIZ|ZDITHER0|ZBLANK|ZSCALE|ZZERO|ZSIMPLE|ZTENSION|ZEXTEND|ZBLOCKED|ZPCOUNT|ZGCOUNT|ZHECKSUM|ZDATASUM"
)
_VALUE = re.compile(
    rb"= +(?:'(?P<text>(?:[ -&(-~]|'')*)'|(?P<int>[+-]?\d+)|(?P<float>[+-]?(?:\d+\.?\d*|\.\d+)(?:[ED][+-]?\d+)?)"
    rb"|(?P<bool>[TF])) *(?:/[ -~]*)?"
)
_PRINTABLE = bytes(range(32, 127))
_COUNTED = re.compile(rb"(TFIELDS|Z?NAXIS) *= *\+?(\d{4,})")  # the standard has 999 of either at most
Value = str | int | float | bool


class Unusual(Exception):
    """A header that is left to astropy."""


class Endless(Exception):
    """A header that counts what it has up to a number at which no reader would arrive."""


@dataclass(frozen=True)
class Header:
    """The cards that were looked for, and where the header and the bytes that it describes lie in the file.

    Attributes:
        start: byte where the header begins.
        data: byte where the data begin.
        span: bytes of data, without what fills up the last block.
    """

    cards: Mapping[str, Value]
    start: int
    data: int
    span: int

    @property
    def next(self) -> int:
        """Byte where the next header begins."""
        return self.data + -(-self.span // BLOCK) * BLOCK

    def number(self, keyword: str, default: float) -> float:
        """A card that holds a number.

        Raises:
            Unusual: when it holds something else.
        """
        value = self.cards.get(keyword, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Unusual(f"{keyword} = {value!r}")
        return value

    def whole(self, keyword: str, default: int | None = None) -> int:
        """A card that holds a whole number.

        Raises:
            Unusual: when it holds something else, or is missing and there is no default.
        """
        value = self.cards.get(keyword, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise Unusual(f"{keyword} = {value!r}")
        return value

    def text(self, keyword: str, default: str) -> str:
        """A card that holds text.

        Raises:
            Unusual: when it holds something else.
        """
        value = self.cards.get(keyword, default)
        if not isinstance(value, str):
            raise Unusual(f"{keyword} = {value!r}")
        return value

    def sizes(self, prefix: str) -> tuple[int, ...]:
        """``NAXIS1`` and on (or ``ZNAXIS1`` and on) in numpy order: the last axis of the header first.

        Raises:
            Unusual: when one is missing or no size.
        """
        count = self.whole(prefix, 0)
        if not 0 <= count <= 999:
            raise Unusual(f"{prefix} = {count}")
        sizes = tuple(self.whole(f"{prefix}{axis}") for axis in range(count, 0, -1))
        if any(size < 0 for size in sizes):
            raise Unusual(f"{prefix}n = {sizes}")
        return sizes


def headers(fd: int, size: int) -> Iterator[Header]:
    """The headers of a plain FITS file of ``size`` bytes, one after another.

    Raises:
        Unusual: at the first that is not as the standard has it.
    """
    start = 0
    while start < size:
        header = read_header(fd, start)
        yield header
        start = header.next


def read_header(fd: int, start: int) -> Header:
    """The header that begins at a byte of a file.

    Raises:
        Unusual: when it is not as the standard has it.
        Endless: when it claims more columns or dims than can be.
    """
    text = _text(fd, start)
    for claim in _COUNTED.finditer(text):
        if claim.start() % _CARD == 0:
            raise Endless(f"{claim[1].decode()} = {claim[2].decode()} exceeds 999, so the header is damaged")
    cards = _cards(text)
    first = text[:8]
    if first not in (b"SIMPLE  ", b"XTENSION") or (first == b"SIMPLE  ") != (start == 0):
        raise Unusual(f"it begins with {first!r}")
    if first == b"SIMPLE  " and cards["SIMPLE"] is not True:
        raise Unusual("SIMPLE is not T")
    data = start + -(-(len(text) + _CARD) // BLOCK) * BLOCK
    header = Header(cards, start, data, 0)
    return Header(cards, start, data, _span(header))


def _span(header: Header) -> int:
    sizes = header.sizes("NAXIS")
    extra, groups = header.whole("PCOUNT", 0), header.whole("GCOUNT", 1)
    if extra < 0 or groups != 1 or header.cards.get("GROUPS", False) is not False:
        raise Unusual("random groups")
    if not sizes:
        return 0
    return abs(header.whole("BITPIX")) // 8 * (extra + math.prod(sizes))


def _text(fd: int, start: int) -> bytes:
    """The cards of a header, up to END."""
    text = os.pread(fd, _FIRST, start)
    seen = 0
    while True:
        at = text.find(_END, seen)
        while at >= 0 and at % _CARD:
            at = text.find(_END, at + 1)
        if at >= 0 and len(text) >= -(-(at + _CARD) // BLOCK) * BLOCK:
            return text[:at]
        if len(text) % BLOCK or len(text) > _LONGEST or at >= 0:
            raise Unusual("it has no END, or its last block is cut short")
        seen = len(text) - _CARD
        more = os.pread(fd, len(text), start + len(text))
        if not more:
            raise Unusual("it has no END")
        text += more


def _cards(text: bytes) -> dict[str, Value]:
    if text.translate(None, _PRINTABLE):
        raise Unusual("it holds characters that may not stand in a header")
    found: dict[str, Value] = {}
    for at in range(0, len(text), _CARD):
        key = text[at : at + 8]
        known = _kind(key)
        if known is None:
            continue
        if known == "":
            _check(text[at : at + _CARD])
            continue
        value = _VALUE.fullmatch(text, at + 8, at + _CARD)
        if value is None or known in found:
            raise Unusual(f"{known} is there twice, or not in the form of the standard")
        found[known] = _value(value)
    return found


@lru_cache(maxsize=4096)
def _kind(key: bytes) -> str | None:
    """The keyword of a card that is wanted; None for one that is not; empty where more than the key tells."""
    bare = key.rstrip()
    if _WANTED.fullmatch(bare):
        return bare.decode()
    odd = (
        key != key.upper() or key[:1] == b" " or b"=" in key or b" " in bare or bare in (b"END", b"HIERARCH")
    )
    odd = odd or (bare.startswith(b"END") and not re.fullmatch(rb"END[A-Z0-9_-]+", bare))
    return "" if odd and bare else None


def _check(card: bytes) -> None:
    """An odd card must not stand for one that is wanted, or for the end.

    Raises:
        Unusual: when it does.
    """
    if _BADLY_ENDED.fullmatch(card):
        raise Unusual("its END is not as it should be")
    keyword = card.partition(b"=")[0].upper().strip().removeprefix(b"HIERARCH").strip()
    if _WANTED.fullmatch(keyword):
        raise Unusual(f"{keyword.decode()} does not stand where it should")


def _value(found: re.Match[bytes]) -> Value:
    kind, text = found.lastgroup, found[found.lastgroup or 0].decode("ascii")
    if kind == "text":
        if text.endswith("&"):
            raise Unusual("text goes on in another card")
        return text.replace("''", "'").rstrip()
    if kind == "int":
        return int(text)
    return float(text.replace("D", "E")) if kind == "float" else text == "T"
