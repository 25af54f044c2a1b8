"""Whether threads compute results ahead, or the consumer computes each one when it asks for it: by the clock.

A result costs tens of microseconds on its way from one thread to another, and threads that share one interpreter
hinder each other: an array function of a few hundred microseconds is often done sooner without them. It depends on
how much of a task lets go of the interpreter, and on what the consumer does between two results, so it is tried: the
whole time from one result to the next is compared, with threads and without.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from time import perf_counter

_LOOK = 32  # results between two looks at the clock
_TRIAL = 4  # results, so often at most, without threads to see
_TRIALS = 4
_LONG = 2e-3  # seconds from one result to the next, from which on threads are not worth a second thought
_SLOWER = 1.5  # times as slow as with threads, twice in a row: no accident
_RARER = 4  # times as many results until the next trial, when one did not pay


@dataclass
class Pace:
    """``here`` says that the consumer computes the next result itself; ``took`` is told of every result."""

    here: bool = False
    ahead: float = math.inf  # seconds from one result to the next with threads, at best
    gap: int = 2 * _LOOK  # results with threads between two trials
    _trial: list[float] = field(default_factory=list)
    _trying: bool = False
    _slow: int = 0
    _since: int = 0  # results with threads since the last trial
    _count: int = 0
    _until: int = _LOOK
    _began: float = 0.0

    def begin(self) -> None:
        """An epoch begins: it goes on as the one before ended."""
        self._restart(_LOOK)
        self._trying = False
        self._slow = self._since = 0

    def took(self) -> None:
        """One more result was taken."""
        self._count += 1
        if self._count >= self._until:
            self._look()

    def _look(self) -> None:
        now = perf_counter()
        each = (now - self._began) / self._count
        if self._trying:
            self._try(each)
        elif self.here:
            self._slow = self._slow + 1 if each > _SLOWER * self.ahead else 0
            if self._slow == 2:
                self.here, self._slow, self.ahead = False, 0, math.inf
        else:
            self._since += self._count
            self.ahead = min(self.ahead, each)
            if self._since >= self.gap and self.ahead < _LONG:
                self.here = self._trying = True
                self._trial = []
        self._restart(_TRIAL if self._trying else _LOOK)

    def _try(self, each: float) -> None:
        """Of some short trials the best counts, as of the times with threads."""
        self._trial.append(each)
        hopeless = each > 2 * self.ahead and len(self._trial) == 2
        if len(self._trial) < _TRIALS and not hopeless:
            return
        self._trying, self._since = False, 0
        self.here = min(self._trial) < self.ahead
        self.gap = 2 * _LOOK if self.here else self.gap * _RARER

    def _restart(self, until: int) -> None:
        self._count, self._until, self._began = 0, until, perf_counter()
