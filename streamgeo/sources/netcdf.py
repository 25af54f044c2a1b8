"""NetCDF: a variable of a file, or several stacked, as a lazy scene.

The library reads coordinates, and headers and pixels where they are not covered here. netCDF-C is not
thread-safe at all, so every call into it holds one lock; unpacking happens outside of it. All threads share one
handle of a file: HDF5 crashes when a file that holds text is open twice in a process (HDFGroup/hdf5 issue 5359,
Unidata/netcdf-c issue 2510).
"""

from __future__ import annotations

import posixpath
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from streamgeo.cf_packing import DEFAULT_FILLS, Packing, native, packing
from streamgeo.errors import OpenError, StreamGeoError
from streamgeo.netcdf_lock import lock
from streamgeo.scene import Scene
from streamgeo.sources import classic, hdf5_index, netcdf_headers
from streamgeo.sources.cf import Header, Variable, groups_of
from streamgeo.sources.choosing import Words, chosen, same_dtype
from streamgeo.sources.grouped import Array, GroupedScene
from streamgeo.sources.handles import identity
from streamgeo.sources.hdf5_chunks import Layout
from streamgeo.sources.hdf5_heaps import check_heaps

_WORDS = Words("open_netcdf", "variable", "variable")


def open_scene(path: str, *, variable: str | Sequence[str] | None = None, raw: bool = False) -> Scene:
    """Open a variable of a NetCDF file (classic, 64-bit or NetCDF-4) as a scene.

    Args:
        path: the file.
        variable: a name, or a path through groups (``"PRODUCT/methane_mixing_ratio"``). Several of the same
            dims and shape are stacked in a leading dim ``variable``. None takes the only data variable of the
            file: numbers of two or more dims that are no coordinates, bounds, grid mapping or cell measures.
        raw: values as stored. By default they are physical: scale, offset and ``_Unsigned`` applied, float32,
            NaN where netCDF4-python masks (fill and missing values, outside the valid range, default fill).

    Raises:
        OpenError: when the file is missing, damaged or not NetCDF, has no such variable, leaves a choice (the
            message lists the candidates), or the variable holds text, records or a scalar.
    """
    path, file = str(path), Path(path).name
    stamp = identity(path)
    targets, header = chosen(
        netcdf_headers.look(path, stamp), variable, partial(_dataset, path), _find, _scan, file, _WORDS
    )
    if raw:
        same_dtype(targets, file, _WORDS)
    packings = [Packing() if raw else _packing(v, file) for v in targets]
    return NetcdfScene(path, targets, packings, raw, stamp, header)


class NetcdfScene(GroupedScene):
    """One variable of a NetCDF file, or several stacked; see :func:`open_scene`."""

    format = "netcdf"
    library = "netCDF4"

    def _layout(self, target: Variable) -> Layout:
        dtype = target.dtype
        assert dtype is not None
        if classic.header(self._path, self._identity) is not None:
            return classic.layout(self._path, target.path, target.shape, dtype)
        return hdf5_index.layout(self._path, target.path, target.shape, dtype, _pixels)

    def _header(self) -> Header:
        with _dataset(self._path) as dataset:
            return _scan(dataset)

    def _stored(self, path: str, index: tuple[slice, ...] | None = None) -> Array:
        return _pixels(self._path, path, ... if index is None else index)


# -- the library, under its lock ---------------------------------------------------------------------


def _pixels(path: str, name: str, index: Any) -> Array:
    """Pixels of a variable as stored, in native byte order."""
    with _dataset(path) as dataset:
        stored = _locate(dataset, name)[index]
    if isinstance(stored, str):
        return np.array(stored, dtype=object)
    return native(np.asarray(stored))


@contextmanager
def _dataset(path: str) -> Iterator[Any]:
    """An open ``netCDF4.Dataset`` with the lock held; what goes wrong is an OpenError that names the file.

    It is closed at once: netCDF-C crashes when a file with text is open twice in a process, and the user may open it
    too.
    """
    identity(path)  # says what is missing, empty or a folder
    with lock():
        try:
            with closing(_open(path)) as dataset:
                yield dataset
        except (StreamGeoError, MemoryError):
            raise
        except Exception as error:
            raise OpenError(
                f"open_netcdf: {path} cannot be read ({error}); it is damaged, cut short or not NetCDF"
            ) from error


