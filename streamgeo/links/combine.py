"""Several chains as one, and parts of a chain: concatenate, zip, mix, filter, take, skip."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import accumulate
from typing import Any

from streamgeo.errors import ChainError
from streamgeo.links.base import Cursor, Link, Node, Task
from streamgeo.links.sources import Vector
from streamgeo.meter import step_span
from streamgeo.order import generator
from streamgeo.plan import Item, Run, finished


@dataclass(frozen=True, eq=False)
class Joined(Node):
    """A link that stands on several chains."""

    parents: tuple[Node, ...]

    @property
    def parent(self) -> Node:
        """The first of them, which gives seed and depth."""
        return self.parents[0]

    @property
    def indexable(self) -> bool:
        """Whether all of them are."""
        return all(parent.indexable for parent in self.parents)

    @cached_property
    def depth(self) -> int:
        """More than that of any of them, so that no two steps draw the same numbers."""
        return max(parent.depth for parent in self.parents) + 1

    @cached_property
    def random(self) -> bool:
        """Whether one of them draws random numbers."""
        return any(parent.random for parent in self.parents)

    @property
    def endless(self) -> bool:
        """Whether it is known that its samples never end."""
        return any(parent.endless for parent in self.parents)

    @cached_property
    def offsets(self) -> list[int]:
        """What is added to the scene numbers of each, so that no two scenes share a number."""
        sizes = [len(p.path[0]) if p.path[0].indexable else 1 << 40 for p in self.parents]
        return [sum(sizes[:number]) for number in range(len(sizes))]

    def parent_of(self, key: str) -> Node:
        """The chain to follow back for ``key``: the first, since all must treat it alike."""
        return self.parents[0]

    def parent_of_scene(self, number: int) -> tuple[Node, int]:
        """The chain that a scene number belongs to, and the number there."""
        which = bisect_right(self.offsets, number) - 1
        return self.parents[which], number - self.offsets[which]

    def _numbered(self, item: Item, which: int) -> Item:
        return renumber(item, self.offsets[which])

    def _shown(self, name: str) -> str:
        return f"sg.{name}({', '.join(repr_of(parent) for parent in self.parents)})"


def repr_of(node: Node) -> str:
    """The calls that made a chain, in one line."""
    return "".join(link.text() for link in called(node))


def called(node: Node) -> list[Node]:
    """The links whose texts make up the calls of a chain: from the last one that joins chains on, which tells them."""
    path = node.path
    joined = [number for number, link in enumerate(path) if isinstance(link, Joined)]
    return path[joined[-1] if joined else 0 :]


def keys_of(node: Node) -> set[str]:
    """The keys that the links of a chain are known to make."""
    keys: set[str] = set()
    for link in node.path:
        keys |= (
            set(getattr(link, "outputs", ()))
            | {getattr(link, "key", "")}
            | set(getattr(link, "renames", None) or ())
        )
        if isinstance(link, Vector):
            keys |= {key for sample in link.data for key in sample}
        if isinstance(link, Joined):
            keys |= {key for parent in link.parents for key in keys_of(parent)}
    return keys


def renumber(item: Item, offset: int) -> Item:
    """The item with ``offset`` added to the numbers of its scenes."""
    if not offset:
        return item
    places = {key: replace(place, index=place.index + offset) for key, place in item.places.items()}
    values = {
        key: value + offset if key.endswith(".scene") and item.parts else value
        for key, value in item.values.items()
    }
    return replace(item, values=values, places=places, parts=[renumber(part, offset) for part in item.parts])


@dataclass(frozen=True, eq=False)
class Concatenate(Joined):
    """One chain after another."""

    def length(self, run: Run) -> int:
        """How many samples an epoch has."""
        return sum(parent.length(run) for parent in self.parents)

    def item(self, index: int, run: Run) -> Item:
        """The item of the chain that ``index`` falls in."""
        for which, parent in enumerate(self.parents):
            if index < parent.length(run):
                return self._numbered(parent.item(index, run), which)
            index -= parent.length(run)
        raise IndexError(index)

    def tasks(self, run: Run, cursor: Cursor = None) -> Iterator[Task]:
        """Those of each chain in turn."""
        first, inner = cursor or (0, None)
        for which in range(first, len(self.parents)):
            for task in self.parents[which].tasks(run, inner if which == first else None):
                yield Task(task.then(self._numbered, which).make, [which, task.after])

    def text(self) -> str:
        """The call that made it."""
        return self._shown("concatenate")


@dataclass(frozen=True, eq=False)
class Zip(Joined):
    """Samples of several chains side by side, as one sample."""

    def length(self, run: Run) -> int:
        """How many samples an epoch has."""
        sizes = [parent.length(run) for parent in self.parents]
        if len(set(sizes)) > 1:
            raise ChainError(f"zip: the chains have {sizes} samples; cut them to one length first")
        return sizes[0]

    def item(self, index: int, run: Run) -> Item:
        """One item of each, as one."""
        return self._together([partial(parent.item, index, run) for parent in self.parents])

    def tasks(self, run: Run, cursor: Cursor = None) -> Iterator[Task]:
        """One task of each, as one."""
        cursors = cursor or [None] * len(self.parents)
        sources = [parent.tasks(run, inner) for parent, inner in zip(self.parents, cursors)]
        while True:
            group = [next(source, None) for source in sources]
            tasks = [task for task in group if task is not None]
            if not tasks:
                return
            if len(tasks) < len(group):
                ended = group.index(None)
                raise ChainError(f"zip: chain {ended} ended before the others; cut them to one length first")
            yield Task(partial(self._together, tasks), [task.after for task in tasks])

    def parent_of(self, key: str) -> Node:
        """The chain that makes ``key``."""
        return next((parent for parent in self.parents if key in keys_of(parent)), self.parents[0])

    @property
    def endless(self) -> bool:
        """Whether it is known that its samples never end; it fails where one of the chains does."""
        return all(parent.endless for parent in self.parents)

    def _together(self, tasks: Sequence[Callable[[], Item]]) -> Item:
        out = Item(0, {})
        for which, task in enumerate(tasks):
            item = self._numbered(task(), which)
            shared = [key for key in item.values if key in out.values]
            if shared:
                raise ChainError(
                    f"zip: both chains have the key {shared[0]!r}; rename it in one of them first"
                )
            out = Item(
                out.index if which else item.index,
                out.values | item.values,
                out.places | item.places,
                out.residuals | item.residuals,
            )
        return out

    def text(self) -> str:
        """The call that made it."""
        return self._shown("zip")


@dataclass(frozen=True, eq=False)
class Mix(Joined):
    """Samples of several chains in random turn, until all are at their end."""

    weights: tuple[float, ...]
    reseed: int

    indexable = False

    @cached_property
    def seed(self) -> int:
        """That of the mixture."""
        return self.reseed

    def length(self, run: Run) -> int:
        """How many samples an epoch has."""
        return sum(parent.length(run) for parent in self.parents)

    def tasks(self, run: Run, cursor: Cursor = None) -> Iterator[Task]:
        """A chain is drawn by its weight for each place; one at its end is left out from then on."""
        number, cursors, ended = cursor or (0, [None] * len(self.parents), [])
        cursors, left = list(cursors), [i for i in range(len(self.parents)) if i not in ended]
        sources = [parent.tasks(run, inner) for parent, inner in zip(self.parents, cursors)]
        while left:
            ends = list(accumulate(self.weights[i] for i in left))
            draw = generator(self.reseed, run.epoch, number, self.depth).random() * ends[-1]
            which = left[min(bisect_right(ends, draw), len(left) - 1)]
            task = next(sources[which], None)
            if task is None:
                left.remove(which)
                continue
            number, cursors[which] = number + 1, task.after
            gone = [i for i in range(len(self.parents)) if i not in left]
            yield Task(task.then(self._numbered, which).make, [number, list(cursors), gone])

    def text(self) -> str:
        """The call that made it."""
        chains = ", ".join(repr_of(parent) for parent in self.parents)
        return f"sg.mix([{chains}], weights={list(self.weights)}, seed={self.reseed})"


@dataclass(frozen=True, eq=False)
class Filter(Link):
    """Samples for which a predicate holds. They are made while the next one is looked for."""

    predicate: Callable[[dict[str, Any]], bool]
    shown: str

    indexable = False

    def length(self, run: Run) -> int:
        """How many samples an epoch has."""
        raise TypeError("a filtered stream has no length: how many pass is known at its end")

    def tasks(self, run: Run, cursor: Cursor = None) -> Iterator[Task]:
        """Those that pass; a sample that fails is handed on, so that its error is not lost."""
        for task in self.before.tasks(run, cursor):
            try:
                item = task()
                sample = finished(item)
                with step_span(self.shown[1:]):
                    passes = self.predicate(sample)
                if passes:
                    yield Task.of(item, task.after)
            except Exception as error:
                yield Task.failing(error, task.after)

    def text(self) -> str:
        """The call that made it."""
        return self.shown


@dataclass(frozen=True, eq=False)
class Part(Link):
    """Some samples of a stream: those from number ``start`` to ``stop`` (None is the end)."""

    start: int
    stop: int | None
    shown: str

    indexable = False

    @property
    def endless(self) -> bool:
        """Whether it is known that its samples never end."""
        return self.stop is None and self.before.endless

    def length(self, run: Run) -> int:
        """How many samples an epoch has."""
        size = self.before.length(run)
        return max(0, (size if self.stop is None else min(size, self.stop)) - self.start)

    def tasks(self, run: Run, cursor: Cursor = None) -> Iterator[Task]:
        """Those in the part; the ones before it are drawn and not made."""
        number, inner = cursor or (0, None)
        if self.stop is not None and number >= self.stop:
            return
        for task in self.before.tasks(run, inner):
            number += 1
            if number > self.start:
                yield Task(task.make, [number, task.after])
            if self.stop is not None and number >= self.stop:
                return

    def text(self) -> str:
        """The call that made it."""
        return self.shown
