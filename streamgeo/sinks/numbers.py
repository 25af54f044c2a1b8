"""Which numbers a NetCDF or HDF5 file gets, and which of them stands for missing."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.cf_packing import MARKS, SCALES
from streamgeo.errors import WriteError
from streamgeo.sinks.pixels import Pixels

Array = NDArray[Any]
Packed = tuple[Pixels, dict[str, Any], Any]


def stored(
    values: Pixels, attrs: Mapping[str, Any], storage: Mapping[str, Any], *, changed: bool, file: str
) -> Packed:
    """Values as stored, with the attributes that unpack them, in the dtype of the file.

    What a model made of several bands may have another dtype (``changed``); then it is physical, which only reading
    it first can tell.

    Raises:
        WriteError: when the values do not fit the dtype exactly; for what is not in memory, when they are read.
    """
    dtype = np.dtype(storage["dtype"]).newbyteorder("=")
    fits = (
        not changed or values.dtype == dtype or all(same_in(block, dtype)[1] for _, block in values.blocks())
    )
    if not fits:
        return physical(values, attrs, {}, changed=True, file=file)
    kept = {key: value for key, value in attrs.items() if key != "_FillValue"}
    return exactly(values, dtype, file), kept, attrs.get("_FillValue")


def exactly(values: Pixels, dtype: np.dtype[Any], name: str) -> Pixels:
    """The values in the dtype of the file; a block that this would change raises a WriteError."""
    return values.map(partial(_exactly, dtype=dtype, name=name))


def _exactly(values: Array, *, dtype: np.dtype[Any], name: str) -> Array:
    cast, same = same_in(values, dtype)
    if not same:
        raise WriteError(
            f"save: {name} was opened with raw=True and is stored as {dtype}, which does not hold these "
            f"{values.dtype} values exactly; round and clip them, or open with raw=False"
        )
    return cast


def same_in(values: Array, dtype: np.dtype[Any]) -> tuple[Array, bool]:
    """The values in another dtype, and whether they are the same."""
    if values.dtype == dtype:
        return values, True
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cast = values.astype(dtype)
        return cast, np.array_equal(cast.astype(values.dtype), values, equal_nan=values.dtype.kind in "fc")


def physical(
    values: Pixels, attrs: Mapping[str, Any], storage: Mapping[str, Any], *, changed: bool, file: str
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
    filler = _Filler(fill, file)
    return values.map(filler, filler.report), kept, fill


class _Filler:
    """NaN becomes ``fill``; a valid value equal to it becomes the next float towards zero, and is counted."""

    def __init__(self, fill: Any, file: str) -> None:
        self.fill, self.file, self.moved = fill, file, 0
        self.beside = np.nextafter(fill, fill.dtype.type(1 if fill == 0 else 0))

    def __call__(self, values: Array) -> Array:
        missing, clash = np.isnan(values), values == self.fill
        if not (missing.any() or clash.any()):
            return values
        out = values.copy()
        out[clash], out[missing] = self.beside, self.fill
        self.moved += int(clash.sum())
        return out

    def report(self) -> None:
        if self.moved:
            warnings.warn(
                f"save: {self.moved} valid values in {self.file} equal the fill value {self.fill}: "
                f"written as {self.beside}",
                stacklevel=2,
            )


class Unused:
    """Looks for integers that no pixel has while blocks pass; one of them may stand for missing.

    Of 8 and 16 bits every value is looked for, of more bits the default fill value and some at the limits.
    """

    def __init__(self, dtype: np.dtype[Any], default: Any) -> None:
        limits = np.iinfo(dtype)
        ends = [limits.min, limits.max, limits.min + 1, limits.max - 1, limits.min + 2, limits.max - 2]
        self.dtype, self.tried, self.met = dtype, [dtype.type(default), *map(dtype.type, ends)], set[int]()
        self.present = np.zeros(1 << 16, bool) if dtype.itemsize <= 2 else None

    def __call__(self, values: Array) -> Array:
        """The values as they are, having been looked at."""
        if self.present is not None:
            self.present[values.astype(np.int32) & 0xFFFF] = True
        else:
            self.met |= {i for i, one in enumerate(self.tried) if i not in self.met and np.any(values == one)}
        return values

    def found(self) -> Any:
        """None where the default fill value is free, else a free value, else the default one with a warning."""
        if self.present is not None:
            order = [int(one) & 0xFFFF for one in self.tried] + list(range(1 << 8 * self.dtype.itemsize))
            free = next((at for at in order if not self.present[at]), None)
            value = None if free is None else np.array(free, np.uint16).astype(self.dtype)[()]
        else:
            value = next((one for i, one in enumerate(self.tried) if i not in self.met), None)
        if value is None:
            warnings.warn(
                f"save: every {self.dtype} that may stand for missing is a valid value: readers of the file will take "
                f"{self.tried[0]} for missing",
                stacklevel=2,
            )
        return None if value == self.tried[0] else value
