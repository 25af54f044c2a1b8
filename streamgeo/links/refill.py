"""A stream taken buffer by buffer: gathered, put into another order or batched, handed out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from math import prod
from typing import Any

import numpy as np

from streamgeo.engine import Engine
from streamgeo.errors import ChainError
from streamgeo.links.base import Cursor, Link, Node, Task
from streamgeo.links.batch import Batch
from streamgeo.links.order import Select, fixed_size, listed
from streamgeo.links.steps import Edit
from streamgeo.links.values import need
from streamgeo.order import generator
from streamgeo.plan import Item, Run

LOG = logging.getLogger("streamgeo")


@dataclass(frozen=True, eq=False)
class Held(Node):
    """Samples of a stream as a buffer: each is made when it is first asked for, and kept."""

    made: Sequence[Task]
    level: int
    reseed: int
    kept: dict[int, Item] = field(default_factory=dict)
    locks: tuple[threading.Lock, ...] = ()

    indexable = True

    def length(self, run: Run) -> int:
        """How many samples an epoch has."""
        return len(self.made)

    @cached_property
    def depth(self) -> int:
        """That of the link that gathers them, so that links on top draw other numbers than those before."""
        return self.level

    @cached_property
    def seed(self) -> int:
        """That of the stream."""
        return self.reseed

    def item(self, index: int, run: Run) -> Item:
        """One sample."""
        with self.locks[index]:
            if index not in self.kept:
                self.kept[index] = self.made[index]()
            return self.kept[index]

    def text(self) -> str:
        """The call that made it."""
        return "<buffer of a stream>"


def held(tasks: Sequence[Task], link: Link, threads: int) -> Held:
    """A buffer of these samples; with several threads they are made at once."""
    node = Held(tasks, link.depth, link.seed, locks=tuple(threading.Lock() for _ in tasks))
    if threads > 1:
        for _ in Engine(
            (partial(_quietly, node, index) for index in range(len(tasks))), len(tasks) or 1, threads
        ):
            pass
    return node


def _quietly(node: Held, index: int) -> bool:
    try:
        node.item(index, Run())
    except Exception:
        return False  # it is raised when the sample is asked for, in its turn
    return True


@dataclass(frozen=True, eq=False)
class Refill(Edit):
    """Each ``size`` samples go through ``change`` as a buffer, and come out as its samples.

    ``change`` takes a node and gives the node that comes out, and the numbers of samples that wait for the
    next buffer. The cursor is that before the buffer, how many came out of it, and those that waited for it.
    """

    change: Callable[[Node, Run], tuple[Node, Sequence[int]]]  # type: ignore[assignment]
    touches: tuple[str, ...] | None = None
    size: int = 1
    threads: int = 1

    indexable = False

    def length(self, run: Run) -> int:
        """How many samples an epoch has."""
        raise TypeError(f"{self.shown[1:]} has no length: what comes of a buffer is known when it is made")

    def item(self, index: int, run: Run) -> Item:
        """Not to be had by index."""
        return Link.item(self, index, run)

    def tasks(self, run: Run, cursor: Cursor = None) -> Iterator[Task]:
        """The samples of one buffer after those of another."""
        before, group, first, waiting = cursor or (None, 0, 0, [])
        source, at = self.before.tasks(run, before), before
        over = [(self._again(run, mark), mark) for mark in waiting]
        while True:
            fresh: list[tuple[Task, Cursor]] = []
            while len(fresh) < self.size and (task := next(source, None)) is not None:
                fresh.append((task, at))
                at = task.after
            if not fresh:
                if over:
                    LOG.warning("%s: %d samples were left out at the end", self.shown[1:], len(over))
                return
            group += 1
            marks = [mark for _, mark in over]
            gathered = [*fresh, *over]
            # Each buffer counts as an epoch of its own: a shuffle of it draws anew.
            inner = replace(run, epoch=((run.epoch + 1) << 32) + group)
            node, left = self.change(held([task for task, _ in gathered], self, self.threads), inner)
            for number in range(first, node.length(run)):
                yield Task(partial(node.item, number, inner), [before, group - 1, number + 1, marks])
            over, before, first = [gathered[index] for index in left], at, 0

    def _again(self, run: Run, mark: Cursor) -> Task:
        return next(iter(self.before.tasks(run, mark)))


def by_function(node: Node, run: Run, f: Callable[[Any], Any] | None, wrap: Callable[[Node], Any]) -> Any:
    """What a user's function makes of a buffer."""
    if f is None:
        return node, ()
    result = f(wrap(node))
    found = getattr(result, "node", None)
    if not isinstance(found, Node) or not found.indexable:
        raise ChainError(f"buffered: on_refill returned a {type(result).__name__}; return a Buffer")
    return found, ()


