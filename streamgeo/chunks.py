"""A cache bounded in bytes in which every value is computed once, however many threads want it."""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from streamgeo.meter import HITS, MISSES, count, waiting


class ByteCache:
    """Least recently used values up to ``limit`` bytes; one computation for several waiters.

    A value larger than the limit is handed on and not kept. A computation that fails is not kept either: the
    waiters try it themselves, so each sees the error with its own traceback.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._reset()
        _ALL.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._running: dict[Hashable, threading.Event] = {}
        self.nbytes = 0

    def get(self, key: Hashable, compute: Callable[[], Any], size: Callable[[Any], int]) -> Any:
        """The value of ``key``, computed by ``compute`` when it is not here; ``size`` gives its bytes."""
        while True:
            with self._lock:
                if key in self._values:
                    self._values.move_to_end(key)
                    count(HITS)
                    return self._values[key][0]
                running = self._running.get(key)
                if running is None:
                    mine = self._running[key] = threading.Event()
                    break
            with waiting():
                running.wait()
        count(MISSES)
        try:
            value = compute()
            self._keep(key, value, size(value))
            return value
        finally:
            with self._lock:
                self._running.pop(key, None)
            mine.set()

    def _keep(self, key: Hashable, value: Any, nbytes: int) -> None:
        if nbytes > self.limit:
            return
        with self._lock:
            self._values[key] = (value, nbytes)
            self.nbytes += nbytes
            while self.nbytes > self.limit:
                _, (_, freed) = self._values.popitem(last=False)
                self.nbytes -= freed

    def clear(self) -> None:
        """Forget all values."""
        with self._lock:
            self._values.clear()
            self.nbytes = 0


_ALL: weakref.WeakSet[ByteCache] = weakref.WeakSet()


def _after_fork() -> None:
    # A thread of the parent may have held a lock or been computing: the child has neither, so it starts afresh.
    for cache in list(_ALL):
        cache._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
