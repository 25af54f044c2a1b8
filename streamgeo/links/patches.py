"""One scene becomes many samples."""

from __future__ import annotations

import os
import threading
import weakref
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np

from streamgeo.chunks import ByteCache
from streamgeo.errors import ChainError
from streamgeo.links.base import Cursor, Link, Node, Task, need
from streamgeo.plan import Item, Place, Run, Unread, as_scene, grid_of_window, naming
from streamgeo.scene import Scene
from streamgeo.steps.patch import Layout, Patch
from streamgeo.window import Window


@dataclass(eq=False)
class _Scenes:
    """What a patched link keeps in this process: opened scenes, and how many patches each has."""

    items: ByteCache = field(default_factory=lambda: ByteCache(64 << 20))
    ends: list[int] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        _KEPT.add(self)


_KEPT: weakref.WeakSet[_Scenes] = weakref.WeakSet()


def _after_fork() -> None:
    for scenes in list(_KEPT):
        scenes.lock = threading.Lock()  # a thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


_SCENE_COST = 64 << 10  # taken for the header of an open scene: about a thousand are kept


@dataclass(frozen=True, eq=False)
class Expand(Link):
    """One sample becomes one for each of its patches."""

    keys: tuple[str, ...]
    outputs: tuple[str, ...]
    step: Patch
    shown: str

    @cached_property
    def _state(self) -> _Scenes:
        return _Scenes()

    def __len__(self) -> int:
        size = len(self.before)
        self._count_to(size, Run())
        return self._state.ends[-1] if size else 0

    def item(self, index: int, run: Run) -> Item:
        """One patch, by its number over all scenes."""
        at = self._find(index, run)
        if at is None:
            raise IndexError(index)
        return self.cut(*at, index, run)

    def _find(self, index: int, run: Run) -> tuple[int, int] | None:
        """Scene and number in the scene of a patch; None past the end."""
        ends = self._state.ends
        while not (ends and index < ends[-1]):
            if not self._count_to(len(ends) + 1, run):
                return None
        scene = bisect_right(ends, index)
        return scene, index - (ends[scene - 1] if scene else 0)

    def _count_to(self, scenes: int, run: Run) -> bool:
        """Count the patches of the first ``scenes`` scenes, from their headers; False when there are not so many."""
        state = self._state
        with state.lock:
            while len(state.ends) < min(scenes, len(self.before)):
                number = len(state.ends)
                with naming(self.step.label, index=number):
                    count = len(self.scene(number, run)[1])
                state.ends.append(count + (state.ends[-1] if state.ends else 0))
        return len(state.ends) >= scenes

    def tasks(self, run: Run, cursor: Cursor = None) -> Iterator[Task]:
        """All patches of one scene after those of another; a scene is opened when its turn comes."""
        if not self.before.indexable:
            yield from self._stream_tasks(run, cursor)
            return
        index = cursor or 0
        while (at := self._find(index, run)) is not None:
            number, first = at
            for part in range(first, len(self.scene(number, run)[1])):
                yield Task(partial(self.cut, number, part, index, run), index + 1)
                index += 1

    def _stream_tasks(self, run: Run, cursor: Cursor) -> Iterator[Task]:
        scenes, first, index = cursor or (None, 0, 0)
        for task in self.before.tasks(replace(run, lazy=True, slots=False), scenes):
            item = task()
            layout = self._layout(item)
            for part in range(first, len(layout)):
                index += 1
                after = [scenes, part + 1, index]
                yield Task(partial(self._cut, item, layout, part, index - 1, run.slots), after)
            scenes, first = task.after, 0

    def scene(self, number: int, run: Run) -> tuple[Item, Layout]:
        """The whole sample, lazy where it came from a file, and the layout of its patches."""

        def compute() -> tuple[Item, Layout]:
            item = self.before.item(number, replace(run, lazy=True, slots=False)).copy()
            for name in self.keys:
                item.values[name] = self._as_scene(item, name)
            return item, self._layout(item)

        key = (number, run if self.before.random else None)
        found: tuple[Item, Layout] = self._state.items.get(key, compute, _cost)
        return found

    def cut(self, number: int, part: int, index: int, run: Run) -> Item:
        """Patch ``part`` of scene ``number``."""
        item, layout = self.scene(number, run)
        return self._cut(item, layout, part, index, run.slots)

    def _layout(self, item: Item) -> Layout:
        scenes = [self._as_scene(item, key) for key in self.keys]
        layout = self.step.layout(scenes[0].grid, scenes[0].name)
        dims = [layout.dims[axis] for axis in layout.patched]
        for key, scene in zip(self.keys[1:], scenes[1:]):
            if not scene.grid.same_place(scenes[0].grid, dims):
                raise ChainError(
                    f"patch: {key!r} ({scene.name}: {scene.grid}) does not lie on the grid of "
                    f"{self.keys[0]!r} ({scenes[0].name}: {scenes[0].grid}); bring both to one grid first"
                )
        return layout

    def _as_scene(self, item: Item, key: str) -> Scene:
        need(item, key, "patch")
        value = item.values[key]
        return (
            value
            if isinstance(value, Scene)
            else as_scene(np.asarray(value), f"{key} of sample {item.index}")
        )

    def _cut(self, item: Item, layout: Layout, part: int, index: int, slots: bool) -> Item:
        out = Item(index, dict(item.values), dict(item.places), dict(item.residuals))
        box = layout[part]
        cut = {dim: box[dim] for dim in (layout.dims[axis] for axis in layout.patched)}
        for key, output in zip(self.keys, self.outputs):
            scene = self._as_scene(item, key)
            window = (
                box
                if scene.dims == layout.dims
                else Window({dim: cut.get(dim, slice(0, size)) for dim, size in zip(scene.dims, scene.shape)})
            )
            later = Unread(self.step, scene, window)
            out.values[output] = later if slots else later.read()
            number = item.places[key].index if key in item.places else item.index
            kept = {n: out.residuals.pop(n) for n in list(out.residuals) if n.startswith(f"{key}.residual.")}
            out.places[output] = Place(scene, number, window, partial(grid_of_window, scene, window), kept)
        return out

    def text(self) -> str:
        """The call that made it."""
        return self.shown


def shares_chunks(node: Node) -> bool:
    """Whether neighbours among its samples are neighbours in a file: patches of one scene."""
    return any(isinstance(link, Expand) for link in node.path)


def _cost(found: tuple[Item, Layout]) -> int:
    values = found[0].values.values()
    return sum(
        _SCENE_COST if isinstance(value, Scene) else np.asarray(value).nbytes + 512 for value in values
    )
