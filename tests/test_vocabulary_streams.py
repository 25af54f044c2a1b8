"""Streams as in mlx-data: next and reset, windows, rows and lines, buffers of a stream, batches by size."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import logging
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import mlx.data as dx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamgeo as sg
from tests.mlx_twin import OTHERS, SIX, arrays, same


def numbers(count: int) -> sg.Buffer:
    return sg.buffer_from_vector([{"n": i} for i in range(count)])


def ns(chain) -> list[int]:
    return [int(sample["n"]) for sample in chain]


def test_next_reset_and_for() -> None:
    stream = numbers(3).to_stream()
    assert [int(stream.next()["n"]) for _ in range(3)] == [0, 1, 2]
    assert stream.next() == {} and stream.next() == {} and stream() == {}
    with pytest.raises(StopIteration):
        next(stream)
    stream.reset()
    assert next(stream)["n"] == 0
    assert ns(stream) == [0, 1, 2] == ns(stream)  # each `for` is a pass of its own
    assert next(stream)["n"] == 1  # and leaves that of `next` alone
    again = pickle.loads(pickle.dumps(stream))
    assert ns([again.next() for _ in range(1)])


def test_reset_begins_another_epoch() -> None:
    stream = numbers(20).shuffle(seed=1).to_stream()
    first = ns(iter(stream.next, {}))
    stream.reset()
    second = ns(iter(stream.next, {}))
    assert sorted(first) == sorted(second) == list(range(20)) and first != second
    assert ns(numbers(20).shuffle(seed=1).to_stream()) == first
    loop = numbers(20).shuffle(seed=1).to_stream()
    epochs = []
    for _ in range(2):
        epochs.append(ns(loop))
        loop.reset()
    assert epochs == [first, second]


def test_next_goes_on_behind_a_state() -> None:
    stream = numbers(9).batch(2).prefetch(2, 2)
    stream.next(), stream.next()
    state = stream.state_dict()
    rest = [s["n"].tolist() for s in iter(stream.next, {})]
    again = numbers(9).batch(2).prefetch(2, 2)
    again.load_state_dict(state)
    assert [s["n"].tolist() for s in again] == rest == [[4, 5], [6, 7], [8]]


def test_repeat_without_end() -> None:
    stream = numbers(2).to_stream()
    for endless in (stream.repeat(-1), stream.repeat(), stream.repeat(num_time=None)):
        assert ns(itertools.islice(endless, 5)) == [0, 1, 0, 1, 0]
    with pytest.raises(sg.ChainError, match="repeat: 0 times"):
        stream.repeat(0)


def test_append_and_concretize() -> None:
    made = []
    chain = numbers(3).key_transform("n", lambda x: made.append(int(x)) or x)
    held = chain.concretize()
    assert ns(held.append(numbers(2))) == [0, 1, 2, 0, 1] and made == [0, 1, 2]
    with pytest.raises(sg.ChainError, match="append: list is not a Buffer"):
        held.append([])


# -- samples that are left out --------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_an_empty_sample_is_left_out_before_batches_are_made(threads: int) -> None:
    stream = numbers(20).to_stream().sample_transform(lambda s: s if s["n"] % 3 else {}).batch(4)
    stream = stream.prefetch(3, threads) if threads else stream
    theirs = dx.buffer_from_vector([{"n": i} for i in range(20)]).to_stream()
    theirs = theirs.sample_transform(lambda s: s if s["n"] % 3 else {}).batch(4)
    assert [s["n"].tolist() for s in stream] == [s["n"].tolist() for s in theirs]


@pytest.mark.parametrize(
    "sift",
    [
        lambda s: s.sample_transform(lambda x: x if x["n"] % 2 else {}),
        lambda s: s.filter(lambda x: x["n"] % 2),
        lambda s: s.sliding_window("x", 2, 2),
    ],
)
def test_a_prefetch_behind_makes_them_on_its_threads(sift) -> None:
    seen, lock = set(), threading.Lock()

    def note(x: np.ndarray) -> np.ndarray:
        with lock:
            seen.add(threading.get_ident())
        barrier.wait(20)
        return x

    barrier = threading.Barrier(2)  # passes only where two threads work at the same time
    base = sg.buffer_from_vector([{"n": i, "x": np.arange(4)} for i in range(12)]).to_stream()
    expected = [s["n"].tolist() for s in sift(base).batch(3)]
    stream = sift(base.key_transform("n", note)).batch(3).prefetch(4, 2)
    assert [s["n"].tolist() for s in stream] == expected
    assert len(seen) >= 2


def test_random_steps_before_a_filter_draw_the_same_with_and_without_prefetch() -> None:
    def noisy(x: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
        return x + rng.random()

    chain = numbers(30).key_transform("n", noisy).filter(lambda s: s["n"] % 1 < 0.5)
    for a, b in zip(chain, chain.prefetch(4, 3), strict=True):
        same(a, b)


# -- windows ---------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(
    x=arrays((*SIX, *OTHERS), max_side=9), size=st.integers(1, 6), stride=st.integers(1, 6), data=st.data()
)
def test_sliding_windows(x: np.ndarray, size: int, stride: int, data: st.DataObject) -> None:
    dim = data.draw(st.integers(-x.ndim, x.ndim - 1))
    chain = sg.buffer_from_vector([{"x": x, "k": 4}] * 2)
    made = list(chain.to_stream().sliding_window("x", size, stride, dim, index_key="i"))
    expected = [
        np.take(x, range(a, min(a + size, x.shape[dim])), dim) for a in range(0, x.shape[dim], stride)
    ] * 2
    for sample, window in zip(made, expected, strict=True):
        np.testing.assert_array_equal(sample["x"], window)
        assert sample["k"] == 4
    if x.dtype.name in SIX and x.dtype.isnative:
        stream = dx.buffer_from_vector([{"x": np.ascontiguousarray(x), "k": 4}] * 2).to_stream()
        for a, b in zip(made, stream.sliding_window("x", size, stride, dim, "i"), strict=True):
            same(a, b)
    assert len(list(chain.sliding_window("x", size, stride, dim))) == len(expected)


def test_windows_of_a_time_series_are_patches_in_time(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(10.0))
    chain = sg.files(str(tmp_path / "*.npy"), key="x").key_transform("x", sg.open_numpy())
    windows = chain.sliding_window("x", 4, 3).filter_by_shape("x", 0, 4)
    assert [s["x"].tolist() for s in windows] == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]


@pytest.mark.parametrize(
    ("args", "says"),
    [(("x", 0, 1), "size=0"), (("x", 1, 0), "stride=0"), (("", 1, 1), "key="), (("x", 1, 1, 0.5), "dim=0.5")],
)
def test_windows_that_cannot_be(args: tuple, says: str) -> None:
    with pytest.raises(sg.ChainError, match=f"sliding_window: {says}"):
        numbers(1).sliding_window(*args)


def test_windows_of_what_is_not_there() -> None:
    with pytest.raises(sg.SampleError, match=r"sliding_window\('x', 2, 1\) failed: .*no key 'x'"):
        list(numbers(1).sliding_window("x", 2, 1))
    with pytest.raises(sg.SampleError, match="dim -1 is out of range for 'n' of shape .*it has no dims"):
        list(numbers(1).sliding_window("n", 2, 1))
    stream = sg.buffer_from_vector([{"x": np.arange(3)}, {"y": 1}, {"x": np.arange(2)}]).sliding_window(
        "x", 2, 2
    )
    assert len(list(stream.on_error("skip", limit=1))) == 3


# -- readers ---------------------------------------------------------------------------------------------

CSV = 'a,b\n1,"2,""x"""\n3,é\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "t.csv").write_text(CSV)
    (tmp_path / "u.csv").write_text("a;b\n5;6\n")
    (tmp_path / "l.txt").write_bytes(b"one\ntwo\r\n\nthree")
    (tmp_path / "l.gz").write_bytes(gzip.compress(b"one\ntwo"))
    return tmp_path


