"""Other orders: shuffle, slices, shards, repetition, and samples computed ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from streamgeo import engine, meter
from streamgeo.gate import GATE
from streamgeo.links.bare import Bare
from streamgeo.links.base import Cursor, Link, Task
from streamgeo.order import generator, localized, permuted
from streamgeo.plan import Item, Run, loaded


@dataclass(frozen=True, eq=False)
class Select(Link):
    """Other indices: shuffle, permutation, slice, partition, shard."""

    pick: Callable[[int, int, Run], int]
    count: Callable[[int], int]
    shown: str
    reseed: int | None = None

    @cached_property
    def seed(self) -> int:
        """That of the shuffle, or of the chain before."""
        return self.before.seed if self.reseed is None else self.reseed

    def length(self, run: Run) -> int:
        """How many samples an epoch has."""
        return self.count(self.before.length(run))

    @cached_property
    def bare(self) -> Bare | None:
        """As the link before, in this order."""
        return self.before.bare.picked(self._index) if self.before.bare is not None else None

    def item(self, index: int, run: Run) -> Item:
        """The item that stands at ``index`` in this order."""
        return self.before.item(self._index(index, run), run)

    def _index(self, index: int, run: Run) -> int:
        return self.pick(index, self.before.length(run), run)

    def text(self) -> str:
        """The call that made it."""
        return self.shown


def shuffled(position: int, size: int, run: Run, *, seed: int, block: int | None = None) -> int:
    """Index at ``position`` of the permutation of this epoch; with ``block`` neighbours stay near."""
    if block is None:
        return permuted(position, size, seed, run.epoch)
    return localized(position, size, seed, run.epoch, block)


def listed(position: int, size: int, run: Run, *, order: NDArray[np.int64]) -> int:
    """Index at ``position`` of a given list."""
    return int(order[position])


def strided(position: int, size: int, run: Run, *, start: int, step: int) -> int:
    """Index at ``position`` of a range; past the end it begins anew."""
    return (start + position * step) % size


@dataclass(frozen=True, eq=False)
class Repeat(Link):
    """Several epochs as one; None means without end."""

    times: int | None

    @property
    def indexable(self) -> bool:
        """Only with a number of times."""
        return self.before.indexable and self.times is not None

    @property
    def endless(self) -> bool:
        """Whether it is known that its samples never end."""
        return self.times is None or self.before.endless

    def length(self, run: Run) -> int:
        """How many samples an epoch has."""
        if self.times is None:
            raise TypeError("repeat() without a number has no length")
        return self.before.length(run) * self.times

    def item(self, index: int, run: Run) -> Item:
        """The item of the epoch that ``index`` falls in."""
        epoch, at = divmod(index, self.before.length(run))
        return self.before.item(at, self._epoch(run, epoch))

    def tasks(self, run: Run, cursor: Cursor = None) -> Iterator[Task]:
        """One epoch after another."""
        epoch, inner = cursor or (0, None)
        while self.times is None or epoch < self.times:
            some = inner is not None
            for task in self.before.tasks(self._epoch(run, epoch), inner):
                some = True
                yield Task(task.make, [epoch, task.after])
            if not some:
                return
            epoch, inner = epoch + 1, None

    def _epoch(self, run: Run, epoch: int) -> Run:
        return replace(run, epoch=run.epoch * (self.times or 1) + epoch)

    def text(self) -> str:
        """The call that made it."""
        return f".repeat({'' if self.times is None else self.times})"


@dataclass(frozen=True, eq=False)
class Reservoir(Link):
    """A stream shuffled through a buffer of so many samples."""

    size: int
    reseed: int

    indexable = False

    @cached_property
    def seed(self) -> int:
        """That of this shuffle."""
        return self.reseed

    def tasks(self, run: Run, cursor: Cursor = None) -> Iterator[Task]:
        """A random one of the buffer leaves for each one that comes.

        Behind a cursor the draws are repeated; the samples before it are not made again.
        """
        gone = cursor or 0
        for number, task in enumerate(self._mixed(run), 1):
            if number > gone:
                yield Task(task.make, number)

    def _mixed(self, run: Run) -> Iterator[Task]:
        rng = generator(self.reseed, run.epoch, 0, self.depth)
        held: list[Task] = []
        for task in self.before.tasks(run):
            if len(held) < self.size:
                held.append(task)
                continue
            at = int(rng.integers(self.size))
            held[at], task = task, held[at]
            yield task
        while held:
            yield held.pop(int(rng.integers(len(held))))

    def text(self) -> str:
        """The call that made it."""
        return f".shuffle({self.size}, seed={self.reseed})"


Made = tuple[Item | Exception, Cursor]
MOST_AHEAD = (1 << 31) - 1  # what mlx-data can count
MOST_THREADS = 1024  # more than that only wait for one another


@dataclass(frozen=True, eq=False)
class Prefetch(Link):
    """Samples computed ahead by threads, in order."""

    size: int
    threads: int
    max_bytes: int | None = None

    indexable = False

    @cached_property
    def _pace(self) -> engine.Pace:
        """What was found out in earlier epochs."""
        return engine.Pace()

    def length(self, run: Run) -> int:
        """How many samples an epoch has."""
        return self.before.length(run)

    def tasks(self, run: Run, cursor: Cursor = None) -> Iterator[Task]:
        """Finished samples, as functions that only hand them over, or raise what making them raised."""
        mine, tasks = meter.current(), self.before.tasks(run, cursor)
        lazy = run.lazy or self.before.bare is not None  # then there is nothing to be read
        work = map(partial(_metered, mine, lazy), meter.worked(mine, tasks))
        ahead = engine.Engine(work, self.size, self.threads, self.max_bytes, _nbytes_made, self._pace)
        try:
            while True:
                if ahead.rests:
                    made = _next_made(tasks, lazy)
                    self._pace.took()
                    meter.count(meter.HERE)
                elif ahead.here:
                    made = next(ahead, None)
                    meter.count(meter.HERE)
                else:
                    meter.looked(ahead.queued)
                    with meter.waiting():
                        made = next(ahead, None)
                if made is None:
                    return
                yield Task(partial(_given, made[0]), made[1])
        finally:
            ahead.let_go()

    def text(self) -> str:
        """The call that made it."""
        bound = "" if self.max_bytes is None else f", max_bytes={self.max_bytes}"
        return f".prefetch({self.size}, {self.threads}{bound})"


def _next_made(tasks: Iterator[Task], lazy: bool) -> Made | None:
    """What the consumer computes itself, without the engine."""
    GATE.enter()
    try:
        task = next(tasks, None)
        return None if task is None else _made(task, lazy)
    finally:
        GATE.leave()


def _metered(mine: meter.Meter | None, lazy: bool, task: Task) -> Callable[[], Made]:
    return partial(_made, task, lazy) if mine is None else partial(_made_for, mine, task, lazy)


def _made_for(mine: meter.Meter, task: Task, lazy: bool) -> Made:
    if meter.current() is mine:  # the consumer runs it itself
        return _made(task, lazy)
    with mine.running(meter.BUSY):
        return _made(task, lazy)


def _made(task: Task, lazy: bool) -> Made:
    # A failing sample does not end the epoch: the consumer decides what to do with the error.
    try:
        item = task.make()
        return item if lazy else loaded(item), task.after
    except Exception as error:
        return error, task.after


def _nbytes_made(made: Made) -> int:
    """Memory that a made sample holds while it waits; a lazy scene holds none."""
    item = made[0]
    if isinstance(item, Exception):
        return 0
    residuals = [array for part in (item, *item.parts) for array in part.residuals.values()]
    arrays = [value for value in item.values.values() if isinstance(value, np.ndarray)]
    return sum(array.nbytes for array in (*arrays, *residuals))


def _given(made: Item | Exception) -> Item:
    if isinstance(made, Exception):
        raise made
    return made


@dataclass(frozen=True, eq=False)
class AsStream(Link):
    """Seen as a stream: what was indexable is read in order."""

    indexable = False

    @cached_property
    def bare(self) -> Bare | None:
        """That of the link before."""
        return self.before.bare

    def tasks(self, run: Run, cursor: Cursor = None) -> Iterator[Task]:
        """Those of the link before."""
        return self.before.tasks(run, cursor)

    def text(self) -> str:
        """The call that made it."""
        return ".to_stream()"


@dataclass(frozen=True, eq=False)
class Shard(Link):
    """Every n-th sample of a buffer from one on; the last round is filled up from the start.

    Its cursor counts the samples of all shards, so an epoch may be taken up by another number of them.
    """

    parts: int
    part: int

    def length(self, run: Run) -> int:
        """How many samples an epoch has."""
        return -(-self.before.length(run) // self.parts)

    def item(self, index: int, run: Run) -> Item:
        """One sample of this shard."""
        return self.before.item((index * self.parts + self.part) % self.before.length(run), run)

    def tasks(self, run: Run, cursor: Cursor = None) -> Iterator[Task]:
        """Those of this shard, round by round."""
        size = self.before.length(run)
        for start in range(cursor or 0, size, self.parts):
            yield Task(partial(self.before.item, (start + self.part) % size, run), start + self.parts)

    def text(self) -> str:
        """The call that made it."""
        return f".shard({self.parts}, {self.part})"


@dataclass(frozen=True, eq=False)
class Every(Link):
    """Every n-th sample of a stream from one on; ``even`` leaves out what does not go round."""

    parts: int
    part: int
    even: bool

    indexable = False

    def length(self, run: Run) -> int:
        """How many samples an epoch has."""
        total = self.before.length(run)
        return total // self.parts if self.even else partition_size(total, parts=self.parts, part=self.part)

    def tasks(self, run: Run, cursor: Cursor = None) -> Iterator[Task]:
        """Those whose turn it is; the cursor counts for all shards, so it may be taken up with another number."""
        mine: Task | None = None
        for index, task in enumerate(self.before.tasks(run, cursor)):
            if index % self.parts == self.part:
                mine = task
            if mine is not None and index % self.parts == self.parts - 1:
                yield Task(mine.make, task.after)
                mine = None
        if mine is not None and not self.even:
            yield mine

    def text(self) -> str:
        """The call that made it."""
        return f".{'shard' if self.even else 'partition'}({self.parts}, {self.part})"


def same_size(size: int) -> int:
    """As many as before."""
    return size


def fixed_size(before: int, *, size: int) -> int:
    """A number that was known when the link was made."""
    return size


def partition_size(size: int, *, parts: int, part: int) -> int:
    """How many of ``range(size)`` are ``part`` modulo ``parts``."""
    return max(0, -(-(size - part) // parts))
