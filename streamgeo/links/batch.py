"""Batches: samples stacked along a new leading axis."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.chunks import Busy, otherwise_busy
from streamgeo.errors import BatchError, SampleError, StepError
from streamgeo.links.bare import Bare, Parts
from streamgeo.links.base import Cursor, Link, Node, Task, cause_of, numbered
from streamgeo.meter import BATCH, span
from streamgeo.parameters import literal
from streamgeo.plan import Item, Run, outlined
from streamgeo.slots import SLOTS
from streamgeo.sources.handles import looking_once
from streamgeo.together import Together
from streamgeo.unread import Unread

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

    @property
    def _bare(self) -> Bare | None:
        return None if isinstance(self.size, tuple) else self.before.bare

    def item(self, index: int, run: Run) -> Item:
        """One batch."""
        if isinstance(self.size, tuple):
            low, high = int(self._edges[index]), int(self._edges[index + 1])
        else:
            low, high = index * self.size, min((index + 1) * self.size, self.before.length(run))
        return self._made(range(low, high), index, run)

    def _made(self, positions: range, number: int, run: Run) -> Item:
        if self._bare is not None:
            return self._of_bare(self._bare, positions, number, run)
        slots = replace(run, slots=True)
        group = [partial(self.before.item, position, slots) for position in positions]
        return self._stack(group, positions.start, number, run)

    def tasks(self, run: Run, cursor: Cursor = None) -> Iterator[Task]:
        """One function a batch; whichever thread calls it makes all its samples."""
        inner, number = cursor or (None, 0)
        if self._bare is not None and isinstance(self.size, int):
            end = self.before.length(run)
            for at in range(number, self.length(run)):
                yield Task(partial(self.item, at, run), [min((at + 1) * self.size, end), at + 1])
            return
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
        first = number * self.size if isinstance(self.size, int) else int(self._edges[number])
        return Task(partial(self._stack, group, first, number, run), [group[-1].after, number + 1])

    def _stack(self, group: Sequence[Callable[[], Item]], first: int, number: int, run: Run) -> Item:
        slots, parts = _Slots(len(group), self.dim), dict[int, Item]()
        failed: dict[int, SampleError] = {}
        with span(BATCH):
            for position, task in enumerate(group, first):
                try:
                    item = task()
                    slots.take(outlined(item))
                except Exception as error:
                    failed[position] = _failed(error, position, run)
                else:
                    parts[position] = Item(item.index, {}, item.places, item.residuals)
            positions = list(parts)
            for row, reason in slots.read(run.skip).items():
                failed[positions[row]] = _failed(reason, positions[row], run)
            good = [part for position, part in parts.items() if position not in failed]
            skipped = [failed[position] for position in sorted(failed)]
            return Item(number, self._joined(slots, good), parts=good, skipped=skipped)

    def _of_bare(self, bare: Bare, positions: range, number: int, run: Run) -> Item:
        """The same, of samples that are nothing but arrays."""
        slots, good = _Slots(len(positions), self.dim), list[int]()
        skipped: list[SampleError] = []
        with span(BATCH):
            for position, source, made in bare.items(positions, run):
                if isinstance(made, Exception):
                    skipped.append(_failed(made, position, run))
                else:
                    slots.take(made)
                    good.append(source)
            parts = Parts(good)
            return Item(number, self._joined(slots, parts), parts=parts, skipped=skipped)

    def _joined(self, slots: _Slots, parts: Sequence[Item]) -> dict[str, Array]:
        """An array for each key."""
        if slots.odd is not None:
            at, keys = slots.odd
            raise BatchError(
                f"batch: {_name(parts[at])} has the keys {sorted(keys)}, {_name(parts[0])} has "
                f"{sorted(slots.columns)}; samples of one batch need the same keys"
            )
        return {
            key: self._join(key, column.arrays(slots.count), parts)
            if column.loose
            else column.slots[: slots.count]
            for key, column in slots.columns.items()
        }

    def _join(self, key: str, arrays: Sequence[Array], parts: Sequence[Item]) -> Array:
        """Arrays that do not all have one shape, or follow one another along one of their axes."""
        axis = self._axis(key, arrays[0], parts[0])
        for array, part in zip(arrays, parts):
            if array.shape != arrays[0].shape or array.dtype != arrays[0].dtype:
                self._check(key, array, arrays[0], part, parts[0], axis)
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

    def _axis(self, key: str, array: Array, part: Item) -> int | None:
        """The axis to concatenate along; None for a new one."""
        dim, rank = self.dim.get(key), len(array.shape)
        if dim is not None and not -rank <= dim < rank:
            raise BatchError(f"batch: dim={dim} for {key!r}, which has {rank} dims in {_name(part)}")
        return None if dim is None else dim % rank

    def _check(self, key: str, array: Array, first: Array, part: Item, other: Item, axis: int | None) -> None:
        if array.dtype != first.dtype and not (array.dtype.kind == first.dtype.kind == "U"):
            raise BatchError(
                f"batch: {key!r} is {array.dtype} in {_name(part)} and {first.dtype} in {_name(other)}; "
                "bring them to one dtype with sg.cast first"
            )
        alike = len(array.shape) == len(first.shape) and (
            key in self.pad or _same_but(array.shape, first.shape, axis) or _vector(key, array, part)
        )
        if not alike:
            raise BatchError(
                f"batch: {key!r} has shape {array.shape} in {_name(part)} and {first.shape} in {_name(other)}; "
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


def _name(part: Item) -> str:
    """A sample of a batch, for messages."""
    for place in part.places.values():
        return f"sample {part.index} ({place.scene.name})"
    return f"sample {part.index}"


@dataclass(frozen=True, eq=False)
class Windows(Batch):
    """Neighbouring samples of a buffer stacked along a new leading axis, from each ``stride``-th one on."""

    stride: int = 1

    def length(self, run: Run) -> int:
        """How many samples an epoch has."""
        return max(0, (self.before.length(run) - self._long) // self.stride + 1)

    def item(self, index: int, run: Run) -> Item:
        """One window."""
        first = index * self.stride
        return self._made(range(first, first + self._long), index, run)

    def tasks(self, run: Run, cursor: Cursor = None) -> Iterator[Task]:
        """One function a window."""
        return Node.tasks(self, run, cursor)

    @property
    def _long(self) -> int:
        assert isinstance(self.size, int)
        return self.size

    def text(self) -> str:
        """The call that made it."""
        return f".windows({self.size}{f', {self.stride}' if self.stride != 1 else ''})"


@dataclass(eq=False, slots=True)
class _Column:
    """The values under one key: an array with a slot for each sample, and those that do not fit into theirs."""

    slots: Array
    shape: tuple[int, ...] | None
    dtype: np.dtype[Any]
    loose: dict[int, Array] = field(default_factory=dict)

    def arrays(self, count: int) -> list[Array]:
        """The first ``count`` of them."""
        return [self.loose[n] if n in self.loose else self.slots[n, ...] for n in range(count)]


_Part = tuple[int, Unread, Array]  # number of a sample, one of its patches, and where that goes


class _Slots:
    """Arrays that hold a batch, made for the first sample; each sample is copied to its slot as it comes.

    Patches are read straight to theirs, once all samples are there: so the system can be told before the first one
    is decoded what all of them will be decoded from. A value of another shape or dtype than the first stays beside;
    so do the values of a key that is not stacked along a new axis. ``odd`` is the first sample with other keys.
    """

    def __init__(self, size: int, apart: Collection[str]) -> None:
        self.size, self.apart, self.count = size, apart, 0
        self.columns: dict[str, _Column] = {}
        self.odd: tuple[int, Collection[str]] | None = None
        self._unread: list[_Part] = []

    def take(self, values: Mapping[str, Value]) -> None:
        """One more sample; where one of its values cannot be read, it does not count."""
        number, columns = self.count, self.columns
        unread = []
        if not number:
            columns = self.columns = {key: self._begun(key, value) for key, value in values.items()}
        elif len(values) != len(columns) or values.keys() != columns.keys():
            self.odd = self.odd or (number, values.keys())
            values = {}
        try:
            for key, value in values.items():
                column = columns[key]
                if value.shape != column.shape or value.dtype != column.dtype:
                    column.loose[number] = value.read() if type(value) is Unread else np.asarray(value)
                elif type(value) is Unread:
                    unread.append((number, value, column.slots[number, ...]))
                else:
                    column.slots[number, ...] = value
        except BaseException:
            for column in columns.values():
                column.loose.pop(number, None)
            raise
        self.count = number + 1
        self._unread += unread

    def read(self, skip: bool) -> dict[int, Exception]:
        """Read the patches; number and error of each sample that fails, which is left out; the first one, or all.

        Patches that wait for what another thread decodes just now come last: threads share work, and do not wait.
        """
        known = 0
        for _, patch, _ in self._unread:
            known = 0 if patch.foresee() else known + 1
            if known == _KNOWN:
                break
        failed: dict[int, Exception] = {}
        with looking_once():
            with otherwise_busy():
                later = _read_each(self._unread, failed, skip)
            _read_each(later, failed, skip)
        self._unread.clear()
        if failed:
            self._keep([number for number in range(self.count) if number not in failed])
        return dict(sorted(failed.items()))

    def _keep(self, numbers: list[int]) -> None:
        for column in self.columns.values():
            column.loose = {new: column.loose[old] for new, old in enumerate(numbers) if old in column.loose}
            column.slots = column.slots[numbers] if column.shape is not None else column.slots
        self.count = len(numbers)
        if self.odd is not None:
            self.odd = numbers.index(self.odd[0]), self.odd[1]

    def _begun(self, key: str, value: Value) -> _Column:
        if key in self.apart:
            return _Column(np.empty(0), None, value.dtype)
        return _Column(SLOTS.empty((self.size, *value.shape), value.dtype), value.shape, value.dtype)


def _read_each(parts: Sequence[_Part], failed: dict[int, Exception], skip: bool) -> list[_Part]:
    """Read patches, and note which samples fail; the patches that another thread is in the way of."""
    later, noted, together = list[_Part](), list[_Part](), Together()
    for part in parts:
        number, patch, slot = part
        if failed and (not skip or number in failed):
            continue
        try:
            if patch.noted(slot, together):
                noted.append(part)
            else:
                patch.read_into(slot)
        except Busy:
            later.append(part)
        except Exception as error:
            failed[number] = error
        if together.full:
            _copy(together, noted, failed)
    _copy(together, noted, failed)
    return later


def _copy(together: Together, noted: list[_Part], failed: dict[int, Exception]) -> None:
    """Copy what was noted; where that fails each patch is read for itself, which says whose fault it is."""
    try:
        together.copy()
    except Exception:
        for number, patch, slot in noted:
            try:
                patch.read_into(slot)
            except Exception as error:
                failed[number] = error
    noted.clear()


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


def _vector(key: str, array: Array, part: Item) -> bool:
    """Whether it may be padded unasked, as in mlx-data: a vector of numbers that did not come from a file."""
    return len(array.shape) == 1 and array.dtype.kind in "biufc" and key not in part.places


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
