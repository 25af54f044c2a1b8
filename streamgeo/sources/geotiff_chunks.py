"""Tiles and strips of TIFF files: found by their header, read and decoded without GDAL, by any number of threads.

Formats: TIFF 6.0 (Adobe 1992), BigTIFF, TIFF Technical Notes 1 and 3 (predictors; Adobe 1995 and 2005).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.chunked import At, Chunked
from streamgeo.errors import OpenError
from streamgeo.kernels import lzw, planes
from streamgeo.slots import SLOTS, scratch
from streamgeo.sources.layouts import Bytes, Identity, Mapped, Uncovered, read_at

Array = NDArray[Any]
Like = tuple[int, tuple[int, int], str, tuple[float | None, ...]]  # bands, shape, dtype, nodata of each band
Library = Callable[[At], Array]  # the values of a chunk as the reference library reads it

_CODECS = {1: "none", 5: "lzw", 8: "deflate", 32946: "deflate", 32773: "packbits", 34887: "lerc",
           34925: "lzma", 50000: "zstd", 50001: "webp"}  # fmt: skip
_PREDICTORS = {1: "", 2: ", predictor 2", 3: ", predictor 3"}
# How many times smaller bytes can become at most, where the format sets a bound.
_RATIO = {"packbits": 64, "deflate": 1040, "lzw": 2800, "lzma": 10_000, "zstd": 1 << 16}
_LARGEST = 1 << 31  # bytes of a decoded chunk
_JPEG, _LERC = 7, 34887
_NODATA = 42113  # the tag in which GDAL keeps it, for all bands
_AS_STORED = (0, 1, 2, 3)  # colours that GDAL leaves as they are: white or black is zero, RGB, palette
_LERC_PARAMETERS, _AROUND_LERC = 50674, {0: "", 1: "deflate", 2: "zstd"}


class Damaged(Exception):
    """The bytes of a chunk are not what its header says."""


@dataclass(frozen=True)
class Stored:
    """What the header says of one image of the file.

    Attributes:
        dtype: in the byte order of the file.
        bands: of the image; ``planar`` says that each has chunks of its own.
        rows, cols: of a full chunk; strips are as wide as the image, and the last one is cut short (``strips``).
        fills: for each band, what a pixel holds whose chunk is not stored; None where only GDAL can say.
        around: the codec in which a LERC chunk is packed once more, if any.
    """

    shape: tuple[int, int]
    bands: int
    dtype: np.dtype[Any]
    planar: bool
    strips: bool
    rows: int
    cols: int
    codec: int
    predictor: int
    fills: tuple[float | None, ...]
    around: str = ""


class TiffChunks(Chunked):
    """One image of a TIFF file, as ``(band, y, x)``.

    Chunks in which the bands of a pixel lie side by side are turned round once, when they are kept: patches are
    copied far more often.
    """

    def __init__(
        self,
        path: str,
        identity: Identity,
        which: int,
        stored: Stored,
        places: NDArray[np.int64],
        library: Library,
    ) -> None:
        self.path, self.identity = path, identity
        self.shape = (stored.bands, *stored.shape)
        self.chunks = (1 if stored.planar else stored.bands, stored.rows, stored.cols)
        self.dtype = stored.dtype.newbyteorder("=")
        packed = f" in {stored.around}" if stored.around else ""
        self.codec = _CODECS[stored.codec] + packed + _PREDICTORS[stored.predictor]
        self.key = ("geotiff", path, *identity, which)
        self._stored, self._places, self._library = stored, places, library
        self._across = -(-stored.shape[1] // stored.cols)
        self._down = -(-stored.shape[0] // stored.rows)
        self._warned = False

    def decode(self, at: At) -> Array:
        """The values of one chunk; see :meth:`Chunked.decode`. What GDAL alone can make sense of, GDAL reads."""
        _, row, _ = at
        offset, size = self._place(at)
        rows = min(self._stored.rows, self._stored.shape[0] - row * self._stored.rows)
        full = (rows if self._stored.strips else self._stored.rows, self._stored.cols, self.chunks[0])
        if not size and not offset:
            return self._missing(at, (full[2], *full[:2]))
        need, codec = math.prod(full) * self.dtype.itemsize, _CODECS[self._stored.codec]
        if size > 0 and need > _RATIO.get(codec, need) * size + 4096:  # GDAL would take its time to find out
            raise OpenError(
                f"read: tile {at} of {self.path} is damaged: {size} bytes of {codec} cannot hold {need}; fetch it again"
            )
        try:
            pixels = self._pixels(self._bytes(offset, size), full)
        except (Damaged, ValueError, RuntimeError, TypeError, MemoryError) as error:  # codecs have their own
            return self._by_library(at, error)
        out = SLOTS.empty((full[2], *full[:2]), self.dtype)
        planes(out, pixels, self._stored.predictor == 2)
        return out

    def _missing(self, at: At, shape: tuple[int, int, int]) -> Array:
        fills = self._stored.fills[at[0] :][: shape[0]]
        if None in fills:
            return self._library(at)
        values = np.array(fills).astype(self.dtype)[:, None, None]
        return np.broadcast_to(values[0, 0, 0] if len(set(map(repr, fills))) == 1 else values, shape)

    def _place(self, at: At) -> tuple[int, int]:
        plane, row, col = at
        offset, size = self._places[(plane * self._down + row) * self._across + col].tolist()
        return offset, size

    def place(self, at: At) -> tuple[int, int] | None:
        """Where its bytes lie; see :meth:`Chunked.place`."""
        offset, size = self._place(at)
        return (offset, size) if offset > 0 and 0 < size <= self.identity[0] - offset else None

    def _by_library(self, at: At, damage: Exception) -> Array:
        """A chunk as GDAL reads it, which is told once a file."""
        values = self._library(at)
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"read: chunk {at} of {self.path} is not what its header says ({damage}); rasterio reads it",
                stacklevel=2,
            )
        return values

    def _bytes(self, offset: int, size: int) -> Bytes:
        if size <= 0 or offset <= 0 or offset + size > self.identity[0]:
            raise Damaged(f"{size} bytes at {offset} of a file of {self.identity[0]}")
        data = read_at(self.path, self.identity, offset, size)
        if len(data) != size:
            raise Damaged(f"{len(data)} bytes of {size} at {offset}")
        return data

    def _pixels(self, data: Bytes, shape: tuple[int, int, int]) -> Array:
        """Decoded values as ``(y, x, band)``, in native byte order; in scratch memory, and differences as they are."""
        import imagecodecs

        stored = self._stored
        codec = _CODECS[stored.codec]
        if codec in ("webp", "lerc"):
            return _image(codec, data, shape, stored)
        count = shape[0] * shape[1] * shape[2] * self.dtype.itemsize
        if codec == "none":
            raw: Any = data[:count]
        else:
            raw = scratch("decoded", count)
            if codec != "lzw" or not lzw(raw, data):
                raw = getattr(imagecodecs, f"{codec}_decode")(data, out=raw)
        if len(raw) != count:
            raise Damaged(f"{len(raw)} bytes of {count} came out of {codec}")
        if stored.predictor == 3:  # works on the bytes, whatever their order
            values = np.frombuffer(raw, stored.dtype).reshape(shape)
            out: Array = scratch("values", count).view(stored.dtype).reshape(shape)
            imagecodecs.floatpred_decode(values, axis=1, out=out)
            return out.astype(self.dtype, copy=False)
        return np.frombuffer(raw, stored.dtype).reshape(shape).astype(self.dtype, copy=False)


def _image(codec: str, data: Any, shape: tuple[int, int, int], stored: Stored) -> Array:
    """A chunk that is an image file of its own."""
    import imagecodecs

    if stored.around:  # what is packed is as large as the pixels at most, but for a header and a mask
        most = 2 * shape[0] * shape[1] * shape[2] * stored.dtype.itemsize + (1 << 16)
        data = getattr(imagecodecs, f"{stored.around}_decode")(data, out=most)
    pixels = imagecodecs.webp_decode(data, hasalpha=shape[2] == 4) if codec == "webp" else _lerc(data)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if (
        pixels.dtype != stored.dtype.newbyteorder("=")
        or pixels.shape[2] != shape[2]
        or pixels.shape[:2] != shape[:2]
    ):
        raise Damaged(f"{codec}: {pixels.shape} {pixels.dtype} came out for {shape}")
    return pixels


def _lerc(data: bytes) -> Array:
    """What a LERC chunk holds: NaN lies beside the numbers, in a mask for all bands or one for each."""
    import imagecodecs

    found: Any = imagecodecs.lerc_decode(data, masks=True)
    pixels, valid = found
    if valid is None:
        return np.asarray(pixels)
    if pixels.dtype.kind != "f":
        raise Damaged("lerc: integers are missing")
    if pixels.ndim == 3 and valid.shape == pixels.shape:  # bands with masks of their own come first
        pixels, valid = pixels.transpose(1, 2, 0), valid.transpose(1, 2, 0)
    pixels[~valid] = np.nan
    return np.asarray(pixels)


# -- the header -----------------------------------------------------------------------------------------


def layout(
    path: str,
    identity: Identity,
    overview: int | None,
    like: Like,
    library: Callable[[Stored, At], Array],
) -> TiffChunks | Mapped:
    """Where the chunks of an image lie.

    Args:
        path, identity: the file, and size and time of modification that it must have.
        overview: as for :func:`streamgeo.open_geotiff`.
        like: what the reference library says of the image: bands, shape, dtype, nodata.
        library: reads a chunk that cannot be decoded here.

    Raises:
        Uncovered: for what only the reference library reads; the message says why.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            page = _page(file, overview)
            stored = _stored(page, like)
            places = _places(page, stored)
            mapped = _contiguous(path, identity, page, stored)
    except Uncovered:
        raise
    except Exception as error:  # a header that tifffile cannot follow may still be one for GDAL
        raise Uncovered(f"its header is unusual ({type(error).__name__}: {error})") from error
    if mapped is not None:
        return mapped
    return TiffChunks(
        path, identity, -1 if overview is None else overview, stored, places, _Bound(library, stored)
    )


