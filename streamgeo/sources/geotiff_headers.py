"""What rasterio says of a raster before any pixel is read: where it lies, its tags, what is missing in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import OpenError, StreamGeoError
from streamgeo.grid import Grid
from streamgeo.locate import GeoLocator
from streamgeo.sources.geotiff_chunks import exact_nodata
from streamgeo.sources.handles import POOL
from streamgeo.template import Template

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
# GDAL makes these up for each dataset, or has a call of its own for them.
_DERIVED_DOMAINS = {"IMAGE_STRUCTURE", "DERIVED_SUBDATASETS", "SUBDATASETS", "RPC", "rio_creation_kwds"}


@dataclass(frozen=True)
class About:
    """Some bands of a raster, or of one of its overviews, as GDAL has them.

    Attributes:
        count, nodatavals: how many bands the whole raster has, and what GDAL says is missing in each.
        grid: of the chosen bands.
        files: the raster, and what GDAL reads with it: masks and overviews beside it, parts of a VRT.
        dtype: that holds all of the bands.
        masked: which of them have a mask.
        hidden: which of them the last band of the raster hides where it is 0, as alpha.
        packing: scale and offset of each.
        nodata: of each the value that is missing, where comparing tells; None where GDAL must say.
        header: all that a written file takes over, as plain values.
    """

    count: int
    nodatavals: tuple[float | None, ...]
    driver: str
    bands: tuple[int, ...]
    grid: Grid
    files: tuple[str, ...]
    dtype: np.dtype[Any]
    masked: frozenset[int]
    hidden: frozenset[int]
    packing: tuple[tuple[float, float], ...]
    nodata: tuple[float | None, ...]
    header: dict[str, Any]


def about(path: str, bands: int | Sequence[int] | None, overview: int | None) -> About:
    """What there is to know; arguments as for :func:`streamgeo.open_geotiff`.

    Raises:
        OpenError: when GDAL cannot open it, or it has no such band or overview.
    """
    name = Path(path).name
    if overview is not None:
        _check_overview(path, overview)
    with dataset(path, overview, "open_geotiff") as src:
        if src.count == 0:
            raise OpenError(
                f"open_geotiff: {name} has no bands of its own ({src.driver}, "
                f"{len(src.subdatasets)} subdatasets); use open_netcdf or open_hdf5"
            )
        chosen_bands = chosen(bands, src.count, name)
        header = _header(src, chosen_bands)
        grid = _grid(src, len(chosen_bands), one=is_int(bands))
        files, driver = tuple(dict.fromkeys((path, *src.files))), src.driver
        count, nodatavals = src.count, tuple(src.nodatavals)
    dtype = np.dtype(header["dtype"])
    masked = frozenset(band for band, its in zip(chosen_bands, header.pop("masked")) if its)
    hidden = frozenset(band for band, its in zip(chosen_bands, header.pop("hidden")) if its)
    packing = tuple(zip(header["scales"], header["offsets"]))
    nodata = tuple(
        exact_nodata(value, dtype) if simple else None
        for simple, value in zip(header.pop("nodata_only"), header["nodatavals"])
    )
    header |= {
        "bands": chosen_bands,
        "read_mask": partial(mask_at, path=path, overview=overview, band=chosen_bands[0]),
    }
    return About(
        count, nodatavals, driver, chosen_bands, grid, files, dtype, masked, hidden, packing, nodata, header
    )


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


def is_int(value: object) -> bool:
    """Whether it is a whole number; truth values are none."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_))


def chosen(bands: int | Sequence[int] | None, count: int, name: str) -> tuple[int, ...]:
    """The numbers of the bands that are meant.

    Raises:
        OpenError: for a band that there is not.
    """
    if bands is None:
        return tuple(range(1, count + 1))
    wanted: list[Any] = list(bands) if isinstance(bands, Iterable) else [bands]
    for band in wanted or [wanted]:
        if not is_int(band) or not 1 <= band <= count:
            raise OpenError(f"open_geotiff: no band {band!r} in {name}; bands are counted from 1 to {count}")
    return tuple(int(band) for band in wanted)


def _check_overview(path: str, level: Any) -> None:
    with dataset(path, None, "open_geotiff") as src:
        have = len(src.overviews(1)) if src.count else 0
    if not is_int(level) or not 0 <= level < have:
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
    colorinterp = of_bands(_colours(src))
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
        "hidden": tuple(MaskFlags.alpha in kinds for kinds in flags),
        "nodata_only": tuple(kinds == [MaskFlags.nodata] for kinds in flags),
    }


def _colours(src: Any) -> list[str]:
    """What each band shows.

    rasterio takes the number of a colour for the code of an error, and then raises what GDAL remembers of the thread:
    what went wrong last, in whatever file. Opening what is not there makes GDAL forget.
    """
    import rasterio

    with suppress(rasterio.errors.RasterioIOError):
        rasterio.open("/vsimem/streamgeo-nothing", sharing=False)
    return [kind.name for kind in src.colorinterp]


def _dtype(names: Sequence[str]) -> str:
    """One dtype that holds all bands (those of a VRT may differ); integer complex is read as complex64."""
    kinds = [np.dtype("complex64" if name == "complex_int16" else name) for name in names]
    return np.result_type(*kinds).name


def _tags(src: Any, band: int = 0) -> dict[str, dict[str, str]]:
    """Tags by domain, the default domain under ``""``."""
    domains = [d for d in src.tag_namespaces(band) if d and d not in _DERIVED_DOMAINS]
    return {"": dict(src.tags(band)), **{d: dict(src.tags(band, ns=d)) for d in domains}}


def template(header: Mapping[str, Any], dims: tuple[str, ...], raw: bool) -> Template:
    """What a written file takes over."""
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