def alike(mine: sg.Stream, theirs) -> None:
    expected = list(theirs)
    assert expected
    for _ in range(2):  # each pass gives all
        for a, b in zip(mine, expected, strict=True):
            same(a, b)


def test_csv(folder: Path) -> None:
    path = str(folder / "t.csv")
    alike(sg.stream_csv_reader(path), dx.stream_csv_reader(path))
    alike(sg.stream_csv_reader(folder / "u.csv", sep=";"), dx.stream_csv_reader(str(folder / "u.csv"), ";"))
    alike(sg.stream_csv_reader("t.csv", local_prefix=folder), dx.stream_csv_reader(path))
    alike(sg.stream_csv_reader_from_string(CSV), dx.stream_csv_reader_from_string(CSV))
    other = "a,b\n'1,2',\"3\n"
    alike(
        sg.stream_csv_reader_from_string(other, quote="'"), dx.stream_csv_reader_from_string(other, quote="'")
    )
    for file in (io.StringIO(CSV), io.BytesIO(CSV.encode())):
        alike(pickle.loads(pickle.dumps(sg.stream_csv_reader(file))), dx.stream_csv_reader_from_string(CSV))
    assert list(sg.stream_csv_reader_from_string("")) == []


def test_lines(folder: Path) -> None:
    path = str(folder / "l.txt")
    alike(sg.stream_line_reader(path, "k"), dx.stream_line_reader(path, "k"))
    zipped = sg.stream_line_reader("l.gz", "k", True, local_prefix=folder)
    alike(zipped, dx.stream_line_reader(str(folder / "l.gz"), "k", True))
    alike(sg.stream_line_reader(io.BytesIO(b"a\nb"), "k"), dx.stream_line_reader(io.BytesIO(b"a\nb"), "k"))
    assert [bytes(s["k"]) for s in sg.stream_line_reader(path, "k")] == [b"one", b"two\r", b"", b"three"]


