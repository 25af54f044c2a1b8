"""FITS images: path -> lazy scene.

Plain images are read with ``pread``, only the bytes that a window needs; tile-compressed images and gzipped
files are decoded by astropy. Format: FITS standard 4.0 (Pence et al. 2018), https://fits.gsfc.nasa.gov.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import OpenError, StreamGeoError
from streamgeo.fits_cards import (
    AxisView,
    clean_header,
    flat_axes,
    has_wcs,
    is_number,
    unusable,
    view_header,
    wcs_key,
)
from streamgeo.fits_packing import DTYPES, Box, Packing, physical, read_box
from streamgeo.grid import Grid
from streamgeo.locate import WcsLocator
from streamgeo.scene import Scene
from streamgeo.sources.handles import POOL, identity
from streamgeo.template import Template
from streamgeo.window import Window

Array = NDArray[Any]
Which = int | str | Sequence[int | str] | None

_PACKERS = (b"\x1f\x8b", b"\x1f\x9d", b"BZh", b"PK", b"\xfd7zXZ")  # gzip, compress, bzip2, zip, xz
_DEFAULT_NAMES = ("", "PRIMARY", "COMPRESSED_IMAGE")


class Image(NamedTuple):
    """One image HDU, by its header. Plain pixels begin at byte ``offset``; None: astropy decodes them."""

    hdu: int
    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    packing: Packing
    offset: int | None


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
    with _reading(path), POOL.lease("fits", path, _open, _close) as hdus:
        chosen = [_image(hdus, index, path, mark[0]) for index in _choose(hdus, hdu, path)]
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
        with _reading(f"the header of {self._path}"), POOL.lease("fits", self._path, _open, _close) as hdus:
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
            name=",".join(image.name for image in self._images if image.name not in _DEFAULT_NAMES),
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

    def _read(self, window: Window) -> Array:
        self._check_unchanged()
        box = tuple((window[dim].start, window[dim].stop) for dim in self._images[0].dims)
        if not self._stacked:
            return self._pixels(self._images[0], box)
        out = np.empty(window.shape, self.dtype)
        for i, image in enumerate(self._images[window["hdu"]]):
            out[i] = self._pixels(image, box)
        return out

    def _pixels(self, image: Image, box: Box) -> Array:
        stored = np.empty(tuple(hi - lo for lo, hi in box), image.packing.dtype)
        if not stored.size:
            return stored.astype(self.dtype)
        path = self._path
        with _reading(f"hdu {image.hdu} of {path}"):
            if image.offset is not None:
                with POOL.lease("fits-bytes", path, _open_bytes, os.close) as fd:
                    read_box(stored, fd, image.offset, image.shape, box)
            else:
                with POOL.lease("fits", path, _open, _close) as hdus:
                    stored[...] = hdus[image.hdu].section[tuple(slice(lo, hi) for lo, hi in box)]
        return stored if self._raw else physical(stored, image.packing)

    def _check_unchanged(self) -> None:
        if identity(self._path) != self._mark:
            raise OpenError(f"open_fits: {self._path} has changed since it was opened; open it again")


# -- what the headers say -------------------------------------------------------------------------------


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Whatever a damaged file makes a library raise becomes one OpenError."""
    try:
        yield
    except StreamGeoError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise OpenError(f"open_fits: {what} cannot be read: damaged or not FITS ({reason})") from error


def _open(path: str) -> Any:
    from astropy.io import fits

    # No memory maps: a file that shrinks under a map kills the process, and maps count as resident memory.
    return fits.open(path, mode="readonly", memmap=False, do_not_scale_image_data=True)


def _close(hdus: Any) -> None:
    hdus.close()


def _open_bytes(path: str) -> int:
    return os.open(path, os.O_RDONLY)


def _walk(hdus: Any) -> Iterator[tuple[int, Any]]:
    """HDUs one by one, so that no more headers are read than needed."""
    index = 0
    while True:
        try:
            hdu = hdus[index]
        except IndexError:
            return
        yield index, hdu
        index += 1


def _is_image(hdu: Any) -> bool:
    return bool(getattr(hdu, "is_image", False)) and len(hdu.shape) > 0 and all(hdu.shape)


def _contents(hdus: Any) -> str:
    """What a file holds, for messages."""
    words, end, path = [], 0, hdus.filename()
    for index, hdu in _walk(hdus):
        if _is_image(hdu):
            kind = "x".join(str(n) for n in hdu.shape) + " image"
        else:
            kind = "table" if "Table" in type(hdu).__name__ else "no data"
        words.append(f"hdu {index} {hdu.name!r} ({kind})")
        end = hdu.fileinfo()["datLoc"] + hdu.fileinfo()["datSpan"]
    rest = 0 if _packed(path) else Path(path).stat().st_size - end
    if rest > 0:
        words.append(f"then {rest} bytes that are no whole HDU: the file is truncated or damaged")
    return ", ".join(words)


