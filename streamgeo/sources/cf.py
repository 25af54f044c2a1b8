"""What the CF conventions say of a variable: its coordinates, its grid mapping, its horizontal dims.

Pure logic on a neutral description of a file's header, so that NetCDF and HDF5 share it. Source: CF
conventions 1.11, sections 2.7 (groups), 4 and 5 (coordinates), 7.1 (bounds) and appendix D (formula terms).
Latitude and longitude that no ``coordinates`` attribute names are found as well.
"""

from __future__ import annotations

import math
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.locate import Coord, CoordLocator
from streamgeo.names import unique

_NORTH = {"degreesnorth", "degreenorth", "degreesn", "degreen"}
_EAST = {"degreeseast", "degreeeast", "degreese", "degreee"}
_DEGREES = {"", "degree", "degrees", "deg"}
_LAT_NAMES = {"lat", "latitude", "nav_lat", "xlat"}
_LON_NAMES = {"lon", "longitude", "nav_lon", "xlong"}
_Y_NAMES = _LAT_NAMES | {
    "y",
    "rlat",
    "yc",
    "ny",
    "nj",
    "j",
    "ydim",
    "northing",
    "south_north",
    "grid_latitude",
}
_X_NAMES = _LON_NAMES | {"x", "rlon", "xc", "nx", "ni", "i", "xdim", "easting", "west_east", "grid_longitude"}
_Y_STANDARD = {"latitude", "grid_latitude", "projection_y_coordinate"}
_X_STANDARD = {"longitude", "grid_longitude", "projection_x_coordinate"}


@dataclass(frozen=True)
class Variable:
    """One array of a file as the header describes it.

    Attributes:
        path: groups and name, without a leading slash.
        dims: names of its dims; ``ids`` tell dims of one name in several groups apart.
        dtype: as numpy has it, or None for what no plain array can hold (compound, variable length, ...).
        attrs: its attributes.
        storage: how it lies in the file (chunks, filters, byte order), for who writes it again.
    """

    path: str
    dims: tuple[str, ...]
    ids: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any] | None
    attrs: Mapping[str, Any] = field(default_factory=dict)
    storage: Mapping[str, Any] = field(default_factory=dict)

    @property
    def leaf(self) -> str:
        """Its name without the groups."""
        return posixpath.basename(self.path)

    @property
    def group(self) -> str:
        """The path of its group; empty for the root."""
        return posixpath.dirname(self.path)

    @property
    def numeric(self) -> bool:
        """Whether it holds plain numbers."""
        return self.dtype is not None and self.dtype.kind in "iufb"


Catalogue = Mapping[str, Variable]


@dataclass(frozen=True)
class Header:
    """What a file says of itself before any pixel is read.

    Attributes:
        variables: by path.
        groups: attributes by path, of the root (the empty path) and of groups with variables in or below them.
        unlimited: ids of the dims that can grow.
        model: the data model, such as ``"NETCDF4"``.
    """

    variables: Catalogue
    groups: Mapping[str, Mapping[str, Any]]
    unlimited: frozenset[str] = frozenset()
    model: str = ""


def text(attrs: Mapping[str, Any], key: str) -> str:
    """An attribute as text; empty where it is missing or not text."""
    value = attrs.get(key, "")
    return (
        value.decode("utf-8", "replace")
        if isinstance(value, bytes)
        else value
        if isinstance(value, str)
        else ""
    )


def resolve(name: str, group: str, catalogue: Catalogue) -> Variable | None:
    """The variable that ``name`` means inside ``group``.

    A path is taken as such, a bare name in the group or the nearest above it, else where it is the only one.
    """
    if "/" in name:
        path = posixpath.normpath(posixpath.join("/", group, name)).lstrip("/")
        return catalogue.get(path)
    while True:
        path = posixpath.join(group, name)
        if path in catalogue:
            return catalogue[path]
        if not group:
            break
        group = posixpath.dirname(group)
    same = [v for v in catalogue.values() if v.leaf == name]
    return same[0] if len(same) == 1 else None


def referred(variable: Variable, *keys: str) -> Iterator[str]:
    """Names that attributes of a variable refer to, without the labels of ``formula_terms`` and the like."""
    for key in keys:
        if key in variable.attrs:
            for word in text(variable.attrs, key).split():
                if not word.endswith(":"):
                    yield word


def _plain(variable: Variable) -> str:
    return text(variable.attrs, "units").lower().replace("_", "").replace(" ", "")


