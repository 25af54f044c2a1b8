"""From stored numbers to physical ones: masks and scales as netCDF4-python applies them.

Sources: NetCDF Users Guide, appendix A (``_FillValue``, ``missing_value``, ``valid_range``, ``_Unsigned``,
``scale_factor``, ``add_offset``), CF conventions 1.11, section 2.5.1 and 8.1. Where readers differ,
netCDF4-python is followed to the letter, its arithmetic included, so that both give the same float32.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo import unpacking
from streamgeo.errors import OpenError
from streamgeo.kernels import Line
from streamgeo.unpacking import memory

Array = NDArray[Any]
MARKS = ("_FillValue", "missing_value", "valid_range", "valid_min", "valid_max", "_Unsigned")
SCALES = ("scale_factor", "add_offset")
DEFAULT_FILLS: Mapping[str, Any] = {  # what netCDF-C fills with, by kind and bytes
    "i1": -127, "u1": 255, "i2": -32767, "u2": 65535, "i4": -2147483647, "u4": 4294967295,
    "i8": -9223372036854775806, "u8": 18446744073709551614, "f4": 9.969209968386869e36, "f8": 9.969209968386869e36,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Packing:
    """How stored numbers become physical ones.

    Attributes:
        unsigned: signed integers stand for unsigned ones of the same bits.
        markers: values that mean missing.
        low, high: values below and above are missing too.
        scale, offset: physical = stored * scale + offset; None where there is none.
        cast: dtype that a scale of 1 with an offset of 0 still imposes.
    """

    unsigned: bool = False
    markers: tuple[Any, ...] = ()
    low: Any = None
    high: Any = None
    scale: Any = None
    offset: Any = None
    cast: np.dtype[Any] | None = None

    @property
    def scaled(self) -> bool:
        """Whether physical numbers differ from stored ones."""
        return self.scale is not None or self.offset is not None or self.unsigned


def scalar(value: Any) -> Any:
    """The only element of an array of one; anything else as it is."""
    return np.asarray(value).reshape(())[()] if isinstance(value, np.ndarray) and value.size == 1 else value


def native(array: Array) -> Array:
    """The same numbers in the byte order of this machine."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def packing(
    attrs: Mapping[str, Any],
    dtype: np.dtype[Any],
    where: str,
    *,
    default_fill: Any = None,
    scales: bool = True,
) -> Packing:
    """Read the packing of a variable from its attributes.

    Args:
        attrs: attributes of the variable.
        dtype: dtype of the stored numbers.
        where: operation, variable and file, for messages.
        default_fill: what unwritten pixels hold when there is no ``_FillValue``, or None.
        scales: whether scale and offset count (they do not for enumerations).

    Raises:
        OpenError: when scale or offset is text.
    """
    dtype = dtype.newbyteorder("=")
    unsigned = dtype.kind == "i" and str(attrs.get("_Unsigned", "")) in ("true", "True")

    def cast(key: str) -> Array | None:
        if key not in attrs:
            return None
        value = _safe(np.asarray(attrs[key]), dtype)
        if value is None:
            _report(key, attrs[key], dtype, where)
            return None
        return value.view(dtype.str.replace("i", "u")) if unsigned else value

    markers: list[Any] = []
    missing, fill, span = cast("missing_value"), cast("_FillValue"), cast("valid_range")
    markers += [] if missing is None else list(missing.ravel())
    if fill is not None:
        markers += list(fill.ravel())
    elif default_fill is not None and not unsigned:
        markers.append(np.asarray(default_fill).astype(dtype)[()])
    if span is not None and span.size == 2:
        low, high = span.ravel()
    else:
        low, high = (None if v is None else v.ravel()[0] for v in (cast("valid_min"), cast("valid_max")))
    scale, offset, kind = _scales(attrs, where) if scales else (None, None, None)
    return Packing(unsigned, tuple(markers), low, high, scale, offset, kind)


def _safe(value: Array, dtype: np.dtype[Any]) -> Array | None:
    """``value`` as ``dtype``, or None when that would change it."""
    if value.dtype.kind not in "iufb":
        return None
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = value.astype(dtype)
        same = (value == out) | ((value != value) & (out != out))
    return out if bool(np.all(same)) else None


def _report(key: str, value: Any, dtype: np.dtype[Any], where: str) -> None:
    harmless = np.asarray(value).dtype.kind == "f" and bool(np.all(np.isnan(value)))  # no integer is NaN
    if not harmless:
        warnings.warn(f"{where}: {key}={value!r} does not fit {dtype} and is not used", stacklevel=5)


def _scales(attrs: Mapping[str, Any], where: str) -> tuple[Any, Any, np.dtype[Any] | None]:
    found = [scalar(attrs[key]) if key in attrs else None for key in SCALES]
    for key, value in zip(SCALES, found):
        try:
            if value is not None:
                float(value)
        except (TypeError, ValueError):
            warnings.warn(f"{where}: {key}={value!r} is no number, so nothing is unpacked", stacklevel=5)
            return None, None, None
        if isinstance(value, (str, bytes)):
            raise OpenError(f"{where}: {key}={value!r} is text; open with raw=True and scale it yourself")
    scale, offset = found
    if scale is not None and offset is not None:
        if scale == 1.0 and offset == 0.0:
            return None, None, np.asarray(scale).dtype
        return scale, offset, None
    return (scale if scale is not None and scale != 1.0 else None,
            offset if offset is not None and offset != 0.0 else None, None)  # fmt: skip