def _choose(hdus: Any, which: Which, path: str) -> list[int]:
    """Indices of the HDUs that were asked for."""
    name = Path(path).name
    if which is None:
        found = next((index for index, hdu in _walk(hdus) if _is_image(hdu)), None)
        if found is not None:
            return [found]
        tables = [index for index, hdu in _walk(hdus) if "Table" in type(hdu).__name__]
        if tables:
            raise OpenError(
                f"open_fits: {name} holds tables and no image: {_contents(hdus)}; read a table with "
                f"astropy.table.Table.read({name!r}, hdu={tables[0]})"
            )
        raise OpenError(f"open_fits: {name} holds no image with pixels: {_contents(hdus)}")
    wanted = [which] if isinstance(which, int | str) else list(which)
    if not wanted:
        raise OpenError(f"open_fits: hdu=[] names no HDU of {name}; it has {_contents(hdus)}")
    return [_index(hdus, one, name) for one in wanted]


def _index(hdus: Any, which: int | str, name: str) -> int:
    for index, hdu in _walk(hdus):
        if which == index if isinstance(which, int) else which.strip().upper() == hdu.name.upper():
            if not _is_image(hdu):
                raise OpenError(
                    f"open_fits: hdu {which!r} of {name} holds no image with pixels; it has {_contents(hdus)}"
                )
            return index
    raise OpenError(f"open_fits: no hdu {which!r} in {name}; it has {_contents(hdus)}")


def _image(hdus: Any, index: int, path: str, file_size: int) -> Image:
    """The image of one HDU from its header; pixels that the file is too short for are an error."""
    hdu = hdus[index]
    header, shape = hdu.header, tuple(int(n) for n in hdu.shape)
    dtype = np.dtype(DTYPES[header["BITPIX"]])
    packing = Packing(dtype, _number(header, "BSCALE", 1), _number(header, "BZERO", 0), _blank(header, dtype))
    info = hdu.fileinfo()
    offset, span = int(info["datLoc"]), int(info["datSpan"])
    plain = not _packed(path)
    compressed = type(hdu).__name__ == "CompImageHDU"
    if plain:
        # The last block of a table may lack its padding, not more.
        need = max(span - 2879, 1) if compressed else math.prod(shape) * packing.dtype.itemsize
        if offset + need > file_size:
            raise OpenError(
                f"open_fits: {path} is truncated: the pixels of hdu {index} take {need} bytes from byte "
                f"{offset} on, and the file ends at byte {file_size}; fetch it again"
            )
    name = "" if hdu.name in _DEFAULT_NAMES else hdu.name
    direct = offset if plain and not compressed else None
    return Image(index, name, _dims(header, len(shape)), shape, packing, direct)


def _packed(path: str) -> bool:
    with Path(path).open("rb") as file:
        return file.read(6).startswith(_PACKERS)


def _number(header: Any, keyword: str, default: float) -> float:
    value = header.get(keyword, default)
    if not is_number(value):
        raise OpenError(f"open_fits: {keyword} = {value!r} is not a number, so the pixels have no values")
    return float(value)


def _blank(header: Any, dtype: np.dtype[Any]) -> int | None:
    """BLANK of an integer image; astropy has warned where it is not an integer."""
    value = header.get("BLANK") if dtype.kind != "f" else None
    return value if isinstance(value, int) and is_number(value) else None


_NAMES = (
    ("TIME", "time"), ("UTC", "time"), ("TAI", "time"),
    ("WAVE", "wave"), ("AWAV", "wave"), ("FREQ", "freq"), ("STOKES", "stokes"),
)  # fmt: skip


def _dims(header: Any, naxis: int) -> tuple[str, ...]:
    """Names of the dims in numpy order: y and x last, leading ones by what CTYPE says of them."""
    names = ["x", "y"][:naxis]
    for axis in range(3, naxis + 1):
        try:
            kind = str(header.get(f"CTYPE{axis}", "")).strip().upper()
        except Exception:  # a card that does not parse names nothing
            kind = ""
        other = "z" if axis == 3 else f"axis{axis}"
        name = next((dim for start, dim in _NAMES if kind.startswith(start)), other)
        names.append(name if name not in names else f"axis{axis}")
    return tuple(reversed(names))


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
