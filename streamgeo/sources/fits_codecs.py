"""Tiles of compressed FITS images: from bytes to pixels before BSCALE and BZERO, bit for bit as astropy has them.

Format: FITS standard 4.0, section 10; dithering: Pence, White & Seaman 2010 (PASP 122, 1065).
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from streamgeo import kernels
from streamgeo.unpacking import memory

Array = NDArray[Any]

GUARD = np.full(
    8192, 0xFF, np.uint8
)  # lies behind what is given to a decoder that looks at its limits once a block only
BLOCKS = range(1, 1025)  # pixels in a block of the Rice code, so that the guard is long enough
CODECS = ("RICE_1", "GZIP_1", "GZIP_2", "PLIO_1", "HCOMPRESS_1", "NOCOMPRESS")
DITHERS = {"NONE": 0, "NO_DITHER": -1, "SUBTRACTIVE_DITHER_1": 1, "SUBTRACTIVE_DITHER_2": 2}
CODED, ZIPPED, PLAIN, NOTHING = range(4)  # how a tile is stored


class Damaged(Exception):
    """The bytes of a tile are not what the header says."""


@dataclass(frozen=True)
class Stored:
    """What the header says of a compressed image.

    Attributes:
        codec: RICE_1, GZIP_1, GZIP_2, PLIO_1, HCOMPRESS_1 or NOCOMPRESS.
        dtype: of the pixels before BSCALE and BZERO, in native byte order.
        block, width: of the Rice code: pixels in a block, bytes of a number.
        smooth: whether HCOMPRESS smooths.
        dither: -1 for none, 0 to 2 as ZQUANTIZ says; None for pixels that are not quantised.
        seed: ZDITHER0.
        blank: what stands for a missing pixel before it is scaled, or None.
        plain: dtype of tiles that are stored as they are.
    """

    shape: tuple[int, ...]
    tile: tuple[int, ...]
    codec: str
    dtype: np.dtype[Any]
    block: int = 32
    width: int = 4
    smooth: int = 0
    dither: int | None = None
    seed: int = 0
    blank: int | None = None
    plain: np.dtype[Any] | None = None

    @property
    def tiles(self) -> tuple[int, ...]:
        """How many along each axis."""
        return tuple(-(-size // tile) for size, tile in zip(self.shape, self.tile))

    @property
    def floats(self) -> bool:
        """Whether what is coded are floats as they are."""
        return self.dtype.kind == "f" and self.dither is None


class Decoder:
    """Decodes the tiles of one image; any number of threads may use it.

    Raises:
        ImportError: when this astropy has its compiled decoders elsewhere.
    """

    def __init__(self, stored: Stored) -> None:
        self._stored, self._codecs = stored, codecs()
        self.coded: Callable[[Array, tuple[int, ...]], Array] = {
            "RICE_1": self._rice, "GZIP_1": self._gzip, "GZIP_2": self._gzip_by_byte, "PLIO_1": self._plio,
            "HCOMPRESS_1": self._hcompress, "NOCOMPRESS": self._big_endian,
        }[stored.codec]  # fmt: skip
        self._rice_type = np.dtype("u1" if stored.width == 1 else f"i{stored.width}")

    def __call__(self, raw: Array, how: int, shape: tuple[int, ...]) -> Array:
        """The numbers of a tile of this shape, before quantised ones are scaled.

        Args:
            raw: the bytes of the tile; the guard lies behind them.
            how: coded, zipped, or plain. (``decoder.coded(raw, shape)`` does without.)
            shape: of the tile.

        Raises:
            Damaged: when they are not what the header says; the decoders have kinds of errors of their own.
        """
        if how == CODED:
            return self.coded(raw, shape)
        count = math.prod(shape)
        if how == ZIPPED:
            return _numbers(_unzipped(raw, count), count, floats=self._stored.dtype.kind == "f")
        assert self._stored.plain is not None
        if len(raw) != count * self._stored.plain.itemsize:
            raise Damaged(f"{len(raw)} bytes for {count} pixels")
        return raw.view(self._stored.plain)

    def _rice(self, raw: Array, shape: tuple[int, ...]) -> Array:
        out: Array = np.empty((1, math.prod(shape)), self._rice_type)
        self.rice_tiles(raw, np.zeros(1, np.int64), np.array([len(raw)]), out)
        return out.reshape(-1)

    def room(self, shape: tuple[int, ...]) -> Array:
        """Scratch memory of this thread for numbers in Rice code."""
        return memory("numbers", self._rice_type, shape)

    def rice_tiles(
        self, data: Array, starts: NDArray[np.int64], sizes: NDArray[np.int64], out: Array
    ) -> None:
        """Decode several tiles of as many pixels each.

        Args:
            data: bytes of all of them; the guard lies behind.
            starts, sizes: bytes of each.
            out: of shape (tiles, pixels).

        Raises:
            Damaged: when there are not enough bytes for them; astropy, which decodes what cannot be decoded here,
                has errors of its own.
        """
        stored, count = self._stored, out.shape[1]
        # A block of pixels that are all alike takes 3 bits at least.
        if count > int(sizes.min()) * 8 // 3 * stored.block:
            raise Damaged(f"{sizes.min()} bytes for {count} pixels")
        if out.dtype == self._rice_type and kernels.rice(out, data, starts, sizes, stored.block):
            return
        decode = self._codecs.decompress_rice_1_c
        for place, low, high in zip(out, starts.tolist(), (starts + sizes).tolist()):
            place[...] = np.frombuffer(
                decode(data[low:high], stored.block, stored.width, count), self._rice_type
            )

    def _gzip(self, raw: Array, shape: tuple[int, ...]) -> Array:
        count = math.prod(shape)
        return _numbers(_unzipped(raw, count), count, floats=self._stored.floats)

    def _gzip_by_byte(self, raw: Array, shape: tuple[int, ...]) -> Array:
        """The first byte of every number comes first, then the second of every one, and so on."""
        count = math.prod(shape)
        by_byte = _unzipped(raw, count).reshape(-1, count)
        return _numbers(np.ascontiguousarray(by_byte.T).ravel(), count, floats=self._stored.floats)

    def _big_endian(self, raw: Array, shape: tuple[int, ...]) -> Array:
        return _numbers(raw, math.prod(shape), floats=self._stored.floats)

    def _hcompress(self, raw: Array, shape: tuple[int, ...]) -> Array:
        """astropy's decoder believes what the bytes say of their number: they are held against the tile before."""
        wide = tuple(size for size in shape if size != 1)
        said = tuple(int.from_bytes(raw[at : at + 4].tobytes(), "big") for at in (2, 6))
        planes = int(raw[22:25].max(initial=0))
        stored = self._stored
        if len(wide) != 2 or said != wide or planes > _PLANES:
            raise Damaged(f"HCOMPRESS says {said} pixels in {planes} bit planes for {wide}")
        # It takes no more than two bits of a pixel from each plane, and does not look where its bytes end: where
        # they end too early, what it makes of them depends on what lies behind.
        size = len(GUARD) + math.prod(wide) * planes // 4
        guarded = [raw.tobytes() + byte * size for byte in (b"\xff", b"\0")]
        decode = self._codecs.decompress_hcompress_1_c
        with _HCOMPRESS:  # it mixes up the pixels of images that two threads decode at once
            values, others = (decode(data, *wide, 0, stored.smooth, 8) for data in guarded)
        if values != others:
            raise Damaged(f"its {len(raw)} bytes end before its pixels do")
        return np.frombuffer(values, np.int32)

    def _plio(self, raw: Array, shape: tuple[int, ...]) -> Array:
        """The same of the line lists of IRAF: how long the list is, and where in it the lines begin."""
        words = raw[: len(raw) & ~1].view(">i2").astype("=i2")
        if len(raw) % 2 or len(words) < 5:
            raise Damaged(f"{len(raw)} bytes of 16-bit numbers")
        old = words[2] > 0
        length = int(words[2]) if old else (int(words[4]) << 15) + int(words[3])
        first = 3 if old else int(words[1])
        if not 0 <= first <= length <= len(words):
            raise Damaged(f"PLIO says {length} numbers from {first} on, of {len(words)}")
        values = self._codecs.decompress_plio_1_c(words.tobytes() + GUARD.tobytes(), math.prod(shape))
        return np.frombuffer(values, np.int32)

    def scaled(
        self, values: Array, rows: NDArray[np.intp], scale: Array | None, zero: Array | None, blank: Any
    ) -> Array:
        """Numbers of coded tiles with quantised ones scaled and missing ones marked, as astropy does both.

        Args:
            values: what came out of the codec, of shape (tiles, pixels).
            rows: number of each tile, from 0.
            scale, zero: ZSCALE and ZZERO of each, of shape (tiles, 1), in the dtype of their columns; None where
                nothing is quantised.
            blank: what stands for a missing pixel: in all or, of such a shape, in each; or None.
        """
        stored = self._stored
        missing = None if blank is None else values == blank
        if scale is not None and zero is not None:
            values = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
            dithered = stored.dither is not None and stored.dither >= 0
            values = self._undithered(values, rows, scale, zero) if dithered else values * scale + zero
        if missing is None or not missing.any():
            return values
        mark: Any = stored.dtype.type(np.nan) if stored.dtype.kind == "f" else stored.blank
        return np.where(missing, mark, values)

    def _undithered(self, values: Array, rows: NDArray[np.intp], scale: Array, zero: Array) -> Array:
        if values.itemsize > 4:
            raise Damaged("quantised numbers of 64 bits")
        stored, codecs = self._stored, self._codecs
        function = codecs.unquantize_float_c if stored.dtype.itemsize == 4 else codecs.unquantize_double_c
        out = np.empty(values.shape, stored.dtype)
        count, width = values.shape[1], values.itemsize
        for place, tile, row, by, plus in zip(out, values, rows.tolist(), scale.ravel(), zero.ravel()):
            found = function(tile, row + stored.seed, count, by, plus, stored.dither, 0, 0, 0.0, width)
            place[...] = np.frombuffer(found, stored.dtype)
        return out


