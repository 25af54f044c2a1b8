"""Chains over maps of sunpy."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.begin import buffer_of_scenes
from streamgeo.chain import Buffer
from streamgeo.convert import same_place
from streamgeo.errors import StepError
from streamgeo.fits_cards import clean_header, is_wcs
from streamgeo.grid import Grid
from streamgeo.optional import optional
from streamgeo.scene import Scene
from streamgeo.sources.fits import locate
from streamgeo.template import Template
from streamgeo.window import Window

Array = NDArray[Any]
_DIMS = ("y", "x")


def from_maps(maps: Any, key: str = "image") -> Buffer:
    """A Buffer of scenes from maps of sunpy, as if each had been opened from a FITS file.

    Header and WCS are taken over (as sunpy understands them: it mends those of some instruments), so that steps
    find them, and predictions can be saved with them. Floats keep their dtype, integers become float32; what the
    mask of a map hides is NaN. Lazy data (dask) are computed window by window.

    Args:
        maps: a ``sunpy.map.Map``, a MapSequence, or several maps: one sample each.
        key: the key.

    Raises:
        StepError: where sunpy's maps are not installed, for something that is no map, and without any.
    """
    optional("sunpy.map", "sun", "from_maps")
    several = not _is_map(maps) and (
        isinstance(maps, Iterable) or hasattr(maps, "__getitem__")
    )  # a MapSequence
    found = list(maps) if several else [maps]
    if not found:
        raise StepError("from_maps: give a map, or several")
    return buffer_of_scenes([MapScene(one, number) for number, one in enumerate(found)], key, "maps")


def _is_map(value: Any) -> bool:
    return hasattr(value, "data") and hasattr(value, "meta") and hasattr(value, "fits_header")


class MapScene(Scene):
    """A map as a scene."""

    reads_files = False

    def __init__(self, smap: Any, number: int = 0) -> None:
        if not _is_map(smap):
            raise StepError(f"from_maps: {type(smap).__name__} is no map of sunpy")
        self._map = smap
        self.dims, self.shape = _DIMS, tuple(int(size) for size in smap.data.shape)
        if len(self.shape) != 2 or np.dtype(smap.data.dtype).kind not in "iufb":
            raise StepError(
                f"from_maps: map {number} has shape {self.shape} and dtype {smap.data.dtype}; give images of numbers"
            )
        kind = np.dtype(smap.data.dtype)
        self.dtype = kind.newbyteorder("=") if kind.kind == "f" else np.dtype(np.float32)
        told = re.sub(r"[^A-Za-z0-9.]+", "_", str(smap.name)).strip("_")
        self.name = f"{told or f'map_{number}'}.fits"

    @cached_property
    def _header(self) -> tuple[str, dict[str, Any]]:
        """The header as text and as a dict, with the WCS of the map where the cards say something else."""
        from astropy.io.fits import Header
        from astropy.wcs import WCS

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old headers: astropy tells each card that it mends
            header, wcs = self._map.fits_header, self._map.wcs
            if not same_place(wcs, WCS(header), self.shape):
                kept = Header()
                for card in header.cards:
                    if not is_wcs(card.keyword):
                        kept.append(card, end=True)
                for card in wcs.to_header().cards:
                    if is_wcs(card.keyword):
                        kept.append(card, end=True)
                header = kept
        return clean_header(header)

    @cached_property
    def grid(self) -> Grid:
        """Dims, shape and WCS."""
        return Grid.of(self.dims, self.shape, locate(self._header[0], self.dims, self.name))

    @cached_property
    def template(self) -> Template:
        """The header of the map, as that of a FITS file."""
        text, attrs = self._header
        locator = self.grid.locator
        carry = {
            "header": text, "headers": (text,), "primary": "", "hdus": (0,), "dtype": self.dtype.str,
            "wcs": getattr(locator, "header", None),
        }  # fmt: skip
        units = str(attrs.get("BUNIT") or "").strip()
        return Template("fits", self.dims, units=units, attrs=attrs, carry=carry)

    def _read(self, window: Window) -> Array:
        at = window.slices(self.dims)
        values = np.array(self._map.data[at], self.dtype)
        if self._map.mask is not None:
            values[np.broadcast_to(np.asarray(self._map.mask), self.shape)[at]] = np.nan
        return values
