"""Batches: samples stacked along a new leading axis."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import BatchError, SampleError, StepError
from streamgeo.links.base import Cursor, Link, Task
from streamgeo.meter import BATCH, span
from streamgeo.parameters import literal
from streamgeo.plan import Item, Run, finished, naming

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Batch(Link):
    """Samples stacked along a new leading axis."""

    size: int | tuple[int, ...]
    pad: Mapping[str, float]
    dim: Mapping[str, int]
    drop_last: bool

    @cached_property
    def _edges(self) -> NDArray[np.int64]:
        sizes = self.size if isinstance(self.size, tuple) else (self.size,)
        return np.concatenate([[0], np.cumsum(sizes)])

    def __len__(self) -> int:
        total = len(self.before)
        if isinstance(self.size, tuple):
            return len(self.size)
        return total // self.size if self.drop_last else -(-total // self.size)

    def item(self, index: int, run: Run) -> Item:
        """One batch."""
        if isinstance(self.size, tuple):
            low, high = int(self._edges[index]), int(self._edges[index + 1])
        else:
            low, high = index * self.size, min((index + 1) * self.size, len(self.before))
        return self._stack([partial(self.before.item, i, run) for i in range(low, high)], index, run)

    def tasks(self, run: Run, cursor: Cursor = None) -> Iterator[Task]:
        """One function a batch; whichever thread calls it makes all its samples."""
        inner, number = cursor or (None, 0)
        group: list[Task] = []
        for task in self.before.tasks(run, inner):
            group.append(task)
            if len(group) == self._size_of(number):
                yield self._task(group, number, run)
                group, number = [], number + 1
                if not self._size_of(number):
                    return
        if group and not self.drop_last:
            yield self._task(group, number, run)

    def _size_of(self, number: int) -> int:
        if isinstance(self.size, int):
            return self.size
        return self.size[number] if number < len(self.size) else 0

    def _task(self, group: Sequence[Task], number: int, run: Run) -> Task:
        return Task(partial(self._stack, group, number, run), [group[-1].after, number + 1])

    def _stack(self, group: Sequence[Callable[[], Item]], number: int, run: Run) -> Item:
        first = number * self.size if isinstance(self.size, int) else int(self._edges[number])
        items, samples, skipped = [], [], []
        for position, task in enumerate(group, first):
            try:
                with naming("", index=position):
                    item = task()
                    sample = finished(item)
            except SampleError as error:
                if not run.skip:
                    raise
                skipped.append(error)
                continue
            items.append(item)
            samples.append(sample)
        with span(BATCH):
            return self._joined(items, samples, number, skipped)

    def _joined(
        self,
        items: Sequence[Item],
        samples: Sequence[Mapping[str, Any]],
        number: int,
        skipped: Sequence[SampleError],
    ) -> Item:
        names = [_whence(item) for item in items]
        for sample, name in zip(samples, names):
            if sample.keys() != samples[0].keys():
                raise BatchError(
                    f"batch: {name} has the keys {sorted(sample)}, {names[0]} has {sorted(samples[0])}; "
                    "samples of one batch need the same keys"
                )
        keys = samples[0] if samples else ()
        # What came from a file is not padded unasked: nothing would tell the padding from pixels.
        free = {key for key in keys if key in self.pad or not any(key in item.places for item in items)}
        values = {
            key: self._join(key, [sample[key] for sample in samples], names, key in free) for key in keys
        }
        parts = [Item(item.index, {}, item.places, item.residuals) for item in items]
        return Item(number, values, parts=parts, skipped=skipped)

    def _join(self, key: str, arrays: Sequence[Array], names: Sequence[str], free: bool) -> Array:
        first = arrays[0]
        dim = self.dim.get(key)
        if dim is not None and not -first.ndim <= dim < first.ndim:
            raise BatchError(f"batch: dim={dim} for {key!r}, which has {first.ndim} dims in {names[0]}")
        axis = None if dim is None else dim % first.ndim
        for array, name in zip(arrays, names):
            if array.dtype != first.dtype and not (array.dtype.kind == first.dtype.kind == "U"):
                raise BatchError(
                    f"batch: {key!r} is {array.dtype} in {name} and {first.dtype} in {names[0]}; "
                    "bring them to one dtype with sg.cast first"
                )
            if array.ndim != first.ndim or not (free or _same_but(array.shape, first.shape, axis)):
                raise BatchError(
                    f"batch: {key!r} has shape {array.shape} in {name} and {first.shape} in {names[0]}; "
                    f"crop or patch to one size, or give pad={{{key!r}: value}}"
                )
        shape = tuple(max(sizes) for sizes in zip(*(a.shape for a in arrays)))
        dtype = np.result_type(*{a.dtype for a in arrays})
        if axis is None:
            return self._filled(key, np.empty((len(arrays), *shape), dtype), arrays)
        ends = np.cumsum([0, *(array.shape[axis] for array in arrays)])
        out = np.empty((*shape[:axis], int(ends[-1]), *shape[axis + 1 :]), dtype)
        slots = [out[(slice(None),) * axis + (slice(a, b),)] for a, b in pairwise(ends)]
        return self._filled(key, out, arrays, slots)

    def _filled(
        self, key: str, out: Array, arrays: Sequence[Array], slots: Sequence[Array] | None = None
    ) -> Array:
        """The arrays in their slots (by default the rows of ``out``); the rest of a slot is padding."""
        if not arrays[0].ndim:
            out[:] = arrays
            return out
        slots = list(out) if slots is None else slots
        if any(slot.shape != array.shape for slot, array in zip(slots, arrays)):
            out[...] = self._padding(key, out.dtype)
        for slot, array in zip(slots, arrays):
            slot[tuple(slice(0, size) for size in array.shape)] = array
        return out

    def _padding(self, key: str, dtype: np.dtype[Any]) -> Any:
        """What ``key`` is filled up with: zero, as in mlx-data, where ``pad`` does not say."""
        return "" if dtype.kind == "U" else filling(self.pad.get(key, 0), dtype, f"pad of {key!r}")

    def text(self) -> str:
        """The call that made it."""
        size = list(self.size) if isinstance(self.size, tuple) else self.size
        rest = "".join(
            f", {name}={literal(value)}"
            for name, value, default in (
                ("pad", self.pad, {}),
                ("dim", self.dim, {}),
                ("drop_last", self.drop_last, False),
            )
            if value != default
        )
        return f".batch({size}{rest})"


def _whence(item: Item) -> str:
    for place in item.places.values():
        return f"sample {item.index} ({place.scene.name})"
    return f"sample {item.index}"


def _same_but(shape: Sequence[int], other: Sequence[int], axis: int | None) -> bool:
    return all(a == b for d, (a, b) in enumerate(zip(shape, other)) if d != axis)


def filling(value: float, dtype: np.dtype[Any], what: str = "pad_value") -> Any:
    """A number as the dtype holds it; a fraction is cut off for integers, as a cast in C does.

    Raises:
        StepError: when the dtype cannot hold it, where a cast in C is undefined.
    """
    if dtype.kind not in "?buifc":
        raise StepError(f"{what}={value!r} cannot fill an array of {dtype}; cast it to numbers first")
    if dtype.kind in "?bui":
        low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        if not np.isfinite(value) or not low <= int(value) <= high:
            raise StepError(f"{what}={value!r} does not fit {dtype}, which holds {low} to {high}")
        value = int(value)
    return np.array(value).astype(dtype)[()]
