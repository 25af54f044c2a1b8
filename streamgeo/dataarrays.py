"""Arrays with a grid as xarray DataArrays, with dims, coordinates, attributes and CRS, and as rasterio profiles.

Needs xarray (``pip install 'streamgeo[xarray]'``). The CRS lies in a scalar coordinate ``spatial_ref`` as CF and
rioxarray have it, so ``data.rio.crs`` works where rioxarray is installed, and nothing is lost where it is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import GridError
from streamgeo.grid import Grid
from streamgeo.locate import Coord, CoordLocator, GeoLocator
from streamgeo.optional import optional

Array = NDArray[Any]
_SPATIAL_REF = "spatial_ref"
_PLAIN = (str, int, float, bool, np.generic, np.ndarray, list, tuple)


# -- to xarray ------------------------------------------------------------------------------------------


def to_dataarray(
    values: Array,
    grid: Grid,
    attrs: Mapping[str, Any] | None = None,
    *,
    name: str = "",
    what: str = "to_xarray",
) -> Any:
    """A DataArray of values that lie on a grid.

    Coordinates are decoded as ``xarray.decode_cf`` does it (times in any calendar, packed latitudes). CRS +
    affine gives the vectors ``x`` and ``y`` of the pixel centres (where the grid is rotated, the planes ``xc``
    and ``yc``), and ``spatial_ref`` with CRS and transform; a CF grid mapping becomes a scalar coordinate under its
    name. A FITS WCS stays in the attributes.

    Raises:
        StepError: where xarray is not installed.
        GridError: when values and grid have different shapes.
    """
    module = optional("xarray", "xarray", what)
    if tuple(values.shape) != grid.shape:
        raise GridError(f"{what}: the values have shape {values.shape}, the grid {grid.sizes}")
    coords: dict[str, Any] = {}
    mapping = ""
    if isinstance(grid.locator, CoordLocator):
        coords = {
            c.name: module.Variable(c.dims, c.raw, _encodable(c))
            for c in grid.coords
            if set(c.dims) <= set(grid.dims)
        }
        if grid.locator.crs:
            mapping = str(grid.locator.crs.get("name") or _SPATIAL_REF)
            content = {k: v for k, v in grid.locator.crs.items() if k != "name"}
            coords.setdefault(mapping, module.Variable((), 0, content))
    elif isinstance(grid.locator, GeoLocator) and set(grid.locator.spatial) <= set(grid.dims):
        coords, mapping = _georeference(module, grid), _SPATIAL_REF
    dataset = module.decode_cf(
        module.Dataset(coords=_not_clashing(coords, grid)), decode_timedelta=False, mask_and_scale=True
    )
    kept = {key: value for key, value in (attrs or {}).items() if isinstance(value, _PLAIN)}
    data = module.DataArray(
        values, dims=grid.dims, coords=dict(dataset.variables), attrs=kept, name=name or None
    )
    if mapping:
        data.attrs.pop("grid_mapping", None)
        data.encoding["grid_mapping"] = mapping
    return data


def _encodable(coord: Coord) -> dict[str, Any]:
    """Attributes as decode_cf takes them; those that name other variables are left out."""
    others = ("bounds", "climatology", "coordinates", "formula_terms")
    return {key: value for key, value in coord.attrs.items() if value is not None and key not in others}


def _not_clashing(coords: Mapping[str, Any], grid: Grid) -> dict[str, Any]:
    """xarray wants a coordinate that has the name of a dim to lie on that dim alone."""
    return {
        name: value for name, value in coords.items() if name not in grid.dims or value.dims in ((name,), ())
    }


def _georeference(module: Any, grid: Grid) -> dict[str, Any]:
    assert isinstance(grid.locator, GeoLocator)
    ydim, xdim = grid.locator.spatial
    affine = grid.affine
    coords: dict[str, Any] = {}
    crs = grid.crs
    if affine[1] == affine[3] == 0:
        down = grid.pixel_to_world(**{ydim: np.arange(grid.sizes[ydim]), xdim: np.zeros(1)})["y"]
        across = grid.pixel_to_world(**{ydim: np.zeros(1), xdim: np.arange(grid.sizes[xdim])})["x"]
        described = {"x": {}, "y": {}} if crs is None else _axes_of(crs)
        coords[ydim] = module.Variable((ydim,), down, described["y"])
        coords[xdim] = module.Variable((xdim,), across, described["x"])
    else:  # rotated: the place of each pixel, as rioxarray has it
        rows, columns = np.indices((grid.sizes[ydim], grid.sizes[xdim]), sparse=True)
        world = grid.pixel_to_world(**{ydim: rows, xdim: columns})
        coords["xc"], coords["yc"] = (module.Variable((ydim, xdim), world[name]) for name in ("x", "y"))
    a, b, c, d, e, f = affine
    content: dict[str, Any] = {"GeoTransform": " ".join(repr(float(v)) for v in (c, a, b, f, d, e))}
    if crs is not None:
        wkt = crs.to_wkt()
        content = {**crs.to_cf(), "crs_wkt": wkt, "spatial_ref": wkt, **content}
    coords[_SPATIAL_REF] = module.Variable((), 0, content)
    return coords


def _axes_of(crs: Any) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {"x": {}, "y": {}}
    for entry in crs.cs_to_cf():
        axis = str(entry.get("axis", "")).lower()
        if axis in found:
            found[axis] = dict(entry)
    return found


# -- to rasterio ----------------------------------------------------------------------------------------


def profile_of(
    grid: Grid, dtype: np.dtype[Any], nodata: float | int | None, what: str = "to_rasterio"
) -> dict[str, Any]:
    """The profile with which ``rasterio.open(path, "w", **profile)`` writes an array that lies on a grid.

    Raises:
        GridError: for a grid that no affine transform describes, or whose last two dims are not the horizontal
            ones.
    """
    from affine import Affine
    from rasterio.crs import CRS

    if len(grid.dims) < 2 or grid.dims[-2:] != grid.spatial:
        raise GridError(
            f"{what}: the horizontal dims {grid.spatial} of {grid.dims} must be the last two; use sg.transpose(...)"
        )
    transform = grid.affine if isinstance(grid.locator, GeoLocator) else _even(grid, what)
    crs = grid.crs
    missing = float("nan") if nodata is None and np.dtype(dtype).kind == "f" else nodata
    return {
        "driver": "GTiff",
        "dtype": np.dtype(dtype).name,
        "nodata": missing,
        "width": grid.shape[-1],
        "height": grid.shape[-2],
        "count": int(np.prod(grid.shape[:-2])),
        "crs": None if crs is None else CRS.from_wkt(crs.to_wkt()),
        "transform": Affine(*transform),
    }


def _even(grid: Grid, what: str) -> tuple[float, float, float, float, float, float]:
    """The transform of a grid with evenly spaced coordinate vectors."""
    ends = []
    for dim in grid.spatial:
        found = [c for c in grid.coords if c.dims == (dim,) and c.numeric and c.values.size > 1]
        steps = np.diff(found[0].values) if found else np.zeros(1)
        if not found or not np.allclose(steps, steps.mean(), rtol=1e-4) or steps.mean() == 0:
            raise GridError(
                f"{what}: {dim} has no evenly spaced coordinates, so no affine transform; regrid it first"
            )
        step = float((found[0].values[-1] - found[0].values[0]) / steps.size)
        ends.append((step, float(found[0].values[0]) - step / 2))
    (dy, top), (dx, left) = ends
    return dx, 0.0, left, 0.0, dy, top
