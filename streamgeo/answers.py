"""What a model returned, as arrays by the name of the output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import StepError

Array = NDArray[Any]


def answers(made: Any) -> dict[str, Array]:
    """The arrays of a model, in native byte order; ``""`` names the only one.

    Raises:
        StepError: for what is no array of numbers, or one whose mask would be lost.
    """
    if not isinstance(made, Mapping):
        return {"": _numbers(made, "the model")}
    if not made:
        raise StepError("predict: the model returned an empty dict; return at least one array")
    for name in made:
        if not str(name) or "/" in str(name):
            raise StepError(f"predict: the model names an output {name!r}; names are parts of file names")
    return {str(name): _numbers(values, f"the model, for {name!r},") for name, values in made.items()}


def _numbers(values: Any, who: str) -> Array:
    remedy = "return one array of numbers, or a dict of such"
    if isinstance(values, tuple):
        raise StepError(f"predict: {who} returned a tuple; {remedy} by the names of the outputs")
    if isinstance(values, np.ma.MaskedArray):
        raise StepError(f"predict: {who} returned a masked array, whose mask would be lost; use .filled(nan)")
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:  # ragged lists, tensors that numpy cannot read
        raise StepError(
            f"predict: {who} returned {type(values).__name__}, of which numpy makes no array ({error}); {remedy}"
        ) from error
    if array.dtype.kind not in "buifc":
        raise StepError(f"predict: {who} returned {type(values).__name__} ({array.dtype}) and must {remedy}")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
