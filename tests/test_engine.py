"""The engine: order, errors, ends, forks; each guard of it by a case that failed without."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest

from streamgeo.engine import Engine, Pace

ROOT = Path(__file__).parents[1]


def give(value: int) -> int:
    time.sleep((value * 7919 % 5) / 2000)  # so that threads overtake each other
    return value


def numbers(count: int) -> Iterator[Callable[[], int]]:
    return (partial(give, i) for i in range(count))


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("size", [1, 2, 64])
@pytest.mark.parametrize("count", [0, 1, 3, 50])
def test_order_is_kept(count: int, size: int, threads: int) -> None:
    assert list(Engine(numbers(count), size, threads)) == list(range(count))


def test_any_value_comes_through() -> None:
    values = [np.array([1], ">f8"), np.array(["a"]), None, {"a": 1}, np.float16(2), 1 + 2j]
    tasks = (partial(lambda v: v, v) for v in values)
    assert [a is b for a, b in zip(Engine(tasks, 2, 2), values, strict=True)] == [True] * len(values)


def fail(error: type[BaseException]) -> int:
    raise error("no")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_error_comes_at_its_turn_and_the_rest_after_it(error: type[BaseException]) -> None:
    tasks = [partial(give, 0), partial(fail, error), partial(give, 2)]
    engine = Engine(iter(tasks), 2, 2)
    assert next(engine) == 0
    with pytest.raises(error):
        next(engine)
    assert list(engine) == [2]


def test_stop_iteration_in_a_task_does_not_end_the_epoch() -> None:
    engine = Engine(iter([partial(fail, StopIteration), partial(give, 1)]), 2, 1)
    with pytest.raises(RuntimeError):
        next(engine)
    assert next(engine) == 1


def test_an_error_while_drawing_tasks_is_raised_after_what_was_drawn() -> None:
    def tasks() -> Iterator[Callable[[], int]]:
        yield partial(give, 0)
        raise OSError("gone")

    engine = Engine(tasks(), 4, 2)
    assert next(engine) == 0
    with pytest.raises(OSError, match="gone"):
        next(engine)


def test_no_more_than_size_and_threads_are_ahead() -> None:
    begun = []

    def task(i: int) -> int:
        begun.append(i)
        return i

    engine = Engine((partial(task, i) for i in range(1000)), 4, 2)
    for _ in range(10):
        next(engine)
    time.sleep(0.2)
    assert len(begun) <= 10 + 2 * 4 + 2
    engine.close()


def test_close_is_idempotent_and_ends() -> None:
    engine = Engine(numbers(10**9), 4, 2)
    next(engine)
    engine.close()
    engine.close()
    assert list(engine) == []


def test_abandoned_engines_leave_no_threads() -> None:
    assert list(Engine(numbers(1), 1, 1)) == [0]  # mlx-data starts a thread of its own, once
    before = len(os.listdir("/proc/self/task")) if Path("/proc/self/task").is_dir() else None
    for _ in range(50):
        next(Engine(numbers(10**9), 4, 2))
    if before is not None:
        end = time.monotonic() + 10  # another thread ends them
        while len(os.listdir("/proc/self/task")) > before and time.monotonic() < end:
            time.sleep(0.01)
        assert len(os.listdir("/proc/self/task")) <= before


def test_two_threads_may_read_one_engine() -> None:
    engine, seen = Engine(numbers(200), 4, 2), []
    readers = [threading.Thread(target=lambda: seen.extend(engine)) for _ in range(2)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert sorted(seen) == list(range(200))


PROGRAM = """
import os, signal, sys, threading, time
from functools import partial
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background starts with it ignored
from streamgeo.engine import Engine, Pace
def give(i):
    time.sleep(0.005)
    return i
