"""Scenes: one array with its grid and its attributes, lazy until read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import GridError
from streamgeo.grid import Grid
from streamgeo.meter import READ, span
from streamgeo.sinks import save
from streamgeo.template import Template
from streamgeo.together import Copy
from streamgeo.window import Window

Array = NDArray[Any]


class Scene(ABC):
    """One array with its grid and its attributes, as a file or several files hold it; lazy until read.

    Attributes:
        name: the file (or files), for people and for messages.
        dims, shape, dtype: known from the header alone.
    """

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    reads_files: ClassVar[bool] = True  # whether the time in _read counts as reading

    @property
    @abstractmethod
    def grid(self) -> Grid:
        """Where the array lies; worked out on first use."""

    @property
    def frame(self) -> Grid:
        """Dims, sizes and horizontal dims, as ``grid`` has them; perhaps not where it lies. Enough to cut windows."""
        return self.grid

    @property
    @abstractmethod
    def template(self) -> Template:
        """What a file of the same kind takes over."""

    @abstractmethod
    def _read(self, window: Window) -> Array:
        """Pixels of a window that names every dim, in order, and lies inside the scene."""

    def _read_into(self, window: Window, out: Array) -> None:
        """Pixels of a window into an array of its shape and the scene's dtype; of any strides."""
        out[...] = self._read(window)

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """What is decoded at once, in pixels along each dim; None where any window costs its share alone."""
        return None

    def foresee(self, window: Window) -> bool:
        """Said some time before a window is read: what it comes from may be fetched meanwhile.

        True when there is something to be fetched, and False when none of it is known.
        """
        return False

    def copies(self, window: Window, out: Array) -> Sequence[Copy] | None:
        """All that has to be copied to ``out`` for a window; None where reading it takes more, or it is not known yet.

        Raises:
            OpenError: when the file has changed since it was opened.
        """
        return None

    @property
    def reader(self) -> str:
        """How its pixels are read, for people: by chunk and codec, or by which library and why."""
        return ""

    @property
    def attrs(self) -> Mapping[str, Any]:
        """The file's header, tags or attributes."""
        return self.template.attrs

    @property
    def files(self) -> tuple[str, ...]:
        """The files that it comes from, if any."""
        return ()

    @property
    def window(self) -> Window:
        """The window that covers it all."""
        return Window.whole(self.dims, self.shape)

    def read(self, window: Window | None = None) -> Array:
        """Pixels of a window; dims that it does not name are taken whole, None takes all.

        Raises:
            GridError: when the window names another dim or reaches outside the scene.
        """
        full = self._inside(window)
        if not self.reads_files:
            return self._read(full)
        with span(READ):
            return self._read(full)

    def read_into(self, out: Array, window: Window | None = None) -> None:
        """The same, written to an array of the window's shape and the scene's dtype, which may be a view.

        Raises:
            GridError: also when shape or dtype of ``out`` do not fit.
        """
        full = self._inside(window)
        if out.shape != full.shape or out.dtype != self.dtype:
            raise GridError(
                f"read: {full} of {self.name} is {full.shape} {self.dtype}, and out is {out.shape} {out.dtype}"
            )
        if not self.reads_files:
            self._read_into(full, out)
            return
        with span(READ):
            self._read_into(full, out)

    def _inside(self, window: Window | None) -> Window:
        full = self.window if window is None else window.complete(self.dims, self.shape)
        if not full.within(self.dims, self.shape):
            raise GridError(
                f"read: {full} reaches outside {self.name}, which has {dict(zip(self.dims, self.shape))}"
            )
        return full

    @property
    def by_window(self) -> bool:
        """Whether reading a window costs no more than its share of the whole."""
        return True

    @property
    def array(self) -> Array:
        """All pixels."""
        return self.read()

    def save(self, where: str | Path, *, format: str | None = None, **options: Any) -> Path:
        """Write it with CRS, WCS or coordinates, nodata, units and header carried over.

        It is read in blocks of whole rows, each pixel once and from the first row to the last, so that a scene larger
        than memory can be written.

        Args:
            where: a file, or a folder (an existing one, or a path that ends in a slash), where the file gets
                the name of the scene.
            format: ``"fits"``, ``"geotiff"``, ``"netcdf"``, ``"hdf5"``, ``"zarr"`` or ``"numpy"``; by default what the
                suffix says, else the format of the input.
            options: of the format; the sinks' ``write`` functions say what they mean.

        Returns:
            The file that was written. It appears whole or not at all.

        Raises:
            WriteError: when the format cannot hold the scene or has no such option, or the file is one that the scene
                is read from.
        """
        return save(self, where, format=format, **options)

    def to_xarray(self) -> Any:
        """All pixels as an ``xarray.DataArray`` with dims, coordinates, attributes and CRS (``.rio.crs`` has it).

        Times are decoded in any CF calendar; units are the attribute ``units``. Needs xarray
        (``pip install 'streamgeo[xarray]'``).

        Raises:
            StepError: where xarray is not installed.
        """
        from streamgeo.dataarrays import to_dataarray

        units = {"units": self.template.units} if self.template.units else {}
        return to_dataarray(self.read(), self.grid, {**self.attrs, **units}, name=self.template.name)

    def to_map(self) -> Any:
        """The image as a ``sunpy.map.Map``: the file's header, with the WCS of the grid.

        Needs sunpy's maps (``pip install 'streamgeo[sun]'``).

        Raises:
            GridError: for a scene that is not one image with a FITS WCS.
            StepError: where sunpy's maps are not installed, or sunpy does not take the header.
        """
        from streamgeo.convert import to_map

        return to_map(self.read(), self.grid, self.template.units)

    def to_rasterio(self) -> dict[str, Any]:
        """The profile for ``rasterio.open(path, "w", **profile)``: size, bands, dtype, CRS, transform, nodata.

        Raises:
            GridError: for a grid that no affine transform describes, or whose last two dims are not the
                horizontal ones.
        """
        from streamgeo.dataarrays import profile_of

        return profile_of(self.grid, self.dtype, self.template.nodata)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{dim}={size}" for dim, size in zip(self.dims, self.shape))
        return f"Scene({self.name}: {sizes}; {np.dtype(self.dtype).name})"


class MadeScene(Scene):
    """A scene that no file is read for: its grid and what a file takes over are given with its pixels."""

    reads_files = False

    def __init__(
        self, dtype: np.dtype[Any], grid: Grid, template: Template, name: str, files: tuple[str, ...]
    ) -> None:
        self.name, self.dims, self.shape, self.dtype = name, grid.dims, grid.shape, dtype
        self._grid, self._template, self._files = grid, template, files

    @property
    def grid(self) -> Grid:
        """Where the array lies."""
        return self._grid

    @property
    def template(self) -> Template:
        """What a file takes over."""
        return self._template

    @property
    def files(self) -> tuple[str, ...]:
        """The files that it comes from, if any."""
        return self._files


class ArrayScene(MadeScene):
    """A scene whose pixels are in memory: a prediction, or an array that came without a file."""

    def __init__(
        self, array: Array, grid: Grid, template: Template, *, name: str, files: tuple[str, ...] = ()
    ) -> None:
        if tuple(array.shape) != grid.shape:
            raise GridError(f"scene: the array has shape {array.shape}, its grid {grid.shape}")
        super().__init__(array.dtype, grid, template, name, files)
        self._array = array

    def _read(self, window: Window) -> Array:
        return self._array[window.slices(self.dims)]
