"""Tiles and strips of TIFF files: read and decoded without GDAL, by any number of threads.

Formats: TIFF 6.0 and its Technical Notes 2 (JPEG) and 3 (predictors; Adobe 1995 and 2005).
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.chunked import At, Chunked
from streamgeo.sources.handles import POOL
from streamgeo.sources.layouts import Identity, Mapped, Uncovered, changed, open_bytes
from streamgeo.sources.tiff import Directory, Entry, opened

Array = NDArray[Any]
Box = tuple[tuple[int, int], tuple[int, int]]  # rows and columns
Library = Callable[[list[int], Box], Array]  # bands (from 1) of a box as the reference library reads them

_CODECS = {1: "none", 5: "lzw", 7: "jpeg", 8: "deflate", 32946: "deflate", 32773: "packbits", 34887: "lerc",
           34925: "lzma", 50000: "zstd", 50001: "webp"}  # fmt: skip
_DIFFERENCING = ("lzw", "deflate", "zstd", "lzma")  # codecs that go with a predictor
_PREDICTORS = {1: "", 2: ", predictor 2", 3: ", predictor 3"}
_DTYPES = {(1, 8): "u1", (1, 16): "u2", (1, 32): "u4", (1, 64): "u8", (2, 8): "i1", (2, 16): "i2", (2, 32): "i4",
           (2, 64): "i8", (3, 32): "f4", (3, 64): "f8", (6, 64): "c8", (6, 128): "c16"}  # fmt: skip
_LARGEST = 1 << 31  # bytes of a decoded chunk
_KEPT = 16 << 20  # bytes of scratch memory that a thread keeps
_YCBCR = 6
_SCRATCH = threading.local()


class Damaged(Exception):
    """The bytes of a chunk are not what its header says."""


@dataclass(frozen=True)
class Stored:
    """How an image of the file is stored.

    Attributes:
        bits: 1 for a mask of single bits, else those of ``dtype``, which is in the byte order of the file.
        planar: each band has chunks of its own.
        rows, cols: of a full chunk; strips are as wide as the image, and the last one is cut short.
        color: the photometric interpretation.
        tables: of JPEG.
        packed: codec of LERC's own output, if any.
        offsets, sizes: where the file lists the place of each chunk and its length.
    """

    shape: tuple[int, int]
    bands: int
    dtype: np.dtype[Any]
    bits: int
    planar: bool
    strips: bool
    rows: int
    cols: int
    codec: str
    predictor: int
    color: int
    tables: bytes | None
    packed: str | None
    offsets: Entry
    sizes: Entry

    @property
    def grid(self) -> tuple[int, int]:
        """How many chunks there are downwards and across."""
        return -(-self.shape[0] // self.rows), -(-self.shape[1] // self.cols)

    @property
    def words(self) -> str:
        """The encoding, for people."""
        return self.codec + _PREDICTORS[self.predictor]


class TiffChunks(Chunked):
    """One image of a TIFF file, as ``(band, y, x)``.

    Chunks in which the bands of a pixel lie side by side are turned round once, when they are kept: patches are
    copied far more often.
    """

    def __init__(
        self, path: str, identity: Identity, which: str, stored: Stored, fill: Array, library: Library
    ) -> None:
        self.path, self.identity = path, identity
        self.shape = (stored.bands, *stored.shape)
        self.chunks = (1 if stored.planar else stored.bands, stored.rows, stored.cols)
        self.dtype = stored.dtype.newbyteorder("=")
        self.codec = stored.words
        self.key = ("geotiff", path, *identity, which)
        self._stored, self._fill, self._library = stored, fill, library

    def decode(self, at: At) -> Array:
        """The values of one chunk; see :meth:`Chunked.decode`. What GDAL alone can make sense of, GDAL reads.

        They are valid until this thread decodes another chunk.
        """
        stored = self._stored
        plane, row, col = at
        down, across = stored.grid
        rows = min(stored.rows, stored.shape[0] - row * stored.rows) if stored.strips else stored.rows
        try:
            data = self._bytes((plane * down + row) * across + col)
            if data is None:
                return np.broadcast_to(self._fill, (self.chunks[0], rows, stored.cols))
            pixels = decoded(data, (rows, stored.cols, self.chunks[0]), stored)
        except (Damaged, ValueError, RuntimeError, TypeError, MemoryError):  # codecs have errors of their own
            return self._by_library(at)
        return pixels.transpose(2, 0, 1)

    def _bytes(self, number: int) -> bytes | None:
        """Those of a chunk; None when it is not stored."""
        with POOL.lease("bytes", self.path, open_bytes, os.close) as fd:
            stat = os.fstat(fd)
            if (stat.st_size, stat.st_mtime_ns) != self.identity:
                raise changed(self.path)
            offset, size = (_listed(fd, list_, number, self._stored) for list_ in (self._stored.offsets, self._stored.sizes))
            if not size and not offset:
                return None
            if not size or not offset or offset + size > self.identity[0]:
                raise Damaged(f"{size} bytes at {offset} of a file of {self.identity[0]}")
            data = os.pread(fd, size, offset)
        if len(data) != size:
            raise Damaged(f"{len(data)} bytes of {size} at {offset}")
        return data

    def _by_library(self, at: At) -> Array:
        stored = self._stored
        bands = [at[0] + 1] if stored.planar else list(range(1, stored.bands + 1))
        places = zip(at[1:], (stored.rows, stored.cols), stored.shape)
        rows, cols = ((i * size, min((i + 1) * size, whole)) for i, size, whole in places)
        return self._library(bands, (rows, cols)).astype(self.dtype, copy=False)


def _listed(fd: int, entry: Entry, number: int, stored: Stored) -> int:
    data = os.pread(fd, entry.size, entry.offset + number * entry.size)
    return int.from_bytes(data, "big" if stored.dtype.byteorder == ">" else "little")


# -- decoding -------------------------------------------------------------------------------------------


def decoded(data: bytes, shape: tuple[int, int, int], stored: Stored) -> Array:
    """Values of a chunk as ``(y, x, band)``, in native byte order, perhaps in the scratch memory of the thread.

    Raises:
        Damaged: when they do not fill the shape; codecs raise errors of their own too.
    """
    if stored.codec in ("jpeg", "webp", "lerc"):
        return _image(data, shape, stored)
    row = -(-shape[1] * shape[2] * stored.bits // 8)
    raw = _unpacked(data, shape[0] * row, stored.codec)
    if stored.bits == 1:
        return np.unpackbits(raw.reshape(shape[0], row), axis=1, count=shape[1])[:, :, None]
    native = stored.dtype.newbyteorder("=")
    values = raw.view(stored.dtype).reshape(shape)
    if stored.predictor == 3:  # works on the bytes, whatever their order
        import imagecodecs

        out: Array = imagecodecs.floatpred_decode(values, axis=1, out=np.empty(shape, stored.dtype))
        return out.astype(native, copy=False)
    if not stored.dtype.isnative:
        values = values.astype(native)
    if stored.predictor == 2:
        import imagecodecs

        differences = values.view(f"u{native.itemsize}")  # they are taken modulo two to the number of bits
        imagecodecs.delta_decode(differences, axis=1, out=differences)
    return values


def _unpacked(data: bytes, count: int, codec: str) -> NDArray[np.uint8]:
    import imagecodecs

    if codec == "none":
        if len(data) != count:
            raise Damaged(f"{len(data)} bytes are stored, and {count} wanted")
        return np.frombuffer(data, np.uint8)
    if codec == "lzw" and data[0] == 0 and data[1] & 1:
        raise Damaged("LZW with its bits in the order of old files")
    out = _scratch(count)
    got = getattr(imagecodecs, f"{codec}_decode")(data, out=out)
    if len(got) != count:
        raise Damaged(f"{len(got)} bytes of {count} came out of {codec}")
    return out


def _scratch(count: int) -> NDArray[np.uint8]:
    """Memory of this thread: what is taken from the system has to be cleared by it first, which takes long."""
    if count > _KEPT:
        return np.empty(count, np.uint8)
    kept: NDArray[np.uint8] | None = getattr(_SCRATCH, "array", None)
    if kept is None or len(kept) < count:
        kept = _SCRATCH.array = np.empty(count, np.uint8)
    return kept[:count]


def _image(data: bytes, shape: tuple[int, int, int], stored: Stored) -> Array:
    """A chunk that is an image file of its own."""
    pixels = {"jpeg": _jpeg, "webp": _webp, "lerc": _lerc}[stored.codec](data, shape, stored)
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if pixels.dtype != stored.dtype.newbyteorder("=") or pixels.shape != shape:
        raise Damaged(f"{stored.codec}: {pixels.shape} {pixels.dtype} came out for {shape}")
    return pixels


def _jpeg(data: bytes, shape: tuple[int, int, int], stored: Stored) -> Array:
    import imagecodecs

    _check_size(data, shape)
    # Colours stored as YCbCr are given out as RGB, as GDAL does; others are left as they are.
    spaces = {} if shape[2] == 1 else {"colorspace": stored.color, "outcolorspace": 2}
    return np.asarray(imagecodecs.jpeg8_decode(data, tables=stored.tables, **spaces))


def _check_size(data: bytes, shape: tuple[int, int, int]) -> None:
    """Whether a JPEG image is as large as its chunk: the decoder allocates what the image says."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        kind, length = data[at + 1], struct.unpack_from(">H", data, at + 2)[0]
        if kind in (0xC0, 0xC1, 0xC2):
            bits, rows, cols, bands = struct.unpack_from(">BHHB", data, at + 4)
            if bits == 8 and (rows, cols, bands) == shape:
                return
            raise Damaged(f"JPEG of {(rows, cols, bands)} for {shape}")
        at += 2 + length
    raise Damaged("JPEG without a size")


