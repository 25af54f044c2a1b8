"""Steps on keys, and changes of whole samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import ChainError
from streamgeo.links.bare import Bare
from streamgeo.links.base import Cursor, Link, Node, Task
from streamgeo.links.values import as_value, need
from streamgeo.meter import step_span
from streamgeo.naming import naming
from streamgeo.openers import Opener
from streamgeo.parameters import function_name
from streamgeo.plan import Item, Place, Run, apply_step, finished, grid_of
from streamgeo.step import Step

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Map(Link):
    """A step on one key or several."""

    keys: tuple[str, ...]
    outputs: tuple[str, ...]
    step: Step
    shown: str

    @cached_property
    def random(self) -> bool:
        """Whether it, or a link before it, draws random numbers."""
        return self.step.random or self.before.random

    @cached_property
    def _maps(self) -> tuple[Node, tuple[Map, ...]]:
        """The steps that follow one another up to this one, and the link before them: they run as one."""
        before, maps = self.before._maps if type(self.before) is Map else (self.before, ())
        return before, (*maps, self)

    @cached_property
    def bare(self) -> Bare | None:
        """As the link before, if the step asks for nothing but the array."""
        bare = self.before.bare
        return bare.then(self.step, self.keys, self.outputs) if bare is not None else None

    def item(self, index: int, run: Run) -> Item:
        """The item of the link before, with the step applied."""
        if self.bare is not None:
            return self.bare.item(index, run)
        before, maps = self._maps
        return _applied(before.item(index, run), maps, run)

    def tasks(self, run: Run, cursor: Cursor = None) -> Iterator[Task]:
        """Those of the link before, each followed by the step."""
        before, maps = self._maps
        if type(before).tasks is Node.tasks:  # by index, and so are these
            return super().tasks(run, cursor)
        return (task.then(_applied, maps, run) for task in before.tasks(run, cursor))

    def apply(self, item: Item, run: Run) -> Item:
        """The step on its keys; the same random draws for each."""
        return _applied(item, (self,), run)

    def change(self, item: Item, run: Run) -> None:
        """The same, in an item that may be written to."""
        step = self.step
        for key, output in zip(self.keys, self.outputs):
            need(item, key, step.label)
            if isinstance(step, Opener):
                self._open(item, key, output)
            else:
                apply_step(item, key, output, step, run, self.depth)

    def _open(self, item: Item, key: str, output: str) -> None:
        path = item.values[key]
        with (
            naming(self.step.label, file=path if isinstance(path, str) else None),
            step_span(self.step.label),
        ):
            scene = self.step(path)
        item.values[output] = scene
        item.places[output] = Place(scene, item.index, scene.window, partial(grid_of, scene))

    def text(self) -> str:
        """The call that made it."""
        return self.shown


def _applied(item: Item, maps: tuple[Map, ...], run: Run) -> Item:
    item = item.copy()
    for link in maps:
        link.change(item, run)
    return item


@dataclass(frozen=True, eq=False)
class Edit(Link):
    """A change of a whole sample: rename, filter, or the user's own function."""

    change: Callable[[Item], Item]
    shown: str
    touches: tuple[str, ...] | None = ()
    renames: tuple[str, str] | None = None

    def item(self, index: int, run: Run) -> Item:
        """The changed item."""
        return self.change(self.before.item(index, run))

    def tasks(self, run: Run, cursor: Cursor = None) -> Iterator[Task]:
        """The changed items."""
        return (task.then(self.change) for task in self.before.tasks(run, cursor))

    def text(self) -> str:
        """The call that made it."""
        return self.shown


def rename(item: Item, key: str, output_key: str) -> Item:
    """The key under another name, with its place and residuals."""
    item = item.copy()
    if item.values:  # the parts of a batch have none
        need(item, key, "rename_key")
        item.values[output_key] = item.values.pop(key)
    if key in item.places:
        item.places[output_key] = item.places.pop(key)
    item.parts = [rename(part, key, output_key) for part in item.parts]
    item.residuals = {
        output_key + name[len(key) :] if name.startswith(f"{key}.residual.") else name: value
        for name, value in item.residuals.items()
    }
    return item


def select_keys(item: Item, key: str, remove: bool) -> Item:
    """Only this key, or all but this key."""
    need(item, key, "filter_key")
    keep = [name for name in item.values if (name == key) != remove]
    return replace(
        item,
        values={name: item.values[name] for name in keep},
        places={name: place for name, place in item.places.items() if name in keep},
        residuals={n: value for n, value in item.residuals.items() if n.split(".residual.")[0] in keep},
    )


def transform_sample(item: Item, f: Callable[[dict[str, Any]], Any]) -> Item:
    """The user's function on the sample as arrays; places stay with the keys whose shape is unchanged."""
    sample = finished(item)
    shapes = {key: value.shape for key, value in sample.items()}
    label = f"sample_transform({function_name(f)})"
    with naming(label):
        with step_span(label):
            result = f(sample)
        if not isinstance(result, Mapping):
            raise ChainError(f"it returned {type(result).__name__}; return a dict of arrays")
        values = {key: as_value(value) for key, value in result.items()}
    hidden = {f"{key}.{part}" for key in item.places for part in ("scene", "window")} | set(item.residuals)
    kept = {
        key: p for key, p in item.places.items() if key in values and np.shape(values[key]) == shapes[key]
    }
    residuals = {name: value for name, value in item.residuals.items() if name in values}
    shown = {key: value for key, value in values.items() if key not in hidden}
    return replace(item, values=shown, places=kept, residuals=residuals)
