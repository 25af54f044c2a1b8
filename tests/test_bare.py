"""Batches of samples that are arrays in memory are made in one loop, and are what they are made one by one."""

from __future__ import annotations

import traceback
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamgeo as sg
from streamgeo.links.batch import _Slots

Array = np.ndarray


def double(x: Array) -> Array:
    return x * 2


def lift(x: Array) -> Array:
    return x + 1


def odd(x: Array) -> Array:
    if int(x.ravel()[0]) % 2:
        raise ValueError(f"{x.ravel()[0]} is odd")
    return x


def one_by_one(chain: sg.Buffer) -> sg.Buffer:
    """The same chain in a way that is not made in one loop."""
    other = chain.sample_transform(dict)
    assert chain.node.bare is not None
    assert other.node.bare is None
    return other


STEPS = (double, lift, sg.normalize(1.0, 2.0), sg.cast("float64"), sg.clip(0, 9))


@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(1, 40),
    size=st.integers(1, 9),
    steps=st.lists(st.sampled_from(STEPS), max_size=4),
    output=st.sampled_from(["x", "y"]),
    seed=st.none() | st.integers(0, 5),
    dtype=st.sampled_from(["float32", "float64", "int16", ">f4", "bool"]),
    drop=st.booleans(),
)
def test_batches_are_the_same(
    count: int, size: int, steps: list[Any], output: str, seed: int | None, dtype: str, drop: bool
) -> None:
    data = [{"x": np.arange(n, n + 3).astype(dtype), "n": n, "name": f"{n:03}"} for n in range(count)]
    chain = sg.buffer_from_vector(data)
    for step in steps:
        chain = chain.key_transform("x", step, output)
    if seed is not None:
        chain = chain.shuffle(seed)[: count // 2 + 1]
    batches, others = chain.batch(size, drop_last=drop), one_by_one(chain).batch(size, drop_last=drop)
    assert len(batches) == len(others)
    for one, other in zip(batches.prefetch(2, 2), others, strict=True):
        assert list(one) == list(other)
        for key, value in one.items():
            assert value.dtype == other[key].dtype
            np.testing.assert_array_equal(value, other[key])
    state = batches.to_stream()
    iterator = iter(state)
    next(iterator, None)
    told = others.to_stream()
    next(iter(told), None)
    assert state.state_dict()["cursor"] == told.state_dict()["cursor"]


def numbers(count: int) -> sg.Buffer:
    return sg.buffer_from_vector([{"x": np.array([n])} for n in range(count)])


def test_the_first_failing_sample_is_named_with_its_step_and_traceback() -> None:
    chain = numbers(10).key_transform("x", lift).key_transform("x", odd)
    messages = []
    for stream in (chain.batch(4).to_stream(), one_by_one(chain).batch(4).to_stream()):
        with pytest.raises(sg.SampleError, match="sample 0: odd failed: ValueError: 1 is odd") as raised:
            list(stream)
        assert raised.value.step == "odd"
        assert raised.value.index == 0
        assert type(raised.value.__cause__) is ValueError
        assert "in odd" in "".join(traceback.format_tb(raised.value.__cause__.__traceback__))
        messages.append(str(raised.value))
    assert messages[0] == messages[1]


def test_failing_samples_are_left_out() -> None:
    chain = numbers(10).key_transform("x", odd)
    found = []
    for stream in (chain.batch(4).to_stream(), one_by_one(chain).batch(4).to_stream()):
        stream = stream.on_error("skip", limit=9)
        found.append([batch["x"].ravel().tolist() for batch in stream])
        assert [error.index for error in stream.skipped] == [1, 3, 5, 7, 9]
    assert found == [[[0, 2], [4, 6], [8]]] * 2


class Broken:
    shape, dtype = (9,), np.dtype("f8")

    def __array__(self, *_: Any) -> Array:
        raise OSError("gone")


def test_a_sample_that_is_left_out_leaves_nothing_behind() -> None:
    slots = _Slots(3, ())
    slots.take({"x": np.zeros(1), "y": np.zeros(1)})
    with pytest.raises(OSError, match="gone"):
        slots.take({"x": np.zeros(2), "y": Broken()})  # type: ignore[dict-item]
    slots.take({"x": np.ones(1), "y": np.ones(1)})
    assert slots.count == 2
    assert slots.columns["x"].arrays(2)[1].tolist() == [1]
    assert not slots.columns["x"].loose


def test_what_a_step_returns_is_checked() -> None:
    for bad in (lambda x: None, lambda x: (x, x), lambda x: np.ma.masked_array(x, True)):
        with pytest.raises(sg.SampleError, match="returned"):
            numbers(3).key_transform("x", bad).batch(2)[0]


def test_a_missing_key_is_told() -> None:
    with pytest.raises(sg.SampleError, match=r"no key 'z' in the sample; it has \['x'\]") as raised:
        numbers(3).key_transform("z", double).batch(2)[1]
    assert isinstance(raised.value.__cause__, sg.MissingKeyError)


@pytest.mark.parametrize("error", [StopIteration, KeyboardInterrupt, SystemExit])
def test_errors_that_are_none(error: type[BaseException]) -> None:
    def fail(x: Array) -> Array:
        raise error

    batches = numbers(3).key_transform("x", fail).batch(2)
    expected = sg.SampleError if error is StopIteration else error
    for stream in (batches.to_stream(), batches.prefetch(2, 2)):
        with pytest.raises(expected):
            list(stream)


def test_the_source_cannot_be_written_to() -> None:
    def write(x: Array) -> Array:
        x[...] = 0
        return x

    data = [{"x": np.ones(3)}] * 2
    with pytest.raises(sg.SampleError, match="read-only"):
        sg.buffer_from_vector(data).key_transform("x", write).batch(2)[0]
    assert data[0]["x"].tolist() == [1, 1, 1]


def test_samples_go_through_the_steps_one_after_another() -> None:
    calls = []

    def note(name: str, x: Array) -> Array:
        calls.append((name, int(x[0])))
        return x

    chain = numbers(2).key_transform("x", lambda x: note("a", x)).key_transform("x", lambda x: note("b", x))
    chain.batch(2)[0]
    assert calls == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]


def test_time_of_a_stream_inside_a_step_counts_once() -> None:
    inner = numbers(50).key_transform("x", double).batch(5)

    def read(x: Array) -> Array:
        return x + sum(int(batch["x"].sum()) for batch in inner)

    stream = numbers(20).key_transform("x", read).batch(4).to_stream()
    list(stream)
    stats = stream.stats()
    assert sum(stats.steps_s.values()) + stats.batch_s + stats.other_s <= stats.seconds * 1.01


def test_numbers_of_the_samples_of_a_batch_go_back() -> None:
    chain = sg.buffer_from_vector([{"x": np.full((4, 4), n, "f4")} for n in range(6)])
    chain = chain.key_transform("x", sg.normalize(1.0, 2.0)).shuffle(3)
    scenes = {scene.name: scene.read() for scene in chain.batch(4).predict(lambda x: x, key="x")}
    others = {scene.name: scene.read() for scene in one_by_one_parts(chain).predict(lambda x: x, key="x")}
    assert scenes.keys() == others.keys()
    for name, value in scenes.items():
        np.testing.assert_array_equal(value, others[name])


def one_by_one_parts(chain: sg.Buffer) -> sg.Buffer:
    """Batches of one size more by a list, which are not made in one loop."""
    return chain.batch([4, 2])