def _is(variable: Variable, units: set[str], standard: str, names: set[str]) -> bool:
    if not variable.numeric:
        return False
    said = _plain(variable)
    if said in units or text(variable.attrs, "standard_name").lower() == standard:
        return True
    return said in _DEGREES and variable.leaf.lower() in names


def is_latitude(variable: Variable) -> bool:
    """By units, standard name, or its own name."""
    return _is(variable, _NORTH, "latitude", _LAT_NAMES)


def is_longitude(variable: Variable) -> bool:
    """By units, standard name, or its own name."""
    return _is(variable, _EAST, "longitude", _LON_NAMES)


def is_grid_mapping(variable: Variable) -> bool:
    """Whether a variable holds no data but the attributes of a CRS."""
    named = any(key in variable.attrs for key in ("grid_mapping_name", "crs_wkt", "spatial_ref"))
    return named and math.prod(variable.shape) <= 1


def ancestors(group: str) -> list[str]:
    """A group and all above it but the root."""
    parts = group.split("/") if group else []
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def groups_of(variables: Iterable[Variable]) -> list[str]:
    """The root, and the groups with these variables in or below them, by name."""
    return sorted({"", *(above for v in variables for above in ancestors(v.group))})


# -- which variables are data ------------------------------------------------------------------------


def data_variables(catalogue: Catalogue) -> list[str]:
    """Paths of the numeric variables of two or more dims that describe no other variable."""
    servants: set[str] = set()
    for variable in catalogue.values():
        keys = ("coordinates", "bounds", "climatology", "grid_mapping", "cell_measures", "formula_terms")
        for name in referred(variable, *keys):
            found = resolve(name, variable.group, catalogue)
            if found is not None:
                servants.add(found.path)
    return [
        path
        for path, v in catalogue.items()
        if v.numeric
        and len(v.shape) >= 2
        and path not in servants
        and not (is_latitude(v) or is_longitude(v))
    ]


# -- coordinates -------------------------------------------------------------------------------------


def coordinates(targets: Sequence[Variable], catalogue: Catalogue, inherited: str = "") -> list[Variable]:
    """The variables that locate ``targets`` (which share their dims), in a steady order.

    Coordinate variables of the dims, what ``coordinates`` names (``inherited`` is a file-wide attribute of
    that name), latitude and longitude on the same dims, terms of formulas, and the bounds of all these.
    """
    first = targets[0]
    own, ids = {v.path for v in targets}, set(first.ids)
    found: dict[str, Variable] = {}

    def take(variable: Variable | None, extra: int = 0) -> None:
        if variable is None or variable.path in own | set(found) or is_grid_mapping(variable):
            return
        extra = max(extra, variable.dtype is not None and variable.dtype.kind == "S" and bool(variable.ids))
        dims = variable.ids[: len(variable.ids) - extra] if extra else variable.ids
        if variable.dtype is not None and set(dims) <= ids:
            found[variable.path] = variable

    for dim_id in first.ids:
        take(_of_dim(dim_id, catalogue))
    for target in targets:
        for name in [*referred(target, "coordinates"), *inherited.split()]:
            take(resolve(name, target.group, catalogue))
    for variable in _geographic(first, catalogue, found):
        take(variable)
    for variable in list(found.values()):
        for name in referred(variable, "formula_terms"):
            take(resolve(name, variable.group, catalogue))
    for variable in list(found.values()):
        for name in referred(variable, "bounds", "climatology"):
            take(resolve(name, variable.group, catalogue), extra=1)
    return list(found.values())


def _of_dim(dim_id: str, catalogue: Catalogue) -> Variable | None:
    """The coordinate variable of a dim: same name, in the group that defines the dim or below it."""
    same = catalogue.get(dim_id)
    if same is not None and same.ids[:1] == (dim_id,):
        return same
    leaf = posixpath.basename(dim_id)
    return next((v for v in catalogue.values() if v.leaf == leaf and v.ids == (dim_id,)), None)


def _geographic(
    target: Variable, catalogue: Catalogue, found: Mapping[str, Variable]
) -> tuple[Variable, Variable] | tuple[()]:
    """The best latitude and longitude of the file on dims of the target, where what was found has none."""
    if is_latitude(target) or is_longitude(target):
        return ()
    spanning = [v for v in found.values() if v.ids]
    if any(map(is_latitude, spanning)) and any(map(is_longitude, spanning)):
        return ()
    bounds = {n.rsplit("/", 1)[-1] for v in catalogue.values() for n in referred(v, "bounds", "climatology")}
    fitting = [
        v for v in catalogue.values()
        if v.ids and set(v.ids) <= set(target.ids) and v.leaf not in bounds and _says_where(v)
    ]  # fmt: skip
    pairs = [
        (lat, lon)
        for lat in filter(is_latitude, fitting)
        for lon in filter(is_longitude, fitting)
        if lat.ids == lon.ids or len(lat.ids) == len(lon.ids) == 1
    ]
    return max(pairs, key=lambda pair: _closeness(pair, target), default=())