@pytest.mark.parametrize("threads", [0, 2])
def test_readers_from_keys(folder: Path, threads: int) -> None:
    names = [{"f": name, "z": 1} for name in (b"t.csv", b"t.csv", b"t.csv")]
    mine = sg.buffer_from_vector(names).to_stream().csv_reader_from_key("f", local_prefix=folder)
    theirs = dx.buffer_from_vector(names).to_stream().csv_reader_from_key("f", local_prefix=str(folder))
    alike(mine.prefetch(2, threads) if threads else mine, theirs)
    lines = sg.buffer_from_vector([{"f": "l.txt"}, {"f": "l.txt"}]).to_stream()
    theirs = dx.buffer_from_vector([{"f": b"l.txt"}] * 2).to_stream()
    theirs = theirs.line_reader_from_key("f", "k", local_prefix=str(folder))
    alike(lines.line_reader_from_key("f", "k", local_prefix=folder), theirs)
    held = sg.buffer_from_vector(
        [{"f": b"x,y\n1,2\n"}, {"f": np.frombuffer(b"x,y\n3,4", np.uint8)}]
    ).to_stream()
    assert [bytes(s["y"]) for s in held.csv_reader_from_key("f", from_memory=True)] == [b"2", b"4"]
    zipped = sg.buffer_from_vector([{"f": gzip.compress(b"p\nq")}]).to_stream()
    assert [bytes(s["k"]) for s in zipped.line_reader_from_key("f", "k", True, True)] == [b"p", b"q"]


def test_readers_of_what_cannot_be_read(folder: Path) -> None:
    with pytest.raises(
        sg.OpenError, match="stream_csv_reader: there is no file '.*nope.csv'; the working directory"
    ):
        sg.stream_csv_reader(folder / "nope.csv")
    with pytest.raises(sg.OpenError, match="stream_line_reader: there is no file"):
        sg.stream_line_reader("nope.txt", "k", local_prefix=folder)
    with pytest.raises(sg.OpenError, match="files_from_tar: there is no file"):
        sg.files_from_tar(folder / "nope.tar")
    with pytest.raises(sg.ChainError, match="stream_csv_reader: int is neither a path nor an open file"):
        sg.stream_csv_reader(3)
    with pytest.raises(sg.ChainError, match="stream_csv_reader: sep='ab' must be one character"):
        sg.stream_csv_reader_from_string("a", sep="ab")
    stream = sg.buffer_from_vector([{"f": "t.csv"}, {"f": "nope"}, {"f": "t.csv"}]).to_stream()
    rows = stream.csv_reader_from_key("f", local_prefix=folder)
    with pytest.raises(
        sg.SampleError, match=r"csv_reader_from_key\('f'\) failed: .*there is no file '.*nope'"
    ):
        list(rows)
    assert len(list(rows.on_error("skip", limit=1))) == 4
    with pytest.raises(sg.SampleError, match="mlx-data cannot read it: .*inconsistent number of fields"):
        list(sg.stream_csv_reader_from_string("a,b\n1,2\n3\n"))


# -- buffers of a stream -----------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 3])
def test_buffered(threads: int) -> None:
    stream = numbers(8).to_stream()
    assert ns(stream.buffered(3, num_threads=threads)) == list(range(8))
    turned = stream.buffered(3, lambda b: b.perm(range(len(b))[::-1]), num_threads=threads)
    assert ns(turned) == [2, 1, 0, 5, 4, 3, 7, 6] == ns(turned.prefetch(2, 2))
    batched = stream.buffered(4, lambda b: b.batch(3))
    assert [s["n"].tolist() for s in batched] == [[0, 1, 2], [3], [4, 5, 6], [7]]


