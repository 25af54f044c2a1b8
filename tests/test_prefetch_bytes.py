"""prefetch(max_bytes=): so many bytes of finished samples wait, no more; order, ends and errors stay as they are."""

from __future__ import annotations

import _thread
import pickle
import time
from functools import partial

import numpy as np
import pytest

import streamgeo as sg
from streamgeo.engine import Engine

KB = 1000


def block(i: int, size: int = KB) -> np.ndarray:
    return np.full(size, i % 128, np.int8)


def blocks(count: int, sizes: list[int] | None = None) -> sg.Buffer:
    return sg.buffer_from_vector(
        [{"x": block(i, sizes[i % len(sizes)] if sizes else KB)} for i in range(count)]
    )


def settled(count: list[int]) -> int:
    """A number of started tasks that has not changed for a while."""
    last = -1
    while last != len(count):
        last = len(count)
        time.sleep(0.15)
    return last


def counted(chain: sg.Buffer, begun: list[int]) -> sg.Buffer:
    def see(sample: dict) -> dict:
        begun.append(int(sample["x"].flat[0]))
        return sample

    return chain.sample_transform(see)


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("max_bytes", [1, 500, 1000, 2500, 10**9])
def test_order_is_kept_whatever_the_bound(max_bytes: int, threads: int) -> None:
    chain = blocks(40, [100, 3000, 1000]).shuffle(seed=3)
    bounded, plain = chain.prefetch(8, threads, max_bytes=max_bytes), chain.to_stream()
    for _ in range(2):
        epochs = [[(int(s["x"][0]), s["x"].size) for s in stream] for stream in (bounded, plain)]
        assert epochs[0] == epochs[1] and len(epochs[0]) == 40


@pytest.mark.parametrize("threads", [1, 3])
def test_no_more_bytes_wait_than_were_allowed(threads: int) -> None:
    begun: list[int] = []
    stream = counted(blocks(100), begun).prefetch(50, threads, max_bytes=5 * KB)
    iterator = iter(stream)
    for taken in range(1, 6):
        next(iterator)
        # the first result is not known before it is there, so each thread may have begun one
        assert settled(begun) <= taken + 5 + threads
    stream.close()


def test_without_a_bound_as_many_wait_as_before() -> None:
    begun: list[int] = []
    stream = counted(blocks(100), begun).prefetch(50, 2)
    iterator = iter(stream)
    next(iterator)
    assert settled(begun) >= 50
    stream.close()


def test_a_sample_larger_than_the_bound_passes_alone() -> None:
    begun: list[int] = []
    stream = counted(blocks(12, [10 * KB]), begun).prefetch(8, 2, max_bytes=KB)
    iterator = iter(stream)
    assert next(iterator)["x"].size == 10 * KB
    assert settled(begun) <= 1 + 1 + 2
    assert sum(1 for _ in iterator) == 11


def test_batches_count_with_all_their_samples() -> None:
    begun: list[int] = []
    stream = counted(blocks(100), begun).batch(10).prefetch(50, 1, max_bytes=20 * KB)
    iterator = iter(stream)
    next(iterator)
    assert 10 < settled(begun) <= 10 * (1 + 2 + 1)
    stream.close()


@pytest.mark.parametrize("inner", [None, 1, 3000])
@pytest.mark.parametrize("outer", [1, 3000])
def test_nested_prefetches_come_to_their_end(inner: int | None, outer: int) -> None:
    stream = blocks(60, [500, 4000]).prefetch(4, 2, max_bytes=inner).batch(3, pad={"x": 0})
    stream = stream.prefetch(4, 2, max_bytes=outer)
    for _ in range(2):
        assert [int(b["x"][0, 0]) for b in stream] == list(range(0, 60, 3))


@pytest.mark.parametrize("end", ["close", "del", "with"])
def test_closing_while_paused_is_immediate(end: str) -> None:
    before = _thread._count()
    stream = blocks(1000).prefetch(50, 4, max_bytes=3 * KB)
    iterator = iter(stream)
    next(iterator)
    time.sleep(0.2)  # the threads pause now
    began = time.perf_counter()
    if end == "with":
        with stream:
            pass
    elif end == "close":
        stream.close()
    del iterator, stream
    while end == "del" and _thread._count() > before and time.perf_counter() - began < 5:
        time.sleep(0.01)  # another thread ends it
    assert time.perf_counter() - began < 5  # a pause that nobody ends would last for ever
    assert _thread._count() <= before


def fragile(x: np.ndarray) -> np.ndarray:
    if x[0] % 5 == 2:
        raise ValueError(f"bad value {x[0]}")
    return x


def test_errors_cost_nothing_and_come_at_their_turn() -> None:
    stream = blocks(20).key_transform("x", fragile).prefetch(6, 2, max_bytes=2 * KB)
    skipping = stream.on_error("skip", 10)
    assert [int(s["x"][0]) for s in skipping] == [i for i in range(20) if i % 5 != 2]
    assert [error.index for error in skipping.skipped] == [2, 7, 12, 17]
    with pytest.raises(sg.SampleError, match="bad value 2"):
        list(stream)


def test_resume_and_pickle() -> None:
    stream = blocks(20).shuffle(seed=1).prefetch(6, 2, max_bytes=2 * KB)
    iterator = iter(stream)
    for _ in range(7):
        next(iterator)
    rest = [int(s["x"][0]) for s in pickle.loads(pickle.dumps(stream))]
    other = blocks(20).shuffle(seed=1).prefetch(3, 1)
    other.load_state_dict(stream.state_dict())  # the bound is no part of the state
    assert rest == [int(s["x"][0]) for s in iterator] == [int(s["x"][0]) for s in other]


def test_it_shows() -> None:
    chain = blocks(3)
    assert repr(chain.prefetch(4, 2, max_bytes=100)).endswith(".prefetch(4, 2, max_bytes=100)")
    assert repr(chain.prefetch(4, 2)).endswith(".prefetch(4, 2)")
    assert chain.ordered_prefetch(4, 2, 100).node.max_bytes == 100


@pytest.mark.parametrize("value", [0, -5, 1.5, "1", True, np.nan])
def test_bad_bounds(value) -> None:
    with pytest.raises(sg.ChainError, match="prefetch: max_bytes=.* must be a whole number, 1 or more"):
        blocks(1).prefetch(2, 1, max_bytes=value)


def test_the_engine_counts_what_it_is_told_to_count() -> None:
    asked: list[int] = []

    def size(value: int) -> int:
        asked.append(value)
        return 10

    tasks = (partial(int, i) for i in range(30))
    engine = Engine(tasks, 20, 2, max_bytes=30, nbytes=size)
    assert list(engine) == list(range(30))
    assert sorted(asked) == list(range(30))