@dataclass(frozen=True, eq=False)
class Packing:
    """How many elements of an array a batch has, at least and at most (any number for 0 and below)."""

    key: str
    least: int
    most: int
    pad: Mapping[str, float]
    dim: Mapping[str, int]
    drop_outliers: bool

    def pack(self, shapes: Sequence[tuple[int, ...]]) -> tuple[list[list[int]], list[int]]:
        """Which samples make up each batch, the small ones first, and which fit into none."""
        order = list(range(len(shapes)))
        if self.most > 0:
            order.sort(key=lambda index: prod(shapes[index]) if shapes[index] else 0)
        batches: list[list[int]] = []
        skipped: list[int] = []
        group = _Group(self)
        for index in order:
            total = group.add(index, shapes[index])
            if self.most <= 0 or total <= self.most:
                if self.most > 0 and 0 < self.least <= total:
                    batches.append(group.take())
            elif self.least > 0 and len(group.members) > 1:
                skipped += group.take()
            else:
                *fitting, last = group.take()
                batches += [fitting] if fitting else []
                if group.add(last, shapes[last]) > self.most:  # it is too large by itself
                    batches += [] if self.drop_outliers else [[last]]
                    group.take()
        if group.total < self.least:
            skipped += group.take()
        elif group.members:
            batches.append(group.take())
        return batches, skipped


@dataclass
class _Group:
    """The samples of one batch so far, and how many elements it would have."""

    packing: Packing
    members: list[int] = field(default_factory=list)
    shape: tuple[int, ...] = ()
    total: int = 0

    def add(self, index: int, shape: tuple[int, ...]) -> int:
        """One more sample; the number of elements with it."""
        key, rank = self.packing.key, len(shape)
        if self.members and rank != len(self.shape):
            raise ChainError(
                f"dynamic_batch: arrays under {key!r} have {len(self.shape)} and {rank} dims; they need as many"
            )
        axis = self.packing.dim.get(key)
        if axis is not None and not -rank <= axis < rank:
            raise ChainError(f"dynamic_batch: dim={axis} for {key!r}, which has {rank} dims")
        before = self.shape if self.members else (0,) * rank
        joined = None if axis is None else axis % rank
        self.shape = tuple(a + b if d == joined else max(a, b) for d, (a, b) in enumerate(zip(before, shape)))
        self.members.append(index)
        self.total = prod(self.shape) * (len(self.members) if axis is None else 1)
        return self.total

    def take(self) -> list[int]:
        """The samples so far; an empty group from now on."""
        members, self.members, self.shape, self.total = self.members, [], (), 0
        return members


@dataclass(frozen=True, eq=False)
class DynamicBatch(Edit):
    """Samples of a buffer in batches of about as many elements each; small samples together."""

    touches: tuple[str, ...] | None = None
    packing: Packing = field(kw_only=True)
    plans: dict[int, tuple[Node, list[int]]] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.Lock)

    def length(self, run: Run) -> int:
        """How many samples an epoch has."""
        return len(self.plan(Run(self.seed))[0])

    def item(self, index: int, run: Run) -> Item:
        """One batch."""
        return self.plan(run)[0].item(index, run)

    def tasks(self, run: Run, cursor: Cursor = None) -> Iterator[Task]:
        """The batches of this epoch."""
        yield from self.plan(run)[0].tasks(run, cursor)

    def plan(self, run: Run) -> tuple[Node, list[int]]:
        """The batches of an epoch, and the samples that are in none; all samples are made for their sizes."""
        key = (
            run.epoch
            if any(isinstance(link, Select) and link.reseed is not None for link in self.path)
            else 0
        )
        with self.lock:
            if key not in self.plans:
                self.plans.clear()
                self.plans[key] = self._packed(run)
            return self.plans[key]

    def _packed(self, run: Run) -> tuple[Node, list[int]]:
        shapes = []
        for index in range(self.before.length(run)):
            item = self.before.item(index, run)
            need(item, self.packing.key, "dynamic_batch")
            shapes.append(tuple(np.shape(item.values[self.packing.key])))
        batches, skipped = self.packing.pack(shapes)
        order = np.array([index for batch in batches for index in batch], np.int64)
        chosen = Select(self.before, partial(listed, order=order), partial(fixed_size, size=order.size), "")
        sizes = tuple(map(len, batches))
        return Batch(chosen, sizes, self.packing.pad, self.packing.dim, False), skipped

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "plans": {}, "lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, lock=threading.Lock())


def dynamic_batch(node: Node, packing: Packing, shown: str) -> DynamicBatch:
    """The batches of a buffer."""
    return DynamicBatch(node, _unchanged, shown, packing=packing)


def _unchanged(item: Item) -> Item:
    return item


def packed(
    node: Node, run: Run, packing: Packing, shuffle: bool, most_skipped: int
) -> tuple[Node, Sequence[int]]:
    """A buffer of a stream in batches, and the samples that wait for the next buffer."""
    batches, skipped = DynamicBatch(node, _unchanged, "", packing=packing).plan(run)
    if shuffle:
        order = generator(run.seed, run.epoch, 0, node.depth + 1).permutation(len(batches))
        batches = Select(batches, partial(listed, order=order), partial(fixed_size, size=order.size), "")
    return batches, skipped[:most_skipped] if most_skipped > 0 else skipped
