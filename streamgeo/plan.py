"""The plan: how the steps of a key run on a scene, window by window where their reach allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.chunks import CACHE
from streamgeo.errors import SampleError, StepError
from streamgeo.grid import Grid, plain_grid
from streamgeo.meter import step_span
from streamgeo.naming import naming
from streamgeo.order import generator
from streamgeo.scene import ArrayScene, Scene
from streamgeo.step import Context, Step
from streamgeo.template import Template
from streamgeo.unread import Unread
from streamgeo.window import Window

Array = NDArray[Any]


@dataclass(frozen=True)
class Run:
    """What one pass over a chain depends on, beside the chain.

    ``skip`` leaves failing samples out of batches; ``lazy`` says that a later link wants scenes as they are, to
    read windows of them; ``slots`` that it has arrays of its own for the pixels of patches.
    """

    seed: int = 0
    epoch: int = 0
    skip: bool = field(default=False, compare=False)
    lazy: bool = field(default=False, compare=False)
    slots: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class Draw:
    """What names the random numbers of one step on one sample; the same for all its keys."""

    run: Run
    index: int
    step: int

    def generator(self) -> np.random.Generator:
        """A new generator, always the same."""
        return generator(self.run.seed, self.run.epoch, self.index, self.step)


@dataclass(slots=True)  # not frozen, which takes three times as long to make
class Place:
    """Where an array of a sample comes from: a scene, a window of it, and the grid it has by now."""

    scene: Scene
    index: int
    window: Window
    locate: Callable[[], Grid]
    residuals: Mapping[str, Array] = field(default_factory=dict)  # of steps on an array before it was cut

    @property
    def grid(self) -> Grid:
        """The grid of the array."""
        return self.locate()


@dataclass(slots=True)
class Item:
    """A sample on its way: arrays or lazy scenes by key, and the place of those that have one.

    ``parts`` are the samples of a batch, without their values; ``skipped`` are the errors of those left out.
    """

    index: int
    values: dict[str, Any]
    places: dict[str, Place] = field(default_factory=dict)
    residuals: dict[str, Array] = field(default_factory=dict)
    parts: Sequence[Item] = ()
    skipped: Sequence[SampleError] = ()

    def copy(self) -> Item:
        """A copy whose dicts may be changed."""
        return Item(
            self.index,
            self.values.copy(),
            self.places.copy(),
            self.residuals.copy(),
            self.parts,
            self.skipped,
        )


class StepScene(Scene):
    """A scene after a step that has not run yet; reads what the step's reach asks for, and no more."""

    reads_files = False  # its parents do

    def __init__(self, parent: Scene, step: Step, draw: Draw) -> None:
        step = step.settled(draw.generator, lambda: parent.frame)
        self.parent, self.step, self.draw = parent, step, draw
        self.name = parent.name
        self.dtype = step.dtype_after(parent.dtype)
        if step.moves is None:
            self.dims, self.shape = parent.dims, parent.shape
        else:
            self.dims, self.shape = self.grid.dims, self.grid.shape

    @cached_property
    def _grid(self) -> Grid:
        return self.step.grid_after(self.parent.grid)

    @property
    def grid(self) -> Grid:
        """Where the array lies after the step."""
        return self._grid

    @property
    def frame(self) -> Grid:
        """The same, as far as windows need it."""
        return self.parent.frame if self.step.moves is None else self.grid

    @cached_property
    def _template(self) -> Template:
        before = self.parent.template
        return before if self.step.units is None else before.in_units(self.step.units_after(before.units))

    @property
    def template(self) -> Template:
        """That of the file, with the units that the values have by now."""
        return self._template

    @property
    def files(self) -> tuple[str, ...]:
        """The files that it comes from."""
        return self.parent.files

    @property
    def pushes_down(self) -> bool:
        """Whether a window of it can be computed from a window of its parent."""
        if self.step.random or self.step.reach.margin is None:
            return False
        return self.step.moves is None or self.step.moves.source is not None

    @property
    def by_window(self) -> bool:
        """Whether windows suffice, from the file on."""
        return self.why_whole() is None

    def why_whole(self) -> str | None:
        """The first step, from the file on, that needs the whole scene; None when windows suffice."""
        above = self.parent.why_whole() if isinstance(self.parent, StepScene) else None
        if above or self.pushes_down:
            return above
        if self.step.random:
            return f"{self.step.label} draws random numbers for the scene as a whole"
        if self.step.reach.margin is None:
            return f"{self.step.label} has reach SCENE (say reach=sg.POINT if it works on each pixel alone)"
        return f"{self.step.label} moves pixels and does not say from where"

    def whole(self) -> Array:
        """All pixels after the step, whatever their shape."""
        parent = self.parent.whole() if isinstance(self.parent, StepScene) else self.parent.read()
        return self._apply(parent, self.parent.window)

    def residual(self) -> Array | None:
        """What forward returns beside its value, for the whole scene: read and computed again."""
        with naming(self.step.label, file=self.name):
            return self.step.apply(self.parent.read(), self._context(self.parent.window))[1]

    def _read_into(self, window: Window, out: Array) -> None:
        if self._in_place:
            self.parent.read_into(out, window)
            with naming(self.step.label, file=self.name, window=window), step_span(self.step.label):
                self.step.apply_in_place(out, self._context(window))
        else:
            out[...] = self._read(window)

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Those of the file, where windows of it are read and no pixel moves."""
        return self.parent.chunks if self.pushes_down and self.step.moves is None else None

    def foresee(self, window: Window) -> bool:
        """What a window of the step is computed from, where that is a window."""
        if not self.pushes_down or self.step.moves is not None:
            return False
        return self.parent.foresee(self._around(window))

    @cached_property
    def _in_place(self) -> bool:
        return self.step.writes_into and self.pushes_down and self.parent.dtype == self.dtype

    def _read(self, window: Window) -> Array:
        if self._in_place:
            out = np.empty(window.shape, self.dtype)
            self._read_into(window, out)
            return out
        if not self.pushes_down:
            whole: Array = CACHE.get(self, self._checked_whole, _nbytes)
            return whole[window.slices(self.dims)]
        moves = self.step.moves
        if moves is not None and moves.source is not None:
            source = moves.source(window, self.parent.grid)
            return self._apply(self.parent.read(source), source, moves.cut_for(window, self.parent.grid))
        around = self._around(window)
        if around is window:
            return self._apply(self.parent.read(window), window)
        return self._apply(self.parent.read(around), around)[window.relative_to(around).slices(self.dims)]

    def _around(self, window: Window) -> Window:
        """The window with what the step's reach asks for, as far as the scene goes."""
        margin = self.step.reach.margin or 0
        return window.expand(margin, self._horizontal()).clip(self.dims, self.shape) if margin else window

    def _horizontal(self) -> tuple[str, ...]:
        return self.frame.spatial

    def _checked_whole(self) -> Array:
        array = self.whole()
        if array.shape != self.shape:
            raise StepError(
                f"{self.step.label} returned shape {array.shape} for a scene of shape {self.shape}; say what it "
                "does to the grid with sg.Step(f, grid=...), or apply it after patch"
            )
        array.flags.writeable = False  # shared by all patches of the scene
        return array

    def _apply(self, array: Array, window: Window, cut: Callable[..., Any] | None = None) -> Array:
        step = self.step if cut is None else Step(cut)
        with naming(self.step.label, file=self.name, window=window), step_span(self.step.label):
            result: Array = step.apply(array, self._context(window))[0]
        return result

    def _context(self, window: Window) -> Context:
        return context_of(
            self.step, self.draw, lambda: self.parent.grid.crop(window), lambda: self.parent.attrs
        )


