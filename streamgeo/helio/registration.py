"""Images of the Sun brought to one frame: disc centre in the middle, north up, one scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, partial
from typing import Any

from streamgeo.errors import StepError
from streamgeo.fits_cards import is_wcs, wcs_key
from streamgeo.grid import Axis, Grid
from streamgeo.helio.disc import ARCSEC, checked_radius, directions, places, radius_of, tangent, wcs_of
from streamgeo.helio.resampling import Method, Positions, checked_method, needed, pull
from streamgeo.locate import WcsLocator
from streamgeo.parameters import in_unit
from streamgeo.pointwise import Array
from streamgeo.step import POINT, Moves, Step, register
from streamgeo.window import Window

_WHAT = "helio.registration"


@dataclass(frozen=True)
class Frame:
    """The frame that images are brought to; one of ``radius`` and ``scale`` is None."""

    shape: tuple[int, int]
    radius: float | None
    scale: float | None
    rsun: float | None


@register("helio.registration")
def registration(
    shape: int | Sequence[int],
    radius: float | None = None,
    scale: Any = None,
    *,
    method: Method = "linear",
    rsun: Any = None,
) -> Step:
    """Recentre, rotate solar north up, and rescale, in one interpolation.

    The result is a tangential projection (TAN) about disc centre, which lies in the middle of the image:
    ``CRPIX = (n + 1) / 2``, ``CRVAL = 0``, no rotation. Values are taken as intensities, so they do not change
    with the size of the pixels. Outside of the input the result is NaN, and so is every pixel that is
    interpolated from one that is NaN. Where the new pixels are much coarser than the old ones, average blocks
    first (``remote.downsample``).

    The inverse interpolates back to the pixels of the file by the same method; what lies outside of the frame
    is NaN. It takes predictions of a finer or coarser resolution too.

    Args:
        shape: rows and columns of the result; one number means both.
        radius: of the solar limb in pixels: all images have the Sun equally large. Or:
        scale: of a pixel at disc centre in arcsec, or a Quantity (SDO/AIA level 1.5: 0.6).
        method: ``"nearest"``, ``"linear"`` or ``"cubic"`` (Keys 1981, IEEE Trans. ASSP 29, 1153, a = -1/2;
            linear beside pixels that are NaN).
        rsun: angular radius of the Sun in arcsec, or a Quantity, instead of the header's (RSUN_OBS or what
            stands in its place, as in :func:`limb_darkening`); only ``radius`` needs it.

    Floats keep their dtype, integers become float32.

    Raises:
        StepError: for a shape, radius, scale or method that cannot be; when it runs, for a grid that is not
            helioprojective or a header without radius.

    >>> registration(shape=512, radius=200.0)
    sg.helio.registration(shape=512, radius=200.0)
    """
    if (radius is None) == (scale is None):
        raise StepError(f"{_WHAT}: give either radius= in pixels or scale= in arcsec per pixel")
    frame = Frame(
        _shape(shape),
        None if radius is None else _positive(radius, "", "radius"),
        None if scale is None else _positive(scale, "arcsec", "scale"),
        checked_radius(rsun, _WHAT),
    )
    settings: dict[str, Any] = {"frame": frame, "method": checked_method(method, _WHAT)}
    moves = Moves(
        partial(_framed, frame=frame), partial(_source, **settings), partial(_cut, **settings), windowed=True
    )
    return Step(
        partial(_there, **settings),
        partial(_back, **settings),
        reach=POINT,
        grid=moves,
        lossy="detail between pixels, and what lies outside of the frame",
    )


def _shape(shape: int | Sequence[int]) -> tuple[int, int]:
    sizes = (shape, shape) if isinstance(shape, int) else tuple(shape)
    if len(sizes) != 2 or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in sizes):
        raise StepError(
            f"{_WHAT}: shape={shape!r} must be a number of pixels, or that of rows and of columns"
        )
    return sizes[0], sizes[1]


def _positive(value: Any, unit: str, name: str) -> float:
    number = in_unit(value, unit, f"{_WHAT}: {name}")
    if number <= 0:
        raise StepError(f"{_WHAT}: {name}={number:g} must be above 0")
    return number


# -- grids ----------------------------------------------------------------------------------------------


def _framed(grid: Grid, *, frame: Frame) -> Grid:
    """The grid of the result: that of the frame, with the other dims as they are."""
    locator = wcs_of(grid, _WHAT)
    tangent(locator.header, _WHAT)  # raises where it is not helioprojective
    if frame.scale is not None:
        arcsec = frame.scale
    else:
        assert frame.radius is not None
        arcsec = math.tan(radius_of(grid, frame.rsun, _WHAT)) / ARCSEC / frame.radius
    new = WcsLocator(_header(locator, frame.shape, arcsec), locator.dims, locator.spatial)
    sizes = dict(zip(locator.spatial, frame.shape))
    missing = [dim for dim in sizes if dim not in grid.dims]
    if missing:
        raise StepError(f"{_WHAT}: the array has no dim {missing[0]!r} any more, only {grid.dims}")
    axes = tuple(Axis(a.name, sizes[a.name]) if a.name in sizes else a for a in grid.axes)
    return Grid(axes, new)


@lru_cache(maxsize=64)
def _header(locator: WcsLocator, shape: tuple[int, int], arcsec: float) -> str:
    return framed_header(locator, shape, arcsec)


def framed_header(locator: WcsLocator, shape: tuple[int, int], arcsec: float) -> str:
    """The header with the WCS of the frame instead of its own; axes beside the two keep theirs."""
    from astropy.io.fits import Header

    header = Header.fromstring(locator.header)
    numbers = [len(locator.dims) - locator.dims.index(dim) for dim in locator.spatial]
    kinds = {number: str(header.get(f"CTYPE{number}", "")).upper() for number in numbers}
    out = Header()
    for card in header.cards:
        key = wcs_key(card.keyword)
        if key is None:  # of the WCS as a whole, and SIP: they are those of the old one
            mine = is_wcs(card.keyword) and card.keyword != "WCSAXES"
        else:
            mine = bool(key.alternate or {key.row, key.column} & set(numbers))
        if not mine:
            out.append(card, end=True)
    for number, size in zip(numbers, shape):
        lat = kinds[number].startswith(("HPLT", "SOLAR-Y", "SOLAR_Y"))
        out[f"NAXIS{number}"] = size
        out[f"CTYPE{number}"] = "HPLT-TAN" if lat else "HPLN-TAN"
        out[f"CUNIT{number}"], out[f"CDELT{number}"] = "arcsec", arcsec
        out[f"CRPIX{number}"], out[f"CRVAL{number}"] = (size + 1) / 2, 0.0
    text: str = out.tostring(sep="", endcard=True, padding=False)
    return text


# -- where pixels come from -------------------------------------------------------------------------------


def _seen(window: Window, *, here: Grid, there: Grid) -> Positions:
    """Where the pixels of a window of ``here`` lie in ``there``."""
    ydim, xdim = here.spatial
    plane = here.drop(*(dim for dim in here.dims if dim not in (ydim, xdim)))
    order = plane.transpose(ydim, xdim) if plane.dims != (ydim, xdim) else plane
    return places(there, *directions(order.crop(window), _WHAT), _WHAT)


def _source(window: Window, grid: Grid, *, frame: Frame, method: str) -> Window:
    locate = partial(_seen, here=_framed(grid, frame=frame), there=grid)
    return needed(grid, window, _dims(grid), locate, method, edges=True)


def _cut(x: Array, *, window: Window, whole: Grid, frame: Frame, method: str) -> Array:
    after = _framed(whole, frame=frame)
    dims = _dims(whole)
    locate = partial(_seen, here=after, there=whole)
    source = needed(whole, window, dims, locate, method, edges=True)
    return pull(x, source, whole, window, dims, locate, method)


def _there(x: Array, *, grid: Grid, frame: Frame, method: str) -> Array:
    if x.shape != grid.shape:
        raise StepError(f"{_WHAT}: the array has shape {x.shape}, its grid {grid.sizes}")
    after = _framed(grid, frame=frame)
    locate = partial(_seen, here=after, there=grid)
    return pull(x, grid.window, grid, after.window, _dims(grid), locate, method)


def _back(y: Array, *, grid: Grid, frame: Frame, method: str) -> Array:
    after = _framed(grid, frame=frame)
    factors = {
        dim: Fraction(size, n)
        for dim, size, n in zip(after.dims, y.shape, after.shape)
        if dim in grid.spatial
    }
    if y.ndim != len(after.dims) or any(f.numerator != 1 and f.denominator != 1 for f in factors.values()):
        raise StepError(f"inverse of {_WHAT}: shape {y.shape} is not that of the frame, {after.sizes}")
    after = after.coarsen(**{dim: float(1 / factor) for dim, factor in factors.items()})
    locate = partial(_seen, here=grid, there=after)
    return pull(y, after.window, after, grid.window, _dims(grid), locate, method)


def _dims(grid: Grid) -> tuple[str, str]:
    ydim, xdim = grid.spatial
    return ydim, xdim
