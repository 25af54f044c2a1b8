"""FITS images: path -> lazy scene.

Plain images are memory-mapped, tiles of compressed ones decoded by all threads and kept; what only astropy reads is
read by it once, under a lock, and kept. Format: FITS standard 4.0 (Pence et al. 2018), https://fits.gsfc.nasa.gov.
"""

from __future__ import annotations

import math
import os
import threading
import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.chunked import At, Box, Chunked
from streamgeo.chunks import CACHE
from streamgeo.errors import OpenError
from streamgeo.fits_cards import (
    AxisView,
    clean_header,
    flat_axes,
    has_wcs,
    unusable,
    view_header,
    wcs_key,
)
from streamgeo.fits_packing import Unpacking
from streamgeo.grid import Grid
from streamgeo.kernels import PLAIN, Put
from streamgeo.locate import WcsLocator
from streamgeo.scene import Scene
from streamgeo.sources.fits_headers import Unusual, read_header
from streamgeo.sources.fits_images import (
    DEFAULT_NAMES,
    Image,
    Which,
    close_fits,
    find_images,
    open_fits,
    packed,
    reading,
)
from streamgeo.sources.fits_tiles import FitsTiles, grouped, layout
from streamgeo.sources.handles import POOL, current, identity
from streamgeo.sources.layouts import Identity, Mapped, Uncovered, open_bytes
from streamgeo.template import Template
from streamgeo.together import Copy
from streamgeo.window import Window

Array = NDArray[Any]


def open_scene(path: str, *, hdu: Which = None, raw: bool = False) -> FitsScene:
    """Open the image of a FITS file, tile-compressed ones and ``.fits.gz`` too; no pixel is read yet.

    Dims are ``("y", "x")``; leading ones are named after CTYPE (``time``, ``wave``, ``freq``, ``stokes``),
    others ``z``, ``axis4``, and so on. Rows are in the order of the file, so the first is the lowest.

    Args:
        path: the file.
        hdu: index or EXTNAME of the HDU; None takes the first image with pixels (AIA keeps it in HDU 1).
            Several, as a list, are stacked in a leading dim ``hdu``; the grid is that of the first.
        raw: values as stored, without BSCALE, BZERO and BLANK; by default physical float32, with NaN where an
            integer image holds BLANK (as the standard has it, also for BLANK = 0 and for unsigned integers,
            which astropy leaves in) and where a float image holds NaN. BLANK means nothing in a float image.

    Raises:
        OpenError: when the file is missing, empty, truncated, no FITS file, or has no such image.

    >>> scene = open_scene("aia_171.fits")           # doctest: +SKIP
    >>> scene.read(Window(y=(0, 256), x=(0, 256)))   # doctest: +SKIP
    """
    path = os.fspath(path)
    mark = identity(path)
    chosen = find_images(path, mark[0], hdu)
    _check_alike(chosen, Path(path).name, raw)
    stacked = not (hdu is None or isinstance(hdu, int | str))
    return FitsScene(path, mark, tuple(chosen), raw=raw, stacked=stacked)


def _check_alike(images: Sequence[Image], name: str, raw: bool) -> None:
    first = images[0]
    for other in images[1:]:
        if other.shape != first.shape:
            raise OpenError(
                f"open_fits: hdu {first.hdu} of {name} has shape {first.shape}, hdu {other.hdu} has shape "
                f"{other.shape}; only HDUs of one shape can be stacked, so open these one by one"
            )
        if raw and other.packing.dtype != first.packing.dtype:
            raise OpenError(
                f"open_fits: hdu {first.hdu} of {name} is stored as {first.packing.dtype}, hdu {other.hdu} "
                f"as {other.packing.dtype}; stack them with raw=False, or open them one by one"
            )


