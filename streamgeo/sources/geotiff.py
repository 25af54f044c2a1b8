"""GeoTIFF and every other raster that GDAL reads: a path becomes a lazy scene."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.chunked import At
from streamgeo.errors import OpenError, StreamGeoError
from streamgeo.grid import Grid
from streamgeo.locate import GeoLocator
from streamgeo.scene import Array, Scene
from streamgeo.sources.geotiff_chunks import Stored, TiffChunks, boxes, layout
from streamgeo.sources.handles import POOL, identity
from streamgeo.sources.layouts import Mapped, Put, Uncovered, current
from streamgeo.template import Template
from streamgeo.window import Window

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
# GDAL makes these up for each dataset, or has a call of its own for them.
_DERIVED_DOMAINS = {"IMAGE_STRUCTURE", "DERIVED_SUBDATASETS", "SUBDATASETS", "RPC", "rio_creation_kwds"}


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
        self._path, self._overview, self._raw = path, overview, raw
        self._mark = identity(path)
        if overview is not None:
            _check_overview(path, overview)
        with dataset(path, overview, "open_geotiff") as src:
            if src.count == 0:
                raise OpenError(
                    f"open_geotiff: {self.name} has no bands of its own ({src.driver}, "
                    f"{len(src.subdatasets)} subdatasets); use open_netcdf or open_hdf5"
                )
            self._bands = _chosen(bands, src.count, self.name)
            header = _header(src, self._bands)
            self._grid = _grid(src, len(self._bands), one=_is_int(bands))
            self._files = tuple(dict.fromkeys((path, *src.files)))
            count, driver = src.count, src.driver
        self.dims, self.shape = self._grid.dims, self._grid.shape
        self._stored = np.dtype(header["dtype"])
        if self._stored.kind == "c" and not raw:
            raise OpenError(
                f"open_geotiff: {self.name} holds {self._stored}; give raw=True to keep it complex"
            )
        self.dtype = self._stored if raw else np.dtype(np.float32)
        self._masked = frozenset(band for band, masked in zip(self._bands, header.pop("masked")) if masked)
        self._packing = tuple(zip(header["scales"], header["offsets"]))
        self._count, self._driver = count, driver
        self._nodata = tuple(
            _exact_nodata(nodata, self._stored) if simple else None
            for simple, nodata in zip(header.pop("nodata_only"), header["nodatavals"])
        )
        header |= {
            "bands": self._bands,
            "read_mask": partial(mask_at, path=path, overview=overview, band=self._bands[0]),
        }
        self._template = _template(header, self.dims, raw)

    @property
    def grid(self) -> Grid:
        """Where the array lies."""
        return self._grid

    @property
    def template(self) -> Template:
        """What a written file takes over."""
        return self._template

    @property
    def files(self) -> tuple[str, ...]:
        """The file, and those that GDAL reads with it: masks and overviews beside it, parts of a VRT."""
        return self._files

    @property
    def reader(self) -> str:
        """How its pixels are read."""
        if isinstance(self._layout, str):
            return f"rasterio reads them, because {self._layout}"
        how = "memory-mapped"
        if isinstance(self._layout, TiffChunks):
            _, rows, cols = self._layout.chunks
            how = f"chunks of {rows} x {cols} ({self._layout.codec})"
        other = not self._raw and any(
            band in self._masked and nodata is None for band, nodata in zip(self._bands, self._nodata)
        )
        return f"{how}, their masks by rasterio" if other else how

    @cached_property
    def _layout(self) -> TiffChunks | Mapped | str:
        """Where the pixels lie; text where only rasterio reads them: the reason."""
        if self._driver not in ("GTiff", "COG") or not Path(self._path).is_file():
            return f"it is a file of the kind {self._driver}"
        nodata = self._template.carry["nodatavals"][0]
        shape = (self.shape[-2], self.shape[-1])
        like = (self._count, shape, self._stored.name, nodata)
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
        if current(self._path) != self._mark:
            raise OpenError(f"read: {self.name} has changed since it was opened; open it again")
        chosen = window.get("band", slice(None))
        bands = range(len(self._bands))[chosen]
        box = tuple((window[dim].start, window[dim].stop) for dim in ("y", "x"))
        planes = out if "band" in window else out[None]
        if isinstance(self._layout, str):
            stored, masks = self._by_rasterio(bands, box, pixels=True)
        else:
            puts = self._puts[chosen]
            if (put := puts[0]) is not None and puts.count(put) == len(puts):
                self._fetch(bands, box, planes, put)
                return
            stored = np.empty(planes.shape, self._stored)
            self._fetch(bands, box, stored, np.copyto)
            masks = self._masks_of(stored, bands, box)
        if self._raw:
            planes[...] = stored
        else:
            planes[...] = physical(stored, self._packing[chosen], masks, self.name)

    @cached_property
    def _puts(self) -> tuple[Put | None, ...]:
        """That of each band; bands that are alike share one, so that comparing them costs nothing."""
        known: dict[Put | None, Put | None] = {}
        return tuple(known.setdefault(put, put) for put in map(self._put_of, range(len(self._bands))))

    def _put_of(self, number: int) -> Put | None:
        """How a band goes from its chunk to where it is wanted in one go; None where it needs more."""
        if self._raw:
            return np.copyto
        if self._packing[number] != (1.0, 0.0) or self._stored == np.float64:
            return None
        if self._bands[number] not in self._masked:
            return _put_plain
        nodata = self._nodata[number]
        if nodata is None or (self._stored.kind == "f" and nodata == nodata):
            return None
        return _put_plain if nodata != nodata else _Masking(nodata)

    def _fetch(self, bands: range, box: Any, out: Array, put: Put) -> None:
        """Stored values of some bands, copied by ``put``; neighbouring bands at once."""
        assert not isinstance(self._layout, str)
        numbers = [self._bands[number] for number in bands]
        for at, count in _runs(numbers):
            whole = ((numbers[at] - 1, numbers[at] - 1 + count), *box)
            if isinstance(self._layout, Mapped):
                self._layout.read(tuple(slice(*part) for part in whole), out[at : at + count], put)
            else:
                self._layout.read(whole, out[at : at + count], put)

    def foresee(self, window: Window) -> bool:
        """Have the chunks of a window fetched, where it is known by now where they lie."""
        layout = self.__dict__.get("_layout")  # the first read of all finds it
        if not isinstance(layout, TiffChunks):
            return False
        box = tuple((window[dim].start, window[dim].stop) for dim in ("y", "x"))
        bands = self._bands[window.get("band", slice(None))]
        missing = [layout.foresee(((bands[at] - 1, bands[at] - 1 + n), *box)) for at, n in _runs(bands)]
        return any(missing)

    def _masks_of(self, stored: Array, bands: range, box: Any) -> list[Array | None]:
        """For each band its mask, 0 where missing; None where there is none."""
        masks: list[Array | None] = []
        for plane, number in zip(stored, bands):
            nodata = self._nodata[number]
            if self._raw or self._bands[number] not in self._masked:
                masks.append(None)
            elif nodata is None or _nearly(plane, nodata):
                masks += self._by_rasterio(range(number, number + 1), box, pixels=False)[1]
            else:
                masks.append((plane != nodata).astype(np.uint8))
        return masks

    def _by_rasterio(self, bands: range, box: Any, *, pixels: bool) -> tuple[Array, list[Array | None]]:
        numbers = [self._bands[number] for number in bands]
        masked = [] if self._raw else [number for number in numbers if number in self._masked]
        with dataset(self._path, self._overview, f"read rows and columns {box}") as src:
            stored = _pixels(src, numbers, box, self._stored.name) if pixels else np.empty(0)
            found = dict(zip(masked, src.read_masks(masked, window=box))) if masked else {}
        return stored, [found.get(number) for number in numbers]


@dataclass(frozen=True)
class _Masking:
    """Copies values, with NaN for nodata."""

    nodata: float

    def __call__(self, out: Array, values: Array) -> None:
        np.copyto(out, values, casting="unsafe")
        missing = values == self.nodata
        if missing.any():
            np.copyto(out, np.nan, where=missing)


def _put_plain(out: Array, values: Array) -> None:
    np.copyto(out, values, casting="unsafe")


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Place and count of each run of neighbours."""
    start = 0
    for i in range(1, len(numbers) + 1):
        if i == len(numbers) or numbers[i] != numbers[i - 1] + 1:
            yield start, i - start
            start = i


