"""Every image of every real file, whole and in 200 windows, as stored and physical, as the reference library has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
import pytest
import rasterio
from astropy.io import fits

import streamgeo as sg
from streamgeo.chunks import CACHE
from streamgeo.scene import Scene
from tests.conftest import SAMPLES
from tests.netcdf_made import FILES, copy_of, pixels, variables
from tests.real import CASES
from tests.test_geotiff_chunks import expected

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]
COUNT = 200
TIFF = [case.path for case in CASES if case.opener == "open_geotiff"]
FITS = [case.path for case in CASES if case.opener == "open_fits"]
NUMPY = [case.path for case in CASES if case.opener == "open_numpy"]
PLAIN = [case.path for case in CASES if case.opener == "open_hdf5"]


def hold(scene: Scene, want: np.ndarray, seed: int = 0, count: int = COUNT) -> None:
    """The whole, and so many windows, half of them into a slot of a batch."""
    want = want.astype(want.dtype.newbyteorder("="))
    assert (scene.shape, scene.dtype) == (want.shape, want.dtype)
    rng = np.random.default_rng(seed)
    CACHE.clear()
    for number in range(count):
        ends = [np.sort(rng.integers(0, size + 1, 2)) for size in scene.shape]
        window = sg.Window({dim: (int(low), int(high)) for dim, (low, high) in zip(scene.dims, ends)})
        if number % 2:
            found = np.empty((2, *window.shape), scene.dtype)[1]
            scene.read_into(found, window)
        else:
            found = scene.read(window)
        assert same(found, want[window.slices(scene.dims)]), (scene.name, window)
    assert same(scene.read(), want), scene.name


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")


@pytest.mark.parametrize("path", FITS, ids=lambda path: path.name)
def test_fits(path: Path) -> None:
    with fits.open(path, memmap=False) as hdus:
        images = [i for i, hdu in enumerate(hdus) if hdu.is_image and hdu.shape and all(hdu.shape)]
    for hdu in images:
        with fits.open(path, memmap=False, do_not_scale_image_data=True) as hdus:
            stored, blank = np.array(hdus[hdu].data), hdus[hdu].header.get("BLANK")
        with fits.open(path, memmap=False) as hdus:
            physical = np.array(hdus[hdu].data).astype(np.float32)
        if stored.dtype.kind in "iu" and blank is not None:  # astropy leaves it in unsigned integers
            physical[stored == blank] = np.nan
        hold(sg.open_fits(hdu, raw=True)(path), stored)
        hold(sg.open_fits(hdu)(path), physical, 1)


@pytest.mark.parametrize("path", TIFF, ids=lambda path: path.name)
def test_geotiff(path: Path) -> None:
    with rasterio.open(path) as file:
        levels: list[Any] = [None, *range(len(file.overviews(1)))]
    for level in levels:
        with rasterio.open(path, **({} if level is None else {"overview_level": level})) as file:
            bands = list(range(1, file.count + 1))
            box = rasterio.windows.Window(0, 0, file.width, file.height)
            stored, physical = (expected(file, bands, box, raw) for raw in (True, False))
        hold(sg.open_geotiff(overview=level, raw=True)(path), stored)
        hold(sg.open_geotiff(overview=level)(path), physical, 1)


@pytest.mark.parametrize("name", FILES)
def test_netcdf(name: str, samples: Path, tmp_path: Path) -> None:
    with netCDF4.Dataset(copy_of(samples / name, tmp_path)) as dataset:
        found = list(variables(dataset))
        wants = {v: [pixels(dataset[v], raw) for raw in (True, False)] for v in found}
    for variable, (stored, physical) in wants.items():
        count = COUNT if stored.size < 1 << 20 or len(wants) < 20 else COUNT // 4
        hold(sg.open_netcdf(variable, raw=True)(samples / name), stored, 0, count)
        hold(sg.open_netcdf(variable)(samples / name), physical, 1, count)


@pytest.mark.parametrize("path", list(dict.fromkeys(PLAIN)), ids=lambda path: path.name)
def test_hdf5(path: Path) -> None:
    found: list[str] = []
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                found.append(name)
                if isinstance(item, h5py.Dataset)
                and item.shape
                and all(item.shape)
                and item.dtype.kind in "iuf"
                else None
            )
        )
        wants = {name: file[name][()] for name in found if "scale_factor" not in file[name].attrs}
    for name, stored in wants.items():
        hold(sg.open_hdf5(name, raw=True)(path), stored)


@pytest.mark.parametrize("path", NUMPY, ids=lambda path: path.name)
def test_numpy(path: Path) -> None:
    stored = np.load(path)
    hold(sg.open_numpy(raw=True)(path), stored)
    hold(sg.open_numpy()(path), stored.astype(np.float32), 1)


@pytest.mark.parametrize("path", sorted(SAMPLES.rglob("*.zarr")), ids=lambda path: path.name)
def test_zarr(path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    root = zarr.open(path, mode="r")
    for name, array in root.arrays():
        if array.dtype.kind in "iuf" and array.shape:
            hold(sg.open_zarr(name, raw=True)(path), array[...])
