"""What ties pixels to the world: CRS + affine, FITS WCS, or coordinate arrays.

A locator knows one array as it lies in its file. A :class:`~streamgeo.grid.Grid` is a view of it: cropped,
padded, coarsened or flipped. Pixel positions here are 0-based and count from the centre of the first pixel,
as in numpy and in astropy's 0-based calls, and everything is float64.
"""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import GridError

Floats = NDArray[np.float64]
Pixels = Mapping[str, Floats]

_WCS_LOCK = threading.RLock()  # wcslib keeps scratch state in the object


@dataclass(frozen=True)
class GeoLocator:
    """CRS and affine transform of the dims ``(y, x)``; ``crs`` is WKT, or None where the file has none.

    ``affine`` holds the six coefficients (a, b, c, d, e, f) that take pixel *corners* (col, row) to (x, y).
    """

    affine: tuple[float, float, float, float, float, float]
    crs: str | None
    spatial: tuple[str, str] = ("y", "x")

    @property
    def dims(self) -> tuple[str, ...]:
        """The dims that it locates."""
        return self.spatial

    def view(
        self, y: tuple[float, float], x: tuple[float, float]
    ) -> tuple[float, float, float, float, float, float]:
        """The affine transform of a view, given as (origin, step) in rows and in columns."""
        a, b, c, d, e, f = self.affine
        (y0, dy), (x0, dx) = y, x
        return a * dx, b * dy, a * x0 + b * y0 + c, d * dx, e * dy, d * x0 + e * y0 + f

    def world(self, pixels: Pixels) -> dict[str, Floats]:
        """``x`` and ``y`` in the units of the CRS, at the pixel centres given."""
        ydim, xdim = self.spatial
        a, b, c, d, e, f = self.affine
        col, row = pixels[xdim] + 0.5, pixels[ydim] + 0.5
        return {"x": a * col + b * row + c, "y": d * col + e * row + f}

    def pixel(self, world: Pixels) -> dict[str, Floats]:
        """Pixel positions of ``x`` and ``y``."""
        ydim, xdim = self.spatial
        a, b, c, d, e, f = self.affine
        det = a * e - b * d
        if det == 0:
            raise GridError(f"grid: the transform {self.affine} cannot be inverted")
        x, y = world["x"] - c, world["y"] - f
        return {xdim: (e * x - b * y) / det - 0.5, ydim: (a * y - d * x) / det - 0.5}


@lru_cache(maxsize=512)
def _wcs(header: str) -> Any:
    from astropy.io.fits import Header
    from astropy.wcs import WCS

    with _WCS_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old headers: wcslib reports each unit and date it repairs
        return WCS(Header.fromstring(header), relax=True)


