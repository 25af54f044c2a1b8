"""The files that are measured: made once into a folder, alike from run to run.

Pixels are value noise over several octaves (as relief, clouds or granulation) plus noise of the detector, so that
they compress as real images do: by a half, not by a hundred.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Slices = tuple[slice, ...]

NODATA, BLANK = 0, -32768
PIXEL = 10.0  # metres


@dataclass(frozen=True)
class Sizes:
    """How large everything is."""

    name: str
    scenes: int  # GeoTIFF and npy scenes
    side: int  # of a scene
    tile: int
    patch: int
    frames: int
    grid: tuple[int, int]  # latitudes, longitudes
    blocks: tuple[int, int, int]
    box: tuple[int, int, int]  # patch of the NetCDF cases
    images: int  # FITS
    batch: int


FULL = Sizes("full", 4, 4096, 512, 256, 120, (721, 1440), (8, 103, 103), (8, 120, 120), 6, 32)
QUICK = Sizes("quick", 2, 1024, 256, 128, 24, (181, 360), (8, 26, 26), (8, 30, 30), 2, 32)
TINY = Sizes("tiny", 2, 256, 64, 32, 8, (61, 120), (4, 13, 13), (4, 20, 20), 2, 8)
SIZES = {sizes.name: sizes for sizes in (FULL, QUICK, TINY)}


@dataclass(frozen=True)
class Values:
    """How stored integers become physical values: ``scale * stored + offset``, NaN where they equal ``missing``."""

    scale: float | None
    offset: float | None
    missing: int | None


@dataclass(frozen=True)
class Case:
    """Files of one kind, and how they are cut into patches.

    Attributes:
        name: ``tiff-deflate``, ...
        kind: ``tiff``, ``netcdf``, ``fits`` or ``npy``.
        paths: the scenes.
        shape, dtype: of the stored array of one scene.
        patch: sizes of a patch along the axes of the array; what is left at an edge is in no patch.
        values: how stored values are converted.
        batch: patches in a batch.
        stride: from one patch to the next; as large as a patch when None.
    """

    name: str
    kind: str
    paths: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    patch: tuple[int, ...]
    values: Values
    batch: int
    stride: tuple[int, ...] | None = None

    @property
    def steps(self) -> tuple[int, ...]:
        """Pixels from the start of a patch to that of the next one, along each axis."""
        return self.stride or self.patch

    @property
    def counts(self) -> tuple[int, ...]:
        """Patches along each axis of a scene."""
        sizes = zip(self.shape, self.patch, self.steps)
        return tuple((whole - size) // step + 1 for whole, size, step in sizes)

    @property
    def per_scene(self) -> int:
        return int(np.prod(self.counts))

    def __len__(self) -> int:
        return self.per_scene * len(self.paths)

    def locate(self, index: int) -> tuple[int, Slices]:
        """The scene, and the pixels in it, of a patch by its number in scene order."""
        scene, number = divmod(index, self.per_scene)
        starts = [int(at) * step for at, step in zip(np.unravel_index(number, self.counts), self.steps)]
        return scene, tuple(slice(start, start + size) for start, size in zip(starts, self.patch))

    def number(self, scene: int, starts: Any) -> int:
        """The number of the patch that begins at these pixels."""
        at = [int(start) // step for start, step in zip(starts, self.steps)]
        return scene * self.per_scene + int(np.ravel_multi_index(at, self.counts))

    @property
    def nbytes(self) -> int:
        """Decoded, as stored."""
        return len(self.paths) * int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


# -- pixels ---------------------------------------------------------------------------------------------


def _between(count: int, cell: int) -> Array:
    """Matrix that interpolates linearly from points ``cell`` pixels apart to ``count`` pixels."""
    places = np.arange(count) / cell
    left = places.astype(int)
    out = np.zeros((count, left[-1] + 2), np.float32)
    out[np.arange(count), left] = 1 - (places - left)
    out[np.arange(count), left + 1] = places - left
    return out


def field(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, ...]) -> Array:
    """Value noise: for each cell size random values that far apart, larger cells with larger values."""
    out = np.zeros(shape, np.float32)
    for cell in cells:
        rows, columns = _between(shape[0], cell), _between(shape[1], cell)
        points = rng.standard_normal((rows.shape[1], columns.shape[1]), np.float32)
        out += np.float32(np.sqrt(cell / max(cells))) * (rows @ points @ columns.T)
    return out


def _noise(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.standard_normal(shape, np.float32)


def land(number: int, side: int) -> Array:
    """Reflectance in four bands ``(band, y, x)``, uint16, with nodata in a tilted corner."""
    rng = np.random.default_rng(number)
    cells = tuple(c for c in (4, 16, 64, 256) if c < side)
    relief, plants = field(rng, (side, side), cells), field(rng, (side, side), cells)
    rows, columns = np.mgrid[:side, :side]
    outside = rows + 0.3 * columns < 0.1 * side
    out = np.empty((4, side, side), np.uint16)
    for band, (level, slope) in enumerate(((500, -60), (760, -40), (700, -90), (2700, 900))):
        values = level + 120 * relief + slope * plants + 20 * _noise(rng, (side, side))
        out[band] = np.clip(np.round(values), 1, 65535)
        out[band][outside] = NODATA
    return out


def air(number: int, frames: int, grid: tuple[int, int]) -> Iterator[Array]:
    """Temperature, packed to int16 over its whole range, frame by frame; missing in a corner."""
    rng = np.random.default_rng(1000 + number)
    cells = tuple(c for c in (4, 16, 64) if c < min(grid))
    before, after = field(rng, grid, cells), field(rng, grid, cells)
    south = np.linspace(1, -1, grid[0], dtype=np.float32)[:, None]
    for frame in range(frames):
        turn = np.float32(np.pi / 2 * frame / frames)
        weather = np.cos(turn) * before + np.sin(turn) * after
        celsius = 25 - 45 * south**2 + 5 * weather + 0.1 * _noise(rng, grid)
        packed = np.clip(np.round(celsius * 200), -32000, 32000).astype(np.int16)
        packed[: grid[0] // 16, : grid[1] // 16] = BLANK
        yield packed


def sun(number: int, side: int) -> Array:
    """Counts of an extreme-ultraviolet image, int16: a disc, loops, photon noise; BLANK in a dead corner."""
    rng = np.random.default_rng(2000 + number)
    y, x = np.mgrid[:side, :side].astype(np.float32) - np.float32((side - 1) / 2)
    disc = 200 / (1 + np.exp((np.hypot(x, y) - 0.39 * side) / (0.03 * side)))
    bright = disc * np.exp(0.8 * field(rng, (side, side), tuple(c for c in (4, 16, 64, 256) if c < side))) + 2
    counts = np.round(bright + np.sqrt(bright) * _noise(rng, (side, side)))
    out = np.clip(counts, 0, 16383).astype(np.int16)
    out[: side // 64, : side // 64] = BLANK
    return out


# -- files ----------------------------------------------------------------------------------------------


def _write_tiff(path: Path, pixels: Array, number: int, codec: str, sizes: Sizes) -> None:
    import rasterio
    from rasterio.transform import from_origin

    profile = {
        "driver": "GTiff", "count": 4, "height": sizes.side, "width": sizes.side, "dtype": "uint16",
        "nodata": NODATA, "crs": "EPSG:32633", "tiled": True, "interleave": "pixel",
        "transform": from_origin(300000.0, 5000000.0 - number * (sizes.side + 64) * PIXEL, PIXEL, PIXEL),
        "blockxsize": sizes.tile, "blockysize": sizes.tile, "compress": codec, "predictor": 2,
        "num_threads": "all_cpus",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.write(pixels)


def _write_netcdf(path: Path, chunks: tuple[int, int, int], sizes: Sizes) -> None:
    import netCDF4

    with netCDF4.Dataset(path, "w") as file:
        file.Conventions = "CF-1.8"
        lat = np.linspace(90, -90, sizes.grid[0])
        lon = np.arange(sizes.grid[1]) * 360 / sizes.grid[1]
        for name, values, units in (
            ("time", np.arange(sizes.frames) * 6.0, "hours since 2020-01-01"),
            ("lat", lat, "degrees_north"),
            ("lon", lon, "degrees_east"),
        ):
            file.createDimension(name, len(values))
            axis = file.createVariable(name, "f8", (name,))
            axis.units = units
            axis[:] = values
        var = file.createVariable(
            "t2m", "i2", ("time", "lat", "lon"), zlib=True, complevel=4, chunksizes=chunks, fill_value=BLANK
        )
        var.setncatts({"units": "degC", "scale_factor": 0.005, "add_offset": 10.0})
        var.set_auto_maskandscale(False)
        block = []
        for frame, values in enumerate(air(0, sizes.frames, sizes.grid), 1):
            block.append(values)
            if len(block) == 8 or frame == sizes.frames:
                var[frame - len(block) : frame] = np.stack(block)
                block = []


def _write_fits(path: Path, pixels: Array) -> None:
    from astropy.io import fits

    hdu = fits.CompImageHDU(pixels, compression_type="RICE_1", tile_shape=(1, pixels.shape[1]))
    side = pixels.shape[1]
    hdu.header.update({
        "BLANK": BLANK, "BUNIT": "DN", "EXPTIME": 2.0, "WAVELNTH": 171, "DATE-OBS": "2024-05-10T12:00:00",
        "CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN", "CUNIT1": "arcsec", "CUNIT2": "arcsec",
        "CRPIX1": (side + 1) / 2, "CRPIX2": (side + 1) / 2, "CRVAL1": 0.0, "CRVAL2": 0.0,
        "CDELT1": 0.6, "CDELT2": 0.6,
    })  # fmt: skip
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, overwrite=True)


def _make_land(folder: Path, sizes: Sizes, number: int) -> None:
    pixels = land(number, sizes.side)
    for codec in ("deflate", "zstd", "lzw"):
        _write_tiff(folder / f"{codec}_{number}.tif", pixels, number, codec, sizes)
    np.save(folder / f"land_{number}.npy", pixels)


def _make_air(folder: Path, sizes: Sizes, number: int) -> None:
    name, chunks = (("frames", (1, *sizes.grid)), ("blocks", sizes.blocks))[number]
    _write_netcdf(folder / f"{name}.nc", chunks, sizes)


def _make_sun(folder: Path, sizes: Sizes, number: int) -> None:
    _write_fits(folder / f"sun_{number}.fits", sun(number, sizes.side))


_VERSION = "3"  # of the content: another one makes the files anew


def make(folder: Path, sizes: Sizes) -> Path:
    """The files of one size in ``folder``; what is there already, finished and of this version, is kept."""
    folder = folder / sizes.name
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "version"
    if not note.exists() or note.read_text() != _VERSION:
        jobs = [(_make_land, sizes.scenes), (_make_air, 2), (_make_sun, sizes.images)]
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            tasks = [pool.submit(job, folder, sizes, n) for job, count in jobs for n in range(count)]
            for task in tasks:
                task.result()
        note.write_text(_VERSION)
    for path in folder.iterdir():  # into the page cache
        path.read_bytes()
    return folder


def cases(folder: Path, sizes: Sizes) -> dict[str, Case]:
    """What is measured, by name."""
    side, patch = sizes.side, sizes.patch
    scenes, images = range(sizes.scenes), range(sizes.images)
    land_shape, square = (4, side, side), (4, patch, patch)
    found = [
        Case(f"tiff-{codec}", "tiff", tuple(str(folder / f"{codec}_{n}.tif") for n in scenes), land_shape,
             "uint16", square, Values(None, None, NODATA), sizes.batch)
        for codec in ("deflate", "zstd", "lzw")
    ]  # fmt: skip
    half = (4, patch // 2, patch // 2)
    found.append(replace(part(found[0], 1), name="tiff-deflate-overlap", stride=half))
    packed = Values(0.005, 10.0, BLANK)
    for layout in ("frames", "blocks"):
        shape = (sizes.frames, *sizes.grid)
        path = (str(folder / f"{layout}.nc"),)
        found.append(Case(f"netcdf-{layout}", "netcdf", path, shape, "int16", sizes.box, packed, sizes.batch))
    suns = tuple(str(folder / f"sun_{n}.fits") for n in images)
    found.append(
        Case("fits-rice", "fits", suns, (side, side), "int16", (patch, patch), Values(None, None, BLANK),
             sizes.batch)
    )  # fmt: skip
    arrays = tuple(str(folder / f"land_{n}.npy") for n in scenes)
    found.append(
        Case("npy", "npy", arrays, land_shape, "uint16", square, Values(None, None, None), sizes.batch)
    )
    return {case.name: case for case in found}


def part(case: Case, scenes: int) -> Case:
    """The first scenes of a case."""
    return replace(case, paths=case.paths[:scenes])
