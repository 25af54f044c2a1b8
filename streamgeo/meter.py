"""Where the time of a stream goes: seconds and counts by name, reported from deep inside.

Code that reads, computes or waits says so with ``with span(name):``. The time is booked to the meter of the
stream that the thread works for at that moment, and to nobody (at the cost of one look) where there is none. Of
nested spans each gets its own time only, so that the parts add up.

Each thread adds to a dict of its own, so nothing is locked, and a fork cannot leave a lock behind.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from time import perf_counter
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")

READ = "read"  # inside a source: the plain readers read and decode in one call of their library
BATCH = "batch"  # stacking samples
SOURCE = "source"  # inside the iterator that a stream was made from
STEP = "step:"  # and the step's label
WAIT = "wait"  # the consumer, for the threads
IDLE = "idle"  # a worker in the middle of a task, for another worker
NEXT = "next"  # all of the consumer's time inside the stream
BUSY = "busy"  # all of the workers' time in tasks
WALL = "wall"  # from the first sample asked for to the last one handed out
QUEUE, ASKED = "queue", "asked"  # finished results found waiting, and how often the consumer looked
HERE = "here"  # results that the consumer computed itself in place of the threads, since that is sooner done
SAMPLES, BATCHES, BYTES = "samples", "batches", "bytes"
HITS, MISSES = "hits", "misses"


class Meter:
    """Sums by name, from any number of threads.

    >>> meter = Meter()
    >>> with meter.running(NEXT):
    ...     count(SAMPLES, 2)
    ...     count(SAMPLES, 3)
    >>> meter.sums()[SAMPLES], meter.sums()[NEXT] > 0
    (5, True)
    """

    def __init__(self) -> None:
        self._parts: dict[int, dict[str, float]] = {}

    def part(self) -> dict[str, float]:
        """The sums of this thread, which no other thread writes."""
        part = self._parts.get(threading.get_ident())
        return self._parts.setdefault(threading.get_ident(), {}) if part is None else part

    def sums(self) -> Counter[str]:
        """The sums of all threads; a name that was never reported is 0."""
        total: Counter[str] = Counter()
        for part in list(self._parts.values()):
            for name, value in part.copy().items():
                total[name] += value  # type: ignore[assignment]
        return total

    def running(self, role: str) -> _Running:
        """A block in which this thread works for this meter, as its consumer (``NEXT``) or a worker (``BUSY``).

        It may be entered again and again, by one thread at a time.
        """
        return _Running(self, role)


class Work:
    """What a thread works for: a meter and its sums, in a role; and the time in spans inside the present one."""

    __slots__ = ("inner", "meter", "role", "sums")

    def __init__(
        self, meter: Meter | None = None, sums: dict[str, float] | None = None, role: str = NEXT
    ) -> None:
        self.meter, self.sums, self.role, self.inner = meter, sums, role, 0.0


class _Here(threading.local):
    """The work of this thread."""

    def __init__(self) -> None:
        self.work = Work()


_HERE = _Here()


class _Span:
    """Books its time, less that of the spans inside it."""

    __slots__ = ("name", "outer", "start", "sums", "work")

    def __init__(self, name: str, work: Work, sums: dict[str, float]) -> None:
        self.name, self.work, self.sums = name, work, sums

    def __enter__(self) -> None:
        self.outer, self.work.inner = self.work.inner, 0.0
        self.start = perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        took = perf_counter() - self.start
        self.sums[self.name] = self.sums.get(self.name, 0.0) + took - self.work.inner
        self.work.inner = self.outer + took


class _Nothing:
    """The span of a thread that works for no stream."""

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


_NOTHING = _Nothing()


class _Running:
    """Sets the meter of this thread, and books all the time in the block under its role."""

    def __init__(self, meter: Meter, role: str) -> None:
        self._meter, self._role = meter, role
        self._thread, self._work = 0, Work()
        self._end: float | None = None

    def __enter__(self) -> None:
        if self._thread != threading.get_ident():
            self._thread = threading.get_ident()
            self._work = Work(self._meter, self._meter.part(), self._role)
        self._work.inner = 0.0
        self._outer = _HERE.work
        _HERE.work = self._work
        self._start = perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        now = perf_counter()
        took = now - self._start
        sums = self._work.sums
        assert sums is not None
        sums[self._role] = sums.get(self._role, 0.0) + took
        if self._role == NEXT:  # also the time since the sample before
            sums[WALL] = sums.get(WALL, 0.0) + now - (self._end or self._start)
            self._end = now
        _HERE.work = self._outer
        self._outer.inner += took


def present() -> Work:
    """What this thread works for now."""
    return _HERE.work


def span(name: str) -> _Span | _Nothing:
    """A block whose time, less that of spans inside it, is booked under ``name``."""
    work = _HERE.work
    return _NOTHING if work.sums is None else _Span(name, work, work.sums)


def step_span(label: str) -> _Span | _Nothing:
    """A block in which a step runs."""
    return span(STEP + label)


def step_ran(label: str) -> None:
    """Note a step all of whose time is booked elsewhere."""
    count(STEP + label, 0.0)


def waiting() -> _Span | _Nothing:
    """A block in which this thread waits for another one."""
    return span(WAIT if _HERE.work.role == NEXT else IDLE)


def count(name: str, value: float = 1) -> None:
    """Add to a sum."""
    sums = _HERE.work.sums
    if sums is not None:
        sums[name] = sums.get(name, 0) + value


def handed_out(samples: int, batches: int, nbytes: int) -> None:
    """Note what the consumer gets: one call for three sums."""
    sums = _HERE.work.sums
    if sums is not None:
        sums[SAMPLES] = sums.get(SAMPLES, 0) + samples
        sums[BYTES] = sums.get(BYTES, 0) + nbytes
        if batches:
            sums[BATCHES] = sums.get(BATCHES, 0) + batches


def current() -> Meter | None:
    """The meter that this thread works for."""
    return _HERE.work.meter


def looked(queued: int) -> None:
    """Note how many results were waiting when the consumer of the stream asked for one."""
    if _HERE.work.role == NEXT:
        count(QUEUE, queued)
        count(ASKED)


def spanned(name: str, items: Iterable[T]) -> Iterator[T]:
    """The items, with the time that each takes to come booked under ``name``."""
    iterator = iter(items)
    end: Any = object()
    while True:
        with span(name):
            item = next(iterator, end)
        if item is end:
            return
        yield item


def worked(meter: Meter | None, items: Iterable[T]) -> Iterator[T]:
    """The items, each drawn as a worker's task of ``meter``, whichever thread asks for it."""
    if meter is None:
        yield from items
        return
    iterator = iter(items)
    end: Any = object()
    while True:
        if current() is meter:  # the consumer draws it itself, on its own time
            item = next(iterator, end)
        else:
            with meter.running(BUSY):
                item = next(iterator, end)
        if item is end:
            return
        yield item
