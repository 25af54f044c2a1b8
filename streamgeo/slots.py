"""Memory for chunks that are kept: handed out in slots, and used again when their chunk is let go.

Fresh memory costs more than it seems: the system clears it page by page when it is first written to, which takes
as long as a good part of decoding. Slots are cut from large blocks, which come in huge pages, and go round.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_BLOCK = 32 << 20  # bytes that are taken from the system at once
_SMALL = 32 << 10  # what is smaller comes from the allocator, which has its own ways
_LARGE = 256 << 20  # what is larger is rare, and too much to hold on to
_PAGE = 4096
_SCRATCH_LIMIT = 16 << 20  # bytes that a thread holds on to for one use
_SPARE = 128 << 20  # bytes of free slots that are held at most, beside those of the size that is wanted


class _Lent(weakref.ref[Array]):
    """A reference to an array, and the memory that it was given; a ``finalize`` takes several times as long."""

    __slots__ = ("slot",)
    slot: memoryview


class Slots:
    """Arrays whose memory goes round. An array is in use as long as it, or a view of it, is referred to."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._free: dict[int, list[memoryview]] = {}
        self._lent: dict[int, _Lent] = {}
        self._back: deque[_Lent] = deque()  # whose arrays are gone

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An array that is not filled."""
        nbytes = math.prod(shape) * dtype.itemsize
        if not _SMALL <= nbytes <= _LARGE:
            return np.empty(shape, dtype)
        size = -(-nbytes // 64) * 64
        slot = self._take(size)
        # An array of a memoryview is the end of the chain of bases: every view of it keeps it alive.
        array = np.frombuffer(slot, np.uint8, nbytes)
        lent = _Lent(array, self._back.append)  # no function of ours, which a signal could come into
        lent.slot = slot
        self._lent[id(lent)] = lent
        return array[:] if dtype == np.uint8 and len(shape) == 1 else array.view(dtype).reshape(shape)

    def _take(self, size: int) -> memoryview:
        with self._lock:
            self._take_back()
            free = self._free.setdefault(size, [])
            if not free:
                self._shed(size)
                nbytes = _BLOCK if size <= _BLOCK // 4 else size
                block = memoryview(np.empty(nbytes, np.uint8))
                free += [block[at : at + size] for at in range(0, nbytes - size + 1, size)]
            return free.pop()

    def _shed(self, wanted: int) -> None:
        """Let go of free slots of other sizes, when they are many; a block goes with the last of its slots."""
        spare = sum(size * len(free) for size, free in self._free.items())
        if spare > _SPARE:
            for size in [size for size in self._free if size != wanted]:
                del self._free[size]

    def _take_back(self) -> None:
        """Put what came back to the free slots."""
        while self._back:
            lent = self._back.popleft()
            del self._lent[id(lent)]
            if lent.slot.nbytes in self._free:
                self._free[lent.slot.nbytes].append(lent.slot)


SLOTS = Slots()


class _Scratch(threading.local):
    """The bytes that a thread keeps, by use."""

    def __init__(self) -> None:
        self.kept: dict[str, NDArray[np.uint8]] = {}


_SCRATCH = _Scratch()


def scratch(use: str, nbytes: int) -> NDArray[np.uint8]:
    """Bytes of this thread for what is used up before it asks for the same ``use`` again; not filled.

    What is read and decoded goes through such memory: it lies in the caches of the processor, where memory that is
    fresh for each chunk costs as much as a good part of decoding.
    """
    kept = _SCRATCH.kept.get(use)
    if kept is None or len(kept) < nbytes:
        # One more than a power of two: never all of it is lent, by which a part of it is told from a chunk.
        kept = np.empty((1 << max(nbytes - 1, _PAGE - 1).bit_length()) + 1, np.uint8)
        if len(kept) > _SCRATCH_LIMIT + 1:
            return kept[:nbytes]
        _SCRATCH.kept[use] = kept
    return kept[:nbytes]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=SLOTS._reset)
