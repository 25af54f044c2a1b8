"""Finished samples that are kept, in memory or in a folder, so that a later epoch does not compute them again."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from streamgeo.links.base import Cursor, Link, Node, Task
from streamgeo.links.folder import Folder, check_folder
from streamgeo.links.identity import (
    Mark,
    chain_digest,
    check,
    content,
    makes_to_draw,
    mark_of,
    number_only,
    stamp,
)
from streamgeo.links.kept import Entry, Memory, frozen
from streamgeo.plan import Item, Run


@dataclass(eq=False)
class _Kept:
    """What a cache has in this process: the samples, in a stream for which files, and how many an epoch has."""

    store: Memory | Folder
    files: str = ""
    count: int = -1


def cached(before: Node, max_bytes: int | None, folder: str | os.PathLike[str] | None) -> Cache:
    """A cache behind a link.

    Raises:
        ChainError: where it would freeze what is to change, or where the folder cannot be written to.
    """
    check(before)
    link = Cache(before, max_bytes, None if folder is None else check_folder(folder))
    if folder is not None:
        chain_digest(
            before
        )  # a function that cannot be told is an error now, not when the first sample comes
    return link


@dataclass(frozen=True, eq=False)
class Cache(Link):
    """Samples of the link before, each computed once.

    In a Buffer a sample is told by what it is, so its place in the order may change. In a stream it is told by
    its place; see :func:`streamgeo.links.identity.check` for what may stand before.
    """

    max_bytes: int | None = None
    folder: str | None = None

    keeps_order = True

    @cached_property
    def depth(self) -> int:
        """That of the link before: with or without a cache, the steps behind it draw the same numbers."""
        return self.before.depth

    @property
    def _state(self) -> _Kept:
        found = self.__dict__.get("_state")
        if found is None:  # of two threads that come first, the second takes that of the first
            found = self.__dict__.setdefault("_state", self._begun())
        assert isinstance(found, _Kept)
        return found

    def _begun(self) -> _Kept:
        if self.folder is None:
            return _Kept(Memory(self.max_bytes, prefix=not self.indexable))
        return _Kept(Folder(self.folder, self.max_bytes, self.before))

    def item(self, index: int, run: Run) -> Item:
        """The item at ``index``, computed where it is not kept."""
        run = replace(run, slots=False)  # what is kept has its pixels
        return self._kept(index, run, partial(self.before.item, index, run))

    def tasks(self, run: Run, cursor: Cursor = None) -> Iterator[Task]:
        """Those of the link before, which run only for what is not kept."""
        run = replace(run, slots=False)
        if not self.indexable:
            return self._replayed(run, cursor)
        if cursor is None and self._state.count < 0:
            return self._first(run)
        return super().tasks(run, cursor)

    def _first(self, run: Run) -> Iterator[Task]:
        """The first epoch: drawn from the link before, which need not know its length then."""
        index = 0
        for index, task in enumerate(self.before.tasks(run), 1):
            yield Task(partial(self._kept, index - 1, run, task.make), index)
        self._state.count = index

    def _kept(self, index: int, run: Run, make: Callable[[], Item]) -> Item:
        tell = number_only if self.folder is None else content
        return self._get(mark_of(self.before, index, run, tell), lambda: (make(), None))

    def _get(self, key: Mark, make: Callable[[], tuple[Item, Cursor]]) -> Item:
        store = self._state.store

        def compute() -> Entry:
            item, after = make()
            return Entry(frozen(item, store, key), after)

        return store.get(key, compute).item.copy()

    # -- a stream ---------------------------------------------------------------------------------------

    def _replayed(self, run: Run, cursor: Cursor) -> Generator[Task, None, None]:
        """By position: what is kept comes from there, and the stream before is asked for the rest only."""
        state = self._checked()
        number, inner = cursor or (0, None)
        source = _Source(self, run)
        try:
            while number != state.count:
                key = (state.files, number)
                kept, after = state.store.after(key)
                if kept:
                    source.leave()
                    make = partial(self._get, key, partial(_drawn, self, run, inner))
                else:
                    task = source.at(number, inner)
                    if task is None:
                        state.count = number
                        return
                    make, after = partial(self._get, key, partial(_made, task)), task.after
                number, inner = number + 1, after
                yield Task(make, [number, after])
        finally:
            source.close()

    def _checked(self) -> _Kept:
        """What is kept, if it is that of the files as they are now."""
        state = self._state
        files = stamp(self.before, number_only if self.folder is None else content)
        if files != state.files:
            if isinstance(state.store, Memory):
                state.store.clear()
            state.files, state.count = files, -1
        return state

    def text(self) -> str:
        """The call that made it."""
        given = [f"max_bytes={self.max_bytes}"] if self.max_bytes is not None else []
        given += [f"folder={self.folder!r}"] if self.folder is not None else []
        return f".cache({', '.join(given)})"


def _made(task: Task) -> tuple[Item, Cursor]:
    return task(), task.after


def _drawn(cache: Cache, run: Run, cursor: Cursor) -> tuple[Item, Cursor]:
    """A sample that was kept when it was looked for, and is no more."""
    tasks = cache.before.tasks(run, cursor)
    try:
        return _made(next(tasks))
    finally:
        _close(tasks)


class _Source:
    """The stream before a cache, asked for single samples in rising order.

    Where drawing a task costs nothing, it is drawn on over those that are kept. Where that makes samples (behind
    prefetch, filter or patch), the stream is closed there and begun again at the cursor of the next one that is not.
    """

    def __init__(self, cache: Cache, run: Run) -> None:
        self._before, self._run = cache.before, run
        self._eager = makes_to_draw(cache.before)
        self._tasks: Iterator[Task] | None = None
        self._next = 0

    def at(self, number: int, cursor: Cursor) -> Task | None:
        """The task of sample ``number``, before which ``cursor`` stands; None behind the last one."""
        if self._tasks is None:
            self._tasks, self._next = self._before.tasks(self._run, cursor), number
        task: Task | None = None
        while self._next <= number:
            task, self._next = next(self._tasks, None), self._next + 1
        return task

    def leave(self) -> None:
        """What comes next is kept."""
        if self._eager:
            self.close()

    def close(self) -> None:
        """Give up the stream."""
        tasks, self._tasks = self._tasks, None
        _close(tasks)


def _close(tasks: Any) -> None:
    if hasattr(tasks, "close"):
        tasks.close()