engine = Engine((partial(give, i) for i in range(10**9)), 8, 4)
next(engine); next(engine)
"""
ENDS = {
    "falls off the end": ("", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "exception": ("raise ValueError('x')", 1),
    "break": ("for x in engine: break", 0),
    "del": ("del engine", 0),
    "interrupt": (
        "threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()\nfor x in engine: pass",
        -signal.SIGINT,
    ),
    "interrupt caught": (
        "threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "try:\n    for x in engine: pass\nexcept KeyboardInterrupt: sys.exit(5)",
        5,
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_every_end_is_clean(end: str) -> None:
    code, expected = ENDS[end]
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM + code], cwd=ROOT, timeout=30, capture_output=True
        )
        assert done.returncode in (expected, 128 - expected if expected < 0 else expected), (
            done.stderr.decode()
        )


@pytest.mark.long
@pytest.mark.parametrize("end", ENDS)
def test_every_end_is_clean_fifty_times(end: str) -> None:
    code, expected = ENDS[end]
    for _ in range(50):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM + code], cwd=ROOT, timeout=30, capture_output=True
        )
        assert done.returncode in (expected, 128 - expected if expected < 0 else expected), (
            done.stderr.decode()
        )


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_both_sides_of_a_fork_get_the_rest() -> None:
    code = PROGRAM.replace("range(10**9)", "range(40)") + textwrap.dedent("""
        child = os.fork()
        rest = list(engine)
        assert rest == list(range(2, 40)), rest
        if child:
            pid, status = os.waitpid(child, 0)
            sys.exit(os.waitstatus_to_exitcode(status))
        more = list(Engine((partial(give, i) for i in range(9)), 4, 4))
        assert more == list(range(9))
        sys.exit(0)
    """)
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("size", [2, 16, 64])
def test_short_and_long_tasks_in_turn(size: int, threads: int) -> None:
    """Where it goes from threads to the consumer and back, nothing is lost, doubled or out of order."""
    rng = np.random.default_rng(size + threads)
    pauses = np.concatenate(
        [np.full(150, pause) for pause in rng.permutation([0, 3e-5, 0, 2e-4, 1e-3, 0, 6e-4])]
    )
    drawn: list[int] = []

    def work(number: int) -> int:
        end = time.perf_counter() + pauses[number]
        while time.perf_counter() < end:
            pass
        if number % 400 == 399:
            raise ValueError(number)
        return number

    def tasks() -> Iterator[Callable[[], int]]:
        for number in range(len(pauses)):
            drawn.append(number)
            yield partial(work, number)

    engine, got = Engine(tasks(), size, threads), []
    while True:
        try:
            got.append(next(engine))
        except ValueError as error:
            got.append(error.args[0])
        except StopIteration:
            break
    assert got == drawn == list(range(len(pauses)))


@pytest.mark.parametrize("size", [1, 4])
def test_a_source_that_waits_for_the_consumer_goes_on(size: int) -> None:
    """Whoever computes: the consumer must not wait for a draw that waits for what it does next."""
    given: SimpleQueue[int] = SimpleQueue()

    def tasks() -> Iterator[Callable[[], int]]:
        for _ in range(3000):
            yield partial(int, given.get(timeout=30))

    pace = Pace()
    engine, here = Engine(tasks(), size, 2, pace=pace), 0
    for number in range(3000):
        given.put(number)
        assert next(engine) == number
        here += pace.here
    assert here > 500


class Clock:
    """Time that passes only when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("streamgeo.engine.pace.perf_counter", clock)
    return clock


def pass_by(pace: Pace, clock: Clock, count: int, ahead: float, here: float) -> list[bool]:
    """Who computed each of so many results, where one takes so long with threads, and so long without."""
    found = []
    for _ in range(count):
        found.append(pace.here)
        clock.now += here if pace.here else ahead
        pace.took()
    return found


