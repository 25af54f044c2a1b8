"""Quality bands to masks, and masks to missing values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import MissingKeyError, StepError
from streamgeo.parameters import in_unit
from streamgeo.pointwise import Array, as_floats, settle
from streamgeo.step import POINT, Step, register
from streamgeo.steps.gaps import refined


@dataclass(frozen=True)
class Bits:
    """A field of a quality band: its lowest bit, its width, and the levels at which it counts as set."""

    low: int
    width: int = 1
    level: int = 1
    top: int | None = None


# Landsat Collection 2: USGS LSDS-1619, Landsat 8-9 Collection 2 Level 2 Science Product Guide, table 6-2, and
# LSDS-1618 for Landsat 4 to 7, which have no cirrus. A confidence counts as set from "high" (3) on.
_LANDSAT = {
    "fill": Bits(0), "dilated_cloud": Bits(1), "cirrus": Bits(2), "cloud": Bits(3), "cloud_shadow": Bits(4),
    "snow": Bits(5), "clear": Bits(6), "water": Bits(7), "cloud_confidence": Bits(8, 2, 3),
    "cloud_shadow_confidence": Bits(10, 2, 3), "snow_confidence": Bits(12, 2, 3),
    "cirrus_confidence": Bits(14, 2, 3),
}  # fmt: skip
# Landsat Collection 1: BQA of level 1 (USGS, Landsat Quality Assessment Tools, User Guide 1.4; Landsat 4 to 7 have
# dropped pixels in bit 1, and no cirrus), and pixel_qa of surface reflectance (USGS, LaSRC Product Guide, section 6).
_LANDSAT_C1 = {
    "fill": Bits(0), "terrain_occlusion": Bits(1), "saturated": Bits(2, 2), "cloud": Bits(4),
    "cloud_confidence": Bits(5, 2, 3), "cloud_shadow_confidence": Bits(7, 2, 3), "snow_confidence": Bits(9, 2, 3),
    "cirrus_confidence": Bits(11, 2, 3),
}  # fmt: skip
_LANDSAT_C1_SR = {
    "fill": Bits(0), "clear": Bits(1), "water": Bits(2), "cloud_shadow": Bits(3), "snow": Bits(4), "cloud": Bits(5),
    "cloud_confidence": Bits(6, 2, 3), "cirrus_confidence": Bits(8, 2, 3), "terrain_occlusion": Bits(10),
}  # fmt: skip
# Sentinel-2 until processing baseline 03: bits 10 and 11 of QA60.
_QA60 = {"cloud": Bits(10), "cirrus": Bits(11)}
# MOD09 and MYD09, "state_1km": MODIS Surface Reflectance User's Guide, collection 6. Level 3 of its cloud state
# means "not set, assumed clear".
_MODIS = {
    "cloud": Bits(0, 2, 1, 2), "cloud_shadow": Bits(2), "aerosol": Bits(6, 2, 3), "cirrus": Bits(8, 2, 1),
    "internal_cloud": Bits(10), "fire": Bits(11), "snow": Bits(12), "adjacent_cloud": Bits(13),
}  # fmt: skip
QA: Mapping[str, Mapping[str, Bits]] = {
    "landsat": _LANDSAT, "landsat_c1": _LANDSAT_C1, "landsat_c1_sr": _LANDSAT_C1_SR, "sentinel2_qa60": _QA60,
    "modis_state": _MODIS,
}  # fmt: skip

# Sentinel-2 level 2A scene classification: ESA, Sentinel-2 Products Specification Document, issue 14.9.
SCL: Mapping[str, int] = {
    "no_data": 0, "saturated": 1, "dark": 2, "cloud_shadow": 3, "vegetation": 4, "bare": 5, "water": 6,
    "unclassified": 7, "cloud_medium": 8, "cloud_high": 9, "cirrus": 10, "snow": 11,
}  # fmt: skip


@register("remote.qa_mask")
def qa_mask(
    flags: str | Sequence[str | int], sensor: str = "landsat", levels: Mapping[str, int] | None = None
) -> Step:
    """A quality band of bit fields to a mask: 1 where any of the flags is set, 0 where none is.

    Args:
        flags: names of the sensor's table, or numbers of bits (0 the lowest).
        sensor: ``"landsat"`` (QA_PIXEL of Collection 2: fill, dilated_cloud, cirrus, cloud, cloud_shadow, snow,
            clear, water, and cloud_, cloud_shadow_, snow_ and cirrus_confidence), ``"landsat_c1"`` (BQA of
            Collection 1: fill, terrain_occlusion, saturated, cloud, and the same confidences),
            ``"landsat_c1_sr"`` (pixel_qa of its surface reflectance: fill, clear, water, cloud_shadow, snow,
            cloud, terrain_occlusion, cloud_ and cirrus_confidence), ``"sentinel2_qa60"`` (cloud, cirrus) or
            ``"modis_state"`` (cloud, cloud_shadow, aerosol, cirrus, internal_cloud, fire, snow, adjacent_cloud).
        levels: by name, the level from which on a field of several bits counts as set, such as
            ``{"cloud_confidence": 2}`` for medium and high; by default high (3) for confidences and aerosol.

    Integers become uint8; floats (as an opener gives them, exact to 24 bits) stay floats, and NaN stays NaN.
    There is no inverse. Sources: USGS LSDS-1619 table 6-2, for Collection 1 the Landsat QA
    Tools User Guide 1.4 and the LaSRC Product Guide; ESA Sentinel-2 QA60; MODIS MOD09 User's Guide.

    Raises:
        StepError: for a sensor, flag or level that is not in the table, or (when it runs) values that are not
            whole numbers, or below 0.

    >>> pixels = np.array([21824, 22280, 23888], np.uint16)  # clear, cloud, cloud shadow
    >>> qa_mask(["cloud", "cloud_shadow"])(pixels).tolist()
    [0, 1, 1]
    """
    if sensor not in QA:
        raise StepError(f"remote.qa_mask: sensor={sensor!r} must be one of {sorted(QA)}")
    table, wanted = QA[sensor], dict(levels or {})
    names = [flags] if isinstance(flags, (str, int)) else list(flags)
    if not names:
        raise StepError(f"remote.qa_mask: give a flag, of {sorted(table)}, or the number of a bit")
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise StepError(f"remote.qa_mask: levels has {unknown[0]!r}, which is not among flags={names}")
    fields = tuple(_field(name, sensor, wanted) for name in names)
    return Step(
        partial(_flagged, fields=fields),
        reach=POINT,
        dtype=_mask_dtype,
        lossy="all but the mask of the flags",
        units="1",
    )


def _field(name: str | int, sensor: str, levels: Mapping[str, int]) -> tuple[int, int, int, int]:
    if not isinstance(name, str):
        if not 0 <= name < 64:
            raise StepError(f"remote.qa_mask: bit {name} must be from 0 to 63")
        return int(name), 1, 1, 1
    if name not in QA[sensor]:
        raise StepError(f"remote.qa_mask: {sensor} has no flag {name!r}; it has {sorted(QA[sensor])}")
    bits = QA[sensor][name]
    level = levels.get(name, bits.level)
    if not isinstance(level, (int, np.integer)) or not 1 <= level < 2**bits.width:
        raise StepError(f"remote.qa_mask: level {level!r} of {name!r} must be from 1 to {2**bits.width - 1}")
    return bits.low, bits.width, int(level), 2**bits.width - 1 if bits.top is None else bits.top


def _flagged(x: Array, *, fields: Sequence[tuple[int, int, int, int]]) -> Array:
    numbers, missing = _whole(x, "remote.qa_mask")
    mask = np.zeros(numbers.shape, bool)
    for low, width, level, top in fields:
        found = numbers >> low & (2**width - 1)
        mask |= (found >= level) & (found <= top)
    return _as_mask(mask, missing, np.asarray(x).dtype)


@register("remote.class_mask")
def class_mask(classes: int | str | Sequence[int | str], invert: bool = False) -> Step:
    """A classification to a mask: 1 where the class is one of ``classes``, 0 elsewhere.

    Args:
        classes: numbers, or names of the scene classification (SCL) of Sentinel-2 level 2A: no_data (0),
            saturated (1), dark (2), cloud_shadow (3), vegetation (4), bare (5), water (6), unclassified (7),
            cloud_medium (8), cloud_high (9), cirrus (10), snow (11).
        invert: 1 where the class is none of them.

    Integers become uint8; floats stay floats, and NaN stays NaN. There is no inverse. Source: ESA, Sentinel-2
    Products Specification Document, issue 14.9 (L2A scene classification).

    Raises:
        StepError: for a name that is not in the table, no class at all, or (when it runs) values that are not
            whole numbers.

    >>> class_mask(["cloud_shadow", "cloud_medium", "cloud_high", "cirrus"])(np.array([4, 3, 9, 11])).tolist()
    [0, 1, 1, 0]
    """
    names = [classes] if isinstance(classes, (int, str)) else list(classes)
    unknown = [name for name in names if isinstance(name, str) and name not in SCL]
    if unknown or not names:
        found = f"has no class {unknown[0]!r}" if unknown else "needs a class"
        raise StepError(f"remote.class_mask: it {found}; give numbers, or names of {sorted(SCL)}")
    numbers = tuple(SCL[name] if isinstance(name, str) else int(name) for name in names)
    return Step(
        partial(_classed, classes=numbers, invert=bool(invert)),
        reach=POINT,
        dtype=_mask_dtype,
        lossy="all but the mask of the classes",
        units="1",
    )


def _classed(x: Array, *, classes: Sequence[int], invert: bool) -> Array:
    numbers, missing = _whole(x, "remote.class_mask", signed=True)
    return _as_mask(np.isin(numbers, classes, invert=invert), missing, np.asarray(x).dtype)


def _whole(
    x: Array, what: str, *, signed: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
    """The values as int64, and where they are missing."""
    array = np.asarray(x)
    missing = None
    if array.dtype.kind == "f":
        missing = np.isnan(array)
        array = np.where(missing, 0, array)
        if np.any(array != np.rint(array)):
            raise StepError(
                f"{what}: values must be whole numbers; open the band as it is, without resampling"
            )
    elif array.dtype.kind not in "iub":
        raise StepError(f"{what}: values of dtype {array.dtype} are no quality band; give integers")
    if not signed and array.size and array.min() < 0:
        raise StepError(f"{what}: the value {array.min()} is below 0; bit fields are unsigned")
    return array.astype(np.int64), missing


def _as_mask(mask: NDArray[np.bool_], missing: NDArray[np.bool_] | None, dtype: np.dtype[Any]) -> Array:
    out = mask.astype(_mask_dtype(dtype))
    if missing is not None:
        out[missing] = np.nan
    return out


def _mask_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype.newbyteorder("=") if dtype.kind == "f" else np.dtype(np.uint8)


@register("remote.nodata")
def nodata(value: float) -> Step:
    """Make the nodata value NaN, for files that do not declare it; the inverse puts it back where it was.

    Landsat level 1 and Sentinel-2 bands have 0 where there are no data, and declare no nodata value. The
    forward function also returns where the value was (its residual), which a chain carries to the inverse.

    Args:
        value: what stands for missing pixels, in the units of the values at this place in the chain.

    NaN stays NaN. Floats keep their dtype, integers become float32.

    Raises:
        StepError: for a value that is not finite.

    >>> y, mask = nodata(0).forward(np.array([0, 7], np.uint16))
    >>> y.tolist(), nodata(0).undo(y, residual=mask).tolist()
    ([nan, 7.0], [0.0, 7.0])
    """
    number = in_unit(value, "", "remote.nodata: value")
    return Step(partial(_missing, value=number), partial(_put_back, value=number), reach=POINT)


def _missing(x: Array, *, value: float) -> tuple[Array, NDArray[np.bool_]]:
    work, dtype = as_floats(x)
    mask = np.asarray(x) == value
    return settle(np.where(mask, np.asarray(np.nan, work.dtype), work), dtype), mask


def _put_back(y: Array, *, value: float, residual: NDArray[np.bool_]) -> Array:
    work, dtype = as_floats(y)
    mask = refined(residual.astype(bool), work.shape, "remote.nodata")
    return settle(np.where(mask, np.asarray(value, work.dtype), work), dtype)


def masked(key: str, mask: str, value: float = np.nan) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A function of samples for ``sample_transform``: ``key`` becomes ``value`` where the mask is not 0.

    Args:
        key: the array, ``(..., y, x)``.
        mask: the key of a mask ``(y, x)``, or ``(n, y, x)`` of batches, which holds for all bands; where it is
            NaN (no quality known) it counts as set. The mask stays in the sample.
        value: what stands for masked pixels; NaN makes floats of integers.

    Put it after ``patch``, so that only patches are read. ``sample_transform(masked(...), keys=())`` says that
    the way back of ``key`` leaves masked pixels as they are.

    >>> sample = {"image": np.ones((2, 1, 3)), "cloud": np.array([[0, 1, 0]])}
    >>> masked("image", "cloud")(sample)["image"].tolist()
    [[[1.0, nan, 1.0]], [[1.0, nan, 1.0]]]
    """
    return partial(_masked, key=key, mask=mask, value=float(value))


def _masked(sample: dict[str, Any], *, key: str, mask: str, value: float) -> dict[str, Any]:
    for name in (key, mask):
        if name not in sample:
            raise MissingKeyError(f"remote.masked: no key {name!r} in the sample; it has {sorted(sample)}")
    work, found = np.asarray(sample[key]), np.asarray(sample[mask])
    where = (found != 0) | np.isnan(found)
    gap = work.ndim - where.ndim
    if gap > 0 and where.ndim > 2:  # a batch: bands stand between the first dim and the last two
        where = where.reshape(where.shape[:1] + (1,) * gap + where.shape[1:])
    try:
        where = np.broadcast_to(where, work.shape)
    except ValueError:
        raise StepError(
            f"remote.masked: {mask!r} of shape {found.shape} does not fit {key!r} of shape {work.shape}; "
            "bring both to one grid first"
        ) from None
    dtype = work.dtype if work.dtype.kind in "fc" or not np.isnan(value) else np.result_type(work, np.float32)
    return {**sample, key: np.where(where, np.asarray(value, dtype), work.astype(dtype, copy=False))}
