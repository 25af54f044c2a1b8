"""Whether threads compute results ahead, or the consumer computes each one when it asks for it: by the clock.

A result costs tens of microseconds on its way from one thread to another, and threads that share one interpreter
hinder each other: what goes from array function to array function is often done sooner without them. It depends on
how much of a task lets go of the interpreter, and on what the consumer does between two results, so it is tried: the
whole time from one result to the next is compared, with threads and without. Long results are not tried while threads
work side by side: a try costs a good part of an epoch, and some results take longer than others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from time import perf_counter, process_time

_LOOK, _SHORT_LOOK = 32, 4  # results between two looks at the clock; fewer, where they take long
_WHILE = 10e-3  # seconds between two looks that are enough for the shorter one
_TRIES = 4  # without threads; the last two count, for memory that a thread is new to is slow at first
_TRIED = 400e-6  # seconds of results with threads that a try stands for
_LONG = 50e-3  # seconds from one result to the next from which on trying costs too much
_SHORT = 2e-3  # the same, below which it is tried even where processors are busy: they may be handing over
_PARALLEL = 1.3  # seconds of processor time in a second from which on threads do work side by side
_HOPELESS = 1.5  # times as slow as with threads, twice: no more tries
_BETTER = 0.9  # the same, from which on it is worth leaving the threads
_SLOWER = 1.25  # the same of what was tried and found good, twice in a row
_RARER, _RAREST = 4, 32  # times as many looks until it is tried again, when it did not pay; and at most
_STAY, _LONGEST = 1.0, 60.0  # seconds without threads until they are tried again: twice as long each time


@dataclass
class Pace:
    """``here`` says that the consumer computes the next result itself; :meth:`took` is told of every result.

    Attributes:
        ahead: seconds from one result to the next with threads, at best.
        gap: looks with threads before it is tried without.
        stay: seconds without before threads are tried again: another program may have had a processor.
    """

    here: bool = False
    ahead: float = math.inf
    gap: int = 2
    stay: float = _STAY
    _trying: bool = False
    _tries: list[float] = field(default_factory=list)  # seconds from one result to the next
    _again: bool = False  # an epoch after the first one that ended without threads has begun
    _looks: int = 0  # with threads since the last try
    _stayed: float = 0.0  # seconds without since then
    _slow: int = 0  # looks in a row
    _count: int = 0  # results since the last look
    _until: int = _SHORT_LOOK
    _began: float = 0.0
    _worked: float = 0.0  # processor time when the look began

    def begin(self) -> None:
        """An epoch begins: it goes on as the one before ended; with threads, and once without, it measures anew.

        In a first epoch files are decoded, and what comes at its end cannot be compared with its start.
        """
        if self._trying or not self.here or not self._again:
            self._again = self._again or self.here
            self.here, self.ahead = False, math.inf
        self._trying, self._slow = False, 0
        self._restart(_SHORT_LOOK)
        self._count = -1

    def start(self) -> None:
        """What was taken since the last look does not count."""
        self._restart(self._until)

    def took(self) -> None:
        """One more result was computed, and taken, as ``here`` says."""
        self._count += 1
        if self._count >= self._until:
            self._look()
        elif self._count == 0:  # the first one of an epoch, for which threads had to start
            self._restart(self._until)

    def _look(self) -> None:
        passed = perf_counter() - self._began
        each = passed / self._count
        if self._trying:
            self._tried(each)
        elif passed < _WHILE and self._count < _LOOK:
            self._until = _LOOK
            return
        elif self.here:
            self._stayed += min(each, self.ahead) * self._count  # the consumer may have thought for a while
            self._slow = self._slow + 1 if each > _SLOWER * self.ahead else 0
            if self._slow == 2 or self._stayed >= self.stay:
                self.stay = _STAY if self._slow == 2 else min(2 * self.stay, _LONGEST)
                self.here, self._slow, self.gap, self.ahead = False, 0, 2, math.inf
        else:
            self._looks += 1
            self.ahead = min(self.ahead, each)
            if self._looks >= self.gap and self._worth_a_try(each, passed):
                self.here, self._trying, self._tries = True, True, []
        self._restart(max(1, min(16, int(_TRIED / self.ahead))) if self._trying else _SHORT_LOOK)

    def _worth_a_try(self, each: float, passed: float) -> bool:
        apart = process_time() - self._worked < _PARALLEL * passed
        return each < _SHORT or (apart and self.ahead < _LONG)

    def _tried(self, each: float) -> None:
        self._tries.append(each)
        last = self._tries[-2:]
        if len(self._tries) == _TRIES or (len(last) == 2 and min(last) > _HOPELESS * self.ahead):
            self._trying = False
            self.here = sum(last) < 2 * _BETTER * self.ahead
            if not self.here:
                self.gap, self.stay = min(self.gap * _RARER, _RAREST), _STAY
            self._looks, self._stayed = 0, 0.0

    def _restart(self, until: int) -> None:
        self._count, self._until = 0, until
        self._began, self._worked = perf_counter(), process_time()
