"""From stored numbers to physical ones: block by block, or by a table where there are few different ones."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo import kernels
from streamgeo.kernels import Line, Pairs
from streamgeo.slots import scratch

Array = NDArray[Any]
_MANY = 1 << 16  # numbers from which on a table of all that 16 bits can hold is worth its making


class Unpacking(ABC):
    """A packing made ready to be called as ``unpacking(out, stored)``.

    ``out`` is float32 of any strides and gets physical numbers, NaN where missing; ``stored`` may be in either byte
    order. Unpackings of equal keys share their tables.

    Attributes:
        key: all that its results depend on.
        plain: numbers stay what they are.
        few: stored are integers of 16 bits or less: looking them up is quicker than computing again and again.
        line: the same in one loop, where it is no more than that.
    """

    key: Hashable
    plain: bool
    few: bool
    line: Line | None
    _seen = 0

    @abstractmethod
    def block(self, out: NDArray[np.float32], stored: Array) -> None:
        """Work out a block of numbers."""

    def __call__(self, out: NDArray[np.float32], stored: Array) -> None:
        """Fill ``out`` with the physical numbers of ``stored``."""
        self.each([(out, stored)])

    def each(self, pairs: Pairs) -> None:
        """The same for several arrays of one dtype."""
        dtype = pairs[0][1].dtype
        if kernels.compiled and self.line is not None and dtype.isnative:
            self.line.each(pairs)
        elif self.few and self._many(sum(stored.size for _, stored in pairs)):
            kernels.look_up(pairs, _table(self, dtype))
        else:
            with np.errstate(all="ignore"):
                for out, stored in pairs:
                    if self.plain:
                        np.copyto(out, stored, casting="unsafe")
                    else:
                        kernels.split(self.block, out, stored)

    def _many(self, count: int) -> bool:
        self._seen += count
        return self._seen >= _MANY

    def __eq__(self, other: object) -> bool:
        return self.key == other.key if isinstance(other, Unpacking) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.key)


@lru_cache(maxsize=64)
def _table(unpacking: Unpacking, dtype: np.dtype[Any]) -> NDArray[np.float32]:
    """What each integer becomes, by its bits as this machine reads them."""
    every = np.arange(1 << 8 * dtype.itemsize, dtype=f"=u{dtype.itemsize}").view(dtype)
    out = np.empty(every.shape, np.float32)
    with np.errstate(all="ignore"):
        kernels.split(unpacking.block, out, every)
    return out


def memory(use: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """Memory of this thread for a block; what stood in it is gone."""
    return scratch(f"{use} {dtype.str}", math.prod(shape) * dtype.itemsize).view(dtype).reshape(shape)
