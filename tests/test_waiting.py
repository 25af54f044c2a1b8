"""Waiting: for a sample no longer than one likes, and workers that wait while enough bytes do."""

from __future__ import annotations

import _thread
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import streamgeo as sg
from streamgeo import made
from streamgeo.engine import Engine
from streamgeo.scene import Scene
from streamgeo.window import Window


def test_a_timeout_names_the_time_and_loses_nothing() -> None:
    go = threading.Event()

    def slow(x: np.ndarray) -> np.ndarray:
        if int(x) == 2:
            assert go.wait(30)
        return x

    chain = sg.buffer_from_vector([{"x": i} for i in range(5)]).key_transform("x", slow)
    for stream in (chain.to_stream(), chain.prefetch(2, 2), chain.prefetch(2, 2).skip(0)):
        go.clear()
        iterator = iter(stream)
        got = [int(next(iterator)["x"]), int(iterator.next(timeout=30)["x"])]  # type: ignore[attr-defined]
        for limit in (0.01, 0):
            with pytest.raises(sg.WaitError, match=f"within {limit} s"):
                iterator.next(timeout=limit)  # type: ignore[attr-defined]
        go.set()
        got += [int(sample["x"]) for sample in iterator]
        assert got == list(range(5))
        assert stream.state_dict()["epoch"] == 1


def test_a_timeout_error_of_a_step_is_no_timeout_of_the_stream() -> None:
    def late(x: np.ndarray) -> np.ndarray:
        raise TimeoutError("no answer")

    stream = sg.buffer_from_vector([{"x": 1}]).key_transform("x", late).to_stream()
    with pytest.raises(sg.SampleError, match="no answer"):
        iter(stream).next(timeout=30)  # type: ignore[attr-defined]


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1", True])
def test_a_timeout_that_is_none(timeout: object) -> None:
    iterator = iter(sg.buffer_from_vector([{"x": 1}]).to_stream())
    with pytest.raises(sg.ChainError, match=r"timeout=.* must be a number of seconds"):
        iterator.next(timeout=timeout)  # type: ignore[attr-defined]


def test_closing_while_a_sample_is_waited_for() -> None:
    go = threading.Event()
    threads = _thread._count()
    stream = (
        sg.buffer_from_vector([{"x": 1}] * 9).key_transform("x", lambda x: go.wait(30) * x).prefetch(2, 2)
    )
    iterator = iter(stream)
    with pytest.raises(sg.WaitError):
        iterator.next(timeout=0.01)  # type: ignore[attr-defined]
    threading.Timer(0.1, go.set).start()
    stream.close()
    with pytest.raises(sg.ChainError, match="closed"):
        next(iterator)
    time.sleep(0.05)
    assert _thread._count() <= threads


# -- bytes ----------------------------------------------------------------------------------------------


class Waiting:
    """Tasks that count how many bytes of results are made and not yet taken."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes, self.made, self.most, self.taken = sizes, 0, 0, 0
        self.lock = threading.Lock()

    def make(self, size: int) -> int:
        time.sleep(0.0005)
        with self.lock:
            self.made += size
            self.most = max(self.most, self.made - self.taken)
        return size

    def tasks(self) -> Iterator[partial[int]]:
        return (partial(self.make, size) for size in self.sizes)


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("size", [1, 3, 64])
@pytest.mark.parametrize("most", [1, 100, 250, 10**9])
def test_results_that_wait_stay_within_the_bound(most: int, size: int, threads: int) -> None:
    work = Waiting([100] * 40)
    got = []
    for value in Engine(work.tasks(), size, threads, most, int):
        got.append(value)
        time.sleep(0.001)
        work.taken += value
    assert got == work.sizes
    # Beside the bound: the one in the consumer's hands, and the one that it waits for, which always begins. The
    # first ones begin before any size is known.
    assert work.most <= max(most, threads * 100) + 200


def test_a_result_above_the_bound_comes_alone() -> None:
    sizes = [10, 10_000, 10, 10, 20_000, 10]
    work = Waiting(sizes)
    assert list(Engine(work.tasks(), 8, 3, 100, int)) == sizes


def test_closing_while_workers_pause() -> None:
    engine = Engine(Waiting([100] * 50).tasks(), 8, 4, 150, int)
    next(engine)
    time.sleep(0.05)
    began = time.monotonic()
    engine.close()
    assert time.monotonic() - began < 5


def test_nested_streams_with_bounds() -> None:
    def tasks() -> Iterator[partial[int]]:
        return (partial(_give, value) for value in Engine(Waiting([100] * 60).tasks(), 4, 2, 250, int))

    assert sum(Engine(tasks(), 4, 2, 250, int)) == 6000


def _give(value: int) -> int:
    return value


def test_whole_scenes_are_read_by_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made.land(tmp_path, 3, (40, 40))
    readers = set()
    read = Scene.read

    def noted(self: Scene, *window: Window) -> np.ndarray:
        readers.add(threading.current_thread() is threading.main_thread())
        return read(self, *window)

    monkeypatch.setattr(Scene, "read", noted)
    chain = sg.files(str(tmp_path / "*.tif"), key="image").key_transform("image", sg.open())
    assert len(list(chain.prefetch(2, 2))) == 3
    assert readers == {False}
    windows = chain.prefetch(2, 2).key_transform("image", sg.patch(20))
    assert windows.scene("image", 1).grid.crs is not None  # scenes stay scenes before a patch


@pytest.mark.parametrize("threads", [0, 2])
def test_an_interrupt_that_a_library_made_another_error_of(threads: int) -> None:
    def imported(x: np.ndarray) -> np.ndarray:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ImportError("initialization failed") from error

    chain = sg.buffer_from_vector([{"x": 1}] * 4).key_transform("x", imported)
    stream = chain.prefetch(2, threads) if threads else chain.to_stream()
    for one in (stream, stream.on_error("skip", 9), chain.batch(2).to_stream().on_error("skip", 9)):
        with pytest.raises(KeyboardInterrupt):
            list(one)
