"""Where the disc is: masks off the limb, and maps of mu."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from streamgeo.errors import StepError
from streamgeo.grid import Grid
from streamgeo.helio.disc import checked_radius, mu, radius_on, squared_distance
from streamgeo.parameters import in_unit
from streamgeo.pointwise import Array, as_floats, settle
from streamgeo.step import POINT, Step, register


@register("helio.off_limb_mask")
def off_limb_mask(radius: float = 1.0, *, invert: bool = False, rsun: Any = None) -> Step:
    """Set pixels off the limb to NaN.

    Args:
        radius: how far from disc centre a pixel may lie, in solar radii: ``sin rho / sin R``, with rho the angle
            from disc centre and R that of the limb.
        invert: set the pixels inside of it to NaN instead, for the corona.
        rsun: angular radius of the Sun in arcsec, or a Quantity, instead of the header's (as in
            :func:`limb_darkening`).

    The inverse leaves values as they are: what was set to NaN is not brought back. Floats keep their dtype,
    integers become float32.

    Raises:
        StepError: for a radius that is not above 0; when it runs, for a grid that is not helioprojective or a
            header without radius.

    >>> off_limb_mask(radius=0.98)
    sg.helio.off_limb_mask(radius=0.98)
    """
    what = "helio.off_limb_mask"
    reach = in_unit(radius, "", f"{what}: radius")
    if reach <= 0:
        raise StepError(f"{what}: radius={reach:g} solar radii must be above 0")
    settings: dict[str, Any] = {"radius": reach, "invert": bool(invert), "rsun": checked_radius(rsun, what)}
    return Step(
        partial(_masked, **settings), _as_it_is, reach=POINT, lossy="the pixels on the other side of the limb"
    )


def _masked(
    x: Array, *, grid: Grid, attrs: Mapping[str, Any], radius: float, invert: bool, rsun: float | None
) -> Array:
    sun = radius_on(x, grid, attrs, rsun, "helio.off_limb_mask")
    off = squared_distance(grid, sun, "helio.off_limb_mask") >= radius**2
    work, dtype = as_floats(x)
    return settle(np.where(off != invert, work.dtype.type(np.nan), work), dtype)


def _as_it_is(y: Array) -> Array:
    return y


@register("helio.mu_map")
def mu_map(*, rsun: Any = None) -> Step:
    """The cosine of the angle between line of sight and surface normal, instead of the values.

    1 at disc centre, 0 at the limb and off it; it depends on the grid alone, and has no NaN. Give it a key of
    its own: ``.key_transform("image", helio.mu_map(), output_key="mu")``.

    Args:
        rsun: angular radius of the Sun in arcsec, or a Quantity, instead of the header's (as in
            :func:`limb_darkening`).

    Floats keep their dtype, integers become float32. There is no inverse. Source: Thompson 2006, A&A 449, 791.

    Raises:
        StepError: when it runs, for a grid that is not helioprojective or a header without radius.

    >>> mu_map(rsun=960.0)
    sg.helio.mu_map(rsun=960.0)
    """
    return Step(
        partial(_mu, rsun=checked_radius(rsun, "helio.mu_map")), reach=POINT, lossy="the values", units="1"
    )


def _mu(x: Array, *, grid: Grid, attrs: Mapping[str, Any], rsun: float | None) -> Array:
    sun = radius_on(x, grid, attrs, rsun, "helio.mu_map")
    dtype = x.dtype.newbyteorder("=") if x.dtype.kind == "f" else np.dtype(np.float32)
    return np.array(np.broadcast_to(mu(grid, sun, "helio.mu_map"), x.shape), dtype)


@register("helio.radial_field")
def radial_field(limit: float = 0.2, *, rsun: Any = None) -> Step:
    """Line-of-sight to radial magnetic field, ``Br = Blos / mu``, taking the field to be radial.

    Args:
        limit: the smallest mu, 0 to 1: towards the limb the noise grows as 1 / mu, so pixels below the limit, and
            those off the disc, become NaN.
        rsun: angular radius of the Sun in arcsec, or a Quantity, instead of the header's (as in
            :func:`limb_darkening`).

    The inverse multiplies by mu; what was NaN stays NaN. Floats keep their dtype, integers become float32.
    Source: Hagenaar 2001, ApJ 555, 448.

    Raises:
        StepError: for a limit outside of 0 to 1; when it runs, for a grid that is not helioprojective or a header
            without radius.

    >>> radial_field(limit=0.3)
    sg.helio.radial_field(limit=0.3)
    """
    what = "helio.radial_field"
    lowest = in_unit(limit, "", f"{what}: limit")
    if not 0 <= lowest < 1:
        raise StepError(f"{what}: limit={lowest:g} must be 0 or more, and below 1")
    settings: dict[str, Any] = {"limit": lowest, "rsun": checked_radius(rsun, what)}
    return Step(
        partial(_radial, **settings),
        partial(_line_of_sight, **settings),
        reach=POINT,
        lossy="pixels below the limit in mu, and off the limb",
    )


def _radial(x: Array, *, grid: Grid, attrs: Mapping[str, Any], limit: float, rsun: float | None) -> Array:
    work, dtype = as_floats(x)
    return settle(work / _known_mu(x, grid, attrs, limit, rsun, work.dtype), dtype)


def _line_of_sight(
    y: Array, *, grid: Grid, attrs: Mapping[str, Any], limit: float, rsun: float | None
) -> Array:
    work, dtype = as_floats(y)
    return settle(work * _known_mu(y, grid, attrs, limit, rsun, work.dtype), dtype)


def _known_mu(
    x: Array, grid: Grid, attrs: Mapping[str, Any], limit: float, rsun: float | None, dtype: Any
) -> Array:
    """mu where it is not below the limit, else NaN."""
    cosine = mu(grid, radius_on(x, grid, attrs, rsun, "helio.radial_field"), "helio.radial_field")
    return np.where((cosine > 0) & (cosine >= limit), cosine, np.nan).astype(dtype)
