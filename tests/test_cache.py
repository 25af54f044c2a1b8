"""cache(): the same samples with and without it, computed once, bounded, never stale, never damaged."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import streamgeo as sg
from streamgeo import made
from streamgeo.digest import digest

CALLS: Counter[str] = Counter()
BOOK = ModuleType("book")  # by which functions count: a global that changes would make them other functions
BOOK.calls = CALLS


@pytest.fixture(autouse=True)
def fresh() -> None:
    CALLS.clear()


def slow(x: np.ndarray) -> np.ndarray:
    BOOK.calls["slow"] += 1
    return x * 2 + 1


def unslow(y: np.ndarray) -> np.ndarray:
    return (y - 1) / 2


def noisy(x: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    return x + rng.random(x.shape)


def vectors(count: int = 11) -> sg.Buffer:
    return sg.buffer_from_vector([{"x": np.full((4, 4), float(i)), "name": f"n{i}"} for i in range(count)])


def iterable(count: int = 11) -> sg.Stream:
    return sg.stream_python_iterable(lambda: ({"x": np.full((4, 4), float(i))} for i in range(count)))


def same(a: dict, b: dict) -> bool:
    def equal(v: np.ndarray, w: np.ndarray) -> bool:
        return v.dtype == w.dtype and np.array_equal(v, w, equal_nan=v.dtype.kind in "fc")

    return list(a) == list(b) and all(equal(a[key], b[key]) for key in a)


def epochs(chain: sg.Buffer | sg.Stream, count: int = 3) -> list[list[dict]]:
    stream = chain.to_stream()
    return [[sample for sample in stream] for _ in range(count)]  # noqa: C416 (list() asks for the length)


@pytest.fixture(scope="module")
def land(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("land")
    made.land(folder, 3, (70, 90))
    return str(folder / "*.tif")


def opened(pattern: str) -> sg.Buffer:
    return sg.files(pattern, key="i").key_transform("i", sg.open_geotiff())


# -- the same with and without ------------------------------------------------------------------------------

Cached = Callable[[sg.Buffer | sg.Stream], sg.Buffer | sg.Stream]
CHAINS: dict[str, Callable[[Cached, str], sg.Buffer | sg.Stream]] = {
    "plain": lambda c, f: c(vectors().key_transform("x", slow)),
    "shuffle before": lambda c, f: c(vectors().shuffle(seed=3).key_transform("x", slow)).batch(3),
    "shuffle behind": lambda c, f: c(vectors().key_transform("x", slow)).shuffle(seed=3).batch(3).prefetch(3, 2),
    "random behind": lambda c, f: c(vectors().key_transform("x", slow)).key_transform("x", noisy).prefetch(2, 2),
    "patches": lambda c, f: c(vectors().key_transform("x", sg.patch(3)).key_transform("x", slow)).shuffle(seed=1),
    "patched behind": lambda c, f: c(vectors().key_transform("x", slow)).key_transform("x", sg.patch(3)),
    "batches": lambda c, f: c(vectors().key_transform("x", sg.patch(3)).batch(4)).shuffle(seed=5).prefetch(2, 2),
    "batch sizes": lambda c, f: c(vectors().batch([2, 3, 1])),
    "residuals": lambda c, f: c(vectors().key_transform("x", sg.fill_nan(0.0))).batch(2),
    "slices": lambda c, f: c(vectors()[2:9:3].key_transform("x", slow)).repeat(2),
    "repeated": lambda c, f: c(vectors(4).shuffle(seed=2).repeat(3)),
    "concatenated": lambda c, f: c(sg.concatenate(vectors(3), vectors(5).shuffle(seed=1))).batch(2),
    "zipped": lambda c, f: c(sg.zip(vectors(5).filter_key("x"), vectors(5).rename_key("x", "y").filter_key("y"))),
    "sample_transform": lambda c, f: c(vectors().sample_transform(lambda s: {**s, "z": s["x"] * 2})),
    "twice": lambda c, f: c(c(vectors().key_transform("x", slow)).key_transform("x", np.negative)).batch(3),
    "sharded behind": lambda c, f: c(vectors().key_transform("x", slow)).shuffle(seed=1).shard(2, 1),
    "stream": lambda c, f: c(iterable().key_transform("x", slow)).key_transform("x", noisy).batch(3),
    "stream of a prefetch": lambda c, f: c(vectors().key_transform("x", slow).prefetch(3, 2)).shuffle(4, seed=2),
    "stream of a filter": lambda c, f: c(vectors().filter(lambda s: s["x"][0, 0] % 3 != 1)).batch(2),
    "stream of windows": lambda c, f: c(vectors(4).to_stream().sliding_window("x", 3, 2)).prefetch(3, 2),
    "stream of patches": lambda c, f: c(iterable().key_transform("x", sg.patch(3))).prefetch(3, 2),
    "stream, patched behind": lambda c, f: c(iterable().key_transform("x", slow)).key_transform("x", sg.patch(3)),
    "files": lambda c, f: c(opened(f)),
    "files, patched behind": lambda c, f: c(opened(f)).key_transform("i", sg.patch(32)).shuffle(seed=1).batch(4),
    "files, scene step": lambda c, f: c(opened(f).key_transform("i", slow)).key_transform("i", sg.patch(32)),
    "files, step on step": lambda c, f: (
        c(c(opened(f).key_transform("i", sg.normalize(1, 2))).key_transform("i", slow))
        .key_transform("i", np.negative, reach=sg.POINT)
        .key_transform("i", sg.patch(32))
    ),
    "files, patched": lambda c, f: c(opened(f).key_transform("i", sg.patch(32)).key_transform("i", slow)).batch(5),
    "files as a stream": lambda c, f: c(opened(f).to_stream().key_transform("i", sg.flip("x"))).key_transform(
        "i", sg.patch(32)
    ),
}  # fmt: skip
HOW = ["memory", "little memory", "folder", "little folder"]


def cached(how: str, folder: Path) -> Cached:
    sizes = {"little memory": 20_000, "little folder": 20_000}
    kept = folder if "folder" in how else None
    return lambda chain: chain.cache(sizes.get(how), kept)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", CHAINS)
def test_with_and_without_it_the_samples_are_the_same(name: str, how: str, land: str, tmp_path: Path) -> None:
    plain = epochs(CHAINS[name](lambda chain: chain, land))
    found = epochs(CHAINS[name](cached(how, tmp_path), land))
    again = epochs(CHAINS[name](cached(how, tmp_path), land))  # from the folder, where there is one
    for mine in (found, again):
        for a, b in zip(plain, mine, strict=True):
            assert all(same(v, w) for v, w in zip(a, b, strict=True))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_order_of_asking_any_limit(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    limit = data.draw(st.one_of(st.none(), st.integers(1, 12_000)))
    chain = vectors(count).key_transform("x", slow)
    kept = chain.cache(limit)
    for index in data.draw(st.lists(st.integers(0, count - 1), max_size=40)):
        assert same(kept[index], chain[index])
    store = kept.node._state.store
    assert limit is None or store._cache.nbytes <= limit


# -- computed once, bounded ---------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", [False, True])
def test_each_sample_is_computed_once_by_however_many_threads(folder: bool, tmp_path: Path) -> None:
    chain = vectors(20).key_transform("x", slow).cache(folder=tmp_path if folder else None)
    threads = [threading.Thread(target=lambda: [chain[i] for i in range(20)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert CALLS["slow"] == 20


def test_hits_and_misses_are_counted(tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        stream = (
            vectors().key_transform("x", slow).cache(folder=folder).shuffle(seed=1).batch(2).prefetch(2, 2)
        )
        for epoch in range(3):
            list(stream)
            assert (stream.stats().cache_hits, stream.stats().cache_misses) == (11 * epoch, 11)


def test_what_does_not_fit_is_computed_each_time_and_counted() -> None:
    size = vectors(1).cache()
    size[0]
    one = size.node._state.store._cache.nbytes
    stream = vectors(10).key_transform("x", slow).cache(max_bytes=4 * one + 8).to_stream()
    for epoch in range(1, 4):
        list(stream)
        assert CALLS["slow"] == 10 + 6 * (epoch - 1)
    assert stream.stats().cache_hits == 8


def test_an_endless_stream_in_bounded_memory() -> None:
    chain = (
        sg.stream_python_iterable(lambda: ({"x": np.full(100, i)} for i in range(10**12)))
        .key_transform("x", slow)
        .cache(max_bytes=50_000)
    )
    stream = chain.prefetch(4, 2)
    for _ in range(2):
        iterator = iter(stream)
        assert [int(s["x"][0]) for s in islice(iterator, 500)] == [2 * i + 1 for i in range(500)]
        assert chain.node._state.store._cache.nbytes <= 50_000
    assert stream.stats().cache_hits > 10
    assert [int(s["x"][0]) for s in islice(vectors(3).to_stream().repeat().cache(2000).key_transform(
        "x", lambda x: x[0]), 9)] == [0, 1, 2] * 3  # fmt: skip


def test_the_second_epoch_does_not_ask_the_stream_before() -> None:
    def source():
        for i in range(5):
            CALLS["source"] += 1
            yield {"x": np.full(3, i)}

    stream = sg.stream_python_iterable(source).filter(lambda s: bool(s["x"][0] % 2)).prefetch(2, 2).cache()
    for _ in range(3):
        assert [int(s["x"][0]) for s in stream] == [1, 3]
    assert CALLS["source"] == 5


def test_a_failing_sample_is_not_kept_and_tried_again() -> None:
    def fragile(x: np.ndarray) -> np.ndarray:
        CALLS[f"{int(x[0, 0])}"] += 1
        if x[0, 0] in (2, 5) and CALLS[f"{int(x[0, 0])}"] < 3:
            raise ValueError("not yet")
        return x

    for source in (vectors(7).cache, iterable(7).cache, vectors(7).prefetch(2, 2).cache):
        CALLS.clear()
        before = source.__self__.key_transform("x", fragile)
        stream = before.cache().to_stream().on_error("skip", 10)
        seen = [[int(s["x"][0, 0]) for s in stream] for _ in range(4)]
        assert seen == [[0, 1, 3, 4, 6]] * 2 + [list(range(7))] * 2
        assert CALLS["2"] == 3 and CALLS["0"] == 1


def test_a_batch_that_lost_a_sample_is_not_kept() -> None:
    def fragile(x: np.ndarray) -> np.ndarray:
        CALLS["all"] += 1
        if x[0, 0] == 1 and CALLS["all"] < 5:
            raise ValueError("not yet")
        return x

    stream = vectors(4).key_transform("x", fragile).batch(2).cache().to_stream().on_error("skip", 5)
    assert [[len(b["x"]) for b in stream] for _ in range(2)] == [[1, 2], [2, 2]]


def test_what_is_kept_cannot_be_changed_from_outside() -> None:
    data = np.zeros(3)
    chain = sg.buffer_from_vector([{"x": np.zeros(3)}]).key_transform("x", lambda x: data).cache()
    first = chain[0]["x"]
    data[:] = 7
    first[:] = 9
    assert chain[0]["x"].tolist() == [0, 0, 0]
    with pytest.raises(sg.SampleError, match="read-only"):
        chain.key_transform("x", partial(np.copyto, src=1.0))[0]


# -- scenes -------------------------------------------------------------------------------------------------


def count_reads(monkeypatch) -> Counter[str]:
    from streamgeo.sources.geotiff import GeoTiffScene

    reads: Counter[str] = Counter()
    for name in ("_read", "_read_into"):
        real = getattr(GeoTiffScene, name, None)
        if real is not None:
            monkeypatch.setattr(
                GeoTiffScene, name, lambda *a, _real=real, **k: (reads.update(["read"]), _real(*a, **k))[1]
            )
    return reads


@pytest.mark.parametrize("folder", [False, True])
def test_a_scene_step_runs_once_a_scene_and_not_for_the_length(
    folder: bool, land: str, tmp_path: Path
) -> None:
    def build() -> sg.Buffer:
        kept = (
            opened(land).key_transform("i", slow, inverse=unslow).cache(folder=tmp_path if folder else None)
        )
        return kept.key_transform("i", sg.patch(32))

    chain = build()
    assert len(chain) == 27 and CALLS["slow"] == 0
    chain.explain()
    list(chain.shuffle(seed=1).batch(4).prefetch(3, 2))
    list(chain)
    assert CALLS["slow"] == 3
    list(build())
    assert CALLS["slow"] == (3 if folder else 6)


def test_a_file_is_read_once(land: str, monkeypatch) -> None:
    chain = opened(land).cache().key_transform("i", sg.patch(32))
    reads = count_reads(monkeypatch)
    list(chain)
    first = reads["read"]
    list(chain), list(chain)
    assert first >= 3 and reads["read"] == first


def test_a_scene_that_does_not_fit_is_read_by_windows(land: str) -> None:
    windows = []

    def see(x: np.ndarray) -> np.ndarray:
        windows.append(x.shape)
        return x

    chain = opened(land).key_transform("i", see, reach=sg.POINT).cache(max_bytes=10_000)
    stream = chain.key_transform("i", sg.patch(32)).to_stream()
    list(stream)
    assert set(windows) == {(4, 32, 32)}
    assert stream.stats().cache_misses >= 27


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("where", ["open", "scene step", "patch", "batch", "stream"])
def test_the_way_back(where: str, how: str, land: str, tmp_path: Path) -> None:
    keep = cached(how, tmp_path)

    def build(cache: Cached) -> sg.Buffer | sg.Stream:
        at = lambda name, chain: cache(chain) if name == where else chain  # noqa: E731
        chain = at("open", opened(land))
        chain = chain.key_transform("i", slow, inverse=unslow).key_transform("i", sg.fill_nan(0.0))
        chain = at("scene step", chain).key_transform("i", sg.patch(32, 24)).key_transform("i", sg.flip("y"))
        chain = at("patch", chain.key_transform("i", sg.normalize(3, 4)))
        chain = at("batch", chain.key_transform("i", sg.minmax(-1, 5)).batch(5))
        return at("stream", chain.prefetch(3, 2))

    plain, chain = build(lambda c: c), build(keep)
    expected = list(plain.predict(lambda x: x, key="i"))
    for mine in (chain, chain, build(keep)):
        found = list(mine.predict(lambda x: x, key="i"))
        assert [s.name for s in found] == [s.name for s in expected]
        for a, b in zip(found, expected):
            np.testing.assert_array_equal(a.array, b.array)
            assert a.grid == b.grid and a.attrs == b.attrs and a.files == b.files
    if where != "stream":
        unbatched = opened(land).key_transform("i", sg.flip("x")).key_transform("i", sg.patch(32))
        kept = keep(unbatched)
        sample = list(kept)[7]
        assert kept.grid("i", sample) == unbatched.grid("i", sample)
        patches = np.stack([s["i"] for s in list(kept)[:9]])
        np.testing.assert_array_equal(kept.inverse("i")(patches, 0), unbatched.inverse("i")(patches, 0))


def test_the_way_back_of_arrays_without_files(tmp_path: Path) -> None:
    chain = vectors(5).key_transform("x", sg.fill_nan(0.0)).key_transform("x", sg.patch(3, 2))
    expected = [s.array for s in chain.batch(4).predict(lambda x: x, key="x")]
    for folder in (None, tmp_path):
        kept = chain.cache(folder=folder)
        for _ in range(2):
            found = [s.array for s in kept.batch(4).predict(lambda x: x, key="x")]
            assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_cached_patches_do_not_hold_the_array_that_they_were_cut_from() -> None:
    import gc
    import weakref

    class Tracked(np.ndarray):
        pass

    alive = []

    def source():
        for i in range(3):
            array = np.full((64, 64), float(i)).view(Tracked)
            alive.append(weakref.ref(array))
            yield {"x": array}

    chain = sg.stream_python_iterable(source).key_transform("x", sg.patch(32)).cache()
    assert sum(1 for _ in chain) == 12
    gc.collect()
    assert [ref() is None for ref in alive] == [True] * 3


# -- refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: vectors().key_transform("x", noisy), r"cache: \.key_transform\('x', noisy\) draws .* before it"),
        (lambda: sg.zip(vectors(), vectors().key_transform("x", noisy)), "noisy.* draws"),
        (lambda: vectors().shuffle(seed=1).to_stream(), r"\.shuffle\(seed=1\) may give another order .* before it"),
        (lambda: vectors().shuffle(seed=1).batch(2), r"\.shuffle\(seed=1\) may give another order"),
        (lambda: vectors().shuffle(seed=1).key_transform("x", sg.patch(2)), "may give another order"),
        (lambda: iterable().shuffle(5), r"\.shuffle\(5, seed=0\) may give another order"),
        (lambda: sg.mix([vectors(), vectors()]), r"sg\.mix.* may give another order"),
        (lambda: vectors().to_stream().buffered(4), "may give another order"),
        (lambda: vectors().shard(3, 1), r"\.shard\(3, 1\) hands each rank .* before it"),
        (lambda: vectors().batch(2).prefetch(2).shard(3, 1), "hands each rank"),
    ],
)  # fmt: skip
def test_what_it_would_freeze_is_refused_when_built(build, says: str) -> None:
    with pytest.raises(sg.ChainError, match=says):
        build().cache()


@pytest.mark.parametrize("value", [0, -1, 1.5, "1", True, np.nan])
def test_bad_limits(value) -> None:
    for chain in (vectors(), vectors().to_stream()):
        with pytest.raises(sg.ChainError, match="cache: max_bytes=.* whole number, 1 or more"):
            chain.cache(max_bytes=value)


def test_bad_folders(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", "/proc/none"):
        with pytest.raises(
            sg.ChainError, match="cache: folder=.* cannot be written to .*; give a folder that can"
        ):
            vectors().cache(folder=folder)
    with pytest.raises(sg.ChainError, match="cache: folder=3 is not a path"):
        vectors().cache(folder=3)
    assert (tmp_path / "file").read_text() == "mine"
    assert vectors(1).cache(folder=tmp_path / "new" / "deep")[0]["x"].shape == (4, 4)


def test_what_a_file_cannot_hold_or_code_cannot_tell(tmp_path: Path) -> None:
    chain = vectors(1).sample_transform(lambda s: {"x": np.array([{}, None])})
    with pytest.raises(sg.SampleError, match="'x' has dtype object"):
        chain.cache(folder=tmp_path)[0]
    lock = threading.Lock()
    with pytest.raises(
        sg.ChainError, match=r"_thread.lock in the chain cannot be told .* \.cache\(\) without"
    ):
        vectors(1).key_transform("x", lambda x: x + lock.locked()).cache(folder=tmp_path)


# -- the folder ---------------------------------------------------------------------------------------------


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("streamgeo-*.npz"))


def damage_truncate(path: Path, rng: np.random.Generator) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(rng.integers(len(content)))])


def damage_flip(path: Path, rng: np.random.Generator) -> None:
    content = bytearray(path.read_bytes())
    for at in rng.integers(len(content), size=3):
        content[at] ^= 1 << int(rng.integers(8))
    path.write_bytes(bytes(content))


def damage_foreign(path: Path, rng: np.random.Generator) -> None:
    np.savez(path, x=np.zeros(3)) if rng.random() < 0.5 else path.write_bytes(rng.bytes(300))


@pytest.mark.parametrize("damage", [damage_truncate, damage_flip, damage_foreign])
def test_damaged_files_are_computed_again_and_reported(damage, tmp_path: Path, caplog) -> None:
    def build() -> sg.Buffer:
        return vectors(6).key_transform("x", slow).cache(folder=tmp_path)

    expected = list(build())
    rng = np.random.default_rng(1)
    for _ in range(25):
        for path in files_of(tmp_path):
            damage(path, rng)
        caplog.clear()
        assert all(same(a, b) for a, b in zip(build(), expected, strict=True))
        told = sum("is damaged" in record.getMessage() for record in caplog.records)
        assert told >= (
            1 if damage is damage_flip else 6
        )  # a flipped bit of a zip's spare fields does no harm
    CALLS.clear()
    list(build())
    assert CALLS["slow"] == 0


def test_the_file_of_another_sample_is_not_served(tmp_path: Path, caplog) -> None:
    chain = vectors(2).key_transform("x", slow).cache(folder=tmp_path)
    expected = list(chain)
    one, two = files_of(tmp_path)
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    assert all(same(a, b) for a, b in zip(chain, expected, strict=True))
    assert sum("the file of another sample" in record.getMessage() for record in caplog.records) == 2


def test_a_changed_file_is_told_and_the_others_are_kept(tmp_path: Path) -> None:
    data, kept = tmp_path / "data", tmp_path / "kept"
    data.mkdir()
    for number in range(3):
        np.save(data / f"{number}.npy", np.full((4, 4), float(number)))
    for folder in (None, kept):
        np.save(data / "1.npy", np.full((4, 4), 1.0))
        for build in (lambda b: b, lambda b: b.to_stream()):
            chain = (
                build(sg.files(str(data / "*.npy"), key="x").key_transform("x", sg.open_numpy()))
                .key_transform("x", slow)
                .cache(folder=folder)
            )
            assert [float(s["x"][0, 0]) for s in chain] == [1, 3, 5]
            before = (data / "1.npy").stat()
            np.save(data / "1.npy", np.full((4, 4), 10.0))
            os.utime(data / "1.npy", ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))
            assert [float(s["x"][0, 0]) for s in chain] == [1, 21, 5]
            np.save(data / "1.npy", np.full((4, 4), 1.0))
    CALLS.clear()
    again = sg.files(str(data / "*.npy"), key="x").key_transform("x", sg.open_numpy())
    assert [float(s["x"][0, 0]) for s in again.key_transform("x", slow).cache(folder=kept)] == [1, 3, 5]
    assert CALLS["slow"] == 1


def function(body: str, **scope: object) -> Callable[..., np.ndarray]:
    exec(f"def f(x):\n    {body}", scope)
    return scope["f"]  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (lambda: function("return x + 1"), lambda: function("return x + 2")),
        (lambda: function("return x + K", K=1), lambda: function("return x + K", K=2)),
        (
            lambda: function("return g(x)", g=function("return x * 2")),
            lambda: function("return g(x)", g=function("return x * 3")),
        ),
        (lambda: partial(np.multiply, 2.0), lambda: partial(np.multiply, 3.0)),
        (lambda: sg.normalize(1.0, 2.0), lambda: sg.normalize(1.0, 3.0)),
        (lambda: (lambda k: lambda x: x * k)(2), lambda: (lambda k: lambda x: x * k)(3)),
        (lambda: np.vectorize(lambda v: v + 1), lambda: np.vectorize(lambda v: v + 2)),
    ],
)  # fmt: skip
def test_a_changed_chain_is_never_served_stale(one, two, tmp_path: Path) -> None:
    for make in (one, two, one):
        plain = vectors(3).key_transform("x", make())
        try:
            kept = plain.cache(folder=tmp_path)
        except sg.ChainError as error:
            assert "cannot be told" in str(error)  # refused is as good as told
            continue
        assert all(same(a, b) for a, b in zip(kept, plain, strict=True))


def test_changed_data_and_a_changed_list_are_told(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        data = [{"x": np.full(3, value + i)} for i in range(3)]
        for chain in (sg.buffer_from_vector(data), sg.buffer_from_vector(data).to_stream()):
            assert [float(s["x"][0]) for s in chain.cache(folder=tmp_path)] == [value, value + 1, value + 2]


def test_the_digest_is_the_same_in_another_process(tmp_path: Path) -> None:
    program = """
        import sys, numpy as np, streamgeo as sg
        K = {1: (2.5, "a")}
        class Scale:
            def __init__(self, by): self.by = by
            def __call__(self, x): return x * self.by * K[1][0]
        calls = []
        def heavy(x):
            print("heavy")
            return np.sqrt(x)
        chain = sg.buffer_from_vector([{"x": np.arange(3.0)}, {"x": np.ones(3)}])
        chain = chain.key_transform("x", Scale(2.0)).key_transform("x", heavy).key_transform("x", sg.normalize(1, 2))
        print([s["x"].tolist() for s in chain.cache(folder=sys.argv[1])])
    """

    def run() -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)],
            cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.splitlines()

    first, second = run(), run()
    assert len(first) == 3 and second == first[-1:]


def test_digests_tell_values_apart() -> None:
    values = [
        None, 0, 0.0, False, "", "0", b"0", (), [], {}, (0,), [0], ((0,),), {"a": 0}, {0: "a"}, np.zeros(2),
        np.zeros(2, np.float32), np.zeros((2, 1)), np.float64(0), np.dtype("f4"), slice(0), set(), {0}, np.sin,
        np.cos, len, partial(np.sin), partial(np.sin, 1), sg.POINT, sg.SCENE, sg.halo(2), sg.Window(x=(0, 2)),
        sg.Window(x=(0, 3)), sg.flip("x"), sg.flip("y"), Path, np, os, ("a", "b"), ("ab",), ("a", ("b",)),
    ]  # fmt: skip
    marks = [digest(value) for value in values]
    assert len(set(marks)) == len(values)
    assert marks == [
        digest(v if isinstance(v, ModuleType) else pickle.loads(pickle.dumps(v))) for v in values
    ]
    loop: list = [1]
    loop.append(loop)
    assert digest(loop) == digest(loop) != digest([1])


def test_the_folder_is_bounded_and_what_is_not_ours_stays(tmp_path: Path) -> None:
    mine = {"notes.txt": b"mine", "other.npz": b"mine too", "streamgeo.npz": b"not a sample"}
    for name, content in mine.items():
        (tmp_path / name).write_bytes(content)

    def total() -> int:
        return sum(path.stat().st_size for path in files_of(tmp_path))

    for number in range(6):
        chain = (
            vectors(8).key_transform("x", partial(np.add, number)).cache(max_bytes=20_000, folder=tmp_path)
        )
        for _ in range(2):
            assert [float(s["x"][0, 0]) for s in chain] == [i + number for i in range(8)]
            assert 0 < total() <= 20_000
    assert not list(tmp_path.glob("*.part"))
    assert {name: (tmp_path / name).read_bytes() for name in mine} == mine


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    def chain(number: int, limit: int | None = None) -> sg.Buffer:
        return vectors(1).key_transform("x", partial(np.add, number)).cache(limit, tmp_path)

    for number in range(4):
        chain(number)[0]
    paths = files_of(tmp_path)
    for age, path in enumerate(paths):
        os.utime(path, (1000 + age, 1000 + age))
    size = paths[0].stat().st_size
    chain(9, 3 * size)[0]
    left = files_of(tmp_path)
    assert len(left) == 3 and set(paths[2:]) < set(left)


def test_a_chain_does_not_drive_out_its_own_samples(tmp_path: Path) -> None:
    list(vectors(1).key_transform("x", slow).cache(folder=tmp_path))
    (one,) = files_of(tmp_path)
    stream = vectors(10).key_transform("x", slow).cache(4 * one.stat().st_size + 100, tmp_path).to_stream()
    list(stream)
    CALLS.clear()
    list(stream), list(stream)
    assert CALLS["slow"] == 2 * 6


def test_a_full_disk_is_reported_and_the_samples_come(tmp_path: Path, monkeypatch, caplog) -> None:
    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    chain = vectors(4).key_transform("x", slow).cache(folder=tmp_path)
    monkeypatch.setattr(Path, "write_bytes", full)
    assert [float(s["x"][0, 0]) for s in chain] == [1, 3, 5, 7]
    assert sum("No space left" in record.getMessage() for record in caplog.records) == 1
    assert not list(tmp_path.iterdir())


def test_killed_writers_leave_nothing_that_is_served(tmp_path: Path) -> None:
    program = """
        import os, sys, threading, numpy as np, streamgeo as sg
        chain = sg.buffer_from_vector([{"x": np.full(200_000, float(i))} for i in range(50)])
        threading.Timer(float(sys.argv[2]), os._exit, (9,)).start()
        for _ in chain.cache(folder=sys.argv[1]).prefetch(4, 2): pass
    """
    for delay in ("0.01", "0.05", "0.1"):
        subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(tmp_path), delay],
                       cwd=Path(__file__).parents[1], check=False, timeout=60)  # fmt: skip
    chain = sg.buffer_from_vector([{"x": np.full(200_000, float(i))} for i in range(50)]).cache(
        folder=tmp_path
    )
    for index, sample in enumerate(chain):
        assert (sample["x"] == index).all()


def test_several_processes_share_a_folder_and_its_bound(tmp_path: Path) -> None:
    program = """
        import sys, numpy as np, streamgeo as sg
        from pathlib import Path
        folder = Path(sys.argv[1])
        chain = sg.buffer_from_vector([{"x": np.full(500, float(i))} for i in range(60)])
        stream = chain.key_transform("x", sg.normalize(float(sys.argv[2]), 2.0)).cache(150_000, folder).prefetch(4, 2)
        for _ in range(3):
            for index, sample in enumerate(stream):
                assert (sample["x"] == (index - float(sys.argv[2])) / 2).all()
                total = sum(p.stat().st_size for p in folder.glob("streamgeo-*") if p.exists())
                assert total <= 150_000 + 4 * 6_000, total
    """
    runs = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(program), str(tmp_path), str(number % 2)],
                         cwd=Path(__file__).parents[1], stderr=subprocess.PIPE)
        for number in range(4)
    ]  # fmt: skip
    for run in runs:
        _, errors = run.communicate(timeout=120)
        assert run.returncode == 0 or b"FileNotFoundError" in errors, errors.decode()


# -- processes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_it_pickles(stream: bool, folder: bool, tmp_path: Path) -> None:
    chain = (iterable_of_five() if stream else vectors(5)).cache(10_000, tmp_path if folder else None)
    expected = list(chain)
    again = pickle.loads(pickle.dumps(chain))
    assert repr(again) == repr(chain)
    assert all(same(a, b) for a, b in zip(again, expected, strict=True))


def five():
    return ({"x": np.full((4, 4), float(i))} for i in range(5))


def iterable_of_five() -> sg.Stream:
    return sg.stream_python_iterable(five)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.parametrize("folder", [False, True])
def test_a_child_has_a_working_one(folder: bool, tmp_path: Path) -> None:
    program = f"""
        import os, sys, threading, time, numpy as np, streamgeo as sg
        def slow(x):
            time.sleep(0.3)
            return x + 1
        chain = sg.buffer_from_vector([{{"x": np.full(3, i)}} for i in range(4)]).key_transform("x", slow)
        chain = chain.cache(folder={str(tmp_path) if folder else None!r})
        chain[0]
        thread = threading.Thread(target=lambda: chain[1])
        thread.start()
        time.sleep(0.1)  # the thread is computing now, which the child must not wait for
        child = os.fork()
        assert [int(chain[i]["x"][0]) for i in range(4)] == [1, 2, 3, 4]
        if not child:
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        thread.join()
    """
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)], timeout=60,
                          cwd=Path(__file__).parents[1], capture_output=True)  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()


def test_a_state_does_not_ask_where_the_cache_is(tmp_path: Path) -> None:
    stream = vectors().cache().batch(2).to_stream()
    iterator = iter(stream)
    next(iterator)
    other = vectors().cache(9_000, tmp_path).batch(2).to_stream()
    other.load_state_dict(stream.state_dict())
    assert all(same(a, b) for a, b in zip(other, iterator, strict=True))
    with pytest.raises(sg.ChainError, match="that of another chain"):
        vectors().batch(2).to_stream().load_state_dict(stream.state_dict())


def test_it_shows_and_rebuilds(tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.WARNING)
    for chain in (vectors().cache(), vectors().cache(100), vectors().to_stream().cache(5, tmp_path)):
        last = repr(chain).splitlines()[-1].strip()
        again = eval(f"chain{last}", {"chain": vectors()})
        assert repr(again).splitlines()[-1].strip() == last
    assert not caplog.records
