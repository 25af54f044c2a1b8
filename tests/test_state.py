"""Resume: a state taken behind any sample gives exactly the rest, in a new process, for every kind of chain."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import streamgeo as sg
from streamgeo import made


def noisy(x: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    return x + rng.random(x.shape)


def vectors(count: int = 23) -> sg.Buffer:
    return sg.buffer_from_vector([{"x": np.full((4, 4), float(i))} for i in range(count)])


def iterable() -> sg.Stream:
    return sg.stream_python_iterable(lambda: ({"x": np.full((4, 4), float(i))} for i in range(23)))


def odd(sample: dict[str, np.ndarray]) -> bool:
    return bool(sample["x"][0, 0] % 2)


FOLDER = tempfile.TemporaryDirectory()  # for the caches that keep samples in files


def lengths() -> sg.Buffer:
    return sg.buffer_from_vector([{"x": np.arange(3.0 + 5 * i % 13), "i": i} for i in range(23)])


def images() -> sg.Buffer:
    pixels = np.random.default_rng(0).integers(0, 256, (11, 7, 9, 3), np.uint8)
    return sg.buffer_from_vector([{"x": image} for image in pixels])


CHAINS: dict[str, Callable[[], sg.Stream]] = {
    "plain": lambda: vectors().to_stream(),
    "random": lambda: vectors().key_transform("x", noisy).shuffle(seed=3).batch(4).prefetch(3, 2),
    "patched": lambda: vectors(5).key_transform("x", sg.patch(2)).batch(3).prefetch(4, 2),
    "patched, shuffled": lambda: (
        vectors(5).key_transform("x", sg.patch(2)).shuffle(seed=1).batch(3).prefetch(4, 2)
    ),
    "patched stream": lambda: iterable().key_transform("x", sg.patch(2)).batch(5),
    "iterable": lambda: iterable().key_transform("x", noisy).batch(4).prefetch(2, 2),
    "reservoir": lambda: iterable().shuffle(7, seed=2).batch(3).prefetch(2, 1),
    "repeat": lambda: vectors(6).shuffle(seed=1).to_stream().repeat(3).batch(4).prefetch(2, 2),
    "repeat buffer": lambda: (
        vectors(6).key_transform("x", noisy).shuffle(seed=1).repeat(3).batch(4).prefetch(2, 2)
    ),
    "slices and lists": lambda: vectors()[3:20:2].batch([2, 1, 3]).to_stream(),
    "two prefetches": lambda: vectors().key_transform("x", noisy).prefetch(3, 2).batch(4).prefetch(2, 1),
    "shard": lambda: vectors().shuffle(seed=5).shard(3, 1).batch(2).prefetch(2, 2),
    "shard of batches": lambda: vectors().batch(2).prefetch(2, 2).shard(3, 2),
    "skips": lambda: (
        vectors().to_stream().sample_transform(lambda s: s if s["x"][0, 0] % 3 else {}).prefetch(2, 2)
    ),
    "drop last": lambda: vectors().batch(4, drop_last=True).prefetch(2, 2),
    "windows": lambda: (
        vectors(5)
        .key_transform("x", noisy)
        .sliding_window("x", 2, 1, 0, "i")
        .batch(3, {"x": 0})
        .prefetch(3, 2)
    ),
    "windows of an iterable": lambda: (
        iterable().sliding_window("x", 3, 2).filter_by_shape("x", -1, 3).batch(4)
    ),
    "dropping": lambda: (
        iterable().sample_transform(lambda s: s if s["x"][0, 0] % 3 else {}).batch(4).prefetch(3, 2)
    ),
    "buffered": lambda: (
        vectors()
        .key_transform("x", noisy)
        .shuffle(seed=4)
        .to_stream()
        .buffered(5, lambda b: b.shuffle().key_transform("x", noisy))
        .batch(3)
        .prefetch(3, 2)
    ),
    "dynamic batches": lambda: lengths().to_stream().dynamic_batch(7, "x", 40, shuffle=True).prefetch(2, 2),
    "dynamic batches that wait": lambda: (
        lengths()
        .key_transform("x", noisy)
        .to_stream()
        .dynamic_batch(7, "x", 40, min_data_size=30, num_threads=2)
    ),
    "dynamic batches of a buffer": lambda: lengths().shuffle(seed=2).dynamic_batch("x", 9, 40).prefetch(2, 2),
    "rows": lambda: (
        sg.stream_csv_reader_from_string("a,b\n" + "1,2\n3,4\n" * 9).shuffle(4).batch(3).prefetch(2, 2)
    ),
    "rows of several": lambda: (
        sg.buffer_from_vector([{"f": b"a\n1\n2\n3\n"}] * 4)
        .to_stream()
        .csv_reader_from_key("f", from_memory=True)
        .batch(5)
        .prefetch(2, 2)
    ),
    "lines": lambda: (
        sg.buffer_from_vector([{"f": b"a\nbb\nc"}] * 4).to_stream().line_reader_from_key("f", "l", True)
    ),
    "random crops": lambda: (
        images()
        .image_random_crop("x", 5, 4)
        .image_random_h_flip("x", 0.5)
        .random_slice("x", 0, 3, "y")
        .shuffle(seed=3)
        .batch(3)
        .prefetch(3, 2)
    ),
    "random area crops and kernels": lambda: (
        images()
        .image_random_area_crop("x", (0.3, 0.9), (0.5, 2.0))
        .image_resize("x", 3, 3)
        .batch(4)
        .prefetch(2, 4)
    ),
    "cached": lambda: (
        vectors().key_transform("x", np.negative).cache().shuffle(seed=2).batch(4).prefetch(3, 2)
    ),
    "cached patches": lambda: (
        vectors(5)
        .key_transform("x", sg.patch(2))
        .cache(3000)
        .key_transform("x", noisy)
        .batch(3)
        .prefetch(2, 2)
    ),
    "cached stream": lambda: iterable().key_transform("x", np.negative).cache(4000).batch(3).prefetch(2, 2),
    "cached in a folder": lambda: (
        vectors().shuffle(seed=4).cache(folder=FOLDER.name).key_transform("x", noisy).batch(4).prefetch(2, 2)
    ),
    "stream cached in a folder": lambda: (
        iterable().prefetch(2, 2).filter(odd).cache(folder=FOLDER.name).batch(3).prefetch(2, 2)
    ),
}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("name", CHAINS)
def test_restored_at_every_step_it_gives_the_rest(name: str) -> None:
    build = CHAINS[name]
    list(build())
    stream = build()
    list(stream)  # the second epoch: the order is another
    states, samples = [], []
    iterator = iter(stream)
    states.append(stream.state_dict())
    for sample in iterator:
        samples.append(sample)
        states.append(json.loads(json.dumps(stream.state_dict())))
    following = list(stream)
    for position, state in enumerate(states[:-1]):
        again = build()
        again.load_state_dict(state)
        rest = list(again)
        assert len(rest) == len(samples) - position
        assert all(same(a, b) for a, b in zip(rest, samples[position:], strict=True))
        if position % 5 == 0:
            assert all(same(a, b) for a, b in zip(again, following, strict=True))  # and then the next epoch


def test_a_state_behind_the_last_sample_goes_on_with_the_next_epoch() -> None:
    build = CHAINS["random"]
    stream = build()
    first, second = list(stream), list(stream)
    assert not same(first[0], second[0])
    other = build()
    list(other)
    again = build()
    again.load_state_dict(other.state_dict())
    assert all(same(a, b) for a, b in zip(again, second, strict=True))


def test_streams_pickle_at_their_position() -> None:
    stream = CHAINS["random"]()
    iterator = iter(stream)
    next(iterator), next(iterator)
    again = pickle.loads(pickle.dumps(stream))
    assert all(same(a, b) for a, b in zip(again, iterator, strict=True))


def test_a_new_process_goes_on_where_another_stopped(tmp_path: Path) -> None:
    made.land(tmp_path, 2, (90, 100))
    program = """