class FitsScene(Scene):
    """The image of one HDU, or several of one shape stacked in a leading dim ``hdu``."""

    def __init__(
        self, path: str, mark: tuple[int, int], images: tuple[Image, ...], *, raw: bool, stacked: bool
    ) -> None:
        first = images[0]
        self.name = Path(path).name
        self.dims = ("hdu", *first.dims) if stacked else first.dims
        self.shape = (len(images), *first.shape) if stacked else first.shape
        self.dtype = first.packing.dtype if raw else np.dtype(np.float32)
        self._path, self._mark, self._images, self._raw, self._stacked = path, mark, images, raw, stacked
        self._maps = tuple(_mapped(path, mark, image) for image in images)

    @property
    def files(self) -> tuple[str, ...]:
        """The file that it is read from."""
        return (self._path,)

    @property
    def attrs(self) -> Mapping[str, Any]:
        """The header of the (first) HDU as a dict; no WCS is worked out for it."""
        return self._headers[1]

    @cached_property
    def _headers(self) -> tuple[tuple[str, ...], dict[str, Any], str]:
        """Header of each image as text, the cards of the first, and the primary header unless it is one."""
        self._check_unchanged()
        with (
            reading(f"the header of {self._path}"),
            POOL.lease("fits", self._path, open_fits, close_fits) as hdus,
        ):
            read = [clean_header(hdus[image.hdu].header) for image in self._images]
            primary = "" if any(image.hdu == 0 for image in self._images) else clean_header(hdus[0].header)[0]
        return tuple(text for text, _ in read), read[0][1], primary

    @cached_property
    def _locator(self) -> WcsLocator | None:
        texts = self._headers[0]
        locator = locate(texts[0], self._images[0].dims, self.name)
        if len(texts) > 1 and len({_wcs_values(text) for text in texts}) > 1:
            warnings.warn(
                f"open_fits: the HDUs stacked from {self.name} differ in their WCS; the grid is that of hdu "
                f"{self._images[0].hdu}",
                stacklevel=2,
            )
        return locator

    @cached_property
    def grid(self) -> Grid:
        """Dims, shape and WCS."""
        return Grid.of(self.dims, self.shape, self._locator)

    @property
    def frame(self) -> Grid:
        """Dims and sizes; the WCS takes milliseconds, and windows do not need it."""
        return Grid.of(self.dims, self.shape) if len(self._images[0].dims) > 1 else self.grid

    @cached_property
    def template(self) -> Template:
        """What a file of the same kind takes over: the whole header, as text in ``carry``."""
        texts, attrs, primary = self._headers
        first = self._images[0]
        packing = first.packing
        return Template(
            format="fits",
            dims=self.dims,
            raw=self._raw,
            name=",".join(image.name for image in self._images if image.name not in DEFAULT_NAMES),
            units=str(attrs.get("BUNIT") or "").strip(),
            nodata=packing.blank if self._raw else None,
            attrs=attrs,
            carry={
                "header": texts[0],
                "headers": texts,
                "primary": primary,
                "wcs": self._locator.header if self._locator else None,
                "hdus": tuple(image.hdu for image in self._images),
                "dtype": packing.dtype.str,
                "bscale": packing.bscale,
                "bzero": packing.bzero,
                "blank": packing.blank,
            },
        )

    # -- pixels -----------------------------------------------------------------------------------------

    def _read(self, window: Window) -> Array:
        try:
            out = np.empty(window.shape, self.dtype)
        except (MemoryError, ValueError) as error:
            raise OpenError(
                f"read: {window} of {self.name} does not fit in memory ({error}); read smaller windows"
            ) from error
        self._read_into(window, out)
        return out

    def _read_into(self, window: Window, out: Array) -> None:
        if not out.size:
            return
        self._check_unchanged()
        box = window.box(self._images[0].dims)
        for number, place in self._places(window, out):
            self._fill(number, box, place)

    def _numbers(self, window: Window) -> range:
        """The images that a window touches."""
        return range(len(self._images))[window["hdu"] if self._stacked else slice(None)]

    def _places(self, window: Window, out: Array) -> Iterable[tuple[int, Array]]:
        """The same, and where the pixels of each go."""
        return zip(self._numbers(window), out if self._stacked else (out,))

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Those of the first image."""
        if self._maps[0] is not None:
            return None
        return ((1,) if self._stacked else ()) + self._chunks(0).chunks

    def foresee(self, window: Window) -> bool:
        """Have the tiles of a window fetched, where it is known by now where they lie."""
        box = window.box(self._images[0].dims)
        found = self._known(self._numbers(window))
        missing = [layout.foresee(box) for layout in found if layout is not None]
        return any(missing)

    def copies(self, window: Window, out: Array) -> Sequence[Copy] | None:
        """Those of tiles, where it is known by now where they lie."""
        self._check_unchanged()
        box, copies = window.box(self._images[0].dims), []
        for (number, place), tiles in zip(self._places(window, out), self._known(self._numbers(window))):
            if tiles is None:
                return None
            copies.append(Copy(tiles, box, place, self._put(number)))
        return copies

    def _known(self, numbers: Iterable[int]) -> list[FitsTiles | ByAstropy | None]:
        """The chunks of images; None where they are not known yet, or there are none."""
        return CACHE.found([self._layout_keys[number] for number in numbers])

    @cached_property
    def _unpackings(self) -> list[Unpacking]:
        return [Unpacking(image.packing) for image in self._images]

    def _put(self, number: int) -> Put:
        return PLAIN if self._raw else self._unpackings[number]

    def _fill(self, number: int, box: Box, out: Array) -> None:
        put, mapped = self._put(number), self._maps[number]
        if mapped is not None:
            mapped.read(tuple(slice(low, high) for low, high in box), out, put)
            return
        self._chunks(number).read(box, out, put)

    def _chunks(self, number: int) -> FitsTiles | ByAstropy:
        """The chunks of a compressed image; where they lie is kept in the cache."""
        find = partial(_layout, self._path, self._mark, self._images[number])
        found: FitsTiles | ByAstropy = CACHE.get(
            self._layout_keys[number], find, lambda chunks: int(chunks.nbytes)
        )
        return found

    @cached_property
    def _layout_keys(self) -> list[tuple[Hashable, ...]]:
        return [("layout", "fits", self._path, *self._mark, image.hdu) for image in self._images]

    @property
    def reader(self) -> str:
        """How its pixels are read: memory-mapped, by chunk and codec, or by astropy and why."""
        words = [
            "memory-mapped" if self._maps[number] is not None else self._chunks(number).words
            for number in range(len(self._images))
        ]
        return "; ".join(dict.fromkeys(words))

    def _check_unchanged(self) -> None:
        if current(self._path) != self._mark:
            raise OpenError(f"open_fits: {self._path} has changed since it was opened; open it again")


# -- how the pixels are stored --------------------------------------------------------------------------


class ByAstropy(Chunked):
    """An image that only astropy reads: in pieces of whole tiles, or all of it where the whole file is packed."""

    nbytes = 512

    def __init__(
        self, path: str, identity: Identity, image: Image, pieces: tuple[int, ...], reason: str
    ) -> None:
        self.path, self.identity, self.image = path, identity, image
        self.shape, self.chunks, self.dtype = image.shape, pieces, image.packing.dtype
        self.codec = self.words = f"astropy, because {reason}"
        self.key = ("fits by astropy", path, *identity, image.hdu)

    def decode(self, at: At) -> Array:
        """The pixels of one piece; see :meth:`Chunked.decode`."""
        box = tuple((i * n, min((i + 1) * n, size)) for i, n, size in zip(at, self.chunks, self.shape))
        values = by_astropy(self.path, self.image.hdu, box)
        # Those of a packed file come as they are stored.
        return values.astype(values.dtype.newbyteorder("="), copy=False)


def by_astropy(path: str, hdu: int, box: Box) -> Array:
    """Pixels as astropy reads them, before BSCALE and BZERO.

    One thread at a time: its decoder of HCOMPRESS mixes up the pixels of images that two threads decode at once.

    Raises:
        OpenError: when it cannot.
    """
    with (
        _ASTROPY,
        reading(f"hdu {hdu} of {path}"),
        POOL.lease("fits", path, open_fits, close_fits) as hdus,
    ):
        return np.asarray(hdus[hdu].section[tuple(slice(low, high) for low, high in box)])


_ASTROPY = threading.Lock()


def _after_fork() -> None:
    global _ASTROPY
    _ASTROPY = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _mapped(path: str, mark: Identity, image: Image) -> Mapped | None:
    """The pixels of an image that is stored as it is."""
    if image.offset is None:
        return None
    dtype = image.packing.dtype.newbyteorder(">")
    strides = tuple(dtype.itemsize * math.prod(image.shape[i + 1 :]) for i in range(len(image.shape)))
    return Mapped(path, mark, image.offset, image.shape, strides, dtype)


def _layout(path: str, mark: Identity, image: Image) -> FitsTiles | ByAstropy:
    """The chunks of a compressed image, as its header lists them."""
    try:
        if image.header is None:
            raise Uncovered("the whole file is packed" if packed(path) else "its header is unusual")
        with POOL.lease("bytes", path, open_bytes, os.close) as fd:
            library = partial(by_astropy, path, image.hdu)
            return layout(path, mark, image.hdu, fd, read_header(fd, image.header), library)
    except (Uncovered, Unusual) as reason:
        return ByAstropy(path, mark, image, _pieces(path, image), str(reason))


def _pieces(path: str, image: Image) -> tuple[int, ...]:
    """What astropy reads at once: its tiles, as many as make a good part of a megabyte; else the whole image."""
    with _ASTROPY, reading(path), POOL.lease("fits", path, open_fits, close_fits) as hdus:
        tile = getattr(hdus[image.hdu], "tile_shape", None)
    if tile is None or packed(path):
        return image.shape
    return grouped(image.shape, tuple(int(n) for n in tile), image.packing.dtype.itemsize)


# -- where the pixels lie -------------------------------------------------------------------------------


def locate(text: str, dims: tuple[str, ...], name: str) -> WcsLocator | None:
    """The WCS of a header, or None where it has none. A WCS that cannot be used is None too, with a warning.

    An axis whose CDELT is 0 (a series with one time for all its frames) has no coordinates that can be
    inverted: it counts pixels, with a warning, and the other axes keep theirs.
    """
    from astropy.io.fits import Header

    header = Header.fromstring(text)
    if not has_wcs(list(header)):
        return None
    bad = unusable(header)
    if bad is None:
        flat = flat_axes(header)
        if flat and len(flat) < len(dims):
            axes = [None if axis in flat else AxisView(axis) for axis in range(1, len(dims) + 1)]
            header, lost = view_header(header, axes, len(dims))
            text = header.tostring(sep="", endcard=True, padding=False)
            _warn(f"CDELT is 0 on {', '.join(lost)}, which therefore counts pixels instead", name)
        try:
            naxis = WcsLocator(text, dims, ()).wcs.naxis
        except Exception as error:
            bad = " ".join(str(error).split())
    if bad is not None:
        _warn(f"the WCS cannot be used, so the grid has no georeference: {bad}", name)
        return None
    by_axis = dict(enumerate(("x", "y"), 1)) | dict(enumerate(reversed(dims), 1))
    known = tuple(by_axis.get(axis, f"axis{axis}") for axis in range(naxis, 0, -1))
    return WcsLocator(text, known, ("y", "x") if naxis > 1 else ("x",))


def _warn(what: str, name: str) -> None:
    warnings.warn(f"open_fits: {name}: {what}", stacklevel=4)


def _wcs_values(text: str) -> tuple[tuple[str, Any], ...]:
    from astropy.io.fits import Header

    return tuple(sorted((k, v) for k, v in Header.fromstring(text).items() if wcs_key(k)))
