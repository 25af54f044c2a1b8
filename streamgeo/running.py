"""A stream while it runs: where it stands, what it skipped, and the iterators that are open."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import numpy as np

from streamgeo import meter as m
from streamgeo.engine import Patience, closing
from streamgeo.errors import ChainError, SampleError, WaitError
from streamgeo.links import Joined, Node, Prefetch, Ready, epoch
from streamgeo.plan import Run
from streamgeo.progress import Line
from streamgeo.state import Position, fingerprint, from_dict, to_dict
from streamgeo.stats import Stats, stats_of

Sample = dict[str, Any]
LOG = logging.getLogger("streamgeo")


@dataclass(frozen=True)
class OnError:
    """What a failing sample does: ``"raise"``, or ``"skip"`` up to a limit (a number, or a share) in each epoch."""

    action: str = "raise"
    limit: float = 0

    def exceeded(self, skipped: int, seen: int, ended: bool) -> bool:
        """Whether so many skipped of so many samples of an epoch are too many.

        Before its end a share is that of 100 samples at least: one of the first few says nothing of all.
        """
        if isinstance(self.limit, int):
            return skipped > self.limit
        return skipped > self.limit * (seen if ended else max(seen, 100))


RAISE = OnError()


def policy(action: str, limit: Any) -> OnError:
    """What was asked for, checked.

    Raises:
        ChainError: for another action, or a limit that is neither a whole number nor a share.
    """
    if action not in ("raise", "skip"):
        raise ChainError(f'on_error: {action!r} must be "raise" or "skip"')
    whole = isinstance(limit, int | np.integer) and not isinstance(limit, bool)
    share = isinstance(limit, float | np.floating) and limit <= 1
    if not (whole or share) or not limit >= 0:
        raise ChainError(f"on_error: limit={limit!r} must be a whole number, or a share from 0.0 to 1.0")
    return OnError(action, int(limit) if whole else float(limit))


@dataclass(eq=False)
class Runner:
    """The moving part of a stream, which is otherwise a description.

    ``at`` is where the iterator that was opened last stands; ``resume`` says that the next one goes on there.
    """

    node: Node
    on_error: OnError
    progress: bool = False
    at: Position = field(default_factory=Position)
    resume: bool = False
    next_epoch: int = 0
    skipped: list[SampleError] = field(default_factory=list)
    closed: bool = False

    def __post_init__(self) -> None:
        self._open: weakref.WeakSet[Epoch] = weakref.WeakSet()
        self._marks: list[str] | None = None
        self._meter = m.Meter()

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if not name.startswith("_")}
        return {**state, "at": self._where(), "resume": True}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    def begin(self) -> Epoch:
        """An iterator over the next epoch, or over the rest of the one that was restored."""
        if self.closed:
            raise ChainError("the stream is closed; build it again, or use it in a new `with` block")
        if self.resume:
            start, self.resume = self.at, False
        else:
            start = Position(self.next_epoch)
        self.next_epoch = start.epoch + 1
        self.at = start
        iterator = Epoch(self, start)
        self._open.add(iterator)
        return iterator

    def close(self) -> None:
        """Close every iterator that is open; doing it again changes nothing."""
        self.closed = True
        for iterator in list(self._open):
            iterator.close()

    def stats(self) -> Stats:
        """What it did since it was made in this process."""
        return stats_of(self._meter, threads_of(self.node))

    def line(self, position: int) -> Line | None:
        """A line of progress that starts behind so many samples, if one is wanted."""
        return Line(self.node, self.stats, position) if self.progress else None

    @property
    def meter(self) -> m.Meter:
        """Where its tasks report their time."""
        return self._meter

    def state(self) -> dict[str, Any]:
        """Where it stands, as a dict."""
        return to_dict(self._where(), self.node.seed, self._fingerprint())

    def _where(self) -> Position:
        """Behind the last sample; at the next epoch when nobody reads the one that was begun last."""
        idle = self.at.count == 0 and not self.resume and not self._open
        return Position(self.next_epoch) if idle else self.at

    def look(self) -> None:
        """Look at the files now, so that a state, whenever it is asked for, costs next to nothing."""
        self._fingerprint()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where a state says."""
        self.at, self.resume = from_dict(state, self._fingerprint()), True

    def note(self, errors: Sequence[SampleError]) -> None:
        """List and log what was skipped."""
        for error in errors:
            self.skipped.append(error)
            LOG.warning("skipped %s", error)

    def judge(self, skipped: int, seen: int, ended: bool = False) -> None:
        """Go on, if not too many of the samples of an epoch were skipped.

        Raises:
            ChainError: when the limit is exceeded; the last error is its cause.
        """
        if skipped and self.on_error.exceeded(skipped, seen, ended):
            raise ChainError(
                f"on_error: {skipped} of {seen} samples failed, more than the limit {self.on_error.limit}; "
                f"the last one: {self.skipped[-1]}"
            ) from self.skipped[-1]

    def _fingerprint(self) -> list[str]:
        if self._marks is None:
            self._marks = fingerprint(self.node)
        return self._marks


