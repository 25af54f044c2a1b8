"""Arrays that lie in a file as they lie in memory: a block is written to its place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from streamgeo.sinks.pixels import Box, Pixels


def write_blocks(file: BinaryIO, pixels: Pixels, offset: int) -> Iterator[None]:
    """Write pixels in C order from byte ``offset`` on, a block for each step of the iterator."""
    for box, block in pixels.blocks():
        _put(file, block, box, pixels.shape, offset)
        yield


def _put(file: BinaryIO, block: NDArray[Any], box: Box, shape: tuple[int, ...], offset: int) -> None:
    """Write a block to its place, in as few pieces as are contiguous there."""
    axis = len(shape) - 1  # the last one that the block does not cover, or the first of all
    while axis > 0 and block.shape[axis] == shape[axis]:
        axis -= 1
    strides = [block.itemsize * int(np.prod(shape[i + 1 :], dtype=np.int64)) for i in range(len(shape))]
    start = offset + sum(cut.start * stride for cut, stride in zip(box, strides))
    for at in np.ndindex(block.shape[: max(axis, 0)]):
        file.seek(start + sum(i * stride for i, stride in zip(at, strides)))
        file.write(np.ascontiguousarray(block[at]).data)
