"""Bands, sizes and dtype of the first image of a TIFF file, by its directory and without GDAL.

GDAL takes a millisecond or more to open a file, in which no other thread opens one, and a chain over thousands of
files needs no more than this to know how many patches there are. Here only directories are read that look as almost
all do; whatever is out of the ordinary is left to GDAL.
Formats: TIFF 6.0 (Adobe 1992), section 2 and 8; BigTIFF.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_FIRST = 1 << 12  # bytes that are read at first: the directory of most files ends within them
_MOST = 1 << 10  # tags of a directory
_LARGEST = 1 << 31  # bytes of a decoded chunk
_INTEGERS = {3: "H", 4: "I", 16: "Q"}  # SHORT, LONG, LONG8
_DTYPES = {
    (8, 1): "u1",
    (16, 1): "u2",
    (16, 2): "i2",
    (32, 1): "u4",
    (32, 2): "i4",
    (32, 3): "f4",
    (64, 3): "f8",
}
# None, LZW, JPEG, deflate (two numbers), packbits and zstd: any GDAL has them.
_CODECS = {1, 5, 7, 8, 32946, 32773, 50000}
_JPEG = 7

_KIND, _WIDTH, _HEIGHT, _BITS, _CODEC, _COLOURS, _ORDER = 254, 256, 257, 258, 259, 262, 266
_ORIENTATION, _BANDS, _PLANES, _FORMAT, _DEPTH, _TILE_DEPTH = 274, 277, 284, 339, 32997, 32998
_ROWS, _STRIPS, _STRIP_SIZES = 278, 273, 279
_TILE_COLS, _TILE_ROWS, _TILES, _TILE_SIZES = 322, 323, 324, 325


class Unusual(Exception):
    """A file that is left to GDAL; the message is the reason, for people."""


class Look(NamedTuple):
    """What the directory says.

    Attributes:
        bands: how many.
        shape: rows and columns.
        dtype: of the values, in native byte order.
    """

    bands: int
    shape: tuple[int, int]
    dtype: np.dtype[np.generic]


def look(path: str) -> Look:
    """The first image of a TIFF file.

    Raises:
        Unusual: when it is not a TIFF file, or not a plain one.
    """
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise Unusual(error.strerror or str(error)) from None
    try:
        return _image(_Directory(fd))
    finally:
        os.close(fd)


class _Directory:
    """The tags of the first directory of a file."""

    def __init__(self, fd: int) -> None:
        self._fd, self._size = fd, os.fstat(fd).st_size
        self._head = os.pread(fd, _FIRST, 0)
        order = {b"II": "<", b"MM": ">"}.get(self._head[:2], "")
        version = self._head[2:4] if order != ">" else self._head[3:1:-1]
        if not order or version not in (b"\x2a\0", b"\x2b\0"):
            raise Unusual("it is no TIFF file")
        self._order, big = order, version == b"\x2b\0"
        if big and self._head[4:8] != struct.pack(f"{order}HH", 8, 0):
            raise Unusual("its header is odd")
        self._pointer = "Q" if big else "I"
        self._field = 8 if big else 4
        (start,) = self._unpack(self._pointer, 8 if big else 4)
        (count,) = self._unpack("Q" if big else "H", start)
        if not 0 < count <= _MOST:
            raise Unusual(f"its directory has {count} tags")
        entries = self._bytes(start + (8 if big else 2), count * (12 + 2 * (self._field - 4)))
        self._tags: dict[int, tuple[int, int, bytes]] = {}
        last = 0
        for tag, kind, number, field in struct.iter_unpack(
            f"{order}HH{self._pointer}{self._field}s", entries
        ):
            if tag <= last:
                raise Unusual("its tags are out of order")
            self._tags[tag], last = (kind, number, field), tag

    def __contains__(self, tag: int) -> bool:
        return tag in self._tags

    def one(self, tag: int, default: int | None = None) -> int:
        """The value of a tag that has one.

        Raises:
            Unusual: when it has more, or is missing and there is no default.
        """
        if tag not in self._tags and default is not None:
            return default
        values = self.all(tag, 1)
        return values[0]

    def all(self, tag: int, count: int) -> Sequence[int]:
        """The values of a tag that has so many."""
        kind, number, field = self._stated(tag, count)
        form = f"{self._order}{number}{_INTEGERS[kind]}"
        nbytes = struct.calcsize(form)
        if nbytes > self._field:
            field = self._bytes(self._place(field), nbytes)
        return struct.unpack(form, field[:nbytes])

    def check(self, tag: int, count: int) -> None:
        """Refuse a list of another length, or one that does not lie in the file; it is not read."""
        kind, number, field = self._stated(tag, count)
        nbytes = number * struct.calcsize(f"{self._order}{_INTEGERS[kind]}")
        if nbytes > self._field and self._place(field) + nbytes > self._size:
            raise Unusual("it is cut short")

    def _stated(self, tag: int, count: int) -> tuple[int, int, bytes]:
        kind, number, field = self._tags.get(tag, (0, 0, b""))
        if kind not in _INTEGERS or number != count:
            raise Unusual(f"tag {tag} has {number} values of type {kind}")
        return kind, number, field

    def _place(self, field: bytes) -> int:
        place: int = struct.unpack(f"{self._order}{self._pointer}", field)[0]
        return place

    def _unpack(self, form: str, at: int) -> tuple[int, ...]:
        form = f"{self._order}{form}"
        return struct.unpack(form, self._bytes(at, struct.calcsize(form)))

    def _bytes(self, at: int, size: int) -> bytes:
        if at + size > self._size:
            raise Unusual("it is cut short")
        return self._head[at : at + size] if at + size <= len(self._head) else os.pread(self._fd, size, at)


def _image(tags: _Directory) -> Look:
    width, height, bands = tags.one(_WIDTH), tags.one(_HEIGHT), tags.one(_BANDS)
    if not (0 < width < 1 << 31 and 0 < height < 1 << 31 and 0 < bands < 1 << 16):
        raise Unusual(f"it says {bands} bands of {height} x {width}")
    bits = set(tags.all(_BITS, bands))
    formats = set(tags.all(_FORMAT, bands)) if _FORMAT in tags else {1}
    if len(bits) > 1 or len(formats) > 1:
        raise Unusual("its bands differ in their dtype")
    kind = bits.pop(), formats.pop()
    if kind not in _DTYPES:
        raise Unusual(f"it has {kind[0]} bits a sample of format {kind[1]}")
    _check_kind(tags, kind[0])
    dtype = np.dtype(_DTYPES[kind])
    _check_chunks(tags, height, width, bands, dtype.itemsize)
    return Look(bands, (height, width), dtype)


def _check_kind(tags: _Directory, bits: int) -> None:
    codec, colours = tags.one(_CODEC), tags.one(_COLOURS)
    if codec not in _CODECS or (codec == _JPEG and bits != 8):
        raise Unusual(f"its compression is {codec} with {bits} bits a sample")
    if colours > 3 or (colours == 3 and bits != 8):  # GDAL turns some into others while it reads
        raise Unusual(f"its photometric interpretation is {colours}")
    ordinary = {_KIND: 0, _ORDER: 1, _ORIENTATION: 1, _DEPTH: 1, _TILE_DEPTH: 1}
    for tag, value in ordinary.items():
        if tags.one(tag, value) != value:
            raise Unusual(f"tag {tag} is {tags.one(tag)}")


def _check_chunks(tags: _Directory, height: int, width: int, bands: int, itemsize: int) -> None:
    """Refuse chunks that GDAL may not take, or of which some are not listed."""
    planar = tags.one(_PLANES, 1)
    if planar not in (1, 2):
        raise Unusual(f"its planar configuration is {planar}")
    if (_TILES in tags) == (_STRIPS in tags):
        raise Unusual("it has not just tiles, or just strips")
    if _TILES in tags:
        rows, cols = tags.one(_TILE_ROWS), tags.one(_TILE_COLS)
        if not rows or not cols or rows % 16 or cols % 16:
            raise Unusual(f"its tiles are {rows} x {cols}")
    else:
        rows, cols = min(tags.one(_ROWS), height), width
    if rows < 1 or rows * cols * (1 if planar == 2 else bands) * itemsize >= _LARGEST:
        raise Unusual(f"its chunks are {rows} x {cols}")
    count = math.ceil(height / rows) * math.ceil(width / cols) * (bands if planar == 2 else 1)
    for tag in (_TILES, _TILE_SIZES) if _TILES in tags else (_STRIPS, _STRIP_SIZES):
        tags.check(tag, count)
