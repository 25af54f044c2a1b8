"""Where the numbers of an HDF5 dataset lie, taken from the HDF5 library once.

The index comes from h5py, also for NetCDF-4, through a handle that is open for that long only and touches nothing
but numbers: what crashes HDF5 when one process has a file open twice is text of variable length, whose type
remembers the handle by which it was first seen (HDFGroup/hdf5 issue 5359).
"""

from __future__ import annotations

import math
import os
from array import array
from typing import Any

import numpy as np

from streamgeo.chunks import CACHE
from streamgeo.errors import OpenError
from streamgeo.netcdf_lock import lock
from streamgeo.sources.handles import identity
from streamgeo.sources.hdf5_chunks import (
    LARGEST,
    ChunkIndex,
    CompactArray,
    Hdf5Chunks,
    Layout,
    Library,
    Stored,
)
from streamgeo.sources.hdf5_filters import Filter, Pipeline
from streamgeo.sources.layouts import Identity, Mapped, Refused, Uncovered, read_at


def layout(path: str, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], library: Library) -> Layout:
    """How a dataset lies in an HDF5 file; kept in the cache, so that it is asked once.

    Args:
        path: the file.
        name: the dataset, by its path through groups.
        shape, dtype: as its scene has them.
        library: reads what cannot be read here.

    Raises:
        OpenError: when the file is gone, or the index damaged in a way of which the library dies.
    """
    stamp = identity(path)

    def find() -> Layout:
        try:
            with lock():
                return _find(path, name, stamp, shape, dtype, library)
        except Uncovered as reason:
            return Refused(stamp, str(reason))
        except (MemoryError, OpenError):
            raise
        # What h5py makes of a damaged file; the reference library has the last word.
        except Exception as error:
            return Refused(stamp, f"h5py finds no index ({error})")

    key = ("layout", path, *stamp, name, shape, dtype.str)
    found: Layout = CACHE.get(key, find, lambda value: getattr(value, "nbytes", 512))
    return found


def _find(
    path: str, name: str, stamp: Identity, shape: tuple[int, ...], dtype: np.dtype[Any], library: Library
) -> Layout:
    import h5py

    file = h5py.h5f.open(os.fsencode(path), h5py.h5f.ACC_RDONLY)
    try:
        dataset = _dataset(file, name)
        plist = dataset.get_create_plist()
        if h5py.h5f.get_name(dataset) != h5py.h5f.get_name(file) or plist.get_external_count():
            raise Uncovered("its numbers lie in another file")
        stored = _stored(dataset, plist)
        if stored.dtype.newbyteorder("=") != dtype.newbyteorder("="):
            raise Uncovered(f"it holds {stored.dtype} and the library gives {dtype}")
        if stored.shape != shape:
            raise Uncovered(f"{stored.shape} of {shape} are stored")
        kind = plist.get_layout()
        if kind == h5py.h5d.CONTIGUOUS:
            return _contiguous(path, name, stamp, stored, dataset, library)
        if kind == h5py.h5d.COMPACT:
            return CompactArray(path, name, stamp, stored, _empty(stored), library)
        if kind != h5py.h5d.CHUNKED:
            raise Uncovered("it is a virtual dataset")
        index = _chunk_index(path, stamp, file, dataset, stored)
        return Hdf5Chunks(path, name, stamp, stored, index, library)
    finally:
        file.close()


def _dataset(file: Any, name: str) -> Any:
    """The dataset; netCDF-C gives a variable another name when a dim that it is not about has its own."""
    import h5py

    group, _, leaf = name.rpartition("/")
    inside = h5py.h5g.open(file, group.encode() or b"/")
    renamed = b"_nc4_non_coord_" + leaf.encode()
    return h5py.h5d.open(inside, renamed if renamed in inside else leaf.encode())


def _stored(dataset: Any, plist: Any) -> Stored:
    import h5py

    shape, dtype = tuple(dataset.shape), _dtype(dataset.get_type())
    if plist.get_layout() != h5py.h5d.CHUNKED:
        whole = tuple(max(size, 1) for size in shape)
        return Stored(shape, whole, dtype, _fill(plist, dtype), Pipeline([]))
    chunks = tuple(plist.get_chunk())
    if math.prod(chunks) * dtype.itemsize >= LARGEST:
        raise Uncovered(f"chunks of {chunks} are larger than 2 GiB")
    filters = [plist.get_filter(i) for i in range(plist.get_nfilters())]
    pipeline = Pipeline([Filter(code, tuple(values)) for code, _, values, _ in filters])
    return Stored(shape, chunks, dtype, _fill(plist, dtype), pipeline)


