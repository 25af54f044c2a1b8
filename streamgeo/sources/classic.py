"""The length of a classic NetCDF file, told from its header.

netCDF-C reads a classic file that was cut short without a word and returns whatever is in its buffers, so the
length must be checked before. Source: NetCDF Users Guide, appendix B, "File Format Specifications" (CDF-1,
CDF-2 and CDF-5).
"""

from __future__ import annotations

import struct
from math import prod
from pathlib import Path
from typing import BinaryIO

from streamgeo.errors import OpenError

_SIZE = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}
_STREAMING = (0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)


class _Reader:
    """Big-endian fields of one header, in order."""

    def __init__(self, stream: BinaryIO, version: int) -> None:
        self._stream = stream
        self.version = version

    def take(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) < size:
            raise EOFError
        return data

    def word(self) -> int:
        return int(struct.unpack(">I", self.take(4))[0])

    def count(self) -> int:
        return int(struct.unpack(">Q", self.take(8))[0]) if self.version == 5 else self.word()

    def offset(self) -> int:
        return self.word() if self.version == 1 else int(struct.unpack(">Q", self.take(8))[0])

    def skip(self, size: int) -> None:
        self.take(_padded(size))

    def items(self) -> range:
        """A list's tag and length."""
        self.word()
        return range(self.count())


def _padded(size: int) -> int:
    return -(-size // 4) * 4


def check_length(path: str) -> None:
    """Refuse a classic NetCDF file that is shorter than its header says; any other file passes.

    Raises:
        OpenError: with the length that it has and the length that it should have.
    """
    with Path(path).open("rb") as stream:
        magic = stream.read(4)
        if magic[:3] != b"CDF" or magic[3:] not in (b"\x01", b"\x02", b"\x05"):
            return
        try:
            needed = _length(_Reader(stream, magic[3]))
        except (EOFError, KeyError, IndexError, OverflowError) as error:
            raise OpenError(f"open_netcdf: the header of {path} is cut short or damaged") from error
    size = Path(path).stat().st_size
    if size < needed:
        raise OpenError(f"open_netcdf: {path} is cut short: {size} bytes of {needed}; fetch it again")


def _length(read: _Reader) -> int:
    records = read.count()
    dims = []
    for _ in read.items():
        read.skip(read.count())
        dims.append(read.count())
    _skip_attributes(read)
    fixed_end, begins, sizes = 0, [], []
    for _ in read.items():
        read.skip(read.count())
        shape = [dims[read.count()] for _ in range(read.count())]
        _skip_attributes(read)
        itemsize = _SIZE[read.word()]
        read.count()  # the size as the header has it: unreliable for large variables
        begin = read.offset()
        if shape and shape[0] == 0:  # a record variable
            begins.append(begin)
            sizes.append(itemsize * prod(shape[1:]))
        else:
            fixed_end = max(fixed_end, begin + itemsize * prod(shape))
    if not begins or records in _STREAMING or records == 0:
        return fixed_end
    record = sizes[0] if len(sizes) == 1 else sum(map(_padded, sizes))
    return max(fixed_end, *(b + (records - 1) * record + s for b, s in zip(begins, sizes)))


def _skip_attributes(read: _Reader) -> None:
    for _ in read.items():
        read.skip(read.count())
        itemsize = _SIZE[read.word()]
        read.skip(itemsize * read.count())
