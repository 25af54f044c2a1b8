"""The filters of HDF5 chunks, undone without the HDF5 library and free of the GIL.

Sources: HDF5 file format specification 3.0, section IV.A.2.l (filter pipeline message), the list of registered
filters (The HDF Group), and the documentation of each filter's client data.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple, cast

import numpy as np

from streamgeo.kernels import unshuffle
from streamgeo.slots import SLOTS, scratch
from streamgeo.sources.layouts import Bytes, Uncovered

DEFLATE, SHUFFLE, FLETCHER32, SZIP, BZIP2 = 1, 2, 3, 4, 307
LZF, BLOSC, LZ4, BITSHUFFLE, ZSTD = 32000, 32001, 32004, 32008, 32015
_NAMES = {DEFLATE: "deflate", SHUFFLE: "shuffle", FLETCHER32: "fletcher32", SZIP: "szip", BZIP2: "bzip2",
          LZF: "lzf", BLOSC: "blosc", LZ4: "lz4", BITSHUFFLE: "bitshuffle", ZSTD: "zstd"}  # fmt: skip
# How many times smaller a chunk can become at most, where the format sets a bound.
_RATIO = {DEFLATE: 1100, LZF: 100, LZ4: 260}
_BYTE = np.dtype(np.uint8)
_MASKS = 64  # filter masks that are remembered
_VALUES = {SHUFFLE: 1, SZIP: 4, BITSHUFFLE: 3}  # client data that cannot be done without


Room = Callable[[int], Bytes]  # memory for so many bytes
Decoder = Callable[[Bytes, int, tuple[int, ...], Room], Bytes]


class Damaged(Exception):
    """Bytes that are not what their filter writes."""


class Short(Damaged):
    """Fewer numbers than a chunk has: the HDF5 library would fill the rest with what is in its buffer."""


class Filter(NamedTuple):
    """One filter of a pipeline: its registered number and its client data."""

    code: int
    values: tuple[int, ...]

    @property
    def name(self) -> str:
        """For people."""
        return _NAMES.get(self.code, f"filter {self.code}")

    @property
    def keeps_size(self) -> bool:
        """Whether it gives as many bytes as it takes."""
        return self.code == SHUFFLE or (self.code == BITSHUFFLE and not _compressor(self.values))


class Pipeline:
    """The filters of a dataset in the order in which they were applied.

    Attributes:
        notices: whether it would fail on bytes that no filter was applied to.

    Raises:
        Uncovered: when one of them, or their combination, is not undone here.
    """

    def __init__(self, filters: Sequence[Filter]) -> None:
        self.filters = tuple(filters)
        for one in self.filters:
            if one.code not in _DECODERS:
                raise Uncovered(f"{one.name} is not covered")
            if len(one.values) < _VALUES.get(one.code, 0) or not _known_kind(one):
                raise Uncovered(f"{one.name} with client data {one.values} is not covered")
            if not _installed(one):
                raise Uncovered(f"imagecodecs was built without {one.name}")
        if sum(not (one.keeps_size or one.code == FLETCHER32) for one in self.filters) > 1:
            raise Uncovered(f"two compressors in a row ({self}) are not covered")

        self.notices = not all(one.keeps_size for one in self.filters)
        self._known: dict[tuple[int, int], list[_Stage]] = {}

    def __reduce__(self) -> tuple[type[Pipeline], tuple[tuple[Filter, ...]]]:
        return Pipeline, (self.filters,)

    def __str__(self) -> str:
        return ", ".join(one.name for one in self.filters) or "uncompressed"

    def decode(self, data: Bytes, mask: int, size: int) -> Bytes:
        """The ``size`` bytes of a chunk, to be kept; bits of ``mask`` say which filters were left out for it.

        Raises:
            Damaged: when a filter fails, or the number of bytes is another.
        """
        value = data
        for stage in self._stages(mask, size):
            value = stage.undo(value)
        if len(value) != size:
            kind = Short if len(value) < size else Damaged
            raise kind(f"it holds {len(value)} bytes of {size}")
        return value

    def _stages(self, mask: int, size: int) -> list[_Stage]:
        """How the filters of a chunk are undone, the last one first: worked out once for all chunks that are alike."""
        found = self._known.get((mask, size))
        if found is None:
            applied = [one for i, one in enumerate(self.filters) if not mask >> i & 1]
            sums = [one.code == FLETCHER32 for one in applied]
            found = [
                _Stage(
                    one.name,
                    _DECODERS[one.code],
                    size + 4 * sum(sums[:i]),
                    one.values,
                    partial(scratch, f"before filter {i}"),
                    _RATIO.get(one.code, sys.maxsize),
                )
                for i, one in enumerate(applied)
            ]
            if not applied or sums[0]:  # nothing has been written yet
                found.insert(0, _Stage("copy", _copy, size, (), _kept))
            found[0].room = _kept
            found.reverse()
            if len(self._known) == _MASKS:  # of a damaged file
                self._known.clear()
            self._known[mask, size] = found
        return found


@dataclass(slots=True)
class _Stage:
    """A filter to be undone.

    Attributes:
        size: bytes that it gives.
        room: where they go.
        ratio: how many times as many as it takes they are at most.
    """

    name: str
    decode: Decoder
    size: int
    values: tuple[int, ...]
    room: Room
    ratio: int = sys.maxsize

    def undo(self, data: Bytes) -> Bytes:
        """What the filter was given."""
        if self.size > self.ratio * len(data) + 4096:
            raise Damaged(f"{len(data)} bytes of {self.name} cannot hold {self.size}")
        try:
            return self.decode(data, self.size, self.values, self.room)
        except (Damaged, MemoryError):
            raise
        except Exception as error:  # each codec of imagecodecs has an error of its own
            raise Damaged(f"{self.name}: {error}") from error


def _kept(size: int) -> Bytes:
    return SLOTS.empty((size,), _BYTE)


def _copy(data: Bytes, size: int, values: tuple[int, ...], room: Room) -> Bytes:
    """What stands in scratch memory, to be kept."""
    np.copyto(out := room(len(data)), data)
    return out


# -- each filter -----------------------------------------------------------------------------------------


def _exact(name: str, **options: Any) -> Decoder:
    """A decoder of imagecodecs that is given exactly the memory that the result must fill."""

    def decode(data: Bytes, size: int, values: tuple[int, ...], room: Room) -> Bytes:
        out = room(size)
        got = _codec(name)(data, out=out, **options)
        return _full(out, len(got))

    return decode


@cache
def _codec(name: str) -> Callable[..., Any]:
    import imagecodecs

    found: Callable[..., Any] = getattr(imagecodecs, name)
    return found


def _full(out: Bytes, filled: int) -> Bytes:
    if filled != len(out):
        raise Short(f"it holds {filled} bytes of {len(out)}")
    return out


def _unshuffle(data: Bytes, size: int, values: tuple[int, ...], room: Room) -> Bytes:
    """Bytes of numbers that were sorted by their place in the number; a remainder was left as it is."""
    width, total = values[0], len(data)
    whole = total - total % width if width > 1 else 0
    out = room(total)
    if total and whole == total:  # nearly always
        unshuffle(out, data, width)
        return out
    if whole:
        unshuffle(out[:whole], data[:whole], width)
    out[whole:] = data[whole:]
    return out


def _check_fletcher32(data: Bytes, size: int, values: tuple[int, ...], room: Room) -> Bytes:
    import imagecodecs

    if len(data) < 4:
        raise Short("fletcher32: the checksum is missing")
    body, stored = data[:-4], int.from_bytes(data[-4:].tobytes(), "little")
    if len(body) == 0:
        raise Short("fletcher32: nothing but a checksum")
    found = int(imagecodecs.h5checksum_fletcher32(cast(Any, body)))
    # Before HDF5 1.6.3 the bytes of each half were swapped on some machines; the library takes both.
    swapped = (found & 0x00FF00FF) << 8 | (found >> 8) & 0x00FF00FF
    if stored not in (found, swapped):
        raise Damaged(f"fletcher32: the checksum is {found:#010x} and should be {stored:#010x}")
    return body


def _bitshuffle(data: Bytes, size: int, values: tuple[int, ...], room: Room) -> Bytes:
    """Bits of numbers sorted by their place, block by block; each block may be compressed.

    Compressed, there stand before the blocks the size of all and of a block, and before each block its
    compressed size, all big-endian. Numbers that fill no group of eight are left as they are at the end.
    """
    import imagecodecs

    width, block, kind = values[2], (values[3] if len(values) > 3 else 0), _compressor(values)
    if width < 1 or size % width:
        raise Damaged(f"bitshuffle: {size} bytes are no whole numbers of {width} bytes")
    block = block or max(8192 // width // 8 * 8, 128)
    if kind:
        total, block_bytes = struct.unpack_from(">QI", bytes(data[:12]))
        if total != size or block_bytes % width or block_bytes // width % 8 or not block_bytes:
            raise Damaged(
                f"bitshuffle: it says {total} bytes in blocks of {block_bytes}, and {size} are wanted"
            )
        block, data = block_bytes // width, _blocks(memoryview(data), size, width, block_bytes, kind)
    if len(data) != size:
        raise Damaged(f"it holds {len(data)} bytes of {size}")
    out = room(size)
    decode: Any = imagecodecs.bitshuffle_decode
    # Of an array it would take the size of a number, which is one byte here.
    got = decode(memoryview(data), itemsize=width, blocksize=block, out=out)
    return _full(out, len(got))


def _blocks(data: memoryview, size: int, width: int, block_bytes: int, kind: str) -> Bytes:
    import imagecodecs

    out = np.empty(size, np.uint8)
    tail = size % (8 * width)
    at, done, options = 12, 0, {"header": False} if kind == "lz4" else {}
    decode = getattr(imagecodecs, f"{kind}_decode")
    while done < size - tail:
        here = min(block_bytes, size - tail - done)
        (length,) = struct.unpack_from(">I", data, at)
        part = data[at + 4 : at + 4 + length]
        if len(part) != length or len(decode(part, out=out[done : done + here], **options)) != here:
            raise Damaged(f"bitshuffle: the block at byte {done} is cut short")
        at, done = at + 4 + length, done + here
    if len(data) < at + tail:
        raise Damaged("bitshuffle: the end is cut short")
    out[done:] = np.frombuffer(data[at : at + tail], np.uint8)
    return out


def _known_kind(one: Filter) -> bool:
    return one.code != BITSHUFFLE or len(one.values) < 5 or one.values[4] in (0, 2, 3)


def _compressor(values: tuple[int, ...]) -> str:
    return {2: "lz4", 3: "zstd"}.get(values[4] if len(values) > 4 else 0, "")


def _szip(data: Bytes, size: int, values: tuple[int, ...], room: Room) -> Bytes:
    import imagecodecs

    mask, per_block, bits, per_line = values[:4]
    (says,) = struct.unpack_from("<I", bytes(data[:4]))
    if says != size:
        raise Damaged(f"szip: it says {says} bytes, and {size} are wanted")
    decode: Any = imagecodecs.szip_decode
    options = {"pixels_per_block": per_block, "bits_per_pixel": bits, "pixels_per_scanline": per_line}
    out = room(size)
    got = decode(data, options_mask=mask, header=True, out=out, **options)
    return _full(out, len(got))


_DECODERS: dict[int, Decoder] = {
    DEFLATE: _exact("deflate_decode"),
    SHUFFLE: _unshuffle,
    FLETCHER32: _check_fletcher32,
    SZIP: _szip,
    BZIP2: _exact("bz2_decode"),
    LZF: _exact("lzf_decode"),
    BLOSC: _exact("blosc_decode", numthreads=1),
    LZ4: _exact("lz4h5_decode"),
    BITSHUFFLE: _bitshuffle,
    ZSTD: _exact("zstd_decode"),
}


def _installed(one: Filter) -> bool:
    import imagecodecs

    needs = {DEFLATE: ["DEFLATE"], FLETCHER32: ["H5CHECKSUM"], SZIP: ["SZIP"], BZIP2: ["BZ2"], LZF: ["LZF"],
             BLOSC: ["BLOSC"], LZ4: ["LZ4H5"], ZSTD: ["ZSTD"]}.get(one.code, [])  # fmt: skip
    if one.code == BITSHUFFLE:
        needs = ["BITSHUFFLE", *([_compressor(one.values).upper()] if _compressor(one.values) else [])]
    return all(getattr(getattr(imagecodecs, name, None), "available", False) for name in needs)
