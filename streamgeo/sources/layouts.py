"""How the numbers of one variable lie in its file: memory-mapped, or in a way that only the library reads.

(In chunks: see :class:`streamgeo.chunked.Chunked`.)
"""

from __future__ import annotations

import mmap
import os
import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.chunks import CACHE
from streamgeo.errors import OpenError
from streamgeo.kernels import PLAIN, Put
from streamgeo.slots import scratch
from streamgeo.sources.handles import POOL

Array = NDArray[Any]
Bytes = NDArray[np.uint8]
Identity = tuple[int, int]
_RESIDENT = 64 << 20  # bytes of maps that may stay in the memory of the process, whatever the budget


class Uncovered(Exception):
    """A layout that is not read here; the message is the reason, for people."""


@dataclass(frozen=True)
class Refused:
    """Numbers that only the reference library reads."""

    identity: Identity
    reason: str


@dataclass(frozen=True)
class Mapped:
    """Numbers that lie in the file as they are, at regular distances.

    Attributes:
        path, identity: the file, and size and time of modification that it must have.
        offset, strides: where the first number begins, and bytes from one to the next along each axis.
        dtype: in the byte order of the file.
    """

    path: str
    identity: Identity
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]

    def read(self, index: tuple[slice, ...], out: Array, put: Put = PLAIN) -> None:
        """Put the numbers at ``index`` into ``out``.

        Raises:
            OpenError: when the file has changed since its header was read.
        """
        with POOL.lease("map", self.path, _map, _let_go) as mapped:
            if mapped.identity != self.identity:
                raise changed(self.path)
            part = np.ndarray(self.shape, self.dtype, mapped.bytes, self.offset, self.strides)[index]
            put(out, part)
            mapped.touched(part)


@dataclass(eq=False)
class _Map:
    identity: Identity
    bytes: mmap.mmap

    def touched(self, part: Array) -> None:
        """Count what was read: pages of a map count as memory of the process until they are let go.

        They may take what the cache of chunks leaves free of its budget: mapping them again costs as much as copying.
        """
        global _since
        with _COUNTING:
            _since += min(brought(part), self.identity[0])
            if _since < _RESIDENT:
                return
            most = max(_RESIDENT, CACHE.limit - CACHE.nbytes)
            if _since < most or sum(one.identity[0] for one in _MAPS) <= most:
                return
            _since = 0
            maps = list(_MAPS)
        for one in maps:
            one.bytes.madvise(mmap.MADV_DONTNEED)  # the system keeps them cached as far as it has room


def brought(part: Array) -> int:
    """Bytes of a file that reading this part of it maps at most: a page comes with its neighbours, up to 64 KiB.

    >>> brought(np.zeros((4, 1 << 20), np.uint8)[:, :100]) == 4 * (100 + (64 << 10))
    True
    """
    reach, around = part.itemsize, 64 << 10
    for step, size in sorted((abs(step), size) for step, size in zip(part.strides, part.shape)):
        if step <= reach + around:  # what lies between is brought along
            reach += (size - 1) * step
        else:
            reach = size * (reach + around) - around
    return reach + around


_MAPS: weakref.WeakSet[_Map] = weakref.WeakSet()
_COUNTING = threading.Lock()
_since = 0


def _after_fork() -> None:
    global _COUNTING
    _COUNTING = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _map(path: str) -> _Map:
    fd = os.open(path, os.O_RDONLY)
    try:
        stat = os.fstat(fd)
        mapped = _Map((stat.st_size, stat.st_mtime_ns), mmap.mmap(fd, 0, access=mmap.ACCESS_READ))
    finally:
        os.close(fd)
    with _COUNTING:
        _MAPS.add(mapped)
    return mapped


def _let_go(mapped: _Map) -> None:
    """The mapping ends with the last reference to it."""


def changed(path: str) -> OpenError:
    """The error of a file that is written to while it is read."""
    return OpenError(f"read: {path} changed while it was read; open it again")


def open_bytes(path: str) -> int:
    """A file descriptor to read from."""
    return os.open(path, os.O_RDONLY)


class _Descriptor:
    """A file that is open for reading, until the last reference goes."""

    def __init__(self, path: str) -> None:
        self.number = open_bytes(path)
        stat = os.fstat(self.number)
        self.identity = stat.st_size, stat.st_mtime_ns

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class _Descriptors(threading.local):
    """The files that a thread read from last: they close with the thread, and a fork may use them on."""

    def __init__(self) -> None:
        self.open: OrderedDict[tuple[str, Identity], _Descriptor] = OrderedDict()


_DESCRIPTORS = _Descriptors()
_MOST_OPEN = 16  # a thread


def read_at(path: str, identity: Identity, offset: int, size: int) -> Bytes:
    """Bytes of a file, fewer where it ends before, in scratch memory of this thread.

    Raises:
        OpenError: as :func:`read_into` says.
    """
    data = scratch("stored", size)
    return data[: read_into(path, identity, offset, data)]


def read_into(path: str, identity: Identity, offset: int, data: Bytes) -> int:
    """Fill ``data`` from a file; how many bytes there were. Nothing is asked of the system but these.

    The caller has just seen that the file is as it was: one of the same name that has taken its place is not
    read, since the old one stays open.

    Raises:
        OpenError: when the file is not the one of this identity any more.
    """
    kept = _DESCRIPTORS.open
    key = (path, identity)
    found = kept.pop(key, None)
    if found is None:
        try:
            found = _Descriptor(path)
        except OSError as error:
            raise changed(path) from error
        if found.identity != identity:
            raise changed(path)
        while len(kept) >= _MOST_OPEN:
            kept.popitem(last=False)
    kept[key] = found
    return os.preadv(found.number, [data.data], offset)
