"""Pixels that a sink reads block by block, so that a scene larger than memory can be written."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from streamgeo.errors import StreamGeoError, WriteError
from streamgeo.grid import Grid
from streamgeo.window import Window

Array = NDArray[Any]
Box = tuple[slice, ...]
BLOCK = 32 << 20  # bytes that a sink reads at a time, where a row of chunks does not need more
_ROWS, _COLUMNS = 256, 1024  # of a chunk, where nothing else is asked for


class Readable(Protocol):
    """What a sink writes: a scene, or anything that gives its pixels by window."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of pixels in each dim."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of what ``read`` gives."""

    def read(self, window: Window | None = None) -> Array:
        """Pixels of a window; None takes all."""


class Unread(Exception):
    """Reading failed while a file was written; the reason is its cause. It is no failure of the sink."""


@dataclass(frozen=True)
class Pixels:
    """Numbers with named dims that are read block by block, perhaps through functions.

    Attributes:
        dims, shape, dtype: as they are written.
        rows: the dim along which blocks are cut; other dims come whole, unless one row of chunks is too much.
        columns: the dims that are never cut.
        fetch: gives the numbers of a box.
        ends: called when the last block was taken.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    rows: str
    columns: tuple[str, ...]
    fetch: Callable[[Box], Array]
    ends: tuple[Callable[[], None], ...] = ()

    @classmethod
    def of(cls, values: Array | Readable, grid: Grid, file: str) -> Pixels:
        """Those of an array or a scene on ``grid``.

        Raises:
            WriteError: when the shape does not fit.
        """
        if tuple(values.shape) != grid.shape:
            raise WriteError(f"save: the array for {file} has shape {values.shape}, its grid {grid.shape}")
        if isinstance(values, np.ndarray):
            fetch: Callable[[Box], Array] = values.__getitem__
        else:
            fetch = _reader(values, grid.dims, file)
        flat = [dim for dim in grid.spatial if dim in grid.dims]
        rows = flat[0] if flat else grid.dims[0] if grid.dims else ""
        return cls(grid.dims, grid.shape, np.dtype(values.dtype), rows, tuple(flat[1:]), fetch)

    @property
    def ndim(self) -> int:
        """Number of dims."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of pixels."""
        return math.prod(self.shape)

    def read(self, box: Box) -> Array:
        """The numbers of a box.

        Raises:
            Unread: whatever goes wrong.
        """
        try:
            return self.fetch(box)
        except (WriteError, MemoryError):
            raise
        except Exception as error:
            raise Unread(str(error)) from error

    def transpose(self, *dims: str) -> Pixels:
        """With the dims in another order."""
        order = [self.dims.index(dim) for dim in dims]
        back, shape = np.argsort(order), tuple(self.shape[i] for i in order)
        return replace(
            self,
            dims=dims,
            shape=shape,
            fetch=lambda box: self.fetch(tuple(box[i] for i in back)).transpose(order),
        )

    def take(self, dim: str, position: int) -> Pixels:
        """One position of a dim, which goes."""
        at = self.dims.index(dim)
        dims, shape = (_without(kept, at) for kept in (self.dims, self.shape))
        here = slice(position, position + 1)
        rows = dims[0] if dim == self.rows and dims else self.rows
        return replace(
            self,
            dims=dims,
            shape=shape,
            rows=rows,
            fetch=lambda box: self.fetch((*box[:at], here, *box[at:])).squeeze(at),
        )

    def lead(self, dim: str) -> Pixels:
        """With a new first dim of one pixel."""
        return replace(
            self,
            dims=(dim, *self.dims),
            shape=(1, *self.shape),
            fetch=lambda box: self.fetch(box[1:])[np.newaxis],
        )

    def map(self, function: Callable[[Array], Array], end: Callable[[], None] | None = None) -> Pixels:
        """With a function on each block, of which the dtype of its result for no numbers is asked at once.

        ``end`` is called when all blocks were taken: the place for a warning that counts.
        """
        dtype = function(np.empty((0,) * self.ndim, self.dtype)).dtype
        ends = self.ends if end is None else (*self.ends, end)
        return replace(self, dtype=dtype, ends=ends, fetch=lambda box: function(self.fetch(box)))

    def astype(self, dtype: DTypeLike) -> Pixels:
        """In another dtype."""
        return self.map(operator.methodcaller("astype", dtype, copy=False))

    def blocks(
        self, chunks: Sequence[int] | None = None, *, limit: int = BLOCK
    ) -> Iterator[tuple[Box, Array]]:
        """All pixels once, from the first row to the last: each box, and the numbers in it.

        Args:
            chunks: of the file. A block is a whole number of them, so that none is written twice.
            limit: bytes of a block, unless one row of chunks needs more.
        """
        steps = self._steps(chunks or (1,) * self.ndim, limit)
        first = self.dims.index(self.rows) if self.ndim else 0
        order = [first, *(i for i in range(self.ndim) if i != first)] if self.ndim else []
        for starts in itertools.product(*(range(0, self.shape[i], steps[i]) for i in order)):
            at = dict(zip(order, starts))
            box = tuple(slice(at[i], min(at[i] + steps[i], self.shape[i])) for i in range(self.ndim))
            yield box, self.read(box)
        for end in self.ends:
            end()

    def in_order(self) -> Iterator[Array]:
        """All pixels once, in C order: for files that grow from their start to their end."""
        below = [math.prod(self.shape[i + 1 :]) * self.dtype.itemsize for i in range(self.ndim)]
        cut = next((i for i, size in enumerate(below) if size <= BLOCK), self.ndim)
        if cut == self.ndim:
            yield self.read(())
        step = max(BLOCK // max(below[cut], 1), 1) if cut < self.ndim else 1
        for lead in np.ndindex(self.shape[:cut] if cut < self.ndim else (0,)):
            for start in range(0, self.shape[cut], step):
                rest = (slice(0, size) for size in self.shape[cut + 1 :])
                yield self.read(
                    (
                        *(slice(i, i + 1) for i in lead),
                        slice(start, min(start + step, self.shape[cut])),
                        *rest,
                    )
                )
        for end in self.ends:
            end()

    def _steps(self, chunks: Sequence[int], limit: int) -> list[int]:
        """Sizes of the blocks: whole rows, cut in other dims only where one row of chunks exceeds the limit."""
        if not self.ndim:
            return []
        steps, first = [max(size, 1) for size in self.shape], self.dims.index(self.rows)
        steps[first] = min(chunks[first], steps[first])
        room = limit // max(self.dtype.itemsize, 1)
        for i, dim in enumerate(self.dims):
            if math.prod(steps) > room and dim not in (self.rows, *self.columns):
                others = math.prod(steps) // steps[i]
                steps[i] = min(steps[i], max(room // (others * chunks[i]), 1) * chunks[i])
        if math.prod(steps) < room:
            steps[first] *= max(room // math.prod(steps), 1)
        return steps


def in_turn(iterators: Iterable[Iterator[None]]) -> None:
    """Run several writers side by side, one block of each at a time, so that each row is read at one time."""
    for _ in itertools.zip_longest(*iterators):
        pass


def chunks_for(pixels: Array | Pixels, kept: Sequence[int] | None = None) -> tuple[int, ...]:
    """Chunks for a file: those that are asked for, else about 256 rows of 1024 pixels.

    They have fewer rows where a row of chunks over the whole width would be more than twice what is read at a time.
    """
    shape = pixels.shape
    first = pixels.dims.index(pixels.rows) if isinstance(pixels, Pixels) and pixels.ndim else 0
    if kept and len(kept) == len(shape):
        out = [max(1, min(chunk, size)) for chunk, size in zip(kept, shape)]
    else:
        out, room = [1] * len(shape), _ROWS * _COLUMNS
        for i in reversed(range(len(shape))):
            out[i] = max(1, min(shape[i], room, _COLUMNS if i > first else room))
            room //= out[i]
    if isinstance(pixels, Pixels) and pixels.ndim:
        whole = [pixels.shape[i] if dim in pixels.columns else out[i] for i, dim in enumerate(pixels.dims)]
        row = math.prod(whole) // whole[first] * pixels.dtype.itemsize
        out[first] = max(1, min(out[first], 2 * BLOCK // max(row, 1)))
    return tuple(out)


def blocks(values: Array | Pixels, chunks: Sequence[int] | None = None) -> Iterator[tuple[Any, Array]]:
    """The blocks of pixels; an array, which a coordinate is, comes whole."""
    return iter([(..., values)]) if isinstance(values, np.ndarray) else values.blocks(chunks)


def _reader(scene: Readable, dims: tuple[str, ...], file: str) -> Callable[[Box], Array]:
    def read(box: Box) -> Array:
        part = scene.read(Window({dim: (cut.start, cut.stop) for dim, cut in zip(dims, box)}))
        if part.dtype != scene.dtype:
            raise StreamGeoError(
                f"save: a step gives {part.dtype} for {file} and had announced {scene.dtype}; give the step its "
                "dtype, as in sg.Step(f, dtype=...)"
            )
        return part

    return read


def _without(items: tuple[Any, ...], at: int) -> tuple[Any, ...]:
    return (*items[:at], *items[at + 1 :])
