"""Samples as a cache keeps them: arrays that nobody writes to, scenes whose pixels are kept once they were read."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from streamgeo.chunks import ByteCache
from streamgeo.errors import GridError
from streamgeo.grid import Grid
from streamgeo.links.base import Cursor
from streamgeo.meter import MISSES, count
from streamgeo.plan import Item, Place, StepScene
from streamgeo.scene import ArrayScene, MadeScene, Scene
from streamgeo.template import Template
from streamgeo.window import Window

Array = NDArray[Any]


class Entry(NamedTuple):
    """A finished sample, and in a stream the cursor behind it."""

    item: Item
    after: Cursor = None


class Store(Protocol):
    """Where entries are kept."""

    def get(self, key: Hashable, compute: Callable[[], Entry]) -> Entry:
        """The entry of ``key``; computed where it is not kept, by one thread for all that want it."""

    def after(self, key: Hashable) -> tuple[bool, Cursor]:
        """Whether it is kept, and the cursor behind it."""

    def room(self, key: Hashable, nbytes: int) -> bool:
        """Whether it is kept, or could be with so many bytes."""


class Memory:
    """Entries in memory. What was kept stays: samples come once an epoch, so whatever had to make room for
    another one would be wanted again before that one is.

    With ``prefix`` it keeps nothing more once something did not fit: what a stream keeps has no gaps then.
    """

    def __init__(self, limit: int | None, prefix: bool = False) -> None:
        self._cache = _Staying(limit, prefix)

    def __reduce__(self) -> tuple[Any, ...]:
        return Memory, (self._cache._limit, self._cache.prefix)

    def get(self, key: Hashable, compute: Callable[[], Entry]) -> Entry:
        """The entry of ``key``; computed where it is not kept, by one thread for all that want it."""
        entry: Entry = self._cache.get(key, compute, self._cost)
        return entry

    def _cost(self, entry: Entry) -> int:
        return -1 if entry.item.skipped else nbytes_of(entry.item) + self._cache.headers(entry.item)

    def after(self, key: Hashable) -> tuple[bool, Cursor]:
        """Whether it is kept, and the cursor behind it."""
        found = self._cache.peek(key)
        return (False, None) if found is None else (True, found.after)

    def room(self, key: Hashable, nbytes: int) -> bool:
        """Whether it is kept, or could be with so many bytes."""
        cache = self._cache
        return cache.peek(key) is not None or (not cache.full and cache.nbytes + nbytes <= cache.limit)

    def clear(self) -> None:
        """Forget all entries."""
        self._cache.clear()
        self._cache.full = False


_SCENE_COST = 64 << 10  # taken for the header of an open scene, which all its patches share


class _Staying(ByteCache):
    """A cache in which what is kept stays."""

    def __init__(self, limit: int | None, prefix: bool) -> None:
        super().__init__(limit)
        self.prefix = prefix

    def renew(self) -> None:
        super().renew()
        self.full = False
        self._scenes: weakref.WeakSet[Scene] = weakref.WeakSet()

    def peek(self, key: Hashable) -> Entry | None:
        """The entry if it is here."""
        with self._lock:
            found = self._values.get(key)
        return None if found is None else found[0]

    def _keep(self, key: Hashable, value: Entry, nbytes: int) -> None:
        if nbytes < 0 or self.full:
            return
        if self.nbytes + nbytes > self.limit:
            self.full = self.prefix
            return
        super()._keep(key, value, nbytes)

    def headers(self, item: Item) -> int:
        """Bytes of the scenes of an item that no entry before it came from."""
        found = {place.scene for part in (item, *item.parts) for place in part.places.values()}
        new = [scene for scene in found if scene not in self._scenes]
        for scene in new:
            self._scenes.add(scene)
        return _SCENE_COST * len(new)


def nbytes_of(item: Item) -> int:
    """Bytes of the arrays of an item; a lazy scene has none."""
    arrays = [value for value in item.values.values() if not isinstance(value, Scene)]
    arrays += item.residuals.values()
    for place in item.places.values():
        arrays += place.residuals.values()
    own = sum(int(np.asarray(array).nbytes) + 128 for array in arrays) + 512
    return own + sum(nbytes_of(part) for part in item.parts)


# -- freezing -------------------------------------------------------------------------------------------


def frozen(item: Item, store: Store, key: Hashable) -> Item:
    """The item to keep: copies of its arrays, and its lazy scenes as ones whose pixels ``store`` keeps."""
    values = {
        name: kept_scene(value, store, ("pixels", key, name)) if isinstance(value, Scene) else still(value)
        for name, value in item.values.items()
    }
    places = {
        name: _place(place, item.values.get(name), values.get(name)) for name, place in item.places.items()
    }
    residuals = {name: still(value) for name, value in item.residuals.items()}
    parts = [frozen(part, store, (key, number)) for number, part in enumerate(item.parts)]
    return replace(item, values=values, places=places, residuals=residuals, parts=parts)


def still(value: Any) -> Any:
    """A copy that nobody writes to; whoever made the value may go on with it. Text stays as it is."""
    if isinstance(value, str):
        return value
    array = np.asarray(value)
    column = array.flags.f_contiguous and not array.flags.c_contiguous
    array = np.array(array, order="F" if column else "C")
    array.flags.writeable = False
    return array


def _place(place: Place, value: Any, kept: Any) -> Place:
    """The place, without the pixels of an array that it was cut from, which would stay in memory with it."""
    residuals = {name: still(array) for name, array in place.residuals.items()}
    scene = place.scene
    if isinstance(value, Scene):
        new: Scene = kept if value is scene else scene
    elif isinstance(scene, ArrayScene):
        new = HollowScene(scene.name, scene.grid, scene.template, scene.dtype)
    else:
        new = scene
    return replace(place, scene=new, locate=_swapped(place.locate, scene, new), residuals=residuals)


def _swapped(f: Any, old: Scene, new: Scene) -> Any:
    """A partial function with another scene in its arguments, however deep."""
    if isinstance(f, partial):
        return partial(f.func, *(_swapped(a, old, new) for a in f.args), **f.keywords)
    return new if f is old else f


# -- scenes ---------------------------------------------------------------------------------------------


class HollowScene(MadeScene):
    """A scene that was an array in memory and is no more: where it lay, without its pixels."""

    def __init__(self, name: str, grid: Grid, template: Template, dtype: Any) -> None:
        super().__init__(np.dtype(dtype), grid, template, name, ())

    def _read(self, window: Window) -> Array:
        raise GridError(f"read: cache() kept patches of {self.name}, not the array that they were cut from")


class _Pixels:
    """The pixels of a lazy scene in a store; read or computed whole at the first wish."""

    def __init__(self, scene: Scene, store: Store, key: Hashable) -> None:
        self.scene, self.store, self.key = scene, store, key

    def whole(self) -> Array:
        """All pixels, whatever their shape."""
        if not self._fits():
            count(MISSES)
            return _pixels(self.scene)
        array: Array = self.store.get(self.key, self._entry).item.values[""]
        return array

    def window(self, window: Window) -> Array | None:
        """Pixels of a window; None where there is no room for the scene, or it has not the shape it said."""
        if not self._fits():
            count(MISSES)
            return None
        whole = self.whole()
        return whole[window.slices(self.scene.dims)] if whole.shape == tuple(self.scene.shape) else None

    def _fits(self) -> bool:
        nbytes = int(np.prod(self.scene.shape, dtype=np.int64)) * np.dtype(self.scene.dtype).itemsize
        return self.store.room(self.key, nbytes + 1024)

    def _entry(self) -> Entry:
        return Entry(Item(0, {"": still(_pixels(self.scene))}))


def _pixels(scene: Scene) -> Array:
    return scene.whole() if isinstance(scene, StepScene) and scene.why_whole() else scene.read()


class KeptScene(Scene):
    """A scene of a file whose pixels are kept once they were read."""

    reads_files = False

    def __init__(self, scene: Scene, pixels: _Pixels) -> None:
        self.name, self.dims, self.shape, self.dtype = scene.name, scene.dims, scene.shape, scene.dtype
        self.origin, self._pixels = scene, pixels

    @property
    def grid(self) -> Grid:
        """That of the scene."""
        return self.origin.grid

    @property
    def template(self) -> Template:
        """That of the scene."""
        return self.origin.template

    @property
    def files(self) -> tuple[str, ...]:
        """Those of the scene."""
        return self.origin.files

    @property
    def reader(self) -> str:
        """How its pixels are read."""
        return f"kept whole by cache(), from {self.origin.reader or 'its file'}"

    def _read(self, window: Window) -> Array:
        found = self._pixels.window(window)
        return self.origin.read(window) if found is None else found


class KeptStep(StepScene):
    """A scene after steps, whose pixels are kept once they were computed."""

    def __init__(self, scene: StepScene, pixels: _Pixels) -> None:
        self.__dict__.update(scene.__dict__)
        self.origin, self._pixels = scene, pixels

    def why_whole(self) -> str | None:
        """Why the scene has to be computed whole, if so."""
        return self.origin.why_whole()

    def whole(self) -> Array:
        """All pixels after the step."""
        return self._pixels.whole()

    def _read(self, window: Window) -> Array:
        found = self._pixels.window(window)
        return self.origin.read(window) if found is None else found


def kept_scene(scene: Scene, store: Store, key: Hashable) -> Scene:
    """A lazy scene whose pixels ``store`` keeps; it goes back the way of the scene itself."""
    pixels = _Pixels(scene, store, key)
    return KeptStep(scene, pixels) if isinstance(scene, StepScene) else KeptScene(scene, pixels)
