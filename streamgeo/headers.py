"""Headers of many files; read by threads where they have to be waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from streamgeo.gate import GATE

T = TypeVar("T")
R = TypeVar("R")

MANY = 16  # from which on it is worth the threads
THREADS = 8  # more than cores: opening waits for the disk
_PATIENCE = 0.02  # seconds of waiting in one thread


def looked_at(look: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """What ``look`` says of each, in order; of many at once, with progress. A fork waits for each that is under way.

    Threads that compute hinder one another in the interpreter, which doubles the time; they are worth it once the
    disk keeps one waiting longer than it computes.
    """
    found = _each(partial(_gated, look, GATE.entered), items)
    if len(items) < MANY:
        yield from found
        return
    from tqdm import tqdm

    yield from tqdm(found, "headers", len(items), delay=2, disable=None, leave=False)


def _each(look: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    waited = computed = 0.0
    for number, item in enumerate(items):
        if waited > max(computed, _PATIENCE) and len(items) - number >= MANY:
            with ThreadPoolExecutor(THREADS, "streamgeo-headers") as pool:
                yield from pool.map(look, items[number:])
            return
        began, busy = time.perf_counter(), time.thread_time()
        found = look(item)
        took = time.thread_time() - busy
        waited, computed = waited + time.perf_counter() - began - took, computed + took
        yield found


def _gated(look: Callable[[T], R], inner: bool, item: T) -> R:
    GATE.enter(inner)
    try:
        return look(item)
    finally:
        GATE.leave()
