"""Patches by the libraries that people use, as someone who knows them would write it.

A reader fills an array with the physical values of one patch. Several threads may use one reader.
"""

from __future__ import annotations

import threading
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import Case, Slices, Values

Array = NDArray[Any]
CHUNK_CACHE = 512 << 20  # bytes, for netCDF: all of the file, so that no chunk is decoded twice


class Reader(Protocol):
    """What fills a patch."""

    def read(self, scene: int, slices: Slices, out: Array) -> None: ...


def convert(raw: Array, values: Values, out: Array) -> None:
    """Stored integers to physical float32."""
    if values.scale is None:
        np.copyto(out, raw, casting="unsafe")
    else:
        np.multiply(raw, np.float32(values.scale), out=out)
        np.add(out, np.float32(values.offset or 0), out=out)
    if values.missing is not None:
        np.copyto(out, np.float32(np.nan), where=raw == values.missing)


class _Handles:
    """Open files of each thread."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.mine = threading.local()

    def get(self, scene: int) -> Any:
        opened = self.mine.__dict__.setdefault("opened", {})
        if scene not in opened:
            opened[scene] = self.open(self.case.paths[scene])
        return opened[scene]

    def open(self, path: str) -> Any:
        raise NotImplementedError


class Rasterio(_Handles):
    """GDAL converts while it copies; its block cache (GDAL_CACHEMAX) is large enough for all scenes."""

    def open(self, path: str) -> Any:
        import rasterio

        return rasterio.open(path)

    def read(self, scene: int, slices: Slices, out: Array) -> None:
        from rasterio.windows import Window

        _, y, x = slices
        window = Window(x.start, y.start, x.stop - x.start, y.stop - y.start)
        self.get(scene).read(window=window, out=out)
        np.copyto(out, np.float32(np.nan), where=out == self.case.values.missing)


class Astropy(_Handles):
    """``section`` decodes only the tiles of the patch, and takes care of BLANK."""

    def open(self, path: str) -> Any:
        from astropy.io import fits

        return fits.open(path)

    def read(self, scene: int, slices: Slices, out: Array) -> None:
        out[...] = self.get(scene)[1].section[slices]


class NetCDF:
    """One thread at a time reads, since netCDF-C is not thread-safe; conversion is done outside of the lock."""

    def __init__(self, case: Case, cache: int | None = CHUNK_CACHE) -> None:
        self.case, self.cache = case, cache
        self.lock = threading.Lock()
        self.variable: Any = None

    def read(self, scene: int, slices: Slices, out: Array) -> None:
        with self.lock:
            if self.variable is None:
                self.variable = _variable(self.case.paths[scene], self.cache)
            raw = self.variable[slices]
        convert(raw, self.case.values, out)


def _variable(path: str, cache: int | None = CHUNK_CACHE) -> Any:
    import netCDF4

    variable = netCDF4.Dataset(path)["t2m"]
    if cache is not None:
        variable.set_var_chunk_cache(cache, 20011, 0.75)
    variable.set_auto_maskandscale(False)
    return variable


class Numpy:
    """Memory maps."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.arrays = [np.load(path, mmap_mode="r") for path in case.paths]

    def read(self, scene: int, slices: Slices, out: Array) -> None:
        convert(self.arrays[scene][slices], self.case.values, out)


def reader(case: Case) -> Reader:
    """The reader of a kind of file."""
    kinds: dict[str, Any] = {"tiff": Rasterio, "fits": Astropy, "netcdf": NetCDF, "npy": Numpy}
    found: Reader = kinds[case.kind](case)
    return found


class WholeScenes:
    """Stored values of whole scenes, read when first wanted and kept."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.locks = [threading.Lock() for _ in case.paths]
        self.kept: list[Array | None] = [None] * len(case.paths)

    def read(self, scene: int, slices: Slices, out: Array) -> None:
        with self.locks[scene]:
            kept = self.kept[scene]
            if kept is None:
                kept = self.kept[scene] = whole(self.case, self.case.paths[scene])
        convert(kept[slices], self.case.values, out)


def whole(case: Case, path: str) -> Array:
    """All stored values of a scene."""
    if case.kind == "tiff":
        import rasterio

        with rasterio.open(path, num_threads="all_cpus") as file:
            return np.asarray(file.read())
    if case.kind == "fits":
        from astropy.io import fits

        with fits.open(path, do_not_scale_image_data=True) as file:
            return np.asarray(file[1].data)
    if case.kind == "netcdf":
        return np.asarray(_variable(path)[:])
    return np.asarray(np.load(path))


def as_xarray(case: Case, path: str) -> Any:
    """A lazily opened DataArray of physical values."""
    import xarray

    if case.kind == "tiff":
        import rioxarray

        return rioxarray.open_rasterio(path, masked=True, cache=False, lock=False)
    if case.kind == "netcdf":
        import netCDF4

        netCDF4.set_chunk_cache(CHUNK_CACHE, 20011, 0.75)
        return xarray.open_dataset(path, engine="netcdf4", cache=False)["t2m"]
    return xarray.DataArray(np.load(path, mmap_mode="r"), dims=("band", "y", "x"))
