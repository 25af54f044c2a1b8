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
from streamgeo.sinks.numbers import same_in
from streamgeo.sinks.pixels import Pixels

Array = NDArray[Any]
_PIECE = 1 << 20  # bytes that are worked on at a time: they stay in the processor's cache
_EPS = np.finfo(np.float32).eps


class Physical:
    """Turns blocks ``(band, y, x)`` of physical values into what is written.

    Args:
        dtype: of the values: floats with NaN where missing, or integers, bools or complex numbers, all valid.
        nodatavals: the nodata values of the bands of the input; None where it has none.
        alpha: the last band hides pixels where it is 0. They need no nodata, which would take its place.
    """

    def __init__(
        self, dtype: np.dtype[Any], nodatavals: Sequence[float | int | None], *, alpha: bool
    ) -> None:
        self.dtype, self.alpha, self._several = tiff_dtype(dtype), alpha, _different(nodatavals)
        declared = self._several[0] if self.dtype.kind == "f" and len(self._several) == 1 else None
        limit = float(np.finfo(self.dtype).max) if self.dtype.kind == "f" else 0.0
        self.nodata = float(declared) if declared is not None and not abs(float(declared)) > limit else None
        self._lost, self._missing, self._moved = declared if self.nodata is None else None, False, 0
        self._taken: tuple[Any, Any] | None = None
        if self.nodata is not None and not np.isnan(self.nodata):  # no number looks like NaN
            self._taken = range_of_nodata(self.nodata, self.dtype)

    def __call__(self, planes: Array) -> Array:
        """The numbers of a block: NaN becomes nodata, and a valid value that looks like it the nearest other one."""
        data = planes.astype(self.dtype, copy=False)
        if self.dtype.kind != "f" or (self.nodata is not None and np.isnan(self.nodata)):
            return data
        if self._taken is None:
            missing = np.isnan(data)
            self._missing = self._missing or bool(
                (missing & (planes[-1] != 0) if self.alpha else missing).any()
            )
            return data
        out = np.empty(data.shape, self.dtype)
        step = max(1, _PIECE // max(1, data[:, :1].nbytes))
        for row in range(0, data.shape[1], step):
            self._replace(data[:, row : row + step], out[:, row : row + step], *self._taken)
        return out

    def _replace(self, values: Array, out: Array, low: Any, high: Any) -> None:
        np.copyto(out, values)
        clash = values >= low  # NaN is never among them
        clash &= values <= high
        moved = int(np.count_nonzero(clash))
        assert self.nodata is not None
        if moved:
            self._moved += moved
            out[clash] = _nearest_valid(self.nodata, self.dtype)
        np.copyto(out, self.dtype.type(self.nodata), where=np.isnan(values))

    def finish(self) -> float | None:
        """The nodata to declare, now that all values were seen; says what was lost or changed."""
        if self._moved:
            assert self.nodata is not None
            beside = _nearest_valid(self.nodata, self.dtype)
            say(
                f"{self._moved} valid values would read as nodata {self.nodata}: written as {beside!s} instead"
            )
        if not self._missing:
            return self.nodata
        if len(self._several) > 1:
            say(
                f"the bands have different nodata values ({self._several}), a GeoTIFF has one: NaN is declared"
            )
        elif self._lost is not None:
            say(f"nodata {self._lost} is out of the range of {self.dtype.name}: NaN is declared")
        return float("nan")


class Raw:
    """The same for values as they were stored, in dtype ``stored`` (if known) where it holds them exactly.

    Whether it does is known from the values alone: where theirs is another dtype they are read twice.
    """

    def __init__(self, planes: Pixels, nodatavals: Sequence[float | int | None], stored: str | None) -> None:
        self.dtype, several = _dtype_of_raw(planes, stored), _different(nodatavals)
        self.nodata: float | None = None
        if len(several) > 1:
            say(f"the bands have different nodata values ({several}), a GeoTIFF has one: none is declared")
        declared = several[0] if len(several) == 1 else None
        if declared is None:
            return
        if self.dtype.kind in "iu":
            limits = np.iinfo(self.dtype)
            # Nodata passes through float64, so only what that holds exactly can be declared.
            held = limits.min <= declared <= limits.max and abs(declared) <= 2**53
        else:
            held = not abs(declared) > float(np.finfo(self.dtype).max)
        if held:
            self.nodata = float(declared)
        else:
            say(f"nodata {declared} cannot be declared for {self.dtype.name}: none is")

    def __call__(self, planes: Array) -> Array:
        """The numbers of a block."""
        return planes.astype(self.dtype, copy=False)

    def finish(self) -> float | None:
        """The nodata that is declared."""
        return self.nodata


def tiff_dtype(given: np.dtype[Any]) -> np.dtype[Any]:
    """In native byte order, uint8 for bool and float32 for float16.

    Raises:
        WriteError: for a dtype that TIFF lacks.
    """
    dtype = given.newbyteorder("=")
    if dtype.kind not in "biufc" or dtype.itemsize > (16 if dtype.kind == "c" else 8):
        raise WriteError(
            f"save: a GeoTIFF cannot hold {dtype.name} values; use astype, for example to float32"
        )
    return np.dtype({"bool": "uint8", "float16": "float32"}.get(dtype.name, dtype))


def _dtype_of_raw(planes: Pixels, stored: str | None) -> np.dtype[Any]:
    dtype = tiff_dtype(planes.dtype)
    if stored is None or dtype == np.dtype(stored):
        return dtype
    wanted = tiff_dtype(np.dtype(stored))
    if all(same_in(block.astype(dtype, copy=False), wanted)[1] for _, block in planes.blocks()):
        return wanted
    say(f"the file's {stored} does not hold these raw {dtype.name} values exactly: {dtype.name} is written")
    return dtype


def _different(nodatavals: Sequence[float | int | None]) -> list[float | int | None]:
    return list({repr(value): value for value in nodatavals}.values())  # by text, for NaN is not NaN


def taken_for_nodata(values: Any, nodata: float) -> NDArray[np.bool_]:
    """Where GDAL takes floats for ``nodata``: equal, or closer than 4 float32 steps of it, also in float64.

    Source: the comparison in GDALNoDataMaskBand, |a - b| < eps |a + b| 2, worked out in the values' dtype.
    """
    target = values.dtype.type(nodata)
    eps = values.dtype.type(_EPS)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return np.asarray((values == target) | (np.abs(values - target) < eps * np.abs(values + target) * 2))


def range_of_nodata(nodata: float, dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """The least and the greatest float that GDAL takes for ``nodata``; all between them are taken, too."""
    ends = [_border(nodata, dtype, limit)[0] for limit in (0.0, np.inf)]
    return min(ends), max(ends)


def _nearest_valid(nodata: float, dtype: np.dtype[Any]) -> Any:
    """The float next to ``nodata``, on the side of zero, that GDAL tells from it."""
    return _border(nodata, dtype, 0.0)[1]


def _border(nodata: float, dtype: np.dtype[Any], limit: float) -> tuple[Any, Any]:
    """From ``nodata`` towards 0 or infinity: the last float that is taken for it, and the next one, which is not."""
    kind = dtype.type
    if kind(nodata) == 0:
        return kind(0), np.nextafter(kind(0), kind(1))
    bits = np.uint32 if dtype.itemsize == 4 else np.uint64
    sign = np.copysign(kind(1), kind(nodata))

    def value(pattern: int) -> Any:
        return (np.array([pattern], bits).view(dtype) * sign)[0]

    # Floats are ordered as their bits are.
    taken, free = (int(np.abs(np.array([end], dtype)).view(bits)[0]) for end in (nodata, limit))
    while abs(free - taken) > 1:
        middle = (taken + free) // 2
        if taken_for_nodata(value(middle), nodata):
            taken = middle
        else:
            free = middle
    return value(taken), value(free)


def say(message: str) -> None:
    """Warn about something that the file cannot hold as it is."""
    warnings.warn(f"save: {message}", stacklevel=2)
