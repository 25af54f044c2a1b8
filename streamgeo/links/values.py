"""Values of samples: how they come in, and the error for one that is not there."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

import numpy as np

from streamgeo.errors import ChainError, MissingKeyError
from streamgeo.plan import Item


def as_value(value: Any) -> Any:
    """A value of a sample as an array that cannot be written to: it belongs to whoever made it.

    Text stays text (a path), and paths become text; bytes become int8 as in mlx-data, a masked array gets NaN where
    it is masked.
    """
    if type(value) is np.ndarray and value.dtype.isnative:  # nearly always
        view = value.view()
        view.setflags(write=False)
        return view
    if isinstance(value, (str, PurePath)):
        return np.str_(value)
    if isinstance(value, bytes):
        return np.frombuffer(value, np.int8)
    if isinstance(value, np.ma.MaskedArray):
        if value.dtype.kind not in "fc" and np.ma.is_masked(value):
            raise ChainError(
                "a masked array of integers cannot carry its mask; give .astype(float) or a mask key"
            )
        return value.filled(np.nan) if value.dtype.kind in "fc" else value.data
    if hasattr(value, "to_value") and hasattr(value, "unit"):
        raise ChainError(f"a Quantity in {value.unit} would lose its unit in a sample; give .to_value(unit)")
    if isinstance(value, (list, tuple)) and any(isinstance(part, PurePath) for part in value):
        value = [str(part) if isinstance(part, PurePath) else part for part in value]
    array = np.asarray(value)
    if array.dtype.kind == "O" and not isinstance(value, np.ndarray):
        raise ChainError(f"a value is a {type(value).__name__}; give an array, a number, text or bytes")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    view = array.view()
    view.setflags(write=False)
    return view


def need(item: Item, key: str, operation: str) -> None:
    """A clear error for a key that is not there."""
    if key not in item.values:
        raise MissingKeyError(f"{operation}: no key {key!r} in the sample; it has {sorted(item.values)}")