def test_the_consumer_computes_what_comes_sooner_without_threads(clock: Clock) -> None:
    pace = Pace()
    assert not any(pass_by(pace, clock, 64, 100e-6, 40e-6))
    assert all(pass_by(pace, clock, 1000, 100e-6, 40e-6))
    pace.begin()
    found = pass_by(pace, clock, 1000, 100e-6, 40e-6)
    assert not any(found[:64]) and all(found[128:]), "it may be otherwise where nothing is decoded any more"
    pace.begin()
    assert all(pass_by(pace, clock, 1000, 100e-6, 40e-6)), "the next epoch knows"


def test_what_the_first_epoch_tried_does_not_hold_for_the_next_ones(clock: Clock) -> None:
    """Its start is slow, since files are decoded: at its end anything seems quick."""
    pace = Pace()
    pass_by(pace, clock, 8, 10e-3, 9e-3)
    assert pass_by(pace, clock, 40, 5e-3, 6e-3)[-1]
    for _ in range(3):
        pace.begin()
        assert sum(pass_by(pace, clock, 40, 5e-3, 6e-3)) <= 4


def test_the_first_result_of_an_epoch_does_not_count(clock: Clock) -> None:
    """Threads have to start."""
    for first in (5e-3, 50e-3):
        pace = Pace()
        for _ in range(4):
            pace.begin()
            pass_by(pace, clock, 1, first, first)
            assert sum(pass_by(pace, clock, 30, 5e-3, 6e-3)) <= 4


def test_threads_go_on_where_they_are_worth_it_and_trials_become_rare(clock: Clock) -> None:
    pace = Pace()
    found = pass_by(pace, clock, 20000, 100e-6, 180e-6)
    assert 0 < sum(found) < 0.02 * len(found)
    assert not any(pass_by(Pace(), clock, 1000, 80e-3, 1e-3)), "what takes long is left to threads"


def test_the_consumer_stops_when_it_has_become_slow(clock: Clock) -> None:
    pace = Pace()
    pass_by(pace, clock, 1000, 100e-6, 40e-6)
    clock.now += 1.0  # the consumer thought for a second, once
    assert all(pass_by(pace, clock, 200, 100e-6, 40e-6))
    assert not pass_by(pace, clock, 200, 100e-6, 160e-6)[-1]


def test_threads_are_tried_again_after_a_while(clock: Clock) -> None:
    """They lost while another program had a processor: that passes, and only a trial tells."""
    pace = Pace()
    assert pass_by(pace, clock, 100, 11e-3, 9e-3)[-1]
    found = pass_by(pace, clock, 500, 5e-3, 9e-3)
    assert found[0] and sum(found[-100:]) < 20
    assert sum(pass_by(pace, clock, 5000, 5e-3, 9e-3)) < 250
    pace = Pace()
    found = pass_by(pace, clock, 100_000, 100e-6, 40e-6)
    assert sum(found) > 0.98 * len(found), "where threads lose again, trials become rare"


def test_long_results_are_not_tried_while_threads_work_side_by_side(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for busy, tried in ((1.8, False), (1.1, True)):
        monkeypatch.setattr("streamgeo.engine.pace.process_time", lambda busy=busy: busy * clock.now)
        assert any(pass_by(Pace(), clock, 200, 11e-3, 9e-3)) is tried
    monkeypatch.setattr("streamgeo.engine.pace.process_time", lambda: 2 * clock.now)
    assert any(pass_by(Pace(), clock, 2000, 100e-6, 40e-6)), "threads may be busy with handing over"


@pytest.mark.parametrize("by_name", [True, False])
def test_nothing_of_a_stream_stays_behind(by_name: bool) -> None:
    class Held:
        pass

    held = Held()
    known = weakref.ref(held)

    def tasks(held: Held) -> Iterator[Callable[[], int]]:
        while held:
            yield lambda: time.sleep(0.001) or 1

    engine: Engine[int] = Engine(tasks(held), 4, 2)
    gc.collect()
    gc.disable()
    try:
        next(engine)
        if by_name:
            engine.close()
        del engine, held
        end = time.monotonic() + 10
        while known() is not None and time.monotonic() < end:
            time.sleep(0.01)
        assert known() is None
    finally:
        gc.enable()
