"""Links of a stream that must make a sample to know what comes of it: none, itself, or several.

So their samples are made one after another; a prefetch further on makes them ahead on its threads
(:func:`made_ahead`), with the same order and the same draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from streamgeo.errors import OpenError, StepError
from streamgeo.links.apply import arrays, label_of, written
from streamgeo.links.base import Cursor, Link, Node, Task
from streamgeo.links.cache import Cache
from streamgeo.links.combine import Filter
from streamgeo.links.order import Prefetch
from streamgeo.links.steps import Edit
from streamgeo.links.values import as_value, need
from streamgeo.meter import step_span
from streamgeo.naming import naming
from streamgeo.plan import Item, Run, finished

Ahead = tuple[int, int] | None  # samples and threads


def made_ahead(node: Node, size: int, threads: int) -> Node:
    """The chain with all such links, back to the last prefetch, made ahead by as many threads."""
    if isinstance(node, Prefetch | Cache) or not isinstance(node, Link):
        return node
    before = made_ahead(node.before, size, threads)
    if isinstance(node, Sift | Drop | Unfold):
        return replace(node, before=before, ahead=(size, threads))
    return node if before is node.before else replace(node, before=before)


def _source(node: Node, ahead: Ahead) -> Node:
    return node if ahead is None else Prefetch(node, *ahead)


@dataclass(frozen=True, eq=False)
class Sift(Filter):
    """Samples for which a predicate holds."""

    ahead: Ahead = None

    keeps_order = True

    def tasks(self, run: Run, cursor: Cursor = None) -> Iterator[Task]:
        """Those that pass; a sample that fails is handed on, so that its error is not lost."""
        for task in _source(self.before, self.ahead).tasks(run, cursor):
            try:
                item = task()
                sample = finished(item)
                with step_span(self.shown[1:]):
                    passes = self.predicate(sample)
            except Exception as error:
                yield Task.failing(error, task.after)
                continue
            if passes:
                yield Task.of(item, task.after)


@dataclass(frozen=True, eq=False)
class Drop(Edit):
    """A change of whole samples that leaves out a sample by returning nothing of it."""

    ahead: Ahead = None

    indexable = False
    keeps_order = True

    def tasks(self, run: Run, cursor: Cursor = None) -> Iterator[Task]:
        """The changed samples that are not empty."""
        for task in _source(Edit(self.before, self.change, self.shown), self.ahead).tasks(run, cursor):
            try:
                item = task()
            except Exception as error:
                yield Task.failing(error, task.after)
                continue
            if item.values or item.skipped:
                yield Task.of(item, task.after)


@dataclass(frozen=True, eq=False)
class Unfold(Edit):
    """One sample becomes several: windows, rows, lines. ``change`` gives them for an item, one by one."""

    change: Callable[[Item], Iterable[Item]]  # type: ignore[assignment]
    ahead: Ahead = None

    indexable = False
    keeps_order = True

    def length(self, run: Run) -> int:
        """How many samples an epoch has."""
        raise TypeError(f"{self.shown[1:]} has no length: how many come of a sample is known when it is made")

    def item(self, index: int, run: Run) -> Item:
        """Not to be had by index."""
        return Link.item(self, index, run)

    def tasks(self, run: Run, cursor: Cursor = None) -> Iterator[Task]:
        """All of one sample after those of another. The cursor is that before the sample, with a number in it."""
        before, first, index = cursor or (None, 0, 0)
        for task in _source(self.before, self.ahead).tasks(run, before):
            part = 0
            try:
                for part, item in enumerate(self._parts(task), 1):
                    if part > first:
                        index += 1
                        yield Task(partial(_numbered, item, index - 1), [before, part, index])
            except Exception as error:
                yield Task.failing(error, [task.after, 0, index])
            before, first = task.after, 0

    def _parts(self, task: Task) -> Iterator[Item]:
        label = label_of(self.shown)
        parts = iter(self.change(task()))
        while True:
            with naming(label), step_span(label):
                item = next(parts, None)
            if item is None:
                return
            yield item


def windows(item: Item, key: str, size: int, stride: int, dim: int, index_key: str) -> Iterator[Item]:
    """The item once for each window of ``size`` along ``dim``; the last ones may be shorter."""
    need(item, key, "sliding_window")
    array = arrays(item, [key])[key]
    if not -array.ndim <= dim < array.ndim:
        limits = f"use {-array.ndim} to {array.ndim - 1}" if array.ndim else "it has no dims"
        raise StepError(f"dim {dim} is out of range for {key!r} of shape {array.shape}; {limits}")
    ranges = [slice(None)] * array.ndim
    for number, start in enumerate(range(0, array.shape[dim], stride)):
        ranges[dim] = slice(start, start + size)
        values: dict[str, Any] = {key: array[tuple(ranges)]}
        if index_key:
            values[index_key] = np.array(number, np.int64)
        yield written(item, values)


def rows(
    item: Item, key: str, read: Callable[[Any], Iterable[dict[str, Any]]], operation: str
) -> Iterator[Item]:
    """An item for each sample that ``read`` finds in the file that a key names or holds."""
    need(item, key, operation)
    for sample in read(arrays(item, [key])[key]):
        yield Item(item.index, {name: as_value(value) for name, value in sample.items()})


def readable(read: Callable[[], Iterator[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """The samples of one of mlx-data's readers; what it cannot read is an OpenError."""
    samples = read()
    while True:
        try:
            sample = next(samples, None)
        except (RuntimeError, ValueError) as error:
            raise OpenError(f"mlx-data cannot read it: {error}") from error
        if sample is None:
            return
        yield sample


def _numbered(item: Item, index: int) -> Item:
    return replace(item, index=index)
