"""Functions of sunpy's maps as steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from streamgeo.convert import same_place, to_map
from streamgeo.errors import StepError
from streamgeo.grid import Grid
from streamgeo.pointwise import Array
from streamgeo.step import SCENE, Reach, Step

What = Callable[[Any], Any]
Change = Callable[[Grid], Grid] | None

_WHAT = "helio.on_map"


def on_map(
    f: What, inverse: What | None = None, *, reach: Reach = SCENE, grid: Callable[[Grid], Grid] | None = None
) -> Step:
    """A step from any function Map -> Map, such as those of sunpy, aiapy and sunkit-image.

    Args:
        f: the function; it gets the image with the file's header and the WCS of the grid.
        inverse: the function that undoes it, Map -> Map too.
        reach: what ``f`` needs around a pixel, as in :class:`streamgeo.Step`; the whole scene by default.
        grid: what ``f`` does to the grid, for one that moves pixels or changes their number (Grid to Grid), such
            as ``sg.helio.registration(...).grid_after``. By default it must leave them where they are.

    The step has no name in the registry, so it prints and pickles (where ``f`` does), but it does not save to
    JSON. Needs sunpy's maps (``pip install 'streamgeo[sun]'``).

    Raises:
        StepError: when ``f`` is no function, or (when it runs) returns no map, or one of another size or place
            than its grid says; where sunpy's maps are not installed.
        GridError: when it runs on what is not one image with a WCS.
    """
    for name, given in (("f", f), ("inverse", inverse), ("grid", grid)):
        if given is not None and not callable(given):
            raise StepError(f"{_WHAT}: {name}={given!r} is not a function")
    back = None if inverse is None else partial(_backward, f=inverse, change=grid)
    return Step(partial(_forward, f=f, change=grid), back, reach=reach, grid=grid)


def _forward(x: Array, *, grid: Grid, f: What, change: Change) -> Array:
    return _lifted(x, grid, grid if change is None else change(grid), f)


def _backward(y: Array, *, grid: Grid, f: What, change: Change) -> Array:
    return _lifted(y, grid if change is None else change(grid), grid, f)


def _lifted(x: Array, before: Grid, after: Grid, f: What) -> Array:
    given = to_map(x.copy(), before, what=_WHAT)
    made = f(given)
    if not (hasattr(made, "data") and hasattr(made, "wcs") and hasattr(made, "meta")):
        raise StepError(f"{_WHAT}: the function returned {type(made).__name__}; it must return a map")
    values = np.asarray(made.data)
    remedy = "say what it does to the grid with grid=, or use a step such as helio.registration"
    if values.shape != after.shape:
        raise StepError(f"{_WHAT}: the function returned shape {values.shape}, not {after.shape}; {remedy}")
    expected = given if after is before else to_map(np.zeros(after.shape, np.float32), after, what=_WHAT)
    if not same_place(expected.wcs, made.wcs, values.shape):
        raise StepError(
            f"{_WHAT}: the function moved the image, and its WCS is not that of the grid; {remedy}"
        )
    if made.mask is not None and np.any(made.mask):
        values = np.where(made.mask, np.nan, values)
    return values.astype(x.dtype) if x.dtype.kind == "f" else values.astype(np.float32)
