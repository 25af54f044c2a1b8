"""Rows of a scene that come one after another, kept in memory or in a file, and the scene that they make."""

from __future__ import annotations

import os
import tempfile
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import StepError
from streamgeo.grid import Grid
from streamgeo.scene import Scene
from streamgeo.template import Template
from streamgeo.window import Window

Array = NDArray[Any]
IN_MEMORY = 256 << 20  # bytes of a scene that is kept in memory; a larger one goes to a file


class Rows:
    """An array that grows along one axis.

    Args:
        shape: of the whole.
        dtype: of the whole.
        axis: along which it grows.
        path: a file that stays; by default memory, or a nameless temporary file for what is larger than 256 MiB.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], axis: int, path: Path | None = None
    ) -> None:
        self.shape, self.dtype, self.axis = shape, dtype, axis
        self._array: Array | None = None
        self._file: Any = None
        if path is not None:
            self._file = open(path, "r+b" if path.exists() else "w+b", buffering=0)  # noqa: SIM115
        elif prod(shape) * dtype.itemsize > IN_MEMORY:
            self._file = tempfile.TemporaryFile(prefix="streamgeo-", buffering=0)  # noqa: SIM115
        else:
            self._array = np.empty(shape, dtype)

    def write(self, at: int, block: Array) -> None:
        """Rows from number ``at`` on."""
        if block.dtype != self.dtype:
            raise StepError(f"predict: rows came as {block.dtype} after rows of {self.dtype}; give one dtype")
        if not block.size:
            return
        if self._array is not None:
            self._array[(slice(None),) * self.axis + (slice(at, at + block.shape[self.axis]),)] = block
            return
        for lead in np.ndindex(self.shape[: self.axis]):
            data = memoryview(np.ascontiguousarray(block[lead])).cast("B")
            offset = self._offset(lead, at)
            while data:
                written = os.pwrite(self._file.fileno(), data, offset)
                data, offset = data[written:], offset + written

    def read(self, box: tuple[slice, ...]) -> Array:
        """The numbers of a box."""
        if self._array is not None:
            return self._array[box]
        low, high = box[self.axis].start, box[self.axis].stop
        leads = [range(part.start, part.stop) for part in box[: self.axis]]
        shape = tuple(part.stop - part.start for part in box)
        out = np.empty(shape, self.dtype)
        rest = box[self.axis + 1 :]
        if not out.size:
            return out
        for index in np.ndindex(shape[: self.axis]):
            lead = tuple(numbers[i] for numbers, i in zip(leads, index))
            rows = np.empty((high - low, *self.shape[self.axis + 1 :]), self.dtype)
            self._fill(memoryview(rows).cast("B"), self._offset(lead, low))
            out[index] = rows[(slice(None), *rest)]
        return out

    def _fill(self, data: memoryview, offset: int) -> None:
        while data:
            count = os.preadv(self._file.fileno(), [data], offset)
            if not count:
                raise StepError(
                    "predict: the file of finished rows is too short; start anew with resume=False"
                )
            data, offset = data[count:], offset + count

    def _offset(self, lead: tuple[int, ...], at: int) -> int:
        below = prod(self.shape[self.axis + 1 :])
        number = int(np.ravel_multi_index(lead, self.shape[: self.axis])) if lead else 0
        return (number * self.shape[self.axis] + at) * below * self.dtype.itemsize

    def sync(self) -> None:
        """What was written survives the end of the process and of the machine."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()


class RowsScene(Scene):
    """A scene of rows that are all there."""

    reads_files = False

    def __init__(
        self, rows: Rows, grid: Grid, template: Template, *, name: str, files: tuple[str, ...] = ()
    ) -> None:
        self.name, self.dims, self.shape, self.dtype = name, grid.dims, grid.shape, rows.dtype
        self.rows, self._grid, self._template, self._files = rows, grid, template, files

    @property
    def grid(self) -> Grid:
        """Where the array lies."""
        return self._grid

    @property
    def template(self) -> Template:
        """What a file takes over."""
        return self._template

    @property
    def files(self) -> tuple[str, ...]:
        """The files that it comes from, if any."""
        return self._files

    def _read(self, window: Window) -> Array:
        return self.rows.read(window.slices(self.dims))
