"""HDF5: a dataset of a file, or several stacked, as a lazy scene."""

from __future__ import annotations

import posixpath
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from streamgeo.cf_packing import Packing, native, packing
from streamgeo.errors import OpenError, StreamGeoError
from streamgeo.netcdf_lock import lock
from streamgeo.scene import Scene
from streamgeo.sources import hdf5_headers, hdf5_index
from streamgeo.sources.cf import Header, Variable, groups_of
from streamgeo.sources.choosing import Words, chosen, same_dtype
from streamgeo.sources.grouped import Array, GroupedScene
from streamgeo.sources.handles import POOL, identity
from streamgeo.sources.hdf5_chunks import Layout
from streamgeo.sources.hdf5_headers import BARE_DIM, BOOKKEEPING, plain_text
from streamgeo.sources.hdf5_heaps import check_heaps

_WORDS = Words("open_hdf5", "dataset", "dataset")


def open_scene(path: str, *, dataset: str | Sequence[str] | None = None, raw: bool = False) -> Scene:
    """Open a dataset of an HDF5 file as a scene.

    Dims are named by the dimension scales, else by their labels, else ``dim_0``, ``dim_1``, ... Coordinates
    are the scales, and latitude and longitude that lie beside the dataset with dims or shapes that fit.

    Args:
        path: the file.
        dataset: a path through groups (``"level1/win00"``). Several of the same dims and shape are stacked in
            a leading dim ``variable``. None takes the only numeric dataset of two or more dims that is no
            coordinate.
        raw: values as stored. By default they are physical: float32, with ``scale_factor``, ``add_offset``,
            ``_FillValue``, ``missing_value``, valid range and ``_Unsigned`` honoured where the attributes are
            there, NaN where missing. The fill value of the storage layer alone does not mean missing.

    Raises:
        OpenError: when the file is missing, damaged or not HDF5, has no such dataset, leaves a choice (the
            message lists the candidates), or the dataset holds text, records, complex numbers or a scalar.
    """
    path, file = str(path), Path(path).name
    stamp = identity(path)
    targets, header = chosen(
        hdf5_headers.look(path, stamp), dataset, partial(_file, path), _find, _scan, file, _WORDS
    )
    if raw:
        same_dtype(targets, file, _WORDS)
    packings = [Packing() if raw else _packing(v, file) for v in targets]
    return Hdf5Scene(path, targets, packings, raw, stamp, header)


class Hdf5Scene(GroupedScene):
    """One dataset of an HDF5 file, or several stacked; see :func:`open_scene`."""

    format = "hdf5"
    library = "h5py"

    def _layout(self, target: Variable) -> Layout:
        assert target.dtype is not None
        return hdf5_index.layout(self._path, target.path, target.shape, target.dtype, _pixels)

    def _header(self) -> Header:
        with _file(self._path) as handle:
            return _scan(handle)

    def _fitted(self, header: Header) -> Header:
        target = self._targets[0]
        return replace(
            header, variables={path: _borrow_dims(v, target) for path, v in header.variables.items()}
        )

    def _stored(self, path: str, index: tuple[slice, ...] | None = None) -> Array:
        return _pixels(self._path, path, () if index is None else index)


def _pixels(path: str, name: str, index: Any) -> Array:
    """Pixels of a dataset as stored, in native byte order."""
    import h5py

    with _file(path) as handle:
        dataset = handle[name]
        text = h5py.check_string_dtype(dataset.dtype)
        source = dataset.asstr() if text is not None and text.length is None else dataset
        stored = source[index]
    if isinstance(stored, str):
        return np.array(stored, dtype=object)
    return native(np.asarray(stored))


def _packing(variable: Variable, file: str) -> Packing:
    assert variable.dtype is not None
    where = f"open_hdf5: dataset {variable.path!r} of {file}"
    return packing(variable.attrs, variable.dtype, where, scales=not variable.storage["enum"])


@contextmanager
def _file(path: str) -> Iterator[Any]:
    """An open ``h5py.File``; whatever goes wrong is an OpenError that names the file.

    The lock is that of netCDF-C: where both use one HDF5 library, its calls must not overlap. h5py has a lock for
    the whole process anyhow, so nothing is lost.
    """
    with lock():
        try:
            with POOL.lease("hdf5", path, _open, _close, shared=True) as handle:
                yield handle
        except (StreamGeoError, MemoryError):
            raise
        except Exception as error:
            raise OpenError(
                f"open_hdf5: {path} cannot be read ({error}); it is damaged, cut short or not HDF5"
            ) from error


def _open(path: str) -> Any:
    import h5py

    check_heaps(path)
    return h5py.File(path, "r")


def _close(handle: Any) -> None:
    with lock():
        handle.close()


# -- header ---------------------------------------------------------------------------------------------