def origin(scene: Scene) -> Scene:
    """The scene before the steps that were put off on it."""
    while isinstance(scene, StepScene):
        scene = scene.parent
    return scene


NO_CONTEXT = Context()


def context_of(
    step: Step, draw: Draw, grid: Callable[[], Grid] | None, attrs: Callable[[], Mapping[str, Any]] | None
) -> Context:
    """What a step's forward asks for, worked out only if it asks."""
    names = step.asks
    return Context(
        grid=grid() if grid is not None and "grid" in names else None,
        attrs=attrs() if attrs is not None and "attrs" in names else {},
        rng=draw.generator() if "rng" in names else None,
    )


def apply_step(item: Item, key: str, output_key: str, step: Step, run: Run, number: int) -> None:
    """Run step ``number`` on one key of an item: put off on a lazy scene, at once on an array."""
    value = item.values[key]
    place = item.places.get(key)
    if type(value) is not np.ndarray:  # a check against an abstract class is slow
        if isinstance(value, Scene):
            item.values[output_key] = later = StepScene(value, step, Draw(run, item.index, number))
            if place is not None:
                item.places[output_key] = replace(
                    place, scene=later, window=later.window, locate=partial(grid_of, later)
                )
            return
        value = value.read() if type(value) is Unread else value
    context = NO_CONTEXT
    if step.asks:
        grid = place.locate if place else partial(plain_grid, np.shape(value))
        attrs = partial(attrs_of, place.scene) if place else None
        context = context_of(step, Draw(run, item.index, number), grid, attrs)
    try:
        with step_span(step.label):
            result, residual = step.apply(value, context)
    except SampleError:
        raise
    except Exception as error:  # as naming() does it: what does not fail costs less without the block
        file, window = (place.scene.name, place.window) if place else (None, None)
        raise naming(step.label, file=file, window=window).named(error) from error
    item.values[output_key] = result
    if residual is not None:
        item.residuals[residual_key(output_key, number)] = residual
    if place is not None:
        item.places[output_key] = replace(place, locate=partial(grid_after, step, place.locate, residual))


