"""Limb darkening as the image itself shows it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import StepError
from streamgeo.grid import Grid
from streamgeo.helio.disc import checked_radius, mu, radius_on
from streamgeo.pointwise import Array, as_floats, settle
from streamgeo.step import SCENE, Step, register

_WHAT = "helio.limb_profile"
_RINGS = 200  # of equal area, at most
_LEAST = 8  # pixels in a ring, so that its median means something

Floats = NDArray[np.float64]


@register("helio.limb_profile")
def limb_profile(degree: int = 5, *, rsun: Any = None) -> Step:
    """Flatten the disc by its own profile from centre to limb; the inverse multiplies by that profile.

    A polynomial in mu is fitted to the medians of rings of equal area and divided by its value at disc centre:
    for wavelengths and instruments that no published law is made for. Its coefficients are kept for the inverse.
    Below the smallest mu of the rings it stays as it is there; pixels off the limb are left alone. Where one image
    is fitted, all its dims share the profile.

    Args:
        degree: of the polynomial, 1 to 9.
        rsun: angular radius of the Sun in arcsec, or a Quantity, instead of the header's (as in
            :func:`limb_darkening`).

    It needs the whole scene. NaN stays NaN, and does not count in the medians. Floats keep their dtype, integers
    become float32.

    Raises:
        StepError: for another degree; when it runs, for a grid that is not helioprojective, a header without
            radius, too few pixels on the disc, or a profile that is not above 0.

    >>> limb_profile(degree=3)
    sg.helio.limb_profile(degree=3)
    """
    if isinstance(degree, bool) or not isinstance(degree, (int, np.integer)) or not 1 <= degree <= 9:
        raise StepError(f"{_WHAT}: degree={degree!r} must be a whole number from 1 to 9")
    radius = checked_radius(rsun, _WHAT)
    return Step(
        partial(_flattened, degree=int(degree), rsun=radius), partial(_restored, rsun=radius), reach=SCENE
    )


def _flattened(
    x: Array, *, grid: Grid, attrs: Mapping[str, Any], degree: int, rsun: float | None
) -> tuple[Array, Floats]:
    cosine = _mu(x, grid, attrs, rsun)
    work, dtype = as_floats(x)
    profile = fitted(work, np.broadcast_to(cosine, work.shape), degree)
    return settle(work / _intensity(cosine, profile).astype(work.dtype), dtype), profile


def _restored(
    y: Array, *, grid: Grid, attrs: Mapping[str, Any], residual: Floats, rsun: float | None
) -> Array:
    work, dtype = as_floats(y)
    return settle(work * _intensity(_mu(y, grid, attrs, rsun), residual).astype(work.dtype), dtype)


def fitted(values: Array, cosine: Floats, degree: int) -> Floats:
    """The smallest mu of the rings, and the coefficients of the profile in powers of mu, 1 at disc centre.

    Raises:
        StepError: for too few pixels on the disc, or a profile that is not above 0.
    """
    known = (cosine > 0) & np.isfinite(values)
    count = int(known.sum())
    rings = min(_RINGS, count // _LEAST)
    if rings <= degree:
        raise StepError(
            f"{_WHAT}: {count} pixels with values on the disc are too few for degree={degree}; use a lower degree, or "
            "a published law"
        )
    order = np.argsort(cosine[known], kind="stable")
    places, levels = (
        np.array([np.median(part) for part in np.array_split(np.asarray(v, np.float64)[known][order], rings)])
        for v in (cosine, values)
    )
    coefficients = np.polynomial.polynomial.polyfit(places, levels, degree)
    centre = float(coefficients.sum())
    profile = np.concatenate([[places[0]], coefficients / centre]) if centre else np.full(degree + 2, np.nan)
    lowest = _intensity(np.linspace(places[0], 1, 1001), profile).min()
    if not (centre > 0 and lowest > 0):
        raise StepError(
            f"{_WHAT}: the profile has {centre:g} at disc centre and falls to {lowest:g} of it; it must be above 0, so "
            "use it on intensities, with a lower degree"
        )
    return profile


def _intensity(cosine: Floats, profile: Floats) -> Floats:
    """The profile at each mu, by Horner's rule; 1 off the limb."""
    base = np.maximum(cosine, profile[0])
    total = np.full(base.shape, profile[-1])
    for coefficient in profile[-2:0:-1]:
        total *= base
        total += coefficient
    return np.where(cosine > 0, total, 1.0)


def _mu(x: Array, grid: Grid, attrs: Mapping[str, Any], rsun: float | None) -> Floats:
    radius = radius_on(x, grid, attrs, rsun, _WHAT)
    if not x.size:
        raise StepError(f"{_WHAT}: the array has no pixels: {grid.sizes}")
    return mu(grid, radius, _WHAT)
