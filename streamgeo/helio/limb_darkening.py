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
from streamgeo.helio.disc import checked_radius, mu, radius_on
from streamgeo.parameters import in_unit
from streamgeo.pointwise import Array, as_floats, settle
from streamgeo.step import POINT, Step, register
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
        law: ``"neckel1994"`` (the default): fifth degree in mu, tabulated for 303.327 to 1098.95 nm and
            interpolated linearly between (Neckel & Labs 1994, Solar Physics 153, 91, table 1).
            ``"neckel2005"``: the same form as a function of the wavelength, 422.57 to 1100 nm (Neckel 2005,
            Solar Physics 229, 13). ``"allen"``: second degree in mu, 400 to 1500 nm (Cox 2000,
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
        chosen = _coefficients(wavelength, law or "neckel1994")
    radius = checked_radius(rsun, _WHAT)
    settings: dict[str, Any] = {"coefficients": chosen, "logarithmic": law == "hmi", "rsun": radius}
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
    radius = radius_on(x, grid, attrs, rsun, _WHAT)
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
    row = [float(np.interp(nm, _NECKEL_NM, column)) for column in zip(*_NECKEL_ROWS)]
    return tuple(
        value / sum(row) for value in row
    )  # the table is rounded (.998 at 365.875 nm): 1 at disc centre


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


# Neckel & Labs 1994, table 1: wavelengths in nm, and A0 to A5 at each.
_NECKEL_NM = (
    303.327, 310.843, 320.468, 329.897, 349.947, 365.875, 374.086, 390.915, 401.97, 416.319,
    427.93, 443.885, 445.125, 457.345, 477.427, 492.905, 519.93, 541.76, 559.95, 579.88,
    610.975, 640.97, 669.4, 700.875, 748.71, 811.76, 869.6, 948.85, 1046.6, 1098.95,
)  # fmt: skip
_NECKEL_ROWS = (
    (0.08011, 0.70695, 0.49910, -0.31080, -0.02177, 0.04642),
    (0.08160, 0.71609, 0.69685, -0.87703, 0.47008, -0.08760),
    (0.08833, 0.77285, 0.65382, -1.04647, 0.72921, -0.19775),
    (0.09188, 0.92459, 0.19604, -0.39546, 0.23599, -0.05303),
    (0.11012, 1.02168, -0.10924, -0.00055, -0.08688, 0.06487),
    (0.12828, 1.04969, 0.17482, -1.13371, 1.23882, -0.45990),
    (0.12579, 0.85402, 0.54601, -1.15048, 0.88928, -0.26462),
    (0.12995, 0.91836, -0.07566, 0.19149, -0.28712, 0.12298),
    (0.12323, 1.08648, -0.43974, 0.45912, -0.32759, 0.09850),
    (0.12814, 1.19947, -0.84407, 1.07201, -0.79537, 0.23982),
    (0.14249, 1.28796, -1.19564, 1.68603, -1.36658, 0.44572),
    (0.16220, 1.24893, -0.92165, 0.89978, -0.50148, 0.11220),
    (0.15248, 1.38517, -1.49615, 1.99886, -1.48155, 0.44119),
    (0.16604, 1.38544, -1.52275, 2.00232, -1.45969, 0.42864),
    (0.19571, 1.30551, -1.25845, 1.50626, -1.05472, 0.30570),
    (0.20924, 1.30798, -1.20411, 1.21505, -0.67196, 0.14381),
    (0.23695, 1.29927, -1.28034, 1.37760, -0.85054, 0.21706),
    (0.26073, 1.27428, -1.30352, 1.47085, -0.96618, 0.26384),
    (0.26892, 1.34319, -1.58427, 1.91271, -1.31350, 0.37295),
    (0.28392, 1.36896, -1.75998, 2.22154, -1.56074, 0.44630),
    (0.30854, 1.36620, -1.83572, 2.33221, -1.63082, 0.45959),
    (0.33644, 1.30590, -1.79238, 2.45040, -1.89979, 0.59943),
    (0.34685, 1.37539, -2.04425, 2.70493, -1.94290, 0.55999),
    (0.37885, 1.25553, -1.70908, 2.19647, -1.59554, 0.47378),
    (0.40627, 1.22842, -1.67877, 2.05535, -1.39972, 0.38845),
    (0.42977, 1.25182, -1.85164, 2.31949, -1.59101, 0.44155),
    (0.45396, 1.25101, -2.02958, 2.75410, -2.02287, 0.59338),
    (0.47855, 1.19813, -1.86296, 2.36939, -1.64367, 0.46056),
    (0.49870, 1.21429, -2.06976, 2.80703, -2.05247, 0.60221),
    (0.51149, 1.19354, -2.00174, 2.66936, -1.94981, 0.57715),
)  # fmt: skip
_ALLEN_U = (-8.9829751, 0.0069093916, -1.8144591e-6, 2.2540875e-10, -1.3389747e-14, 3.0453572e-19)
_ALLEN_V = (9.2891180, -0.0062212632, 1.5788029e-6, -1.9359644e-10, 1.1444469e-14, -2.599494e-19)
_LAWS: dict[str, tuple[float, float, Callable[[float], Coefficients]]] = {
    "neckel1994": (303.327, 1098.95, _neckel1994),
    "neckel2005": (422.57, 1100.0, _neckel2005),
    "allen": (400.0, 1500.0, _allen),
    "hmi": (_HMI_LINE - 1, _HMI_LINE + 1, _hmi),
}


def _check_positive(coefficients: Coefficients, logarithmic: bool) -> None:
    if not coefficients:
        raise StepError(f"{_WHAT}: coefficients= is empty; give A0, A1, ...")
    values = intensity(np.linspace(1e-6, 1, 1001), coefficients, logarithmic=logarithmic)
    if not values.min() > 0:
        raise StepError(
            f"{_WHAT}: the coefficients {coefficients} give an intensity of {values.min():g} on the disc; "
            "it must be above 0"
        )
