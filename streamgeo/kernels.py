"""Inner loops in C, and the same by numpy where streamgeo was installed without a compiler.

Both give the same bits. What is compiled takes a value once, and the interpreter's lock once: numpy needs several
calls for each, and threads wait for one another between two of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

_VERSION = 2  # of what is compiled: a module that was built before the last change is not taken
try:
    compiled: Any = import_module("streamgeo._kernels")
    compiled = compiled if getattr(compiled, "VERSION", 0) == _VERSION else None
except ImportError:
    compiled = None

Array = NDArray[Any]
Bytes = NDArray[np.uint8]
_NONE = 1 << 62  # what no integer of 32 bits is
BLOCK = 1 << 16  # numbers that are worked out at a time: what lies between stays in the L2 cache
_F4 = np.dtype(np.float32)
Pairs = list[tuple[Array, Array]]  # where numbers go, and what is stored, of one shape
MISSING = "inner loops: numpy, since streamgeo was installed without a C compiler; install one, then streamgeo again"


class Put(Protocol):
    """How stored numbers go to where they are wanted."""

    def __call__(self, out: Array, stored: Array) -> None:
        """Fill ``out``."""

    def each(self, pairs: Pairs) -> None:
        """The same for one array or more of one dtype: after each single call threads wait for one another."""


def look_up(pairs: Pairs, table: NDArray[np.float32]) -> None:
    """Fill the first array of each pair with what ``table`` has for the bits of the second: integers of 8 or 16 bits.

    >>> out = np.empty(2, np.float32)
    >>> look_up([(out, np.array([3, 255], np.uint8))], np.arange(256, dtype=np.float32) / 2)
    >>> out.tolist()
    [1.5, 127.5]
    """
    if compiled and compiled.look_up(pairs, table):
        return
    for out, stored in pairs:
        out[...] = table[stored.view(f"=u{stored.itemsize}")]


@dataclass(frozen=True)
class Line:
    """Integers of up to 32 bits become ``stored * scale + offset`` in the dtype ``real``, NaN where ``missing``.

    Attributes:
        missing: None for none.
        real: float32 or float64; there is a rounding after each of the two, and one to float32.
    """

    missing: int | None = None
    scale: float = 1.0
    offset: float = -0.0  # leaves a negative zero what it is
    real: np.dtype[Any] = _F4

    def __call__(self, out: Array, stored: Array) -> None:
        """Fill ``out`` with that of ``stored``.

        >>> out = np.empty(2, np.float32)
        >>> Line(missing=-1, scale=0.5)(out, np.array([3, -1], np.int16))
        >>> out.tolist()
        [1.5, nan]
        """
        self.each([(out, stored)])

    def each(self, pairs: Pairs) -> None:
        """The same for several arrays of one dtype."""
        if compiled and pairs and (dtype := pairs[0][1].dtype).isnative and dtype.kind in "iu":
            missing = _NONE if self.missing is None or abs(self.missing) > _NONE else self.missing
            double = self.real.itemsize == 8
            if compiled.linear(pairs, dtype.kind == "i", missing, self.scale, self.offset, double):
                return
        for out, stored in pairs:
            with np.errstate(all="ignore"):
                split(self._block, out, stored)

    def _block(self, out: Array, stored: Array) -> None:
        if self.scale == 1 and self.offset == 0 and self.real == np.float32:
            np.copyto(out, stored, casting="unsafe")
        else:
            work = stored.astype(self.real)
            np.multiply(work, self.scale, out=work)
            np.add(work, self.offset, out=work)
            np.copyto(out, work, casting="same_kind")
        if self.missing is not None:
            np.copyto(out, np.float32(np.nan), where=stored == self.missing)


class Plain:
    """Numbers as they are, or cast as numpy casts them.

    >>> out = np.empty(2, np.float32)
    >>> PLAIN(out, np.array([1, 2], np.int16))
    >>> out.tolist()
    [1.0, 2.0]
    """

    def __call__(self, out: Array, stored: Array) -> None:
        """Fill ``out`` with ``stored``."""
        np.copyto(out, stored, casting="unsafe")

    def each(self, pairs: Pairs) -> None:
        """The same for several arrays that do not overlap."""
        dtype = pairs[0][1].dtype
        alike = dtype.kind in "buifc" and all(out.dtype == dtype == stored.dtype for out, stored in pairs)
        if compiled and alike and compiled.copy(pairs):
            return
        for out, stored in pairs:
            self(out, stored)


PLAIN = Plain()


def split(block: Callable[[Array, Array], None], out: Array, stored: Array) -> None:
    """Have ``block(out, stored)`` done for parts of no more numbers than a block has."""
    if stored.size <= BLOCK:
        block(out, stored)
        return
    rows = BLOCK * len(stored) // stored.size
    if rows == 0:
        for one, part in zip(out, stored):
            split(block, one, part)
        return
    for start in range(0, len(stored), rows):
        block(out[start : start + rows], stored[start : start + rows])


def unshuffle(out: Bytes, data: Bytes, width: int) -> None:
    """Fill ``out`` with numbers of ``width`` bytes, of which ``data`` has all first bytes, then all second ones, ...

    >>> out = np.empty(6, np.uint8)
    >>> unshuffle(out, np.array([1, 2, 3, 10, 20, 30], np.uint8), 2)
    >>> out.tolist()
    [1, 10, 2, 20, 3, 30]
    """
    if compiled:
        compiled.unshuffle(out, data, width)
        return
    planes = data.reshape(width, -1)
    if width in (2, 4) and sys.byteorder == "little":  # shifting whole numbers is quicker than placing bytes
        numbers = out.view(f"u{width}")
        np.copyto(numbers, planes[-1])
        for plane in planes[-2::-1]:
            np.left_shift(numbers, 8, out=numbers)
            np.bitwise_or(numbers, plane, out=numbers)
    else:
        out.reshape(-1, width).T[...] = planes


def planes(out: Array, pixels: Array, differences: bool) -> None:
    """Fill ``out``, (band, y, x), with ``pixels``, (y, x, band), which may change.

    ``differences`` says that each pixel is stored less the one before it in its row, by its bits.

    >>> out = np.empty((1, 1, 3), np.uint8)
    >>> planes(out, np.array([[[9], [1], [255]]], np.uint8), True)
    >>> out.tolist()
    [[[9, 10, 9]]]
    """
    bits = f"u{pixels.itemsize}"
    if compiled and pixels.itemsize <= 8 and pixels.flags.carray and out.flags.carray:
        compiled.planes(out.view(bits), pixels.view(bits), differences)
        return
    if differences:
        pixels = np.cumsum(pixels.view(bits), axis=1, dtype=bits).view(pixels.dtype)
    np.copyto(out, pixels.transpose(2, 0, 1))


def rice(out: Array, data: Bytes, starts: NDArray[np.int64], sizes: NDArray[np.int64], block: int) -> bool:
    """Fill ``out``, (tile, pixel), from Rice code; False where it was not, and another decoder has to say why.

    Args:
        out: of the integers that the code holds: uint8, int16 or int32.
        data: bytes of all tiles.
        starts, sizes: bytes of each.
        block: pixels in a block of the code.
    """
    return compiled is not None and compiled.rice(out, data, starts, sizes, block) == len(out)


def lzw(out: Bytes, data: Bytes) -> bool:
    """Fill ``out`` from LZW as TIFF has it; False where it was not, and another decoder has to say why.

    >>> out = np.empty(3, np.uint8)
    >>> lzw(out, np.array([128, 0, 192, 128, 128], np.uint8)) or compiled is None
    True
    """
    return compiled is not None and compiled.lzw(out, data)
