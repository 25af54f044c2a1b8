"""How a NetCDF or HDF5 file says where its pixels lie: coordinates, grid mapping, and what points to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.grid import Axis, Grid
from streamgeo.locate import GeoLocator
from streamgeo.names import unique
from streamgeo.sinks.pixels import Pixels

Array = NDArray[Any]
_POINTERS = ("coordinates", "bounds", "climatology")


@dataclass(frozen=True)
class Out:
    """One variable to write.

    Attributes:
        path: groups and name.
        dims: names of its dims in the layout.
        fill: its ``_FillValue``, or None.
        storage: chunks, filters, byte order and fill mode that its file had.
    """

    path: str
    dims: tuple[str, ...]
    values: Array | Pixels
    attrs: Mapping[str, Any] = field(default_factory=dict)
    fill: Any = None
    storage: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """Where the data lies.

    Attributes:
        variables: coordinates and grid mapping.
        attrs: what the data variables need to refer to them.
        lost: names of coordinates of the file that this grid no longer has.
        moved: the axes (y, x) where the grid is not that of the file.
        replaces: the georeference of the file does not hold any more.
        unlocated: some axis has no counterpart in the file.
    """

    variables: list[Out]
    attrs: dict[str, Any]
    lost: frozenset[str] = frozenset()
    moved: tuple[Axis, Axis] | None = None
    replaces: bool = False
    unlocated: bool = False

    def pointing(self, key: str, value: Any) -> Any:
        """An attribute that names coordinates or repeats the transform, brought up to date; None drops it."""
        if key in _POINTERS and isinstance(value, str) and self.lost:
            kept = [word for word in value.split() if word.rsplit("/", 1)[-1] not in self.lost]
            return " ".join(kept) or None
        if self.moved is not None:
            if key == "GeoTransform":
                return _geotransform(value, *self.moved)
            if key in ("transform", "res"):
                return _transform(key, value, *self.moved)
        return value


def _view(six: tuple[float, ...], y: Axis, x: Axis) -> tuple[float, ...]:
    """The transform (a, b, c, d, e, f) of a view of the file."""
    a, b, c, d, e, f = six
    return (
        a * x.step, b * y.step, a * x.origin + b * y.origin + c,
        d * x.step, e * y.step, d * x.origin + e * y.origin + f,
    )  # fmt: skip


def _geotransform(value: Any, y: Axis, x: Axis) -> Any:
    """GDAL's order, as text: c a b f d e."""
    try:
        c, a, b, f, d, e = (float(part) for part in str(value).split())
    except ValueError:
        return value
    if not (x.located and y.located):
        return None
    a, b, c, d, e, f = _view((a, b, c, d, e, f), y, x)
    return " ".join(repr(float(part)) for part in (c, a, b, f, d, e))


def _transform(key: str, value: Any, y: Axis, x: Axis) -> Any:
    """Six or nine coefficients, or the two pixel sizes, as users of rasterio leave them in attributes."""
    numbers = np.asarray(value)
    if numbers.dtype.kind != "f" or numbers.size not in ((2,) if key == "res" else (6, 9)):
        return value
    if not (x.located and y.located):
        return None
    if key == "res":
        return numbers * np.abs([x.step, y.step])
    return np.array([*_view(tuple(numbers[:6]), y, x), *numbers[6:]])


# -- CRS + affine ---------------------------------------------------------------------------------------


def geo_place(grid: Grid, locator: GeoLocator) -> Place:
    """Coordinate vectors of the pixel centres, or 2-D ones where rotated, and a mapping ``spatial_ref``.

    The mapping has the CRS as CF attributes and WKT, and GDAL's GeoTransform, so that rioxarray and GDAL read
    it. Source: CF conventions 1.11, section 5.6; GDAL, NetCDF driver, "Georeference".
    """
    ydim, xdim = locator.spatial
    if ydim not in grid.dims or xdim not in grid.dims:
        return Place([], {}, replaces=True)
    a, b, c, d, e, f = grid.affine
    crs = grid.crs
    described = _axes(crs)
    col, row = np.arange(grid.sizes[xdim]) + 0.5, np.arange(grid.sizes[ydim]) + 0.5
    attrs: dict[str, Any] = {}
    if b == 0 and d == 0:
        outs = [
            Out(ydim, (ydim,), e * row + f, described["Y"]),
            Out(xdim, (xdim,), a * col + c, described["X"]),
        ]
    else:
        names = [unique(name, grid.dims) for name in ("yc", "xc")]
        plain = [{k: v for k, v in described[letter].items() if k != "axis"} for letter in "YX"]
        y, x = d * col + (e * row + f)[:, None], a * col + (b * row + c)[:, None]
        outs = [Out(n, (ydim, xdim), v, at) for n, v, at in zip(names, (y, x), plain)]
        attrs["coordinates"] = " ".join(names)
    mapping = unique("spatial_ref", grid.dims)
    cf = dict(crs.to_cf()) if crs is not None else {}
    cf |= {"spatial_ref": cf["crs_wkt"]} if "crs_wkt" in cf else {}
    cf["GeoTransform"] = " ".join(repr(float(part)) for part in (c, a, b, f, d, e))
    outs.append(Out(mapping, (), np.array(0, np.int32), cf))
    return Place(outs, {**attrs, "grid_mapping": mapping}, replaces=True)


def _axes(crs: Any) -> dict[str, dict[str, Any]]:
    """Attributes of the coordinates along Y and X."""
    plain: dict[str, dict[str, Any]] = {"Y": {"axis": "Y"}, "X": {"axis": "X"}}
    if crs is None:
        return plain
    return {**plain, **{axis["axis"]: dict(axis) for axis in crs.cs_to_cf() if axis.get("axis") in plain}}


# -- FITS WCS -------------------------------------------------------------------------------------------


def wcs_attributes(grid: Grid) -> dict[str, Any]:
    """The cards of the WCS of this view; angles in degrees, as astropy writes them."""
    header = grid.wcs.to_header(relax=True)
    return {
        card.keyword: card.value for card in header.cards if card.keyword not in ("", "COMMENT", "HISTORY")
    }
