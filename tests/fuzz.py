"""Damaged copies of files of every format, read with streamgeo and with the reference library.

``python -m tests.fuzz FOLDER FIRST LAST [streamgeo|library]`` says ``try N`` before it reads copy N and then what came
of it: ``same``, ``error``, ``found`` (right where the library fails), or ``WRONG`` and what. Whoever starts it limits
its time; the memory that a read takes is limited here. The folder holds files whose names tell how they are opened:
``base_3.nc``, for a variable ``v``.
"""

from __future__ import annotations

import faulthandler
import logging
import math
import re
import resource
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import streamgeo as sg
from streamgeo.chunks import CACHE
from streamgeo.scene import Scene
from streamgeo.sources.handles import POOL
from streamgeo.window import Window

ROOT = Path(__file__).parents[1]
HANGS = 20  # seconds; what is read here takes a hundredth of one
LARGE = 3e7  # pixels of which only a corner is read
SPACE = 6 << 30  # bytes of addresses for the whole process
ROOM = 256 << 20  # bytes that one read may touch beside what it gives and what is in the file
Index = tuple[slice, ...]


# -- what is done to the bytes ----------------------------------------------------------------------------


def mutate(data: bytes, seed: int) -> bytes:
    """A damaged copy: cut short, bits and bytes changed, ranges zeroed or swapped, sizes that lie."""
    rng = np.random.default_rng(seed)
    out = bytearray(data)
    where = _place(rng, len(out))
    kind = rng.integers(0, 8)
    if kind == 0:
        return bytes(out[: max(where, 1)])
    if kind == 1:
        size = int(rng.integers(1, 200))
        out[where : where + size] = bytes(len(out[where : where + size]))
    elif kind == 2:
        other, size = _place(rng, len(out)), int(rng.integers(1, 64))
        one, two = out[where : where + size], out[other : other + size]
        if len(one) == len(two):
            out[where : where + size], out[other : other + size] = two, one
    elif kind == 3:
        out[where] ^= 1 << int(rng.integers(0, 8))
    elif kind == 4:
        for _ in range(int(rng.integers(1, 9))):
            out[_place(rng, len(out))] = int(rng.choice([0, 1, 127, 128, 255, int(rng.integers(0, 256))]))
    elif kind == 5:
        _lie_in_text(out, rng)
    else:
        _lie(out, rng)
    return bytes(out)


def _place(rng: np.random.Generator, size: int) -> int:
    """Anywhere, and as often near the beginning, where headers are."""
    return int(rng.integers(0, min(size, int(rng.choice([512, 4096, size])))))


