"""Where samples come from: lists, files, iterables, mlx-data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from typing import Any

import numpy as np

from streamgeo.errors import ChainError
from streamgeo.links.bare import Bare
from streamgeo.links.base import Cursor, Node, Task
from streamgeo.links.values import as_value
from streamgeo.meter import SOURCE, spanned
from streamgeo.plan import Item, Run


@dataclass(frozen=True, eq=False)
class Vector(Node):
    """Samples from a list of dicts."""

    data: Sequence[Mapping[str, Any]]
    shown: str = "sg.buffer_from_vector([...])"

    indexable = True

    def length(self, run: Run) -> int:
        """How many samples an epoch has."""
        return len(self.data)

    @cached_property
    def bare(self) -> Bare | None:
        """Its samples are arrays in memory."""
        return Bare(self.data)

    def item(self, index: int, run: Run) -> Item:
        """A copy of one dict, its values as arrays."""
        return Item(index, {key: as_value(value) for key, value in self.data[index].items()})

    def text(self) -> str:
        """The call that made it."""
        return self.shown


@dataclass(frozen=True, eq=False)
class Files(Node):
    """One sample a file (or group of files), under one key; ``index`` is a file that tells the size of scenes."""

    paths: tuple[str | tuple[str, ...], ...]
    key: str
    shown: str
    index: str | None = None

    indexable = True

    def length(self, run: Run) -> int:
        """How many samples an epoch has."""
        return len(self.paths)

    def item(self, index: int, run: Run) -> Item:
        """The path as a numpy string, or an array of strings for a group."""
        path = self.paths[index]
        return Item(index, {self.key: np.str_(path) if isinstance(path, str) else np.array(path)})

    def text(self) -> str:
        """The call that made it."""
        return self.shown


@dataclass(frozen=True, eq=False)
class Iterable(Node):
    """Samples from an iterable that ``factory`` makes anew for each epoch."""

    factory: Callable[[], Any]
    shown: str

    indexable = False

    def length(self, run: Run) -> int:
        """How many samples an epoch has."""
        raise TypeError(f"{self.shown} has no length: its samples are not known before they come")

    def tasks(self, run: Run, cursor: Cursor = None) -> Iterator[Task]:
        """The samples as they come; those before the cursor are drawn and left."""
        first = cursor or 0
        for index, sample in enumerate(spanned(SOURCE, islice(self.factory(), first, None)), first):
            if not isinstance(sample, Mapping):
                raise ChainError(
                    f"{self.shown}: sample {index} is a {type(sample).__name__}; give dicts of arrays"
                )
            yield Task(partial(_fresh, index, sample), index + 1)

    def text(self) -> str:
        """The call that made it."""
        return self.shown


def _fresh(index: int, sample: Mapping[str, Any]) -> Item:
    return Item(index, {key: as_value(value) for key, value in sample.items()})


@dataclass(frozen=True, eq=False)
class MlxBuffer(Node):
    """Samples of an mlx-data Buffer."""

    buffer: Any

    indexable = True

    def length(self, run: Run) -> int:
        """How many samples an epoch has."""
        return len(self.buffer)

    def item(self, index: int, run: Run) -> Item:
        """One sample."""
        return Item(index, dict(self.buffer[index]))

    def text(self) -> str:
        """The call that made it."""
        return "sg.from_mlx(<Buffer>)"
