"""How FITS holds numbers: big-endian rows, BSCALE, BZERO, BLANK, and the integers that BZERO makes possible.

Source: FITS standard 4.0 (https://fits.gsfc.nasa.gov), sections 4.4.2.5 and 5.2, table 11.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgeo import unpacking
from streamgeo.kernels import Line
from streamgeo.unpacking import memory

DTYPES = {8: "u1", 16: "i2", 32: "i4", 64: "i8", -32: "f4", -64: "f8"}
BITPIX = {dtype: bitpix for bitpix, dtype in DTYPES.items()}
_BZERO = {"u1": -128, "i2": 1 << 15, "i4": 1 << 31, "i8": 1 << 63}  # by the type in the file
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


class Unpacking(unpacking.Unpacking):
    """A packing made ready to be called, by the arithmetic that astropy uses.

    Up to 16 bits it is worked out in float32, wider integers in float64; unsigned integers (BZERO = 2^(bits-1)) are
    taken as the integers they are. NaN where an integer equals ``blank``.

    >>> out = np.empty(3, np.float32)
    >>> Unpacking(Packing(np.dtype("i2"), 0.5, 10.0, -9))(out, np.array([1, 2, -9], np.int16))
    >>> out.tolist()
    [10.5, 11.0, nan]
    """

    def __init__(self, packing: Packing) -> None:
        self.key, self._twin = repr(packing), packing.twin  # 0.0 and -0.0 are two
        dtype, self._bscale, self._bzero, blank = packing
        # Exact in float32, also where 2^15 is added for unsigned integers.
        self._small = dtype.itemsize <= 2 or dtype == np.float32
        fits = blank is not None and np.iinfo(dtype).min <= blank <= np.iinfo(dtype).max
        self._blank = blank if fits else None
        self.plain = packing.bscale == 1 and packing.bzero == 0 and self._blank is None
        self.few = dtype.itemsize <= 2
        self.line = None
        if dtype.kind in "iu" and dtype.itemsize <= 4:
            real = np.dtype(np.float32 if self._small else np.float64)
            self.line = Line(self._blank, packing.bscale, packing.bzero or -0.0, real)

    def block(self, out: NDArray[np.float32], stored: NDArray[Any]) -> None:
        """Work out a block of numbers as astropy does."""
        missing = None
        if self._small:
            np.copyto(out, stored, casting="unsafe")
            missing = self._missing(out)
            _scale(out, self._bscale, self._bzero)
        elif self._twin is not None:
            native = memory("native", stored.dtype.newbyteorder("="), stored.shape)
            np.copyto(native, stored)
            missing = self._missing(native)
            np.copyto(out, flip_sign(native, self._twin), casting="unsafe")
        else:
            work = memory("work", np.dtype(np.float64), stored.shape)
            np.copyto(work, stored, casting="unsafe")
            # 64 bits are too many for a float.
            missing = self._missing(stored if stored.itemsize == 8 else work)
            _scale(work, self._bscale, self._bzero)
            np.copyto(out, work, casting="unsafe")
        if missing is not None:
            np.copyto(out, np.float32(np.nan), where=missing)

    def _missing(self, values: NDArray[Any]) -> NDArray[np.bool_] | None:
        if self._blank is None:
            return None
        missing: NDArray[np.bool_] = values == self._blank
        return missing if missing.any() else None


def _scale(work: NDArray[Any], bscale: float, bzero: float) -> None:
    if bscale != 1:
        np.multiply(work, work.dtype.type(bscale), out=work)
    if bzero != 0:
        np.add(work, work.dtype.type(bzero), out=work)


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
