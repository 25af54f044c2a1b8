"""Images with a WCS as maps of sunpy.

Needs the map part of sunpy (``pip install 'streamgeo[sun]'``).
"""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import GridError, StepError
from streamgeo.fits_cards import AxisView, view_header
from streamgeo.grid import Grid
from streamgeo.locate import WcsLocator
from streamgeo.optional import optional

Array = NDArray[Any]

_STRUCTURE = re.compile(
    r"SIMPLE|XTENSION|BITPIX|NAXIS\d*|PCOUNT|GCOUNT|EXTEND|BSCALE|BZERO|BLANK|CHECKSUM|DATASUM"
)


def to_map(values: Array, grid: Grid, units: str = "", *, what: str = "to_map") -> Any:
    """A sunpy Map of an image: the header that its WCS comes from, with the WCS cards of the grid.

    Args:
        values: the image.
        grid: of two dims, with a FITS WCS.
        units: of the values; they replace BUNIT where they are given.
        what: the operation, for messages.

    Raises:
        GridError: for a grid that is no image, or has no WCS.
        StepError: where sunpy's maps are not installed, or sunpy does not take the header.
    """
    module = optional("sunpy.map", "sun", what)
    header = image_header(grid, what)
    if tuple(values.shape) != grid.shape:
        raise GridError(f"{what}: the values have shape {values.shape}, the grid {grid.sizes}")
    if units:
        header["BUNIT"] = units
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old headers: astropy tells each card that it mends
            return module.Map(np.ascontiguousarray(values), header)
    except Exception as error:
        raise StepError(f"{what}: sunpy makes no map of this header ({error})") from error


def image_header(grid: Grid, what: str) -> Any:
    """The FITS header of an image with the WCS cards of its grid, without those on how pixels are stored.

    Raises:
        GridError: for a grid that is no image, or has no WCS.
    """
    from astropy.io.fits import Header

    locator = grid.locator
    if not isinstance(locator, WcsLocator):
        raise GridError(f"{what}: a map needs a FITS WCS, and {grid!r} has none")
    if len(grid.dims) != 2 or sorted(grid.dims) != sorted(grid.spatial):
        raise GridError(
            f"{what}: a map is one image, and the dims are {grid.dims}; take one with an index, or crop and drop"
        )
    header = Header.fromstring(locator.header)
    axes = []
    for axis in reversed(grid.axes):
        number = len(locator.dims) - locator.dims.index(axis.name)
        axes.append(AxisView(number, axis.origin, axis.step) if axis.located else None)
    placed, _ = view_header(header, axes, header.get("NAXIS", len(locator.dims)))
    out = Header()
    for card in placed.cards:
        if not _STRUCTURE.fullmatch(card.keyword):
            out.append(card, end=True)
    return out


def same_place(a: Any, b: Any, shape: tuple[int, ...]) -> bool:
    """Whether two WCS put corners and centre of an image at the same place, to a thousandth of a pixel."""
    rows, cols = shape[-2:]
    x = np.array([0.0, cols - 1, 0, cols - 1, (cols - 1) / 2])
    y = np.array([0.0, 0, rows - 1, rows - 1, (rows - 1) / 2])
    seen = [np.array(wcs.pixel_to_world_values(x, y)) for wcs in (a, b)]
    if list(a.wcs.ctype) != list(b.wcs.ctype):
        return False
    step = np.abs(np.array(a.pixel_to_world_values(x + 1, y)) - seen[0])[:, :1]
    down = np.abs(np.array(a.pixel_to_world_values(x, y + 1)) - seen[0])[:, :1]
    apart = np.abs(seen[0] - seen[1])
    apart = np.minimum(apart, np.abs(360 - apart))
    return bool(np.all(apart <= 1e-3 * np.minimum(np.hypot(step, down), 1.0)))
