"""Scenes from files that hold many named arrays in groups, with attributes: NetCDF and HDF5."""

from __future__ import annotations

import posixpath
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from streamgeo.cf_packing import Packing, Unpacking, own_fill
from streamgeo.chunked import Chunked
from streamgeo.errors import OpenError
from streamgeo.grid import Grid
from streamgeo.kernels import PLAIN, Put
from streamgeo.locate import Coord, CoordLocator
from streamgeo.names import unique
from streamgeo.scene import Scene
from streamgeo.sources import cf
from streamgeo.sources.cf import Header, Variable
from streamgeo.sources.grid_mapping import crs_attributes, grid_mapping
from streamgeo.sources.handles import current, looking_once
from streamgeo.sources.hdf5_chunks import Layout
from streamgeo.sources.layouts import Identity, Mapped, Refused
from streamgeo.template import Template
from streamgeo.together import Copy
from streamgeo.window import Window

Array = NDArray[Any]


class GroupedScene(Scene):
    """One variable of a file, or several of the same dims stacked in a leading dim ``variable``."""

    format: ClassVar[str]
    library: ClassVar[str]  # that reads what is not covered here

    def __init__(
        self,
        path: str,
        targets: Sequence[Variable],
        packings: Sequence[Packing],
        raw: bool,
        identity: Identity,
        scanned: Header | None = None,
    ) -> None:
        first = targets[0]
        self._identity = identity
        self._scanned = (
            scanned  # where the whole header was read to choose the variable: it is not read twice
        )
        self._path, self._packings, self._raw = path, tuple(packings), raw
        self._targets = tuple(replace(v, ids=first.ids) for v in targets)
        self._stack = unique("variable", first.dims) if len(targets) > 1 else ""
        self._inner = cf.own_dims(first, [self._stack] if self._stack else [])
        self.name = Path(path).name
        self.dims = (self._stack, *self._inner) if self._stack else self._inner
        self.shape = (len(targets), *first.shape) if self._stack else first.shape
        self.dtype = np.dtype(np.float32) if not raw else _dtype(first).newbyteorder("=")
        self._layouts: dict[int, Layout] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_layouts": {}}

    @abstractmethod
    def _layout(self, target: Variable) -> Layout:
        """How the pixels of a variable lie in the file as it is now."""

    @abstractmethod
    def _header(self) -> Header:
        """The header of the whole file."""

    @abstractmethod
    def _stored(self, path: str, index: tuple[slice, ...] | None = None) -> Array:
        """Pixels of a variable as stored, in native byte order; all of them when ``index`` is None."""

    @property
    def files(self) -> tuple[str, ...]:
        """The file that it comes from."""
        return (self._path,)

    # -- pixels -----------------------------------------------------------------------------------------

    def _read(self, window: Window) -> Array:
        try:
            out = np.empty(window.shape, self.dtype)
        except (MemoryError, ValueError) as error:
            raise OpenError(
                f"read: {window} of {self.name} does not fit in memory ({error}); read smaller windows"
            ) from error
        self._read_into(window, out)
        return out

    def _read_into(self, window: Window, out: Array) -> None:
        if not out.size:
            return
        index = window.slices(self._inner)
        for i, place in self._places(window, out):
            self._fill(i, index, place)

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Those of the first variable."""
        found = self._found(0)
        return ((1,) if self._stack else ()) + found.chunks if isinstance(found, Chunked) else None

    def foresee(self, window: Window) -> bool:
        """Have the chunks of a window fetched, where it is known by now where they lie."""
        box = window.box(self._inner)
        found = [self._layouts.get(i) for i in self._numbers(window)]
        missing = [layout.foresee(box) for layout in found if isinstance(layout, Chunked)]
        return any(missing)

    def copies(self, window: Window, out: Array) -> Sequence[Copy] | None:
        """Those of chunks, where it is known by now where they lie."""
        self._check_unchanged()
        box, copies = window.box(self._inner), []
        for i, place in self._places(window, out):
            found = self._layouts.get(i)
            if not isinstance(found, Chunked):
                return None
            copies.append(Copy(found, box, place, self._put(i)))
        return copies

    def _numbers(self, window: Window) -> range:
        """The variables that a window touches."""
        return range(len(self._targets))[window[self._stack] if self._stack else slice(None)]

    def _places(self, window: Window, out: Array) -> Iterable[tuple[int, Array]]:
        """The same, and where the numbers of each go."""
        return zip(self._numbers(window), out if self._stack else (out,))

    @cached_property
    def _unpackings(self) -> list[Unpacking]:
        return [Unpacking(packing, _dtype(v)) for packing, v in zip(self._packings, self._targets)]

    def _put(self, i: int) -> Put:
        return PLAIN if self._raw else self._unpackings[i]

    def _fill(self, i: int, index: tuple[slice, ...], out: Array) -> None:
        found, put = self._found(i), self._put(i)
        if isinstance(found, Refused):
            put(out, self._stored(self._targets[i].path, index))
        elif isinstance(found, Mapped):
            found.read(index, out, put)
        else:
            found.read(tuple((part.start, part.stop) for part in index), out, put)

    def _found(self, i: int) -> Layout:
        self._check_unchanged()
        found = self._layouts.get(i)
        if found is None:
            with looking_once():  # anew: the layout is that of the file as it is now
                found = self._layout(self._targets[i])
                self._check_unchanged()
            self._layouts[i] = found
        return found

    def _check_unchanged(self) -> None:
        if current(self._path) != self._identity:
            raise OpenError(f"read: {self.name} has changed since it was opened; open it again")

    @property
    def reader(self) -> str:
        """How its pixels are read: by chunk and filters, memory-mapped, or by the library and why."""
        return "; ".join(dict.fromkeys(self._how(self._found(i)) for i in range(len(self._targets))))

    def _how(self, found: Layout) -> str:
        if isinstance(found, Refused):
            return f"{self.library}, because {found.reason}"
        if isinstance(found, Mapped):
            return "memory-mapped"
        return f"chunks of {' x '.join(map(str, found.chunks))} ({found.codec})"

    # -- header -----------------------------------------------------------------------------------------

    @cached_property
    def _file(self) -> Header:
        if self._scanned is not None:
            return self._fitted(self._scanned)
        self._check_unchanged()
        return self._fitted(self._header())

    def _fitted(self, header: Header) -> Header:
        """A header as the chosen variables see it."""
        return header

    @cached_property
    def _coords(self) -> list[Variable]:
        catalogue, root = self._file.variables, self._file.groups.get("", {})
        return cf.coordinates(self._targets, catalogue, cf.text(root, "coordinates"))

    @cached_property
    def _mapping(self) -> Variable | None:
        return grid_mapping(self._targets[0], self._file.variables)

    @cached_property
    def _dim_names(self) -> dict[str, str]:
        others = [*self._coords, *([self._mapping] if self._mapping else [])]
        return cf.dim_names(self._targets[0], self._inner, others, [self._stack])

    @cached_property
    def _crs(self) -> Mapping[str, Any] | None:
        return crs_attributes(self._mapping, self._targets[0], self._file.groups.get("", {}))

    @cached_property
    def _spatial(self) -> tuple[str, ...] | None:
        """The horizontal dims where the header tells them; None where nothing is told of where the array lies."""
        if not (self._coords or self._mapping or self._stack or self._crs):
            return None
        return cf.horizontal(self._targets[0], self._inner, self._coords)

    @cached_property
    def frame(self) -> Grid:
        """Dims, sizes and horizontal dims. No coordinate is read: of many files that would take most of the time."""
        located = None if self._spatial is None else CoordLocator((), self._spatial)
        return Grid.of(self.dims, self.shape, located)

    @cached_property
    def grid(self) -> Grid:
        """Where the array lies: coordinate arrays as stored, and the CRS of the grid mapping."""
        if self._spatial is None:
            return Grid.of(self.dims, self.shape)
        labels = [Coord(self._stack, (self._stack,), np.array([v.path for v in self._targets]))] * bool(
            self._stack
        )
        locator = cf.locator(self._coords, self._dim_names, self._stored, self._spatial, self._crs, labels)
        return Grid.of(self.dims, self.shape, locator)

    @cached_property
    def template(self) -> Template:
        """What a file of the same kind takes over."""
        first, root = self._targets[0], dict(self._file.groups.get("", {}))
        attrs: dict[str, Any] = {**first.attrs, "global": root}
        if self._stack:
            attrs["variables"] = {v.path: dict(v.attrs) for v in self._targets}
        units = {cf.text(v.attrs, "units") for v in self._targets}
        return Template(
            format=self.format,
            dims=self.dims,
            raw=self._raw,
            name=",".join(v.path for v in self._targets),
            units=units.pop() if len(units) == 1 else "",
            nodata=self._nodata(),
            attrs=attrs,
            carry=self._carry(),
        )

    def _fills(self) -> dict[str, Any]:
        """By variable: what stands for missing in the space of the values, or None."""
        return {
            v.path: own_fill(v.attrs, _dtype(v)) if self._raw or keeps_fill(v, packing) else None
            for v, packing in zip(self._targets, self._packings)
        }

    def _nodata(self) -> float | int | None:
        fills = {str(fill): fill for fill in self._fills().values()}  # by text, for NaN is not NaN
        fill = next(iter(fills.values())) if len(fills) == 1 else None
        return None if fill is None else fill.item()

    def _carry(self) -> dict[str, Any]:
        mapping, names, fills = self._mapping, self._dim_names, self._fills()
        written = [*self._targets, *self._coords, *([mapping] if mapping else [])]
        groups = {g for v in written for g in cf.ancestors(v.group)}
        coord_names = cf.coord_names(self._coords)
        return {
            "model": self._file.model,
            "paths": tuple(v.path for v in self._targets),
            "stack": self._stack,
            "coords": {coord_names[v.path]: v.path for v in self._coords},
            "storage": {
                v.path: {"dtype": _dtype(v).str, **v.storage, "fill": fills.get(v.path)} for v in written
            },
            "dims": self._homes(written, names),
            "groups": {g: dict(self._file.groups.get(g, {})) for g in sorted(groups)},
            "grid_mapping": None if mapping is None else {
                "path": mapping.path,
                "dims": tuple(names[i] for i in mapping.ids),
                "values": self._stored(mapping.path),
                "attrs": dict(mapping.attrs),
            },
        }  # fmt: skip

    def _homes(self, written: Sequence[Variable], names: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """By dim of the scene: its name in the file, the group that defines it, whether it can grow."""
        ids = {names[i]: (i, dim) for v in written for i, dim in zip(v.ids, v.dims)}
        ids |= {
            dim: (i, leaf) for dim, i, leaf in zip(self._inner, self._targets[0].ids, self._targets[0].dims)
        }
        return {
            dim: {
                "name": leaf,
                "group": posixpath.dirname(i.partition("#")[0]),
                "unlimited": i in self._file.unlimited,
                "shared": "#" not in i,
            }
            for dim, (i, leaf) in ids.items()
        }


def keeps_fill(variable: Variable, packing: Packing) -> bool:
    """Whether physical values keep the fill value of the file: stored floats without scaling."""
    return _dtype(variable).kind == "f" and not packing.scaled and packing.cast is None


def _dtype(variable: Variable) -> np.dtype[Any]:
    return np.dtype(object) if variable.dtype is None else variable.dtype
