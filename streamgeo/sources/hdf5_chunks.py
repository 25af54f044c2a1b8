"""Datasets of HDF5 files in chunks: read and decoded without the HDF5 library, by any number of threads.

h5py's lock is one for the process and netCDF-C is not thread-safe at all, so reads through them never overlap.
"""

from __future__ import annotations

import math
import warnings
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from streamgeo.chunked import At, Chunked
from streamgeo.errors import OpenError
from streamgeo.sources.handles import identity
from streamgeo.sources.hdf5_filters import Damaged, Pipeline, Short
from streamgeo.sources.layouts import (
    Array,
    Bytes,
    Identity,
    Mapped,
    Refused,
    Uncovered,
    changed,
    read_at,
)

Library = Callable[
    [str, str, tuple[slice, ...]], Array
]  # file, variable, box: its pixels, in native byte order
LARGEST = 1 << 31  # bytes of a chunk, stored or decoded


class ChunkIndex:
    """Where the chunks of a dataset lie: 24 bytes for each that is stored.

    Args:
        rows: for each chunk the first pixel along every axis, filter mask, offset and size in the file.
        shape: of the dataset.
        chunks: shape of a chunk.
        grows: the axis along which the dataset can grow without end, if one alone and not the first; else 0.

    Raises:
        Uncovered: when the rows are not those of a sound file.
    """

    def __init__(self, rows: array[int], shape: Sequence[int], chunks: Sequence[int], grows: int = 0) -> None:
        rank = len(chunks)
        table = np.frombuffer(rows.tobytes(), np.uint64).reshape(-1, rank + 3)
        self._grid = tuple(-(-size // chunk) for size, chunk in zip(shape, chunks))
        self._total = math.prod(self._grid)
        if self._total >= 1 << 63:
            raise Uncovered(f"{self._grid} chunks are more than can be counted")
        at, rest = np.divmod(table[:, :rank], np.array(chunks, np.uint64))
        if rest.any() or np.any(at >= np.array(self._grid, np.uint64)):
            raise Uncovered("the HDF5 library lists chunks outside of it")
        # From an extensible array HDF5 (2.0 and before) lists all chunks as if they lay along that axis.
        if len(at) and math.prod(self._grid[:grows]) > 1 and not at[:, :grows].any():
            raise Uncovered(
                f"the HDF5 library may list its chunks wrongly, as it can grow along axis {grows}"
            )
        numbers = np.zeros(len(at), np.int64)
        for axis, count in enumerate(self._grid):
            numbers = numbers * count + at[:, axis].astype(np.int64)
        if not np.all(numbers[1:] > numbers[:-1]):
            raise Uncovered("the HDF5 library lists its chunks out of order")
        self._numbers = numbers
        masks, self._offsets, self._sizes = (table[:, rank + i].copy() for i in range(3))
        self._masks = masks if masks.any() else None

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        arrays = (self._numbers, self._offsets, self._sizes, self._masks)
        return 512 + sum(int(one.nbytes) for one in arrays if one is not None)

    def find(self, at: At) -> tuple[int, int, int] | None:
        """Offset, size and filter mask of a chunk; None when it is not stored."""
        number = 0
        for i, count in zip(at, self._grid):
            number = number * count + i
        place = number
        if len(self._numbers) < self._total:
            place = int(np.searchsorted(self._numbers, number))
            if place == len(self._numbers) or self._numbers[place] != number:
                return None
        mask = 0 if self._masks is None else int(self._masks[place])
        return int(self._offsets[place]), int(self._sizes[place]), mask


@dataclass(frozen=True)
class Stored:
    """What the header says of a dataset in chunks.

    Attributes:
        dtype: in the byte order of the file.
        fill: what a pixel holds that was never written.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    fill: Any
    pipeline: Pipeline


class Hdf5Chunks(Chunked):
    """A dataset in chunks.

    Attributes:
        identity: size and time of modification of the file that the index belongs to.
        nbytes: memory that the index takes.
    """

    def __init__(
        self, path: str, name: str, stamp: Identity, stored: Stored, index: ChunkIndex, library: Library
    ) -> None:
        self.path, self.name, self.identity = path, name, stamp
        self.shape, self.chunks = stored.shape, stored.chunks
        self.dtype = stored.dtype.newbyteorder("=")
        self.codec = str(stored.pipeline)
        self.key = ("hdf5", path, *stamp, name, self.dtype.str)
        self.nbytes = index.nbytes
        self._stored, self._index, self._library = stored, index, library
        self._size = math.prod(self.chunks) * self.dtype.itemsize
        self._warned = False

    def decode(self, at: At) -> Array:
        """The values of one chunk; see :meth:`Chunked.decode`."""
        place = self._index.find(at)
        if place is None:
            return np.broadcast_to(self._stored.fill, self.chunks)
        offset, size, mask = place
        if self._may_be_plain(at):
            return self._by_library(at)
        try:
            return self._values(self._bytes(offset, size), mask)
        except Damaged as damage:
            return self._by_library(at, damage)

    def place(self, at: At) -> tuple[int, int] | None:
        """Where its bytes lie; see :meth:`Chunked.place`."""
        found = self._index.find(at)
        return None if found is None or found[0] + found[1] > self.identity[0] else found[:2]

    def _may_be_plain(self, at: At) -> bool:
        """Whether it lies at the edge, where a file may leave filters out, and nothing would tell that it did."""
        pipeline = self._stored.pipeline
        if not pipeline.filters or pipeline.notices:
            return False
        return any((i + 1) * c > n for i, c, n in zip(at, self.chunks, self.shape))

    def _values(self, data: Bytes, mask: int) -> Array:
        values = self._stored.pipeline.decode(data, mask, self._size).view(self._stored.dtype)
        if not values.dtype.isnative:
            values = values.byteswap().view(self.dtype)
        return values.reshape(self.chunks)

    def _bytes(self, offset: int, size: int) -> Bytes:
        if size >= LARGEST or offset + size > self.identity[0]:
            raise Damaged(f"{size} bytes at {offset} of a file of {self.identity[0]}")
        data = read_at(self.path, self.identity, offset, size)
        if len(data) != size:
            raise Damaged(f"{len(data)} bytes of {size} at {offset}")
        return data

    def _by_library(self, at: At, damage: Damaged | None = None) -> Array:
        """What the reference library gives for a chunk that cannot be read here."""
        box = tuple(slice(i * c, min((i + 1) * c, n)) for i, c, n in zip(at, self.chunks, self.shape))
        what = f"chunk {at} of {self.name!r} of {self.path}"
        if isinstance(damage, Short):
            raise OpenError(f"read: {what} is damaged: {damage}")
        try:
            values = self._library(self.path, self.name, box)
        except OpenError as error:
            reason = f" ({damage})" if damage else ""
            raise OpenError(f"read: {what} is damaged{reason}: {error}") from error
        if identity(self.path) != self.identity:
            raise changed(self.path)
        if damage and not self._warned:
            self._warned = True
            warnings.warn(
                f"read: {what} is not what its filters write ({damage}); the library reads it", stacklevel=2
            )
        return np.asarray(values, self.dtype)


class CompactArray(Hdf5Chunks):
    """A dataset that lies in its header, which holds 64 KiB at most: read once by the library, and kept."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.codec = "in its header, read once by the library"

    def decode(self, at: At) -> Array:
        """All of it."""
        return self._by_library(at)


Layout = Hdf5Chunks | Mapped | Refused
