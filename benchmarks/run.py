"""Run the benchmarks: ``python benchmarks/run.py [--quick] [--only tiff-deflate]``.

Cold means that streamgeo (or the other loader) has nothing yet, and that the files are in the system's page cache:
what is measured is decoding and copying, not the disk.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
import warnings
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script, too

from benchmarks import data, measure, report
from benchmarks.processes import Failed

ROOT = Path(__file__).resolve().parents[1]
IMPORTS = ("numpy", "rasterio", "netCDF4", "h5py", "astropy.io.fits", "imagecodecs", "tifffile", "torch.utils.data",
           "xarray", "xbatcher", "rioxarray", "torchgeo.datasets", "streamgeo", "mlx.data")  # fmt: skip

NOTES = """\
Patches a second: the median of the rounds, and in brackets the least and the most. A ratio is taken within one
round. **cold**: the loader is built and goes through its first epoch; files are in the system's page cache.
**warm**: the second epoch. **grid**: scene by scene; **shuffled**: streamgeo's `shuffle(seed)`; **random**: a
permutation of all patches; the others take the same patches in the same order. Every run has a process of its own,
and contenders take turns.

- **decoding**: every chunk decoded once on all cores by the fastest decoder there is, and dropped.
- **copying**: the same patches copied and converted from arrays in memory into new batches.
- **by hand**: rasterio, netCDF4, astropy or numpy with open handles and two threads, read straight into the batch;
  block and chunk caches large enough for all files.
- **by hand, whole scenes**: scenes are read whole and kept, which takes memory for all of them.
- **DataLoader**: torch's, over the loop by hand, two worker processes.
- † the epoch was cut short: the rate is that of its first part."""


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small data, one round: under a minute")
    parser.add_argument("--size", choices=list(data.SIZES), help="size of the data")
    parser.add_argument("--only", action="append", metavar="CASE", help="only this case; may be given again")
    parser.add_argument(
        "--data", type=Path, default=ROOT / "bench_data", help="where the files are made and kept"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "bench_out", help="where table and plot go")
    parser.add_argument("--minutes", type=float, default=9, help="no round is begun that would end later")
    parser.add_argument("--rounds", type=int, default=5, help="at most")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 2)
    return parser.parse_args(arguments)


def run(chosen: argparse.Namespace) -> report.Results:
    """Make the files, check that all give the same patches, and measure."""
    began = time.monotonic()
    sizes = data.SIZES[chosen.size or ("quick" if chosen.quick else "full")]
    _say(f"data in {chosen.data}")
    cases = data.cases(data.make(chosen.data, sizes), sizes)
    unknown = [name for name in chosen.only or () if name not in cases]
    if unknown:
        raise SystemExit(f"no case {unknown[0]!r}; there are {', '.join(cases)}")
    names = chosen.only or list(cases)
    for name in IMPORTS:  # so that processes find it imported
        try:
            importlib.import_module(name)
        except ImportError:
            _say(f"{name} is not installed")
    rows: list[measure.Row] = []
    end = began + 60 * chosen.minutes
    for number, name in enumerate(names):
        share = (end - time.monotonic()) / (len(names) - number)
        _say(f"{name}: do all give the same patches?")
        equal = measure.compare(cases[name], chosen.threads)
        _say("  " + ", ".join(f"{loader}: {said}" for loader, said in equal.items()))
        deadline = time.monotonic() + share
        plan = measure.Plan(
            chosen.threads, 1 if chosen.quick else chosen.rounds, 1 if chosen.quick else 2, deadline
        )
        rows += measure.measure(cases[name], plan)
        _say(report.against_bounds(report.Results(row for row in rows if row.case == name)))
    return report.Results(rows)


def text(results: report.Results, threads: int) -> str:
    """The report."""
    parts = [
        "# Benchmarks",
        report.machine(threads),
        "## Beside what the machine can do",
        report.against_bounds(results),
        "## So many times as fast as other loaders: cold / warm",
        report.against_peers(results),
        "## Patches a second: cold / warm",
        report.rates_table(results),
        NOTES,
    ]
    return "\n\n".join(parts) + "\n"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    warnings.simplefilter("ignore")
    os.environ.setdefault("GDAL_CACHEMAX", "2048")  # MB: for all scenes, in the handles of two threads
    chosen = options(arguments)
    try:
        results = run(chosen)
    except Failed as error:
        _say(f"error: {error}")
        return 1
    chosen.out.mkdir(parents=True, exist_ok=True)
    said = text(results, chosen.threads)
    (chosen.out / "report.md").write_text(said)
    (chosen.out / "results.json").write_text(json.dumps([asdict(row) for row in results.rows], indent=1))
    report.plot(results, chosen.out / "rates.png")
    print(said)
    return 0


if __name__ == "__main__":
    sys.exit(main())
