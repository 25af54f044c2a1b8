"""Which numbers a NetCDF or HDF5 file gets, and which of them stands for missing."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.cf_packing import MARKS, SCALES
from streamgeo.errors import WriteError

Array = NDArray[Any]
Packed = tuple[Array, dict[str, Any], Any]


def stored(
    values: Array, attrs: Mapping[str, Any], storage: Mapping[str, Any], *, changed: bool, file: str
) -> Packed:
    """Values as stored, with the attributes that unpack them, in the dtype of the file.

    What a model made of several bands may have another dtype (``changed``); then it is physical.

    Raises:
        WriteError: when the values do not fit the dtype exactly.
    """
    try:
        values = exactly(values, np.dtype(storage["dtype"]).newbyteorder("="), file)
    except WriteError:
        if changed:
            return physical(values, attrs, {}, changed=True, file=file)
        raise
    kept = {key: value for key, value in attrs.items() if key != "_FillValue"}
    return values, kept, attrs.get("_FillValue")


def exactly(values: Array, dtype: np.dtype[Any], name: str) -> Array:
    """The values in the dtype of the file.

    Raises:
        WriteError: when that would change them.
    """
    if values.dtype == dtype:
        return values
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cast = values.astype(dtype)
        same = np.array_equal(cast.astype(values.dtype), values, equal_nan=values.dtype.kind in "fc")
    if not same:
        raise WriteError(
            f"save: {name} was opened with raw=True and is stored as {dtype}, which does not hold these "
            f"{values.dtype} values exactly; round and clip them, or open with raw=False"
        )
    return cast


def physical(
    values: Array, attrs: Mapping[str, Any], storage: Mapping[str, Any], *, changed: bool, file: str
) -> Packed:
    """Physical values in their own dtype, without the attributes that unpack stored ones.

    NaN becomes the fill value of a file of floats, and a valid value that equals it the next float.
    """
    kept = {key: value for key, value in attrs.items() if key not in (*MARKS, *SCALES)}
    if values.dtype == np.float16:
        values = values.astype(np.float32)
    if values.dtype.kind != "f":
        return values, kept, None
    fill = storage.get("fill")
    with np.errstate(over="ignore"):
        fill = values.dtype.type(np.nan if fill is None else fill)
    if not np.isfinite(fill):
        return values, kept, values.dtype.type(np.nan)
    if "missing_value" in attrs:
        kept["missing_value"] = fill
    return fill_nan(values, fill, file), kept, fill


def fill_nan(values: Array, fill: Any, file: str) -> Array:
    """NaN becomes ``fill``; a valid value equal to it becomes the next float towards zero, with a warning."""
    missing, clash = np.isnan(values), values == fill
    if not (missing.any() or clash.any()):
        return values
    out = values.copy()
    if clash.any():
        beside = np.nextafter(fill, values.dtype.type(1 if fill == 0 else 0))
        out[clash] = beside
        warnings.warn(
            f"save: {int(clash.sum())} valid values in {file} equal the fill value {fill}: "
            f"written as {beside}",
            stacklevel=2,
        )
    out[missing] = fill
    return out


def unused_fill(values: Array, default: Any) -> Any:
    """A fill value for integers that readers may not mistake for data: the default one if no pixel has it."""
    if not np.any(values == default):
        return None
    limits = np.iinfo(values.dtype)
    present = np.unique(values)
    for candidate in (limits.min, limits.max):
        if candidate not in (present[0], present[-1]):
            return values.dtype.type(candidate)
    gaps = np.flatnonzero(np.diff(present) > 1)
    return None if not gaps.size else present[gaps[0]] + values.dtype.type(1)
