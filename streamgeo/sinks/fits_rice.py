"""FITS: an image in tiles of the Rice code, written tile row by tile row.

Source: FITS standard 4.0, section 10 (tiled image compression), 10.4.1 (Rice) and 10.2 (quantised floats).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import WriteError
from streamgeo.fits_packing import BITPIX, code
from streamgeo.sinks.pixels import Box, Pixels

Array = NDArray[Any]
_TILE = 256  # rows and columns of a tile
_BLOCK = 32  # pixels that the Rice code takes together
_MISSING = -(2**31)
_QUANTA = 2**31 - 1  # steps from the least to the greatest pixel of a tile


class RiceTable:
    """The table of the tiles of one image: a row for each, their bytes behind all rows.

    Args:
        pixels: numbers of a type that FITS has.
        quantize: the step to which floats are rounded, in their units; None for integers.
        name: the file, for messages.

    Raises:
        WriteError: for 64-bit integers, for floats without a step, for integers with one, or a step that is not
            positive.
    """

    def __init__(self, pixels: Pixels, quantize: float | None, name: str) -> None:
        self.pixels, self.step, self.name = pixels, quantize, name
        floats = pixels.dtype.kind == "f"
        if pixels.dtype.itemsize == 8 and not floats:
            raise WriteError(
                f"save: the Rice code has no {pixels.dtype} values ({name}); cast to int32, or rice=False"
            )
        if floats and quantize is None:
            raise WriteError(
                f"save: the Rice code has integers only, and {name} holds {pixels.dtype}; give quantize=, the step to "
                "which values may be rounded, or rice=False"
            )
        if quantize is not None and not (floats and quantize > 0 and math.isfinite(quantize)):
            raise WriteError(
                f"save: quantize={quantize!r} must be positive, and for floats ({name}: {pixels.dtype})"
            )
        self.tile = tuple(min(_TILE, n) if i >= pixels.ndim - 2 else 1 for i, n in enumerate(pixels.shape))
        self._counts = tuple(-(-n // size) for n, size in zip(pixels.shape, self.tile))
        scaling = [("scale", ">f8"), ("zero", ">f8")] if floats else []
        self.rows = np.zeros(self._counts, [("size", ">i8"), ("at", ">i8"), *scaling])
        self.heap = 0  # bytes

    def structure(self) -> list[tuple[str, Any, str]]:
        """The cards of the table, in the order of the standard; the same number of them at any time."""
        width, count = self.rows.dtype.itemsize, self.rows.size
        largest = int(self.rows["size"].max())
        cards: list[tuple[str, Any, str]] = [
            ("XTENSION", "BINTABLE", "binary table"), ("BITPIX", 8, "bytes"), ("NAXIS", 2, "rows of bytes"),
            ("NAXIS1", width, "bytes of a row"), ("NAXIS2", count, "tiles"), ("PCOUNT", self.heap, "of all tiles"),
            ("GCOUNT", 1, "one table"), ("TFIELDS", 1 if self.step is None else 3, "columns"),
            ("TTYPE1", "COMPRESSED_DATA", ""), ("TFORM1", f"1QB({largest})", ""),
        ]  # fmt: skip
        if self.step is not None:
            cards += [
                ("TTYPE2", "ZSCALE", ""),
                ("TFORM2", "1D", ""),
                ("TTYPE3", "ZZERO", ""),
                ("TFORM3", "1D", ""),
            ]
        cards += [
            ("ZIMAGE", True, "an image in compressed tiles"), ("ZCMPTYPE", "RICE_1", "how they are compressed"),
            ("ZBITPIX", BITPIX[code(self.pixels.dtype)], "of the image"), ("ZNAXIS", self.pixels.ndim, "of the image"),
        ]  # fmt: skip
        sizes = list(zip(self.pixels.shape, self.tile))[::-1]
        cards += [(f"ZNAXIS{i}", int(size), "") for i, (size, _) in enumerate(sizes, 1)]
        cards += [(f"ZTILE{i}", int(tile), "") for i, (_, tile) in enumerate(sizes, 1)]
        width = 4 if self.step is not None else self.pixels.dtype.itemsize
        cards += [
            ("ZNAME1", "BLOCKSIZE", ""),
            ("ZVAL1", _BLOCK, ""),
            ("ZNAME2", "BYTEPIX", ""),
            ("ZVAL2", width, ""),
        ]
        if self.step is not None:
            cards += [("ZQUANTIZ", "NO_DITHER", "rounded to ZSCALE"), ("ZBLANK", _MISSING, "stands for NaN")]
        return cards

    def write(self, file: BinaryIO, head: Callable[[], bytes]) -> Iterator[None]:
        """Write the HDU from where the file stands, some rows of tiles a step; ``head`` gives its header as of now."""
        start = file.tell()
        table = start + len(head())
        heap = table + self.rows.nbytes
        for box, block in self.pixels.blocks(self.tile):
            for at, tile in self._tiles(box, block):
                coded = self._coded(tile, at)
                self.rows["size"][at], self.rows["at"][at] = len(coded), self.heap
                file.seek(heap + self.heap)
                file.write(coded)
                self.heap += len(coded)
            yield
        file.write(bytes(-(self.rows.nbytes + self.heap) % 2880))
        end = file.tell()
        file.seek(start)
        file.write(head() + self.rows.tobytes())
        file.seek(end)

    def _tiles(self, box: Box, block: Array) -> Iterator[tuple[tuple[int, ...], Array]]:
        """The tiles in a block, with their positions among all."""
        first = [part.start // size for part, size in zip(box, self.tile)]
        for at in np.ndindex(tuple(-(-n // size) for n, size in zip(block.shape, self.tile))):
            cut = tuple(slice(i * size, (i + 1) * size) for i, size in zip(at, self.tile))
            yield tuple(i + j for i, j in zip(first, at)), block[cut]

    def _coded(self, tile: Array, at: tuple[int, ...]) -> bytes:
        from imagecodecs import rcomp_encode

        whole = tile if self.step is None else self._quantized(tile, at)
        whole = np.ascontiguousarray(whole, whole.dtype.newbyteorder("="))
        return bytes(rcomp_encode(whole, nblock=_BLOCK))

    def _quantized(self, tile: Array, at: tuple[int, ...]) -> Array:
        """Steps above the least pixel, which may be half a step off; NaN as ZBLANK."""
        assert self.step is not None
        missing = np.isnan(tile)
        values = tile.astype(np.float64)
        zero = float(np.nanmin(values)) if not missing.all() else 0.0
        steps = np.rint((np.where(missing, zero, values) - zero) / self.step)
        if not np.all(steps <= _QUANTA):  # infinity too
            raise WriteError(
                f"save: tile {at} of {self.name} spans {float(np.nanmax(values)) - zero:.6g}, more than 2^31 steps of "
                f"quantize={self.step}; choose a larger step, or rice=False"
            )
        self.rows["scale"][at], self.rows["zero"][at] = self.step, zero
        out = steps.astype(np.int32)
        out[missing] = _MISSING
        return out
