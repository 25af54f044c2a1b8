"""Spectral indices: bands to vegetation, water, snow and burn indices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from streamgeo.errors import StepError
from streamgeo.grid import Grid
from streamgeo.pointwise import Array, as_floats, settle
from streamgeo.step import POINT, Moves, Step, register
from streamgeo.window import Window


@dataclass(frozen=True)
class Index:
    """A spectral index: its formula as text, the bands in it, the function of them, and who described it."""

    formula: str
    bands: tuple[str, ...]
    function: Callable[..., Any]
    source: str


def _difference(a: Array, b: Array) -> Any:
    return (a - b) / (a + b)


def _normalised(a: str, b: str, source: str) -> Index:
    return Index(f"({a} - {b}) / ({a} + {b})", (a, b), _difference, source)


def _evi(nir: Array, red: Array, blue: Array) -> Any:
    return 2.5 * (nir - red) / (nir + 6 * red - 7.5 * blue + 1)


def _evi2(nir: Array, red: Array) -> Any:
    return 2.5 * (nir - red) / (nir + 2.4 * red + 1)


def _savi(nir: Array, red: Array) -> Any:
    return 1.5 * (nir - red) / (nir + red + 0.5)


def _msavi(nir: Array, red: Array) -> Any:
    return (2 * nir + 1 - np.sqrt((2 * nir + 1) ** 2 - 8 * (nir - red))) / 2


def _osavi(nir: Array, red: Array) -> Any:
    return (nir - red) / (nir + red + 0.16)


def _bsi(swir1: Array, red: Array, nir: Array, blue: Array) -> Any:
    return ((swir1 + red) - (nir + blue)) / ((swir1 + red) + (nir + blue))


INDICES: Mapping[str, Index] = {
    "NDVI": _normalised("nir", "red", "Rouse et al. 1974, NASA SP-351, 309"),
    "GNDVI": _normalised("nir", "green", "Gitelson et al. 1996, Remote Sens. Environ. 58, 289"),
    "NDRE": _normalised("nir", "rededge", "Gitelson and Merzlyak 1994, J. Plant Physiol. 143, 286"),
    "EVI": Index(
        "2.5 (nir - red) / (nir + 6 red - 7.5 blue + 1)", ("nir", "red", "blue"), _evi,
        "Huete et al. 2002, Remote Sens. Environ. 83, 195",
    ),
    "EVI2": Index(
        "2.5 (nir - red) / (nir + 2.4 red + 1)", ("nir", "red"), _evi2,
        "Jiang et al. 2008, Remote Sens. Environ. 112, 3833",
    ),
    "SAVI": Index(
        "1.5 (nir - red) / (nir + red + 0.5)", ("nir", "red"), _savi,
        "Huete 1988, Remote Sens. Environ. 25, 295",
    ),
    "MSAVI": Index(
        "(2 nir + 1 - sqrt((2 nir + 1)^2 - 8 (nir - red))) / 2", ("nir", "red"), _msavi,
        "Qi et al. 1994, Remote Sens. Environ. 48, 119",
    ),
    "OSAVI": Index(
        "(nir - red) / (nir + red + 0.16)", ("nir", "red"), _osavi,
        "Rondeaux et al. 1996, Remote Sens. Environ. 55, 95",
    ),
    "NDWI": _normalised("green", "nir", "McFeeters 1996, Int. J. Remote Sens. 17, 1425"),
    "MNDWI": _normalised("green", "swir1", "Xu 2006, Int. J. Remote Sens. 27, 3025"),
    "NDMI": _normalised("nir", "swir1", "Gao 1996, Remote Sens. Environ. 58, 257"),
    "NDSI": _normalised("green", "swir1", "Hall et al. 1995, Remote Sens. Environ. 54, 127"),
    "NDBI": _normalised("swir1", "nir", "Zha et al. 2003, Int. J. Remote Sens. 24, 583"),
    "NBR": _normalised("nir", "swir2", "Key and Benson 2006, USDA RMRS-GTR-164-CD"),
    "NBR2": _normalised("swir1", "swir2", "USGS, Landsat Spectral Indices Product Guide (LSDS-1438)"),
    "BSI": Index(
        "((swir1 + red) - (nir + blue)) / ((swir1 + red) + (nir + blue))", ("swir1", "red", "nir", "blue"),
        _bsi, "Rikimaru et al. 2002, Trop. Ecol. 43, 39",
    ),
}  # fmt: skip


@register("remote.index")
def index(name: str | Sequence[str], bands: Sequence[str]) -> Step:
    """Spectral indices of reflectances, as a new array: ``key_transform("image", index(...), "ndvi")``.

    ============ ============================================================= ========================
    name         formula                                                       source
    ============ ============================================================= ========================
    NDVI         (nir - red) / (nir + red)                                     Rouse et al. 1974
    GNDVI        (nir - green) / (nir + green)                                 Gitelson et al. 1996
    NDRE         (nir - rededge) / (nir + rededge)                             Gitelson, Merzlyak 1994
    EVI          2.5 (nir - red) / (nir + 6 red - 7.5 blue + 1)                Huete et al. 2002
    EVI2         2.5 (nir - red) / (nir + 2.4 red + 1)                         Jiang et al. 2008
    SAVI         1.5 (nir - red) / (nir + red + 0.5)                           Huete 1988
    MSAVI        (2 nir + 1 - sqrt((2 nir + 1)^2 - 8 (nir - red))) / 2         Qi et al. 1994
    OSAVI        (nir - red) / (nir + red + 0.16)                              Rondeaux et al. 1996
    NDWI         (green - nir) / (green + nir)                                 McFeeters 1996
    MNDWI, NDSI  (green - swir1) / (green + swir1)                             Xu 2006; Hall et al. 1995
    NDMI         (nir - swir1) / (nir + swir1)                                 Gao 1996
    NDBI         (swir1 - nir) / (swir1 + nir)                                 Zha et al. 2003
    NBR          (nir - swir2) / (nir + swir2)                                 Key, Benson 2006
    NBR2         (swir1 - swir2) / (swir1 + swir2)                             USGS LSDS-1438
    BSI          ((swir1 + red) - (nir + blue)) / ((swir1 + red) + (nir + blue)) Rikimaru et al. 2002
    ============ ============================================================= ========================

    Args:
        name: of the table, which is :data:`INDICES` too; one name drops the dim of bands (axis -3), several
            give that dim one place for each.
        bands: names of the bands in the order of axis -3, of blue, green, red, rededge, nir, swir1, swir2;
            other names are bands that no index uses. A later ``patch`` must leave that axis whole.

    Values are reflectances, not digital numbers: EVI, SAVI and the like are no ratios. NaN where a band in use
    is NaN and where numerator and denominator are 0; infinite where only the denominator is. Floats keep
    their dtype, integers become float32. There is no inverse.

    Raises:
        StepError: for a name that is not in the table, a band of its formula that is not given, or (when it
            runs) another number of bands.

    >>> step = index("NDVI", bands=["red", "nir"])
    >>> step(np.array([0.1, 0.3]).reshape(2, 1, 1)).round(6).tolist()
    [[0.5]]
    """
    names = (name,) if isinstance(name, str) else tuple(name)
    given = tuple(bands)
    for wanted in names:
        if wanted not in INDICES:
            raise StepError(f"remote.index: there is no index {wanted!r}; there are {sorted(INDICES)}")
        lacking = [band for band in INDICES[wanted].bands if band not in given]
        if lacking:
            raise StepError(f"remote.index: {wanted} needs {lacking[0]!r}; bands={list(given)} has none")
    if not names:
        raise StepError(f"remote.index: give a name, of {sorted(INDICES)}")
    if len(set(given)) != len(given):
        raise StepError(f"remote.index: bands={list(given)} names a band twice")
    bound: dict[str, Any] = {"names": names, "bands": given, "one": isinstance(name, str)}
    moves = Moves(
        partial(_index_grid, count=None if bound["one"] else len(names)),
        _index_source,
        partial(_indices_in, **bound),
        windowed=True,
    )
    return Step(partial(_indices, **bound), reach=POINT, grid=moves, lossy="the bands", units="1")


def _indices_in(
    x: Array, *, window: Window, whole: Grid, names: Sequence[str], bands: Sequence[str], one: bool
) -> Array:
    wanted = slice(None) if one else window[whole.dims[-3]]
    return _indices(x, names=names[wanted], bands=bands, one=one)


def _indices(x: Array, *, names: Sequence[str], bands: Sequence[str], one: bool) -> Array:
    work, dtype = as_floats(x)
    if work.ndim < 3 or work.shape[-3] != len(bands):
        raise StepError(
            f"remote.index: {len(bands)} bands {list(bands)}, but the array has shape {work.shape}; name the "
            "bands of axis -3"
        )
    found = np.empty((*work.shape[:-3], len(names), *work.shape[-2:]), work.dtype)
    with np.errstate(divide="ignore", invalid="ignore"):
        for number, name in enumerate(names):
            entry = INDICES[name]
            values = entry.function(*(work[..., bands.index(band), :, :] for band in entry.bands))
            found[..., number, :, :] = values
    return settle(found[..., 0, :, :] if one else found, dtype)


def _index_grid(grid: Grid, *, count: int | None) -> Grid:
    band = _band(grid)
    return grid.drop(band) if count is None else grid.resize(**{band: count})


def _index_source(out: Window, grid: Grid) -> Window:
    band = _band(grid)
    return Window({dim: (0, grid.sizes[dim]) if dim == band else out[dim] for dim in grid.dims})


def _band(grid: Grid) -> str:
    if len(grid.dims) < 3:
        raise StepError(f"remote.index: the dims {grid.dims} have no bands; stack the bands in axis -3")
    return grid.dims[-3]
