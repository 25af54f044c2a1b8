"""Gaps: missing values, filled and put back."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import StepError
from streamgeo.pointwise import Array, as_floats, settle
from streamgeo.step import POINT, Step, in_unit, register


@register("fill_nan")
def fill_nan(value: float = 0.0) -> Step:
    """Replace NaN by a number; the inverse puts NaN back where it was.

    The forward function also returns where NaN was (its residual: bool, shape of the array), which a chain
    carries to the inverse. Floats keep their dtype, integers become float32.

    Args:
        value: what stands in for NaN, in the units of the values at this place in the chain.

    Raises:
        StepError: for a value that is not finite, or (in the inverse) when the shape of the prediction does not
            fit the array that was filled.

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
    try:
        fits = np.broadcast_shapes(residual.shape, work.shape) == work.shape
    except ValueError:
        fits = False
    if not fits:
        raise StepError(
            f"inverse of fill_nan: NaN was marked in shape {residual.shape}, which does not fit a prediction "
            f"of shape {work.shape}; give an inverse of your own with key_transform(..., inverse=...)"
        )
    return settle(np.where(residual.astype(bool), np.asarray(np.nan, work.dtype), work), dtype)
