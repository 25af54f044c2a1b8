"""Digital numbers to radiance, reflectance at the top of the atmosphere, and brightness temperature."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from streamgeo.errors import StepError
from streamgeo.parameters import in_unit
from streamgeo.pointwise import Array, Numbers, PerBand, along_bands, as_floats, numbers, settle
from streamgeo.step import POINT, Step, register


@register("remote.radiance")
def radiance(gain: PerBand, offset: PerBand = 0.0) -> Step:
    """Digital numbers to spectral radiance: ``L = gain * DN + offset``; the inverse is ``(L - offset) / gain``.

    For Landsat 8 and 9 level 1, ``RADIANCE_MULT_BAND_n`` and ``RADIANCE_ADD_BAND_n`` of the MTL file, in
    W/(m2 sr um) a count; :func:`streamgeo.remote.landsat` takes them from there.

    Args:
        gain, offset: one number for all, or a vector with one for each band, which applies to axis -3 (a
            later ``patch`` must then leave that axis whole).

    NaN stays NaN, nothing is clipped. Floats keep their dtype, integers become float32; the inverse gives
    floats, not rounded to digital numbers. Source: USGS, Landsat 8 Data Users Handbook (LSDS-1574), chapter 5.

    Raises:
        StepError: for a gain that is 0, numbers that are not finite, or (when it runs) another number of
            bands than the vector has.

    >>> radiance(3.3420e-4, 0.1)(np.array([30000.0])).round(3).tolist()
    [10.126]
    """
    return _affine("remote.radiance", gain, offset, 1.0, units="W m-2 sr-1 um-1")


@register("remote.toa_reflectance")
def toa_reflectance(gain: PerBand, offset: PerBand, sun_elevation: float) -> Step:
    """Digital numbers to reflectance at the top of the atmosphere: ``y = (gain * DN + offset) / sin(elevation)``.

    For Landsat 8 and 9 level 1, ``REFLECTANCE_MULT_BAND_n`` (2e-5), ``REFLECTANCE_ADD_BAND_n`` (-0.1) and
    ``SUN_ELEVATION`` of the MTL file; :func:`streamgeo.remote.landsat` takes them from there.

    Args:
        gain, offset: one number for all, or a vector with one for each band, which applies to axis -3.
        sun_elevation: of the centre of the scene, degrees above the horizon.

    NaN stays NaN, nothing is clipped; the inverse gives digital numbers as floats. Floats keep their dtype,
    integers become float32. Source: USGS, Landsat 8 Data Users Handbook (LSDS-1574), chapter 5.

    Raises:
        StepError: for a gain that is 0, an elevation that is not above 0 and at most 90 degrees, or (when it
            runs) another number of bands than the vector has.

    >>> toa_reflectance(2e-5, -0.1, sun_elevation=30.0)(np.array([10000.0])).round(6).tolist()
    [0.2]
    """
    elevation = in_unit(sun_elevation, "deg", "remote.toa_reflectance: sun_elevation")
    if not 0 < elevation <= 90:
        raise StepError(
            f"remote.toa_reflectance: sun_elevation={elevation} must be above 0 and at most 90 degrees"
        )
    return _affine("remote.toa_reflectance", gain, offset, 1 / math.sin(math.radians(elevation)), units="1")


@register("remote.sentinel2")
def sentinel2(baseline: str | float, quantification: float = 10000.0) -> Step:
    """Sentinel-2 digital numbers to reflectance: ``y = (DN + offset) / quantification``, levels 1C and 2A.

    Args:
        baseline: the processing baseline, as in the name of the product (``N0400`` is ``"04.00"``). The offset
            (``RADIO_ADD_OFFSET``, ``BOA_ADD_OFFSET``) is -1000 from 04.00 on, which is in use since
            25 January 2022, and 0 before; archives that were processed again have the new one.
        quantification: ``QUANTIFICATION_VALUE`` of the product's metadata.

    The nodata value (0) must be NaN by then: see :func:`streamgeo.remote.nodata`. NaN stays NaN, nothing is
    clipped; the inverse gives digital numbers as floats. Floats keep their dtype, integers become float32. Source:
    ESA, Sentinel-2 Products Specification Document, issue 14.9 (processing baseline 04.00).

    Raises:
        StepError: for a baseline that is no number, or a quantification that is not above 0.

    >>> dn = np.array([1000.0, 3500.0])
    >>> sentinel2("04.00")(dn).tolist(), sentinel2("02.14")(dn).round(6).tolist()
    ([0.0, 0.25], [0.1, 0.35])
    """
    scale = numbers(quantification, "remote.sentinel2: quantification", positive=True)
    if not isinstance(scale, float):
        raise StepError(f"remote.sentinel2: quantification={quantification!r} must be one number")
    try:
        version = float(str(baseline).upper().removeprefix("N"))
    except ValueError:
        raise StepError(
            f'remote.sentinel2: baseline={baseline!r} is no processing baseline; give "04.00", say'
        ) from None
    version = version / 100 if version >= 100 else version  # N0510 means 05.10
    shift = -1000.0 if version >= 4 else 0.0
    return _affine("remote.sentinel2", 1 / scale, shift / scale, 1.0, units="1")


def _affine(what: str, gain: PerBand, offset: PerBand, factor: float, units: str | None = None) -> Step:
    """``y = (x * gain + offset) * factor``, with its inverse."""
    slope = np.asarray(numbers(gain, f"{what}: gain"))
    shift = np.asarray(numbers(offset, f"{what}: offset"))
    if not np.all(slope != 0):
        raise StepError(f"{what}: gain={gain!r} must not be 0")
    if slope.ndim and shift.ndim and slope.shape != shift.shape:
        raise StepError(f"{what}: gain has {slope.size} numbers and offset {shift.size}; give as many")
    bound = {"gain": numbers(slope * factor, what), "offset": numbers(shift * factor, what), "what": what}
    return Step(partial(_scale, **bound), partial(_unscale, **bound), reach=POINT, units=units)  # type: ignore[arg-type]


def _scale(x: Array, *, gain: Numbers, offset: Numbers, what: str) -> Array:
    work, dtype = as_floats(x)
    y = work * along_bands(gain, work, what)
    y += along_bands(offset, work, what)
    return settle(y, dtype)


def _unscale(y: Array, *, gain: Numbers, offset: Numbers, what: str) -> Array:
    work, dtype = as_floats(y)
    x = work - along_bands(offset, work, what)
    x /= along_bands(gain, work, what)
    return settle(x, dtype)


@register("remote.brightness_temperature")
def brightness_temperature(k1: PerBand, k2: PerBand, gain: PerBand = 1.0, offset: PerBand = 0.0) -> Step:
    """Thermal digital numbers to brightness temperature: ``T = k2 / ln(k1 / L + 1)`` with ``L = gain * DN + offset``.

    Args:
        k1, k2: ``K1_CONSTANT_BAND_n`` (units of the radiance) and ``K2_CONSTANT_BAND_n`` (kelvin) of the MTL
            file: 774.8853 and 1321.0789 for band 10 of Landsat 8. One number, or one for each band on axis -3.
        gain, offset: ``RADIANCE_MULT_BAND_n`` and ``RADIANCE_ADD_BAND_n``; left out, the values are radiances.

    Kelvin, at the top of the atmosphere. NaN stays NaN. Floats keep their dtype, integers become float32. The
    inverse takes temperatures above 0 K. Source: USGS, Landsat 8 Data Users Handbook (LSDS-1574), chapter 5.

    Raises:
        StepError: for k1 or k2 not above 0, a gain that is 0, or (when it runs) for radiances at or below 0
            and, in the inverse, temperatures at or below 0 K.

    >>> brightness_temperature(774.8853, 1321.0789, 3.3420e-4, 0.1)(np.array([30000.0])).round(2).tolist()
    [303.65]
    """
    what = "remote.brightness_temperature"
    scale = _affine(what, gain, offset, 1.0)
    bound = {
        "k1": numbers(k1, f"{what}: k1", positive=True),
        "k2": numbers(k2, f"{what}: k2", positive=True),
        **scale.forward.keywords,  # type: ignore[attr-defined]
    }
    return Step(partial(_temperature, **bound), partial(_counts, **bound), reach=POINT, units="K")


def _temperature(x: Array, *, k1: Numbers, k2: Numbers, gain: Numbers, offset: Numbers, what: str) -> Array:
    work, dtype = as_floats(x)
    y = work * along_bands(gain, work, what)
    y += along_bands(offset, work, what)
    _above_zero(y, what, "radiances")
    np.divide(along_bands(k1, y, what), y, out=y)
    np.log1p(y, out=y)
    np.divide(along_bands(k2, y, what), y, out=y)
    return settle(y, dtype)


def _counts(y: Array, *, k1: Numbers, k2: Numbers, gain: Numbers, offset: Numbers, what: str) -> Array:
    work, dtype = as_floats(y)
    _above_zero(work, f"inverse of {what}", "temperatures")
    x = along_bands(k2, work, what) / work
    np.expm1(x, out=x)
    np.divide(along_bands(k1, x, what), x, out=x)
    x -= along_bands(offset, x, what)
    x /= along_bands(gain, x, what)
    return settle(x, dtype)


def _above_zero(values: Array, what: str, kind: str) -> None:
    bad = values <= 0
    if bad.any():
        raise StepError(
            f"{what}: {int(np.count_nonzero(bad))} of {values.size} {kind} are at or below 0 (the lowest is "
            f"{np.nanmin(values):g}); make nodata NaN before it, with remote.nodata(0) for counts"
        )
