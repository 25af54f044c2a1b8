"""Stretches: pixel-wise functions that compress a large range of values, all with an exact inverse."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from streamgeo.errors import StepError
from streamgeo.parameters import in_unit
from streamgeo.pointwise import Array, pointwise
from streamgeo.step import POINT, Step, register


@register("stretch.asinh")
def asinh(vmax: float, a: float = 0.005) -> Step:
    """Inverse hyperbolic sine: ``y = 2 asinh(x / (a vmax)) / asinh(1 / a) - 1``.

    Linear near zero and logarithmic above ``a * vmax``; 0 becomes -1 and ``vmax`` becomes 1. Nothing is
    clipped: values above vmax go above 1, negative ones below -1, so the inverse holds for all of them.

    Args:
        vmax: upper value of the range, in the units of the values (for AIA in DN/s, say, 8600 at 171 A).
        a: where it turns from linear to logarithmic, as a fraction of vmax.

    NaN stays NaN. Floats keep their dtype, integers become float32. Source: Lupton et al. 1999, AJ 118, 1406
    (asinh magnitudes), scaled to -1 .. 1.

    Raises:
        StepError: when vmax or a is not above 0.

    >>> [round(v, 5) for v in asinh(8600.0)(np.array([0.0, 8600.0])).tolist()]
    [-1.0, 1.0]
    """
    top = _positive(vmax, "stretch.asinh: vmax")
    soft = _positive(a, "stretch.asinh: a")
    unit, span = soft * top, math.asinh(1 / soft)
    return Step(partial(_asinh, unit=unit, span=span), partial(_sinh, unit=unit, span=span), reach=POINT)


def _asinh(x: Array, *, unit: float, span: float) -> Array:
    return pointwise(lambda v: np.arcsinh(v / unit) * (2 / span) - 1, x)


def _sinh(y: Array, *, unit: float, span: float) -> Array:
    return pointwise(lambda v: np.sinh((v + 1) * (span / 2)) * unit, y)


@register("stretch.log")
def log(scale: float = 1.0) -> Step:
    """Logarithm that keeps zero: ``y = ln(1 + x / scale)``; the inverse is ``x = scale (exp(y) - 1)``.

    Args:
        scale: in the units of the values: linear well below it, logarithmic well above it.

    NaN stays NaN. Floats keep their dtype, integers become float32.

    Raises:
        StepError: when scale is not above 0, or (when it runs) for values at or below ``-scale``, where there
            is no logarithm.

    >>> log()(np.array([0.0, np.e - 1])).tolist()
    [0.0, 1.0]
    """
    unit = _positive(scale, "stretch.log: scale")
    return Step(partial(_log, scale=unit), partial(_exp, scale=unit), reach=POINT)


def _log(x: Array, *, scale: float) -> Array:
    _refuse(x, np.less_equal, -scale, "stretch.log", "at or below")
    return pointwise(lambda v: np.log1p(v / scale), x)


def _exp(y: Array, *, scale: float) -> Array:
    return pointwise(lambda v: np.expm1(v) * scale, y)


@register("stretch.sqrt")
def sqrt() -> Step:
    """Square root, which evens out the noise of counts; the inverse is ``y |y|``.

    The inverse keeps the sign, so a prediction slightly below zero comes back slightly below zero. NaN stays
    NaN. Floats keep their dtype, integers become float32.

    Raises:
        StepError: when it runs on values below zero.

    >>> sqrt()(np.array([0, 9], np.int16)).tolist(), sqrt().undo(np.array([3.0, -1.0])).tolist()
    ([0.0, 3.0], [9.0, -1.0])
    """
    return Step(_sqrt, _square, reach=POINT)


def _sqrt(x: Array) -> Array:
    _refuse(x, np.less, 0.0, "stretch.sqrt", "below")
    return pointwise(np.sqrt, x)


def _square(y: Array) -> Array:
    return pointwise(lambda v: v * np.abs(v), y)


@register("stretch.signum_log")
def signum_log(scale: float = 1.0, mean: float = 0.0, std: float = 1.0) -> Step:
    """Logarithm of signed values: ``y = (sign(x) ln(1 + |scale x|) - mean) / std``.

    For fields of both signs, such as magnetograms: odd around zero, with an exact inverse.

    Args:
        scale: factor before the logarithm, in 1 / units of the values (0.1 / G turns logarithmic near 10 G).
        mean, std: of the logarithm, to normalise it.

    NaN stays NaN. Floats keep their dtype, integers become float32.

    Raises:
        StepError: when scale or std is not above 0, or mean is not finite.

    >>> signum_log()(np.array([-(np.e - 1), 0.0, np.e - 1])).tolist()
    [-1.0, 0.0, 1.0]
    """
    settings: dict[str, Any] = {
        "scale": _positive(scale, "stretch.signum_log: scale"),
        "mean": in_unit(mean, "", "stretch.signum_log: mean"),
        "std": _positive(std, "stretch.signum_log: std"),
    }
    return Step(partial(_signum_log, **settings), partial(_signum_exp, **settings), reach=POINT)


def _signum_log(x: Array, *, scale: float, mean: float, std: float) -> Array:
    return pointwise(lambda v: (np.copysign(np.log1p(np.abs(v * scale)), v) - mean) / std, x)


def _signum_exp(y: Array, *, scale: float, mean: float, std: float) -> Array:
    return pointwise(partial(_odd_expm1, scale=scale, mean=mean, std=std), y)


def _odd_expm1(v: Any, *, scale: float, mean: float, std: float) -> Any:
    z = v * std + mean
    return np.copysign(np.expm1(np.abs(z)) / scale, z)


def _positive(value: float, what: str) -> float:
    number = in_unit(value, "", what)
    if not number > 0:
        raise StepError(f"{what}={number} must be above 0")
    return number


def _refuse(x: Array, compare: Callable[[Any, float], Any], limit: float, what: str, how: str) -> None:
    """Raise where values lie outside the domain: NaN in their place would lose them in silence."""
    bad = np.asarray(compare(x, limit))
    count = int(np.count_nonzero(bad))
    if count:
        lowest = np.asarray(x)[bad].min()
        raise StepError(
            f"{what}: {count} of {bad.size} values lie {how} {limit:g} (lowest {lowest:g}); "
            "use stretch.signum_log, or clip(low=0) before it"
        )
