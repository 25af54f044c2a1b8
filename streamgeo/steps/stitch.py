"""Stitching: patches back into the array they were cut from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from streamgeo.errors import StepError

Array = NDArray[Any]
Floats = NDArray[np.float64]
Blend = str | Array


def _mean(size: int) -> Floats:
    return np.ones(size)


# Half a sample in from the zeros at both ends: a pixel that only one patch covers keeps a weight.
def _cosine(size: int) -> Floats:
    return np.asarray(np.sin(np.pi * (np.arange(size) + 0.5) / size))


def _hann(size: int) -> Floats:
    return _cosine(size) ** 2


def _gaussian(size: int) -> Floats:
    """Standard deviation an eighth of the patch, as is usual for tiled segmentation (Isensee et al. 2021, nnU-Net)."""
    return np.asarray(np.exp(-0.5 * ((np.arange(size) - (size - 1) / 2) / (size / 8)) ** 2))


def _depth(size: int) -> Floats:
    """Distance to the nearer end, in pixels."""
    index = np.arange(size)
    return np.asarray(np.minimum(index, size - 1 - index) + 1.0)


BLENDS: dict[str, Callable[[int], Floats]] = {
    "mean": _mean, "hann": _hann, "cosine": _cosine, "gaussian": _gaussian, "crop": _depth
}  # fmt: skip


def check_blend(blend: Blend) -> Blend:
    """A blend by name, or weights as float64.

    Raises:
        StepError: for a name that is none, and for weights that are negative, not finite, or zero everywhere.
    """
    if isinstance(blend, str):
        if blend not in BLENDS:
            raise StepError(
                f"stitch: no blend {blend!r}; there are {', '.join(map(repr, BLENDS))}, or an array"
            )
        return blend
    weights = np.asarray(blend)
    if weights.dtype.kind not in "buif" or not np.isfinite(weights).all() or not (weights >= 0).all():
        raise StepError("stitch: the weights must be finite numbers of 0 or more")
    if not weights.any():
        raise StepError(f"stitch: the weights, of shape {weights.shape}, are all 0")
    return weights.astype(np.float64)


class Canvas:
    """An array that patches are put into, overlapping as they may.

    Floats: weighted mean, accumulated in their own precision as differences from the first value that came, so equal
    values have exactly that mean. NaN has no weight, so a pixel is NaN only where every patch that covers it says NaN.
    Other dtypes (labels, flags) cannot be averaged, and with ``"crop"`` floats are not either: a pixel comes from
    the patch in which it lies deepest, the first of equals.

    Args:
        shape: shape of the whole.
        dtype: dtype of the result.
        patched: axes that were cut; weights fall off along these.
        blend: ``"mean"``, ``"hann"``, ``"cosine"``, ``"gaussian"``, ``"crop"``, or the weights of a patch: an array
            with the size of the patch in the axes that were cut.
    """

    def __init__(
        self, shape: Sequence[int], dtype: DTypeLike, patched: Sequence[int], blend: Blend = "mean"
    ) -> None:
        self.shape, self.dtype, self.patched = tuple(shape), np.dtype(dtype), tuple(patched)
        self.blend = check_blend(blend)
        self._averages = self.dtype.kind in "fc" and not (
            isinstance(self.blend, str) and self.blend == "crop"
        )
        self._first: Array = np.zeros(self.shape, self.dtype)
        self._change: Array | None = None  # made when two patches first differ: half of the memory until then
        self._weight = np.zeros(self.shape, np.float32)
        thin = [size if axis in self.patched else 1 for axis, size in enumerate(self.shape)]
        self._covered = np.zeros(thin, bool)
        self._thin: dict[tuple[int, ...], Floats] = {}

    def clear(self) -> None:
        """Forget all patches."""
        if self._change is not None:
            self._change.fill(0)
        self._weight.fill(0)
        self._covered.fill(False)

    def put(self, values: Array, start: Sequence[int]) -> None:
        """Put a patch whose first pixel goes to ``start``; what lies outside the whole is cut off."""
        lows = [max(0, -at) for at in start]
        highs = [min(size, whole - at) for size, whole, at in zip(values.shape, self.shape, start)]
        if any(high <= low for low, high in zip(lows, highs)):
            return
        inside = tuple(slice(low, high) for low, high in zip(lows, highs))
        here = tuple(slice(at + low, at + high) for at, low, high in zip(start, lows, highs))
        part, weight = values[inside], self._weights(values.shape)[_thin(inside, self.patched)]
        covered = self._covered[_thin(here, self.patched)]
        fresh = not covered.any()
        covered |= weight > 0
        known: Array | bool = ~np.isnan(part) if part.dtype.kind in "fc" else True
        if fresh:  # most patches that do not overlap, so this way is short
            self._first[here] = part
            np.multiply(weight, known, out=self._weight[here], casting="same_kind")
        elif self._averages:
            self._average(here, part, weight, known)
        else:
            first, depth = self._first[here], self._weight[here]
            deeper = (weight > depth) & known
            first[deeper], depth[deeper] = part[deeper], np.broadcast_to(weight, part.shape)[deeper]

    def _average(self, here: tuple[slice, ...], part: Array, weight: Floats, known: Array | bool) -> None:
        first, total = self._first[here], self._weight[here]
        new = (total == 0) & known
        np.copyto(first, part, where=new)
        differs = (part != first) & known  # infinities agree, though their difference is no number
        if differs.any():
            if self._change is None:
                self._change = np.zeros(self.shape, np.result_type(self.dtype, np.float32))
            with np.errstate(invalid="ignore", over="ignore"):
                change = np.subtract(part, first, dtype=self._change.dtype)
                change *= weight
            np.add(self._change[here], change, out=self._change[here], where=differs)
        total += weight * known

    def _weights(self, shape: tuple[int, ...]) -> Floats:
        """Weights of a patch, of size 1 in the axes that were not cut; float32, as they are summed."""
        if shape not in self._thin:
            self._thin[shape] = self._weigh(shape).astype(np.float32)
        return self._thin[shape]

    def _weigh(self, shape: Sequence[int]) -> Floats:
        thin = [shape[axis] if axis in self.patched else 1 for axis in range(len(shape))]
        if not isinstance(self.blend, str):
            if self.blend.shape != tuple(shape[axis] for axis in sorted(self.patched)):
                raise StepError(
                    f"stitch: the weights have shape {self.blend.shape}, a patch {tuple(shape)} with the axes "
                    f"{tuple(sorted(self.patched))} cut"
                )
            weights = self.blend.reshape(thin)
            return weights if self._averages else np.asarray(_deep(thin) * (weights > 0))
        if not self._averages:
            return _deep(thin)
        out = np.ones([1] * len(shape))
        for line in _lines(BLENDS[self.blend], thin):
            out = out * line
        return np.asarray(out)

    @property
    def missing(self) -> int:
        """How many pixels, of those along the axes that were cut, no patch with a weight covers."""
        return int(self._covered.size - np.count_nonzero(self._covered))

    def uncovered(self, box: tuple[slice, ...] = ()) -> NDArray[np.bool_]:
        """Where no patch has a weight: of the same dims as the whole, with size 1 in those that were not cut."""
        return ~self._covered[_thin(box, self.patched)]

    def result(self, box: tuple[slice, ...] = ()) -> Array:
        """A part of the whole, in its dtype; what no patch covers is NaN in floats, else 0 or what was there before."""
        out, weight = self._first[box], self._weight[box]
        if self._change is not None:
            with np.errstate(invalid="ignore", divide="ignore"):
                mean = self._change[box] / weight
                mean += out
            out = mean.astype(self.dtype, copy=False)
        else:
            out = out.copy()
        if out.dtype.kind in "fc":
            out[weight == 0] = np.nan
        return out


def _lines(profile: Callable[[int], Floats], shape: Sequence[int]) -> list[Floats]:
    """The profile along each axis that has more than one pixel, shaped to broadcast."""
    ndim = len(shape)
    return [
        profile(size).reshape([-1 if i == axis else 1 for i in range(ndim)])
        for axis, size in enumerate(shape)
        if size > 1
    ]


def _deep(shape: Sequence[int]) -> Floats:
    """How deep each pixel lies in a patch."""
    out = np.full([1] * len(shape), np.inf)
    for line in _lines(_depth, shape):
        out = np.minimum(out, line)
    return np.asarray(out if np.isfinite(out).any() else np.ones(shape), np.float64)


def _thin(index: tuple[slice, ...], patched: Sequence[int]) -> tuple[slice, ...]:
    """The index for an array of weights, which has size 1 in the axes that were not cut."""
    return tuple(part if axis in patched else slice(None) for axis, part in enumerate(index))
