"""GeoTIFF and every other raster that GDAL reads: a path becomes a lazy scene."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.chunked import At, Box
from streamgeo.errors import OpenError
from streamgeo.grid import Grid
from streamgeo.kernels import PLAIN, Line, Put
from streamgeo.scene import Array, Scene
from streamgeo.sources.geotiff_chunks import Stored, TiffChunks, boxes, layout
from streamgeo.sources.geotiff_headers import About, about, chosen, dataset, is_int, template
from streamgeo.sources.handles import current, identity
from streamgeo.sources.layouts import Mapped, Uncovered
from streamgeo.sources.tiff_headers import Unusual, look
from streamgeo.template import Template
from streamgeo.together import Copy
from streamgeo.window import Window


def open_scene(
    path: str, *, bands: int | Sequence[int] | None = None, overview: int | None = None, raw: bool = False
) -> Scene:
    """Open a raster file; pixels are read when asked for, window by window.

    Args:
        path: a GeoTIFF, or any other file that GDAL reads as a raster (JPEG 2000, PNG, VRT, ...).
        bands: which bands, counted from 1. None takes all and a sequence those, in its order: dims
            ``("band", "y", "x")``, also for one band. An int takes one band: dims ``("y", "x")``.
        overview: overview level, 0 for the first (finest); None for full resolution. The grid keeps its outer
            edges, so the pixel is as large as the sizes say.
        raw: values as stored, in native byte order, without scaling and masking.

    Returns:
        A scene. Without ``raw`` its values are float32: stored value x scale + offset of the band, worked out
        in float64, and NaN wherever GDAL's mask of the band is 0: nodata, a mask band (in the file or in a
        ``.msk`` beside it), or alpha 0 (hides the other bands of a file of two or four bands whose last is
        alpha; alpha itself stays as it is, and half transparent pixels are valid). NaN stays NaN. Values of a
        colour-mapped file are indices. GDAL takes float values within 4 float32 steps of nodata for nodata,
        and a nodata that the dtype cannot hold for none.

    Raises:
        OpenError: when the file is missing, empty, corrupt or not a raster, has no such band or overview, or
            holds complex numbers and ``raw`` is not set. Reading raises it for damaged pixels.

    Source of the mask rules: GDAL RFC 15 (https://gdal.org/development/rfc/rfc15_nodatabitmask.html).
    """
    return GeoTiffScene(path, bands=bands, overview=overview, raw=raw)


class GeoTiffScene(Scene):
    """A raster file as GDAL sees it; see :func:`open_scene`.

    Its ``attrs`` hold the file's tags by their own names and, for each band, tuples under ``descriptions``,
    ``units``, ``colorinterp``, ``scales``, ``offsets``, ``nodatavals`` and ``band_tags``.
    """

    def __init__(
        self, path: str, *, bands: int | Sequence[int] | None, overview: int | None, raw: bool
    ) -> None:
        self.name = Path(path).name
        self._path, self._asked, self._overview, self._raw = path, bands, overview, raw
        self._mark = identity(path)
        self._why = ""  # why GDAL had to open it to know its sizes
        try:
            if overview is not None:
                raise Unusual("it is an overview")
            count, shape, dtype = look(path)
            chosen_bands = chosen(bands, count, self.name)
        except Unusual as reason:
            self._why = str(reason)
            known = self._about
            rows, cols = known.grid.shape[-2:]
            count, shape, dtype, chosen_bands = known.count, (rows, cols), known.dtype, known.bands
        self._count, self._bands, self._stored = count, chosen_bands, dtype
        self.dims = ("y", "x") if is_int(bands) else ("band", "y", "x")
        self.shape = shape if is_int(bands) else (len(chosen_bands), *shape)
        if dtype.kind == "c" and not raw:
            raise OpenError(f"open_geotiff: {self.name} holds {dtype}; give raw=True to keep it complex")
        self.dtype = dtype if raw else np.dtype(np.float32)

    @cached_property
    def _about(self) -> About:
        """What rasterio says of it: asked on first use, which takes as long as a hundred quick looks."""
        self._check_unchanged()
        found = about(self._path, self._asked, self._overview)
        if self._why:
            return found
        told, seen = ((self._count, self.shape, self._stored), (found.count, found.grid.shape, found.dtype))
        if told != seen:
            raise OpenError(
                f"open_geotiff: {self._path}: its first directory says {told} and GDAL {seen} (bands, shape, dtype); "
                "it is damaged, or what lies beside it belongs to another file"
            )
        return found

    def _check_unchanged(self) -> None:
        if current(self._path) != self._mark:
            raise OpenError(f"read: {self.name} has changed since it was opened; open it again")

    @property
    def grid(self) -> Grid:
        """Where the array lies."""
        return self._about.grid

    @property
    def frame(self) -> Grid:
        """Dims and sizes, without asking GDAL where it lies."""
        return Grid.of(self.dims, self.shape)

    @cached_property
    def template(self) -> Template:
        """What a written file takes over."""
        return template(self._about.header, self.dims, self._raw)

    @property
    def files(self) -> tuple[str, ...]:
        """The file, and those that GDAL reads with it: masks and overviews beside it, parts of a VRT."""
        return self._about.files

    @property
    def reader(self) -> str:
        """How its pixels are read, and why GDAL had to open it, where it had to."""
        opened = f"; opened by GDAL, because {self._why}" if self._why else ""
        if isinstance(self._layout, str):
            return f"rasterio reads them, because {self._layout}{opened}"
        how = "memory-mapped"
        if isinstance(self._layout, TiffChunks):
            _, rows, cols = self._layout.chunks
            how = f"chunks of {rows} x {cols} ({self._layout.codec})"
        other = not self._raw and any(self._needs_gdal(number) for number in range(len(self._bands)))
        return f"{how}, their masks by rasterio{opened}" if other else f"{how}{opened}"

    @cached_property
    def _layout(self) -> TiffChunks | Mapped | str:
        """Where the pixels lie; text where only rasterio reads them: the reason."""
        driver = self._about.driver
        if driver not in ("GTiff", "COG") or not Path(self._path).is_file():
            return f"it is a file of the kind {driver}"
        shape = (self.shape[-2], self.shape[-1])
        like = (self._count, shape, self._stored.name, self._about.nodatavals)
        library = partial(_chunk, path=self._path, overview=self._overview)
        try:
            return layout(self._path, self._mark, self._overview, like, library)
        except Uncovered as reason:
            return str(reason)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_layout"}

    def _read(self, window: Window) -> Array:
        out = np.empty(window.shape, self.dtype)
        self._read_into(window, out)
        return out

    def _read_into(self, window: Window, out: Array) -> None:
        if 0 in window.shape:
            return
        self._check_unchanged()
        part = window.get("band", slice(None))
        bands = range(len(self._bands))[part]
        box = window.box(("y", "x"))
        planes = out if "band" in window else out[None]
        if isinstance(self._layout, str):
            stored, masks = self._by_rasterio(bands, box, pixels=True)
        else:
            numbers = [self._bands[number] for number in bands]
            if (put := self._one_put(part)) is not None:
                self._fetch(numbers, box, planes, put)
                return
            stored = np.empty(planes.shape, self._stored)
            self._fetch(numbers, box, stored, PLAIN)
            masks = self._masks_of(stored, bands, box)
        if self._raw:
            planes[...] = stored
        else:
            planes[...] = physical(stored, self._about.packing[part], masks, self.name)

    @cached_property
    def _puts(self) -> tuple[Put | None, ...]:
        """That of each band; bands that are alike share one, so that comparing them costs nothing."""
        known: dict[Put | None, Put | None] = {}
        return tuple(known.setdefault(put, put) for put in map(self._put_of, range(len(self._bands))))

    def _one_put(self, bands: slice) -> Put | None:
        """That of all these bands; None where they differ."""
        puts = self._puts[bands]
        return puts[0] if puts.count(puts[0]) == len(puts) else None

    def _put_of(self, number: int) -> Put | None:
        """How a band goes from its chunk to where it is wanted in one go; None where it needs more."""
        if self._raw:
            return PLAIN
        if self._about.packing[number] != (1.0, 0.0) or self._stored == np.float64:
            return None
        integers = self._stored.kind in "iu" and self._stored.itemsize <= 4
        if self._bands[number] not in self._about.masked:
            return Line() if integers else PLAIN
        nodata = self._about.nodata[number]
        if nodata is None or (self._stored.kind == "f" and nodata == nodata):
            return None
        return Line(int(nodata)) if integers else PLAIN  # of floats, NaN is missing

    def _fetch(self, numbers: Sequence[int], box: Any, out: Array, put: Put) -> None:
        """Stored values of bands of the file, counted from 1, copied by ``put``; neighbours at once."""
        assert not isinstance(self._layout, str)
        for whole, where in _boxes(numbers, box):
            if isinstance(self._layout, Mapped):
                self._layout.read(tuple(slice(*part) for part in whole), out[where], put)
            else:
                self._layout.read(whole, out[where], put)

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Tiles or strips."""
        if not isinstance(self._layout, TiffChunks):
            return None
        return self._layout.chunks[-len(self.shape) :]

    def foresee(self, window: Window) -> bool:
        """Have the chunks of a window fetched, where it is known by now where they lie."""
        layout = self.__dict__.get("_layout")  # the first read of all finds it
        if not isinstance(layout, TiffChunks):
            return False
        bands = self._bands[window.get("band", slice(None))]
        missing = [layout.foresee(box) for box, _ in _boxes(bands, window.box(("y", "x")))]
        return any(missing)

    def copies(self, window: Window, out: Array) -> Sequence[Copy] | None:
        """Those of tiles or strips, where it is known by now where they lie, and no mask has to be read."""
        self._check_unchanged()
        layout, part = self.__dict__.get("_layout"), window.get("band", slice(None))
        if not isinstance(layout, TiffChunks) or (put := self._one_put(part)) is None:
            return None
        planes = out if "band" in window else out[None]
        boxes = _boxes(self._bands[part], window.box(("y", "x")))
        return [Copy(layout, box, planes[where], put) for box, where in boxes]

    def _masks_of(self, stored: Array, bands: range, box: Any) -> list[Array | None]:
        """For each band its mask, 0 where missing; None where there is none."""
        masks: list[Array | None] = []
        alpha: Array | None = None
        for plane, number in zip(stored, bands):
            band, nodata = self._bands[number], self._about.nodata[number]
            if self._raw or band not in self._about.masked:
                masks.append(None)
            elif band in self._about.hidden:
                if alpha is None:
                    alpha = np.empty((1, *plane.shape), self._stored)
                    self._fetch([self._count], box, alpha, PLAIN)
                masks.append(alpha[0])
            elif nodata is None or _nearly(plane, nodata):
                masks += self._by_rasterio(range(number, number + 1), box, pixels=False)[1]
            else:
                masks.append((plane != nodata).astype(np.uint8))
        return masks

    def _needs_gdal(self, number: int) -> bool:
        """Whether only GDAL says where a band is missing: by a mask in the file or beside it, or an odd nodata."""
        band, known = self._bands[number], self._about
        return band in known.masked and band not in known.hidden and known.nodata[number] is None

    def _by_rasterio(self, bands: range, box: Any, *, pixels: bool) -> tuple[Array, list[Array | None]]:
        numbers = [self._bands[number] for number in bands]
        masked = [] if self._raw else [number for number in numbers if number in self._about.masked]
        with dataset(self._path, self._overview, f"read rows and columns {box}") as src:
            stored = _pixels(src, numbers, box, self._stored.name) if pixels else np.empty(0)
            found = dict(zip(masked, src.read_masks(masked, window=box))) if masked else {}
        return stored, [found.get(number) for number in numbers]


def _boxes(bands: Sequence[int], box: Box) -> Iterator[tuple[Box, slice]]:
    """A box of the file for each run of neighbours among bands, which count from 1, and which of them these are."""
    start = 0
    for i in range(1, len(bands) + 1):
        if i == len(bands) or bands[i] != bands[i - 1] + 1:
            yield ((bands[start] - 1, bands[i - 1]), *box), slice(start, i)
            start = i


def _nearly(values: Array, nodata: float) -> bool:
    """Whether some float is so near nodata, and not equal, that only GDAL can say what it takes it for."""
    if values.dtype.kind != "f" or nodata != nodata:
        return False
    with np.errstate(invalid="ignore", over="ignore"):
        near = np.abs(values - values.dtype.type(nodata)) <= 1e-5 * abs(nodata)
    return bool((near & (values != nodata)).any())


def _chunk(stored: Stored, at: At, *, path: str, overview: int | None) -> Array:
    """A chunk that was not decoded here, read by rasterio: bands, rows and columns as they are."""
    bands, box = boxes(at, stored)
    with dataset(path, overview, f"read tile {at}") as src:
        return _pixels(src, list(bands), box, stored.dtype.newbyteorder("=").name)


def _pixels(src: Any, bands: list[int], box: Any, dtype: str) -> Array:
    if len(set(src.dtypes)) == 1:
        pixels: Array = src.read(bands, window=box, out_dtype=dtype)
        return pixels
    return np.stack(
        [src.read(band, window=box, out_dtype=dtype) for band in bands]
    )  # bands of a VRT may differ


def physical(
    stored: Array, packing: Sequence[tuple[float, float]], masks: Sequence[Array | None], name: str
) -> NDArray[np.float32]:
    """Stored bands (band first) as float32: value x scale + offset in float64, NaN where the mask is 0.

    Valid values beyond the range of float32 become infinite, with a warning.
    """
    out = np.empty(stored.shape, np.float32)
    with np.errstate(over="ignore"):
        for plane, band, (scale, offset), mask in zip(out, stored, packing, masks):
            plain = (scale, offset) == (1.0, 0.0)
            plane[...] = band if plain else band.astype(np.float64) * scale + offset
            if mask is not None:
                plane[mask == 0] = np.nan
            if (not plain or band.dtype == np.float64) and (np.isinf(plane) & np.isfinite(band)).any():
                warnings.warn(
                    f"read: values of {name} beyond the range of float32 are read as infinite; "
                    "give raw=True to read them as stored",
                    stacklevel=5,
                )
    return out
