"""Several files that make up one scene, such as one file a band: stacked in a leading dim."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import OpenError
from streamgeo.grid import Grid
from streamgeo.scene import Scene
from streamgeo.template import Template
from streamgeo.together import Copy
from streamgeo.window import Window

Array = NDArray[Any]


class StackedScene(Scene):
    """Scenes of one grid, joined in the dim ``band`` where they have it, else in a new leading dim.

    The first file gives header and nodata to what is written.

    Raises:
        OpenError: when their dims, shapes, dtypes or grids differ.
    """

    def __init__(self, parts: Sequence[Scene]) -> None:
        first = parts[0]
        self.parts = tuple(parts)
        self.joins = first.dims[0] == "band"
        lead = sum(p.shape[0] for p in parts) if self.joins else len(parts)
        stacked = "band" if self.joins or first.template.format == "geotiff" else "file"
        self.name = first.name
        self.dims = (stacked, *first.dims[self.joins :])
        self.shape = (lead, *first.shape[self.joins :])
        self.dtype = np.result_type(*(part.dtype for part in parts))
        for part in parts[1:]:
            mine, other = ((s.dims[self.joins :], s.shape[self.joins :]) for s in (first, part))
            if mine != other:
                raise OpenError(
                    f"open: {part.name} has {dict(zip(*other))}, {first.name} has {dict(zip(*mine))}; "
                    "files stacked to one scene must have one shape: resample them first"
                )

    @cached_property
    def _grid(self) -> Grid:
        grids = [part.grid.drop("band") if self.joins else part.grid for part in self.parts]
        for part, grid in zip(self.parts[1:], grids[1:]):
            if not grid.same_place(grids[0], grid.spatial):
                raise OpenError(
                    f"open: {part.name} does not lie where {self.parts[0].name} lies; "
                    "files stacked to one scene must share their grid: reproject them first"
                )
        return grids[0].insert(0, self.dims[0], self.shape[0])

    @property
    def grid(self) -> Grid:
        """The grid of the first file, after a check that all share it."""
        return self._grid

    @property
    def template(self) -> Template:
        """That of the first file, with the stacking dim."""
        template = self.parts[0].template
        return template if self.joins else replace(template, dims=(self.dims[0], *template.dims))

    @property
    def files(self) -> tuple[str, ...]:
        """All files, in their order."""
        return tuple(file for part in self.parts for file in part.files)

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Those of the first file."""
        first = self.parts[0].chunks
        return first if first is None or self.joins else (1, *first)

    def foresee(self, window: Window) -> bool:
        """Said to the files that have a part of the window."""
        missing = [part.foresee(inner) for part, inner, _ in self._parts(window)]
        return any(missing)

    def copies(self, window: Window, out: Array) -> Sequence[Copy] | None:
        """Those of all files that have a part of the window."""
        copies: list[Copy] = []
        for part, inner, place in self._parts(window):
            some = part.copies(inner, out[place]) if part.dtype == self.dtype else None
            if some is None:
                return None
            copies += some
        return copies

    def _read(self, window: Window) -> Array:
        out = np.empty(window.shape, self.dtype)
        self._read_into(window, out)
        return out

    def _read_into(self, window: Window, out: Array) -> None:
        for part, inner, place in self._parts(window):
            if part.dtype == self.dtype:
                part.read_into(out[place], inner)
            else:
                out[place] = part.read(inner)

    def _parts(self, window: Window) -> Iterator[tuple[Scene, Window, int | slice]]:
        """The files that have a part of a window, what they have of it, and where in the window that stands."""
        first, *others = window.box(self.dims)
        inner = dict(zip(self.dims[1:], others))
        at = 0
        for part in self.parts:
            layers = part.shape[0] if self.joins else 1
            low, high = max(first[0], at), min(first[1], at + layers)
            if low < high:
                bands = {"band": (low - at, high - at)} if self.joins else {}
                place = slice(low - first[0], high - first[0]) if self.joins else low - first[0]
                yield part, Window({**bands, **inner}), place
            at += layers
