"""How FITS holds numbers: big-endian rows, BSCALE, BZERO, BLANK, and the integers that BZERO makes possible.

Source: FITS standard 4.0 (https://fits.gsfc.nasa.gov), sections 4.4.2.5 and 5.2, table 11.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import OpenError

Box = tuple[tuple[int, int], ...]

DTYPES = {8: "u1", 16: "i2", 32: "i4", 64: "i8", -32: "f4", -64: "f8"}
BITPIX = {dtype: bitpix for bitpix, dtype in DTYPES.items()}
_BZERO = {"u1": -128, "i2": 1 << 15, "i4": 1 << 31, "i8": 1 << 63}  # by the type in the file
_BLOCK = 1 << 26  # bytes in one read
_GAP = 1 << 15  # bytes between two rows of a window that cost no more to read than another call would
_TWIN = {"u1": "i1", "i2": "u2", "i4": "u4", "i8": "u8"}
_STORED = {twin: stored for stored, twin in _TWIN.items()}


class Packing(NamedTuple):
    """How stored numbers become physical ones: ``stored * bscale + bzero``, NaN where stored is ``blank``."""

    dtype: np.dtype[Any]
    bscale: float = 1.0
    bzero: float = 0.0
    blank: int | None = None

    @property
    def twin(self) -> np.dtype[Any] | None:
        """The integer type that the stored one stands for by BZERO = 2^(bits-1), if it does.

        >>> Packing(np.dtype("i2"), bzero=32768).twin
        dtype('uint16')
        """
        stored = code(self.dtype)
        return np.dtype(_TWIN[stored]) if self.bscale == 1 and _BZERO.get(stored) == self.bzero else None


def code(dtype: np.dtype[Any]) -> str:
    """Kind and size of a dtype, whatever its byte order: ``"i2"``."""
    return f"{dtype.kind}{dtype.itemsize}"


def physical(stored: NDArray[Any], packing: Packing) -> NDArray[np.float32]:
    """Physical float32 of stored values, by the arithmetic that astropy uses.

    Up to 16 bits it is done in float32, wider integers in float64; unsigned integers (BZERO = 2^(bits-1)) are
    taken as the integers they are. NaN where an integer equals ``blank``.

    >>> physical(np.array([1, 2, -9], np.int16), Packing(np.dtype("i2"), 0.5, 10.0, -9)).tolist()
    [10.5, 11.0, nan]
    """
    dtype, bscale, bzero, blank = packing
    if packing.twin is not None:
        out = flip_sign(stored, packing.twin).astype(np.float32)
    elif bscale == 1 and bzero == 0 and blank is None:
        return stored.astype(np.float32, copy=False)
    else:
        work = stored.astype(dtype if dtype.kind == "f" else "f4" if dtype.itemsize <= 2 else "f8")
        if bscale != 1:
            work *= bscale
        if bzero != 0:
            work += bzero
        out = work.astype(np.float32, copy=False)
    if blank is not None:
        out[stored == blank] = np.nan
    return out


def to_stored(values: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Integers in the type that FITS has for them, and the BZERO that brings them back (0: none is needed).

    >>> to_stored(np.array([0, 65535], np.uint16))
    (array([-32768,  32767], dtype=int16), 32768)
    """
    stored = _STORED.get(code(values.dtype))
    if stored is None:
        return values, 0
    native = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    return flip_sign(native, np.dtype(stored)), _BZERO[stored]


def flip_sign(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Integers of n bits as the other type of n bits, minus or plus 2^(n-1): the top bit turned, so exact."""
    bits = np.dtype(f"u{values.dtype.itemsize}")
    top = np.array(1 << (8 * bits.itemsize - 1), bits)
    flipped: NDArray[Any] = (values.view(bits) ^ top).view(dtype)
    return flipped


def read_box(out: NDArray[Any], fd: int, offset: int, shape: tuple[int, ...], box: Box) -> None:
    """Fill ``out``, of the stored dtype, with the pixels of a box (start and stop in each dim of ``shape``).

    Rows are read whole, many at once, unless the box leaves so much of each that a call for each is cheaper.

    Raises:
        OpenError: when the file ends before the pixels do.
    """
    stored = out.dtype.newbyteorder(">")
    *leading, rows, cols = (1, *shape) if len(shape) == 1 else shape
    *outer, (top, bottom), (left, right) = ((0, 1), *box) if len(box) == 1 else box
    narrow = (cols - right + left) * stored.itemsize > _GAP
    block = 1 if narrow else max(1, _BLOCK // (cols * stored.itemsize))
    planes = out.reshape(-1, bottom - top, right - left)
    for plane, position in zip(planes, np.ndindex(*(hi - lo for lo, hi in outer))):
        number = 0
        for size, (lo, _), i in zip(leading, outer, position):
            number = number * size + lo + i
        for row in range(top, bottom, block):
            last = min(row + block, bottom)
            start = (number * rows + row) * cols + (left if narrow else 0)
            count = right - left if narrow else (last - row) * cols
            data = _pread(fd, count * stored.itemsize, offset + start * stored.itemsize)
            pixels = np.frombuffer(data, stored).reshape(last - row, -1)
            plane[row - top : last - top] = pixels if narrow else pixels[:, left:right]


def _pread(fd: int, count: int, offset: int) -> bytes:
    parts = []
    while count:
        part = os.pread(fd, min(count, 1 << 30), offset)
        if not part:
            raise OpenError(f"open_fits: the file ends at byte {offset}, {count} bytes before its pixels do")
        parts.append(part)
        count -= len(part)
        offset += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
