"""Damaged copies of one file, read with streamgeo and with the reference library, in a process of its own.

``python -m tests.hdf5_fuzz FILE VARIABLE FIRST LAST`` says ``try N`` before it reads copy N, and at the end of each
``same``, ``error``, ``found`` (right where the library is not) or, when streamgeo gave other pixels or another kind
of error, ``WRONG`` and what. ``python -m tests.hdf5_fuzz FILE VARIABLE N`` reads copy N with the library alone.
A read that hangs ends the process.
"""

from __future__ import annotations

import faulthandler
import resource
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np

from streamgeo.errors import StreamGeoError

ROOT = Path(__file__).parents[1]
_HANGS = 10  # seconds


def mutate(data: bytes, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    out = bytearray(data)
    kind = rng.integers(0, 5)
    where = int(rng.integers(0, len(out)))
    if kind == 0:
        return bytes(out[:where])
    if kind == 1:
        out[where : where + 32] = bytes(len(out[where : where + 32]))
    elif kind == 2:
        for at in rng.integers(0, len(out), rng.integers(1, 9)):
            out[at] = rng.integers(0, 256)
    elif kind == 3:  # one bit
        out[where] ^= 1 << int(rng.integers(0, 8))
    else:  # in the first bytes, where headers are
        out[int(rng.integers(0, min(len(out), 4096)))] = int(rng.choice([0, 1, 127, 128, 255]))
    return bytes(out)


def reference(path: str, name: str) -> np.ndarray:
    if path.endswith(".nc"):
        import netCDF4

        with netCDF4.Dataset(path) as dataset:
            dataset.set_auto_maskandscale(False)
            values = dataset[name][...]
    else:
        import h5py

        with h5py.File(path) as file:
            values = file[name][()]
    return values.astype(values.dtype.newbyteorder("="))


def verdict(path: str, name: str, original: np.ndarray) -> str:
    from streamgeo.sources import hdf5, netcdf

    try:
        if path.endswith(".nc"):
            scene = netcdf.open_scene(path, variable=name, raw=True)
        else:
            scene = hdf5.open_scene(path, dataset=name, raw=True)
        if np.prod(scene.shape, dtype=float) > 1e8:  # the reference would need as much
            return "large"
        got = scene.read()
    except StreamGeoError as error:
        assert Path(path).name in str(error), error
        return "error"
    except MemoryError:
        return "large"
    except BaseException as error:
        return f"WRONG {error!r}"
    try:
        want = reference(path, name)
    except Exception:
        want = original  # what the library did not look at may be read, if it is right
    if equal(got, want):
        return "same"
    if got.shape == want.shape == original.shape:
        # The tree that the library searches may be damaged where the list of its leaves is not.
        neither = np.count_nonzero((got != want) & (got != original))
        if neither <= (8 if "uncompressed" in scene.reader else 0):  # numbers that were changed themselves
            return "found"
    return f"WRONG pixels of {got.shape} {got.dtype}, {scene.reader}"


def equal(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def main(file: str, name: str, first: int, last: int | None = None) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    warnings.simplefilter("ignore")
    data = Path(file).read_bytes()
    path = Path(file).with_name(f"mutated{first}{Path(file).suffix}")
    if last is None:
        path.write_bytes(mutate(data, first))
        faulthandler.dump_traceback_later(_HANGS, exit=True)
        reference(str(path), name)
        return
    original = reference(file, name)
    for seed in range(first, last):
        print("try", seed, flush=True)
        path = path.with_name(f"mutated{seed}{path.suffix}")
        path.write_bytes(mutate(data, seed))
        faulthandler.dump_traceback_later(_HANGS, exit=True)
        print(verdict(str(path), name, original), flush=True)
        path.unlink()


def fuzz(file: Path, name: str, count: int) -> dict[str, int]:
    """How often each verdict came; the library may crash or hang, but streamgeo must not where that does not."""
    counts: dict[str, int] = {}
    first = 0
    while first < count:
        done = _run(file, name, first, count)
        lines = done.stdout.splitlines()
        for line in lines:
            if not line.startswith("try"):
                assert not line.startswith("WRONG"), (file.name, lines[lines.index(line) - 1], line)
                counts[line] = counts.get(line, 0) + 1
        if done.returncode == 0:
            return counts
        crashed = int(lines[-1].split()[1])
        alone = _run(file, name, crashed)
        hung, alone_hung = ("Timeout" in one.stderr for one in (done, alone))
        assert alone.returncode < 0 or alone_hung, (file.name, crashed, done.returncode, done.stderr[-2000:])
        what = "the library hangs" if hung else "the library crashes"
        counts[what] = counts.get(what, 0) + 1
        first = crashed + 1
    return counts


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.hdf5_fuzz", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:]))
