"""Zarr: an array of a store in a folder, or several stacked, as a lazy scene.

zarr-python reads and decodes the chunks, by its own codecs; each is decoded once and kept. Specifications: Zarr 2 and
3 (https://zarr-specs.readthedocs.io); what names the dims and means missing is as xarray has it
(https://docs.xarray.dev/en/stable/internals/zarr-encoding-spec.html).
"""

from __future__ import annotations

import base64
import json
import os
import posixpath
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from streamgeo.cf_packing import Packing, native, packing
from streamgeo.chunked import At, Chunked, nbytes
from streamgeo.chunks import CACHE
from streamgeo.errors import OpenError, StreamGeoError
from streamgeo.optional import optional
from streamgeo.scene import Scene
from streamgeo.sources.cf import Header, Variable, groups_of
from streamgeo.sources.choosing import Words, choose, same_dtype
from streamgeo.sources.grouped import Array, GroupedScene
from streamgeo.sources.layouts import Identity, Refused

_WORDS = Words("open_zarr", "variable", "array")
MARKERS = ("zarr.json", ".zgroup", ".zarray")  # files of which a store has at least one
_ENDIAN = {"<": "little", ">": "big"}
_DIMS = "_ARRAY_DIMENSIONS"
_NO_FILE = (-1, -1)


def open_scene(path: str, *, variable: str | Sequence[str] | None = None, raw: bool = False) -> Scene:
    """Open an array of a Zarr store (version 2 or 3, sharded ones too) in a folder as a scene.

    Dims are those of ``_ARRAY_DIMENSIONS`` or ``dimension_names``, else ``dim_0``, ``dim_1``, ... Coordinates, grid
    mapping, scale and offset are those of the CF attributes, as in NetCDF.

    Args:
        path: the folder of the store.
        variable: a name, or a path through groups. Several of the same dims and shape are stacked in a leading dim
            ``variable``. None takes the only data array of the store: numbers of two or more dims that are no
            coordinates, bounds, grid mapping or cell measures.
        raw: values as stored. By default they are physical: float32, with ``scale_factor``, ``add_offset``,
            ``_FillValue``, ``missing_value``, valid range and ``_Unsigned`` honoured where the attributes are there,
            NaN where missing. In version 2 the fill value of the array means missing, as xarray has it.

    Raises:
        OpenError: when zarr is not installed, the folder is missing, damaged or no Zarr store, has no such array,
            leaves a choice (the message lists the candidates), or the array holds text, records, complex numbers or a
            scalar.
    """
    path, file = str(path), Path(path).name
    with _reading(path):
        header = _scan(_root(path), file)
    found = header.variables
    targets = choose(variable, found.get, lambda: found, file, _WORDS)
    if raw:
        same_dtype(targets, file, _WORDS)
    packings = [Packing() if raw else _packing(v, file) for v in targets]
    return ZarrScene(path, targets, packings, raw, header)


class ZarrScene(GroupedScene):
    """One array of a store, or several stacked; see :func:`open_scene`."""

    format = "netcdf"  # of a copy that is saved where no format is given
    library = "zarr"

    def __init__(
        self, path: str, targets: Sequence[Variable], packings: Sequence[Packing], raw: bool, header: Header
    ) -> None:
        super().__init__(path, targets, packings, raw, _mark(path, targets))
        self._known = header

    def _header(self) -> Header:
        return self._known

    @cached_property
    def _store(self) -> Any:
        with _reading(self._path):
            return _root(self._path)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        state.pop("_store", None)
        return state

    def _stored(self, path: str, index: tuple[slice, ...] | None = None) -> Array:
        with _reading(f"{path!r} of {self._path}"):
            values = np.asarray(_array(self._store, path)[() if index is None else index])
        return _plain(values)

    def _check_unchanged(self) -> None:
        if _mark(self._path, self._targets) != self._identity:
            raise OpenError(f"read: {self.name} has changed since it was opened; open it again")

    def _layout(self, target: Variable) -> Any:
        with _reading(f"{target.path!r} of {self._path}"):
            array = _array(self._store, target.path)
            try:
                chunks = tuple(array.chunks)
            except NotImplementedError:
                return Refused(self._identity, "its chunks are not all of one shape")
            return ZarrChunks(self._path, target.path, self._identity, array, chunks)


