"""What steps that work pixel by pixel have in common: the dtype they compute in, and numbers per band."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamgeo.errors import StepError

Array = NDArray[Any]
Numbers = float | tuple[float, ...]
PerBand = float | Sequence[float] | NDArray[Any]


def as_floats(x: ArrayLike) -> tuple[Array, np.dtype[Any]]:
    """The array in a dtype to compute in, and the dtype of the result.

    float32 and float64 (and complex) stay as they are; float16 is computed in float32 and given back as
    float16. Integers give float32; those of more than 16 bits, which float32 cannot hold, are computed in
    float64 first.

    Raises:
        StepError: for values that are not numbers.
    """
    array = np.asarray(x)
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind in "fc":
        native = array.dtype.newbyteorder("=")
        return (array.astype(np.float32) if native == np.float16 else array), native
    if kind in "iub":
        return array.astype(np.float32 if size <= 2 else np.float64), np.dtype(np.float32)
    raise StepError(f"values of dtype {array.dtype} are not numbers; give integers or floats")


def settle(y: ArrayLike, dtype: np.dtype[Any]) -> Array:
    """The result in the dtype that :func:`as_floats` promised."""
    array = np.asarray(y)
    return array if array.dtype == dtype else array.astype(dtype)  # the very array, where it fits


def target(out: Array | None, work: Array) -> Array | None:
    """Where a ufunc may write: ``out`` where it is given and has the dtype that is computed in."""
    return out if out is not None and out.dtype == work.dtype else None


def pointwise(f: Callable[[Any], Any], x: ArrayLike) -> Array:
    """``f`` of the values, computed and given back in the dtypes that :func:`as_floats` says."""
    work, dtype = as_floats(x)
    return settle(f(work), dtype)


def numbers(value: PerBand, what: str, *, positive: bool = False) -> Numbers:
    """A finite float, or a tuple with one for each band, from what a factory was given.

    Raises:
        StepError: for what is no number, not finite, of more than one dim, or (``positive``) not above 0.
    """
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise StepError(f"{what}={value!r} is not a number, nor one for each band") from None
    if array.ndim > 1 or array.size == 0:
        raise StepError(f"{what} has shape {array.shape}; give one number, or a vector with one per band")
    flat = np.atleast_1d(array)
    bad = ~(np.isfinite(flat) & ((flat > 0) | (not positive)))
    if bad.any():
        limit = "finite and above 0" if positive else "finite"
        raise StepError(f"{what}={flat[bad][0].item()} must be {limit}")
    return float(array) if array.ndim == 0 else tuple(array.tolist())


def along_bands(values: Numbers, x: Array, what: str) -> Any:
    """A number as it is; one for each band shaped to broadcast along axis -3 of ``x`` (bands, y, x).

    Raises:
        StepError: when the array has no such axis, or another number of bands.
    """
    if not isinstance(values, tuple):
        return values
    bands = x.shape[-3] if x.ndim >= 3 else None
    if bands != len(values):
        found = "no bands" if bands is None else bands
        raise StepError(
            f"{what}: {len(values)} numbers, one for each band, but axis -3 of shape {x.shape} has {found}; "
            "give one number, transpose the bands to axis -3, or give reach=sg.SCENE if patch cuts bands"
        )
    return np.array(values, x.dtype).reshape(-1, 1, 1)
