"""Batches: samples stacked along a new leading axis."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import BatchError, SampleError, StepError
from streamgeo.links.base import Cursor, Link, Task, cause_of, numbered
from streamgeo.meter import BATCH, span
from streamgeo.parameters import literal
from streamgeo.plan import Item, Run, Unread, outlined
from streamgeo.slots import SLOTS

Array = NDArray[Any]
Value = Array | Unread
_KNOWN = 4  # patches in a row for which nothing needs to be fetched: then it is so for the others too


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

    def length(self, run: Run) -> int:
        """How many samples an epoch has."""
        total = self.before.length(run)
        if isinstance(self.size, tuple):
            return len(self.size)
        return total // self.size if self.drop_last else -(-total // self.size)

    def item(self, index: int, run: Run) -> Item:
        """One batch."""
        if isinstance(self.size, tuple):
            low, high = int(self._edges[index]), int(self._edges[index + 1])
        else:
            low, high = index * self.size, min((index + 1) * self.size, self.before.length(run))
        slots = replace(run, slots=True)
        return self._stack([partial(self.before.item, i, slots) for i in range(low, high)], index, run)

    def tasks(self, run: Run, cursor: Cursor = None) -> Iterator[Task]:
        """One function a batch; whichever thread calls it makes all its samples."""
        inner, number = cursor or (None, 0)
        group: list[Task] = []
        for task in self.before.tasks(replace(run, slots=True), inner):
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
        slots = _Slots(len(group), self.dim)
        failed: list[tuple[int, SampleError]] = []
        with span(BATCH):
            for position, task in enumerate(group, first):
                try:
                    slots.take(task(), position)
                except Exception as error:
                    failed.append((position, _failed(error, position, run)))
            failed += [(position, _failed(error, position, run)) for position, error in slots.read()]
            values = self._joined(slots)
        parts = [Item(row.item.index, {}, row.item.places, row.item.residuals) for row in slots.rows]
        failed.sort(key=itemgetter(0))
        return Item(number, values, parts=parts, skipped=[error for _, error in failed])

    def _joined(self, slots: _Slots) -> dict[str, Array]:
        """An array for each key."""
        rows = slots.rows
        for row in rows:
            if row.values.keys() != rows[0].values.keys():
                raise BatchError(
                    f"batch: {row.name} has the keys {sorted(row.values)}, {rows[0].name} has "
                    f"{sorted(rows[0].values)}; samples of one batch need the same keys"
                )
        return {
            key: slots.whole(key) if key not in slots.ragged else self._join(key, rows)
            for key in (rows[0].values if rows else ())
        }

    def _join(self, key: str, rows: Sequence[_Row]) -> Array:
        """Arrays that do not all have one shape, or follow one another along one of their axes."""
        arrays = [row.values[key] for row in rows]
        axis = self._axis(key, rows)
        for row, array in zip(rows, arrays):
            if array.shape != arrays[0].shape or array.dtype != arrays[0].dtype:
                self._check(key, array, arrays[0], row, rows[0], axis)
        shape = tuple(max(sizes) for sizes in zip(*(a.shape for a in arrays)))
        dtype = np.result_type(*{a.dtype for a in arrays})
        if axis is None:
            out = np.empty((len(arrays), *shape), dtype)
            slots = [out[(row, ...)] for row in range(len(arrays))]
        else:
            ends = np.cumsum([0, *(array.shape[axis] for array in arrays)])
            out = np.empty((*shape[:axis], int(ends[-1]), *shape[axis + 1 :]), dtype)
            slots = [out[(slice(None),) * axis + (slice(a, b),)] for a, b in pairwise(ends)]
        if any(slot.shape != array.shape for slot, array in zip(slots, arrays)):
            out[...] = self._padding(key, out.dtype)
        for slot, array in zip(slots, arrays):
            slot[tuple(slice(0, n) for n in array.shape)] = array
        return out

    def _axis(self, key: str, rows: Sequence[_Row]) -> int | None:
        """The axis to concatenate along; None for a new one."""
        dim, rank = self.dim.get(key), len(rows[0].values[key].shape)
        if dim is not None and not -rank <= dim < rank:
            raise BatchError(f"batch: dim={dim} for {key!r}, which has {rank} dims in {rows[0].name}")
        return None if dim is None else dim % rank

    def _check(self, key: str, array: Array, first: Array, row: _Row, other: _Row, axis: int | None) -> None:
        if array.dtype != first.dtype and not (array.dtype.kind == first.dtype.kind == "U"):
            raise BatchError(
                f"batch: {key!r} is {array.dtype} in {row.name} and {first.dtype} in {other.name}; "
                "bring them to one dtype with sg.cast first"
            )
        alike = len(array.shape) == len(first.shape) and (
            key in self.pad or _same_but(array.shape, first.shape, axis) or _vector(key, array, row)
        )
        if not alike:
            raise BatchError(
                f"batch: {key!r} has shape {array.shape} in {row.name} and {first.shape} in {other.name}; "
                f"crop or patch to one size, or give pad={{{key!r}: value}}"
            )

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


@dataclass(eq=False, slots=True)
class _Row:
    """A sample of a batch."""

    position: int
    item: Item
    values: Mapping[str, Array]

    @property
    def name(self) -> str:
        """For messages."""
        for place in self.item.places.values():
            return f"sample {self.item.index} ({place.scene.name})"
        return f"sample {self.item.index}"


class _Slots:
    """Arrays that hold a batch, made for the first sample; each sample is copied to its slot as it comes.

    Patches are read straight to theirs, once all samples are there: so the system can be told before the first one
    is decoded what all of them will be decoded from. A value of another shape or dtype than the first stays beside,
    and its key counts as ragged; so does a key that is not stacked along a new axis.
    """

    def __init__(self, size: int, apart: Collection[str]) -> None:
        self.size, self.ragged = size, set(apart)
        self.rows: list[_Row] = []
        self._arrays: dict[str, Array] = {}
        self._unread: list[tuple[_Row, Unread, Array]] = []

    def take(self, item: Item, position: int) -> None:
        """One more sample."""
        number, values = len(self.rows), outlined(item)
        row = _Row(position, item, values)  # type: ignore[arg-type]
        unread = []
        for key, value in values.items():
            array = self._arrays.get(key) if number else self._begin(key, value)
            if array is None or array.shape[1:] != value.shape or array.dtype != value.dtype:
                self.ragged.add(key)
                values[key] = value.read() if type(value) is Unread else value
                continue
            values[key] = slot = array[number, ...]
            if type(value) is Unread:
                unread.append((row, value, slot))
            else:
                slot[...] = value
        self.rows.append(row)
        self._unread += unread

    def read(self) -> Iterator[tuple[int, Exception]]:
        """Read the patches; position and error of each sample that fails, which is left out."""
        known = 0
        for _, patch, _ in self._unread:
            known = 0 if patch.foresee() else known + 1
            if known == _KNOWN:
                break
        failed: set[int] = set()
        for row, patch, slot in self._unread:
            if row.position not in failed:
                try:
                    patch.read_into(slot)
                except Exception as error:
                    failed.add(row.position)
                    yield row.position, error
        self._unread.clear()
        if failed:
            kept = [number for number, row in enumerate(self.rows) if row.position not in failed]
            self.rows = [self.rows[number] for number in kept]
            self._arrays = {key: array[kept] for key, array in self._arrays.items()}

    def _begin(self, key: str, value: Value) -> Array | None:
        if key in self.ragged:
            return None
        array = self._arrays[key] = SLOTS.empty((self.size, *value.shape), value.dtype)
        return array

    def whole(self, key: str) -> Array:
        """The samples that came, stacked."""
        return self._arrays[key][: len(self.rows)]


def _failed(error: Exception, position: int, run: Run) -> SampleError:
    """The error of a sample that is to be skipped.

    Raises:
        SampleError: that error, where failing samples are not to be skipped.
    """
    failed = numbered(error, position)
    if not run.skip:
        raise failed from cause_of(error)
    failed.__cause__ = cause_of(error)
    return failed


def _vector(key: str, array: Array, row: _Row) -> bool:
    """Whether it may be padded unasked, as in mlx-data: a vector of numbers that did not come from a file."""
    return len(array.shape) == 1 and array.dtype.kind in "biufc" and key not in row.item.places


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
