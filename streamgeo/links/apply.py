"""Functions on the arrays of a sample, random ones too: what the vocabulary's operations are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.links.base import Cursor, Node, Task
from streamgeo.links.steps import Edit
from streamgeo.links.values import as_value, need
from streamgeo.meter import step_span
from streamgeo.naming import naming
from streamgeo.plan import Draw, Item, Run, finished

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Apply(Edit):
    """A change of a sample that may draw random numbers: ``change(item, rng)``.

    What it writes has no way back, and lies on no grid any more.
    """

    change: Callable[..., Item]
    draws: bool = False

    @cached_property
    def random(self) -> bool:
        """Whether it, or a link before it, draws random numbers."""
        return self.draws or self.before.random

    def item(self, index: int, run: Run) -> Item:
        """The changed item."""
        return self.apply(self.before.item(index, run), run)

    def tasks(self, run: Run, cursor: Cursor = None) -> Iterator[Task]:
        """The changed items."""
        return (task.then(self.apply, run) for task in self.before.tasks(run, cursor))

    def apply(self, item: Item, run: Run) -> Item:
        """The change, with a generator of its own for each sample where it draws."""
        label = label_of(self.shown)
        with naming(label), step_span(label):
            if not self.draws:
                return self.change(item)
            return self.change(item, rng=Draw(run, item.index, self.depth).generator())


def label_of(shown: str) -> str:
    """The call that made a link, for messages; a long one with its first argument only."""
    return shown[1:] if len(shown) <= 100 else f"{shown[1:].partition(',')[0]}, ...)"


def on_key(item: Item, f: Callable[..., Any], key: str, output_key: str, operation: str, **rng: Any) -> Item:
    """The item with ``f(array)`` under ``output_key``, or under ``key`` where that is empty."""
    need(item, key, operation)
    return written(item, {output_key or key: f(arrays(item, [key])[key], **rng)})


def on_sample(item: Item, f: Callable[..., Mapping[str, Any]], keys: tuple[str, ...], operation: str) -> Item:
    """The item with what ``f`` makes of the arrays under ``keys``, a dict of arrays too."""
    for key in keys:
        need(item, key, operation)
    return written(item, f(arrays(item, keys)))


def arrays(item: Item, keys: Sequence[str]) -> dict[str, Array]:
    """Some values of an item as arrays that must not be written to; a lazy scene is read."""
    return {key: _array(item, key) for key in keys}


def _array(item: Item, key: str) -> Array:
    value = item.values[key]
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value)
    return finished(Item(item.index, {key: value}))[key]


def written(item: Item, values: Mapping[str, Any]) -> Item:
    """The item with other values under some keys, which lose their places and residuals."""
    item = item.copy()
    for key, value in values.items():
        item.values[key] = as_value(value)
        item.places.pop(key, None)
        for name in [name for name in item.residuals if name.startswith(f"{key}.residual.")]:
            del item.residuals[name]
    return item


def applied(
    before: Node,
    f: Callable[..., Any],
    key: str,
    output_key: str,
    operation: str,
    shown: str,
    draws: bool = False,
) -> Apply:
    """The link of a function on one key."""
    change = partial(on_key, f=f, key=key, output_key=output_key, operation=operation)
    return Apply(before, change, shown, (output_key or key,), draws=draws)