def _webp(data: bytes, shape: tuple[int, int, int], stored: Stored) -> Array:
    import imagecodecs

    return np.asarray(imagecodecs.webp_decode(data, hasalpha=shape[2] == 4, out=np.empty(shape, np.uint8)))


def _lerc(data: bytes, shape: tuple[int, int, int], stored: Stored) -> Array:
    import imagecodecs

    if stored.packed is not None:
        count = shape[0] * shape[1] * shape[2] * stored.dtype.itemsize
        room = np.empty(2 * count + 4096, np.uint8)
        data = bytes(getattr(imagecodecs, f"{stored.packed}_decode")(data, out=room))
    pixels, masks = imagecodecs.lerc_decode(
        data, masks=True, out=np.empty(shape if shape[2] > 1 else shape[:2], stored.dtype.newbyteorder("="))
    )
    if masks is not None and not np.all(masks):
        raise Damaged("LERC with a mask, which GDAL fills in ways of its own")
    return np.asarray(pixels)


# -- the header -----------------------------------------------------------------------------------------


def image_of(directory: Directory, *, mask: bool = False) -> Stored:
    """How an image is stored.

    Args:
        directory: its tags.
        mask: whether it may be of single bits.

    Raises:
        Uncovered: for what only the reference library reads; the message says why.
    """
    number = directory.number
    shape, bands = (number(257), number(256)), number(277, 1)
    if not (0 < min(shape) <= max(shape) < 1 << 31 and 0 < bands < 1 << 16):
        raise Uncovered(f"its size is {shape} with {bands} bands")
    bits, kind = directory.same(258, bands, 1), directory.same(339, bands, 1)
    single = mask and bits == 1 and bands == 1 and kind == 1
    if (kind, bits) not in _DTYPES and not single:
        raise Uncovered(f"it has {bits} bits a sample, of kind {kind}")
    dtype = np.dtype("u1" if single else _DTYPES[kind, bits]).newbyteorder(directory.order)
    planar = _planar(directory, bands)
    codec, predictor = _encoding(directory, dtype, bits)
    color = _color(directory, codec, planar, bands)
    strips, rows, cols = _sizes(directory, shape)
    if rows * cols * (1 if planar else bands) * dtype.itemsize > _LARGEST:
        raise Uncovered("its chunks are larger than 2 GiB")
    offsets, sizes = _places(directory, strips)
    count = -(-shape[0] // rows) * -(-shape[1] // cols) * (bands if planar else 1)
    if (offsets.count, sizes.count) != (count, count):
        raise Uncovered(f"{offsets.count} and {sizes.count} of its {count} chunks are listed")
    tables = directory.data(347, (7,)) if codec == "jpeg" else None
    packed = _packed(directory) if codec == "lerc" else None
    return Stored(shape, bands, dtype, bits, planar, strips, rows, cols, codec, predictor, color, tables, packed,
                  offsets, sizes)  # fmt: skip


def _planar(directory: Directory, bands: int) -> bool:
    config = directory.number(284, 1)
    if config not in (1, 2):
        raise Uncovered(f"its planar configuration is {config}")
    if directory.number(266, 1) != 1 or directory.number(274, 1) != 1:
        raise Uncovered("its bits or its rows are in an unusual order")
    if directory.entries.keys() & {280, 281, 340, 341, 32996, 32997, 32998, 330}:
        raise Uncovered("it has tags for limits of its samples, a depth, or directories within it")
    return config == 2 and bands > 1


def _encoding(directory: Directory, dtype: np.dtype[Any], bits: int) -> tuple[str, int]:
    compression, predictor = directory.number(259, 1), directory.number(317, 1)
    codec = _CODECS.get(compression)
    if codec is None:
        raise Uncovered(f"its compression is of number {compression}")
    if predictor not in _PREDICTORS or (predictor > 1 and codec not in _DIFFERENCING):
        raise Uncovered(f"predictor {predictor} with {codec}")
    if predictor > 1 and (dtype.kind == "c" or bits == 1 or (predictor == 3 and dtype.kind != "f")):
        raise Uncovered(f"predictor {predictor} of {dtype}")
    if codec in ("jpeg", "webp") and (dtype != np.uint8 or bits != 8):
        raise Uncovered(f"{codec} of {bits} bits")
    if codec == "lerc" and (dtype.itemsize == 8 and dtype.kind != "f" or bits == 1):
        raise Uncovered(f"LERC of {dtype}")
    return codec, predictor


def _color(directory: Directory, codec: str, planar: bool, bands: int) -> int:
    """The photometric interpretation, where GDAL gives the numbers as they are (and YCbCr of JPEG as RGB)."""
    color = directory.number(262)
    entry = directory.entries.get(320)
    if color == 3:
        if entry is None or entry.kind != 3 or entry.count != 3 << min(directory.same(258, bands, 1), 16):
            raise Uncovered("its colour map is unusual")
    elif color not in (0, 1, 2, 4) and not (color == _YCBCR and codec == "jpeg" and not planar and bands == 3):
        raise Uncovered(f"its colours are of kind {color}")
    if codec == "jpeg" and not planar and (bands, color) not in ((1, 0), (1, 1), (3, 2), (3, _YCBCR)):
        raise Uncovered(f"JPEG of {bands} bands side by side, with colours of kind {color}")
    if codec == "webp" and (planar or bands not in (3, 4)):
        raise Uncovered(f"WebP of {bands} bands")
    extra = directory.entries.get(338)
    if codec == "lerc" and extra is not None and {1, 2} & set(directory.array(338).tolist()):
        raise Uncovered("LERC with alpha, which it holds as a mask")
    return color


def _sizes(directory: Directory, shape: tuple[int, int]) -> tuple[bool, int, int]:
    """Whether it is in strips; rows and columns of a chunk."""
    if not directory.entries.keys() & {322, 323, 324, 325}:
        rows = directory.number(278, (1 << 32) - 1)
        strips, cols = True, shape[1]
        rows = min(rows, shape[0])
    else:
        strips, rows, cols = False, directory.number(323), directory.number(322)
    if rows <= 0 or cols <= 0:
        raise Uncovered(f"its chunks are of {rows} x {cols}")
    return strips, rows, cols


def _places(directory: Directory, strips: bool) -> tuple[Entry, Entry]:
    tags, others = ((273, 279), (324, 325)) if strips else ((324, 325), (273, 279))
    found = [directory.entries.get(tag) for tag in tags]
    if any(tag in directory.entries for tag in others) or any(
        entry is None or entry.kind not in (3, 4, 16) for entry in found
    ):
        raise Uncovered("places or sizes of its chunks are not listed, or listed twice")
    offsets, sizes = found
    assert offsets is not None and sizes is not None
    return offsets, sizes


def _packed(directory: Directory) -> str | None:
    if 50674 not in directory.entries:
        raise Uncovered("LERC without its parameters")
    parameters = directory.array(50674).tolist()
    if len(parameters) < 2 or parameters[1] not in (0, 1, 2):
        raise Uncovered(f"LERC with parameters {parameters[:4]}")
    return (None, "deflate", "zstd")[parameters[1]]


# -- uncompressed strips --------------------------------------------------------------------------------


def contiguous(path: str, identity: Identity, stored: Stored) -> Mapped | None:
    """Uncompressed strips that lie one behind another are one array in the file.

    Raises:
        OpenError: when the file has changed.
    """
    if stored.codec != "none" or not stored.strips or stored.bits == 1:
        return None
    with opened(path, identity) as file:
        try:
            offsets, sizes = (
                np.concatenate(list(_values(file, entry)))
                for entry in (stored.offsets, stored.sizes)
            )
        except Uncovered:
            return None