@dataclass(frozen=True)
class _Bound:
    library: Callable[[Stored, At], Array]
    stored: Stored

    def __call__(self, at: At) -> Array:
        return self.library(self.stored, at)


def _page(file: Any, overview: int | None) -> Any:
    if overview is None:
        return file.pages[0]
    if Path(f"{file.filehandle.path}.ovr").exists():
        raise Uncovered("its overviews lie in a file of their own")
    file.pages.useframes = False
    return [page for page in file.pages[1:] if int(page.subfiletype) & 5 == 1][overview]


def _stored(page: Any, like: Like) -> Stored:
    bands, shape, dtype, nodata = like
    codec, predictor = int(page.compression), int(page.predictor)
    if codec == _JPEG:  # nothing tells damaged JPEG from sound one, and each decoder makes other pixels of it
        raise Uncovered("it is JPEG, which only GDAL reads as GDAL does when it is damaged")
    if codec not in _CODECS:
        raise Uncovered(f"its compression is {page.compression.name}")
    if predictor not in _PREDICTORS or (predictor > 1 and codec in (1, 32773, 34887, 50001)):
        raise Uncovered(f"predictor {predictor} with {_CODECS[codec]}")
    if page.fillorder != 1:
        raise Uncovered("its bits are in reversed order")
    if page.dtype is None or page.bitspersample != page.dtype.itemsize * 8:
        raise Uncovered(f"it has {page.bitspersample} bits a sample")
    stored = page.dtype.newbyteorder(page.parent.byteorder)
    height, width = page.imagelength, page.imagewidth
    if (page.samplesperpixel, (height, width), stored.newbyteorder("=").name) != (bands, shape, dtype):
        raise Uncovered("its header does not say what GDAL says")
    if page.imagedepth != 1 or page.tiledepth != 1:
        raise Uncovered("it has more than two dims")
    if predictor == 3 and stored.kind != "f":
        raise Uncovered("predictor 3, which is for floats, with integers")
    if predictor == 2 and stored.itemsize >= 8:
        raise Uncovered("predictor 2 with 64 bits and more")
    if int(page.photometric) not in _AS_STORED:  # GDAL turns CMYK, YCbCr and L*a*b* into RGB while it reads
        raise Uncovered(f"its colours are {page.photometric.name}")
    strips = not page.is_tiled
    rows, cols = (min(page.rowsperstrip, height), width) if strips else (page.tilelength, page.tilewidth)
    planar = int(page.planarconfig) == 2 and bands > 1
    if rows * cols * (1 if planar else bands) * stored.itemsize > _LARGEST:
        raise Uncovered("its chunks are larger than 2 GiB")
    # rasterio says None also of a nodata that the dtype cannot hold, and GDAL then fills with one that it can.
    hidden = _NODATA in page.tags or Path(f"{page.parent.filehandle.path}.aux.xml").exists()
    fills = tuple(0.0 if value is None and not hidden else exact_nodata(value, stored) for value in nodata)
    around = _around(page) if codec == _LERC else ""
    return Stored((height, width), bands, stored, planar, strips, rows, cols, codec, predictor, fills, around)