def _says_where(variable: Variable) -> bool:
    """Whether it is the place of the pixels: a satellite's own latitude has the units, not the name."""
    standard = text(variable.attrs, "standard_name").lower()
    return standard in {"latitude", "longitude"} or variable.leaf.lower() in _LAT_NAMES | _LON_NAMES


def _closeness(pair: tuple[Variable, Variable], target: Variable) -> tuple[int, bool, int]:
    lat, lon = pair
    shared = len(posixpath.commonpath(["/" + lat.group, "/" + target.group]))
    return len(lat.ids), lat.group == lon.group, shared


# -- horizontal dims ---------------------------------------------------------------------------------


def _role(variable: Variable) -> str:
    """``"Y"``, ``"X"``, another axis letter, or empty."""
    axis = text(variable.attrs, "axis").upper()
    if axis in {"X", "Y", "Z", "T"}:
        return axis
    standard = text(variable.attrs, "standard_name").lower()
    if standard in _Y_STANDARD or _plain(variable) in _NORTH:
        return "Y"
    if standard in _X_STANDARD or _plain(variable) in _EAST:
        return "X"
    return ""


def horizontal(target: Variable, dims: Sequence[str], coords: Sequence[Variable]) -> tuple[str, ...]:
    """The dims (y, x) of the target, or an empty tuple; ``dims`` are its names for the target's ``ids``."""
    roles: dict[str, str] = {}
    for dim_id, dim in zip(target.ids, dims):
        vectors = [v for v in coords if v.ids == (dim_id,)]
        role = next((r for r in map(_role, vectors) if r), "")
        name = posixpath.basename(dim_id).lower()
        by_name = "Y" if name in _Y_NAMES else "X" if name in _X_NAMES else ""
        roles[dim] = role or by_name
    ys, xs = ([dim for dim in dims if roles[dim] == letter] for letter in "YX")
    if ys and xs:
        return ys[-1], xs[-1]
    names = dict(zip(target.ids, dims))
    sizes = dict(zip(target.ids, target.shape))
    for plane in (v for v in coords if len(v.ids) >= 2 and is_latitude(v) and set(v.ids) <= set(names)):
        wide = [i for i in plane.ids if sizes[i] > 1]
        y, x = wide if len(wide) == 2 else plane.ids[-2:]
        return names[y], names[x]
    return ()


# -- all together ------------------------------------------------------------------------------------


def own_dims(variable: Variable, taken: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of its dims, unique: a dim that is there twice gets a suffix the second time (``x``, ``x_1``)."""
    names: list[str] = []
    for dim in variable.dims:
        names.append(unique(dim, [*names, *taken]))
    return tuple(names)


def dim_names(
    target: Variable, dims: Sequence[str], others: Sequence[Variable], taken: Sequence[str] = ()
) -> dict[str, str]:
    """A name for every dim id: ``dims`` for those of the target, and unique ones for those of the others."""
    names: dict[str, str] = {}
    for dim_id, dim in zip(target.ids, dims):
        names.setdefault(dim_id, dim)
    for variable in others:
        for dim_id, dim in zip(variable.ids, variable.dims):
            if dim_id not in names:
                names[dim_id] = unique(dim, [*dims, *names.values(), *taken])
    return names


def coord_names(coords: Sequence[Variable]) -> dict[str, str]:
    """A name for every coordinate's path: its own, or the path where two groups use the same."""
    leaves = [v.leaf for v in coords]
    return {v.path: v.leaf if leaves.count(v.leaf) == 1 else v.path for v in coords}


def locator(
    coords: Sequence[Variable],
    dims: Mapping[str, str],
    read: Callable[[str], NDArray[Any]],
    spatial: tuple[str, ...],
    crs: Mapping[str, Any] | None,
    labels: Sequence[Coord] = (),
) -> CoordLocator:
    """The locator of a variable, its coordinates as stored."""
    names = coord_names(coords)
    arrays = tuple(Coord(names[v.path], tuple(dims[i] for i in v.ids), read(v.path), v.attrs) for v in coords)
    return CoordLocator((*labels, *arrays), spatial, crs)
