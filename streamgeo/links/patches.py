"""One scene becomes many samples."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np

from streamgeo.chunks import ByteCache
from streamgeo.errors import ChainError, OpenError, SampleError, StepError
from streamgeo.gate import renewed_in_children
from streamgeo.headers import MANY, THREADS, looked_at
from streamgeo.indexing import Frame, Known
from streamgeo.links.base import Cursor, Link, Node, Task
from streamgeo.links.combine import Joined
from streamgeo.links.order import Repeat, Select
from streamgeo.links.sources import Files, MlxBuffer, Vector
from streamgeo.links.steps import Map
from streamgeo.links.values import need
from streamgeo.naming import naming
from streamgeo.openers import Opener
from streamgeo.order import localized
from streamgeo.plan import Item, Place, Run, as_scene, grid_of_window
from streamgeo.scene import Scene
from streamgeo.step import POINT
from streamgeo.steps.patch import Layout, Patch
from streamgeo.unread import Unread


@dataclass(eq=False)
class _Scenes:
    """What a patched link keeps in this process: opened scenes, how many patches each has, and where they end.

    ``failed`` are scenes that cannot be opened; where failing samples are skipped, each counts as one patch, which
    fails. ``ends`` are kept by order: that of the last two epochs where each has its own.
    """

    items: ByteCache = field(default_factory=lambda: ByteCache(64 << 20))
    counts: dict[Hashable, int] = field(default_factory=dict)
    failed: dict[Hashable, SampleError] = field(default_factory=dict)
    ends: dict[Hashable, list[int]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    block: int | None = None  # see Expand.block
    known: Known | None = None  # from the index of the files; see Expand._source
    sizes: dict[Frame, int] = field(default_factory=dict)  # patches of the scenes that the index tells

    def __post_init__(self) -> None:
        renewed_in_children(self)

    def renew(self) -> None:
        """A new lock, as in a forked child."""
        self.lock = threading.Lock()

    def ends_of(self, order: Hashable) -> list[int]:
        """Where the patches of each scene end in an order, as far as they were counted."""
        if (known := self.ends.get(order)) is not None:
            return known
        with self.lock:
            found = self.ends.setdefault(order, [])
            while len(self.ends) > 2:
                self.ends.pop(next(key for key in self.ends if key != order))
        return found


_SLICE = 1024  # files whose size and time of modification one thread asks for in a row
_BLOCK = 32  # patches that a shuffle keeps together at least
_LARGEST_BLOCK = 4096  # and at most: an order is worked out for 16 blocks at a time
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

    def length(self, run: Run) -> int:
        """How many patches all scenes have, from their headers."""
        if not self.before.indexable:
            raise TypeError(
                f"{self.shown[1:]}: how many patches a stream of scenes gives is known at its end"
            )
        size, ends = self.before.length(run), self._ends(run)
        if len(ends) < size:
            self._count_to(size, run)
        return ends[size - 1] if size else 0

    def counted(self, scenes: int) -> int | None:
        """How many patches so many scenes have, where that is known by now; no header is read for it."""
        ends = self._ends(Run())
        return (ends[-1] if ends else 0) if len(ends) == scenes else None

    def _ends(self, run: Run) -> list[int]:
        return self._state.ends_of((run.skip, run if self._mixed else None))

    @cached_property
    def _mixed(self) -> bool:
        return mixes(self.before)

    def item(self, index: int, run: Run) -> Item:
        """One patch, by its number over all scenes."""
        at = self._find(index, run)
        if at is None:
            raise IndexError(index)
        return self.cut(*at, index, run)

    def _find(self, index: int, run: Run) -> tuple[int, int] | None:
        """Scene and number in the scene of a patch; None past the end."""
        ends = self._ends(run)
        while not (ends and index < ends[-1]):
            if not self._count_to(len(ends) + 1, run):
                return None
        scene = bisect_right(ends, index)
        return scene, index - (ends[scene - 1] if scene else 0)

    def _count_to(self, scenes: int, run: Run) -> bool:
        """Count the patches of the first ``scenes`` scenes, from their headers; False when there are not so many."""
        ends = self._ends(run)
        size = self.before.length(run)
        with self._state.lock:
            numbers = range(len(ends), min(scenes, size))
            for count in self._counts(numbers, run):
                ends.append(count + (ends[-1] if ends else 0))
        return len(ends) >= scenes

    def _counts(self, numbers: range, run: Run) -> Iterator[int]:
        """Patches of each scene; from the index of the files, else headers of many files are read by threads."""
        new = [n for n in numbers if self._told(n, run) not in self._state.counts]
        if new and (source := self._source) is not None:
            new = self._count_known(new, *source, run)
        if len(new) >= MANY:
            self._open_all(new, run)
        for number in numbers:
            yield self._count(number, run)

    @property
    def _source(self) -> tuple[Files, str] | None:
        """The files with an index and the opener, where steps that keep the size of scenes lie between."""
        node, key, opener = self.before, self.keys[0], None
        while isinstance(node, Map | Select):
            if isinstance(node, Map):
                if node.outputs != (key,):
                    return None
                key, step = node.keys[0], node.step
                if isinstance(step, Opener):
                    if opener is not None:
                        return None
                    opener = step
                elif opener is not None or step.reach != POINT or step.moves is not None:
                    return None
            node = node.before
        if opener is None or len(self.keys) > 1 or not isinstance(node, Files) or node.key != key:
            return None
        return None if node.index is None else (node, repr(opener))

    def _count_known(self, numbers: Sequence[int], files: Files, opener: str, run: Run) -> list[int]:
        """Count the scenes that the index knows; numbers of the others."""
        state = self._state
        if state.known is None:
            state.known = Known(str(files.index), opener)
        known = state.known

        def frames(some: Sequence[int]) -> list[Frame | None]:  # waits for the disk: once for each file
            paths = [files.paths[self._origin(number, run)[1]] for number in some]
            return [known.frame(path) if isinstance(path, str) else None for path in paths]

        left = []
        parts = [numbers[start : start + _SLICE] for start in range(0, len(numbers), _SLICE)]
        with ThreadPoolExecutor(THREADS, "streamgeo-index") as pool:
            for part, found in zip(parts, pool.map(frames, parts) if len(parts) > 1 else map(frames, parts)):
                for number, frame in zip(part, found):
                    if (count := self._patches_of(frame)) is None:
                        left.append(number)
                    else:
                        state.counts[self._told(number, run)] = count
        return left

    def _patches_of(self, frame: Frame | None) -> int | None:
        """How many patches a scene has; None where it is not known, or opening the file tells what is wrong."""
        if frame is None:
            return None
        sizes = self._state.sizes
        if frame not in sizes:
            try:
                sizes[frame] = len(self.step.layout_of(frame.dims, frame.shape, frame.spatial))
            except StepError:
                return None
        return sizes[frame]

    def _open_all(self, numbers: Sequence[int], run: Run) -> None:
        """Count many scenes at once; a scene that cannot be opened does not hide the others.

        Raises:
            SampleError: for scenes that cannot be opened, unless they are to be skipped.
        """

        def count(number: int) -> SampleError | None:
            try:
                self._count(number, run)
            except SampleError as error:
                return error
            return None

        errors = [error for error in looked_at(count, numbers) if error is not None]
        if len(errors) == 1:
            raise errors[0]
        if errors:
            listed = "; ".join(str(error) for error in errors[:3])
            raise SampleError(
                f"{len(errors)} of {len(numbers)} scenes cannot be opened: {listed}"
                f"{'; ...' if len(errors) > 3 else ''}; take them out, or use "
                '.to_stream().on_error("skip")',
                index=errors[0].index,
                file=errors[0].file,
                step=errors[0].step,
            ) from errors[0].__cause__

    def _count(self, number: int, run: Run) -> int:
        told, state = self._told(number, run), self._state
        if told in state.counts and (run.skip or told not in state.failed):
            return state.counts[told]
        try:
            with naming(self.step.label, index=number):
                state.counts[told] = len(self.scene(number, run)[1])
            state.failed.pop(told, None)
        except SampleError as error:
            if not run.skip:
                raise
            state.failed[told], state.counts[told] = error, 1
        return state.counts[told]

    def _told(self, number: int, run: Run) -> Hashable:
        """What tells scene ``number`` whatever the order, where that can be known; else its place in the epoch."""
        if self.before.random:
            return number, run
        node, at = self._origin(number, run)
        if isinstance(node, Vector | Files | MlxBuffer):
            return at
        return number, run if self._mixed else None

    def _origin(self, number: int, run: Run) -> tuple[Node, int]:
        """The link that scene ``number`` comes from through changes of order and steps, and its number there."""
        node, at = self.before, number
        while isinstance(node, Select | Map) and node.parent is not None:
            at = node.pick(at, node.parent.length(run), run) if isinstance(node, Select) else at
            node = node.parent
        return node, at

    def tasks(self, run: Run, cursor: Cursor = None) -> Iterator[Task]:
        """All patches of one scene after those of another; a scene is opened when its turn comes."""
        if not self.before.indexable:
            yield from self._stream_tasks(run, cursor)
            return
        index = cursor or 0
        while (at := self._find(index, run)) is not None:
            number, first = at
            for part in range(first, self._count(number, run)):
                yield Task(partial(self.cut, number, part, index, run), index + 1)
                index += 1

    def _stream_tasks(self, run: Run, cursor: Cursor) -> Iterator[Task]:
        scenes, first, index = cursor or (None, 0, 0)
        for task in self.before.tasks(replace(run, lazy=True, slots=False), scenes):
            try:
                item = task()
                layout = self._layout(item)
            except Exception as error:  # its turn comes like that of a patch, and then it is told
                index += 1
                yield Task.failing(error, [task.after, 0, index])
                scenes, first = task.after, 0
                continue
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

        found: tuple[Item, Layout] = self._state.items.get(self._told(number, run), compute, _cost)
        return found

    def cut(self, number: int, part: int, index: int, run: Run) -> Item:
        """Patch ``part`` of scene ``number``."""
        if self._state.failed and run.skip and (error := self._state.failed.get(self._told(number, run))):
            raise error
        item, layout = self.scene(number, run)
        return self._cut(item, layout, part, index, run.slots)

    def _layout(self, item: Item) -> Layout:
        scenes = [self._as_scene(item, key) for key in self.keys]
        layout = self.step.layout(scenes[0].frame, scenes[0].name)
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
        for key, output in zip(self.keys, self.outputs):
            scene = self._as_scene(item, key)
            window = box if scene.dims == layout.dims else layout.on(box, scene.dims, scene.shape)
            later = Unread(self.step, scene, window)
            out.values[output] = later if slots else later.read()
            number = item.places[key].index if key in item.places else item.index
            named = [n for n in out.residuals if n.startswith(f"{key}.residual.")] if out.residuals else ()
            kept = {name: out.residuals.pop(name) for name in named}
            out.places[output] = Place(scene, number, window, partial(grid_of_window, scene, window), kept)
        return out

    def block(self) -> int:
        """How many consecutive patches share their chunks with each other, and with no others: by the first scene."""
        state = self._state
        if state.block is None:
            chunks, layout = None, None
            plain = all(isinstance(link, Files | Map | Select) for link in self.before.path)
            if plain and self.before.length(Run()):
                try:
                    item, layout = self.scene(0, Run())
                    chunks = item.values[self.keys[0]].chunks
                except (SampleError, OpenError, StepError):
                    pass  # it fails when its turn comes, which says why
            band = layout.band(chunks) if layout is not None and chunks is not None else 1
            state.block = band * -(-_BLOCK // band) if band <= _LARGEST_BLOCK else _BLOCK
        return state.block

    def text(self) -> str:
        """The call that made it."""
        return self.shown


def near(position: int, size: int, run: Run, *, seed: int, node: Node) -> int:
    """Index at ``position`` of an order in which the patches of a chunk stay near one another."""
    return localized(position, size, seed, run.epoch, block_of(node))


def block_of(node: Node) -> int:
    """How many samples behind a link stay together in a local order; see :meth:`Expand.block`."""
    while not isinstance(node, Expand) and isinstance(node, Map):
        node = node.before
    return node.block() if isinstance(node, Expand) else _BLOCK


def mixes(node: Node) -> bool:
    """Whether the order of its samples may change with the epoch."""
    parents = node.parents if isinstance(node, Joined) else (node.parent,)
    here = isinstance(node, Select) and node.reseed is not None
    return here or isinstance(node, Repeat) or any(mixes(p) for p in parents if p is not None)


def shares_chunks(node: Node) -> bool:
    """Whether neighbours among its samples are neighbours in a file: patches of one scene."""
    return any(isinstance(link, Expand) for link in node.path)


def _cost(found: tuple[Item, Layout]) -> int:
    values = found[0].values.values()
    return sum(
        _SCENE_COST if isinstance(value, Scene) else np.asarray(value).nbytes + 512 for value in values
    )