def residual_key(key: str, step: int) -> str:
    """The key under which a sample carries the residual of step number ``step``."""
    return f"{key}.residual.{step}"


def grid_of(scene: Scene) -> Grid:
    """Grid of a scene (a function that pickles)."""
    return scene.grid


def attrs_of(scene: Scene) -> Mapping[str, Any]:
    """Attributes of a scene."""
    return scene.attrs


def grid_after(step: Step, before: Callable[[], Grid], residual: Array | None = None) -> Grid:
    """Grid after a step on an array."""
    return step.grid_after(before(), residual)


def grid_of_window(scene: Scene, window: Window) -> Grid:
    """Grid of a window of a scene."""
    return scene.grid.crop(window)


def as_scene(array: Array, name: str) -> Scene:
    """A scene of an array that came without a file."""
    template = Template("numpy", plain_grid(array.shape).dims, raw=True)
    return ArrayScene(array, plain_grid(array.shape), template, name=name)


def finished(item: Item) -> dict[str, Array]:
    """The sample that the user sees: arrays only, with ``<key>.scene`` and ``<key>.window`` beside the placed."""
    if item.places or item.residuals:
        sample = outlined(item)
    else:  # nearly always, of arrays from memory
        sample = item.values
    return {
        key: _own(value) if type(value) is np.ndarray else _own(_array_of(value))
        for key, value in sample.items()
    }


def outlined(item: Item) -> dict[str, Array | Unread]:
    """The same, with patches that are not read yet, and arrays that belong to others, as they are."""
    out: dict[str, Array | Unread] = {}
    for key, value in item.values.items():
        out[key] = value if type(value) is np.ndarray or type(value) is Unread else _array_of(value)
        place = item.places.get(key) if item.places else None
        if place is not None:
            out[f"{key}.scene"] = np.array(place.index, np.int64)
            out[f"{key}.window"] = place.window.to_array()
    out.update(item.residuals)
    return out


def _own(array: Array) -> Array:
    flags = array.flags
    return array if flags.writeable and flags.c_contiguous else array.copy()


def loaded(item: Item) -> Item:
    """The item with its scenes read, so that whoever takes it need not wait for files."""
    scenes = [
        key
        for key, value in item.values.items()
        if type(value) is not np.ndarray and isinstance(value, Scene | Unread)
    ]
    if not scenes:
        return item
    item = item.copy()
    item.values.update({key: _array_of(item.values[key]) for key in scenes})
    return item


def _array_of(value: Any) -> Array:
    if isinstance(value, StepScene):
        return value.whole() if value.why_whole() else value.read()
    return value.read() if isinstance(value, Scene | Unread) else np.asarray(value)


def _nbytes(array: Array) -> int:
    return int(array.nbytes)