def test_each_buffer_is_shuffled_anew() -> None:
    stream = numbers(60).to_stream().buffered(20, lambda b: b.shuffle())
    first, second = ns(stream), ns(stream)
    parts = [[n - start for n in first[start : start + 20]] for start in (0, 20, 40)]
    assert all(sorted(part) == list(range(20)) for part in parts)
    assert parts[0] != parts[1] != parts[2] != parts[0] and first != second
    assert ns(numbers(60).to_stream().buffered(20, lambda b: b.shuffle()).prefetch(4, 3)) == first


def test_samples_of_a_buffer_are_made_once() -> None:
    made = []

    def note(x: np.ndarray) -> np.ndarray:
        made.append(int(x))
        return x

    def by_value(b: sg.Buffer) -> sg.Buffer:
        return b.perm(sorted(range(len(b)), key=lambda i: -int(b[i]["n"])))

    stream = numbers(7).key_transform("n", note).to_stream().buffered(4, by_value)
    assert ns(stream) == [3, 2, 1, 0, 6, 5, 4] and sorted(made) == list(range(7))


@pytest.mark.parametrize(
    ("args", "says"),
    [((0,), "buffer_size=0"), ((2, 3), "on_refill=3 is not a function"), ((2, None, 0), "num_threads=0")],
)
def test_buffers_that_cannot_be(args: tuple, says: str) -> None:
    with pytest.raises(sg.ChainError, match=f"buffered: {says}"):
        numbers(3).to_stream().buffered(*args)


def test_a_refill_must_return_a_buffer() -> None:
    with pytest.raises(sg.SampleError, match="buffered: on_refill returned a Stream; return a Buffer"):
        list(numbers(3).to_stream().buffered(2, lambda b: b.to_stream()))


# -- batches by size ------------------------------------------------------------------------------------------


def texts(lengths: list[int]) -> list[dict]:
    return [{"x": np.full(length, i + 1), "i": i} for i, length in enumerate(lengths)]


THEIRS = """
import json, os, sys
import mlx.data as dx, numpy as np

def texts(lengths):
    return dx.buffer_from_vector([{"x": np.full(n, i + 1), "i": i} for i, n in enumerate(lengths)]).to_stream()

kept, results = [], []
for lengths, size, most in json.load(sys.stdin):
    batches = texts(lengths).dynamic_batch(size, "x", most)
    order = texts(lengths).buffered(size, lambda b: b.perm(list(range(len(b)))[::-1]))
    kept += [batches, order]
    results.append([[[s["i"].tolist(), s["x"].tolist()] for s in batches], [int(s["i"]) for s in order]])
print(json.dumps(results), flush=True)
os._exit(0)  # such streams of mlx-data 0.1.0 can wait forever when they are deleted
"""


def test_buffered_and_dynamic_batches_as_mlx_data() -> None:
    rng = np.random.default_rng(3)
    cases = [
        (
            rng.integers(1, 20, rng.integers(1, 26)).tolist(),
            int(rng.integers(2, 13)),
            int(rng.integers(20, 61)),
        )
        for _ in range(60)
    ]
    done = subprocess.run(
        [sys.executable, "-c", THEIRS],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    for (lengths, size, most), (batches, order) in zip(cases, json.loads(done.stdout), strict=True):
        stream = sg.buffer_from_vector(texts(lengths)).to_stream()
        mine = [[s["i"].tolist(), s["x"].tolist()] for s in stream.dynamic_batch(size, "x", most)]
        assert mine == batches
        turned = stream.buffered(size, lambda b: b.perm(range(len(b))[::-1]))
        assert [int(s["i"]) for s in turned] == order


@settings(max_examples=80, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=25), most=st.integers(1, 60), least=st.integers(-1, 40),
    drop=st.booleans(), dim=st.sampled_from([None, {"x": 0}]),
)  # fmt: skip
def test_dynamic_batches_keep_their_sizes(
    lengths: list, most: int, least: int, drop: bool, dim: dict | None
) -> None:
    if least > most:
        return
    buffer = sg.buffer_from_vector(texts(lengths))
    made = buffer.dynamic_batch("x", least, most, dim=dim, drop_outliers=drop)
    seen: list[int] = []
    for batch in made:
        seen += batch["i"].tolist()
        if batch["x"].size > most:
            assert len(batch["i"]) == 1 and not drop
        elif least > 0:
            assert batch["x"].size >= least
    assert len(seen) == len(set(seen)) and len(made) == len(list(made))
    left = set(range(len(lengths))) - set(seen)
    if least <= 0:
        assert left == {i for i in range(len(lengths)) if drop and lengths[i] > most}
    again = list(pickle.loads(pickle.dumps(made)).prefetch(2, 2))
    assert all(np.array_equal(a["i"], b["i"]) for a, b in zip(again, made, strict=True))


