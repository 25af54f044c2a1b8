"""GeoTIFF: which numbers are written, and which of them stands for missing.

Everything here is plain arithmetic; no file is touched.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import WriteError

Array = NDArray[Any]
_EPS = np.finfo(np.float32).eps


def physical_values(
    planes: Array, nodatavals: Sequence[float | int | None], hidden: NDArray[np.bool_] | None = None
) -> tuple[Array, float | None]:
    """The array to write and the nodata to declare, for physical values of shape ``(band, y, x)``.

    Args:
        planes: floats with NaN where missing, or integers, bools or complex numbers, which are all valid.
        nodatavals: the nodata values of the bands of the input; None where it has none.
        hidden: pixels that an alpha band hides. They need no nodata, which would take the alpha band's place.
    """
    data = tiff_dtype(planes)
    if data.dtype.kind != "f":
        return data, None
    missing = np.isnan(data)
    shown = missing if hidden is None else missing & ~hidden
    nodata = _float_nodata(data.dtype, bool(shown.any()), _different(nodatavals))
    if nodata is None or np.isnan(nodata):
        return data, nodata
    return _fill(data, missing, nodata), nodata


def raw_values(
    planes: Array, nodatavals: Sequence[float | int | None], stored: str | None
) -> tuple[Array, float | None]:
    """The same for values as they were stored, in dtype ``stored`` (if known) where it holds them exactly."""
    data, several = _exactly(tiff_dtype(planes), stored), _different(nodatavals)
    if len(several) > 1:
        say(f"the bands have different nodata values ({several}), a GeoTIFF has one: none is declared")
    declared = several[0] if len(several) == 1 else None
    if declared is None:
        return data, None
    if data.dtype.kind in "iu":
        limits = np.iinfo(data.dtype)
        # Nodata passes through float64, so only what that holds exactly can be declared.
        held = limits.min <= declared <= limits.max and abs(declared) <= 2**53
    else:
        held = not abs(declared) > float(np.finfo(data.dtype).max)
    if not held:
        say(f"nodata {declared} cannot be declared for {data.dtype.name}: none is")
    return data, float(declared) if held else None


def tiff_dtype(planes: Array) -> Array:
    """In native byte order, bool as uint8 and float16 as float32.

    Raises:
        WriteError: for a dtype that TIFF lacks.
    """
    dtype = planes.dtype.newbyteorder("=")
    if dtype.kind not in "biufc" or dtype.itemsize > (16 if dtype.kind == "c" else 8):
        raise WriteError(
            f"save: a GeoTIFF cannot hold {dtype.name} values; use astype, for example to float32"
        )
    return planes.astype({"bool": "uint8", "float16": "float32"}.get(dtype.name, dtype), copy=False)


def _exactly(data: Array, stored: str | None) -> Array:
    if stored is None or data.dtype == np.dtype(stored):
        return data
    with np.errstate(invalid="ignore", over="ignore"):  # of a cast that loses something: it is compared below
        cast = tiff_dtype(data.astype(stored))
    if np.array_equal(cast.astype(data.dtype), data, equal_nan=data.dtype.kind in "fc"):
        return cast
    say(
        f"the file's {stored} does not hold these raw {data.dtype.name} values exactly: "
        f"{data.dtype.name} is written"
    )
    return data


def _different(nodatavals: Sequence[float | int | None]) -> list[float | int | None]:
    return list({repr(value): value for value in nodatavals}.values())  # by text, for NaN is not NaN


def _float_nodata(dtype: np.dtype[Any], missing: bool, several: Sequence[float | int | None]) -> float | None:
    declared = several[0] if len(several) == 1 else None
    if declared is not None and not abs(float(declared)) > float(np.finfo(dtype).max):
        return float(declared)
    if missing and len(several) > 1:
        say(f"the bands have different nodata values ({list(several)}), a GeoTIFF has one: NaN is declared")
    elif missing and declared is not None:
        say(f"nodata {declared} is out of the range of {dtype.name}: NaN is declared")
    return np.nan if missing else None


def taken_for_nodata(values: Array, nodata: float) -> NDArray[np.bool_]:
    """Where GDAL takes floats for ``nodata``: equal, or closer than 4 float32 steps of it, also in float64.

    Source: the comparison in GDALNoDataMaskBand, |a - b| < eps |a + b| 2, worked out in the values' dtype.
    """
    target = values.dtype.type(nodata)
    eps = values.dtype.type(_EPS)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return np.asarray((values == target) | (np.abs(values - target) < eps * np.abs(values + target) * 2))


def _fill(data: Array, missing: NDArray[np.bool_], nodata: float) -> Array:
    """NaN becomes nodata, and a valid value that looks like nodata the nearest one that does not."""
    out = data.copy()
    moved, beside = 0, _nearest_valid(nodata, data.dtype)
    for plane, lost in zip(out, missing):
        clash = taken_for_nodata(plane, nodata)  # NaN is never among them
        moved += int(clash.sum())
        plane[clash] = beside
        plane[lost] = nodata
    if moved:
        say(f"{moved} valid values would read as nodata {nodata}: written as {beside!s} instead")
    return out


def _nearest_valid(nodata: float, dtype: np.dtype[Any]) -> Any:
    """The float next to ``nodata``, on the side of zero, that GDAL tells from it."""
    kind = dtype.type
    if kind(nodata) == 0:
        return np.nextafter(kind(0), kind(1))
    bits = np.uint32 if dtype.itemsize == 4 else np.uint64
    sign = np.copysign(kind(1), kind(nodata))
    low, high = (
        0,
        int(np.abs(np.array([nodata], dtype)).view(bits)[0]),
    )  # floats are ordered as their bits are
    while high - low > 1:
        middle = (low + high) // 2
        value = np.array([middle], bits).view(dtype) * sign
        low, high = (low, middle) if taken_for_nodata(value, nodata)[0] else (middle, high)
    return (np.array([low], bits).view(dtype) * sign)[0]


def say(message: str) -> None:
    """Warn about something that the file cannot hold as it is."""
    warnings.warn(f"save: {message}", stacklevel=2)
