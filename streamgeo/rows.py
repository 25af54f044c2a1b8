"""Rows of a scene that come one after another, kept in memory or in a file, and the scene that they make."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import StepError
from streamgeo.grid import Grid
from streamgeo.scene import MadeScene
from streamgeo.template import Template
from streamgeo.window import Window

Array = NDArray[Any]
IN_MEMORY = 256 << 20  # bytes of a scene that is kept in memory; a larger one goes to a file
_HEAD = struct.Struct("<qqq")  # first row of a block, row behind its last, bytes that follow


class _Block(NamedTuple):
    start: int
    stop: int
    offset: int
    nbytes: int


class Rows:
    """An array that grows along one axis, block by block.

    In a file, blocks are packed with LZ4: that takes less time than writing them, and large parts of a large scene
    are often all alike. Each has its rows before it, so a file that was cut short can be gone on with.

    Args:
        shape: of the whole.
        dtype: of the whole.
        axis: along which it grows.
        path: a file that stays, opened for each block alone, since hundreds of scenes may be in flight; by default
            memory, or a nameless temporary file for what is larger than 256 MiB.
        kept: how many rows of that file are to be kept; what comes behind is dropped.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        axis: int,
        path: Path | None = None,
        kept: int = 0,
    ) -> None:
        self.shape, self.dtype, self.axis = shape, dtype, axis
        self._array: Array | None = None
        self._file: Any = None
        self._path = path
        self._blocks: list[_Block] = []
        self._last: tuple[_Block, Array] | None = None
        if path is not None:
            with self._opened(os.O_CREAT) as file:
                self._blocks = list(self._found(file, kept))
                os.ftruncate(file, self._end)
        elif self.nbytes > IN_MEMORY:
            self._file = tempfile.TemporaryFile(prefix="streamgeo-", buffering=0)  # noqa: SIM115
        else:
            self._array = np.empty(shape, dtype)

    @property
    def nbytes(self) -> int:
        """Of the whole."""
        return prod(self.shape) * self.dtype.itemsize

    @contextmanager
    def _opened(self, flags: int = 0) -> Iterator[int]:
        """The number of the open file."""
        if self._path is None:
            yield self._file.fileno()
            return
        file = os.open(self._path, os.O_RDWR | flags, 0o666)
        try:
            yield file
        finally:
            os.close(file)

    def write(self, at: int, block: Array) -> None:
        """Rows from number ``at`` on."""
        if block.dtype != self.dtype:
            raise StepError(f"predict: rows came as {block.dtype} after rows of {self.dtype}; give one dtype")
        stop = at + block.shape[self.axis]
        if self._array is not None:
            self._array[(slice(None),) * self.axis + (slice(at, stop),)] = block
            return
        from imagecodecs import lz4_encode

        packed = lz4_encode(block.tobytes())
        data = memoryview(_HEAD.pack(at, stop, len(packed)) + packed)
        offset = self._end
        with self._opened() as file:
            try:
                while data:
                    written = os.pwrite(file, data, offset)
                    data, offset = data[written:], offset + written
            except OSError as error:  # such as a full disk; what is in the file stays good
                where = self._path or tempfile.gettempdir()
                raise OSError(error.errno, f"predict: finished rows: {error.strerror}", str(where)) from error
        self._blocks.append(_Block(at, stop, self._end + _HEAD.size, len(packed)))

    def read(self, box: tuple[slice, ...]) -> Array:
        """The numbers of a box."""
        if self._array is not None:
            return self._array[box]
        low, high = box[self.axis].start, box[self.axis].stop
        out = np.empty(tuple(part.stop - part.start for part in box), self.dtype)
        before, behind = box[: self.axis], box[self.axis + 1 :]
        for block in self._blocks:
            first, last = max(low, block.start), min(high, block.stop)
            if first < last:
                there = slice(first - block.start, last - block.start)
                here = slice(first - low, last - low)
                out[(slice(None),) * self.axis + (here,)] = self._decoded(block)[(*before, there, *behind)]
        return out

    def _decoded(self, block: _Block) -> Array:
        last = self._last
        if last is not None and last[0] == block:
            return last[1]
        from imagecodecs import lz4_decode

        shape = (*self.shape[: self.axis], block.stop - block.start, *self.shape[self.axis + 1 :])
        with self._opened() as file:
            packed = os.pread(file, block.nbytes, block.offset)
        array = np.empty(shape, self.dtype)
        lz4_decode(packed, out=memoryview(array).cast("B"))
        self._last = block, array
        return array

    def _found(self, file: int, kept: int) -> Iterator[_Block]:
        """The blocks in a file up to a row."""
        offset, at = 0, 0
        while at < kept:
            head = os.pread(file, _HEAD.size, offset)
            start, at, nbytes = _HEAD.unpack(head) if len(head) == _HEAD.size else (-1, -1, 0)
            offset += _HEAD.size
            if start < 0 or at > kept or offset + nbytes > os.fstat(file).st_size:
                raise StepError("predict: the file of finished rows is damaged; start anew with resume=False")
            yield _Block(start, at, offset, nbytes)
            offset += nbytes

    @property
    def _end(self) -> int:
        return self._blocks[-1].offset + self._blocks[-1].nbytes if self._blocks else 0

    def sync(self) -> None:
        """What was written survives the end of the process and of the machine."""
        if self._array is None:
            with self._opened() as file:
                os.fsync(file)

    def settle(self) -> None:
        """All rows are there: from now on they need no path, and no open file where memory holds them."""
        if self._path is None:
            return
        if self.nbytes <= IN_MEMORY:
            self._array = self.read(tuple(slice(0, size) for size in self.shape))
        else:
            self._file = open(self._path, "rb", buffering=0)  # noqa: SIM115
        self._path = None

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()


class RowsScene(MadeScene):
    """A scene of rows that are all there."""

    def __init__(
        self, rows: Rows, grid: Grid, template: Template, *, name: str, files: tuple[str, ...] = ()
    ) -> None:
        super().__init__(rows.dtype, grid, template, name, files)
        self.rows = rows

    def _read(self, window: Window) -> Array:
        return self.rows.read(window.slices(self.dims))
