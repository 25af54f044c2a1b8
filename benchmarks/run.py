"""Run the benchmarks: ``python benchmarks/run.py [--quick] [--only tiff-deflate]``.

Cold means that streamgeo (or the other loader) has nothing yet, and that the files are in the system's page cache:
what is measured is decoding and copying, not the disk.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import pkgutil
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script, too

from benchmarks import bounds, data, growth, measure, memory, orders, overhead, report
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
- **by hand, default caches**: with the cache of 16 MiB that netCDF-C has if nobody sets it; two seconds an epoch.
- **by hand, whole scenes**: scenes are read whole and kept, which takes memory for all of them.
- **DataLoader**: torch's, over the loop by hand, two worker processes.
- † over the first of the scenes, or the first seconds, only, since it takes long.
- **processor time** is that of all threads; it hardly changes with what else the machine does."""


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small data, one round: under a minute")
    parser.add_argument("--size", choices=list(data.SIZES), help="size of the data")
    parser.add_argument("--only", action="append", metavar="CASE", help="only this case; may be given again")
    parser.add_argument(
        "--data", type=Path, default=ROOT / "bench_data", help="where the files are made and kept"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "bench_out", help="where table and plot go")
    parser.add_argument("--no-more", action="store_true", help="only the loaders, as with --only")
    parser.add_argument(
        "--minutes", type=float, default=6.5, help="for the loaders: no round is begun that ends later"
    )
    parser.add_argument("--rounds", type=int, default=5, help="at most")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 2)
    return parser.parse_args(arguments)


def run(chosen: argparse.Namespace, sizes: data.Sizes) -> report.Results:
    """Make the files, check that all give the same patches, and measure."""
    began = time.monotonic()
    _say(f"data in {chosen.data}")
    cases = data.cases(data.make(chosen.data, sizes), sizes)
    unknown = [name for name in chosen.only or () if name not in cases]
    if unknown:
        raise SystemExit(f"no case {unknown[0]!r}; there are {', '.join(cases)}")
    names = chosen.only or list(cases)
    _import(cases[name] for name in names)
    rows: list[measure.Row] = []
    end = began + 60 * chosen.minutes
    for number, name in enumerate(names):
        share = (end - time.monotonic()) / (len(names) - number)
        deadline = time.monotonic() + share
        _say(f"{name}: do all give the same patches?")
        equal = measure.compare(cases[name], chosen.threads)
        _say("  " + ", ".join(f"{loader}: {said}" for loader, said in equal.items()))
        plan = measure.Plan(chosen.threads, 1 if chosen.quick else chosen.rounds, deadline)
        rows += measure.measure(cases[name], plan)
        _say(report.against_bounds(report.Results(row for row in rows if row.case == name)))
    return report.Results(rows)


def _import(cases: Iterable[data.Case]) -> None:
    """Import what is measured, so that processes find it there and the time of imports does not count."""
    for name in IMPORTS:
        try:
            importlib.import_module(name)
        except ImportError:
            _say(f"{name} is not installed")
    import streamgeo.sources

    for module in pkgutil.iter_modules(streamgeo.sources.__path__, "streamgeo.sources."):
        importlib.import_module(module.name)
    for case in cases:
        bounds.decoders(case, bounds.index(case))  # imagecodecs loads each codec when it is first asked for
    # All that the libraries hold would be searched for garbage in each process, and copied by that: 0.3 s once.
    gc.collect()
    gc.freeze()


def more(chosen: argparse.Namespace, sizes: data.Sizes) -> dict[str, str]:
    """Tables on memory, growth, overhead and order, by title."""
    folder = chosen.data / sizes.name
    budgets = (64, 256) if sizes is data.FULL else (4,)
    jobs: dict[str, Callable[[], dict[str, str]]] = {
        "memory": lambda: {"Memory over an epoch": memory.table(folder, sizes, chosen.threads, budgets)},
        "growth": lambda: growth.tables(folder, sizes, chosen.threads, chosen.quick),
        "overhead": lambda: {
            "Overhead: two trivial steps over arrays in memory": overhead.table(chosen.threads, chosen.quick)
        },
        "orders": lambda: {
            "Quality of the orders": orders.table(data.make(chosen.data, data.TINY), chosen.threads)
        },
    }
    found: dict[str, str] = {}
    for name, job in jobs.items():
        _say(name)
        found.update(job())
    return found


def text(results: report.Results, threads: int, rest: dict[str, str]) -> str:
    """The report."""
    parts = {
        "Beside what the machine can do": report.against_bounds(results),
        "So many times as fast as other loaders: cold / warm": report.against_peers(results),
        "Patches a second: cold / warm": report.rates_table(results),
        "Seconds to the first batch, shuffled": report.first_batches(results),
    }
    head = ["# Benchmarks", report.machine(threads), NOTES]
    return (
        "\n\n".join([*head, *(f"## {title}\n\n{part}" for title, part in {**parts, **rest}.items())]) + "\n"
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    warnings.simplefilter("ignore")
    os.environ.setdefault("GDAL_CACHEMAX", "2048")  # MB: for all scenes, in the handles of two threads
    chosen = options(arguments)
    sizes = data.SIZES[chosen.size or ("quick" if chosen.quick else "full")]
    try:
        results = run(chosen, sizes)
        rest = {} if chosen.only or chosen.no_more else more(chosen, sizes)
    except Failed as error:
        _say(f"error: {error}")
        return 1
    chosen.out.mkdir(parents=True, exist_ok=True)
    said = text(results, chosen.threads, rest)
    (chosen.out / "report.md").write_text(said)
    (chosen.out / "results.json").write_text(json.dumps([asdict(row) for row in results.rows], indent=1))
    report.plot(results, chosen.out / "rates.png")
    print(said)
    return 0


if __name__ == "__main__":
    sys.exit(main())
