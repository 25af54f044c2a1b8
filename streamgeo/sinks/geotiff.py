"""GeoTIFF: values, grid and template become one file, with no side-car beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import OpenError, StreamGeoError, WriteError
from streamgeo.grid import Grid
from streamgeo.locate import CoordLocator, GeoLocator, WcsLocator
from streamgeo.sinks.geotiff_options import CACHE, PREDICTED, TILE, Options, finish
from streamgeo.sinks.geotiff_values import Physical, Raw, say
from streamgeo.sinks.pixels import Pixels, Readable, Unread
from streamgeo.sinks.regular import regular_grid
from streamgeo.template import Template

Array = NDArray[Any]
# About the values as they were, so no longer true of what is written.
_STALE = re.compile(r"STATISTICS_|TIFFTAG_M(IN|AX)SAMPLEVALUE$|NODATA_VALUES$")
# Of other formats: packing, and the georeference of the uncut array.
_FOREIGN = re.compile(
    r"(_FillValue|missing_value|scale_factor|add_offset|valid_\w+|_Unsigned|grid_mapping|coordinates|units|"
    r"DIMENSION_LIST|SIMPLE|BITPIX|NAXIS\d*|EXTEND|BSCALE|BZERO|BLANK|[PG]COUNT|XTENSION|TFIELDS|END|"
    r"CRPIX\d+|CRVAL\d+|CDELT\d+|CROTA\d+|C[DP]C?\d+_\d+|PC\d+_\d+|CTYPE\d+|CUNIT\d+|Z\w+)$"
)


def write(
    path: Path,
    values: Array | Readable,
    grid: Grid,
    template: Template,
    *,
    compress: str = "deflate",
    blocksize: int | None = None,
    overviews: bool | Sequence[int] | None = None,
    cog: bool = False,
    sparse: bool = False,
) -> None:
    """Write ``values``, which lie on ``grid``, as a tiled GeoTIFF (BigTIFF where it must be), tile row by tile row.

    The grid has two dims, or three: then the one that is not horizontal becomes the bands. Floats are
    written in their own precision (float16 as float32), integers and complex numbers as they are, bool as
    uint8. NaN becomes the nodata value of the file that was read, where the dtype holds it, else NaN is
    declared as nodata. A valid value that GDAL would take for nodata (it compares to 4 float32 steps) is
    moved to the nearest float that it would not, with a warning. Integers of a model are all valid: no
    nodata is declared for them. With ``template.raw`` the numbers of the file's bands are its own: they get
    its dtype, scale, offset, nodata, colour map and mask band, unchanged (but their own dtype, and a
    warning, where the file's does not hold them exactly).

    CRS and transform follow the grid, also flipped and sheared; ground control points and RPCs follow its
    crops, flips and scales. Coordinate vectors give a transform when they are regular. Descriptions, units,
    tags and colour interpretation go with the bands that are still there.

    Args:
        path: the file.
        values: of the shape of ``grid``; those of a scene are read once (twice where raw values have another dtype than
            their file).
        grid: where they lie.
        template: what to take over.
        compress: ``"deflate"``, ``"zstd"``, ``"lzw"``, ``"packbits"``, ``"lzma"`` or ``"none"``.
        blocksize: width and height of a tile, a multiple of 16; 256 by default, 512 in a COG.
        overviews: True for factors 2, 4, 8, ... until an overview is no larger than a tile, or the factors.
            Floats are averaged, other values taken from the nearest pixel.
        cog: make it a Cloud Optimized GeoTIFF, with overviews unless they are False. It is written as a plain one
            first, so there must be room for both.
        sparse: tiles of nothing but nodata are not stored. Floats get the nodata NaN where the input has none.

    Raises:
        WriteError: for an option that does not fit, more than three dims, none to write, a dtype that TIFF lacks,
            coordinates without a transform, a FITS WCS, a CRS that TIFF tags lack (a rotated pole), or when the file
            cannot be written.
    """
    options = Options(compress, blocksize, overviews, cog, sparse)
    options.check()
    planes, spatial = _planes(Pixels.of(values, grid, path.name), grid, template)
    layout = _Layout(grid, template, spatial, _kept_bands(grid, template, spatial))
    numbers = _numbers(planes, layout)
    place = _place(layout)
    try:
        _write(path, planes, numbers, place, layout, options)
    except (StreamGeoError, MemoryError, Unread):
        raise
    except Exception as error:  # GDAL's own errors reach Python as private kinds of exception
        raise WriteError(f"save: {path.name} cannot be written: {error.__cause__ or error}") from error
    _report_sidecar(path)


class _Layout(NamedTuple):
    """What is written where: the grid, its two horizontal dims, and which bands of the input it has."""

    grid: Grid
    template: Template
    spatial: tuple[str, str]
    bands: tuple[int, ...] | None

    @property
    def raw(self) -> bool:
        """Whether the numbers are the file's own; bands that a model made are not, whatever went in."""
        return self.template.raw and (self.bands is not None or self.template.format != "geotiff")

    def own(self, key: str, default: Any = None) -> Any:
        """What the source carried under ``key``; ``default`` for templates of other formats."""
        return self.template.carry.get(key, default) if self.template.format == "geotiff" else default

    def by_band(self, key: str) -> list[Any] | None:
        """Of what was carried by band, what belongs to the bands that are written."""
        values = self.own(key)
        return None if self.bands is None or values is None else [values[band] for band in self.bands]


# -- bands --------------------------------------------------------------------------------------------------


def _planes(values: Pixels, grid: Grid, template: Template) -> tuple[Pixels, tuple[str, str]]:
    """The values band first, and the names of the two horizontal dims."""
    known = grid.spatial
    if grid.locator is None and template.format == "geotiff" and set(template.dims[-2:]) <= set(grid.dims):
        known = template.dims[-2:]
    sizes = ", ".join(f"{dim}={size}" for dim, size in grid.sizes.items())
    if len(grid.dims) not in (2, 3) or len(known) != 2:
        raise WriteError(
            f"save: a GeoTIFF holds (y, x) or (band, y, x), these values have {sizes}; "
            "write them one by one, or as NetCDF"
        )
    if 0 in grid.shape:
        raise WriteError(f"save: there are no pixels to write ({sizes})")
    lead = [dim for dim in grid.dims if dim not in known]
    planes = replace(values, rows=known[0], columns=(known[1],)).transpose(*lead, *known)
    return planes if lead else planes.lead("band"), (known[0], known[1])


def _kept_bands(grid: Grid, template: Template, spatial: tuple[str, str]) -> tuple[int, ...] | None:
    """Positions in the template of the bands written; None where these are not the file's bands any more."""
    if template.format != "geotiff" or "bands" not in template.carry:
        return None
    count = len(template.carry["bands"])
    lead = [dim for dim in grid.dims if dim not in spatial]
    if not lead:
        return (0,) if count == 1 else None
    axis = grid.axis(lead[0])
    if axis.name not in template.dims or not axis.located or abs(axis.step) != 1:
        return None
    at = tuple(int(i) for i in np.rint(axis.centres(np.arange(axis.size))))
    return at if all(0 <= i < count for i in at) else None


# -- values -------------------------------------------------------------------------------------------------


def _numbers(planes: Pixels, layout: _Layout) -> Physical | Raw:
    """What turns blocks into the numbers that are written, and knows their nodata value."""
    template = layout.template
    nodatavals = [template.nodata]
    if template.nodata is None:  # the bands may have different ones
        nodatavals = layout.by_band("nodatavals") or layout.own("nodatavals") or nodatavals
    if layout.raw:
        return Raw(planes, nodatavals, layout.own("dtype"))
    colours = _colorinterp(layout, planes.shape[0])
    # Two or four bands with alpha last: the cases in which GDAL takes alpha for a mask.
    return Physical(planes.dtype, nodatavals, alpha=len(colours) in (2, 4) and colours[-1] == "alpha")


def _mask(layout: _Layout) -> Callable[[slice], NDArray[np.uint8]] | None:
    """Gives, for some rows, the mask band of the file that raw values came from, at the nearest pixels."""
    kind = layout.own("mask", "none")
    if not layout.raw or kind == "none":
        return None
    axes = [layout.grid.axis(dim) for dim in layout.spatial]
    if kind == "bands" or not all(axis.located for axis in axes):
        why = "a GeoTIFF has one mask for all bands" if kind == "bands" else "the pixels are not the file's"
        say(f"{why}, so the mask of the input is left out")
        return None
    rows, cols = (np.floor(axis.centres(np.arange(axis.size)) + 0.5).astype(np.int64) for axis in axes)

    def read(part: slice) -> NDArray[np.uint8]:
        try:
            found: NDArray[np.uint8] = layout.own("read_mask")(rows[part], cols)
            return found
        except OpenError as error:
            raise WriteError(
                f"{error} (raw values go with the mask of their file, so it must be there)"
            ) from error

    return read


# -- place --------------------------------------------------------------------------------------------------


def _place(layout: _Layout) -> dict[str, Any]:
    """``transform``, ``crs``, ``gcps`` and ``rpcs`` as rasterio takes them, where there are any."""
    grid, locator = layout.grid, layout.grid.locator
    out = _control(layout)
    if isinstance(locator, WcsLocator):
        raise WriteError(
            "save: a GeoTIFF has no place for the FITS WCS of this grid, so it would lie nowhere; save as FITS, or as "
            "NetCDF or Zarr with the WCS as attributes"
        )
    elif isinstance(locator, CoordLocator):
        if (regular := regular_grid(grid, layout.spatial)) is not None:
            out["transform"], out["crs"] = regular[0], _crs(regular[1])
    elif isinstance(locator, GeoLocator):
        if locator.spatial != layout.spatial or not all(grid.axis(dim).located for dim in layout.spatial):
            say(f"dims {layout.spatial} have lost their tie to the map: written without georeference")
        else:
            out["transform"], out["crs"] = grid.affine, _crs(locator.crs)
            if out.pop("gcps", None):
                say("a GeoTIFF has a transform or ground control points: the points are left out")
    return {key: value for key, value in out.items() if value is not None}


def _crs(text: Any) -> Any:
    from rasterio.crs import CRS

    return CRS.from_user_input(text) if text else None


def _control(layout: _Layout) -> dict[str, Any]:
    """Ground control points and RPCs of the input, moved to the pixels of the grid."""
    gcps, rpcs = layout.own("gcps"), layout.own("rpcs")
    if not (gcps or rpcs):
        return {}
    y, x = (layout.grid.axis(dim) for dim in layout.spatial)
    if not (y.located and x.located):
        say("ground control points and RPCs do not fit the new pixels: left out")
        return {}
    from rasterio.control import GroundControlPoint
    from rasterio.rpc import RPC

    out: dict[str, Any] = {"crs": _crs(layout.own("crs"))}
    if gcps:
        points = [
            GroundControlPoint((row - y.origin) / y.step, (col - x.origin) / x.step, *rest)
            for row, col, *rest in gcps
        ]
        out["gcps"] = (points, _crs(layout.own("gcps_crs")))
    if rpcs:
        rpc = RPC.from_gdal(dict(rpcs))
        rpc.line_off, rpc.line_scale = float(y.index(rpc.line_off)), rpc.line_scale / y.step
        rpc.samp_off, rpc.samp_scale = float(x.index(rpc.samp_off)), rpc.samp_scale / x.step
        out["rpcs"] = rpc
    return out


# -- file ---------------------------------------------------------------------------------------------------


def _write(
    path: Path,
    planes: Pixels,
    numbers: Physical | Raw,
    place: Mapping[str, Any],
    layout: _Layout,
    options: Options,
) -> None:
    import rasterio

    # A point-registered file counts its control points from pixel centres. GDAL moves them by half a pixel
    # when it reads; when it writes it moves them the same way, so that is switched off and done here.
    point = layout.own("tags", {}).get("", {}).get("AREA_OR_POINT") == "Point"
    settings = {
        "GDAL_CACHEMAX": CACHE,
        "GDAL_TIFF_INTERNAL_MASK": True,
        **({"GTIFF_POINT_GEO_IGNORE": True} if "gcps" in place else {}),
    }
    plain = path.with_name("plain.tif") if options.cog else path
    profile = _profile(planes.shape, numbers, place, layout, options)
    with rasterio.Env(**settings):
        with rasterio.open(plain, "w", **profile) as dst:
            _describe(dst, planes.shape[0], layout)
            if "gcps" in place:
                points, crs = place["gcps"]
                for p in points if point else ():
                    p.row, p.col = p.row - 0.5, p.col - 0.5
                dst.gcps = (points, crs)
            if "rpcs" in place:
                dst.rpcs = place["rpcs"]
            if layout.raw:
                for band, colours in (layout.own("colormaps") or {}).items():
                    if layout.bands and band in layout.bands:
                        dst.write_colormap(layout.bands.index(band) + 1, colours)
            _fill(dst, planes, numbers, _mask(layout), profile)
        finish(plain, path, options, averaged=numbers.dtype.kind in "fc")


def _fill(
    dst: Any,
    planes: Pixels,
    numbers: Physical | Raw,
    mask: Callable[[slice], NDArray[np.uint8]] | None,
    profile: Mapping[str, Any],
) -> None:
    """Write all pixels, some rows of tiles at a time."""
    from rasterio.windows import Window

    together = profile.get("interleave") == "pixel" or (isinstance(numbers, Physical) and numbers.alpha)
    chunks = (planes.shape[0] if together else 1, dst.block_shapes[0][0], 1)
    for (bands, rows, _), block in planes.blocks(chunks):
        window = Window(0, rows.start, planes.shape[2], rows.stop - rows.start)
        dst.write(numbers(block), list(range(bands.start + 1, bands.stop + 1)), window=window)
        if mask is not None and bands.start == 0:
            dst.write_mask(mask(rows), window=window)
    nodata = numbers.finish()
    if nodata is not None and profile["nodata"] is None:
        dst.nodata = nodata


def _profile(
    shape: tuple[int, ...],
    numbers: Physical | Raw,
    place: Mapping[str, Any],
    layout: _Layout,
    options: Options,
) -> dict[str, Any]:
    count, height, width = shape
    out: dict[str, Any] = {
        "driver": "GTiff", "count": count, "height": height, "width": width, "dtype": numbers.dtype.name,
        "nodata": numbers.nodata, "compress": options.compress, "BIGTIFF": "IF_SAFER",
        **{key: place[key] for key in ("transform", "crs") if key in place},
    }  # fmt: skip
    if options.sparse:
        out["SPARSE_OK"] = True
        if out["nodata"] is None and numbers.dtype.kind == "f":
            out["nodata"] = float("nan")
    if numbers.dtype.kind != "c" and options.compress in PREDICTED:
        out["predictor"] = 3 if numbers.dtype.kind == "f" else 2
    size = options.blocksize or TILE
    if options.blocksize or min(height, width) >= TILE:
        out.update(tiled=True, blockxsize=size, blockysize=size)
    if count > 1:
        kept = layout.own("interleave") if layout.bands is not None else None
        out["interleave"] = kept if kept in ("pixel", "band") else "band"
    colours = tuple(_colorinterp(layout, count))
    out["photometric"] = "RGB" if colours[:3] == ("red", "green", "blue") else "MINISBLACK"
    return out


def _colorinterp(layout: _Layout, count: int) -> list[str]:
    """What the bands stand for, when they are the input's, all of them; palettes come with the colour map."""
    kinds = layout.by_band("colorinterp") or []
    whole = len(kinds) == count == len(layout.own("colorinterp") or ())
    return kinds if whole and "palette" not in kinds else []


def _describe(dst: Any, count: int, layout: _Layout) -> None:
    """Tags, names, units, and for raw values scale and offset."""
    from rasterio.enums import ColorInterp

    template = layout.template
    tags = layout.own("tags")
    for domain, entries in (tags if tags is not None else {"": _foreign_tags(template.attrs)}).items():
        _tag(dst, domain, entries)
    for i, domains in enumerate(layout.by_band("band_tags") or (), start=1):
        for domain, entries in domains.items():
            _tag(dst, domain, entries, i)
    if colours := _colorinterp(layout, count):
        dst.colorinterp = [ColorInterp[kind] for kind in colours]
    for i, text in enumerate(_names(layout, count), start=1):
        if text:
            dst.set_band_description(i, text)
    units = layout.by_band("units")
    carried = set(layout.own("units") or ())
    if units is None or (template.units and carried != {template.units}):
        units = [template.units] * count
    for i, text in enumerate(units, start=1):
        if text:
            dst.set_band_unit(i, text)
    for key, neutral in (("scales", 1.0), ("offsets", 0.0)):
        packing = layout.by_band(key)
        if layout.raw and packing and set(packing) != {neutral}:
            setattr(dst, key, packing)


def _tag(dst: Any, domain: str, entries: Mapping[str, str], band: int = 0) -> None:
    if domain.startswith(("xml:", "json:")):
        say(f"metadata of the domain {domain!r} is left out: it is not made of keys and values")
        return
    kept = {key: value for key, value in entries.items() if not _STALE.match(key)}
    if kept:
        dst.update_tags(band, ns=domain or None, **kept)


def _foreign_tags(attrs: Mapping[str, Any]) -> dict[str, str]:
    """Text and numbers of a header of another format, but for what describes its packing or its grid."""
    return {
        str(key): str(value)
        for key, value in attrs.items()
        if isinstance(value, (str, int, float, np.number))
        and not _FOREIGN.match(str(key))
        and "=" not in str(key)
    }


def _names(layout: _Layout, count: int) -> Sequence[str]:
    """Band descriptions: the input's, else its variables, else the coordinate along the bands."""
    if (kept := layout.by_band("descriptions")) is not None:
        return kept
    names = [name.strip() for name in layout.template.name.split(",")]
    if layout.template.format != "geotiff" and any(names) and len(names) == count:
        return names
    lead = [dim for dim in layout.grid.dims if dim not in layout.spatial]
    labels = [c for c in layout.grid.coords if lead and c.dims == (lead[0],)]
    return [f"{labels[0].name}={value}" for value in labels[0].raw] if labels else []


def _report_sidecar(path: Path) -> None:
    """Say what GDAL could not put into the TIFF; the side-car is not kept.

    Raises:
        WriteError: when it is the CRS: without it the file would lie elsewhere.
    """
    sidecar = path.with_name(path.name + ".aux.xml")
    if sidecar.exists():
        parts = set(re.findall(r"^ {2,4}<(\w+)", sidecar.read_text(errors="replace"), re.MULTILINE))
        if "SRS" in parts:
            raise WriteError(
                f"save: TIFF tags cannot hold the CRS of {path.name}, so it would lie nowhere; save as NetCDF or Zarr, "
                "or reproject first"
            )
        kinds = sorted(parts - {"PAMRasterBand", "Description"})
        if kinds:
            say(f"TIFF tags cannot hold this {' or '.join(kinds)}: {path.name} is written without it")