def test_dynamic_batches_of_everything() -> None:
    (batch,) = list(sg.buffer_from_vector(texts([1, 3, 2])).dynamic_batch("x", pad={"x": -1}))
    assert batch["x"].tolist() == [[1, -1, -1], [2, 2, 2], [3, 3, -1]] and batch["i"].tolist() == [0, 1, 2]


def test_dynamic_batches_shuffled_and_what_waits(caplog: pytest.LogCaptureFixture) -> None:
    lengths = np.random.default_rng(0).integers(5, 40, 200).tolist()
    stream = sg.buffer_from_vector(texts(lengths)).to_stream()
    plain = [b["i"].tolist() for b in stream.dynamic_batch(50, "x", 120)]
    shuffled = stream.dynamic_batch(50, "x", 120, shuffle=True)
    first, second = ([b["i"].tolist() for b in shuffled] for _ in range(2))
    assert sorted(first) == sorted(plain) == sorted(second) and first != plain and first != second
    with caplog.at_level(logging.WARNING, "streamgeo"):
        full = list(stream.dynamic_batch(50, "x", 120, min_data_size=100))
    assert all(100 <= b["x"].size <= 120 for b in full)
    seen = [i for b in full for i in b["i"].tolist()]
    assert len(seen) == len(set(seen)) > 150
    assert f"{200 - len(seen)} samples were left out at the end" in caplog.text


def test_a_shuffled_buffer_is_batched_anew_each_epoch() -> None:
    chain = sg.buffer_from_vector(texts([5] * 24)).shuffle(seed=2).dynamic_batch("x", max_data_size=30)
    stream = chain.to_stream()
    first, second = ([i for b in stream for i in b["i"].tolist()] for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(24)) and first != second


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"key": ""}, "key="), ({"key": "x", "max_data_size": 1.5}, "max_data_size=1.5"),
        ({"key": "x", "min_data_size": 9, "max_data_size": 8}, "min_data_size=9 is more than max_data_size=8"),
    ],
)  # fmt: skip
def test_dynamic_batches_that_cannot_be(options: dict, says: str) -> None:
    with pytest.raises(sg.ChainError, match=f"dynamic_batch: {says}"):
        numbers(3).dynamic_batch(**options)
    with pytest.raises(sg.ChainError, match=f"dynamic_batch: {says}"):
        numbers(3).to_stream().dynamic_batch(2, **options)


def test_dynamic_batches_of_what_does_not_fit() -> None:
    mixed = sg.buffer_from_vector([{"x": np.zeros(2)}, {"x": np.zeros((2, 2))}])
    with pytest.raises(sg.SampleError, match="arrays under 'x' have 1 and 2 dims"):
        next(iter(mixed.dynamic_batch("x")))
    with pytest.raises(sg.SampleError, match="dynamic_batch: no key 'q'"):
        list(mixed.to_stream().dynamic_batch(2, "q"))
    with pytest.raises(sg.SampleError, match="dim=1 for 'x', which has 1 dims"):
        next(iter(mixed[:1].dynamic_batch("x", dim={"x": 1})))
    with pytest.raises(sg.ChainError, match="arrays under 'x' have 1 and 2 dims"):
        len(mixed.dynamic_batch("x"))


def test_long_arguments_are_told_in_short_and_still_told_apart() -> None:
    rows = [sg.stream_csv_reader_from_string("a\n" + "12345\n" * 99 + end) for end in ("1\n", "2\n")]
    assert all(len(repr(stream)) < 120 for stream in rows)
    with pytest.raises(sg.ChainError, match="another chain"):
        rows[0].load_state_dict(rows[1].state_dict())
    files = [sg.stream_line_reader(io.BytesIO(content), "k") for content in (b"a\nb", b"a\nc")]
    with pytest.raises(sg.ChainError, match="another chain"):
        files[0].load_state_dict(files[1].state_dict())
    with pytest.raises(sg.SampleError, match=r"replace_bytes\('q', \.\.\.\) failed: .*no key 'q'"):
        numbers(1).replace_bytes("q", ["x"] * 256)[0]