class ZarrChunks(Chunked):
    """An array of a store. A chunk whose file has changed is read anew.

    Attributes:
        identity: size and time of modification of what describes the array.
    """

    def __init__(self, path: str, name: str, identity: Identity, array: Any, chunks: tuple[int, ...]) -> None:
        self.path, self.name, self.identity = path, name, identity
        self.shape, self.chunks = array.shape, tuple(max(n, 1) for n in chunks)
        self.dtype = np.dtype(_dtype(array)).newbyteorder("=")
        self.codec = _codec(array)
        self.key = ("zarr", path, name, *identity)
        self._array = array
        # Inner chunks of a shard lie in one file.
        self._files = tuple(getattr(array, "shards", None) or self.chunks)
        self._folder = str(Path(path, array.path))

    def chunk(self, at: At, wait: bool = True) -> Array | None:
        """The values of a chunk, kept as long as its file stays as it is; see :meth:`Chunked.chunk`."""
        stamp = self._stamp(at)
        key = (self.key, stamp, at)
        value: Array | None = CACHE.get(key, partial(self._dated, stamp, at), nbytes, wait=wait)
        return value

    def _dated(self, stamp: Identity, at: At) -> Array:
        twin = copy(self)
        twin.key = (*self.key, *stamp)  # what is kept on disk is found by it
        return twin._decoded(at)

    def _stamp(self, at: At) -> Identity:
        """Size and time of modification of the file of a chunk."""
        where = tuple(i * n // size for i, n, size in zip(at, self.chunks, self._files))
        try:
            found = os.stat(f"{self._folder}/{self._array.metadata.encode_chunk_key(where)}")
        except FileNotFoundError:
            return _NO_FILE
        return found.st_size, found.st_mtime_ns

    def decode(self, at: At) -> Array:
        """The values of one chunk; see :meth:`Chunked.decode`."""
        box = tuple(slice(i * n, min((i + 1) * n, size)) for i, n, size in zip(at, self.chunks, self.shape))
        with _reading(f"chunk {at} of {self.name!r} of {self.path}"):
            return _plain(np.asarray(self._array[box]))


# -- stores ---------------------------------------------------------------------------------------------


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Whatever a damaged store makes zarr raise becomes one OpenError."""
    try:
        yield
    except (StreamGeoError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise OpenError(
            f"open_zarr: {what} cannot be read ({reason}); it is damaged or no Zarr store"
        ) from error


def is_store(path: str) -> bool:
    """Whether a folder holds a Zarr store."""
    folder = Path(path)
    return folder.is_dir() and any((folder / name).is_file() for name in MARKERS)


def _root(path: str) -> Any:
    """The group or array at the root of a store."""
    module = optional("zarr", "zarr", "open_zarr", least=3, error=OpenError)
    if not Path(path).exists():
        raise OpenError(f"open_zarr: no such folder: {path}")
    if not is_store(path):
        raise OpenError(f"open_zarr: {path} is no Zarr store: it has none of {', '.join(MARKERS)}")
    return module.open(path, mode="r")


def _members(root: Any, file: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays and groups by path; the array of a store that has no groups goes by the name of the folder."""
    if not hasattr(root, "members"):
        return {Path(file).stem: root}, {}
    arrays: dict[str, Any] = {}
    groups: dict[str, Any] = {"": root}
    for path, node in sorted(root.members(max_depth=None)):
        (groups if hasattr(node, "members") else arrays)[path] = node
    return arrays, groups


def _array(root: Any, path: str) -> Any:
    return root[path] if hasattr(root, "members") else root


def _mark(path: str, targets: Sequence[Variable]) -> Identity:
    """Size and time of modification of the files that describe arrays: together, and of the last.

    Raises:
        OpenError: when one is gone.
    """
    try:
        found = [os.stat(f"{path}/{target.storage['described']}") for target in targets]
    except OSError as error:
        raise OpenError(f"read: {path} has changed since it was opened ({error}); open it again") from None
    return sum(one.st_size for one in found), max(one.st_mtime_ns for one in found)


# -- header ---------------------------------------------------------------------------------------------


def _scan(root: Any, file: str) -> Header:
    arrays, groups = _members(root, file)
    variables = {path: _describe(path, array, arrays) for path, array in arrays.items()}
    attrs = {
        path: _attributes(groups[path].attrs) for path in groups_of(variables.values()) if path in groups
    }
    return Header(variables, attrs, frozenset(), "NETCDF4")


def _describe(path: str, array: Any, arrays: Mapping[str, Any]) -> Variable:
    version, dtype = array.metadata.zarr_format, _dtype(array)
    attrs = _attributes({key: value for key, value in array.attrs.items() if key != _DIMS})
    named = array.attrs.get(_DIMS) if version == 2 else array.metadata.dimension_names
    given = list(named) if isinstance(named, (list, tuple)) and len(named) == len(array.shape) else []
    dims = tuple(
        str(name) if name else f"dim_{i}" for i, name in enumerate(given or [None] * len(array.shape))
    )
    ids = tuple(
        _dim_id(dim, path, arrays) if given and given[i] else f"{path}#{i}" for i, dim in enumerate(dims)
    )
    _add_fill(attrs, array, dtype, version)
    packed, order = bool(array.compressors), dtype.str[0] if dtype else ""
    storage = {
        "chunks": None, "endian": _ENDIAN.get(order, "native"), "zlib": packed, "shuffle": packed,
        "complevel": 4 if packed else 0, "enum": False, "default_fill": False,
        "described": posixpath.join(array.path, ".zarray" if version == 2 else "zarr.json"),
    }  # fmt: skip
    return Variable(path, dims, ids, tuple(array.shape), dtype, attrs, storage)


def _dim_id(dim: str, path: str, arrays: Mapping[str, Any]) -> str:
    """A dim by the coordinate array of its name in the nearest group; else by the group of the array itself."""
    own = group = posixpath.dirname(path)
    while True:
        if len(getattr(arrays.get(found := posixpath.join(group, dim)), "shape", ())) == 1:
            return found
        if not group:
            return posixpath.join(own, dim)
        group = posixpath.dirname(group)


def _dtype(array: Any) -> np.dtype[Any] | None:
    """The dtype of what is read; times are the integers that they are, text is objects, records are None."""
    dtype = np.dtype(array.dtype)
    if dtype.kind in "Mm":
        return np.dtype(np.int64)
    if dtype.kind in "OTU":
        return np.dtype(object)
    return dtype if dtype.kind in "biufcS" and dtype.subdtype is None else None


def _plain(values: Array) -> Array:
    """Values in the dtype that :func:`_dtype` says, in native byte order."""
    if values.dtype.kind in "Mm":
        return native(values).view(np.int64)
    if values.dtype.kind in "TU":
        return values.astype(object)
    values = native(values)
    return values.view(
        values.dtype.newbyteorder("=")
    )  # zarr names the order even where it is that of the machine


def _add_fill(attrs: dict[str, Any], array: Any, dtype: np.dtype[Any] | None, version: int) -> None:
    """``_FillValue`` as a number of the dtype of the array, and units of times that zarr knows as times."""
    stored = np.dtype(array.dtype)
    if stored.kind == "M":
        unit = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds", "D": "days",
                "h": "hours", "m": "minutes"}.get(np.datetime_data(stored)[0])  # fmt: skip
        if unit:
            attrs.setdefault("units", f"{unit} since 1970-01-01")
            attrs.setdefault("calendar", "proleptic_gregorian")
        attrs["_FillValue"] = np.iinfo(np.int64).min  # NaT
        return
    if dtype is None or dtype.kind not in "biuf":
        return
    if version == 2 and array.fill_value is not None:
        attrs.setdefault("_FillValue", np.asarray(array.fill_value).astype(dtype)[()])
    text = attrs.get("_FillValue")
    if isinstance(text, str):
        try:
            attrs["_FillValue"] = dtype.type(struct.unpack("<d", base64.b64decode(text))[0])
        except (ValueError, struct.error):
            del attrs["_FillValue"]