def _scan(handle: Any) -> Header:
    import h5py

    variables: dict[str, Variable] = {}
    unlimited: set[str] = set()

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not _is_bare_dim(item):
            variables[name] = variable = _describe(item, name)
            growing = [size is None for size in item.maxshape or ()]
            unlimited.update(i for i, grows in zip(variable.ids, growing) if grows)
        elif isinstance(item, h5py.Dataset) and None in (item.maxshape or ()):
            unlimited.add(name)

    handle.visititems(visit)
    attrs = {path: _attributes(handle["/" + path]) for path in groups_of(variables.values())}
    return Header(variables, attrs, frozenset(unlimited), "HDF5")


def _is_bare_dim(dataset: Any) -> bool:
    return str(_plain(dataset.attrs.get("NAME", ""))).startswith(BARE_DIM.decode())


def _find(handle: Any, path: str) -> Variable | None:
    import h5py

    found = handle.get(path) if path else None
    return _describe(found, path) if isinstance(found, h5py.Dataset) else None


def _describe(dataset: Any, path: str) -> Variable:
    import h5py

    dtype, shape = _dtype(dataset), tuple(dataset.shape or ())
    attrs = _attributes(dataset)
    names = h5py.check_enum_dtype(dataset.dtype) if dtype is not None else None
    if names:  # so that the names of the values outlive the type
        attrs.setdefault("flag_values", np.array(list(names.values()), dtype))
        attrs.setdefault("flag_meanings", " ".join(name.replace(" ", "_") for name in names))
    dims, ids = _dims(dataset, path)
    storage = {
        "chunks": dataset.chunks,
        "endian": {"<": "little", ">": "big"}.get(dtype.byteorder if dtype is not None else "", "native"),
        "zlib": dataset.compression == "gzip",
        "shuffle": bool(dataset.shuffle),
        "complevel": int(dataset.compression_opts or 0) if dataset.compression == "gzip" else 0,
        "enum": bool(names),
        "default_fill": False,
    }
    return Variable(path, dims, ids, shape, dtype, attrs, storage)


def _dtype(dataset: Any) -> np.dtype[Any] | None:
    """The dtype, or None for what no plain array can hold: records, references, arrays, variable lengths."""
    import h5py

    try:
        dtype = dataset.dtype
    except TypeError:
        return None
    if h5py.check_string_dtype(dtype) is not None:
        return np.dtype(dtype.str) if dtype.kind == "S" else np.dtype(object)
    plain = dtype.kind in "iufbc" and dtype.subdtype is None
    return np.dtype(dtype.str) if plain else None


def _dims(dataset: Any, path: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and ids of the dims: the path of the scale, or one of its own where there is no scale."""
    rank = len(dataset.shape or ())
    if dataset.is_scale and rank == 1:
        return (posixpath.basename(path),), (path,)
    names, ids = [], []
    for i in range(rank):
        scales = dataset.dims[i]
        scale = scales[0].name if len(scales) else None
        if scale is None:
            names.append(scales.label or f"dim_{i}")
            ids.append(f"{path}#{i}")
        else:
            names.append(posixpath.basename(scale))
            ids.append(scale.strip("/"))
    return tuple(names), tuple(ids)


def _borrow_dims(variable: Variable, target: Variable) -> Variable:
    """Where there are no scales: dims of the target that a dataset of fitting shape must have.

    They must lie side by side and fit in one way only, or nothing is taken.
    """
    if variable.path == target.path or not any("#" in i for i in variable.ids):
        return variable
    count, free = len(variable.shape), len(target.shape) - len(variable.shape)
    fits = [o for o in range(free + 1) if target.shape[o : o + count] == variable.shape]
    if len(fits) != 1:
        return variable
    part = slice(fits[0], fits[0] + count)
    return replace(variable, dims=target.dims[part], ids=target.ids[part])


def _attributes(owner: Any) -> dict[str, Any]:
    import h5py

    out: dict[str, Any] = {}
    for name in owner.attrs:
        if name in BOOKKEEPING:
            continue
        try:
            value = _plain(owner.attrs[name])
            kept = not isinstance(value, (h5py.Reference, h5py.RegionReference)) and (
                not isinstance(value, np.ndarray) or value.dtype.kind in "iufbcSU"
            )
        except (TypeError, OSError, ValueError):
            kept = False
        if kept:
            out[name] = value
        else:
            warnings.warn(
                f"open_hdf5: attribute {name!r} has a type that cannot be kept; left out", stacklevel=2
            )
    return out


def _plain(value: Any) -> Any:
    """An attribute as NetCDF has it: text as str, a single element without its array."""
    import h5py

    if isinstance(value, h5py.Empty):
        return "" if value.dtype.kind in "SO" else np.array([], value.dtype)
    if isinstance(value, bytes):
        return plain_text(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "OSU":
        items = value.ravel().tolist()
        if all(isinstance(item, (str, bytes)) for item in items):
            words = [plain_text(item) if isinstance(item, bytes) else item for item in items]
            return words[0] if len(words) == 1 else words
        return value
    if isinstance(value, np.ndarray) and value.size == 1:
        return native(value).reshape(())[()]
    return native(value) if isinstance(value, np.ndarray) else value
