"""Radar backscatter and decibels."""

from __future__ import annotations

from functools import partial

import numpy as np

from streamgeo.errors import StepError
from streamgeo.parameters import in_unit
from streamgeo.pointwise import Array, as_floats, settle
from streamgeo.step import POINT, Step, register


@register("remote.decibel")
def decibel(*, amplitude: bool = False, floor: float | None = None) -> Step:
    """Linear backscatter to decibels: ``y = 10 log10(x)``; the inverse is ``x = 10 ** (y / 10)``.

    Args:
        amplitude: whether values are amplitudes and not powers: then ``20 log10(x)``. Sentinel-1 RTC and
            sigma0, beta0, gamma0 in linear units are powers.
        floor: a number above 0 that stands in for values at or below it (subtracting thermal noise leaves
            some below 0); what was there is lost. By default such values are an error.

    NaN stays NaN. Floats keep their dtype, integers become float32. Source: ESA, Sentinel-1 Product
    Specification (radiometric calibration).

    Raises:
        StepError: for a floor that is not above 0, or (when it runs, without a floor) for values at or below 0.

    >>> decibel()(np.array([1.0, 0.01])).tolist(), decibel(amplitude=True)(np.array([0.1])).tolist()
    ([0.0, -20.0], [-20.0])
    """
    lowest = None if floor is None else in_unit(floor, "", "remote.decibel: floor")
    if lowest is not None and lowest <= 0:
        raise StepError(f"remote.decibel: floor={lowest} must be above 0")
    factor = 20.0 if amplitude else 10.0
    return Step(
        partial(_decibel, factor=factor, floor=lowest),
        partial(_linear, factor=factor),
        reach=POINT,
        lossy=None if lowest is None else f"values below {lowest:g}",
        units="dB",
    )


def _decibel(x: Array, *, factor: float, floor: float | None) -> Array:
    work, dtype = as_floats(x)
    if floor is not None:
        work = np.maximum(work, np.asarray(floor, work.dtype))
    elif (bad := work <= 0).any():
        raise StepError(
            f"remote.decibel: {int(np.count_nonzero(bad))} of {work.size} values are at or below 0 (the lowest "
            f"is {np.nanmin(work):g}); give floor=, or make nodata NaN before it with remote.nodata(0)"
        )
    return settle(np.log10(work) * factor, dtype)


def _linear(y: Array, *, factor: float) -> Array:
    work, dtype = as_floats(y)
    return settle(np.power(np.asarray(10, work.dtype), work / factor), dtype)
