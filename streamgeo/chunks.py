"""A cache bounded in bytes in which every value is computed once, however many threads want it."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from streamgeo.errors import ChainError
from streamgeo.gate import renewed_in_children
from streamgeo.meter import HITS, MISSES, count, waiting


class Busy(BaseException):
    """Another thread computes what is asked for, and this one has something else to do meanwhile.

    Not an ``Exception``: nothing between the cache and who asked has to do with it.
    """


class _Manner(threading.local):
    """Whether this thread waits for others."""

    waits = True


_MANNER = _Manner()


@contextmanager
def otherwise_busy(busy: bool = True) -> Iterator[None]:
    """A block in which :class:`Busy` is raised where this thread would wait for a value; never in a computation."""
    before, _MANNER.waits = _MANNER.waits, not busy
    try:
        yield
    finally:
        _MANNER.waits = before


class ByteCache:
    """Least recently used values up to ``limit`` bytes; one computation for several waiters.

    A value larger than the limit is handed on and not kept. A computation that fails is not kept either: the
    waiters try it themselves, so each sees the error with its own traceback.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self.renew()
        renewed_in_children(self)

    @property
    def limit(self) -> int:
        """Bytes that it keeps at most; when None was given, a quarter of the memory that was free at first use."""
        if self._limit is None:
            self._limit = free_memory() // 4
        return self._limit

    @limit.setter
    def limit(self, value: int) -> None:
        with self._lock:
            self._limit = value
            self._shrink(value)

    def renew(self) -> None:
        """Start afresh, as in a forked child: it has none of the threads that were computing."""
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._running: dict[Hashable, list[threading.Event]] = {}  # who waits for what is being computed
        self.nbytes = 0

    def get(
        self, key: Hashable, compute: Callable[[], Any], size: Callable[[Any], int], *, wait: bool = True
    ) -> Any:
        """The value of ``key``, computed by ``compute`` when it is not here; ``size`` gives its bytes.

        Where another thread is computing it just now, None unless ``wait``.

        Raises:
            Busy: in its stead, inside :func:`otherwise_busy`.
        """
        mine: list[threading.Event] = []
        manner = _MANNER.waits
        try:  # from before anyone can hear of it: a signal may come anywhere
            while True:
                with self._lock:
                    if key in self._values:
                        self._values.move_to_end(key)
                        count(HITS)
                        return self._values[key][0]
                    waiters = self._running.setdefault(key, mine)
                    if waiters is mine:
                        break
                    if not wait:
                        return None
                    if not manner:
                        raise Busy
                    waiters.append(done := threading.Event())
                with waiting():
                    done.wait()
            count(MISSES)
            _MANNER.waits = True
            value = compute()
            self._keep(key, value, size(value))
            return value
        finally:
            _MANNER.waits = manner
            if self._running.get(key) is mine:
                with self._lock:
                    self._running.pop(key, None)
                for done in mine:
                    done.set()

    def found(self, keys: Sequence[Hashable]) -> list[Any]:
        """The values that are here, None for the others."""
        values, out, hits = self._values, list[Any](), 0
        with self._lock:
            for key in keys:
                entry = values.get(key)
                if entry is not None:
                    values.move_to_end(key)
                    hits += 1
                out.append(None if entry is None else entry[0])
        count(HITS, hits)
        return out

    @property
    def room(self) -> int:
        """Bytes that may come before others have to go."""
        return self.limit - self.nbytes

    def holds(self, key: Hashable) -> bool:
        """Whether a value is here, or on its way, just now."""
        return key in self._values or key in self._running

    def _keep(self, key: Hashable, value: Any, nbytes: int) -> None:
        limit = self.limit
        if nbytes > limit:
            return
        with self._lock:
            self._values[key] = (value, nbytes)
            self.nbytes += nbytes
            self._shrink(limit)

    def _shrink(self, limit: int) -> None:
        while self.nbytes > limit and self._values:
            _, (_, freed) = self._values.popitem(last=False)
            self.nbytes -= freed
        if not self._values:  # an interrupt may have come between the two
            self.nbytes = 0

    def clear(self) -> None:
        """Forget all values."""
        with self._lock:
            self._values.clear()
            self.nbytes = 0


def free_memory() -> int:
    """Bytes that are free now, as the system tells it; where it does not tell, half of all memory."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        try:
            free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
        except (ValueError, OSError, AttributeError):
            free = 2 << 30
    return min([free, *_container_limits()])


def _container_limits() -> list[int]:
    """What the control group of the process may still take, if there is one."""
    try:
        most, now = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
    except (OSError, ValueError):  # none, or no limit ("max")
        return []
    return [max(most - now, 64 << 20)]


CACHE = ByteCache()  # decoded chunks, and scenes that had to be computed whole: one budget for the process


def config(*, cache_bytes: int | None = None) -> dict[str, int]:
    """Set what holds for the whole process, and say what is set.

    Args:
        cache_bytes: how much the cache of decoded chunks and computed scenes may hold; 0 keeps nothing. By
            default a quarter of the memory that was free when it was first used.

    Raises:
        ChainError: when it is not a whole number, 0 or more.

    >>> config(cache_bytes=1 << 30)
    {'cache_bytes': 1073741824}
    """
    if cache_bytes is not None:
        if isinstance(cache_bytes, bool) or not isinstance(cache_bytes, int) or cache_bytes < 0:
            raise ChainError(
                f"config: cache_bytes={cache_bytes!r} must be a whole number of bytes, 0 or more"
            )
        CACHE.limit = cache_bytes
    return {"cache_bytes": CACHE.limit}