def _exact_nodata(nodata: float | None, dtype: np.dtype[Any]) -> float | None:
    """The value that is missing where it can be told by comparing; None leaves it to GDAL."""
    if nodata is None or dtype.kind not in "iuf":
        return None
    if dtype.kind == "f":
        return nodata if dtype.itemsize >= 4 else None
    limits = np.iinfo(dtype)
    exact = nodata == nodata and nodata == int(nodata) and limits.min <= nodata <= limits.max
    return int(nodata) if exact and dtype.itemsize < 8 else None


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


def mask_at(
    rows: NDArray[np.int64], cols: NDArray[np.int64], *, path: str, overview: int | None, band: int
) -> NDArray[np.uint8]:
    """The mask of a band at rows and columns, 0 where missing or outside; templates carry it for the sink."""
    out = np.zeros((rows.size, cols.size), np.uint8)
    with dataset(path, overview, "save: the mask") as src:
        inside = [(at >= 0) & (at < size) for at, size in zip((rows, cols), src.shape)]
        if all(part.any() for part in inside):
            at = [index[part] for index, part in zip((rows, cols), inside)]
            box = tuple((int(index.min()), int(index.max()) + 1) for index in at)
            mask = src.read_masks(band, window=box)
            out[np.ix_(*inside)] = mask[np.ix_(*(index - lo for index, (lo, _) in zip(at, box)))]
    return out


