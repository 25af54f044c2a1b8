"""Numbers and names that make no sense are refused where the chain is built, by a message with the value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import streamgeo as sg

BUFFER = sg.buffer_from_vector([{"x": np.arange(3.0) + i} for i in range(6)])
STREAM = BUFFER.to_stream()
NAN, INF = float("nan"), float("inf")
NO_NUMBER: list[Any] = [1.5, 2.0, NAN, INF, "a", [], {}, True, np.float64(2), b"2"]
NOT_POSITIVE: list[Any] = [0, -1, np.int64(-3)]
NO_KEY: list[Any] = [0, 1.5, True, None, "", [], [1], b"x"]

Call = Callable[[Any], object]
CALLS: dict[str, tuple[Call, list[Any]]] = {
    "batch": (lambda v: BUFFER.batch(v), [*(v for v in NO_NUMBER if not isinstance(v, list)), *NOT_POSITIVE, None]),
    "batch sizes": (lambda v: BUFFER.batch([2, v]), [*NO_NUMBER, *NOT_POSITIVE, None]),
    "batch no sizes": (lambda v: BUFFER.batch(v), [[], (), np.zeros(0, int)]),
    "batch pad": (lambda v: BUFFER.batch(2, pad=v), [0, 1.5, "a", [1, 2], {"x": "a"}, {"x": None}]),
    "batch dim": (lambda v: BUFFER.batch(2, dim=v), [0, 1.5, "a", [1, 2], {"x": 1.5}, {"x": None}]),
    "prefetch size": (lambda v: BUFFER.prefetch(v, 2), [*NO_NUMBER, *NOT_POSITIVE, None, 10**30]),
    "prefetch threads": (lambda v: BUFFER.prefetch(2, v), [*NO_NUMBER, *NOT_POSITIVE, None, 1025, 10**30]),
    "prefetch bytes": (lambda v: BUFFER.prefetch(2, 2, max_bytes=v), [*NO_NUMBER, *NOT_POSITIVE]),
    "shuffle": (lambda v: BUFFER.shuffle(v), [*NO_NUMBER, None]),
    "shuffle locality": (lambda v: BUFFER.shuffle(0, v), [*NO_NUMBER, *NOT_POSITIVE]),
    "shuffle buffer": (lambda v: STREAM.shuffle(v), [*NO_NUMBER, *NOT_POSITIVE, None]),
    "shuffle buffer seed": (lambda v: STREAM.shuffle(3, v), [*NO_NUMBER, None]),
    "take": (lambda v: BUFFER.take(v), [*NO_NUMBER, -1, None]),
    "skip": (lambda v: STREAM.skip(v), [*NO_NUMBER, -1, None]),
    "repeat": (lambda v: BUFFER.repeat(v), [*NO_NUMBER, *NOT_POSITIVE, None]),
    "shards": (lambda v: BUFFER.shard(v, 0), [*(v for v in NO_NUMBER if v != "a"), *NOT_POSITIVE, None]),
    "shard": (lambda v: BUFFER.shard(2, v), [*NO_NUMBER, -1, 2]),
    "shard of a stream": (lambda v: STREAM.shard(2, v), [*NO_NUMBER, -1, 2]),
    "partition": (lambda v: BUFFER.partition(2, v), [*NO_NUMBER, -1, 2, None]),
    "perm": (lambda v: BUFFER.perm(v), [[1.5], [NAN], ["a"], [True], [6], [-1], [10**30], 0, None, [[1]]]),
    "mix seed": (lambda v: sg.mix([BUFFER, BUFFER], seed=v), [*NO_NUMBER, None]),
    "mix weights": (lambda v: sg.mix([BUFFER, BUFFER], v), [1, "ab", [1], [1, 0], [1, NAN], [1, "a"], [1, None]]),
    "limit": (lambda v: STREAM.on_error("skip", v), [-1, 1.5, NAN, INF, "a", None, [], True, -0.1]),
    "action": (lambda v: STREAM.on_error(v), [None, 1, "", "Skip", []]),
    "index": (lambda v: BUFFER[v], [1.5, NAN, "a", None, [], [1]]),
    "key": (lambda v: BUFFER.key_transform(v, abs), NO_KEY),
    "rename": (lambda v: BUFFER.rename_key("x", v), NO_KEY),
    "filter_key": (lambda v: BUFFER.filter_key(v), NO_KEY),
    "files key": (lambda v: sg.files(["a"], v), NO_KEY),
    "files": (lambda v: sg.files(v), [0, 1.5, None, [], [1], b"a"]),
    "vector": (lambda v: sg.buffer_from_vector(v), [0, None, "ab", {"x": 1}, [1], [None]]),
    "window": (lambda v: BUFFER.sliding_window("x", v, 1), [*NO_NUMBER, *NOT_POSITIVE, None]),
    "buffered": (lambda v: STREAM.buffered(v), [*NO_NUMBER, *NOT_POSITIVE, None]),
    "buffered threads": (lambda v: STREAM.buffered(2, None, v), [*NO_NUMBER, *NOT_POSITIVE, None, 10**30]),
    "dynamic pad": (lambda v: BUFFER.dynamic_batch("x", pad=v), [0, "a", {"x": "a"}]),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_is_refused(name: str) -> None:
    call, values = CALLS[name]
    for value in values:
        try:
            call(value)
        except sg.StreamGeoError as error:
            assert len(str(error)) > 20
        else:
            pytest.fail(f"{name} took {value!r}")


ENDLESS = {
    "repeat": STREAM.repeat(),
    "batch": STREAM.repeat(-1).batch(2).prefetch(2, 2),
    "concatenate": sg.concatenate(BUFFER, STREAM.repeat()),
    "mix": sg.mix([BUFFER, STREAM.repeat()]),
    "zip": sg.zip(STREAM.repeat(), BUFFER.rename_key("x", "y").to_stream().repeat()),
    "skip": STREAM.repeat().skip(3).filter(bool),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_stream_without_end_is_no_buffer(name: str) -> None:
    with pytest.raises(sg.ChainError, match="no end"):
        ENDLESS[name].to_buffer()
    assert len(ENDLESS[name].take(5).to_buffer()) == 5


@pytest.mark.parametrize("value", [None, {"y": 1}, object(), {1, 2}, [None]])
def test_values_that_are_no_arrays(value: Any) -> None:
    with pytest.raises(sg.SampleError, match="a value is a .*; give an array"):
        sg.buffer_from_vector([{"x": value}])[0]
    with pytest.raises(sg.SampleError, match="a value is a .*; give an array"):
        BUFFER.sample_transform(lambda sample: {"x": value})[0]


def test_whole_numbers_of_numpy_are_taken() -> None:
    chain = BUFFER.shuffle(np.int64(1)).take(np.int32(4)).repeat(np.uint8(2)).shard(np.int64(2), np.int64(1))
    assert [len(batch["x"]) for batch in chain.batch(np.int64(3)).prefetch(np.int64(2), np.int64(2))] == [
        3,
        1,
    ]
    assert BUFFER[np.array(2)]["x"][0] == BUFFER[np.int8(2)]["x"][0] == 2
    assert len(BUFFER.batch(np.array([2, 4]))) == 2