@dataclass(frozen=True, eq=False)
class WcsLocator:
    """FITS WCS. ``header`` is the text of the FITS header, ``spatial`` the dims of the celestial axes.

    ``dims`` are the dims of the image in numpy order, so the last is FITS axis 1.
    """

    header: str
    dims: tuple[str, ...]
    spatial: tuple[str, ...]

    @property
    def wcs(self) -> Any:
        """The ``astropy.wcs.WCS`` of the whole image, shared: copy before changing it."""
        return _wcs(self.header)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the world axes, from CTYPE (``HPLN``, ``HPLT``, ...)."""
        kinds = [str(kind).split("-")[0].strip() for kind in self.wcs.wcs.ctype]
        return tuple(
            kind if kind and kinds.count(kind) == 1 else f"world{i + 1}" for i, kind in enumerate(kinds)
        )

    def world(self, pixels: Pixels) -> dict[str, Floats]:
        """World coordinates by axis name, in the units astropy gives them (degrees for angles)."""
        with _WCS_LOCK:
            values = self.wcs.all_pix2world(*[pixels[dim] for dim in reversed(self.dims)], 0)
        return dict(zip(self.names, (np.asarray(v, np.float64) for v in values)))

    def pixel(self, world: Pixels) -> dict[str, Floats]:
        """Pixel positions of world coordinates given by axis name."""
        with _WCS_LOCK:
            values = self.wcs.wcs_world2pix(*[world[name] for name in self.names], 0)
            if self.wcs.has_distortion:
                values = self.wcs.all_world2pix(*[world[name] for name in self.names], 0)
        return dict(zip(reversed(self.dims), (np.asarray(v, np.float64) for v in values)))


@dataclass(frozen=True, eq=False)
class Coord:
    """One coordinate variable: its values as stored (``raw``) with the attributes that decode them.

    Kept as stored so that a file written later repeats the very same numbers. ``dims`` may be empty (a
    scalar), one (a coordinate vector), two (curvilinear), and may name a dim of vertices or bounds.
    """

    name: str
    dims: tuple[str, ...]
    raw: NDArray[Any]
    attrs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def numeric(self) -> bool:
        """Whether it holds numbers (labels and dates written as text do not)."""
        return bool(self.raw.dtype.kind in "iufb")

    @cached_property
    def values(self) -> Floats:
        """Decoded to float64, NaN where missing: scale, offset, fill, missing_value and ``_Unsigned``."""
        if not self.numeric:
            raise GridError(f"grid: coordinate {self.name!r} holds text, not numbers")
        raw, attrs = self.raw, self.attrs
        unsigned = str(attrs.get("_Unsigned", "")).lower() == "true" and raw.dtype.kind == "i"
        missing = np.zeros(raw.shape, bool)
        for key in ("_FillValue", "missing_value"):
            for value in np.atleast_1d(attrs.get(key, ())):
                if np.asarray(value).dtype.kind in "iuf":
                    missing |= raw == value
        out = (raw.view(raw.dtype.str.replace("i", "u")) if unsigned else raw).astype(np.float64)
        out = out * float(np.float64(attrs.get("scale_factor", 1.0)))
        out = np.asarray(out + float(np.float64(attrs.get("add_offset", 0.0))))  # a scalar stays an array
        out[missing] = np.nan
        return out

    def with_values(self, values: Floats) -> Coord:
        """The same coordinate with new float64 values; attributes that packed the old ones are dropped."""
        packing = ("scale_factor", "add_offset", "_FillValue", "missing_value", "_Unsigned", "valid_range",
                   "valid_min", "valid_max")  # fmt: skip
        return Coord(self.name, self.dims, values, {k: v for k, v in self.attrs.items() if k not in packing})

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Step of a vector, how far its values are off even steps, and how far rounding can have put them.

        The rounding allowed is two float32 steps of the largest value (a file may hold them in float32, or what was),
        and a thousandth of the step.
        """
        values = self.values
        step = float(values[-1] - values[0]) / max(values.size - 1, 1)
        off = float(np.abs(values - (values[0] + step * np.arange(values.size))).max())
        rounding = 2 * float(np.finfo(np.float32).eps) * float(np.abs(values).max())
        return step, off, max(rounding, 1e-3 * abs(step))

    def equals(self, other: Coord) -> bool:
        """Same name, dims and values (to float32 rounding where either is stored in float32)."""
        if self.name != other.name or self.dims != other.dims or self.raw.shape != other.raw.shape:
            return False
        if not (self.numeric and other.numeric):
            return bool(np.array_equal(self.raw, other.raw))
        rtol = 1e-6 if np.float32 in (self.raw.dtype, other.raw.dtype) else 1e-12
        near_zero = rtol * float(np.nanmax(np.abs(self.values), initial=0.0))
        return bool(np.allclose(self.values, other.values, rtol=rtol, atol=near_zero, equal_nan=True))


@dataclass(frozen=True, eq=False)
class CoordLocator:
    """Coordinate arrays, as NetCDF holds them: 1-D vectors, 2-D curvilinear latitude and longitude, scalars.

    ``spatial`` names the horizontal dims (y, x) where they are known; ``crs`` is the CF grid mapping (its
    attributes, with the variable's name under ``"name"``), or None.
    """

    coords: tuple[Coord, ...]
    spatial: tuple[str, ...] = ()
    crs: Mapping[str, Any] | None = None

    @property
    def dims(self) -> tuple[str, ...]:
        """The dims that its coordinates span."""
        return tuple(dict.fromkeys(dim for coord in self.coords for dim in coord.dims))

    def world(self, pixels: Pixels) -> dict[str, Floats]:
        """Every numeric coordinate whose dims are given, interpolated linearly between pixel centres."""
        out = {}
        for coord in self.coords:
            if coord.numeric and coord.dims and all(dim in pixels for dim in coord.dims):
                out[coord.name] = interpolate(coord.values, [pixels[dim] for dim in coord.dims])
        return out

    def pixel(self, world: Pixels) -> dict[str, Floats]:
        """Pixel positions: exact inverse of interpolation for vectors, the nearest pixel for 2-D arrays."""
        out: dict[str, Floats] = {}
        planes = [c for c in self.coords if c.name in world and len(c.dims) == 2]
        for coord in self.coords:
            if coord.name in world and len(coord.dims) == 1:
                out[coord.dims[0]] = _invert(coord, world[coord.name])
        if len(planes) == 2 and planes[0].dims == planes[1].dims:
            out.update(_nearest(planes[0], planes[1], world))
        missing = [
            name for name in world if not any(name == c.name and len(c.dims) in (1, 2) for c in self.coords)
        ]
        if missing or not out:
            known = [c.name for c in self.coords if c.numeric and c.dims]
            raise GridError(f"grid: no pixel from {sorted(world)}; the coordinates are {known}")
        return out