def exact_nodata(nodata: float | None, dtype: np.dtype[Any]) -> float | None:
    """The value that is missing where it can be told by comparing; None leaves it to GDAL."""
    if nodata is None or dtype.kind not in "iuf":
        return None
    if dtype.kind == "f":
        return nodata if dtype.itemsize >= 4 else None
    limits = np.iinfo(dtype)
    exact = nodata == nodata and nodata == int(nodata) and limits.min <= nodata <= limits.max
    return int(nodata) if exact and dtype.itemsize < 8 else None


def _around(page: Any) -> str:
    """The codec around LERC."""
    tag = page.tags.get(_LERC_PARAMETERS)
    values = tag.value if tag is not None and isinstance(tag.value, tuple) else ()
    if len(values) < 2 or values[1] not in _AROUND_LERC:
        raise Uncovered(f"its LERC parameters are {values}")
    return _AROUND_LERC[values[1]]


def _places(page: Any, stored: Stored) -> NDArray[np.int64]:
    """Offset and size of each chunk; 16 bytes a chunk."""
    down, across = -(-stored.shape[0] // stored.rows), -(-stored.shape[1] // stored.cols)
    count = down * across * (stored.bands if stored.planar else 1)
    offsets, sizes = page.dataoffsets, page.databytecounts
    if len(offsets) < count or len(sizes) < count:
        raise Uncovered(f"{len(offsets)} of its {count} chunks are listed")
    places = np.empty((count, 2), np.int64)
    places[:, 0], places[:, 1] = offsets[:count], sizes[:count]
    return places


def _contiguous(path: str, identity: Identity, page: Any, stored: Stored) -> Mapped | None:
    """Uncompressed strips that lie one behind another are one array in the file."""
    if stored.codec != 1 or not stored.strips:
        return None
    offsets, sizes = np.array(page.dataoffsets, np.int64), np.array(page.databytecounts, np.int64)
    planes = stored.bands if stored.planar else 1
    total = stored.shape[0] * stored.shape[1] * stored.bands * stored.dtype.itemsize
    down = -(-stored.shape[0] // stored.rows)
    row = stored.shape[1] * (stored.bands // planes) * stored.dtype.itemsize
    full = np.minimum(stored.rows, stored.shape[0] - np.arange(down) * stored.rows) * row
    need = np.tile(full, planes)
    if len(offsets) != len(need) or not offsets[0] or int(offsets[0]) + total > identity[0]:
        return None
    if np.any(sizes != need) or np.any(offsets[1:] != (offsets[:-1] + need[:-1])):
        return None
    size = stored.dtype.itemsize
    height, width = stored.shape
    if stored.planar:
        strides = (height * width * size, width * size, size)
    else:
        strides = (size, width * stored.bands * size, stored.bands * size)
    return Mapped(path, identity, int(offsets[0]), (stored.bands, height, width), strides, stored.dtype)


def boxes(at: At, stored: Stored) -> tuple[Sequence[int], tuple[tuple[int, int], tuple[int, int]]]:
    """Bands (from 1) and rows and columns of a chunk, as rasterio takes them."""
    plane, row, col = at
    bands = [plane + 1] if stored.planar else list(range(1, stored.bands + 1))
    height, width = stored.shape
    rows = (row * stored.rows, min((row + 1) * stored.rows, height))
    return bands, (rows, (col * stored.cols, min((col + 1) * stored.cols, width)))
