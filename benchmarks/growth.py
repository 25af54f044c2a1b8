"""How time and memory grow: with the number of patches, of files, and of pixels; and the first batch of many files."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script, too

from benchmarks import data
from benchmarks.memory import MB, resident
from benchmarks.processes import apart
from benchmarks.report import markdown, spread

BATCHES = 40
FIRST_TARGET = 1.0  # second, from 1,000 files


# -- patches --------------------------------------------------------------------------------------------


def many_patches(path: str, size: int, stride: int, threads: int) -> dict[str, float]:
    """The first batches of a shuffled chain with so many patches of one scene."""
    import streamgeo as sg

    before, began = resident("VmRSS"), time.perf_counter()
    scenes = sg.files([path], key="image").key_transform("image", sg.open_geotiff())
    chain = scenes.key_transform("image", sg.patch(size=size, stride=stride)).shuffle(seed=0)
    count = len(chain)
    stream = _endless(chain.batch(8).prefetch(4, threads))
    next(stream)
    first = time.perf_counter() - began
    for _ in scenes.key_transform("image", sg.patch(size=size)).batch(8).prefetch(4, threads):
        pass  # every chunk is decoded now
    began = time.perf_counter()
    for _ in range(BATCHES):
        next(stream)
    each = (time.perf_counter() - began) / (BATCHES * 8)
    return {"count": count, "first": first, "each": each, "grown": (resident() - before) / MB}


def _endless(stream: Any) -> Iterator[Any]:
    while True:
        yield from stream


def patches_table(case: data.Case, threads: int, rounds: int) -> str:
    """One scene, cut with smaller and smaller strides."""
    rows = []
    size = case.patch[-1]
    for stride in (size, size // 4, size // 16, 1):
        runs = [apart(many_patches, case.paths[0], size, stride, threads) for _ in range(rounds)]
        rows.append([
            f"{runs[0]['count']:,}", spread([1e3 * run["first"] for run in runs]),
            spread([1e6 * run["each"] for run in runs]), spread([run["grown"] for run in runs]),
        ])  # fmt: skip
    return markdown(
        [
            "patches of one scene",
            "first batch, ms",
            "µs a patch when all chunks are decoded",
            "memory grown by, MB",
        ],
        rows,
    )


# -- files ----------------------------------------------------------------------------------------------


def many_files(paths: list[str], kind: str, threads: int) -> dict[str, float]:
    """Building a shuffled chain over so many files, and its first batch."""
    import streamgeo as sg

    opener: Any = {
        "tiff": sg.open_geotiff, "fits": sg.open_fits, "npy": sg.open_numpy, "netcdf": sg.open_netcdf,
        "hdf5": sg.open_hdf5,
    }[kind]  # fmt: skip
    before, began = resident("VmRSS"), time.perf_counter()
    chain = sg.files(paths, key="image").key_transform("image", opener())
    chain = chain.key_transform("image", sg.patch(size=16)).shuffle(seed=0)
    batch = next(iter(chain.batch(32).prefetch(4, threads)))
    seconds = time.perf_counter() - began
    assert len(batch["image"]) == 32
    return {"seconds": seconds, "grown": (resident() - before) / MB}


def copies(folder: Path, source: str, count: int) -> list[str]:
    """So many copies of a file."""
    paths = [folder / f"{number:05d}{Path(source).suffix}" for number in range(count)]
    for path in paths:
        shutil.copy(source, path)
    return [str(path) for path in paths]


def files_table(tiny: dict[str, data.Case], threads: int, rounds: int, counts: tuple[int, ...]) -> str:
    """The first batch of more and more files."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for case in ("tiff-deflate", "netcdf-frames", "fits-rice", "npy"):
            folder = Path(name) / case
            folder.mkdir()
            paths = copies(folder, tiny[case].paths[0], max(counts))
            kinds = [tiny[case].kind, *(["hdf5"] if case == "netcdf-frames" else [])]  # NetCDF-4 is HDF5
            for kind, count in product(kinds, counts):
                runs = [apart(many_files, paths[:count], kind, threads) for _ in range(rounds)]
                seconds = [run["seconds"] for run in runs]
                shown = case if kind == tiny[case].kind else f"{case} as {kind}"
                rows.append([shown, f"{count:,}", spread(seconds), spread([run["grown"] for run in runs])])
    head = ["data", "files", f"first batch, s (target {FIRST_TARGET} from 1,000)", "memory grown by, MB"]
    return markdown(head, rows)


# -- pixels ---------------------------------------------------------------------------------------------


def whole_epoch(path: str, size: int, threads: int) -> float:
    """Seconds of the first epoch over one scene."""
    import streamgeo as sg

    began = time.perf_counter()
    chain = sg.files([path], key="image").key_transform("image", sg.open_geotiff())
    stream = chain.key_transform("image", sg.patch(size=size)).shuffle(seed=0).batch(8).prefetch(4, threads)
    for _ in stream:
        pass
    return time.perf_counter() - began


def pixels_table(case: data.Case, tile: int, threads: int, rounds: int) -> str:
    """The same scene, cut out smaller and whole."""
    import rasterio

    rows = []
    side = case.shape[-1]
    with tempfile.TemporaryDirectory() as name, rasterio.open(case.paths[0]) as file:
        profile = {**file.profile, "predictor": 2}
        for part in (side // 4, side // 2, side):
            path = Path(name) / f"{part}.tif"
            with rasterio.open(path, "w", **{**profile, "height": part, "width": part}) as out:
                low = side - part  # the other corner is nodata
                out.write(np.asarray(file.read(window=((low, side), (low, side)))))
            runs = [apart(whole_epoch, str(path), case.patch[-1], threads) for _ in range(rounds)]
            pixels = part * part * case.shape[0]
            rows.append(
                [f"{part} x {part} x 4", spread(runs), spread([1e9 * seconds / pixels for seconds in runs])]
            )
    return markdown(["scene", "first epoch, s", "ns a value"], rows)


def tables(folder: Path, sizes: data.Sizes, threads: int, quick: bool) -> dict[str, str]:
    """All three, by title."""
    rounds = 1 if quick else 3
    case = data.cases(folder, sizes)["tiff-deflate"]
    tiny = data.cases(data.make(folder.parent, data.TINY), data.TINY)
    return {
        "Growth with the number of patches": patches_table(case, threads, rounds),
        "Growth with the number of files; time to the first batch": files_table(
            tiny, threads, rounds, (100,) if quick else (10, 100, 1000)
        ),
        "Growth with the size of a scene": pixels_table(case, sizes.tile, threads, rounds),
    }


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[1] / "bench_data"
    for title, table in tables(data.make(root, data.FULL), data.FULL, 2, False).items():
        print(f"## {title}\n\n{table}\n")
