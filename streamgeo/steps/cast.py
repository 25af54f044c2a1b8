"""Change of dtype that refuses to lose values in silence."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from streamgeo.errors import StepError
from streamgeo.pointwise import Array
from streamgeo.step import POINT, Step, register


@register("cast")
def cast(dtype: DTypeLike) -> Step:
    """Change the dtype, checking that every value fits.

    To integers, values are rounded to the nearest (halves to even). To narrower floats, digits are rounded;
    NaN and infinities stay. The inverse gives float32, or float64 after ``cast("float64")``: what rounding
    took is not restored.

    Args:
        dtype: an integer or float dtype, by name (``"int16"``) or as numpy has it.

    Raises:
        StepError: for a dtype of another kind, or (when it runs) for values beyond the range of the dtype,
            and for NaN or infinity where it is one of integers.

    >>> cast("uint8")(np.array([0.4, 254.6])).tolist()
    [0, 255]
    """
    try:
        target = np.dtype(dtype).newbyteorder("=")
    except TypeError as error:
        raise StepError(f"cast: {dtype!r} is not a dtype ({error})") from None
    if target.kind not in "iuf":
        raise StepError(f"cast: {target} is neither an integer nor a float dtype")
    whole = target.kind in "iu"
    lossy = f"fractions (rounded to {target})" if whole else f"digits beyond {target}"
    return Step(
        partial(_cast, name=target.name),
        partial(_uncast, name="float64" if target == np.float64 else "float32"),
        reach=POINT,
        dtype=partial(_always, name=target.name),
        lossy=None if target == np.float64 else lossy,
    )


def _always(_: np.dtype[Any], *, name: str) -> np.dtype[Any]:
    return np.dtype(name)


def _cast(x: Array, *, name: str) -> Array:
    array, target = np.asarray(x), np.dtype(name)
    if np.can_cast(array.dtype, target, "safe"):
        return array.astype(target)
    if array.dtype.kind not in "iufb":
        raise StepError(
            f"cast: values of dtype {array.dtype} cannot become {target}; only integers and floats can"
        )
    if target.kind == "f":
        _within(array[np.isfinite(array)], np.finfo(target), target)
        return array.astype(target)
    if array.dtype.kind == "f":
        missing = int(np.count_nonzero(~np.isfinite(array)))
        if missing:
            raise StepError(
                f"cast: {missing} of {array.size} values are NaN or infinite, which {target} cannot hold; "
                "use fill_nan(...) before it"
            )
        array = np.rint(array)
    _within(array, np.iinfo(target), target)
    return array.astype(target)


def _uncast(y: Array, *, name: str) -> Array:
    return np.asarray(y).astype(name)


def _within(values: Array, limits: Any, target: np.dtype[Any]) -> None:
    """Raise unless all values (finite) lie within the range of the target.

    Compared as Python numbers, which is exact: as floats, 2**63 and the largest int64 would be equal.
    """
    if values.size == 0:
        return
    low, high = np.asarray(limits.min).item(), np.asarray(limits.max).item()
    for value in (values.min().item(), values.max().item()):
        if not low <= value <= high:
            raise StepError(
                f"cast: the value {value:g} is outside {target} ({low:g} to {high:g}); "
                "use clip(...) or scale before it, or a wider dtype"
            )
