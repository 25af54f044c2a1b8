"""Functions of DataArrays as steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from streamgeo.dataarrays import to_dataarray
from streamgeo.errors import StepError
from streamgeo.grid import Grid, plain_grid
from streamgeo.pointwise import Array
from streamgeo.step import SCENE, Reach, Step

What = Callable[[Any], Any]


def on_dataarray(f: What, inverse: What | None = None, *, reach: Reach = SCENE) -> Step:
    """A step from any function DataArray -> DataArray: it gets dims, coordinates and attributes of the file.

    Args:
        f: the function; it may be one of xarray's own, such as ``partial(xr.DataArray.fillna, value=0)``. It must
            keep the dims and their sizes (in whatever order): use ``sg.crop`` or ``climate.subset`` to cut.
        inverse: the function that undoes it.
        reach: what ``f`` needs around a pixel, as in :class:`streamgeo.Step`; the whole scene by default.

    Lazy results (dask) are computed. The step has no name in the registry, so it prints and pickles (where ``f``
    does), but it does not save to JSON. Needs xarray (``pip install 'streamgeo[xarray]'``).

    Raises:
        StepError: when ``f`` is no function, or (when it runs) when it returns no DataArray, or one of other
            dims or sizes.

    >>> step = on_dataarray(abs)
    >>> step(np.array([[-1.0, 2.0]])).tolist()
    [[1.0, 2.0]]
    """
    for name, given in (("f", f), ("inverse", inverse)):
        if given is not None and not callable(given):
            raise StepError(f"climate.on_dataarray: {name}={given!r} is not a function")
    return Step(partial(_lifted, f=f), None if inverse is None else partial(_lifted, f=inverse), reach=reach)


def _lifted(x: Array, *, f: What, grid: Grid | None = None, attrs: Mapping[str, Any] | None = None) -> Array:
    here = grid if grid is not None and grid.shape == x.shape else plain_grid(x.shape)
    given = to_dataarray(x.copy(), here, attrs, what="climate.on_dataarray")
    result = f(given)
    if not (hasattr(result, "dims") and hasattr(result, "transpose") and hasattr(result, "values")):
        raise StepError(
            f"climate.on_dataarray: the function returned {type(result).__name__}; it must return a DataArray"
        )
    if sorted(map(str, result.dims)) != sorted(here.dims) or dict(result.sizes) != here.sizes:
        raise StepError(
            f"climate.on_dataarray: the function returned {dict(result.sizes)} for {here.sizes}; it must keep the "
            "dims and their sizes"
        )
    values = np.asarray(result.transpose(*here.dims).values)
    return values.astype(x.dtype) if x.dtype.kind == "f" and values.dtype.kind == "f" else values