def _open(path: str) -> Any:
    import netCDF4

    classic.check_length(path)
    check_heaps(path)
    dataset = netCDF4.Dataset(path, "r")
    dataset.set_auto_maskandscale(False)
    dataset.set_auto_chartostring(False)
    return dataset


def _locate(dataset: Any, path: str) -> Any:
    group = dataset
    *parents, leaf = path.split("/")
    for name in parents:
        group = group.groups[name]
    return group.variables[leaf]


def _find(dataset: Any, path: str) -> Variable | None:
    try:
        return _describe(_locate(dataset, path), posixpath.dirname(path))
    except KeyError:
        return None


def _packing(variable: Variable, file: str) -> Packing:
    assert variable.dtype is not None
    kind = variable.dtype.str[1:]
    # netCDF4-python takes the default fill for missing, but in bytes only where the file was pre-filled.
    fill = None if kind in ("i1", "u1") and variable.storage["no_fill"] else DEFAULT_FILLS[kind]
    where = f"open_netcdf: variable {variable.path!r} of {file}"
    return packing(
        variable.attrs, variable.dtype, where, default_fill=fill, scales=not variable.storage["enum"]
    )


def _scan(dataset: Any) -> Header:
    variables: dict[str, Variable] = {}
    groups: dict[str, Any] = {}
    unlimited: set[str] = set()
    for group in _walk(dataset):
        path = group.path.strip("/")
        groups[path] = group
        unlimited |= {posixpath.join(path, n) for n, dim in group.dimensions.items() if dim.isunlimited()}
        for leaf, variable in group.variables.items():
            variables[posixpath.join(path, leaf)] = _describe(variable, path)
    attrs = {path: _attributes(groups[path]) for path in groups_of(variables.values())}
    return Header(variables, attrs, frozenset(unlimited), dataset.data_model)


def _walk(group: Any) -> Iterator[Any]:
    yield group
    for child in group.groups.values():
        yield from _walk(child)


def _describe(variable: Any, group: str) -> Variable:
    import netCDF4

    attrs = _attributes(variable)
    datatype = variable.datatype
    dtype: np.dtype[Any] | None = None
    if variable.dtype is str:
        dtype = np.dtype(object)
    elif not isinstance(datatype, (netCDF4.CompoundType, netCDF4.VLType)):
        dtype = np.dtype(variable.dtype)
    if isinstance(datatype, netCDF4.EnumType):  # so that the names of the values outlive the type
        attrs.setdefault("flag_values", np.array(list(datatype.enum_dict.values()), dtype))
        attrs.setdefault("flag_meanings", " ".join(name.replace(" ", "_") for name in datatype.enum_dict))
    ids = tuple(posixpath.join(dim.group().path, dim.name).lstrip("/") for dim in variable.get_dims())
    path = posixpath.join(group, variable.name)
    return Variable(
        path, tuple(variable.dimensions), ids, tuple(variable.shape), dtype, attrs, _storage(variable)
    )


def _storage(variable: Any) -> dict[str, Any]:
    import netCDF4

    filters, chunks = variable.filters() or {}, variable.chunking()
    return {
        "chunks": tuple(chunks) if isinstance(chunks, (list, tuple)) else None,
        "endian": variable.endian(),
        "zlib": bool(filters.get("zlib")),
        "shuffle": bool(filters.get("shuffle")),
        "complevel": int(filters.get("complevel") or 0),
        "no_fill": variable.dtype is not str and _fill_mode(variable) is None,
        "enum": isinstance(variable.datatype, netCDF4.EnumType),
    }


def _fill_mode(variable: Any) -> Any:
    """None where unwritten pixels are not filled; netCDF4-python before 1.7.2 cannot say, so the default counts."""
    return variable.get_fill_value() if hasattr(type(variable), "get_fill_value") else True


def _attributes(owner: Any) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name in owner.ncattrs():
        try:
            out[name] = owner.getncattr(name)
        except UnicodeDecodeError:
            out[name] = owner.getncattr(name, encoding="latin-1")
        except KeyError:  # a user-defined type, which netCDF4-python cannot read
            warnings.warn(
                f"open_netcdf: attribute {name!r} has a type that cannot be read; left out", stacklevel=4
            )
    return out
