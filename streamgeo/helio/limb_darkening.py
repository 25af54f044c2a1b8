"""Limb darkening: the Sun is brighter at disc centre than near its limb."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import StepError
from streamgeo.grid import Grid
from streamgeo.helio.disc import ARCSEC, angular_radius, mu
from streamgeo.pointwise import Array, as_floats, settle
from streamgeo.step import POINT, Step, in_unit, register
from streamgeo.window import Window

Coefficients = tuple[float, ...]

_WHAT = "helio.limb_darkening"
_HMI_LINE = 617.33  # nm
_BLOCK = 1 << 16  # pixels computed at a time, so that what lies between stays in the processor's cache


@register("helio.limb_darkening")
def limb_darkening(
    wavelength: Any = None,
    *,
    law: str | None = None,
    coefficients: Sequence[float] | None = None,
    rsun: Any = None,
) -> Step:
    """Flatten the disc: divide by the intensity relative to disc centre, I(mu); the inverse multiplies.

    mu comes from the helioprojective WCS (CTYPE HPLN/HPLT, or Solar-X/Solar-Y of old headers) of the very
    window that is given, and from the solar radius in the header: RSUN_OBS, RSUN_ARC, RSUN, RADIUS, SOLAR_R,
    or DSUN_OBS with RSUN_REF. A header with none of them is taken as seen from Earth on its date, with a
    warning. Pixels off the limb are left as they are, in both directions. NaN stays NaN; floats keep their
    dtype, integers become float32.

    Args:
        wavelength: in nm, or a Quantity.
        law: ``"neckel2005"`` (the default): fifth degree in mu, 422.57 to 1100 nm (Neckel 2005, Solar Physics
            229, 13). ``"neckel1994"``: the same form tabulated (Neckel & Labs 1994, Solar Physics 153, 91),
            here at 617.33 nm only, +-1 nm. ``"allen"``: second degree in mu, 400 to 1500 nm (Cox 2000,
            Allen's Astrophysical Quantities). ``"hmi"``: fifth degree in ln mu at 617.33 nm, +-1 nm (the HMI
            team's; (r/R)**2 is limited to .99975), where the wavelength may be left out.
        coefficients: A0, A1, ... of ``I = A0 + A1 mu + A2 mu^2 + ...`` instead of a wavelength and a law.
        rsun: angular radius of the Sun in arcsec, or a Quantity, instead of the header's.

    Raises:
        StepError: for an unknown law, a wavelength outside its range, an intensity that is not above zero on
            the whole disc, or (when it runs) a grid that is not helioprojective or a header without radius.

    >>> limb_darkening(wavelength=617.3)
    sg.helio.limb_darkening(wavelength=617.3)
    """
    if coefficients is not None:
        if wavelength is not None or law is not None:
            raise StepError(f"{_WHAT}: give either coefficients= or a wavelength and a law, not both")
        chosen: Coefficients = tuple(in_unit(c, "", f"{_WHAT}: coefficients") for c in coefficients)
    else:
        chosen = _coefficients(wavelength, law or "neckel2005")
    settings: dict[str, Any] = {"coefficients": chosen, "logarithmic": law == "hmi", "rsun": None}
    if rsun is not None:
        settings["rsun"] = _radius(rsun)
    _check_positive(chosen, law == "hmi")
    return Step(partial(_flatten, **settings), partial(_restore, **settings), reach=POINT)


def _flatten(x: Array, *, grid: Grid, attrs: Mapping[str, Any], **law: Any) -> Array:
    return _by_rows(np.divide, x, grid, attrs, **law)


def _restore(y: Array, *, grid: Grid, attrs: Mapping[str, Any], **law: Any) -> Array:
    return _by_rows(np.multiply, y, grid, attrs, **law)


def _by_rows(
    combine: Callable[..., Any],
    x: Array,
    grid: Grid,
    attrs: Mapping[str, Any],
    *,
    coefficients: Coefficients,
    logarithmic: bool,
    rsun: float | None,
) -> Array:
    """``combine(x, I)`` over blocks of rows."""
    if x.shape != grid.shape:
        raise StepError(f"{_WHAT}: the array has shape {x.shape}, its grid {grid.sizes}")
    radius = angular_radius(attrs, _WHAT) if rsun is None else rsun * ARCSEC
    work, dtype = as_floats(x)
    out = np.empty(work.shape, work.dtype)
    rowdim, rows = grid.spatial[0], grid.sizes[grid.spatial[0]]
    block = max(1, _BLOCK * rows // max(1, math.prod(grid.sizes[dim] for dim in grid.spatial)))
    for start in range(0, rows, block):
        part = Window({rowdim: (start, min(rows, start + block))})
        at = part.slices(grid.dims)
        relative = intensity(mu(grid.crop(part), radius, _WHAT), coefficients, logarithmic=logarithmic)
        combine(work[at], relative, out=out[at], casting="same_kind")
    return settle(out, dtype)


def intensity(
    mu: NDArray[np.float64], coefficients: Coefficients, *, logarithmic: bool = False
) -> NDArray[np.float64]:
    """Intensity relative to disc centre, by Horner's rule; 1 where mu is 0, which is off the limb.

    A polynomial in mu; or in ln mu (``logarithmic``), with ``(r/R)**2 <= .99975``, as the HMI team has it.
    """
    base = np.log(np.maximum(mu, math.sqrt(1 - 0.99975))) if logarithmic else mu
    total = np.full(mu.shape, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total *= base
        total += coefficient
    total[mu == 0] = 1.0
    return total


def _coefficients(wavelength: Any, law: str) -> Coefficients:
    if law not in _LAWS:
        raise StepError(f"{_WHAT}: no law {law!r}; the laws are {', '.join(_LAWS)}")
    low, high, formula = _LAWS[law]
    if wavelength is None and law == "hmi":
        wavelength = _HMI_LINE
    if wavelength is None:
        raise StepError(f"{_WHAT}: give wavelength= in nm ({low:g} to {high:g} for {law}), or coefficients=")
    nm = in_unit(wavelength, "nm", f"{_WHAT}: wavelength")
    if not low <= nm <= high:
        others = ", ".join(f"{name}: {v[0]:g} to {v[1]:g}" for name, v in _LAWS.items() if name != law)
        raise StepError(
            f"{_WHAT}: {law} covers {low:g} to {high:g} nm, not {nm:g} nm; use another law ({others}) "
            "or coefficients="
        )
    return formula(nm)


def _neckel1994(nm: float) -> Coefficients:
    return 0.31445, 1.35342, -1.82654, 2.35725, -1.68781, 0.48922


def _neckel2005(nm: float) -> Coefficients:
    a, b = 1000 / nm, (1000 / nm) ** 5
    return (
        0.75267 - 0.265577 * a,
        0.93874 + 0.265577 * a - 0.004095 * b,
        -1.89287 + 0.012582 * b,
        2.42234 - 0.017117 * b,
        -1.7115 + 0.011977 * b,
        0.49062 - 0.003347 * b,
    )


def _allen(nm: float) -> Coefficients:
    powers = [(10 * nm) ** k for k in range(6)]  # of the wavelength in Angstrom
    u, v = (sum(c * p for c, p in zip(series, powers)) for series in (_ALLEN_U, _ALLEN_V))
    return 1 - u - v, u, v


def _hmi(nm: float) -> Coefficients:
    return 1.0, 0.459224, 0.132395, 0.019601, 0.000802, -4.31934e-5


_ALLEN_U = (-8.9829751, 0.0069093916, -1.8144591e-6, 2.2540875e-10, -1.3389747e-14, 3.0453572e-19)
_ALLEN_V = (9.2891180, -0.0062212632, 1.5788029e-6, -1.9359644e-10, 1.1444469e-14, -2.599494e-19)
_LAWS: dict[str, tuple[float, float, Callable[[float], Coefficients]]] = {
    "neckel2005": (422.57, 1100.0, _neckel2005),
    "neckel1994": (_HMI_LINE - 1, _HMI_LINE + 1, _neckel1994),
    "allen": (400.0, 1500.0, _allen),
    "hmi": (_HMI_LINE - 1, _HMI_LINE + 1, _hmi),
}


def _radius(rsun: Any) -> float:
    arcsec = in_unit(rsun, "arcsec", f"{_WHAT}: rsun")
    if not 0 < arcsec < 90 * 3600:
        raise StepError(f"{_WHAT}: rsun={arcsec:g} arcsec must be above 0 and below 90 degrees")
    return arcsec


def _check_positive(coefficients: Coefficients, logarithmic: bool) -> None:
    if not coefficients:
        raise StepError(f"{_WHAT}: coefficients= is empty; give A0, A1, ...")
    values = intensity(np.linspace(1e-6, 1, 1001), coefficients, logarithmic=logarithmic)
    if not values.min() > 0:
        raise StepError(
            f"{_WHAT}: the coefficients {coefficients} give an intensity of {values.min():g} on the disc; "
            "it must be above 0"
        )
