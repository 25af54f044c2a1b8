"""Stitching: patches back into the array they were cut from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from streamgeo.errors import StepError

Array = NDArray[Any]
Floats = NDArray[np.float64]


def _mean(size: int) -> Floats:
    return np.ones(size)


def _hann(size: int) -> Floats:
    # Half a sample in from the zeros at both ends: a pixel that only one patch covers keeps a weight.
    return np.asarray(np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2)


BLENDS: dict[str, Callable[[int], Floats]] = {"mean": _mean, "hann": _hann}


def check_blend(blend: str) -> str:
    """The name of a blend, or a StepError that lists them."""
    if blend not in BLENDS:
        raise StepError(f"stitch: no blend {blend!r}; there are {', '.join(map(repr, BLENDS))}")
    return blend


class Canvas:
    """An array that patches are put into, overlapping as they may.

    Floats: weighted mean, accumulated in float64. NaN has no weight, so a pixel is NaN only where every patch
    that covers it says NaN, or none does. Other dtypes (labels, flags) cannot be averaged: a pixel comes from
    the patch in which it lies deepest, the first of equals.

    Args:
        shape: shape of the whole.
        dtype: dtype of the result.
        patched: axes that were cut; weights fall off along these.
        blend: ``"mean"`` or ``"hann"``.
    """

    def __init__(
        self, shape: Sequence[int], dtype: DTypeLike, patched: Sequence[int], blend: str = "mean"
    ) -> None:
        self.shape, self.dtype, self.patched = tuple(shape), np.dtype(dtype), tuple(patched)
        self.profile = BLENDS[check_blend(blend)]
        self.averages = self.dtype.kind in "fc"
        work = np.complex128 if self.dtype.kind == "c" else np.float64
        # Floats are summed as differences from the first value that came, so equal values have exactly that mean.
        self._first: Array = np.zeros(self.shape, self.dtype)
        self._sum: Array | None = np.zeros(self.shape, work) if self.averages else None
        self._weight = np.zeros(self.shape, np.float64 if self.averages else np.float32)

    def put(self, values: Array, start: Sequence[int]) -> None:
        """Put a patch whose first pixel goes to ``start``; what lies outside the whole is cut off."""
        lows = [max(0, -at) for at in start]
        highs = [min(size, whole - at) for size, whole, at in zip(values.shape, self.shape, start)]
        if any(high <= low for low, high in zip(lows, highs)):
            return
        inside = tuple(slice(low, high) for low, high in zip(lows, highs))
        here = tuple(slice(at + low, at + high) for at, low, high in zip(start, lows, highs))
        part = values[inside]
        profile, combine = (_depth, np.minimum) if self._sum is None else (self.profile, np.multiply)
        weight = self._weights(values.shape, profile, combine)[_thin(inside, self.patched)]
        weight = np.broadcast_to(weight, part.shape)
        first, total = self._first[here], self._weight[here]
        if self._sum is None:
            deeper = weight > total
            first[deeper], total[deeper] = part[deeper], weight[deeper]
            return
        known = ~np.isnan(part)
        new = known & (total == 0)
        first[new] = part[new]
        change = known & (part != first)  # infinities agree, though their difference is no number
        with np.errstate(invalid="ignore"):
            self._sum[here] += np.where(change, (part.astype(self._sum.dtype) - first) * weight, 0)
        total += np.where(known, weight, 0)

    def _weights(self, shape: Sequence[int], profile: Callable[[int], Floats], combine: np.ufunc) -> Floats:
        """Weights of a patch, of size 1 in the axes that were not cut."""
        lines = [
            profile(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])
            for axis in self.patched
        ]
        out = np.ones([1] * len(shape)) if not lines else lines[0]
        for line in lines[1:]:
            out = combine(out, line)
        return np.asarray(out, np.float64)

    def result(self) -> Array:
        """The whole, in its dtype; floats are NaN where no patch had a value, other dtypes 0."""
        if self._sum is None:
            return self._first
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = self._first + self._sum / self._weight
        mean[self._weight == 0] = np.nan
        return mean.astype(self.dtype)


def _depth(size: int) -> Floats:
    """Distance to the nearer end, in pixels."""
    index = np.arange(size)
    return np.asarray(np.minimum(index, size - 1 - index) + 1.0)


def _thin(index: tuple[slice, ...], patched: Sequence[int]) -> tuple[slice, ...]:
    """The index for an array of weights, which has size 1 in the axes that were not cut."""
    return tuple(part if axis in patched else slice(None) for axis, part in enumerate(index))