def _lie(out: bytearray, rng: np.random.Generator) -> None:
    """Another value for a whole number that looks like a size: small, and not zero."""
    width, order = int(rng.choice([2, 4, 8])), str(rng.choice(["little", "big"]))
    places = range(0, min(len(out), 1 << 14) - 8, 2)
    sizes = [at for at in places if 0 < int.from_bytes(out[at : at + width], order) < 5000]
    if sizes:
        at, top = int(rng.choice(sizes)), 1 << (8 * width)
        old = int.from_bytes(out[at : at + width], order)
        lies = [0, 1, old + 1, old - 1, old * 2, old * 1000, 40000, 1 << 31, top // 2 - 1, top // 2, top - 1]
        out[at : at + width] = (lies[int(rng.integers(0, len(lies)))] % top).to_bytes(width, order)


def _lie_in_text(out: bytearray, rng: np.random.Generator) -> None:
    """Another value for a number in text, as FITS, npy and Zarr have them; as many characters as before."""
    found = list(re.finditer(rb"-?\d+", bytes(out[: 1 << 15])))
    if found:
        one = found[int(rng.integers(0, len(found)))]
        width = len(one[0])
        new = rng.choice(
            [b"9" * width, b"0" * width, b"-" + b"1" * (width - 1), b"1" * width, b"7".rjust(width)]
        )
        start = one.start()
        if (
            rng.random() < 0.5 and out[max(start - 6, 0) : start].strip(b" ") == b""
        ):  # FITS aligns numbers to the right
            start, new = start - 6, rng.choice([b"9999999", b"  65536", b"  40000"]).rjust(6 + width)
        out[start : one.end()] = bytes(new)[: one.end() - start].ljust(one.end() - start)


# -- what the reference libraries read --------------------------------------------------------------------


def open_scene(path: Path, raw: bool) -> Scene:
    kind = path.name.partition(".")[2]
    opener = {
        "fits": sg.open_fits(raw=raw),
        "fits.gz": sg.open_fits(raw=raw),
        "tif": sg.open_geotiff(raw=raw),
        "nc": sg.open_netcdf("v", raw=raw),
        "h5": sg.open_hdf5("v", raw=raw),
        "npy": sg.open_numpy(raw=raw),
        "npz": sg.open_numpy(raw=raw, key="v"),
        "zarr": sg.open_zarr("v", raw=raw),
    }[kind]
    return opener(path)


def reference(path: Path, raw: bool, index: Index, hdu: int = 0) -> np.ndarray:
    kind = path.name.partition(".")[2].removesuffix(".gz")
    values = globals()[f"_{kind}"](str(path), raw, index, hdu)
    values = np.asarray(values)
    return values.astype(values.dtype.newbyteorder("=") if raw else np.float32)


def _fits(path: str, raw: bool, index: Index, hdu: int) -> Any:
    from astropy.io import fits

    with fits.open(path, memmap=False, do_not_scale_image_data=True) as hdus:
        stored = np.asarray(hdus[hdu].section[index])
        blank = hdus[hdu].header.get("BLANK") if stored.dtype.kind in "iu" else None
    if raw:
        return stored
    with fits.open(path, memmap=False) as hdus:
        values = np.array(hdus[hdu].section[index])
    if type(blank) is int:  # astropy leaves it in where it is 0, and in unsigned integers
        values = values.astype(np.float64)
        values[stored == blank] = np.nan
    return values


def _tif(path: str, raw: bool, index: Index, hdu: int) -> Any:
    import rasterio

    bands, y, x = index
    with rasterio.open(path) as src:
        numbers = list(range(1, src.count + 1))[bands]
        box = ((y.start, y.stop), (x.start, x.stop))
        stored = src.read(numbers, window=box)
        if raw:
            return stored
        out = np.empty(stored.shape, np.float32)
        for plane, number, one in zip(out, numbers, stored):
            scale, offset = src.scales[number - 1], src.offsets[number - 1]
            plane[...] = one if (scale, offset) == (1.0, 0.0) else one.astype(np.float64) * scale + offset
            if rasterio.enums.MaskFlags.all_valid not in src.mask_flag_enums[number - 1]:
                plane[src.read_masks(number, window=box) == 0] = np.nan
        return out


def _nc(path: str, raw: bool, index: Index, hdu: int) -> Any:
    import netCDF4

    with netCDF4.Dataset(path) as dataset:
        dataset.set_auto_maskandscale(not raw)
        values = dataset["v"][index]
    return values if raw else np.ma.filled(values.astype(np.float32), np.nan)


def _h5(path: str, raw: bool, index: Index, hdu: int) -> Any:
    import h5py

    with h5py.File(path) as file:
        return file["v"][index]


def _npy(path: str, raw: bool, index: Index, hdu: int) -> Any:
    return np.load(path)[index]


def _npz(path: str, raw: bool, index: Index, hdu: int) -> Any:
    return np.load(path)["v"][index]


def _zarr(path: str, raw: bool, index: Index, hdu: int) -> Any:
    import zarr

    values = np.asarray(zarr.open(path, mode="r")["v"][index])
    array = zarr.open(path, mode="r")["v"]
    if raw or array.metadata.zarr_format == 3 or array.fill_value is None:
        return values
    return np.where(values == array.fill_value, np.nan, values)


# -- one copy ---------------------------------------------------------------------------------------------


def verdict(path: Path, original: Path, raw: bool, only: str = "") -> str:
    """What came of one copy; ``only`` leaves out streamgeo or the library, to see which of them it is."""
    got: Any = None
    index: Index = ()
    scene: Any = None
    if only != "library":
        before = _touched(clear=True)
        try:
            scene = open_scene(path, raw)
            sizes = [min(n, 8) for n in scene.shape] if math.prod(scene.shape) > LARGE else list(scene.shape)
            index = tuple(slice(0, n) for n in sizes)
            got = scene.read(Window({dim: (0, n) for dim, n in zip(scene.dims, sizes)}))
        except sg.StreamGeoError as error:
            return "error" if path.name.partition(".")[0] in str(error) else f"WRONG {error} names no file"
        except BaseException as error:
            return f"WRONG {error!r}"
        finally:
            POOL.close()  # HDF5 does not bear a file that is open twice
        took = _touched() - before - got.nbytes - _size(path)
        if took > ROOM:
            return f"WRONG {took >> 20} MiB were taken for {got.nbytes} bytes, {scene.reader}"
    if only == "streamgeo":
        return "same"
    hdu = scene._images[0].hdu if hasattr(scene, "_images") else 0
    if only == "library":
        reference(
            path, raw, (...,) if path.suffix != ".tif" else (slice(None), slice(0, 1), slice(0, 1)), hdu
        )
        return "same"
    try:
        want = reference(path, raw, index, hdu)
    except Exception as error:
        return _judged(got, None, original, raw, index, f"{scene.reader}; the library: {error!r}")
    if _equal(got, want):
        return "same"
    if not all(_equal(again, want) for again in _again(path, raw, index, hdu)):
        return "the library has another answer each time: it reads behind the end"
    return _judged(got, want, original, raw, index, scene.reader)


def _again(path: Path, raw: bool, index: Index, hdu: int) -> Iterator[np.ndarray]:
    """The library's answer, with something else in the memory that it lets go of."""
    for number in range(20):
        rubbish = [np.full(size, number, np.uint8) for size in (500, 2000, 8000, 40_000)]
        yield reference(path, raw, index, hdu)
        del rubbish


def _judged(
    got: np.ndarray, want: np.ndarray | None, original: Path, raw: bool, index: Index, how: str
) -> str:
    """Whether pixels are right where the library fails: what it did not look at may be read."""
    sound = reference(
        original, raw, (...,) if original.suffix != ".tif" else index, _first_hdu(original, raw)
    )
    if got.shape == sound.shape and got.dtype == sound.dtype:
        if want is None and _equal(got, sound):
            return "found"
        if want is not None and want.shape == got.shape:
            apart = [(got != one) & ~((got != got) & (one != one)) for one in (want, sound)]
            if np.count_nonzero(apart[0] & apart[1]) <= (8 if "uncompressed" in how else 0):
                return "found"  # the tree that the library searches may be damaged where the list of its leaves is not
    return f"WRONG pixels of {got.shape} {got.dtype}, not {None if want is None else (want.shape, want.dtype)}; {how}"


def _first_hdu(path: Path, raw: bool) -> int:
    scene: Any = open_scene(path, raw)
    return scene._images[0].hdu if hasattr(scene, "_images") else 0


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")


def _touched(clear: bool = False) -> int:
    """The most memory that the process had since this was cleared, where the system tells it."""
    try:
        if clear:
            Path("/proc/self/clear_refs").write_text("5")
        text = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return int(re.search(r"VmHWM:\s+(\d+)", text)[1]) << 10


def _size(path: Path) -> int:
    return (
        sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
        if path.is_dir()
        else path.stat().st_size
    )


def damage(base: Path, target: Path, seed: int) -> None:
    """A damaged copy of a file, or of a store of which one file is damaged."""
    if not base.is_dir():
        target.write_bytes(mutate(base.read_bytes(), seed))
        return
    shutil.copytree(base, target)
    files = sorted(one for one in target.rglob("*") if one.is_file())
    headers = [one for one in files if one.suffix == ".json" or one.name.startswith(".z")]
    rng = np.random.default_rng(seed)
    some = headers if rng.random() < 0.5 else files
    one = some[int(rng.integers(0, len(some)))]
    one.write_bytes(mutate(one.read_bytes(), seed))


def main(folder: str, first: int, last: int, only: str = "") -> None:
    resource.setrlimit(resource.RLIMIT_AS, (SPACE, SPACE))
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    np.seterr(all="ignore")
    bases = sorted(Path(folder).glob("base_*"))
    for seed in range(first, last):
        base = bases[seed % len(bases)]
        path = base.with_name(f"copy{seed}.{base.name.partition('.')[2]}")
        print("try", seed, flush=True)
        damage(base, path, seed)
        CACHE.clear()
        faulthandler.dump_traceback_later(HANGS, exit=True)
        print(verdict(path, base, seed // len(bases) % 2 == 0, only), base.name, flush=True)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    faulthandler.cancel_dump_traceback_later()


# -- many copies ------------------------------------------------------------------------------------------


def fuzz(folder: Path, count: int, first: int = 0, step: int = 100) -> tuple[Counter[str], list[str]]:
    """How often each verdict came, and what was wrong, of so many damaged copies of the files in a folder."""
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    blocks = [(start, min(start + step, first + count)) for start in range(first, first + count, step)]
    with ThreadPoolExecutor(2) as pool:
        for lines in pool.map(lambda block: _block(folder, *block), blocks):
            for line in lines:
                counts[line.split()[0] if not line.startswith("the library") else line] += 1
                wrong += [line] if line.startswith("WRONG") else []
    return counts, wrong


def _block(folder: Path, first: int, last: int) -> list[str]:
    said: list[str] = []
    while first < last:
        done = _run(folder, first, last)
        lines = done.stdout.splitlines()
        for seed, line in pairwise(lines):
            if not line.startswith("try"):
                said.append(f"{line} ({seed})" if line.startswith("WRONG") else line)
        if done.returncode == 0:
            return said
        number = int([line for line in lines if line.startswith("try")][-1].split()[1])
        said.append(_blame(folder, number, done))
        first = number + 1
    return said


def _blame(folder: Path, number: int, done: subprocess.CompletedProcess[str]) -> str:
    """Whether it is the library that does not come back, and streamgeo with it or not."""
    own, library = (_run(folder, number, number + 1, only) for only in ("streamgeo", "library"))
    ended = "hangs" if "Timeout" in done.stderr else "crashes"
    died = [one.returncode < 0 or "Timeout" in one.stderr for one in (own, library)]
    if died == [False, True]:
        return f"the library alone {ended}"
    if died == [True, True]:
        return f"the library {ended}"
    return f"WRONG it {ended}, alone {died[0]} (try {number}): {done.stderr[-1500:]}"


def _run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.fuzz", str(folder), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
