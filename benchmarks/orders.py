"""How good the orders of an epoch are: for training, as a random one; for decoding, as the file's own.

Measured on a chain over real (small) files: 100 scenes of 256 patches, 16 of which lie in one chunk.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script, too

from benchmarks import data
from benchmarks.peers import ORDERS, Order, ordered
from benchmarks.processes import apart
from benchmarks.report import markdown

Numbers = NDArray[np.int64]
BATCH, SIDE, TILE, SCENES = 32, 16, 64, 100


def read(paths: list[str], kind: str, threads: int) -> tuple[Numbers, Numbers, Numbers]:
    """Scene, chunk and number of every patch of two epochs, in the order in which they come: ``(2, patches)``."""
    import streamgeo as sg

    chain = sg.files((paths * SCENES)[:SCENES], key="image").key_transform("image", sg.open_geotiff())
    chain = chain.key_transform("image", sg.patch(size=SIDE))
    stream = ordered(chain, Order(kind)).batch(BATCH).prefetch(4, threads)
    scenes, starts = [], []
    for _ in range(2):
        batches = list(stream)
        scenes.append(np.concatenate([batch["image.scene"] for batch in batches]))
        starts.append(np.concatenate([batch["image.window"][:, -2:, 0] for batch in batches]))
    scene, start = np.stack(scenes).astype(np.int64), np.stack(starts)
    across = data.TINY.side // TILE
    chunk = scene * across**2 + start[..., 0] // TILE * across + start[..., 1] // TILE
    per_row = data.TINY.side // SIDE
    number = scene * per_row**2 + start[..., 0] // SIDE * per_row + start[..., 1] // SIDE
    return scene, chunk, number


def quality(scene: Numbers, chunk: Numbers, number: Numbers) -> dict[str, float]:
    """Figures of one order; arguments as :func:`read` gives them."""
    total = scene.shape[1]
    place = np.arange(total)
    first, last = np.full(chunk.max() + 1, total), np.full(chunk.max() + 1, -1)
    np.minimum.at(first, chunk[0], place)
    np.maximum.at(last, chunk[0], place)
    alive = np.cumsum(
        np.bincount(first, minlength=total + 1) - np.bincount(last + 1, minlength=total + 2)[:-1]
    )
    batches = [slice(at, at + BATCH) for at in range(0, total - BATCH + 1, BATCH)]
    return {
        "span": float(np.median(last - first + 1)) / total,
        "alive": float(alive.max()) / len(first),
        "scenes": float(np.mean([len(np.unique(scene[0, part])) for part in batches])),
        "together": float(np.mean([_pairs(chunk[0, part]) for part in batches])),
        "place": _correlation(place, number[0]),
        "epochs": _correlation(np.argsort(number[0]), np.argsort(number[1])),
    }


def _pairs(values: Numbers) -> float:
    """Pairs that are alike."""
    counts = np.unique(values, return_counts=True)[1]
    return float((counts * (counts - 1) / 2).sum())


def _correlation(a: Numbers, b: Numbers) -> float:
    """Of ranks: Spearman's, since both are permutations."""
    return float(np.corrcoef(a, b)[0, 1])


def table(folder: Path, threads: int) -> str:
    """The three orders."""
    case = data.cases(folder, data.TINY)["tiff-deflate"]
    rows = []
    for kind in ORDERS:
        found: dict[str, Any] = quality(*apart(read, list(case.paths), kind, threads))
        rows.append([
            kind, f"{100 * found['span']:.3g} %", f"{100 * found['alive']:.3g} %", f"{found['scenes']:.1f}",
            f"{found['together']:.2f}", f"{found['place']:.3f}", f"{found['epochs']:.3f}",
        ])  # fmt: skip
    head = ["order", "from the first patch of a chunk to its last (median), share of the epoch",
            "chunks that must be kept at once to decode each once, share of all",
            f"scenes in a batch of {BATCH}", "pairs in a batch that share a chunk",
            "correlation of place and number", "correlation of places in two epochs"]  # fmt: skip
    return markdown(head, rows)


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[1] / "bench_data"
    print(table(data.make(root, data.TINY), 2))
