"""The streams of mlx-data that run, the thread that takes tickets from each, and how they come to their end.

A stream may be let go of anywhere: the garbage collector runs in whichever thread allocates, and so in the midst of
a task of that very stream, or inside a lock. There nobody may wait for threads to end, so another thread does,
unless a stream is closed by name. (The collector does not tell that it runs, but by a callback, which would swallow
the Ctrl-C that comes in it.)
"""

from __future__ import annotations

import _thread
import atexit
import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from time import sleep
from typing import Any, Protocol

_REST = 1e-3  # seconds without a ticket drawn, after which threads that have nothing to do are asleep


class Drawn(Protocol):
    """Where tickets are drawn."""

    draws: int  # how many, so far
    asks: SimpleQueue[bool]  # one for each ticket whose result was taken


class _Thread:
    """A daemon thread whose start no signal can come into, and whose end nobody is told of.

    ``threading.Thread`` waits in its start, where Ctrl-C leaves a thread that nobody knows of; and a weak set is told
    of its end, in the main thread as a rule, which swallows the Ctrl-C that comes just then.
    """

    def __init__(self, target: Callable[[], None]) -> None:
        self._target, self._runs = target, threading.Lock()
        self._started: list[int] = []
        self._runs.acquire()

    def start(self) -> None:
        # One step for the interpreter: a signal comes before it or behind it.
        self._started.extend(map(_thread.start_new_thread, (self._run,), ((),)))

    def _run(self) -> None:
        target = self._target
        del self._target  # it refers to much, and to this thread
        try:
            target()
        finally:
            del target
            self._runs.release()

    @property
    def ended(self) -> bool:
        return bool(self._started) and not self._runs.locked()

    def join(self) -> None:
        """Wait for its end, if it was started."""
        if self._started:
            with self._runs:
                pass


class Tickets:
    """A stream of mlx-data that runs, and the thread that takes its tickets as the board asks for them."""

    def __init__(self, stream: Any, board: Drawn) -> None:
        self._stream, self._board, self._asks = stream, board, board.asks
        self._thread: _Thread | None = None

    def begin(self) -> None:
        """Start the thread; mlx-data begins in the first ``next``."""
        self._asks.put(True)
        self._thread = _Thread(self._run)
        self._thread.start()

    def _run(self) -> None:
        works()
        while self._asks.get():
            self._stream.next()

    def stop(self) -> None:
        """End it, where the board draws no more; waits for the tasks that run. Once more if that was interrupted."""
        self._asks.put(False)
        if self._thread is not None:
            self._thread.join()
        seen, quiet = -1, 0
        while quiet < 2:  # a thread may be held up by the system once, just before it goes to sleep
            quiet = quiet + 1 if seen == self._board.draws else 0
            seen = self._board.draws
            sleep(_REST)
        self._stream = None


class _Mine(threading.local):
    """What this thread is about."""

    works = False  # for a stream
    closing = 0  # a stream by name


_MINE = _Mine()
_ENDINGS: set[_Thread] = set()


def works() -> None:
    """Say that this thread works for a stream."""
    _MINE.works = True


def may_wait() -> bool:
    """Whether this thread may wait for others to come to their end."""
    return _MINE.closing > 0 and not _MINE.works


@contextmanager
def closing() -> Iterator[None]:
    """A block in which a stream is closed by name: it ends when the threads have ended."""
    _MINE.closing += 1
    try:
        yield
    finally:
        _MINE.closing -= 1


def elsewhere(end: Callable[[], None]) -> None:
    """Have something brought to its end by another thread; the exit of the interpreter waits for it."""
    thread = _Thread(end)
    _ENDINGS.difference_update([one for one in list(_ENDINGS) if one.ended])
    _ENDINGS.add(thread)
    thread.start()


def leave_alone(owner: Any) -> None:
    """Keep what belongs to threads of another process from ever being destroyed here."""
    if owner is not None:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ENDINGS.clear)  # those threads are not here


@atexit.register
def _all_ended() -> None:
    for thread in list(_ENDINGS):
        thread.join()