class Epoch(Iterator[Sample]):
    """One pass over a stream. Several threads may read it; each sample goes to one of them."""

    def __init__(self, runner: Runner, start: Position) -> None:
        self._runner, self._start = runner, start
        self._ready: Generator[Ready, None, None] | None = epoch(
            runner.node, self._run(), start.cursor, start.count
        )
        self._lock = threading.Lock()
        self._patience: Patience[Sample] = Patience(works=not threads_of(runner.node))
        self._closed = False
        self._running = runner.meter.running(m.NEXT)
        self._line = runner.line(start.count)
        self._skipped = self._handed = 0  # samples, since it began

    def _run(self) -> Run:
        skip = self._runner.on_error.action == "skip"
        return Run(self._runner.node.seed, self._start.epoch, skip)

    def __next__(self) -> Sample:
        with self._lock:
            return self._patience.get(self._seen)

    def next(self, timeout: float | None = None) -> Sample:
        """The next sample, waited for no longer than ``timeout`` seconds; None waits as long as it takes.

        Raises:
            WaitError: when it is not there by then. Nothing is lost: the next call gives that sample.
            ChainError: for a timeout that is no number, or below 0.
        """
        if timeout is None:
            return self.__next__()
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:
            raise ChainError(f"next: timeout={timeout!r} must be a number of seconds, 0 or more")
        began = monotonic()
        late = f"next: no sample within {timeout:g} s; it is still being made, and the next call waits for it"
        if not self._lock.acquire(timeout=min(timeout, threading.TIMEOUT_MAX)):
            raise WaitError(late)
        try:
            return self._patience.get(self._seen, max(0.0, timeout - (monotonic() - began)))
        except TimeoutError as error:
            raise WaitError(late) from error
        finally:
            self._lock.release()

    def _seen(self) -> Sample:
        """The next sample that is not skipped."""
        while True:
            try:
                with self._running:
                    sample = self._next()
            except BaseException:
                self._end_line()
                raise
            if sample:
                return sample

    def _end_line(self) -> None:
        if self._line is not None:
            self._line.close()

    def _next(self) -> Sample:
        if self._closed:
            raise ChainError("this iterator was closed with its stream")
        if self._ready is None:
            raise StopIteration
        try:
            ready = next(self._ready)
        except StopIteration:
            self._ready = None
            if self._runner.next_epoch == self._start.epoch + 1:
                self._runner.at = Position(self._runner.next_epoch)
            self._runner.judge(self._skipped, self._handed + self._skipped, ended=True)
            raise
        except BaseException:
            self._ready = None  # a state taken now goes on at the sample that failed
            raise
        self._runner.at = Position(self._start.epoch, ready.position, ready.after)
        self._count(ready)
        if ready.item.skipped:
            self._skipped += len(ready.item.skipped)
            self._runner.note(ready.item.skipped)
            self._runner.judge(self._skipped, self._handed + self._skipped)
        return ready.sample

    def _count(self, ready: Ready) -> None:
        if ready.sample:
            parts = len(ready.item.parts)
            nbytes = 0
            for array in ready.sample.values():
                nbytes += array.nbytes
            m.handed_out(parts or 1, parts > 0, nbytes)
            self._handed += parts or 1
        if self._line is not None:
            self._line.step()

    def close(self) -> None:
        """End it: a later ``next`` raises."""
        self._closed = True
        with self._lock:
            self._patience.close()
            ready, self._ready = self._ready, None
            if ready is not None:
                with closing():
                    ready.close()
                    del ready
            self._end_line()


def threads_of(node: Node) -> int:
    """The threads of all prefetch links of a chain."""
    parents = node.parents if isinstance(node, Joined) else (node.parent,)
    before = sum(threads_of(parent) for parent in parents if parent is not None)
    return before + (node.threads if isinstance(node, Prefetch) else 0)
