"""The CRS of a variable: its CF grid mapping, or WKT, a PROJ string or an EPSG code in an attribute.

Source: CF conventions 1.11, section 5.6 and appendix F.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from streamgeo.sources.cf import Catalogue, Variable, is_grid_mapping, resolve, text

_CRS_TEXT = ("crs_wkt", "spatial_ref", "esri_pe_string", "crs", "proj4", "proj4_string", "proj4_params",
             "epsg", "epsg_code")  # fmt: skip


def grid_mapping(target: Variable, catalogue: Catalogue) -> Variable | None:
    """The grid mapping variable that the target names, else the only one in its group or above."""
    words = text(target.attrs, "grid_mapping").split()
    if words:
        return resolve(words[0].rstrip(":"), target.group, catalogue)
    above = [
        v for v in catalogue.values()
        if is_grid_mapping(v) and (v.group == "" or (target.group + "/").startswith(v.group + "/"))
    ]  # fmt: skip
    return above[0] if len(above) == 1 else None


def crs_attributes(
    mapping: Variable | None, target: Variable, file_attrs: Mapping[str, Any]
) -> dict[str, Any] | None:
    """CF attributes of the CRS with the variable's name under ``"name"``; None where pyproj cannot use them.

    Without a grid mapping variable, an attribute of the target or of the file that holds WKT, a PROJ string
    or an EPSG code is taken.
    """
    if mapping is not None:
        return {**mapping.attrs, "name": mapping.leaf} if _usable(_Cf(mapping.attrs)) else None
    for source in (target.attrs, file_attrs):
        for key in _CRS_TEXT:
            value = source.get(key)
            given = int(value) if isinstance(value, (int, np.integer)) else text(source, key).strip()
            cf = _cf_of(given) if given else None
            if cf is not None:
                return {**cf, "name": "spatial_ref"}
    return None


@lru_cache(maxsize=256)
def _cf_of(given: str | int) -> Mapping[str, Any] | None:
    """What a text or a code says of a CRS, as CF attributes; worked out once for a series of files."""
    from pyproj import CRS

    crs = _quiet(CRS.from_user_input, given)
    cf: Mapping[str, Any] | None = _quiet(crs.to_cf) if crs is not None else None
    return cf if cf is not None and _quiet(CRS.from_cf, cf) is not None else None


class _Cf:
    """Attributes that compare and hash by what they print, so that one check serves a series of files."""

    def __init__(self, attrs: Mapping[str, Any]) -> None:
        self.attrs = dict(attrs)
        self._key = repr(sorted(self.attrs.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Cf) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


@lru_cache(maxsize=256)
def _usable(cf: _Cf) -> bool:
    """Whether pyproj makes a CRS of a grid mapping; for a geostationary one that takes half a second."""
    from pyproj import CRS

    return _quiet(CRS.from_cf, cf.attrs) is not None


def _quiet(function: Callable[..., Any], *args: Any) -> Any:
    """The result, or None when pyproj refuses: attributes of real files often are no valid CRS."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return function(*args)
        except Exception:
            return None
