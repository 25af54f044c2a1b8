"""Stretches with the ranges in use for the channels of SDO/AIA."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from streamgeo.errors import StepError
from streamgeo.helio.disc import card_number
from streamgeo.parameters import in_unit
from streamgeo.pointwise import Array
from streamgeo.step import POINT, Step, register
from streamgeo.steps import stretch

_WHAT = "helio.aia_stretch"

# Upper values in DN/s by wavelength in Angstrom, in use to show and to normalise AIA images.
AIA_VMAX: Mapping[int, float] = {
    94: 340.0, 131: 1400.0, 171: 8600.0, 193: 9800.0, 211: 5800.0, 304: 8800.0, 335: 600.0, 1600: 4000.0,
    1700: 4000.0,
}  # fmt: skip
_SOFT: Mapping[int, float] = {304: 0.001}


@register("helio.aia_stretch")
def aia_stretch(wavelength: Any = None) -> Step:
    """Inverse hyperbolic sine with the range in use for a channel of SDO/AIA, for values in DN/s.

    ``y = 2 asinh(x / (a V)) / asinh(1 / a) - 1``: 0 becomes -1, V becomes 1; nothing is clipped, so the inverse
    holds for all values. V in DN/s: 94 A: 340, 131: 1400, 171: 8600, 193: 9800, 211: 5800, 304: 8800, 335: 600,
    1600 and 1700: 4000; a = 0.005, and 0.001 for 304 A. Use :func:`exposure` before it. Source: Jarolim et al. 2025,
    Nature Communications 16, 3157 (the ranges of its data sets).

    Args:
        wavelength: in Angstrom, or a Quantity; by default WAVELNTH in the header of each file.

    NaN stays NaN. Floats keep their dtype, integers become float32. See :func:`streamgeo.stretch.asinh` for
    other ranges.

    Raises:
        StepError: for a wavelength that is not one of these; when it runs, for a header without WAVELNTH.

    >>> aia_stretch(171)([0.0, 8600.0]).round(6).tolist()
    [-1.0, 1.0]
    """
    channel = (
        None if wavelength is None else _channel(in_unit(wavelength, "Angstrom", f"{_WHAT}: wavelength"))
    )
    if channel is not None:
        return Step(partial(_fixed, channel=channel), partial(_fixed_back, channel=channel), reach=POINT)
    return Step(_by_header, _by_header_back, reach=POINT)


def _fixed(x: Array, *, channel: int) -> Array:
    return _asinh(channel)(x)  # type: ignore[no-any-return]


def _fixed_back(y: Array, *, channel: int) -> Array:
    return _asinh(channel).undo(y)  # type: ignore[no-any-return]


def _by_header(x: Array, *, attrs: Mapping[str, Any]) -> Array:
    return _fixed(x, channel=_channel_of(attrs))


def _by_header_back(y: Array, *, attrs: Mapping[str, Any]) -> Array:
    return _fixed_back(y, channel=_channel_of(attrs))


def _asinh(channel: int) -> Step:
    step: Step = stretch.asinh(AIA_VMAX[channel], _SOFT.get(channel, 0.005))
    return step


def _channel_of(attrs: Mapping[str, Any]) -> int:
    found = card_number(attrs, "WAVELNTH")
    if found is None:
        raise StepError(f"{_WHAT}: the header has no WAVELNTH with a number; give wavelength= in Angstrom")
    return _channel(found)


def _channel(angstrom: float) -> int:
    if not math.isclose(angstrom, round(angstrom), rel_tol=1e-6) or round(angstrom) not in AIA_VMAX:
        raise StepError(
            f"{_WHAT}: no range for {angstrom:g} Angstrom, only for {', '.join(map(str, AIA_VMAX))}; use "
            "sg.stretch.asinh(vmax=...)"
        )
    return round(angstrom)
