"""Linear scaling of values, and clipping."""

from __future__ import annotations

from functools import partial

import numpy as np

from streamgeo.errors import StepError
from streamgeo.parameters import in_unit
from streamgeo.pointwise import Array, Numbers, PerBand, along_bands, as_floats, numbers, settle, target
from streamgeo.step import POINT, Step, register


@register("normalize")
def normalize(mean: PerBand, std: PerBand) -> Step:
    """Scale to zero mean and unit standard deviation: ``y = (x - mean) / std``; the inverse is ``y * std + mean``.

    Args:
        mean, std: in the units of the values. One number for all, or a vector with one for each band: a
            vector of length C applies to axis -3, as in ``(C, y, x)`` or ``(time, C, y, x)``, which a later
            ``patch`` must then leave whole.

    NaN stays NaN. Floats keep their dtype, integers become float32.

    Raises:
        StepError: for a mean that is not finite, a std that is not finite and above 0, or (when it runs) an
            array whose axis -3 has another size than the vector.

    >>> step = normalize(mean=10.0, std=2.0)
    >>> step(np.array([8.0, 14.0], np.float32)).tolist(), step.undo(np.array([-1.0, 2.0])).tolist()
    ([-1.0, 2.0], [8.0, 14.0])
    """
    return _linear(numbers(mean, "normalize: mean"), numbers(std, "normalize: std", positive=True))


@register("minmax")
def minmax(low: PerBand, high: PerBand) -> Step:
    """Scale so that ``low`` becomes 0 and ``high`` becomes 1, and back; values beyond stay beyond (see :func:`clip`).

    ``y = (x - low) / (high - low)``; the inverse is ``y * (high - low) + low``.

    Args:
        low, high: in the units of the values; one number for all, or one for each band as in
            :func:`normalize`.

    NaN stays NaN. Floats keep their dtype, integers become float32.

    Raises:
        StepError: when a bound is not finite, or low is not below high.

    >>> minmax(0, 255)(np.array([0, 51, 255], np.uint8)).tolist()
    [0.0, 0.20000000298023224, 1.0]
    """
    bottom, top = numbers(low, "minmax: low"), numbers(high, "minmax: high")
    try:
        span = np.subtract(top, bottom)
    except ValueError:
        raise StepError(f"minmax: low={low!r} and high={high!r} have different numbers of bands") from None
    if not np.all(span > 0):
        raise StepError(f"minmax: low={low!r} must be below high={high!r}")
    return _linear(bottom, numbers(span, "minmax: high - low"))


def _linear(offset: Numbers, scale: Numbers) -> Step:
    return Step(
        partial(_scale, offset=offset, scale=scale),
        partial(_unscale, offset=offset, scale=scale),
        reach=POINT,
    )


def _scale(x: Array, *, offset: Numbers, scale: Numbers, out: Array | None = None) -> Array:
    work, dtype = as_floats(x)
    y = np.subtract(work, along_bands(offset, work, "normalize"), out=target(out, work))
    y /= along_bands(scale, work, "normalize")
    return settle(y, dtype)


def _unscale(y: Array, *, offset: Numbers, scale: Numbers) -> Array:
    work, dtype = as_floats(y)
    x = work * along_bands(scale, work, "normalize")
    x += along_bands(offset, work, "normalize")
    return settle(x, dtype)


@register("clip")
def clip(low: float | None = None, high: float | None = None) -> Step:
    """Limit values to ``low`` .. ``high``; None leaves that side open. It has no inverse.

    NaN stays NaN, infinities are limited too. Floats keep their dtype, integers become float32.

    Raises:
        StepError: without a bound, for a bound that is not finite, or when low is above high.

    >>> clip(low=0.0)(np.array([-3.0, 2.0], np.float32)).tolist()
    [0.0, 2.0]
    """
    if low is None and high is None:
        raise StepError("clip: give low=, high=, or both")
    bottom = None if low is None else in_unit(low, "", "clip: low")
    top = None if high is None else in_unit(high, "", "clip: high")
    if low is not None and high is not None and low > high:
        raise StepError(f"clip: low={low} is above high={high}")
    lost = {
        (True, True): f"values outside {low} to {high}",
        (True, False): f"values below {low}",
        (False, True): f"values above {high}",
    }
    return Step(
        partial(_clip, low=bottom, high=top), reach=POINT, lossy=lost[low is not None, high is not None]
    )


def _clip(x: Array, *, low: float | None, high: float | None, out: Array | None = None) -> Array:
    work, dtype = as_floats(x)
    y, into = work, target(out, work)
    if low is not None:
        y = np.maximum(y, np.asarray(low, work.dtype), out=into)
    if high is not None:
        y = np.minimum(y, np.asarray(high, work.dtype), out=into)
    return settle(y, dtype)
