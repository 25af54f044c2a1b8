"""Laws of every chain, over chains that are put together at random: same batches always, resumable anywhere."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import streamgeo as sg


def noisy(x: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    return x + rng.random(x.shape)


def few(sample: dict[str, np.ndarray]) -> bool:
    return bool(np.floor(sample["x"].ravel()[0]) % 3)


def drop(sample: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return sample if few(sample) else {}


BUFFER = {
    "noise": lambda b, n: b.key_transform("x", noisy),
    "shuffle": lambda b, n: b.shuffle(seed=n),
    "local": lambda b, n: b.shuffle(seed=n, locality=1 + n % 4),
    "patch": lambda b, n: b.key_transform("x", sg.patch(2 + n % 2, edge="pad", fill=0.0)),
    "shard": lambda b, n: b.shard(2, n % 2),
    "partition": lambda b, n: b.partition(3, n % 3),
    "take": lambda b, n: b.take(5 + n),
    "skip": lambda b, n: b.skip(n % 4),
    "repeat": lambda b, n: b.repeat(1 + n % 2),
    "concatenate": lambda b, n: sg.concatenate(b, vectors(n)),
    "clip": lambda b, n: b.key_transform("x", sg.clip(high=float(n))),
}
STREAM = {
    "noise": lambda s, n: s.key_transform("x", noisy),
    "reservoir": lambda s, n: s.shuffle(1 + n, seed=n),
    "filter": lambda s, n: s.filter(few),
    "drop": lambda s, n: s.sample_transform(drop),
    "take": lambda s, n: s.take(6 + n),
    "skip": lambda s, n: s.skip(n % 4),
    "repeat": lambda s, n: s.repeat(1 + n % 2),
    "shard": lambda s, n: s.shard(2, n % 2),
    "prefetch": lambda s, n: s.prefetch(1 + n, 1 + n % 3),
    "mix": lambda s, n: sg.mix([s, vectors(n).to_stream()], weights=[1 + n, 2], seed=n),
    "concatenate": lambda s, n: sg.concatenate(s, vectors(n).to_stream()),
}
NUMBER = st.integers(0, 9)
PLAN = st.tuples(
    st.lists(st.tuples(st.sampled_from(sorted(BUFFER)), NUMBER), max_size=4),
    st.lists(st.tuples(st.sampled_from(sorted(STREAM)), NUMBER), max_size=3),
    st.integers(1, 4),
)


def vectors(count: int) -> sg.Buffer:
    return sg.buffer_from_vector([{"x": np.full((4, 4), float(i))} for i in range(count)])


def build(plan: Any, ahead: tuple[int, int] | None = None) -> sg.Stream:
    on_buffer, on_stream, batch = plan
    chain: Any = vectors(11)
    for name, number in on_buffer:
        if name == "patch" and any(
            other == "patch" for other, _ in on_buffer[: on_buffer.index((name, number))]
        ):
            continue
        chain = BUFFER[name](chain, number)
    stream = chain.to_stream()
    for name, number in on_stream:
        stream = STREAM[name](stream, number)
    if not any(name in ("mix", "concatenate") for name, _ in (*on_stream, *on_buffer)):
        stream = stream.batch(batch)  # others may join samples of several shapes
    return stream if ahead is None else stream.prefetch(*ahead)


def same(a: Any, b: Any) -> bool:
    return len(a) == len(b) and all(
        x.keys() == y.keys() and all(np.array_equal(x[key], y[key]) for key in x) for x, y in zip(a, b)
    )


@settings(max_examples=120, deadline=None)
@given(PLAN, st.data())
def test_laws_of_chains(plan: Any, data: st.DataObject) -> None:
    stream = build(plan)
    epochs = [list(stream), list(stream)]
    for ahead in ((1, 1), (3, 2), (64, 4)):
        threaded = build(plan, ahead)
        assert same(list(threaded), epochs[0])
        assert same(list(threaded), epochs[1])

    position = data.draw(st.integers(0, len(epochs[1])))
    threaded = build(plan, (3, 2))
    list(threaded)
    iterator = iter(threaded)
    for _ in range(position):
        next(iterator)
    state = json.loads(json.dumps(threaded.state_dict()))
    carried = pickle.loads(pickle.dumps(threaded))
    threaded.close()
    again = build(plan, (2, 4))
    again.load_state_dict(state)
    assert same(list(again), epochs[1][position:])
    assert same(list(carried), epochs[1][position:])
