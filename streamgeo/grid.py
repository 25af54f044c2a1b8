"""Grid: where an array lies.

A grid is a view of a locator. Each axis maps its pixels to the pixels of the file by an origin and a step, so
crop, pad, coarsen, refine and flip are exact arithmetic on two numbers, in any order, and never touch the
locator; CRS, WCS or coordinates are worked out when asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamgeo.errors import GridError
from streamgeo.locate import (
    Coord,
    CoordLocator,
    Floats,
    GeoLocator,
    Locator,
    WcsLocator,
    crs_of,
    crs_of_cf,
    interpolate,
)
from streamgeo.window import Window


class Bounds(NamedTuple):
    """Outer edges of a grid in world coordinates."""

    left: float
    bottom: float
    right: float
    top: float


@dataclass(frozen=True)
class Axis:
    """One dim of a grid. Pixel ``i`` covers file pixels from ``origin + step*i`` to ``origin + step*(i+1)``.

    Edges, not centres, so that a coarsened or flipped axis needs no half-pixel corrections. ``located`` is
    False for an axis that has no counterpart in the file, such as the bands a model made.
    """

    name: str
    size: int
    origin: float = 0.0
    step: float = 1.0
    located: bool = True

    def centres(self, index: ArrayLike) -> Floats:
        """File positions (0-based, centre of the first pixel = 0) of fractional pixel positions."""
        return np.asarray(self.origin + self.step * (np.asarray(index, np.float64) + 0.5) - 0.5, np.float64)

    def index(self, centre: ArrayLike) -> Floats:
        """Inverse of :meth:`centres`."""
        return np.asarray((np.asarray(centre, np.float64) + 0.5 - self.origin) / self.step - 0.5, np.float64)


@dataclass(frozen=True, eq=False)
class Grid:
    """Named dims, their sizes, and one locator: CRS + affine, FITS WCS, or coordinate arrays.

    Grids are immutable; every method returns a new one. Build one with :meth:`of`, or take it from a scene.
    Pixel positions count from the centre of the first pixel; coordinates are float64 throughout.

    >>> utm = GeoLocator((30.0, 0, 500000.0, 0, -30.0, 4100000.0), "EPSG:32633")
    >>> g = Grid.of(("y", "x"), (100, 200), utm)
    >>> g.crop(Window(y=(10, 20), x=(0, 50))).pixel_to_world(y=0, x=0)["y"].item()
    4099685.0
    """

    axes: tuple[Axis, ...]
    locator: Locator | None = None

    @classmethod
    def of(cls, dims: Sequence[str], shape: Sequence[int], locator: Locator | None = None) -> Grid:
        """A grid that is the locator's own array."""
        return cls(tuple(Axis(name, int(size)) for name, size in zip(dims, shape, strict=True)), locator)

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the dims, in the order of the array's axes."""
        return tuple(axis.name for axis in self.axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of pixels in each dim."""
        return tuple(axis.size for axis in self.axes)

    @property
    def sizes(self) -> dict[str, int]:
        """Number of pixels by dim."""
        return {axis.name: axis.size for axis in self.axes}

    @property
    def spatial(self) -> tuple[str, ...]:
        """The two horizontal dims where the locator tells them, else the last two (or the only one)."""
        known = self.locator.spatial if self.locator is not None else ()
        return tuple(known) if known and all(dim in self.dims for dim in known) else self.dims[-2:]

    @property
    def window(self) -> Window:
        """The window that covers it all."""
        return Window.whole(self.dims, self.shape)

    def axis(self, dim: str) -> Axis:
        """One axis by name."""
        for axis in self.axes:
            if axis.name == dim:
                return axis
        raise GridError(f"grid: no dim {dim!r}; the dims are {self.dims}")

    def __repr__(self) -> str:
        kind = {GeoLocator: "CRS", WcsLocator: "WCS", CoordLocator: "coordinates"}
        where = kind[type(self.locator)] if self.locator is not None else "no georeference"
        return f"Grid({', '.join(f'{k}={v}' for k, v in self.sizes.items())}; {where})"

    # -- views ------------------------------------------------------------------------------------------

    def crop(self, window: Window) -> Grid:
        """The part inside ``window``, which may reach outside (then it is a pad)."""
        out = []
        for axis in self.axes:
            if axis.name in window:
                part = window[axis.name]
                axis = replace(axis, size=part.stop - part.start, origin=axis.origin + axis.step * part.start)
            out.append(axis)
        unknown = [dim for dim in window if dim not in self.dims]
        if unknown:
            raise GridError(f"crop: no dim {unknown[0]!r}; the dims are {self.dims}")
        return replace(self, axes=tuple(out))

    def pad(self, **margins: tuple[int, int] | int) -> Grid:
        """Grown by (before, after) pixels in the named dims; one number means the same on both sides."""
        box: dict[str, tuple[int, int]] = {}
        for dim, margin in margins.items():
            before, after = (margin, margin) if isinstance(margin, (int, np.integer)) else margin
            box[dim] = (-before, self.axis(dim).size + after)
        return self.crop(Window(box))

    def coarsen(self, **factors: float) -> Grid:
        """Blocks of ``factor`` pixels become one; a factor of 1/k refines. What does not fill a block is cut.

        The outer edge of the first pixel stays where it is.
        """
        out = []
        for axis in self.axes:
            factor = factors.get(axis.name, 1)
            if not factor > 0:
                raise GridError(f"coarsen: factor {axis.name}={factor} must be positive")
            size = int(np.floor(axis.size / factor + 1e-9))
            out.append(replace(axis, size=size, step=axis.step * factor))
        for dim in factors:
            self.axis(dim)
        return replace(self, axes=tuple(out))

    def flip(self, *dims: str) -> Grid:
        """The order of pixels reversed in the named dims."""
        for dim in dims:
            self.axis(dim)
        return replace(
            self,
            axes=tuple(
                replace(a, origin=a.origin + a.step * a.size, step=-a.step) if a.name in dims else a
                for a in self.axes
            ),
        )

    def transpose(self, *dims: str) -> Grid:
        """The axes in another order."""
        if sorted(dims) != sorted(self.dims):
            raise GridError(f"transpose: {dims} is not a permutation of {self.dims}")
        return replace(self, axes=tuple(self.axis(dim) for dim in dims))

    def drop(self, *dims: str) -> Grid:
        """Without the named dims (their axis was reduced or indexed away)."""
        for dim in dims:
            self.axis(dim)
        return replace(self, axes=tuple(axis for axis in self.axes if axis.name not in dims))

    def insert(self, position: int, name: str, size: int) -> Grid:
        """With a new axis that has no coordinates, such as bands."""
        if name in self.dims:
            raise GridError(f"insert: there is a dim {name!r} already; the dims are {self.dims}")
        axes = list(self.axes)
        axes.insert(position, Axis(name, int(size), located=False))
        return replace(self, axes=tuple(axes))

    def resize(self, **sizes: int) -> Grid:
        """With another number of, say, bands: the named axes lose their tie to the file."""
        for dim in sizes:
            self.axis(dim)
        return replace(
            self,
            axes=tuple(
                Axis(a.name, sizes[a.name], located=False) if a.name in sizes else a for a in self.axes
            ),
        )

    # -- world ------------------------------------------------------------------------------------------

    def pixel_to_world(self, **pixels: ArrayLike) -> dict[str, Floats]:
        """World coordinates at pixel positions, by dim (a dim of size 1 may be left out).

        Returns:
            float64 arrays by name: ``x`` and ``y`` in units of the CRS; the axis names of a WCS, angles in
            degrees; or the names of the coordinate variables in their own units. NaN outside 2-D coordinates.

        Raises:
            GridError: without a locator, or when a dim that is needed is not given.
        """
        locator = self._located("pixel_to_world")
        given = {dim: self.axis(dim).centres(v) for dim, v in pixels.items() if self.axis(dim).located}
        for axis in self.axes:
            if axis.name not in given and axis.size == 1 and axis.located:
                given[axis.name] = axis.centres(0.0)
        if not isinstance(locator, CoordLocator):
            for dim in locator.dims:
                if dim not in given and (dim not in self.dims or not self.axis(dim).located):
                    given[dim] = np.zeros(())  # an axis that was indexed away or resized: its first pixel
                if dim not in given:
                    raise GridError(f"pixel_to_world: give {dim}= as well; the dims are {self.dims}")
        names = tuple(given)
        arrays = np.broadcast_arrays(*given.values()) if given else ()
        return locator.world({name: np.asarray(a, np.float64) for name, a in zip(names, arrays)})

    def world_to_pixel(self, **world: ArrayLike) -> dict[str, Floats]:
        """Pixel positions of world coordinates given by name; inverse of :meth:`pixel_to_world`."""
        locator = self._located("world_to_pixel")
        try:
            pixels = locator.pixel({name: np.asarray(value, np.float64) for name, value in world.items()})
        except KeyError as error:
            raise GridError(f"world_to_pixel: give {error.args[0]}= as well") from None
        kept = {axis.name: axis for axis in self.axes if axis.located}
        return {dim: kept[dim].index(value) for dim, value in pixels.items() if dim in kept}

    @property
    def bounds(self) -> Bounds:
        """Outer edges of the horizontal dims in world coordinates, rotated and curved grids boxed."""
        self._located("bounds")
        if len(self.spatial) < 2:
            raise GridError(f"bounds: a grid needs two horizontal dims, this one has {self.dims}")
        ydim, xdim = self.spatial
        rows, cols = (
            np.linspace(-0.5, self.sizes[d] - 0.5, 2 * min(self.sizes[d], 64) + 1) for d in (ydim, xdim)
        )
        edge = {
            ydim: np.concatenate([rows, rows, np.full(cols.size, rows[0]), np.full(cols.size, rows[-1])]),
            xdim: np.concatenate([np.full(rows.size, cols[0]), np.full(rows.size, cols[-1]), cols, cols]),
        }
        others = {d: np.zeros(1) for d in self.dims if d not in edge and self.axis(d).located}
        world = self.pixel_to_world(**edge, **others)
        names = self._horizontal(world)
        x, y = world[names[0]], world[names[1]]
        return Bounds(*(float(v) for v in (np.nanmin(x), np.nanmin(y), np.nanmax(x), np.nanmax(y))))

    def _horizontal(self, world: Mapping[str, Floats]) -> tuple[str, str]:
        if isinstance(self.locator, GeoLocator):
            return "x", "y"
        if isinstance(self.locator, WcsLocator):
            position = [len(self.locator.dims) - 1 - self.locator.dims.index(d) for d in self.spatial]
            return self.locator.names[position[1]], self.locator.names[position[0]]
        ydim, xdim = self.spatial
        by_dims = {c.dims: c.name for c in reversed(self.coords) if c.name in world}
        if (ydim,) in by_dims and (xdim,) in by_dims:
            return by_dims[(xdim,)], by_dims[(ydim,)]
        planes = [c for c in self.coords if c.name in world and set(c.dims) == {ydim, xdim}]
        lon = [c.name for c in planes if str(c.attrs.get("units", "")).lower().startswith("degrees_e")]
        lat = [c.name for c in planes if str(c.attrs.get("units", "")).lower().startswith("degrees_n")]
        if lon and lat:
            return lon[0], lat[0]
        raise GridError(f"bounds: no coordinates for the dims {self.spatial}")

    def _located(self, operation: str) -> Locator:
        if self.locator is None:
            raise GridError(f"{operation}: this grid ({', '.join(self.dims)}) has no georeference")
        if self._lost:
            raise GridError(f"{operation}: {self._lost[0]} was given another size, so it has no georeference")
        return self.locator

    @property
    def _lost(self) -> list[str]:
        spatial = self.locator.spatial if self.locator is not None else ()
        return [axis.name for axis in self.axes if axis.name in spatial and not axis.located]

    # -- in the terms of each library -------------------------------------------------------------------

    @property
    def affine(self) -> tuple[float, float, float, float, float, float]:
        """The six coefficients (a, b, c, d, e, f) from pixel corners (col, row) to (x, y), as in rasterio."""
        locator = self._located("affine")
        if not isinstance(locator, GeoLocator):
            raise GridError("affine: this grid is located by " + type(locator).__name__)
        y, x = (self.axis(dim) for dim in locator.spatial)
        return locator.view((y.origin, y.step), (x.origin, x.step))

    @property
    def crs(self) -> Any:
        """The ``pyproj.CRS``, from the file's CRS or its CF grid mapping; None where there is none."""
        if isinstance(self.locator, GeoLocator):
            return crs_of(self.locator.crs) if self.locator.crs else None
        if isinstance(self.locator, CoordLocator) and self.locator.crs:
            return crs_of_cf({k: v for k, v in self.locator.crs.items() if k != "name"})
        return None

    @property
    def geobox(self) -> Any:
        """The ``odc.geo.geobox.GeoBox`` of a grid with CRS + affine."""
        from affine import Affine
        from odc.geo.geobox import GeoBox

        locator = self._located("geobox")
        affine = Affine(*self.affine)
        ydim, xdim = self.spatial
        crs = locator.crs if isinstance(locator, GeoLocator) else None
        return GeoBox((self.sizes[ydim], self.sizes[xdim]), affine, crs)

    @property
    def wcs(self) -> Any:
        """A new ``astropy.wcs.WCS`` of this grid: CRPIX, CDELT, PC and CD follow crops, flips and scales."""
        locator = self._located("wcs")
        if not isinstance(locator, WcsLocator):
            raise GridError("wcs: this grid is located by " + type(locator).__name__)
        from streamgeo.fits_cards import view_wcs

        return view_wcs(locator.wcs, self.pixel_view())

    def pixel_view(self) -> list[tuple[float, float, int]]:
        """(origin, step, size) by FITS axis of a WCS grid, FITS axis 1 first; axes cut away have size 1."""
        locator = self._located("pixel_view")
        view = []
        for dim in reversed(locator.dims):
            axis = self.axis(dim) if dim in self.dims else Axis(dim, 1)
            view.append((axis.origin, axis.step, axis.size))
        return view

    @cached_property
    def coords(self) -> tuple[Coord, ...]:
        """The coordinate variables of this view; as stored where only cut, interpolated where coarsened."""
        if not isinstance(self.locator, CoordLocator):
            return ()
        return tuple(c for c in (self._view(coord) for coord in self.locator.coords) if c is not None)

    def _view(self, coord: Coord) -> Coord | None:
        if not coord.dims:
            return coord
        axes = {a.name: a for a in self.axes}
        if any(dim in axes and not axes[dim].located for dim in coord.dims):
            return None
        plain = True
        index: list[slice] = []
        for dim, size in zip(coord.dims, coord.raw.shape):
            axis = axes.get(dim, Axis(dim, size))
            start, stop = axis.origin, axis.origin + axis.step * axis.size
            flipped = axis.step == -1
            low, high = (stop, start) if flipped else (start, stop)
            plain &= abs(axis.step) == 1 and float(low).is_integer() and low >= 0 and high <= size
            cut = slice(int(low), int(high)) if plain else slice(None)
            index.append(
                slice(cut.stop - 1, cut.start - 1 if cut.start else None, -1) if plain and flipped else cut
            )
        if plain:
            return Coord(coord.name, coord.dims, coord.raw[tuple(index)], coord.attrs)
        if not coord.numeric or any(dim not in axes for dim in coord.dims):
            return None  # labels and cell bounds mean nothing once pixels are merged or split
        points = np.meshgrid(*(axes[d].centres(np.arange(axes[d].size)) for d in coord.dims), indexing="ij")
        return coord.with_values(interpolate(coord.values, points))

    def __eq__(self, other: object) -> bool:
        """Same dims and sizes, in the same place: to 1e-9 of a pixel, whatever file each came from."""
        if not isinstance(other, Grid):
            return NotImplemented
        if self.dims != other.dims or self.shape != other.shape:
            return False
        if self._lost or other._lost:  # no place, as without a locator
            return self._lost == other._lost
        mine, theirs = self.locator, other.locator
        if isinstance(mine, GeoLocator) and isinstance(theirs, GeoLocator):
            if not set(mine.spatial) <= set(self.dims):  # cut to a line, so there is no transform
                return self.axes == other.axes and mine == theirs
            return self.crs == other.crs and _close(self.affine, other.affine)
        if isinstance(mine, WcsLocator) and isinstance(theirs, WcsLocator):
            return bool(self.wcs.wcs.compare(other.wcs.wcs, tolerance=1e-9)) or self._same_world(other)
        if isinstance(mine, CoordLocator) and isinstance(theirs, CoordLocator):
            a, b = ({c.name: c for c in g.coords} for g in (self, other))
            return a.keys() == b.keys() and all(a[k].equals(b[k]) for k in a) and self.crs == other.crs
        return mine is None and theirs is None

    __hash__ = None  # type: ignore[assignment]

    def same_place(self, other: Grid, dims: Sequence[str]) -> bool:
        """Whether the named dims have the same sizes and corners; without georeference the sizes decide.

        Unlike ``==`` it lets the other dims differ, such as the bands of an image and its mask.
        """
        if any(dim not in other.dims or self.sizes[dim] != other.sizes[dim] for dim in dims):
            return False
        if self.locator is None or other.locator is None:
            return True
        worlds = []
        for grid in (self, other):
            pixels = {
                a.name: np.array([0.0, a.size - 1.0] if a.name in dims else [0.0, 0.0]) for a in grid.axes
            }
            worlds.append(grid.pixel_to_world(**{d: v for d, v in pixels.items() if grid.axis(d).located}))
        moving = [
            n for n in worlds[0] if n in worlds[1] and not (np.ptp(worlds[0][n]) == 0 == np.ptp(worlds[1][n]))
        ]
        return all(
            np.allclose(worlds[0][n], worlds[1][n], rtol=1e-9, atol=1e-12, equal_nan=True) for n in moving
        )

    def _same_world(self, other: Grid) -> bool:
        """Corners and centre at the same place: two headers may spell one WCS differently."""
        if self.locator is None or other.locator is None or self.locator.dims != other.locator.dims:
            return False
        points = {a.name: np.array([-0.5, a.size / 2 - 0.5, a.size - 0.5]) for a in self.axes}
        mine, theirs = self.pixel_to_world(**points), other.pixel_to_world(**points)
        return mine.keys() == theirs.keys() and all(
            np.allclose(mine[k], theirs[k], rtol=1e-9, atol=1e-12, equal_nan=True) for k in mine
        )


def _close(a: Sequence[float], b: Sequence[float]) -> bool:
    """Transforms equal to 1e-9 of a pixel, and a few roundings of float64 where coordinates are large."""
    pixel = max(abs(v) for v in (a[0], a[1], a[3], a[4])) or 1.0
    return all(abs(x - y) <= 1e-9 * pixel + 1e-15 * abs(x) for x, y in zip(a, b))


def plain_grid(shape: Sequence[int]) -> Grid:
    """The grid of an array that nothing is known of: dims ``dim_0``, ``dim_1``, ..., no georeference."""
    return Grid.of([f"dim_{i}" for i in range(len(shape))], shape)


def indices(grid: Grid) -> dict[str, NDArray[np.float64]]:
    """Pixel positions of every pixel by dim, shaped to broadcast against the array."""
    return {
        axis.name: np.arange(axis.size, dtype=np.float64).reshape(
            [-1 if d == axis.name else 1 for d in grid.dims]
        )
        for axis in grid.axes
    }
