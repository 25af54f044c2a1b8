"""Open file handles, kept and bounded: one pool for every format.

A handle belongs to the thread and the process that opened it: GDAL datasets may not be shared between threads,
and none may cross a fork. It is taken out of the pool while it is used, so what the pool closes is idle.
"""

from __future__ import annotations

import atexit
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

from streamgeo.errors import OpenError

LIMIT = 64
_Key = tuple[Hashable, ...]


class Pool:
    """At most ``limit`` idle handles; the least recently used is closed first."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._idle: OrderedDict[_Key, tuple[Any, Callable[[Any], None]]] = OrderedDict()

    @contextmanager
    def lease(
        self,
        kind: str,
        path: str,
        open: Callable[[str], Any],
        close: Callable[[Any], None],
        *,
        shared: bool = False,
    ) -> Iterator[Any]:
        """A handle of ``path`` opened by ``open``, from the pool when this thread has one of the same file.

        With ``shared`` any thread's will do: for a library that the caller calls under one lock. A file that
        changed (size or time of modification) is opened anew. After an error inside the block the
        handle is closed and not used again.
        """
        thread = 0 if shared else threading.get_ident()
        mark = identity(path)
        if _SEEN.known is not None and _SEEN.known.get(path, mark) != mark:
            raise OpenError(f"read: {path} changed while it was read; open it again")
        key: _Key = (os.getpid(), thread, kind, path, mark)
        with self._lock:
            entry = self._idle.pop(key, None)
        handle = entry[0] if entry else open(path)
        try:
            yield handle
        except BaseException:
            close(handle)
            raise
        with self._lock:
            self._idle[key] = (handle, close)
            surplus = [self._idle.popitem(last=False)[1] for _ in range(len(self._idle) - self.limit)]
        for old, close_old in surplus:
            close_old(old)

    def close(self) -> None:
        """Close every idle handle."""
        with self._lock:
            idle, self._idle = self._idle, OrderedDict()
        for handle, close in idle.values():
            close(handle)

    def forget(self) -> None:
        """In a forked child: let go of the parent's handles without closing them."""
        _LEFT.append(self._idle)  # dropping the last reference would close them
        self._reset()


_LEFT: list[Any] = []
POOL = Pool()
atexit.register(POOL.close)  # a GDAL dataset that dies with the interpreter writes errors to the terminal
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=POOL.forget)


class _Seen(threading.local):
    """The identities that hold for what this thread is about."""

    known: dict[str, tuple[int, int]] | None = None


_SEEN = _Seen()


@contextmanager
def looking_once() -> Iterator[None]:
    """A block in which this thread asks the system once what a file is now: for patches that are read in one go."""
    before, _SEEN.known = _SEEN.known, {}
    try:
        yield
    finally:
        _SEEN.known = before


def identity(path: str) -> tuple[int, int]:
    """Size and time of modification, by which a changed file is told.

    Raises:
        OpenError: when there is no such file, it is a folder, or it is empty.
    """
    try:
        found = os.stat(path)  # once for every window that is read: a Path costs several times as much
    except FileNotFoundError:
        raise OpenError(f"open: no such file: {path}") from None
    except OSError as error:
        raise OpenError(f"open: {path} cannot be read ({error.strerror or error})") from None
    if stat.S_ISDIR(found.st_mode):
        raise OpenError(f"open: {path} is a folder; give files, or a pattern such as {path.rstrip('/')}/*")
    if found.st_size == 0:
        raise OpenError(f"open: {path} is empty (0 bytes)")
    return found.st_size, found.st_mtime_ns


def current(path: str) -> tuple[int, int]:
    """The same of a file whose header was read before; inside :func:`looking_once` as it was at the first look."""
    known = _SEEN.known
    if known is None:
        return identity(path)
    if path not in known:
        known[path] = identity(path)
    return known[path]
