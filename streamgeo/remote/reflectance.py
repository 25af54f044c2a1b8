"""Digital numbers to reflectance."""

from __future__ import annotations

from functools import partial

import numpy as np

from streamgeo.errors import StepError
from streamgeo.pointwise import Array, Numbers, PerBand, along_bands, as_floats, numbers, settle
from streamgeo.step import POINT, Step, register


@register("remote.reflectance")
def reflectance(scale: PerBand, offset: PerBand = 0.0) -> Step:
    """Digital numbers to reflectance: ``y = x * scale + offset``; the inverse is ``(y - offset) / scale``.

    For Sentinel-2 level 2A from January 2022 on: scale 1e-4, offset -0.1; for Landsat Collection 2 level 2:
    scale 2.75e-5, offset -0.2. The nodata value (0 in both) must be NaN by then, as the openers make it where
    the file declares it.

    Args:
        scale, offset: one number for all, or a vector with one for each band, which applies to axis -3
            (a later ``patch`` must then leave that axis whole).

    NaN stays NaN, nothing is clipped. Floats keep their dtype, integers become float32; the inverse gives
    floats, not rounded to digital numbers.

    Raises:
        StepError: for a scale that is 0, numbers that are not finite, or (when it runs) another number of
            bands than the vector has.

    >>> reflectance(1e-4, -0.1)(np.array([2000, 11000], np.uint16)).round(6).tolist()
    [0.10000000149011612, 1.0]
    """
    factor, shift = numbers(scale, "remote.reflectance: scale"), numbers(offset, "remote.reflectance: offset")
    if not np.all(np.asarray(factor) != 0):
        raise StepError(f"remote.reflectance: scale={scale!r} must not be 0")
    return Step(
        partial(_reflectance, scale=factor, offset=shift),
        partial(_digital, scale=factor, offset=shift),
        reach=POINT,
    )


def _reflectance(x: Array, *, scale: Numbers, offset: Numbers) -> Array:
    work, dtype = as_floats(x)
    y = work * along_bands(scale, work, "remote.reflectance")
    y += along_bands(offset, work, "remote.reflectance")
    return settle(y, dtype)


def _digital(y: Array, *, scale: Numbers, offset: Numbers) -> Array:
    work, dtype = as_floats(y)
    x = work - along_bands(offset, work, "remote.reflectance")
    x /= along_bands(scale, work, "remote.reflectance")
    return settle(x, dtype)
