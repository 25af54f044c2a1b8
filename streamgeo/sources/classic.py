"""Classic NetCDF files: where each variable lies, and whether the file is as long as its header says.

netCDF-C reads a classic file that was cut short without a word and returns whatever is in its buffers, so the
length must be checked before. Source: NetCDF Users Guide, appendix B, "File Format Specifications" (CDF-1,
CDF-2 and CDF-5).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from streamgeo.errors import OpenError
from streamgeo.sources.handles import identity
from streamgeo.sources.layouts import Identity, Mapped, Refused

_DTYPES = {1: "i1", 2: "S1", 3: ">i2", 4: ">i4", 5: ">f4", 6: ">f8", 7: "u1", 8: ">u2", 9: ">u4", 10: ">i8",
           11: ">u8"}  # fmt: skip
_SIZE = {code: np.dtype(name).itemsize for code, name in _DTYPES.items()}
_STREAMING = (0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)
_FIRST, _MOST = 64 << 10, 64 << 20  # bytes that hold most headers, and any


@dataclass(frozen=True)
class ClassicVariable:
    """A variable of a classic file; ``shape`` begins with 0 where it grows by records."""

    kind: int
    shape: tuple[int, ...]
    begin: int

    @property
    def grows(self) -> bool:
        """Whether its first dim is that of the records."""
        return bool(self.shape) and self.shape[0] == 0

    @property
    def nbytes(self) -> int:
        """Bytes of all of it, or of one record."""
        return _SIZE[self.kind] * prod(self.shape[1:] if self.grows else self.shape)


@dataclass(frozen=True)
class ClassicHeader:
    """What the header of a classic file says.

    Attributes:
        records: how many there are; None when the header does not say (a file that was streamed).
        record: bytes from one record to the next.
        length: that the file must have at least.
    """

    records: int | None
    record: int
    length: int
    variables: dict[str, ClassicVariable]


class _Reader:
    """Big-endian fields of a header, in order."""

    def __init__(self, data: bytes, version: int) -> None:
        self._data, self._at, self._wide, self._far = data, 4, version == 5, version != 1

    def _number(self, wide: bool) -> int:
        start = self._at
        self._at += 8 if wide else 4
        if self._at > len(self._data):
            raise EOFError
        return int.from_bytes(self._data[start : self._at], "big")

    def word(self) -> int:
        return self._number(False)

    def count(self) -> int:
        return self._number(self._wide)

    def offset(self) -> int:
        return self._number(self._far)

    def skip(self, size: int) -> bytes:
        start = self._at
        self._at += _padded(size)
        if self._at > len(self._data):
            raise EOFError
        return self._data[start : start + size]

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
    header(path, identity(path))


@lru_cache(256)
def header(path: str, stamp: Identity) -> ClassicHeader | None:
    """The header of a classic file that is as long as it says; None for any other file.

    Raises:
        OpenError: when header or file are cut short.
    """
    with Path(path).open("rb") as stream:
        data = stream.read(_FIRST)
        if data[:3] != b"CDF" or data[3:4] not in (b"\x01", b"\x02", b"\x05"):
            return None
        while True:
            try:
                found = _parse(_Reader(data, data[3]))
                break
            except EOFError as error:
                more = stream.read(len(data))
                if not more or len(data) >= _MOST:
                    raise OpenError(f"open_netcdf: the header of {path} is cut short or damaged") from error
                data += more
            except (KeyError, IndexError, OverflowError, struct.error) as error:
                raise OpenError(f"open_netcdf: the header of {path} is cut short or damaged") from error
    if stamp[0] < found.length:
        raise OpenError(
            f"open_netcdf: {path} is cut short: {stamp[0]} bytes of {found.length}; fetch it again"
        )
    return found


def _parse(read: _Reader) -> ClassicHeader:
    records = read.count()
    dims = []
    for _ in read.items():
        read.skip(read.count())
        dims.append(read.count())
    _skip_attributes(read)
    variables: dict[str, ClassicVariable] = {}
    for _ in read.items():
        name = read.skip(read.count()).decode("utf-8", "surrogateescape")
        shape = tuple([dims[read.count()] for _ in range(read.count())])
        _skip_attributes(read)
        kind = read.word()
        read.count()  # the size as the header has it: unreliable for large variables
        variables[name] = ClassicVariable(kind, shape, read.offset())
    fixed = [v.begin + v.nbytes for v in variables.values() if not v.grows]
    growing = [v for v in variables.values() if v.grows]
    # A record variable that is alone is not padded.
    record = growing[0].nbytes if len(growing) == 1 else sum(_padded(v.nbytes) for v in growing)
    if growing and records not in _STREAMING and records:
        fixed += [v.begin + (records - 1) * record + v.nbytes for v in growing]
    return ClassicHeader(None if records in _STREAMING else records, record, max(fixed, default=0), variables)


def _skip_attributes(read: _Reader) -> None:
    for _ in read.items():
        read.skip(read.count())
        itemsize = _SIZE[read.word()]
        read.skip(itemsize * read.count())


def layout(path: str, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Mapped | Refused:
    """How a variable lies in a classic file.

    Args:
        path: the file.
        name: the variable.
        shape, dtype: as its scene has them.

    Raises:
        OpenError: when the file is gone or cut short.
    """
    stamp = identity(path)
    found = header(path, stamp)
    variable = found.variables.get(name) if found else None
    if found is None or variable is None:
        return Refused(stamp, "its header does not say where it lies")
    stored = np.dtype(_DTYPES[variable.kind])
    strides = tuple(stored.itemsize * prod(variable.shape[i + 1 :]) for i in range(len(variable.shape)))
    whole = variable.shape
    if variable.grows:
        if found.records is None:
            return Refused(stamp, "its header does not say how many records there are")
        whole, strides = (found.records, *variable.shape[1:]), (found.record, *strides[1:])
    if whole != shape or stored.newbyteorder("=") != dtype.newbyteorder("="):
        return Refused(stamp, f"its header says {whole} {stored} and the library {shape} {dtype}")
    return Mapped(path, stamp, variable.begin, whole, strides, stored)