def _attributes(given: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as NetCDF has them: numbers, text, and lists of either; anything else stays as JSON."""
    return {key: _attribute(value) for key, value in given.items()}


def _attribute(value: Any) -> Any:
    if isinstance(value, bool):
        return np.int8(value)
    if isinstance(value, int):
        return np.int64(value) if -(1 << 63) <= value < 1 << 63 else np.float64(value)
    if isinstance(value, float):
        return np.float64(value)
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value:
        if all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in value):
            return np.array(value)
        if all(isinstance(one, str) for one in value):
            return value
    return json.dumps(value, default=str)


def _packing(variable: Variable, file: str) -> Packing:
    assert variable.dtype is not None
    return packing(variable.attrs, variable.dtype, f"open_zarr: array {variable.path!r} of {file}")


def _codec(array: Any) -> str:
    """How chunks are encoded, for people."""
    names = [_name(codec) for codec in (*array.filters, *array.compressors)]
    shards = getattr(array, "shards", None)
    inside = [f"in shards of {' x '.join(map(str, shards))}"] if shards else []
    return ", ".join([f"zarr {array.metadata.zarr_format}", *(names or ["not compressed"]), *inside])


def _name(codec: Any) -> str:
    return str(getattr(codec, "codec_id", None) or type(codec).__name__.removesuffix("Codec").lower())
