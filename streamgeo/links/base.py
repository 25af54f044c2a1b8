"""What every link of a chain has: its place in the chain, items by index, and the tasks of an epoch.

An indexable link gives ``item(i, run)`` for any ``i``; every link gives ``tasks(run, cursor)``, the samples of
one epoch in order as functions that any thread may call. Each task says by its cursor where the epoch goes on
after it, so an epoch can be taken up behind any of its samples, and what came before costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

from streamgeo.errors import ChainError, SampleError
from streamgeo.links.bare import Bare
from streamgeo.naming import at_sample, says
from streamgeo.plan import Item, Run, finished

Cursor = Any  # small, and as JSON can hold it: a number or a list; None is the start


@dataclass(slots=True)  # not frozen, which takes three times as long to make
class Task:
    """A sample to be made: a function that any thread may call, and the cursor behind it."""

    make: Callable[[], Item]
    after: Cursor

    def __call__(self) -> Item:
        """Make it."""
        return self.make()

    def then(self, f: Callable[..., Item], *arguments: Any) -> Task:
        """The same task, with ``f(item, *arguments)`` applied to what it makes."""
        return Task(partial(_then, self.make, f, arguments), self.after)

    @staticmethod
    def of(item: Item, after: Cursor) -> Task:
        """A sample that is made already."""
        return Task(partial(_given, item), after)

    @staticmethod
    def failing(error: Exception, after: Cursor) -> Task:
        """A sample that cannot be made: its error is told when its turn comes."""
        return Task(partial(_raise, error), after)


def _given(item: Item) -> Item:
    return item


def _raise(error: Exception) -> Item:
    raise error


def _then(make: Callable[[], Item], f: Callable[..., Item], arguments: tuple[Any, ...]) -> Item:
    return f(make(), *arguments)


@dataclass(frozen=True, eq=False)
class Node:
    """One link of a chain."""

    @property
    def parent(self) -> Node | None:
        """The link before it."""
        return None

    @property
    def indexable(self) -> bool:
        """Whether it knows its length and gives any item by its index."""
        return self.parent is not None and self.parent.indexable

    def length(self, run: Run) -> int:
        """How many samples an epoch has; a scene that cannot be opened counts as one where it is to be skipped."""
        assert self.parent is not None
        return self.parent.length(run)

    def __len__(self) -> int:
        return self.length(Run())

    def __bool__(self) -> bool:
        return True

    def item(self, index: int, run: Run) -> Item:
        """The item at ``index``."""
        raise ChainError(f"{self.text()}: samples of a stream have no index; use .to_buffer()")

    def tasks(self, run: Run, cursor: Cursor = None) -> Iterator[Task]:
        """The items of one epoch, or the rest of it behind ``cursor``."""
        return (
            Task(partial(self.item, index, run), index + 1) for index in range(cursor or 0, self.length(run))
        )

    def text(self) -> str:
        """The call that made it."""
        raise NotImplementedError

    @cached_property
    def depth(self) -> int:
        """How many links stand before it."""
        return 0 if self.parent is None else self.parent.depth + 1

    @cached_property
    def seed(self) -> int:
        """Seed of the chain: that of the last shuffle, else 0."""
        return 0 if self.parent is None else self.parent.seed

    @cached_property
    def random(self) -> bool:
        """Whether it, or a link before it, draws random numbers."""
        return self.parent is not None and self.parent.random

    @cached_property
    def bare(self) -> Bare | None:
        """How its samples are made, if they are arrays in memory and no step asks for anything else."""
        return None

    @property
    def endless(self) -> bool:
        """Whether it is known that its samples never end."""
        return self.parent is not None and self.parent.endless

    @property
    def path(self) -> list[Node]:
        """All links, from the source to this one."""
        return [*(self.parent.path if self.parent is not None else []), self]

    def path_of(self, key: str) -> list[Node]:
        """All links that ``key`` comes through; ``path`` where chains are not joined."""
        before = self.parent_of(key)
        return [*(before.path_of(key) if before is not None else []), self]

    def parent_of(self, key: str) -> Node | None:
        """The link before it, on the way back of ``key``."""
        return self.parent

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        for name in ("depth", "seed", "random", "bare", "_state", "_maps", "_pace"):
            state.pop(name, None)
        return state


@dataclass(frozen=True, eq=False)
class Link(Node):
    """A link that stands on another."""

    before: Node

    @property
    def parent(self) -> Node:
        """The link before it."""
        return self.before


class Ready(NamedTuple):
    """A finished sample: its item, what the user sees, the cursor behind it, and how many came so far."""

    item: Item
    sample: dict[str, Any]
    after: Cursor
    position: int


def epoch(node: Node, run: Run, cursor: Cursor = None, position: int = 0) -> Generator[Ready, None, None]:
    """The items of one epoch with the samples that the user sees; a failure names the sample's position.

    With ``run.skip`` a sample that fails comes as an item without values that carries the error.
    """
    tasks, number = node.tasks(run, cursor), position
    while True:
        try:
            task = next(tasks, None)
            if task is None:
                return
        except Exception as error:
            raise numbered(error, number) from cause_of(error)
        try:
            item = task.make()
            sample = finished(item)
        except Exception as error:
            failed = numbered(error, number)
            if not run.skip:
                raise failed from cause_of(error)
            failed.__cause__ = cause_of(error)
            item, sample = Item(number, {}, skipped=[failed]), {}
        number += 1
        yield Ready(item, sample, task.after, number)


def numbered(error: Exception, number: int) -> SampleError:
    """As :class:`naming` does it: a sample costs less without the block.

    Raises:
        KeyboardInterrupt: where a library made another error of it, as some do while they are imported.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt):
            raise cause
        cause = cause.__cause__
    if not isinstance(error, SampleError):
        return SampleError(f"sample {number}: {says(error)}", index=number)
    return error if error.index is not None else at_sample(error, number)


def cause_of(error: Exception) -> BaseException | None:
    """What a :class:`SampleError` made of this error names as its cause."""
    return error.__cause__ if isinstance(error, SampleError) else error
