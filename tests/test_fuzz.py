"""Damaged files of every format: a clear error or what the reference library reads, in bounded time and memory."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
import pytest
import rasterio
import zarr
from astropy.io import fits

from tests.fuzz import fuzz

Make = Callable[[Path], object]


def numbers(dtype: str, *shape: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    smooth = np.cumsum(rng.integers(-3, 4, shape), axis=-1) + 60
    return (np.abs(smooth) % 120).astype(dtype) if dtype[-2] != "f" else (smooth * 1.37).astype(dtype)


def _fits(
    path: Path, values: np.ndarray, packed: bool = False, blank: int | None = None, **options: Any
) -> None:
    hdu = fits.CompImageHDU(values, **options) if options else fits.ImageHDU(values)
    if blank is not None:
        hdu.header["BLANK"] = blank
    plain = path.with_name("plain")
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(plain, overwrite=True)
    content = plain.read_bytes()
    path.write_bytes(gzip.compress(content) if packed else content)
    plain.unlink()


def _tif(path: Path, values: np.ndarray, *, mask: bool = False, part: bool = False, **options: Any) -> None:
    sizes = {} if "blockysize" in options else {"tiled": True, "blockxsize": 32, "blockysize": 16}
    count, height, width = values.shape
    profile = {
        "driver": "GTiff",
        "dtype": values.dtype.name,
        "count": count,
        "height": height,
        "width": width,
    }
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", **profile, **sizes, **options) as file,
    ):
        file.write(values[:, :16], window=((0, 16), (0, width))) if part else file.write(values)
        if mask:
            file.write_mask((values[0] % 5 > 1).astype(np.uint8) * 255)


def _nc(
    path: Path, values: np.ndarray, fmt: str = "NETCDF4", growing: int = 0, attrs: Any = None, **options: Any
) -> None:
    with netCDF4.Dataset(path, "w", format=fmt) as file:
        for dim, size in zip("tyx", values.shape):
            file.createDimension(dim, None if growing and dim == "t" else size)
        for name in ["v", "w", "u"][: max(growing, 1)]:
            variable = file.createVariable(name, values.dtype, tuple("tyx"), **options)
            variable.setncatts(attrs or {})
            variable.set_auto_maskandscale(False)
            variable[:] = values
        file.title = "a title"


def _h5(path: Path, values: np.ndarray, libver: Any = "earliest", attrs: Any = None, **options: Any) -> None:
    with h5py.File(path, "w", libver=libver) as file:
        variable = file.create_dataset("v", data=values, **options)
        if attrs:
            variable.attrs.update(attrs)
            for dim in range(values.ndim):
                scale = file.create_dataset(f"scales/s{dim}", data=np.arange(values.shape[dim]))
                scale.make_scale()
                variable.dims[dim].attach_scale(scale)


def _zarr(path: Path, values: np.ndarray, version: int, **options: Any) -> None:
    root = zarr.create_group(path, zarr_format=version)
    root.create_array("v", shape=values.shape, dtype=values.dtype, **options)[...] = values


I2, F4, BYTES = numbers("i2", 40, 50), numbers("<f4", 40, 50), numbers("u1", 3, 40, 50)
CUBE = numbers("i2", 3, 24, 30)
STRIPS, SLABS = {"blockysize": 7}, {"chunks": (16, 16)}
WORDS: dict[str, Any] = {
    "units": "DN",
    "words": ["a", "b"],
    "fixed": np.bytes_(b"abc"),
    "numbers": np.arange(3),
}
MANY: dict[str, Any] = {f"number {n}": np.float32(n) for n in range(40)}  # so many that they lie in a heap
BASES: dict[str, list[tuple[Make, Any, dict[str, Any]]]] = {
    "fits": [
        (_fits, I2, {"blank": 61}),
        (_fits, F4, {}),
        (_fits, I2, {"compression_type": "RICE_1"}),
        (_fits, I2, {"compression_type": "RICE_1", "tile_shape": (16, 16), "blank": 61}),
        (_fits, I2, {"compression_type": "GZIP_1", "tile_shape": (4, 50)}),
        (_fits, I2, {"compression_type": "GZIP_2", "tile_shape": (8, 8)}),
        (_fits, F4, {"compression_type": "RICE_1", "quantize_method": 1}),
        (_fits, F4, {"compression_type": "GZIP_2", "quantize_method": 2, "tile_shape": (8, 50)}),
        (_fits, I2, {"compression_type": "PLIO_1"}),
        (_fits, I2, {"compression_type": "HCOMPRESS_1", "tile_shape": (20, 25)}),
    ],
    "fits.gz": [(_fits, I2, {"packed": True})],
    "tif": [
        (_tif, BYTES.astype("u2") * 200, {"compress": "deflate", "predictor": 2, "nodata": 12000}),
        (_tif, BYTES, {"compress": "lzw", **STRIPS}),
        (_tif, BYTES.astype("i2"), {**STRIPS}),
        (_tif, BYTES, {"interleave": "band", "ENDIANNESS": "BIG", "BIGTIFF": "YES"}),
        (_tif, F4[None], {"compress": "zstd", "predictor": 3}),
        (_tif, F4[None], {"compress": "lerc", "nodata": 60.28}),
        (_tif, BYTES, {"compress": "packbits", "mask": True}),
        (_tif, BYTES, {"compress": "jpeg", "photometric": "ycbcr"}),
        (_tif, BYTES, {"compress": "webp"}),
        (_tif, BYTES[:1], {"compress": "lzma", "part": True, "SPARSE_OK": True, "nodata": 9}),
        (_tif, BYTES[:1], {"NBITS": 7}),
    ],
    "nc": [
        (_nc, CUBE, {"fmt": "NETCDF3_CLASSIC", "attrs": {"scale_factor": 0.5}}),
        (_nc, CUBE, {"fmt": "NETCDF3_64BIT_OFFSET", "growing": 3}),
        (_nc, CUBE, {"fmt": "NETCDF3_64BIT_DATA", "growing": 1}),
        (_nc, CUBE, {"zlib": True, "chunksizes": (1, 16, 20), "attrs": {"scale_factor": 0.5, "add_offset": 3.0}}),
        (_nc, CUBE, {"zlib": True, "chunksizes": (1, 16, 20), "fletcher32": True, "growing": 1}),
        (_nc, CUBE, {"contiguous": True, "fill_value": 61}),
        (_nc, CUBE, {"compression": "zstd", "chunksizes": (2, 24, 30)}),
        (_nc, CUBE, {"zlib": True, "growing": 2, "attrs": MANY | {"scale_factor": 0.5}}),
    ],
    "h5": [
        (_h5, I2, {**SLABS, "compression": "gzip", "shuffle": True}),
        (_h5, I2, {**SLABS, "compression": "lzf", "libver": "latest"}),
        (_h5, I2, {**SLABS, "fletcher32": True, "maxshape": (None, 50)}),
        (_h5, I2, {}),
        (_h5, I2, {**SLABS, "compression": "szip", "fletcher32": True}),
        (_h5, CUBE, {"chunks": (1, 16, 20), "compression": "gzip", "fletcher32": True, "libver": "latest"}),
        (_h5, I2, {**SLABS, "scaleoffset": 0}),
        (_h5, I2, {**SLABS, "attrs": WORDS}),
        (_h5, I2, {**SLABS, "attrs": MANY | WORDS, "libver": ("v108", "v110")}),
    ],
    "npy": [(np.save, I2, {}), (np.save, np.asfortranarray(F4), {})],
    "npz": [(lambda path, values: np.savez_compressed(path, v=values), F4, {}),
            (lambda path, values: np.savez(path, v=values), I2, {})],
    "zarr": [
        (_zarr, I2, {"version": 2, **SLABS}),
        (_zarr, I2, {"version": 3, **SLABS}),
        (_zarr, F4, {"version": 3, "chunks": (8, 8), "shards": (16, 16)}),
    ],
}  # fmt: skip


def bases(folder: Path, kind: str) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, (make, values, options) in enumerate(BASES[kind]):
            make(folder / f"base_{number:02}.{kind}", values, **options)  # type: ignore[call-arg]
    return folder


def check(folder: Path, kind: str, count: int, first: int = 0) -> None:
    counts, wrong = fuzz(bases(folder, kind), count, first)
    print(kind, dict(counts))
    assert not wrong, wrong
    assert sum(counts.values()) == count
    assert counts["same"] and counts["error"]


@pytest.mark.parametrize("kind", BASES)
def test_damaged_files(kind: str, tmp_path: Path) -> None:
    check(tmp_path, kind, 4 * len(BASES[kind]) + 10)


@pytest.mark.long
@pytest.mark.parametrize("kind", BASES)
def test_many_damaged_files(kind: str, tmp_path: Path) -> None:
    check(tmp_path, kind, 80 * len(BASES[kind]), first=1000)