def _unzipped(raw: Array, count: int) -> Array:
    import imagecodecs

    size = int.from_bytes(raw[-4:].tobytes(), "little") if len(raw) >= 18 else 0
    if size not in (count, 2 * count, 4 * count, 8 * count) or size > 1040 * len(raw):
        raise Damaged(f"{len(raw)} bytes of gzip say that they hold {size}, for {count} pixels")
    data = imagecodecs.gzip_decode(cast(Any, raw), out=size)
    if len(data) != size:
        raise Damaged(f"{len(data)} bytes of {size} came out of gzip")
    return np.frombuffer(data, np.uint8)


def _numbers(data: Array, count: int, *, floats: bool) -> Array:
    """Big-endian numbers, of the width that the number of bytes says."""
    width, rest = divmod(len(data), count)
    if rest or width not in (1, 2, 4, 8):
        raise Damaged(f"{len(data)} bytes for {count} pixels")
    return data.view("u1" if width == 1 else f">{'f' if floats and width >= 4 else 'i'}{width}")


_PLANES = 64  # bit planes of the widest numbers that HCOMPRESS writes
_LOADING, _HCOMPRESS = threading.Lock(), threading.Lock()


def _after_fork() -> None:
    global _LOADING, _HCOMPRESS
    _LOADING, _HCOMPRESS = threading.Lock(), threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def codecs() -> ModuleType:
    """astropy's compiled decoders, which let other threads run.

    Raises:
        ImportError: when this astropy has them elsewhere.
    """
    with _LOADING:
        return _codecs()


@lru_cache(maxsize=1)
def _codecs() -> ModuleType:
    try:
        from astropy.io.fits.hdu.compressed import _compression as found
    except ImportError:  # astropy 6.0
        from astropy.io.fits._tiled_compression import _compression as found
    # They fill tables on first use, which no two threads may do at once.
    for width in (1, 2, 4):
        found.decompress_rice_1_c(bytes(width + 1), 32, width, 1)
    found.unquantize_float_c(bytes(4), 1, 1, 1.0, 0.0, 1, 0, 0, 0.0, 4)
    return found  # type: ignore[no-any-return]
