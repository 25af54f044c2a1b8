"""A gate that lets no task be under way while the process forks.

A child has only the thread that forked. What another thread was in the middle of stays so for ever in the child:
a lock of a library that it held, an import, a generator that it was in. So a fork waits until the running tasks
are done, and no new one begins until it is over. Whoever forks from inside a task is not waited for.

Hooks that were registered last run first. A library that takes its own lock before a fork (h5py does) must come
after the gate, or the tasks could never end: so the gate registers itself again once such a library is there.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
import weakref
from types import TracebackType
from typing import Protocol

PATIENCE = 10.0  # seconds that a fork waits for running tasks, before it goes on without a guarantee


class _Mine(threading.local):
    """How many tasks this thread is in: more than one where a task reads a stream of its own."""

    depth = 0
    inner = False
    forking = False


class Gate:
    """Counts the threads that are in a task; ``with GATE:`` is one.

    A thread that is in a task already goes in at once. So do the workers of a stream that a task reads
    (``inner``), while there is a task outside of theirs: it may wait for them, so they must come to their end.
    """

    def __init__(self) -> None:
        self._reset()
        self._mine = _Mine()

        self._later = False

    def _reset(self) -> None:
        # The lock is taken by itself where nobody waits: the condition costs three times that.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._inside = 0
        self._outer = 0  # of these, those that are no inner ones
        self._forks = 0

    @property
    def entered(self) -> bool:
        """Whether this thread is in a task."""
        return self._mine.depth > 0

    def enter(self, inner: bool = False) -> None:
        """Begin a task; waits while the process forks."""
        mine = self._mine
        if not mine.depth:
            self._lock.acquire()  # every sample comes by: `with` takes half as long again
            try:
                while self._forks and not (inner and self._outer):
                    self._changed.wait()
                self._inside += 1
                self._outer += not inner
                mine.inner = inner
            finally:
                self._lock.release()
        mine.depth += 1

    def leave(self) -> None:
        """End it."""
        mine = self._mine
        mine.depth -= 1
        if not self._later and "h5py" in sys.modules:
            self.go_first()
        if not mine.depth:
            self._lock.acquire()
            try:
                self._inside -= 1
                self._outer -= not mine.inner
                if self._forks:
                    self._changed.notify_all()
            finally:
                self._lock.release()

    def __enter__(self) -> None:
        self.enter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def go_first(self) -> None:
        """Register the hooks, again where that was done before; each call after the first finds its work done."""
        self._later = "h5py" in sys.modules
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._before_fork,
                after_in_parent=self._after_fork_in_parent,
                after_in_child=self._after_fork_in_child,
            )

    def _before_fork(self) -> None:
        """Wait until no other thread is in a task, and let none begin."""
        with self._changed:
            self._forks += 1
            if self._mine.forking:
                return
            self._mine.forking = True
            self._count(-1)
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: not self._inside, PATIENCE):
                warnings.warn(
                    f"fork: a task has been running for {PATIENCE:.0f} s and is not waited for any longer; "
                    "the child may hang on a lock that it holds",
                    RuntimeWarning,
                    stacklevel=2,
                )

    def _after_fork_in_parent(self) -> None:
        with self._changed:
            self._forks -= 1
            if self._mine.forking:
                self._mine.forking = False
                self._count(1)
            self._changed.notify_all()

    def _after_fork_in_child(self) -> None:
        self._reset()  # there are no other threads any more
        self._mine.forking = False
        self._count(1)

    def _count(self, sign: int) -> None:
        """Leave out the thread that forks, or count it again."""
        if self.entered:
            self._inside += sign
            self._outer += sign * (not self._mine.inner)


GATE = Gate()
GATE.go_first()


class Renewed(Protocol):
    """What has locks, or threads that compute for it."""

    def renew(self) -> None:
        """Make new locks, and forget what other threads were computing."""


_RENEWED: weakref.WeakSet[Renewed] = weakref.WeakSet()


def renewed_in_children(owner: Renewed) -> None:
    """Have ``owner.renew()`` called in every forked child: a thread of the parent may have held its lock."""
    _RENEWED.add(owner)


def _renew() -> None:
    for owner in list(_RENEWED):
        owner.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