@contextmanager
def dataset(path: str, overview: int | None, operation: str) -> Iterator[Any]:
    """A ``rasterio`` dataset from the pool; whatever fails inside comes out as :class:`OpenError`."""
    try:
        with POOL.lease(f"geotiff:{overview}", path, partial(_open, overview=overview), _close) as src:
            yield src
    except StreamGeoError:
        raise
    except MemoryError as error:
        raise OpenError(
            f"{operation}: {path} needs more memory than there is ({error}); read windows"
        ) from error
    except Exception as error:  # GDAL's own errors reach Python as private kinds of exception
        raise OpenError(f"{operation}: {path} cannot be read: {error.__cause__ or error}") from error


def _open(path: str, *, overview: int | None) -> Any:
    import rasterio

    return rasterio.open(path, sharing=False, **({} if overview is None else {"overview_level": overview}))


def _close(src: Any) -> None:
    src.close()


def _is_int(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_))


def _chosen(bands: int | Sequence[int] | None, count: int, name: str) -> tuple[int, ...]:
    if bands is None:
        return tuple(range(1, count + 1))
    wanted: list[Any] = list(bands) if isinstance(bands, Iterable) else [bands]
    for band in wanted or [wanted]:
        if not _is_int(band) or not 1 <= band <= count:
            raise OpenError(f"open_geotiff: no band {band!r} in {name}; bands are counted from 1 to {count}")
    return tuple(int(band) for band in wanted)


def _check_overview(path: str, level: Any) -> None:
    with dataset(path, None, "open_geotiff") as src:
        have = len(src.overviews(1)) if src.count else 0
    if not _is_int(level) or not 0 <= level < have:
        levels = f"it has levels 0 to {have - 1}" if have else "it has none, so leave overview out"
        raise OpenError(f"open_geotiff: no overview level {level!r} in {Path(path).name}; {levels}")


