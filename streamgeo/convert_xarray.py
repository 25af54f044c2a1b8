"""Chains over xarray DataArrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.begin import buffer_of_scenes
from streamgeo.chain import Buffer
from streamgeo.errors import StepError
from streamgeo.grid import Grid
from streamgeo.locate import Coord, CoordLocator, GeoLocator, Locator
from streamgeo.optional import optional
from streamgeo.scene import Scene
from streamgeo.sources.cf import Variable, horizontal
from streamgeo.template import Template
from streamgeo.window import Window

Array = NDArray[Any]
Affine = tuple[float, float, float, float, float, float]
_SPATIAL_REF = "spatial_ref"


def from_xarray(data: Any, key: str = "image") -> Buffer:
    """A Buffer of scenes from xarray DataArrays, as if each had been opened from a file.

    Dims, coordinates (times are encoded as in CF), CRS and transform (``spatial_ref``, as rioxarray writes it)
    and attributes are taken over, so that predictions can be saved with them, as NetCDF unless another format
    is asked for. Lazy arrays (dask, or opened from a file) are computed window by window.

    Args:
        data: a DataArray of numbers, or several: one sample each.
        key: the key.

    Raises:
        StepError: where xarray is not installed, for something that is no DataArray or holds no numbers, and
            without any.

    >>> import xarray as xr
    >>> field = xr.DataArray(np.ones((4, 6)), dims=("lat", "lon"), coords={"lat": np.arange(4.0)})
    >>> chain = from_xarray(field, "sst")
    >>> len(chain), chain[0]["sst"].shape, chain.scene("sst").grid.dims
    (1, (4, 6), ('lat', 'lon'))
    """
    optional("xarray", "xarray", "from_xarray")
    arrays = [data] if hasattr(data, "dims") or not isinstance(data, Iterable) else list(data)
    if not arrays:
        raise StepError("from_xarray: give a DataArray, or several")
    scenes = [DataArrayScene(array, number) for number, array in enumerate(arrays)]
    return buffer_of_scenes(scenes, key, "DataArrays")


class DataArrayScene(Scene):
    """A DataArray as a scene."""

    def __init__(self, data: Any, number: int = 0) -> None:
        self._data, self._grid = data, grid_of(data)
        self.name = str(data.name if data.name is not None else f"array_{number}")
        self.dims, self.shape = self._grid.dims, self._grid.shape
        self.dtype = np.dtype(data.dtype).newbyteorder("=")
        if self.dtype.kind not in "iufbc":
            raise StepError(f"from_xarray: {self.name} has the dtype {data.dtype}; give numbers")

    @property
    def grid(self) -> Grid:
        """Where the array lies."""
        return self._grid

    @property
    def template(self) -> Template:
        """Name, units and attributes of the DataArray."""
        attrs = {str(key): value for key, value in self._data.attrs.items()}
        return Template(
            "netcdf",
            self.dims,
            raw=self.dtype.kind in "iub",
            name=self.name,
            units=str(attrs.get("units", "")),
            attrs=attrs,
        )

    @property
    def files(self) -> tuple[str, ...]:
        """The file that xarray opened, if any."""
        source = self._data.encoding.get("source")
        return (str(source),) if source else ()

    def _read(self, window: Window) -> Array:
        part = self._data.isel(dict(window.items()))
        return np.array(part.values, self.dtype)


def grid_of(data: Any, what: str = "from_xarray") -> Grid:
    """The grid of a DataArray: CRS + affine where it has ``spatial_ref`` and even ``x`` and ``y``, else coordinates.

    Raises:
        StepError: for an object that is no DataArray.
    """
    if not all(hasattr(data, name) for name in ("dims", "coords", "values", "shape")):
        hint = "; give one of its variables" if hasattr(data, "data_vars") else ""
        raise StepError(f"{what}: {type(data).__name__} is no xarray.DataArray{hint}")
    dims = tuple(str(dim) for dim in data.dims)
    if len(set(dims)) != len(dims):
        raise StepError(f"{what}: the dims {dims} are not unique")
    return Grid.of(dims, data.shape, _geo(data, dims) or _coords(data, dims))


def _geo(data: Any, dims: Sequence[str]) -> Locator | None:
    """CRS + affine, where nothing but it tells where the pixels are."""
    reference = data.coords.get(data.encoding.get("grid_mapping", _SPATIAL_REF))
    if reference is None or reference.ndim or len(dims) < 2:
        return None
    transform = _transform(reference.attrs.get("GeoTransform", ""))
    if transform is None:
        return None
    c, a, b, f, d, e = transform
    turned = bool(b or d)
    ydim, xdim = dims[-2:]
    own = {ydim, xdim, reference.name, "band"}  # the bands of a raster are numbered; it needs no coordinate
    if turned:
        own |= {"xc", "yc"}  # as rioxarray calls the places of the pixels of a rotated raster
    if any(name not in own and coord.ndim for name, coord in data.coords.items()):
        return None
    if turned:
        a, b, c, d, e, f = _turned(data, (a, b, c, d, e, f), ydim, xdim)
    else:  # the vectors say it too, and follow when the array was cut
        across, down = _even(data, xdim, c, a), _even(data, ydim, f, e)
        if across is None or down is None:
            return None
        (c, a), (f, e) = across, down
    wkt = reference.attrs.get("crs_wkt") or reference.attrs.get("spatial_ref")
    return GeoLocator((a, b, c, d, e, f), wkt, (ydim, xdim))


def _turned(data: Any, affine: Affine, ydim: str, xdim: str) -> Affine:
    """The affine of a rotated raster, by the places of its pixels where it has them: they follow when it was cut."""
    if not {"xc", "yc"} <= set(data.coords):
        return affine
    a, b, _, d, e, _ = affine
    x, y = (np.asarray(data.coords[name].transpose(ydim, xdim).values, np.float64) for name in ("xc", "yc"))
    rows, columns = (max(size - 1, 1) for size in x.shape)
    if x.shape[1] > 1:
        a, d = (x[0, -1] - x[0, 0]) / columns, (y[0, -1] - y[0, 0]) / columns
    if x.shape[0] > 1:
        b, e = (x[-1, 0] - x[0, 0]) / rows, (y[-1, 0] - y[0, 0]) / rows
    c, f = x[0, 0] - (a + b) / 2, y[0, 0] - (d + e) / 2
    return float(a), float(b), float(c), float(d), float(e), float(f)


def _transform(text: Any) -> tuple[float, ...] | None:
    """The six numbers of a transform as GDAL writes it; None where they are not there (some files have fewer)."""
    try:
        numbers = tuple(float(part) for part in str(text).split())
    except ValueError:
        return None
    return numbers if len(numbers) == 6 else None


def _even(data: Any, dim: str, edge: float, step: float) -> tuple[float, float] | None:
    """The outer edge and the size of the pixels of a dim; None where they are not all of one size."""
    if dim not in data.coords:
        return edge, step
    values = np.asarray(data.coords[dim].values, np.float64)
    if values.size > 1:
        step = float((values[-1] - values[0]) / (values.size - 1))
        if not np.allclose(np.diff(values), step, rtol=1e-6, atol=1e-9 * np.abs(values).max()):
            return None
    return float(values[0]) - step / 2, step


def _coords(data: Any, dims: Sequence[str]) -> Locator | None:
    module = optional("xarray", "xarray", "from_xarray")
    mapping = data.encoding.get("grid_mapping", data.attrs.get("grid_mapping", _SPATIAL_REF))
    coords: list[Coord] = []
    crs: dict[str, Any] | None = None
    for name, coord in data.coords.items():
        if name == mapping and coord.ndim == 0:
            crs = {**coord.attrs, "name": str(name)}
            continue
        try:
            stored = module.conventions.encode_cf_variable(coord.variable)
        except (NotImplementedError, TypeError, ValueError) as error:
            raise StepError(
                f"from_xarray: the coordinate {str(name)!r} cannot be written as CF has it ({error}); take it out with "
                f".drop_vars({str(name)!r}), or make a plain one of it with .reset_index({str(name)!r})"
            ) from error
        raw = np.asarray(stored.values)
        if raw.dtype.kind in "iufbSU":
            named = (
                "bounds",
                "climatology",
                "formula_terms",
                "coordinates",
            )  # other variables, which do not come
            attrs = {str(key): value for key, value in stored.attrs.items() if key not in named}
            coords.append(Coord(str(name), tuple(str(dim) for dim in coord.dims), raw, attrs))
    if not coords:
        return None
    return CoordLocator(tuple(coords), _horizontal(coords, dims), crs)


def _horizontal(coords: Sequence[Coord], dims: Sequence[str]) -> tuple[str, ...]:
    variables = [Variable(c.name, c.dims, c.dims, c.raw.shape, c.raw.dtype, c.attrs) for c in coords]
    sizes = {dim: n for c in coords for dim, n in zip(c.dims, c.raw.shape)}
    target = Variable("", tuple(dims), tuple(dims), tuple(sizes.get(dim, 1) for dim in dims), None)
    return horizontal(target, dims, variables)
