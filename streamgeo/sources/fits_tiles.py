"""Tile-compressed FITS images: where the tiles lie in the file, and how windows come from them.

Any number of threads may read at once. Format: FITS standard 4.0, sections 7.3 (tables) and 10 (compressed images).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.chunked import Array, At, Box, Chunked, Slices
from streamgeo.errors import OpenError
from streamgeo.fits_packing import DTYPES
from streamgeo.slots import SLOTS, scratch
from streamgeo.sources.fits_codecs import (
    BLOCKS,
    CODECS,
    CODED,
    DITHERS,
    GUARD,
    NOTHING,
    ZIPPED,
    Decoder,
    Stored,
)
from streamgeo.sources.fits_headers import Header, Unusual
from streamgeo.sources.layouts import Identity, Uncovered, changed, read_into

Library = Callable[[Box], Array]  # the pixels of a box as astropy reads them
Ranges = Sequence[tuple[int, int]]

_CHUNK = 1 << 19  # bytes of decoded pixels that small tiles are kept together up to
_LARGEST = 1 << 31  # bytes of a decoded tile
_GAP = 1 << 16  # bytes between two tiles that cost no more to read than another call would
_WIDTHS = {"L": 1, "B": 1, "I": 2, "J": 4, "K": 8, "A": 1, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}
_CODES = {"B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}


@dataclass(frozen=True)
class Table:
    """A row for each tile.

    Attributes:
        how: coded, zipped, plain, or not at all.
        starts, sizes: bytes in the file.
        scales, zeros: of quantised pixels, in the dtype of the column, or one for all.
        blanks: what stands for a missing pixel, by tile.
    """

    how: NDArray[np.uint8]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    scales: Array | None = None
    zeros: Array | None = None
    blanks: Array | None = None


class FitsTiles(Chunked):
    """A tile-compressed image. Small tiles are kept in groups, so that a window touches few of them."""

    def __init__(
        self, path: str, identity: Identity, hdu: int, stored: Stored, table: Table, library: Library
    ) -> None:
        self.path, self.identity, self.hdu = path, identity, hdu
        self.shape, self.dtype = stored.shape, stored.dtype
        self.chunks = grouped(stored.shape, stored.tile, stored.dtype.itemsize)
        self._group = tuple(n // tile for n, tile in zip(self.chunks, stored.tile))
        tile = " x ".join(map(str, stored.tile))
        self.codec = f"{_named(stored)} in tiles of {tile}"
        self.words = f"chunks of {' x '.join(map(str, self.chunks))} ({self.codec})"
        self.key = ("fits", path, *identity, hdu)
        self._stored, self._table, self._library = stored, table, library
        self._decoder = Decoder(stored)
        # What astropy writes in place of the one integer that means missing is that integer.
        self._marked = (
            stored.dither is not None
            or table.blanks is not None
            or (stored.dtype.kind == "f" and stored.blank is not None)
        )
        columns = (table.how, table.starts, table.sizes, table.scales, table.zeros, table.blanks)
        self.nbytes = 1024 + sum(column.nbytes for column in columns if column is not None)

    def part(self, at: At, source: Slices, wait: bool = True) -> Array | None:
        """A piece of a group; see :meth:`Chunked.part`.

        A damaged tile is an error only for windows that need it, so that a group with one is read tile by tile.
        """
        try:
            return super().part(at, source, wait)
        except OpenError:
            starts = [i * size for i, size in zip(at, self.chunks)]
            return self._around([(s + p.start, s + p.stop) for s, p in zip(starts, source)])

    def decode(self, at: At) -> Array:
        """The pixels of one group of tiles; see :meth:`Chunked.decode`."""
        return self._tiles(self._ranges(at), SLOTS.empty)

    def place(self, at: At) -> tuple[int, int] | None:
        """Where the bytes of a group lie; see :meth:`Chunked.place`."""
        low, high = self._extent(self._rows(self._ranges(at)))
        return (low, high - low) if low < high else None

    def _ranges(self, at: At) -> Ranges:
        """Numbers of the tiles of a group."""
        return [(i * n, i * n + n) for i, n in zip(at, self._group)]

    def _around(self, box: Ranges) -> Array:
        """The pixels of a box, of which only the tiles that it touches are decoded."""
        ranges = [(low // size, -(-high // size)) for (low, high), size in zip(box, self._stored.tile)]
        cut = tuple(
            slice(low - first * size, high - first * size)
            for (low, high), (first, _), size in zip(box, ranges, self._stored.tile)
        )
        return self._tiles(ranges, np.empty)[cut]

    def _tiles(self, ranges: Ranges, room: Callable[..., Array]) -> Array:
        """The pixels of the tiles whose numbers lie in these ranges, in memory from ``room(shape, dtype)``."""
        stored = self._stored
        numbers = [range(low, min(high, count)) for (low, high), count in zip(ranges, stored.tiles)]
        shape = tuple(
            min(part.stop * size, n) - part.start * size
            for part, size, n in zip(numbers, stored.tile, stored.shape)
        )
        rows = self._rows(ranges)
        low, data = self._bytes(rows)
        out = room(shape, stored.dtype)
        if self._in_a_row(out, rows, low, data):
            return out
        steps = ([slice(i * n, i * n + n) for i in range(len(part))] for part, n in zip(numbers, stored.tile))
        parts = [out[place] for place in product(*steps)]
        if not self._fill_coded(parts, rows, low, data):
            for part, row in zip(parts, rows.tolist()):
                self._fill(part, row, low, data)
        return out

    def _rows(self, ranges: Ranges) -> NDArray[np.intp]:
        """Rows of the table for the tiles whose numbers lie in these ranges."""
        tiles = self._stored.tiles
        numbers = [range(low, min(high, count)) for (low, high), count in zip(ranges, tiles)]
        if math.prod(tiles[1:]) == 1:  # rows of an image: quicker
            return np.arange(numbers[0].start, numbers[0].stop)
        return np.ravel_multi_index(np.ix_(*numbers), tiles).ravel()

    def _in_a_row(self, out: Array, rows: NDArray[np.intp], low: int, data: Array) -> bool:
        """Decode Rice tiles that follow one another in memory as in the file, such as rows of an image.

        A row takes some ten microseconds, and what Python does for a tile of any shape would be several times as much.
        False where they do not lie so, or one is damaged.
        """
        stored, table = self._stored, self._table
        split = next((axis for axis, n in enumerate(stored.tile) if n > 1), out.ndim - 1)
        whole = stored.tile[split + 1 :] == stored.shape[split + 1 :]
        if stored.codec != "RICE_1" or not whole or out.size % len(rows) or not data.size:
            return False
        if (
            out.shape[split] % min(stored.tile[split], stored.shape[split])
            or (table.how[rows] != CODED).any()
        ):
            return False
        starts = table.starts[rows] - low
        try:
            tiles = out.reshape(len(rows), -1)
            if self._marked:
                numbers = self._decoder.room(tiles.shape)
                self._decoder.rice_tiles(data, starts, table.sizes[rows], numbers)
                np.copyto(tiles, self._scaled(numbers, rows), casting="unsafe")
            else:
                self._decoder.rice_tiles(data, starts, table.sizes[rows], tiles)
        except Exception:  # whichever it was comes out tile by tile
            return False
        return True

    def _fill_coded(self, parts: list[Array], rows: NDArray[np.intp], low: int, data: Array) -> bool:
        """Decode tiles into their places, if all are of the common kind; False when one is not, or is damaged."""
        if self._marked or not data.size or (self._table.how[rows] != CODED).any():
            return False
        starts = self._table.starts[rows] - low
        ends = starts + self._table.sizes[rows]
        coded = self._decoder.coded
        try:
            for part, start, end in zip(parts, starts.tolist(), ends.tolist()):
                part[...] = coded(data[start:end], part.shape).reshape(part.shape)
        except Exception:  # whichever it was, and what of it, comes out tile by tile
            return False
        return True

    def _fill(self, part: Array, row: int, low: int, data: Array) -> None:
        """Decode one tile into its place; ``data`` are bytes of the file from ``low`` on, if its own are there."""
        table = self._table
        start, size, how = table.starts.item(row), table.sizes.item(row), table.how.item(row)
        tile = f"read: tile {row} of hdu {self.hdu} of {self.path} is damaged"
        if how == NOTHING:
            raise OpenError(f"{tile} (no bytes are stored for it); fetch the file again")
        if size < 0 or start < 0 or start + size > self.identity[0]:  # astropy makes zeros of it
            raise OpenError(
                f"{tile} ({size} bytes at {start} of a file of {self.identity[0]}); fetch the file again"
            )
        try:
            if not data.size:
                low, data = start, self._pread(start, size)
            values = self._decoder(data[start - low : start - low + size], how, part.shape)
            if how == CODED and self._marked:
                values = self._scaled(values.reshape(1, -1), np.array([row]))
            np.copyto(part, values.reshape(part.shape), casting="unsafe")
        except OpenError:
            raise
        except Exception as error:  # the decoders have kinds of their own
            what = f"{tile} ({error})"
            if how != ZIPPED and not self._stored.codec.startswith("GZIP"):
                # The other decoders are those of astropy: asked again, it would say the same.
                raise OpenError(f"{what}; fetch the file again") from error
            part[...] = self._by_library(part, row, what)

    def _scaled(self, values: Array, rows: NDArray[np.intp]) -> Array:
        """Numbers of tiles, of shape (tiles, pixels), as :meth:`Decoder.scaled` says."""
        stored, table = self._stored, self._table

        def of_each(column: Array | None) -> Array | None:  # or one for all
            return None if column is None else column[rows if len(column) > 1 else [0] * len(rows), None]

        quantised = stored.dither is not None
        scales, zeros = (of_each(table.scales), of_each(table.zeros)) if quantised else (None, None)
        blank = stored.blank if table.blanks is None else of_each(table.blanks)
        return self._decoder.scaled(values, rows, scales, zeros, blank)

    def _by_library(self, part: Array, row: int, what: str) -> Array:
        """A tile as astropy reads it: gzip has forms that only it knows."""
        at = np.unravel_index(row, self._stored.tiles)
        starts = [int(i) * size for i, size in zip(at, self._stored.tile)]
        try:
            return self._library(tuple((low, low + size) for low, size in zip(starts, part.shape)))
        except OpenError as error:
            raise OpenError(f"{what}; fetch the file again") from error

    def _bytes(self, rows: NDArray[np.intp]) -> tuple[int, Array]:
        """Where in the file they begin, and the bytes of some tiles with the guard behind them, if they lie close.

        Otherwise none, and each tile is read for itself.
        """
        low, high = self._extent(rows)
        return low, self._pread(low, high - low) if low < high else np.empty(0, np.uint8)

    def _extent(self, rows: NDArray[np.intp]) -> tuple[int, int]:
        """Where in the file the bytes of some tiles begin and end; an empty range unless they lie close."""
        starts, sizes = self._table.starts[rows], self._table.sizes[rows]
        low, high = int(starts.min()), int((starts + sizes).max())
        if (
            sizes.min() < 0
            or low < 0
            or high > self.identity[0]
            or high - low > int(sizes.sum()) + _GAP * len(rows)
        ):
            return 0, 0
        return low, high

    def _pread(self, start: int, size: int) -> Array:
        data = scratch("stored", size + len(GUARD))
        if read_into(self.path, self.identity, start, data[:size]) != size:
            raise changed(self.path)
        data[size:] = GUARD
        return data


def grouped(shape: tuple[int, ...], tile: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Shape of the groups in which small tiles are kept: of whole tiles, and as square as they allow.

    >>> grouped((4096, 4096), (1, 4096), 2)
    (64, 4096)
    """
    group = [min(one, size) for one, size in zip(tile, shape)]
    nbytes = math.prod(group) * itemsize
    while nbytes * 2 <= _CHUNK:
        growing = [axis for axis, size in enumerate(shape) if group[axis] < size]
        growing = [axis for axis in growing if axis >= len(shape) - 2] or growing
        if not growing:
            break
        group[min(growing, key=group.__getitem__)] *= 2
        nbytes *= 2
    return tuple(-(-min(n, size) // one) * one for n, one, size in zip(group, tile, shape))


def _named(stored: Stored) -> str:
    if stored.dither is None:
        return stored.codec
    kind = next(name for name, number in DITHERS.items() if number == stored.dither)
    return f"{stored.codec}, quantised" + ("" if stored.dither < 0 else f", {kind}")


# -- the header and the table ---------------------------------------------------------------------------


def layout(path: str, identity: Identity, hdu: int, fd: int, header: Header, library: Library) -> FitsTiles:
    """The tiles of a compressed image.

    Args:
        path, identity: the file, and size and time of modification that it must have.
        hdu: its number.
        fd: of the file, to read the table of tiles from.
        header: of the table that holds the image.
        library: reads what cannot be read here.

    Raises:
        Uncovered: for what only astropy reads; the message says why.
    """
    try:
        columns, width = _columns(header)
        stored = _stored(path, header, columns)
        rows = header.whole("NAXIS2")
    except Unusual as reason:
        raise Uncovered(f"its header is unusual ({reason})") from None
    count = math.prod(stored.tiles)
    if rows < count or header.data + count * width > identity[0]:
        raise Uncovered(f"its table has {rows} rows for {count} tiles")
    data = os.pread(fd, count * width, header.data)
    if len(data) != count * width:
        raise Uncovered("its table is cut short")
    table = _table(np.frombuffer(data, np.uint8).reshape(count, width), header, columns, stored)
    try:
        return FitsTiles(path, identity, hdu, stored, table, library)
    except ImportError:
        raise Uncovered("this astropy has its decoders elsewhere") from None


@dataclass(frozen=True)
class _Column:
    at: int
    code: str  # letter of the values; of those in the heap for P and Q
    descriptor: str  # P, Q, or none


def _columns(header: Header) -> tuple[dict[str, _Column], int]:
    """The columns of the table by name, and bytes in a row."""
    found: dict[str, _Column] = {}
    at = 0
    for number in range(1, header.whole("TFIELDS") + 1):
        name, form = header.text(f"TTYPE{number}", ""), header.text(f"TFORM{number}", "")
        parsed = re.fullmatch(r"(\d*)([LXBIJKAEDCMPQ])([LXBIJKAEDCM]?)(?:\(\d*\))?\s*", form)
        if parsed is None or not name or name in found:
            raise Uncovered(f"column {name!r} has the form {form!r}")
        repeat = int(parsed[1] or 1)
        if name in _USED and (repeat != 1 or _scaled(header, number)):
            raise Uncovered(f"column {name!r} has the form {form!r}, or a scale")
        pointed = parsed[2] in "PQ"
        found[name] = _Column(at, parsed[3] if pointed else parsed[2], parsed[2] if pointed else "")
        at += -(-repeat // 8) if parsed[2] == "X" else repeat * _WIDTHS[parsed[2]]
    if at != header.whole("NAXIS1"):
        raise Uncovered(f"its columns take {at} bytes of {header.whole('NAXIS1')}")
    return found, at


_USED = ("COMPRESSED_DATA", "GZIP_COMPRESSED_DATA", "UNCOMPRESSED_DATA", "ZSCALE", "ZZERO", "ZBLANK")


def _scaled(header: Header, column: int) -> bool:
    return header.number(f"TSCAL{column}", 1) != 1 or header.number(f"TZERO{column}", 0) != 0


def _stored(path: str, header: Header, columns: dict[str, _Column]) -> Stored:
    codec = {"RICE_ONE": "RICE_1"}.get(kind := header.text("ZCMPTYPE", ""), kind)
    if codec not in CODECS:
        raise Uncovered(f"its compression is {codec!r}")
    shape, dtype = header.sizes("ZNAXIS"), np.dtype(DTYPES[header.whole("ZBITPIX")])
    tile = tuple(header.whole(f"ZTILE{axis}") for axis in range(len(shape), 0, -1))
    pixels = math.prod(min(one, size) for one, size in zip(tile, shape))
    if min(tile) < 1 or pixels * max(dtype.itemsize, 4) > _LARGEST:
        raise OpenError(
            f"read: {path} has an image of {shape} in tiles of {tile}: a tile holds 2 GiB at most; fetch the file again"
        )
    settings = _settings(header)
    block, width = settings.get("BLOCKSIZE", 32), settings.get("BYTEPIX", 4)
    if codec == "RICE_1" and (block not in BLOCKS or width not in (1, 2, 4)):
        raise OpenError(
            f"read: {path} says RICE_1 with BLOCKSIZE = {block} and BYTEPIX = {width}, which no decoder takes; "
            "fetch the file again"
        )
    scaled = "ZSCALE" in columns or "ZSCALE" in header.cards
    method = header.text("ZQUANTIZ", "NO_DITHER")
    if method not in DITHERS or (scaled and dtype.kind != "f"):
        raise Uncovered(f"its quantisation is {method} of {dtype}")
    plain = columns.get("UNCOMPRESSED_DATA")
    if plain is not None and plain.code not in _CODES:
        raise Uncovered(f"its uncompressed tiles have the form {plain.code}")
    return Stored(
        shape, tile, codec, dtype, block, width, settings.get("SMOOTH", 0), DITHERS[method] if scaled else None,
        header.whole("ZDITHER0", 0), _blank(header, columns, dtype),
        None if plain is None else np.dtype(_CODES[plain.code]),
    )  # fmt: skip


def _settings(header: Header) -> dict[str, int]:
    """The parameters of the codec: ZNAMEn and ZVALn."""
    found: dict[str, int] = {}
    number = 1
    while f"ZNAME{number}" in header.cards:
        name = header.text(f"ZNAME{number}", "").upper()
        if name in ("BLOCKSIZE", "BYTEPIX", "SMOOTH"):
            found.setdefault(name, header.whole(f"ZVAL{number}"))
        number += 1
    return found


def _blank(header: Header, columns: dict[str, _Column], dtype: np.dtype[Any]) -> int | None:
    """What stands for a missing pixel; by default, where a column has it, the least integer."""
    for keyword in ("ZBLANK", "BLANK"):
        if keyword in header.cards:
            return header.whole(keyword)
    return -(1 << (8 * dtype.itemsize - 1)) if "ZBLANK" in columns and dtype.kind != "f" else None


def _table(rows: Array, header: Header, columns: dict[str, _Column], stored: Stored) -> Table:
    heap = header.data + header.whole("THEAP", header.whole("NAXIS1") * header.whole("NAXIS2"))
    how = np.full(len(rows), NOTHING, np.uint8)
    starts, sizes = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    names = ("COMPRESSED_DATA", "GZIP_COMPRESSED_DATA", "UNCOMPRESSED_DATA")
    if "COMPRESSED_DATA" not in columns:
        raise Uncovered("it has no column COMPRESSED_DATA")
    for kind, name in enumerate(names):
        column = columns.get(name)
        if column is None:
            continue
        if not column.descriptor or column.code not in _CODES:
            raise Uncovered(f"column {name} has another form")
        pairs = _values(rows, column.at, ">i4" if column.descriptor == "P" else ">i8", 2).astype(np.int64)
        mine = (how == NOTHING) & (pairs[:, 0] != 0)
        how[mine] = kind
        sizes[mine] = pairs[mine, 0] * np.dtype(_CODES[column.code]).itemsize
        starts[mine] = pairs[mine, 1] + heap
    scales, zeros, blanks = (_extra(rows, header, columns.get(n), n) for n in ("ZSCALE", "ZZERO", "ZBLANK"))
    if stored.dither is not None and (scales is None or zeros is None):
        raise Uncovered("its pixels are quantised, and ZSCALE or ZZERO is missing")
    return Table(how, starts, sizes, scales, zeros, blanks if "ZBLANK" in columns else None)


def _extra(rows: Array, header: Header, column: _Column | None, name: str) -> Array | None:
    """A column of numbers, or the keyword that stands for one."""
    if column is None:
        return np.array([header.number(name, 0)], np.float64) if name in header.cards else None
    if column.descriptor or column.code not in _CODES:
        raise Uncovered(f"column {name} has another form")
    values = _values(rows, column.at, _CODES[column.code], 1)[:, 0]
    return values.astype(values.dtype.newbyteorder("="))


def _values(rows: Array, at: int, code: str, count: int) -> Array:
    width = np.dtype(code).itemsize * count
    return np.ascontiguousarray(rows[:, at : at + width]).view(code)
