"""Headers of many files, read by threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from streamgeo.gate import GATE

T = TypeVar("T")
R = TypeVar("R")

MANY = 16  # from which on it is worth the threads
THREADS = 8  # more than cores: opening waits for the disk


def looked_at(look: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """What ``look`` says of each, in order; of many at once, with progress. A fork waits for each that is under way."""
    gated = partial(_gated, look, GATE.entered)
    if len(items) < MANY:
        yield from map(gated, items)
        return
    from tqdm import tqdm

    with ThreadPoolExecutor(THREADS, "streamgeo-headers") as pool:
        found = pool.map(gated, items)
        yield from tqdm(found, "headers", len(items), delay=2, disable=None, leave=False)


def _gated(look: Callable[[T], R], inner: bool, item: T) -> R:
    GATE.enter(inner)
    try:
        return look(item)
    finally:
        GATE.leave()
