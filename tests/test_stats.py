"""Seeing inside: where the time went, what limits the speed, and the chain as a table."""

from __future__ import annotations

import io
import pickle
import time
from time import perf_counter

import numpy as np
import pytest

import streamgeo as sg
from streamgeo import made, meter
from streamgeo.links import epoch
from streamgeo.plan import Run
from streamgeo.progress import Line


def vectors(count: int = 24) -> sg.Buffer:
    return sg.buffer_from_vector([{"x": np.full((4, 4), float(i))} for i in range(count)])


def slow(x: np.ndarray) -> np.ndarray:
    time.sleep(0.01)
    return x


@pytest.fixture(scope="module")
def land(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("land")
    made.land(folder, 2, (100, 120))
    return str(folder / "*.tif")


def opened(pattern: str) -> sg.Buffer:
    return sg.files(pattern, key="image").key_transform("image", sg.open_geotiff())


def test_nested_spans_add_up_to_the_outer_one() -> None:
    m = meter.Meter()
    began = perf_counter()
    with m.running(meter.NEXT), meter.span("outer"):
        time.sleep(0.01)
        with meter.span("inner"):
            time.sleep(0.02)
    took = perf_counter() - began
    sums = m.sums()
    assert sums["inner"] >= 0.02 and sums["outer"] >= 0.01
    assert sums["inner"] + sums["outer"] <= sums[meter.NEXT] <= took


def test_without_a_meter_nothing_is_kept() -> None:
    assert meter.current() is None
    assert meter.span("a") is meter.span("b")
    meter.count("a")
    assert meter.current() is None


def test_counts_of_samples_batches_bytes_and_epochs() -> None:
    stream = vectors(10).batch(4).prefetch(2, 2)
    assert stream.stats().samples == 0 and "nothing" in stream.stats().limit
    for epochs in (1, 2):
        total = sum(batch["x"].nbytes for batch in stream)
        stats = stream.stats()
        assert (stats.samples, stats.batches, stats.threads) == (10 * epochs, 3 * epochs, 2)
        assert stats.bytes_per_s * stats.seconds == pytest.approx(total * epochs)
        assert stats.samples_per_s == pytest.approx(stats.samples / stats.seconds)
    single = vectors(5).to_stream()
    list(single)
    assert (single.stats().samples, single.stats().batches, single.stats().threads) == (5, 0, 0)


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_the_parts_are_the_whole(threads: int) -> None:
    chain = vectors().key_transform("x", slow).batch(4)
    stream = chain.prefetch(4, threads) if threads else chain.to_stream()
    list(stream)
    s = stream.stats()
    assert s.steps_s["slow"] >= 0.01 * 24
    parts = s.read_s + s.source_s + s.batch_s + s.other_s + sum(s.steps_s.values())
    assert parts == pytest.approx(s.work_s)
    if threads:
        assert s.work_s + s.worker_wait_s == pytest.approx(threads * s.seconds, rel=0.3)
        assert s.consumer_wait_s <= s.seconds
    else:
        assert s.consumer_wait_s == s.worker_wait_s == 0
        assert s.work_s + s.consumer_s == pytest.approx(s.seconds)
    assert all(text in str(s) for text in ("samples", "slow", "queue fill", s.limit))


@pytest.mark.parametrize("prefetch", [False, True])
def test_a_slow_step_is_named(prefetch: bool) -> None:
    chain = vectors().key_transform("x", slow).batch(4)
    stream = chain.prefetch(4, 2) if prefetch else chain.to_stream()
    list(stream)
    assert stream.stats().limit.startswith("step slow limits: ")
    assert (".prefetch" in stream.stats().limit) is not prefetch


@pytest.mark.parametrize("prefetch", [False, True])
def test_a_slow_consumer_is_named(prefetch: bool) -> None:
    chain = vectors().batch(2)
    stream = chain.prefetch(4, 2) if prefetch else chain.to_stream()
    for _ in stream:
        time.sleep(0.03)
    stats = stream.stats()
    assert stats.limit.startswith("the consumer limits: ")
    assert stats.consumer_s > 0.5 * stats.seconds
    assert stats.queue_fill > 0 or not prefetch


def test_slow_reading_is_named(land: str, monkeypatch) -> None:
    from streamgeo.sources.geotiff import GeoTiffScene

    real = GeoTiffScene.copies

    def late(self, window, out):
        time.sleep(0.02)
        return real(self, window, out)

    monkeypatch.setattr(GeoTiffScene, "copies", late)
    stream = opened(land).key_transform("image", sg.patch(50)).batch(2).prefetch(2, 2)
    assert sum(1 for _ in stream) == 6  # list() would ask for the length first, and open the files unmeasured
    stats = stream.stats()
    assert stats.limit.startswith("reading limits: ") and stats.read_s >= 0.02 * stats.samples
    assert set(stats.steps_s) == {"open_geotiff", "patch"}


def test_a_slow_source_is_named() -> None:
    def samples():
        for i in range(12):
            time.sleep(0.01)
            yield {"x": np.full(3, i)}

    stream = sg.stream_python_iterable(samples).batch(2).prefetch(2, 2)
    list(stream)
    assert stream.stats().limit.startswith("the source limits: ")


def test_links_behind_prefetch_run_in_the_consumers_thread() -> None:
    stream = vectors().prefetch(4, 1).key_transform("x", slow)
    list(stream)
    assert stream.stats().limit.startswith("the consumer's own thread limits: ")


def test_caches_are_counted(land: str) -> None:
    chain = opened(land).key_transform("image", lambda x: x + 1).key_transform("image", sg.patch(50))
    stream = chain.to_stream()
    list(stream)
    first = stream.stats()
    assert first.cache_misses >= 2  # two scenes were computed whole
    assert first.cache_hits >= first.samples - 2
    list(stream)
    assert stream.stats().cache_misses == first.cache_misses


def test_two_streams_keep_their_own_numbers() -> None:
    fast, other = vectors(8).to_stream(), vectors(6).key_transform("x", slow).to_stream()
    for _ in zip(fast, other):
        pass
    assert "slow" not in fast.stats().steps_s and other.stats().samples == 6


def test_measuring_changes_nothing() -> None:
    chain = vectors().shuffle(seed=3).batch(5).prefetch(3, 2)
    bare = [ready.sample["x"] for ready in epoch(chain.node, Run(chain.node.seed))]
    measured = [batch["x"] for batch in chain.progress()]
    assert len(bare) == len(measured)
    for a, b in zip(bare, measured):
        np.testing.assert_array_equal(a, b)


def test_measuring_costs_little() -> None:
    chain = vectors(2000).key_transform("x", np.negative)

    def seconds(samples) -> float:
        began = perf_counter()
        assert sum(1 for _ in samples) == 2000
        return perf_counter() - began

    bare = min(seconds(epoch(chain.node, Run())) for _ in range(3))
    measured = min(seconds(chain.to_stream()) for _ in range(3))
    assert measured < 4 * bare


def test_a_pickled_stream_begins_to_count_anew() -> None:
    stream = vectors(6).key_transform("x", np.negative).batch(2).to_stream().progress()
    list(stream)
    again = pickle.loads(pickle.dumps(stream))
    assert again.line and again.stats().samples == 0
    again.load_state_dict(stream.state_dict())
    assert len(list(again)) == 3 and again.stats().samples == 6


def test_errors_and_progress_survive_further_links() -> None:
    stream = vectors(6).to_stream().on_error("skip", 3).progress().batch(2).prefetch(2, 1)
    assert stream.line and stream.errors.action == "skip"
    assert len(list(stream)) == 3


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_line_shows_rate_and_limit_on_a_terminal_only(monkeypatch) -> None:
    from streamgeo import progress

    monkeypatch.setattr(progress, "_EVERY", 0.0)
    for output, shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr("sys.stderr", output)
        stream = vectors(8).to_stream()
        list(stream)
        line = Line(stream.node, stream.stats)
        line._bar.delay = 0
        line._bar.mininterval = 0
        for _ in range(8):
            line.step()
        line._bar.refresh() if shown else None
        line.close()
        assert ("samples/s" in output.getvalue() and "limit" in output.getvalue()) is shown


# -- the chain as a table -------------------------------------------------------------------------------


def test_it_says_where_threads_were_tried_in_vain() -> None:
    chain = sg.buffer_from_vector([{"x": np.ones(9, np.float32)} for _ in range(5000)])
    stream = chain.key_transform("x", np.negative).prefetch(16, 2)
    pace = stream.node._pace
    pace.here, pace.ahead = True, 1.0  # as a measurement would have it, whatever else the machine does
    for _ in stream:
        pass
    assert "threads were tried" in stream.stats().limit
