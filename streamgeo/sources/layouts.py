"""How the numbers of one variable lie in its file: memory-mapped, or in a way that only the library reads.

(In chunks: see :class:`streamgeo.chunked.Chunked`.)
"""

from __future__ import annotations

import mmap
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.chunks import CACHE
from streamgeo.errors import OpenError
from streamgeo.sources.handles import POOL, identity

Array = NDArray[Any]
Identity = tuple[int, int]
Put = Callable[[Array, Array], None]
_RESIDENT = 64 << 20  # bytes of maps that may always stay in the memory of the process
_AROUND = (
    64 << 10
)  # bytes of a file that come into memory with the one that is touched, where they are cached


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

    def read(self, index: tuple[slice, ...], out: Array, put: Put = np.copyto) -> None:
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

        They may take what the cache of chunks leaves of its budget. As long as they do, a map is just copied from:
        letting go costs a fault for every 64 KiB that is read again, as much as copying them.
        """
        global _since
        budget = max(_RESIDENT, CACHE.limit - CACHE.nbytes)
        with _COUNTING:
            _since += min(_spanned(part), self.identity[0])
            if _since < budget:
                return
            _since = 0
            maps = list(_MAPS)
        if sum(one.identity[0] for one in maps) <= budget:
            return  # all of them together are no more
        for one in maps:
            one.bytes.madvise(mmap.MADV_DONTNEED)  # the system keeps them cached as far as it has room


def _spanned(part: Array) -> int:
    """Bytes of the pages on which an array lies, about: rows that are near one another share theirs."""
    nbytes = part.itemsize
    for step, size in sorted((abs(step), size) for step, size in zip(part.strides, part.shape)):
        near = step <= nbytes + _AROUND
        nbytes = (size - 1) * step + nbytes if near else size * (nbytes + _AROUND)
    return nbytes + _AROUND


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


def read_at(path: str, identity: Identity, offset: int, size: int) -> bytes:
    """Bytes of a file, fewer where it ends before; nothing is asked of the system but these.

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
    return os.pread(found.number, size, offset)


current = identity  # what a file's size and time of modification are now
