"""Gaps: missing values, filled and put back."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import StepError
from streamgeo.parameters import in_unit
from streamgeo.pointwise import Array, as_floats, settle
from streamgeo.step import POINT, Step, register


@register("fill_nan")
def fill_nan(value: float = 0.0) -> Step:
    """Replace NaN by a number; the inverse puts NaN back where it was.

    The forward function also returns where NaN was (its residual: bool, shape of the array), which a chain
    carries to the inverse. Where a model made each pixel a block of pixels, the whole block becomes NaN.
    Floats keep their dtype, integers become float32.

    Args:
        value: what stands in for NaN, in the units of the values at this place in the chain.

    Raises:
        StepError: for a value that is not finite, or (in the inverse) when the prediction has a shape that
            does not fit the array that was filled.

    >>> filled, mask = fill_nan(-1.0).forward(np.array([np.nan, 2.0]))
    >>> filled.tolist(), fill_nan(-1.0).undo(filled, residual=mask).tolist()
    ([-1.0, 2.0], [nan, 2.0])
    """
    return Step(partial(_fill, value=in_unit(value, "", "fill_nan: value")), _unfill, reach=POINT)


def _fill(x: Array, *, value: float) -> tuple[Array, NDArray[np.bool_]]:
    work, dtype = as_floats(x)
    mask = np.isnan(work)
    return settle(np.where(mask, np.asarray(value, work.dtype), work), dtype), mask


def _unfill(y: Array, *, residual: NDArray[np.bool_]) -> Array:
    work, dtype = as_floats(y)
    mask = refined(residual.astype(bool), work.shape, "fill_nan")
    return settle(np.where(mask, np.asarray(np.nan, work.dtype), work), dtype)


def refined(mask: NDArray[np.bool_], shape: tuple[int, ...], what: str) -> NDArray[np.bool_]:
    """The mask for a prediction, where each pixel of the input became a block, or bands were put in front."""
    sizes = shape[len(shape) - mask.ndim :]
    if mask.ndim > len(shape) or any(new % old if old else new for new, old in zip(sizes, mask.shape)):
        raise StepError(
            f"inverse of {what}: NaN was marked in shape {mask.shape}, which does not fit a prediction "
            f"of shape {shape}; give an inverse of your own with key_transform(..., inverse=...)"
        )
    for axis, (new, old) in enumerate(zip(sizes, mask.shape)):
        if new != old:
            mask = np.repeat(mask, new // old, axis)
    return mask