class Unpacking(unpacking.Unpacking):
    """A packing made ready for stored numbers of one dtype."""

    def __init__(self, packing: Packing, dtype: np.dtype[Any]) -> None:
        native = dtype.newbyteorder("=")
        self._dtype = np.dtype(native.str.replace("i", "u")) if packing.unsigned else native
        # A NaN that means missing stays NaN by itself, unless a cast makes it an integer.
        markers = [m for m in packing.markers if m == m or packing.cast is not None]
        self._markers = tuple({repr(m): m for m in markers}.values())
        self._low, self._high, self._cast = packing.low, packing.high, packing.cast
        self._steps: list[tuple[np.ufunc, Any, np.dtype[Any]]] = []
        result = self._dtype if packing.cast is None else packing.cast
        for ufunc, number in ((np.multiply, packing.scale), (np.add, packing.offset)):
            if number is not None:
                with np.errstate(all="ignore"):
                    result = ufunc(np.ones(1, result), number).dtype
                self._steps.append((ufunc, number, result))
        self._marked = bool(self._markers) or self._low is not None or self._high is not None
        self.plain = not (self._marked or self._steps or packing.cast is not None or packing.unsigned)
        self.few = native.kind in "iu" and native.itemsize <= 2
        self.line = (
            self._line() if native.kind in "iu" and native.itemsize <= 4 and not packing.unsigned else None
        )
        numbers = (*packing.markers, packing.low, packing.high, packing.scale, packing.offset)
        self.key = (native.str, packing.unsigned, packing.cast, *map(_exactly, numbers))

    def _line(self) -> Line | None:
        """Scale and offset, where they are worked out in one dtype, and at most one number is missing."""
        kinds = {dtype for _, _, dtype in self._steps} or {np.dtype(np.float32)}
        real = kinds.pop()
        if kinds or real not in (np.float32, np.float64) or self._cast is not None or len(self._markers) > 1:
            return None
        if self._low is not None or self._high is not None:
            return None
        numbers = {ufunc: float(number) for ufunc, number, _ in self._steps}
        missing = int(self._markers[0]) if self._markers else None
        return Line(missing, numbers.get(np.multiply, 1.0), numbers.get(np.add, -0.0), real)

    def block(self, out: NDArray[np.float32], stored: Array) -> None:
        """Work out a block of numbers as netCDF4-python does."""
        if not stored.dtype.isnative:
            stored = _into(memory("stored", stored.dtype.newbyteorder("="), stored.shape), stored)
        data = stored if stored.dtype == self._dtype else stored.view(self._dtype)
        missing = self._missing(data) if self._marked else None
        if self._cast is not None:
            data = _into(memory("cast", self._cast, data.shape), data)
        for ufunc, number, dtype in self._steps:
            target = out if dtype == out.dtype else memory("scaled", dtype, data.shape)
            ufunc(data, number, out=target)
            data = target
        if data is not out:
            np.copyto(out, data, casting="unsafe")
        if missing is not None and missing.any():
            np.copyto(out, np.float32(np.nan), where=missing)

    def _missing(self, data: Array) -> NDArray[np.bool_]:
        tests = [data != data if m != m else data == m for m in self._markers]
        if self._low is not None:
            tests.append(data < self._low)
        if self._high is not None:
            tests.append(data > self._high)
        missing: NDArray[np.bool_] = tests[0]
        for test in tests[1:]:
            np.logical_or(missing, test, out=missing)
        return missing


def _exactly(number: Any) -> tuple[str, bytes] | None:
    return None if number is None else (np.asarray(number).dtype.str, np.asarray(number).tobytes())


def _into(target: Array, source: Array) -> Array:
    np.copyto(target, source, casting="unsafe")
    return target


def decode(raw: Array, packing: Packing) -> NDArray[np.float32]:
    """Physical float32, NaN where missing; a new array of the same shape.

    >>> half = Packing(markers=(np.int16(-1),), scale=np.float64(0.5))
    >>> decode(np.array([0, 10, -1], np.int16), half).tolist()
    [0.0, 5.0, nan]
    """
    out = np.empty(raw.shape, np.float32)
    Unpacking(packing, raw.dtype)(out, raw)
    return out


def own_fill(attrs: Mapping[str, Any], dtype: np.dtype[Any]) -> Any:
    """The stored value that the variable itself declares as missing, or None where it declares none."""
    for key in ("_FillValue", "missing_value"):
        value = _safe(np.asarray(attrs[key]), dtype.newbyteorder("=")) if key in attrs else None
        if value is not None and value.size:
            return value.ravel()[0]
    return None