def _dtype(kind: Any) -> np.dtype[Any]:
    """The dtype of numbers that lie in the file just as numpy has them, in either byte order."""
    import h5py

    number = kind.get_super() if kind.get_class() == h5py.h5t.ENUM else kind
    if number.get_class() not in (h5py.h5t.INTEGER, h5py.h5t.FLOAT):
        raise Uncovered("it holds no plain numbers")
    dtype: np.dtype[Any] = number.dtype
    same = [
        h5py.h5t.py_create(dtype),
        *([h5py.h5t.STD_I8BE, h5py.h5t.STD_U8BE] if dtype.itemsize == 1 else []),
    ]
    if dtype.itemsize > 8 or not any(map(number.equal, same)):
        raise Uncovered("its numbers have another form than numpy's")
    return np.dtype(bool) if kind.dtype.kind == "b" else np.dtype(dtype.str)


def _fill(plist: Any, dtype: np.dtype[Any]) -> Any:
    """What pixels hold that were never written: zero also where the file says that they hold anything."""
    import h5py

    fill = np.zeros((), dtype.newbyteorder("="))
    undefined = plist.fill_value_defined() == h5py.h5d.FILL_VALUE_UNDEFINED
    if not undefined and plist.get_fill_time() != h5py.h5d.FILL_TIME_NEVER:
        plist.get_fill_value(fill)
    return fill[()]


def _empty(stored: Stored) -> ChunkIndex:
    return ChunkIndex(array("Q"), stored.shape, stored.chunks)


def _contiguous(
    path: str, name: str, stamp: Identity, stored: Stored, dataset: Any, library: Library
) -> Layout:
    import h5py

    offset, itemsize = dataset.get_offset(), stored.dtype.itemsize
    before = h5py.h5i.get_file_id(dataset).get_create_plist().get_userblock()
    if offset is None or offset == before - 1:  # never written: no address, to which a user block was added
        return Hdf5Chunks(path, name, stamp, stored, _empty(stored), library)
    if dataset.get_storage_size() != math.prod(stored.shape) * itemsize:
        raise Uncovered(f"its layout says {dataset.get_storage_size()} bytes")
    if offset + math.prod(stored.shape) * itemsize > stamp[0]:
        raise Uncovered(f"it reaches beyond the end of the file at {stamp[0]} bytes")
    strides = tuple(itemsize * math.prod(stored.shape[i + 1 :]) for i in range(len(stored.shape)))
    return Mapped(path, stamp, offset, stored.shape, strides, stored.dtype)


def _chunk_index(path: str, stamp: Identity, file: Any, dataset: Any, stored: Stored) -> ChunkIndex:
    import h5py

    if not hasattr(dataset, "chunk_iter"):
        raise Uncovered("this h5py cannot list chunks")
    rows = array("Q")

    def take(info: Any) -> None:
        rows.extend((*info.chunk_offset, info.filter_mask, info.byte_offset, info.size))

    dataset.chunk_iter(take)
    width = len(stored.chunks) + 3
    if (
        0 in rows[width - 1 :: width]
    ):  # the library checks the sum of bytes that are not there, and dies of it
        raise OpenError(f"read: the index of a dataset of {path} is damaged: it lists chunks of 0 bytes")
    if rows:
        _check(path, stamp, file, dataset, rows, width)
    most = dataset.get_space().get_simple_extent_dims(True)
    endless = [axis for axis, size in enumerate(most) if size == h5py.h5s.UNLIMITED]
    return ChunkIndex(rows, stored.shape, stored.chunks, endless[0] if len(endless) == 1 else 0)


def _check(path: str, stamp: Identity, file: Any, dataset: Any, rows: array[int], width: int) -> None:
    """Hold the last row against what else the library says: releases differ in what they list.

    Some give the place in chunks and not in pixels; some leave a user block before the file out of the offset,
    which is added here.
    """
    start, offset, size = tuple(rows[-width:-3]), rows[-2], rows[-1]
    before, found = file.get_create_plist().get_userblock(), dataset.get_chunk_info_by_coord(start)
    if size != found.size or abs(found.byte_offset - offset) not in (0, before) or size >= LARGEST:
        raise Uncovered("this HDF5 lists other chunks than it finds")
    if not before:
        return
    _, wanted = dataset.read_direct_chunk(start)
    shifts = [
        shift for shift in (0, before) if read_at(path, stamp, offset + shift, size).tobytes() == wanted
    ]
    if not shifts:
        raise Uncovered("this HDF5 lists other chunks than it finds")
    for i in range(width - 2, len(rows), width):
        rows[i] += shifts[0]