import json, sys
import streamgeo as sg
chain = sg.files(sys.argv[1] + "/*.tif", key="i").key_transform("i", sg.open_geotiff()).key_transform("i", sg.patch(32))
stream = chain.shuffle(seed=7).batch(3).prefetch(4, 2)
if len(sys.argv) > 2:
    stream.load_state_dict(json.loads(sys.argv[2]))
for number, batch in enumerate(stream):
    print(json.dumps([batch["i.window"].tolist(), stream.state_dict()]))
"""

    def run(*arguments: str) -> list:
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path), *arguments],
            cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True,
        )  # fmt: skip
        return [json.loads(line) for line in done.stdout.splitlines()]

    whole = run()
    assert run(json.dumps(whole[2][1])) == whole[3:]


def test_a_state_of_another_chain_is_refused_with_what_differs() -> None:
    state = vectors().shuffle(seed=1).batch(4).to_stream().state_dict()
    for other, says in (
        (
            vectors().shuffle(seed=2).batch(4).to_stream(),
            r"'\.shuffle\(seed=1\)' in the state, '\.shuffle\(seed=2\)' here",
        ),
        (vectors().shuffle(seed=1).batch(5).to_stream(), r"batch\(4\)' in the state"),
        (vectors().shuffle(seed=1).to_stream(), "in the state"),
    ):
        with pytest.raises(sg.ChainError, match="that of another chain: .*" + says):
            other.load_state_dict(state)
    with pytest.raises(sg.ChainError, match="not a state of a stream"):
        vectors().to_stream().load_state_dict({"epoch": 1})
    with pytest.raises(sg.ChainError, match="version 9"):
        vectors().to_stream().load_state_dict({**state, "version": 9})


def test_a_changed_file_is_told(tmp_path: Path) -> None:
    for number in range(3):
        np.save(tmp_path / f"{number}.npy", np.zeros((4, 4)))
    chain = sg.files(str(tmp_path / "*.npy"), key="x").key_transform("x", sg.open_numpy())
    state = chain.to_stream().state_dict()
    chain.to_stream().load_state_dict(state)
    np.save(tmp_path / "1.npy", np.zeros((4, 5)))
    with pytest.raises(sg.ChainError, match="3 files, .* in the state, '3 files"):
        chain.to_stream().load_state_dict(state)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (3, 2), (2, 4)])
@pytest.mark.parametrize("kind", ["buffer", "stream"])
def test_elastic_shards(before: int, after: int, kind: str) -> None:
    def shard(count: int, index: int) -> sg.Stream:
        chain = vectors(24).shuffle(seed=2).batch(2)
        return (
            chain.shard(count, index) if kind == "buffer" else chain.prefetch(2, 2).shard(count, index)
        ).to_stream()

    whole = [float(b["x"][0, 0, 0]) for b in vectors(24).shuffle(seed=2).batch(2)]
    ranks = [shard(before, index) for index in range(before)]
    begun = [[float(next(it)["x"][0, 0, 0]) for _ in range(2)] for it in map(iter, ranks)]
    states = [rank.state_dict() for rank in ranks]
    assert all(state["cursor"] == states[0]["cursor"] for state in states)
    rest = []
    for index in range(after):
        stream = shard(after, index)
        stream.load_state_dict(states[0])
        rest.append([float(b["x"][0, 0, 0]) for b in stream])
    assert len({len(part) for part in rest}) == 1
    seen = {value for part in (*begun, *rest) for value in part}
    left = len(whole) - 2 * before
    assert (
        seen == set(whole)
        if kind == "buffer" or left % after == 0
        else len(seen) == len(whole) - left % after
    )
    interleaved = [value for row in zip(*rest) for value in row]
    assert interleaved[: left - left % after] == whole[2 * before :][: left - left % after]


def test_state_costs_nothing_however_far() -> None:
    import time

    stream = sg.stream_python_iterable(lambda: ({"n": i} for i in range(10**6))).batch(10).to_stream()
    iterator = iter(stream)
    stream.state_dict()
    for _ in range(2000):
        next(iterator)
    begin = time.perf_counter()
    for _ in range(100):
        stream.state_dict()
    assert (time.perf_counter() - begin) / 100 < 0.01  # a few microseconds; this only tells a growing cost


# -- errors -------------------------------------------------------------------------------------------------


def fragile(x: np.ndarray) -> np.ndarray:
    if x[0, 0] % 5 == 2:
        raise ValueError(f"bad value {x[0, 0]}")
    return x


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("threads", [0, 1, 4])
def test_skipping_is_counted_and_listed(
    batched: bool, threads: int, caplog: pytest.LogCaptureFixture
) -> None:
    chain = vectors().key_transform("x", fragile)
    chain = chain.batch(4) if batched else chain
    stream = (chain.prefetch(3, threads) if threads else chain.to_stream()).on_error("skip", limit=100)
    values = [v for s in stream for v in np.atleast_1d(s["x"][..., 0, 0]).tolist()]
    assert values == [i for i in range(23) if i % 5 != 2]
    assert [error.index for error in stream.skipped] == [2, 7, 12, 17, 22]
    assert all(isinstance(error.__cause__, ValueError) for error in stream.skipped)
    assert sum("bad value" in record.getMessage() for record in caplog.records) == 5


@pytest.mark.parametrize("limit", [3, 0.03])
def test_over_the_limit_it_raises(limit: float) -> None:
    stream = vectors().key_transform("x", fragile).prefetch(3, 2).on_error("skip", limit=limit)
    with pytest.raises(sg.ChainError, match="4 of 18 samples failed, more than the limit .* bad value 17"):
        list(stream)


@pytest.mark.parametrize("size", [0, 4])
def test_a_share_is_that_of_the_samples_of_an_epoch(size: int) -> None:
    """23 samples, five of which fail, again and again."""
    chain = vectors().key_transform("x", fragile)
    stream = (chain.batch(size) if size else chain).prefetch(3, 2)
    enough = stream.on_error("skip", limit=0.22)
    for _ in range(9):
        assert sum(len(np.atleast_1d(sample["x"][..., 0, 0])) for sample in enough) == 18
    assert len(enough.skipped) == 45
    with pytest.raises(sg.ChainError, match="5 of 23 samples failed, more than the limit 0.21"):
        list(stream.on_error("skip", limit=0.21))


def test_a_number_is_that_of_an_epoch() -> None:
    stream = vectors().key_transform("x", fragile).to_stream().on_error("skip", limit=5)
    for _ in range(3):
        assert len(list(stream)) == 18


def test_raising_is_the_default_and_the_state_stays_before_the_failure() -> None:
    stream = vectors().key_transform("x", fragile).prefetch(3, 2)
    iterator = iter(stream)
    next(iterator), next(iterator)
    with pytest.raises(sg.SampleError, match="sample 2: .*bad value") as caught:
        next(iterator)
    assert caught.value.index == 2
    assert stream.state_dict()["position"] == 2
    assert list(iterator) == []


@pytest.mark.parametrize("arguments", [("drop",), ("skip", -1), ("skip", 1.5)])
def test_bad_policies(arguments: tuple) -> None:
    with pytest.raises(sg.ChainError, match="on_error: "):
        vectors().to_stream().on_error(*arguments)


def test_closing() -> None:
    stream = vectors().prefetch(3, 2)
    with stream:
        iterator = iter(stream)
        next(iterator)
    with pytest.raises(sg.ChainError, match="closed"):
        next(iterator)
    with pytest.raises(sg.ChainError, match="closed"):
        iter(stream)
    stream.close()
    with stream:
        assert len(list(stream)) == 23


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": -1}, {"epoch": True}, {"epoch": 1.5}, {"epoch": "x"}, {"position": -5}, {"position": 10**9},
        {"cursor": "abc"}, {"cursor": [10**12, 10**9]}, {"cursor": {}}, {"cursor": None}, {"seed": 7}, {"more": 1},
        {"digest": "0"}, {"cursor": {1, 2}},
    ],
)  # fmt: skip
def test_a_state_that_was_changed_is_refused(change: dict[str, object]) -> None:
    stream = sg.buffer_from_vector([{"x": n} for n in range(9)]).shuffle(0).batch(2).to_stream()
    next(iter(stream))
    state = json.loads(json.dumps(stream.state_dict()))
    with pytest.raises(sg.ChainError, match="not what state_dict|not a state"):
        stream.load_state_dict({**state, **change})
    stream.load_state_dict(state)
    assert len(list(stream)) == 4


def test_files_are_looked_at_when_the_stream_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made.land(tmp_path, 3, (40, 40))
    looked = []
    monkeypatch.setattr("streamgeo.state._size", lambda path: looked.append(path) or 1)
    chain = sg.files(str(tmp_path / "*.tif"), key="image").key_transform("image", sg.open())
    stream = chain.to_stream()
    iterator = iter(stream)
    assert len(looked) == 3
    next(iterator)
    stream.state_dict()
    assert len(looked) == 3
    next(iter(chain))  # gives no state
    assert len(looked) == 3


def test_a_state_knows_the_blocks_of_its_order(tmp_path: Path) -> None:
    """The default order keeps patches of a chunk together, so files of other chunks are shuffled otherwise."""
    import h5py

    marks = []
    for rows in (8, 64):
        path = tmp_path / str(rows) / "a.h5"
        path.parent.mkdir()
        with h5py.File(path, "w") as file:
            file.create_dataset("v", data=np.zeros((512, 512), np.float32), chunks=(rows, 512), compression=1)
        chain = sg.files(path, key="x").key_transform("x", sg.open_hdf5(dataset="v"))
        stream = chain.key_transform("x", sg.patch(8)).shuffle(seed=1).to_stream()
        marks.append([mark for mark in stream.state_dict()["fingerprint"] if "blocks" in mark])
    assert marks == [["in blocks of 64"], ["in blocks of 512"]]
