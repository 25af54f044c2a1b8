"""Regular coordinate vectors as a transform: what a GeoTIFF can hold of a CF grid."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from streamgeo.errors import WriteError
from streamgeo.grid import Grid
from streamgeo.locate import Coord
from streamgeo.sinks.geotiff_values import say


def regular_grid(grid: Grid, spatial: tuple[str, str]) -> tuple[tuple[float, ...], str | None] | None:
    """Transform (six coefficients, from pixel corners) and CRS (WKT or EPSG) from coordinate vectors.

    A latitude that ascends gives a south-up transform. Coordinates in degrees north and east without a CRS
    are taken for WGS 84. None, with a warning, when there are no coordinates.

    Raises:
        WriteError: for 2-D coordinates, and for vectors that are not regular.
    """
    y, x = (_vector(grid, dim) for dim in spatial)
    crs = _cf_crs(grid)
    latlon = y is not None and x is not None and _is_latitude(y) and _is_longitude(x)
    planes = [c for c in grid.coords if set(spatial) <= set(c.dims) and c.numeric]
    indices_only = crs is None and not latlon and any(_is_latitude(c) or _is_longitude(c) for c in planes)
    if y is None or x is None or indices_only:
        if planes:
            raise WriteError(
                f"save: the coordinates of {spatial} are 2-D (curvilinear), a GeoTIFF needs a regular grid; "
                "save as NetCDF, or reproject first"
            )
        say(f"no coordinates are known for the dims {spatial}: written without georeference")
        return None
    (y0, dy), (x0, dx) = _spacing(grid, spatial[0], y), _spacing(grid, spatial[1], x)
    ky, kx = _to_crs_unit(y, crs), _to_crs_unit(x, crs)
    transform = (dx * kx, 0.0, (x0 - dx / 2) * kx, 0.0, dy * ky, (y0 - dy / 2) * ky)
    return transform, crs.to_wkt() if crs is not None else "EPSG:4326" if latlon else None


def _vector(grid: Grid, dim: str) -> Coord | None:
    found = [coord for coord in grid.coords if coord.dims == (dim,) and coord.numeric]
    return next((coord for coord in found if coord.name == dim), found[0] if found else None)


def _unit(coord: Coord) -> str:
    return str(coord.attrs.get("units", "")).strip().lower()


def _is_latitude(coord: Coord) -> bool:
    return coord.attrs.get("standard_name") == "latitude" or bool(re.match("degrees?_?n", _unit(coord)))


def _is_longitude(coord: Coord) -> bool:
    return coord.attrs.get("standard_name") == "longitude" or bool(re.match("degrees?_?e", _unit(coord)))


def _spacing(grid: Grid, dim: str, coord: Coord) -> tuple[float, float]:
    """First value and step of a coordinate vector.

    Raises:
        WriteError: when it is not regular but for rounding, see :attr:`streamgeo.locate.Coord.spacing`, or has no
            step.
    """
    values = coord.values
    step, off, allowed = coord.spacing
    if values.size == 1:
        ends = grid.pixel_to_world(**{dim: [-0.5, 0.5]}).get(coord.name, np.zeros(2))
        step = float(ends[1] - ends[0])
    if not (off <= allowed and step != 0 and np.isfinite(step)):
        raise WriteError(
            f"save: coordinate {coord.name!r} is not regular (off by up to {off:.3g}, step {step:.6g}), "
            "so a GeoTIFF has no transform for it; save as NetCDF, or reproject first"
        )
    return float(values[0]), step


def _cf_crs(grid: Grid) -> Any:
    from pyproj.exceptions import CRSError

    try:
        return grid.crs
    except (CRSError, KeyError) as error:
        say(f"the CF grid mapping does not give a CRS ({error}): written without one")
        return None


def _to_crs_unit(coord: Coord, crs: Any) -> float:
    """Factor from the coordinate's unit to that of a projected CRS: CF has km, and radians of a satellite."""
    unit = _unit(coord)
    if crs is None or not crs.is_projected:
        return 1.0
    if unit in ("rad", "radian", "radians"):
        return float(crs.to_cf().get("perspective_point_height", 1.0))
    known = re.fullmatch(r"(k|kilo)?(m|meters?|metres?)", unit)
    if not known:
        return 1.0
    return (1000.0 if known[1] else 1.0) / float(crs.axis_info[0].unit_conversion_factor)
