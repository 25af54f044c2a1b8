"""What a chain costs by itself: trivial steps over arrays in memory, beside a bare thread pool doing the same."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script, too

from benchmarks.peers import in_threads
from benchmarks.processes import apart
from benchmarks.report import markdown, spread

Array = NDArray[Any]
BATCH = 32
TARGET = 0.7


def double(x: Array) -> Array:
    return x * np.float32(2)


def plus_one(x: Array) -> Array:
    return x + np.float32(1)


STEPS: tuple[Callable[[Array], Array], ...] = (double, plus_one)


def arrays(count: int, side: int) -> list[Array]:
    """Samples in memory."""
    rng = np.random.default_rng(0)
    return [rng.random((side, side), np.float32) for _ in range(count)]


def by_chain(samples: Sequence[Array], threads: int) -> Callable[[], int]:
    """An epoch of a chain."""
    import streamgeo as sg

    chain = sg.buffer_from_vector([{"x": sample} for sample in samples])
    for step in STEPS:
        chain = chain.key_transform("x", step)
    stream = chain.batch(BATCH).prefetch(8, threads)
    return lambda: sum(len(batch["x"]) for batch in stream)


def by_pool(samples: Sequence[Array], threads: int) -> Callable[[], int]:
    """The same by a thread pool: one task a batch, a few ahead."""

    def make(numbers: Any) -> Array:
        out = np.empty((len(numbers), *samples[0].shape), np.float32)
        for slot, number in zip(out, numbers):
            value = samples[number]
            for step in STEPS:
                value = step(value)
            slot[...] = value
        return out

    pool = ThreadPoolExecutor(threads)
    return lambda: sum(len(b) for b in in_threads(pool, make, range(len(samples)), BATCH, ahead=8))


def seconds(count: int, side: int, threads: int, rounds: int) -> list[tuple[float, float]]:
    """Of the chain and of the pool, in turn."""
    samples = arrays(count, side)
    contenders = [by_chain(samples, threads), by_pool(samples, threads)]
    for contender in contenders:
        assert contender() == count
    found = []
    for _ in range(rounds):
        times = []
        for contender in contenders:
            began = time.perf_counter()
            contender()
            times.append(time.perf_counter() - began)
        found.append((times[0], times[1]))
    return found


def table(threads: int, quick: bool = False) -> str:
    """For samples of several sizes."""
    rows = []
    for side, count in ((1, 20000), (16, 20000), (64, 10000), (256, 1000)):
        count = count // 10 if quick else count
        times = apart(seconds, count, side, threads, 3 if quick else 7)
        rows.append([
            f"{side} x {side}", spread([1e6 * mine / count for mine, _ in times]),
            spread([1e6 * theirs / count for _, theirs in times]), spread([theirs / mine for mine, theirs in times]),
            spread([1e6 * (mine - theirs) / count for mine, theirs in times]),
        ])  # fmt: skip
    head = ["sample (float32)", "chain, µs a sample", "thread pool, µs a sample", f"ratio (target {TARGET})",
            "overhead, µs a sample"]  # fmt: skip
    return markdown(head, rows)


if __name__ == "__main__":
    print(table(2))
