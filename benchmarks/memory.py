"""Resident memory over an epoch: the budget that was set, and what comes on top of it.

Each figure comes from an interpreter of its own. ``python benchmarks/memory.py`` shows the table alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script, too

from benchmarks import data, peers
from benchmarks.report import markdown

MB = 1 << 20
TARGET = 300  # MB on top of the budget


def resident(line: str = "VmHWM") -> int:
    """Most bytes that this process had in memory so far; ``VmRSS`` is what it has now (on Linux only)."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(text.split()[1]) << 10 for text in status.read_text().splitlines() if line in text)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts bytes


def epoch(folder: str, size: str, name: str, scenes: int, budget: int, threads: int) -> dict[str, Any]:
    """One shuffled epoch over the first few scenes of a case, in this process."""
    import streamgeo as sg

    case = data.cases(Path(folder), data.SIZES[size])[name]
    case = data.part(case, scenes)
    before = resident()
    sg.config(cache_bytes=budget)
    order = peers.Order("shuffled")
    stream = peers.ordered(peers.chain_of(case), order).batch(8).prefetch(4, threads)
    count = sum(len(batch["image"]) for batch in stream)
    assert count == len(case), f"{count} of {len(case)} patches came"
    return {"before": before, "peak": resident()}


def apart(*arguments: Any) -> dict[str, Any]:
    """The same in a new interpreter."""
    command = [sys.executable, str(Path(__file__)), json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise RuntimeError(f"memory of {arguments}: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def table(folder: Path, sizes: data.Sizes, threads: int, budgets: Sequence[int] = (64, 256)) -> str:
    """For each kind of file: half of the scenes and all, a small budget and a larger one."""
    rows = []
    cases = data.cases(folder, sizes)
    for name in ("tiff-deflate", "netcdf-frames", "fits-rice", "npy"):
        case = cases[name]
        for scenes in dict.fromkeys((max(1, len(case.paths) // 2), len(case.paths))):
            for budget in budgets:
                found = apart(str(folder), sizes.name, name, scenes, budget * MB, threads)
                over = found["peak"] / MB - budget
                rows.append([
                    name, str(scenes), f"{data.part(case, scenes).nbytes / MB:.0f}", str(budget),
                    f"{found['before'] / MB:.0f}", f"{found['peak'] / MB:.0f}", f"{over:.0f}",
                ])  # fmt: skip
    head = ["data", "scenes", "MB decoded", "budget, MB", "MB after imports", "MB at most",
            f"above the budget (target {TARGET})"]  # fmt: skip
    return markdown(head, rows)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(epoch(*json.loads(sys.argv[1]))))
    else:
        root = Path(__file__).resolve().parents[1] / "bench_data"
        print(table(data.make(root, data.FULL), data.FULL, 2))
