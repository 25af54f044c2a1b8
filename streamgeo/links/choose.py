"""Samples chosen by the header of a key, before any pixel is read."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from streamgeo.errors import ChainError, SampleError
from streamgeo.gate import renewed_in_children
from streamgeo.headers import looked_at
from streamgeo.links.base import Cursor, Link, Task
from streamgeo.links.patches import mixes
from streamgeo.links.values import need
from streamgeo.naming import naming
from streamgeo.parameters import objection
from streamgeo.plan import Item, Run
from streamgeo.scene import Scene

LOG = logging.getLogger("streamgeo")
Predicate = Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True)
class _Chosen:
    """Indices of the samples that pass, and the reasons of those that do not by what names them."""

    order: Sequence[int]
    left_out: Mapping[str, str]


@dataclass(eq=False)
class _Kept:
    """What was chosen in this process; of the last two epochs where each has its own order."""

    found: dict[Hashable, _Chosen] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        renewed_in_children(self)

    def renew(self) -> None:
        """A new lock, as in a forked child."""
        self.lock = threading.RLock()


@dataclass(frozen=True, eq=False)
class Choose(Link):
    """Samples whose header passes all predicates. A buffer stays one: the headers are read once, when first needed."""

    key: str
    predicates: tuple[Predicate, ...]
    shown: str

    keeps_order = True

    @cached_property
    def _kept(self) -> _Kept:
        return _Kept()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_kept"}

    def length(self, run: Run) -> int:
        """How many samples pass."""
        if not self.before.indexable:
            raise TypeError("a filtered stream has no length: how many pass is known at its end")
        return len(self.chosen(run).order)

    def at(self, index: int, run: Run) -> int:
        """The index, in the link before, of a sample that passes."""
        return self.chosen(run).order[index]

    def item(self, index: int, run: Run) -> Item:
        """The item that stands at ``index`` among those that pass."""
        return self.before.item(self.at(index, run), run)

    def tasks(self, run: Run, cursor: Cursor = None) -> Iterator[Task]:
        """Those that pass; a sample that fails is handed on, so that its error is not lost."""
        if self.before.indexable:
            yield from super().tasks(run, cursor)
            return
        for task in self.before.tasks(replace(run, lazy=True, slots=False), cursor):
            try:
                item = task()
                passes = self.why_not(item) is None
            except Exception as error:
                yield Task.failing(error, task.after)
                continue
            if passes:
                yield Task.of(item, task.after)

    def chosen(self, run: Run) -> _Chosen:
        """Which samples pass, from their headers.

        Raises:
            SampleError: for a sample that cannot be opened; where failing samples are to be skipped, it counts as
                one that passes, and fails when its turn comes.
        """
        key = (run.skip, run if mixes(self.before) or self.before.random else None)
        with self._kept.lock:
            found = self._kept.found.get(key)
            if found is None:
                found = self._kept.found[key] = self._choose(run)
                while len(self._kept.found) > 2:
                    self._kept.found.pop(next(iter(self._kept.found)))
        return found

    def _choose(self, run: Run) -> _Chosen:
        size = self.before.length(run)
        order: list[int] = []
        left_out: dict[str, str] = {}
        for index, found in enumerate(self._reasons(size, replace(run, lazy=True, slots=False))):
            if isinstance(found, SampleError) and not run.skip:
                raise found
            if found is None or isinstance(found, SampleError):
                order.append(index)
            else:
                name, reason = found
                left_out[name if name not in left_out else f"{name} (sample {index})"] = reason
        if left_out:
            first = next(f"{name}: {reason}" for name, reason in left_out.items())
            LOG.info("filter_by_attrs: %d of %d left out, such as %s", len(left_out), size, first)
        return _Chosen(order, left_out)

    def _reasons(self, size: int, run: Run) -> Iterator[tuple[str, str] | SampleError | None]:
        """For each sample None where it passes, else what it is and why not, or its error."""

        def look(index: int) -> tuple[str, str] | SampleError | None:
            try:
                with naming("filter_by_attrs", index=index):
                    item = self.before.item(index, run)
                    reason = self.why_not(item)
                    return None if reason is None else (self._scene(item).name, reason)
            except SampleError as error:
                return error

        return looked_at(look, range(size))

    def why_not(self, item: Item) -> str | None:
        """Why a sample does not pass; None where it does."""
        scene = self._scene(item)
        attrs = scene.attrs
        with naming("filter_by_attrs", file=scene.name):
            return next(filter(None, (objection(predicate, attrs) for predicate in self.predicates)), None)

    def _scene(self, item: Item) -> Scene:
        need(item, self.key, "filter_by_attrs")
        value, place = item.values[self.key], item.places.get(self.key)
        if isinstance(value, Scene):
            return value
        if place is None:
            raise ChainError(
                f"filter_by_attrs: {self.key!r} comes from no file, so it has no header; put it behind an opener, or "
                "use filter"
            )
        return place.scene

    def text(self) -> str:
        """The call that made it."""
        return self.shown
