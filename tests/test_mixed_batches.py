"""Batches whose patches come from files of every kind at once, in any order, first read and from the cache."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
import pytest
import rasterio
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

import streamgeo as sg
from streamgeo.chunks import CACHE

Array = Any
SIDE = 48
MISSING = 7


def _geotiff(path: Path, values: Array, **options: Any) -> None:
    with rasterio.open(
        path, "w", driver="GTiff", width=SIDE, height=SIDE, count=1, dtype=values.dtype.name, **options
    ) as file:
        file.write(values, 1)


def _fits(path: Path, values: Array, codec: str | None, blank: int | None = None) -> None:
    if codec is None:
        hdus = [fits.PrimaryHDU(values)]
    else:
        hdus = [fits.PrimaryHDU(), fits.CompImageHDU(values, compression_type=codec)]
    if blank is not None:
        hdus[-1].header["BLANK"] = blank
    fits.HDUList(hdus).writeto(path)


def _netcdf(path: Path, values: Array, **options: Any) -> None:
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("y", SIDE), file.createDimension("x", SIDE)
        variable = file.createVariable("v", values.dtype, ("y", "x"), **options)
        variable.set_auto_maskandscale(False)
        variable.setncatts({"scale_factor": 0.5, "add_offset": 3.0})
        variable[...] = values


def _hdf5(path: Path, values: Array, **options: Any) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("v", data=values, **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Array]]:
    """Files, and the numbers that each of them stands for."""
    folder, rng = tmp_path_factory.mktemp("mixed"), np.random.default_rng(0)
    found: list[tuple[str, Array]] = []

    def add(
        name: str, dtype: str, write: Any, *, scale: float = 1, offset: float = 0, **options: Any
    ) -> None:
        values = rng.integers(0, 100, (SIDE, SIDE)).astype(dtype)
        write(folder / name, values, **options)
        physical = (values.astype(np.float64) * scale + offset).astype(np.float32)
        if options.get("nodata", options.get("blank", options.get("fill_value"))) == MISSING:
            physical[values == MISSING] = np.nan
        found.append((str(folder / name), physical))

    tiles = dict(tiled=True, blockxsize=16, blockysize=16)
    add("a.tif", "uint16", _geotiff, compress="deflate", predictor=2, nodata=MISSING, **tiles)
    add("b.tif", "uint16", _geotiff, compress="lzw", ENDIANNESS="BIG")
    add("c.tif", "float32", _geotiff, compress="deflate", predictor=3, **tiles)
    add("d.tif", "int16", _geotiff)
    add("e.tif", "uint8", _geotiff, compress="packbits", nodata=MISSING)
    add("a.fits", "int16", _fits, codec="RICE_1")
    add("b.fits", "int16", _fits, codec=None)
    add("c.fits", "int32", _fits, codec="GZIP_2")
    add("d.fits", "int16", _fits, codec="RICE_1", blank=MISSING)
    add("e.fits", "uint8", _fits, codec="HCOMPRESS_1")
    for name in ("b.fits", "c.fits"):
        packed = folder / f"{name}.gz"
        packed.write_bytes(gzip.compress((folder / name).read_bytes()))
        found.append((str(packed), found[[Path(path).name for path, _ in found].index(name)][1]))
    line = dict(scale=0.5, offset=3)
    add("a.nc", "int16", _netcdf, zlib=True, chunksizes=(20, 20), fill_value=MISSING, **line)
    add("b.nc", "int16", _netcdf, zlib=True, chunksizes=(16, 48), endian="big", **line)
    add("c.nc", "uint8", _netcdf, **line)
    add("a.h5", ">i2", _hdf5, chunks=(16, 16), compression="gzip", shuffle=True)
    add("b.h5", "<i2", _hdf5, chunks=(17, 13), compression="lzf", fletcher32=True)
    add("c.h5", "f8", _hdf5, chunks=(48, 5))
    np.save(folder / "a.npy", values := rng.integers(0, 100, (SIDE, SIDE)).astype(">i4"))
    found.append((str(folder / "a.npy"), values.astype(np.float32)))
    return found


@contextmanager
def budget(nbytes: int) -> Iterator[None]:
    limit, CACHE.limit = CACHE.limit, nbytes
    CACHE.clear()
    try:
        yield
    finally:
        CACHE.limit = limit


@given(
    nbytes=st.sampled_from([0, 5000, 1 << 28, 1 << 28]),
    order=st.permutations(range(21)),
    size=st.integers(5, 48),
    batch=st.integers(1, 40),
    seed=st.integers(0, 99),
    threads=st.integers(0, 2),
)
@settings(max_examples=12, deadline=None)
def test_all_kinds_of_files_in_one_batch(
    made: list[tuple[str, Array]],
    nbytes: int,
    order: list[int],
    size: int,
    batch: int,
    seed: int,
    threads: int,
) -> None:
    files = [made[number] for number in order if number < len(made)]
    chain = sg.files([path for path, _ in files], key="image").key_transform("image", sg.open(bands=1))
    patches = chain.key_transform("image", sg.patch(size)).shuffle(seed).batch(batch)
    with budget(nbytes):
        stream = patches.prefetch(2, threads) if threads else patches.to_stream()
        for _ in range(2):
            seen = 0
            for sample in stream:
                for image, scene, window in zip(
                    sample["image"], sample["image.scene"], sample["image.window"]
                ):
                    part = files[scene][1][tuple(slice(low, high) for low, high in window)]
                    assert np.array_equal(image, part, equal_nan=True), files[scene][0]
                    seen += 1
            assert seen == len(files) * (-(-SIDE // size)) ** 2
