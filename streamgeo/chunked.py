"""Windows of an array that a file stores in chunks: every chunk is decoded once, kept, and copied from there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo import spill
from streamgeo.chunks import CACHE
from streamgeo.slots import SLOTS

Array = NDArray[Any]
At = tuple[int, ...]  # number of a chunk along each axis
Box = tuple[tuple[int, int], ...]  # start and stop along each axis
Slices = tuple[slice, ...]
Put = Callable[[Array, Array], None]  # destination, source


class Chunked(ABC):
    """An array as a file stores it: known from its header, decoded chunk by chunk, by any thread.

    Attributes:
        key: what names it in the cache: kind, path, and what else tells it; a file that has changed must give
            another one.
        shape: of the whole array, in the axis order in which the file has it.
        chunks: shape of a full chunk.
        dtype: of the stored values, in native byte order.
        codec: how chunks are encoded, for people: ``"deflate, predictor 2"``.
    """

    key: tuple[Hashable, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    codec: str

    @abstractmethod
    def decode(self, at: At) -> Array:
        """The values of one chunk: full size, or cut to the array at its edge; of any strides, free of the GIL.

        What is kept is a copy of it.

        A chunk that is not stored may come as one value spread by ``np.broadcast_to``: it costs nothing.

        Raises:
            OpenError: when the bytes are damaged; the message names file and chunk.
        """

    def chunk(self, at: At) -> Array:
        """The same, kept in the process-wide cache, and in a folder where one was set; nobody may write to it."""
        value: Array = CACHE.get((self.key, at), partial(self._decoded, at), nbytes)
        return value

    def _decoded(self, at: At) -> Array:
        folder = spill.active()
        place = None if folder is None else spill.Slot.of(self, at)
        array = None if folder is None or place is None else folder.load(place)
        if array is None:
            array = self.decode(at)
            if any(array.strides):  # else one value, spread
                slot = SLOTS.empty(array.shape, array.dtype)
                np.copyto(slot, array)
                array = slot
                if folder is not None and place is not None:
                    folder.save(place, array)
        array.flags.writeable = False
        return array

    def read(self, box: Box, out: Array, put: Put = np.copyto) -> None:
        """Fill ``out`` (in the axis order of the file) with the values of a box.

        ``put`` copies from a piece of a chunk to the piece of ``out`` that it belongs to: scaling and conversion
        stand there, so that each value is touched once.
        """
        for at, source, target in overlaps(box, self.chunks):
            chunk = self.chunk(at)  # held while it is copied from: its memory may go round otherwise
            put(out[target], chunk[source])


def overlaps(box: Box, chunks: tuple[int, ...]) -> Iterator[tuple[At, Slices, Slices]]:
    """The chunks that a box touches; for each the slices in the chunk, and where these lie in the box.

    >>> for at, source, target in overlaps(((3, 6),), (4,)):
    ...     print(at, source, target)
    (0,) (slice(3, 4, None),) (slice(0, 1, None),)
    (1,) (slice(0, 2, None),) (slice(1, 3, None),)
    """
    axes = [list(_along(low, high, size)) for (low, high), size in zip(box, chunks)]
    for parts in product(*axes):
        at, source, target = zip(*parts)
        yield at, source, target


def _along(low: int, high: int, size: int) -> Iterator[tuple[int, slice, slice]]:
    for number in range(low // size, -(-high // size) if high > low else low // size):
        start = number * size
        first, last = max(low, start), min(high, start + size)
        yield number, slice(first - start, last - start), slice(first - low, last - low)


def nbytes(array: Array) -> int:
    """Memory that an array keeps: one value that is spread over a chunk costs one value."""
    return 64 + int(array.itemsize if not any(array.strides) else array.nbytes)
