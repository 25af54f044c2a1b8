"""Windows of an array that a file stores in chunks: every chunk is decoded once, kept, and copied from there."""

from __future__ import annotations

import math
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import cached_property, lru_cache, partial
from itertools import islice, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo import spill
from streamgeo.chunks import CACHE, otherwise_busy
from streamgeo.kernels import PLAIN, Put
from streamgeo.slots import SLOTS

Array = NDArray[Any]
At = tuple[int, ...]  # number of a chunk along each axis
Box = tuple[tuple[int, int], ...]  # start and stop along each axis
Slices = tuple[slice, ...]
Piece = tuple[At, Slices, Slices]  # of a chunk: its number, where it lies in the chunk, and where in the box
_MOST, HELD = 16, 32 << 20  # chunks, and bytes of chunks, of which pieces are copied at once
_GAP = 64 << 10  # bytes between two chunks that cost no more to read than another request would


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

        It is kept as it is, so nothing else may write to its memory, which should come from
        :data:`~streamgeo.slots.SLOTS`; what is not contiguous, or part of something larger, is copied.

        A chunk that is not stored may come as one value spread by ``np.broadcast_to``: it costs nothing.

        Raises:
            OpenError: when the bytes are damaged; the message names file and chunk.
        """

    def chunk(self, at: At, wait: bool = True) -> Array | None:
        """The same, kept in the process-wide cache, and in a folder where one was set; nobody may write to it.

        None, unless ``wait``, while another thread decodes it.
        """
        value: Array | None = CACHE.get((self.key, at), partial(self._decoded, at), nbytes, wait=wait)
        return value

    def _decoded(self, at: At) -> Array:
        folder = spill.active()
        place = None if folder is None else spill.Slot.of(self, at)
        array = None if folder is None or place is None else folder.load(place)
        if array is None:
            array = self.decode(at)
            if any(array.strides):  # else one value, spread
                array = _apart(array)
                if folder is not None and place is not None:
                    folder.save(place, array)
        array.flags.writeable = False
        return array

    def read(self, box: Box, out: Array, put: Put = PLAIN) -> None:
        """Fill ``out`` (in the axis order of the file) with the values of a box.

        ``put`` copies stored values to the piece of ``out`` that they belong to: scaling and conversion stand there,
        so that each value is touched once.
        """
        pieces = iter(overlaps(box, self.chunks))
        while some := list(islice(pieces, self.at_once)):
            put.each([(out[target], part) for part, target in self.parts(some)])

    def parts(self, pieces: Sequence[Piece]) -> list[tuple[Array, Slices]]:
        """The values of pieces, no more than ``at_once``, and where they go.

        Those that another thread is decoding come last, so that threads share work and do not wait.
        """
        parts, busy, decoded = list[tuple[Array, Slices]](), list[Piece](), list[At]()
        for piece, chunk in zip(pieces, CACHE.found([(self.key, at) for at, _, _ in pieces])):
            at, source, target = piece
            if chunk is not None:
                parts.append((chunk[source], target))
            elif (part := self.part(at, source, wait=False)) is not None:
                parts.append((part, target))
                decoded.append(at)
            else:
                busy.append(piece)
        return [*parts, *self._awaited(busy, decoded)] if busy else parts

    def _awaited(self, busy: Iterable[Piece], decoded: Iterable[At]) -> Iterator[tuple[Array, Slices]]:
        # What has no room in the cache would have to be decoded again if this was put off.
        with nullcontext() if self._kept(decoded) else otherwise_busy(False):
            for at, source, target in busy:
                part = self.part(at, source)
                assert part is not None
                yield part, target

    def _kept(self, chunks: Iterable[At]) -> bool:
        return all(CACHE.holds((self.key, at)) for at in chunks)

    @cached_property
    def chunk_bytes(self) -> int:
        """Memory that a full chunk takes."""
        return math.prod(self.chunks) * self.dtype.itemsize

    @cached_property
    def at_once(self) -> int:
        """How many chunks are held on to while pieces of them are copied."""
        return max(1, min(_MOST, HELD // (self.chunk_bytes + 1)))

    def foresee(self, box: Box) -> bool:
        """Have the system fetch what a box will be decoded from, while something else is decoded; returns at once.

        Chunks that lie close to one another in the file are asked for in one request. False when there are none.
        """
        missing = [at for at, _, _ in overlaps(box, self.chunks) if not CACHE.holds((self.key, at))]
        if not missing or spill.active() is not None:  # what is in the folder is not decoded
            return False
        places = sorted(place for at in missing if (place := self.place(at)) is not None)
        if places:
            ask_for(str(self.key[1]), places)
        return bool(places)

    def place(self, at: At) -> tuple[int, int] | None:
        """Offset and size of a chunk in its file; None where they are not known, or nothing is stored."""
        return None

    def part(self, at: At, source: Slices, wait: bool = True) -> Array | None:
        """A piece of a chunk, to be copied from before another one is asked for; see :meth:`chunk`."""
        chunk = self.chunk(at, wait)
        # The view holds its memory, which may go round otherwise.
        return None if chunk is None else chunk[source]


def overlaps(box: Box, chunks: tuple[int, ...]) -> Iterable[Piece]:
    """The chunks that a box touches; for each the slices in the chunk, and where these lie in the box.

    >>> for at, source, target in overlaps(((3, 6),), (4,)):
    ...     print(at, source, target)
    (0,) (slice(3, 4, None),) (slice(0, 1, None),)
    (1,) (slice(0, 2, None),) (slice(1, 3, None),)
    """
    few = few_pieces(box, chunks)
    return _pieces(box, chunks) if few is None else few


@lru_cache(maxsize=512)
def few_pieces(box: Box, chunks: tuple[int, ...]) -> tuple[Piece, ...] | None:
    """Those of a patch, which is foreseen, then read, and cut out of other scenes; None where there are many."""
    count = math.prod([-(-high // size) - low // size for (low, high), size in zip(box, chunks)])
    return tuple(_pieces(box, chunks)) if count <= _MOST else None


def _pieces(box: Box, chunks: tuple[int, ...]) -> Iterator[Piece]:
    axes = [_along(low, high, size) for (low, high), size in zip(box, chunks)]
    for parts in product(*axes):
        at, source, target = zip(*parts)
        yield at, source, target


def ask_for(path: str, places: Sequence[tuple[int, int]]) -> None:
    """Tell the system which bytes of a file, in ascending order, will be read soon; gaps that cost nothing go along."""
    if not hasattr(os, "posix_fadvise"):  # macOS
        return
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return  # whoever reads it says so
    try:
        first, end = places[0][0], 0
        for offset, size in [*places, (sys.maxsize, 0)]:
            if end and offset > end + _GAP:
                os.posix_fadvise(fd, first, end - first, os.POSIX_FADV_WILLNEED)
                first = offset
            end = max(end, offset + size)
    except OSError:
        pass  # a file system that takes no advice
    finally:
        os.close(fd)


def _along(low: int, high: int, size: int) -> list[tuple[int, slice, slice]]:
    number = low // size
    start = number * size
    if low < high <= start + size:  # most patches lie in one chunk
        return [(number, slice(low - start, high - start), slice(0, high - low))]
    found = []
    while start < high > low:
        first, last = max(low, start), min(high, start + size)
        found.append((number, slice(first - start, last - start), slice(first - low, last - low)))
        number, start = number + 1, start + size
    return found


def _apart(array: Array) -> Array:
    """The same in memory of its own."""
    base = array if array.base is None else array.base
    if array.flags.c_contiguous and isinstance(base, np.ndarray) and base.nbytes == array.nbytes:
        return array
    slot = SLOTS.empty(array.shape, array.dtype)
    np.copyto(slot, array)
    return slot


def nbytes(array: Array) -> int:
    """Memory that an array keeps: one value that is spread over a chunk costs one value."""
    return 64 + int(array.itemsize if not any(array.strides) else array.nbytes)