def interpolate(values: Floats, positions: Sequence[Floats]) -> Floats:
    """Multilinear interpolation of ``values`` at fractional indices.

    Vectors are continued linearly past their ends (a pad of a regular axis stays regular); arrays of more
    dims are NaN outside.
    """
    points = np.broadcast_arrays(*positions)
    shape = points[0].shape
    out = np.zeros(shape, np.float64)
    lows, fracs = [], []
    outside = np.zeros(shape, bool)
    for size, point in zip(values.shape, points):
        if size == 1:
            low, frac = np.zeros(shape, np.int64), np.zeros(shape)
            outside |= np.abs(point) > 0.5
        else:
            low = np.clip(np.floor(point), 0, size - 2).astype(np.int64)
            frac = point - low
            outside |= (point < -0.5) | (point > size - 0.5)
        lows.append(low)
        fracs.append(frac)
    for corner in range(2 ** len(points)):
        weight = np.ones(shape)
        index = []
        for axis, (low, frac) in enumerate(zip(lows, fracs)):
            bit = corner >> axis & 1
            weight = weight * (frac if bit else 1 - frac)
            index.append(np.minimum(low + bit, values.shape[axis] - 1))
        picked = values[tuple(index)]
        out += np.where(weight == 0, 0.0, weight * picked)
    if values.ndim > 1 or values.shape[0] == 1:
        out = np.where(outside, np.nan, out)
    return out


def _invert(coord: Coord, targets: Floats) -> Floats:
    values = coord.values
    if values.size < 2:
        raise GridError(f"grid: coordinate {coord.name!r} has one value, so no pixel size")
    steps = np.diff(values)
    if not (np.all(steps > 0) or np.all(steps < 0)):
        raise GridError(f"grid: coordinate {coord.name!r} is not monotonic, so a value has no single pixel")
    order = slice(None) if steps[0] > 0 else slice(None, None, -1)
    ascending, index = values[order], np.arange(values.size, dtype=np.float64)[order]
    at = np.clip(np.searchsorted(ascending, targets) - 1, 0, values.size - 2)
    slope = (index[at + 1] - index[at]) / (ascending[at + 1] - ascending[at])
    return np.asarray(index[at] + (targets - ascending[at]) * slope, np.float64)


def _nearest(first: Coord, second: Coord, world: Pixels) -> dict[str, Floats]:
    targets = np.broadcast_arrays(world[first.name], world[second.name])
    flat = [np.ravel(t) for t in targets]
    rows, cols = np.empty(flat[0].size), np.empty(flat[0].size)
    is_longitude = [str(c.attrs.get("units", "")).lower().startswith("degrees_e") for c in (first, second)]
    for i, (a, b) in enumerate(zip(*flat)):
        distance = np.zeros(first.values.shape)
        for coord, value, circular, other in (
            (first, a, is_longitude[0], b),
            (second, b, is_longitude[1], a),
        ):
            gap = coord.values - value
            if circular:  # meridians close up towards the poles
                gap = ((gap + 180) % 360 - 180) * np.cos(np.radians(other))
            distance += gap**2
        if np.isnan(distance).all():
            raise GridError(
                f"grid: no pixel for {first.name}={a}, {second.name}={b}: the coordinates are NaN"
            )
        rows[i], cols[i] = np.unravel_index(np.nanargmin(distance), distance.shape)
    shape = targets[0].shape
    return dict(zip(first.dims, (rows.reshape(shape), cols.reshape(shape))))


@lru_cache(maxsize=256)
def crs_of(text: str) -> Any:
    """The ``pyproj.CRS`` of WKT or an authority code; kept, since some take half a second to build."""
    from pyproj import CRS

    return CRS.from_user_input(text)


def crs_of_cf(attributes: Mapping[str, Any]) -> Any:
    """The ``pyproj.CRS`` of the attributes of a CF grid mapping."""
    return _crs_of_cf(
        json.dumps(attributes, default=lambda value: np.asarray(value).tolist(), sort_keys=True)
    )


@lru_cache(maxsize=256)
def _crs_of_cf(text: str) -> Any:
    from pyproj import CRS

    return CRS.from_cf(json.loads(text))


Locator = GeoLocator | WcsLocator | CoordLocator