def _grid(src: Any, count: int, *, one: bool) -> Grid:
    transform = tuple(float(v) for v in src.transform[:6])
    crs = src.crs.to_wkt() if src.crs else None
    elsewhere = bool(src.gcps[0]) or src.rpcs is not None
    locator = None
    if transform != IDENTITY or (crs is not None and not elsewhere):
        locator = GeoLocator(transform, crs)  # type: ignore[arg-type]
    if one:
        return Grid.of(("y", "x"), src.shape, locator)
    return Grid.of(("band", "y", "x"), (count, *src.shape), locator)


def _header(src: Any, bands: Sequence[int]) -> dict[str, Any]:
    """All that a written file takes over, as plain values that pickle; per-band entries are tuples."""
    from rasterio.enums import MaskFlags

    def of_bands(values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(values[band - 1] for band in bands)

    flags = of_bands(src.mask_flag_enums)
    colorinterp = tuple(kind.name for kind in of_bands(src.colorinterp))
    masked = [MaskFlags.all_valid not in kinds for kinds in flags]
    # A mask band goes with the file; nodata and alpha are in the values.
    here = {MaskFlags.alpha} if "alpha" in colorinterp else set()
    own = [m and kinds != [MaskFlags.nodata] and not here & set(kinds) for m, kinds in zip(masked, flags)]
    whole = len(bands) == 1 or all(MaskFlags.per_dataset in kinds for kinds in flags)
    gcps, gcps_crs = src.gcps
    return {
        "dtype": _dtype(of_bands(src.dtypes)),
        "crs": src.crs.to_wkt() if src.crs else None,
        "tags": _tags(src),
        "band_tags": tuple(_tags(src, band) for band in bands),
        "descriptions": tuple(text or "" for text in of_bands(src.descriptions)),
        "units": tuple(text or "" for text in of_bands(src.units)),
        "colorinterp": colorinterp,
        "colormaps": {i: src.colormap(band) for i, band in enumerate(bands) if colorinterp[i] == "palette"},
        "scales": of_bands(src.scales),
        "offsets": of_bands(src.offsets),
        "nodatavals": of_bands(src.nodatavals),
        "gcps": tuple((g.row, g.col, g.x, g.y, g.z, g.id, g.info) for g in gcps),
        "gcps_crs": gcps_crs.to_wkt() if gcps_crs else None,
        "rpcs": src.rpcs.to_gdal() if src.rpcs is not None else None,
        "interleave": src.interleaving.value if src.interleaving else None,
        "mask": "none" if not any(own) else "dataset" if whole else "bands",
        "masked": tuple(masked),
        "nodata_only": tuple(kinds == [MaskFlags.nodata] for kinds in flags),
    }


def _dtype(names: Sequence[str]) -> str:
    """One dtype that holds all bands (those of a VRT may differ); integer complex is read as complex64."""
    kinds = [np.dtype("complex64" if name == "complex_int16" else name) for name in names]
    return np.result_type(*kinds).name


def _tags(src: Any, band: int = 0) -> dict[str, dict[str, str]]:
    """Tags by domain, the default domain under ``""``."""
    domains = [d for d in src.tag_namespaces(band) if d and d not in _DERIVED_DOMAINS]
    return {"": dict(src.tags(band)), **{d: dict(src.tags(band, ns=d)) for d in domains}}


def _template(header: Mapping[str, Any], dims: tuple[str, ...], raw: bool) -> Template:
    per_band = ("descriptions", "units", "colorinterp", "scales", "offsets", "nodatavals")
    nodata = {repr(value): value for value in header["nodatavals"]}  # by text, for NaN is not NaN
    units = set(header["units"])
    return Template(
        format="geotiff",
        dims=dims,
        raw=raw,
        units=units.pop() if len(units) == 1 else "",
        nodata=next(iter(nodata.values())) if len(nodata) == 1 else None,
        attrs={
            **header["tags"][""],
            **{key: header[key] for key in per_band},
            "band_tags": tuple(tags[""] for tags in header["band_tags"]),
        },
        carry=header,
    )
