"""NumPy sources and sinks against numpy itself."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from streamgeo.errors import OpenError, WriteError
from streamgeo.grid import plain_grid
from streamgeo.scene import ArrayScene
from streamgeo.sinks import numpy as sink
from streamgeo.sources.numpy import open_scene
from streamgeo.template import Template
from streamgeo.window import Window

REAL = ["geoscience/uwnd.ref.npy", "remote_sensing/spacenet_tiles_16x250x250x1.npy"]


def same(a, b):
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")


@pytest.mark.parametrize("name", REAL)
def test_real_files(samples, tmp_path, name):
    want, rng = np.load(samples / name), np.random.default_rng(0)
    raw, physical = open_scene(str(samples / name), raw=True), open_scene(str(samples / name))
    assert raw.dims == tuple(f"dim_{i}" for i in range(want.ndim)) and raw.grid.locator is None
    assert same(raw.read(), want) and same(physical.read(), want.astype(np.float32))
    for _ in range(5):
        ends = [np.sort(rng.integers(0, size + 1, 2)) for size in want.shape]
        window = Window({dim: tuple(end) for dim, end in zip(raw.dims, ends)})
        assert same(raw.read(window), want[window.slices(raw.dims)])
    raw.save(tmp_path / "out.npy")
    assert same(np.load(tmp_path / "out.npy"), want)
    physical.save(tmp_path / "physical.npy")
    assert same(np.load(tmp_path / "physical.npy"), want.astype(np.float32))


ANY = hnp.arrays(
    st.one_of(hnp.integer_dtypes(endianness="?"), hnp.unsigned_integer_dtypes(endianness="?"),
              hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)), hnp.boolean_dtypes(),
              hnp.complex_number_dtypes(endianness="?", sizes=(64, 128))),
    hnp.array_shapes(max_dims=4, max_side=5),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(ANY, st.booleans(), st.booleans(), st.data())
def test_any_array_in_any_window(tmp_path_factory, values, fortran, packed, data):
    folder = tmp_path_factory.mktemp("n")
    values = np.asfortranarray(values) if fortran else values
    path = folder / ("a.npz" if packed else "a.npy")
    np.savez(path, only=values) if packed else np.save(path, values)
    scene = open_scene(str(path), raw=True)
    ends = [sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in values.shape]
    window = Window({dim: tuple(end) for dim, end in zip(scene.dims, ends)})
    want = values.astype(values.dtype.newbyteorder("="))
    assert scene.shape == values.shape and scene.dtype == want.dtype
    assert same(scene.read(window), want[window.slices(scene.dims)])
    scene.save(folder / f"out{path.suffix}")
    back = np.load(folder / f"out{path.suffix}")
    assert same(back["only"] if packed else back, values)
    if values.dtype.kind != "c":
        with np.errstate(over="ignore"):
            assert same(open_scene(str(path)).read(), values.astype(np.float32))


def test_what_is_read_may_be_written_to(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((3, 4), np.float32))
    np.savez(tmp_path / "a.npz", np.ones((3, 4), np.float32))
    for name in ("a.npy", "a.npz"):
        scene = open_scene(str(tmp_path / name))
        scene.read()[:] = 7
        assert scene.read().max() == 1


def test_keys_of_an_archive(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=np.arange(6).reshape(2, 3), z=np.ones(4))
    path = str(tmp_path / "a.npz")
    scene = open_scene(path, key="x", raw=True)
    assert same(scene.read(Window(dim_1=(1, 3))), np.arange(6).reshape(2, 3)[:, 1:])
    with pytest.raises(OpenError, match="choose key= among x, z of a.npz"):
        open_scene(path)
    with pytest.raises(OpenError, match="no key 'y' in a.npz; it has x, z"):
        open_scene(path, key="y")
    open_scene(path, key="z").save(tmp_path / "out.npz")
    assert list(np.load(tmp_path / "out.npz")) == ["z"]
    again = pickle.loads(pickle.dumps(scene))
    assert same(again.read(), scene.read())


def test_an_archive_is_read_once_by_many_threads(tmp_path):
    values = np.random.default_rng(0).random((200, 300))
    np.savez_compressed(tmp_path / "a.npz", values)
    scene = open_scene(str(tmp_path / "a.npz"), raw=True)
    (tmp_path / "kept.npz").write_bytes((tmp_path / "a.npz").read_bytes())
    with ThreadPoolExecutor(4) as pool:
        assert all(same(out, values) for out in pool.map(lambda _: scene.read(), range(8)))
    (tmp_path / "a.npz").unlink()
    assert same(scene.read(), values)


def test_dims_in_another_order_and_new_ones(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(6, dtype="u1").reshape(2, 3))
    scene = open_scene(str(tmp_path / "a.npy"), raw=True)
    turned = ArrayScene(scene.array.T, scene.grid.transpose("dim_1", "dim_0"), scene.template, name="a.npy")
    turned.save(tmp_path / "out.npy")
    assert same(np.load(tmp_path / "out.npy"), scene.array)
    more = ArrayScene(np.random.rand(2, 3, 4), scene.grid.insert(2, "band", 4), scene.template, name="a.npy")  # noqa: NPY002
    more.save(tmp_path / "more.npy")
    assert same(np.load(tmp_path / "more.npy"), more.array.transpose(2, 0, 1))


def test_what_cannot_be_written(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(6, dtype="u1"))
    scene = open_scene(str(tmp_path / "a.npy"), raw=True)
    with pytest.raises(WriteError, match="stored as uint8"):
        ArrayScene(scene.array + 0.5, scene.grid, scene.template, name="a.npy").save(tmp_path / "out.npy")
    with pytest.raises(WriteError, match="Python objects"):
        sink.write(tmp_path / "o.npy", np.array([None]), plain_grid((1,)), Template("numpy", ("dim_0",)))
    with pytest.raises(WriteError, match="has shape"):
        sink.write(tmp_path / "o.npy", np.ones(2), plain_grid((1,)), Template("numpy", ("dim_0",)))
    assert not (tmp_path / "out.npy").exists()


def test_a_georeference_is_left_behind_aloud(tmp_path):
    from streamgeo.grid import Grid
    from streamgeo.locate import GeoLocator

    grid = Grid.of(("y", "x"), (2, 2), GeoLocator((1, 0, 0, 0, -1, 0), None))
    with pytest.warns(UserWarning, match="holds no georeference"):
        sink.write(tmp_path / "o.npy", np.ones((2, 2)), grid, Template("geotiff", ("y", "x")))


def one_error(path, match, **options):
    with pytest.raises(OpenError, match=match) as caught:
        open_scene(str(path), **options).read()
    assert Path(path).name in str(caught.value)
    return caught.value


def test_files_that_cannot_be_opened(tmp_path):
    one_error(tmp_path / "none.npy", "no such file")
    (tmp_path / "empty.npy").touch()
    one_error(tmp_path / "empty.npy", "is empty")
    one_error(tmp_path, "is a folder")
    (tmp_path / "text.npy").write_text("not an array" * 10)
    assert one_error(tmp_path / "text.npy", "damaged, cut short").__cause__ is not None
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((40, 50)))
    np.savez(tmp_path / "a.npz", np.random.default_rng(0).random((40, 50)))
    for suffix in ("npy", "npz"):
        data = (tmp_path / f"a.{suffix}").read_bytes()
        for i, size in enumerate([4, 60, len(data) // 2, len(data) - 1]):
            (tmp_path / f"cut{i}.{suffix}").write_bytes(data[:size])
            one_error(tmp_path / f"cut{i}.{suffix}", "cut short")
    damaged = bytearray((tmp_path / "a.npz").read_bytes())
    damaged[8000:8100] = bytes(100)
    (tmp_path / "bad.npz").write_bytes(damaged)
    one_error(tmp_path / "bad.npz", "damaged")


def test_arrays_that_cannot_be_opened(tmp_path):
    kinds = {"text": np.array(["a"]), "date": np.array(["2000-01-01"], "M8[D]"), "record": np.zeros(2, [("a", "f4")]),
             "ünicode": np.zeros(2, [("ü", "f4")])}  # fmt: skip
    for name, values in kinds.items():
        np.save(tmp_path / f"{name}.npy", values)
        np.savez(tmp_path / f"{name}.npz", values)
        for suffix in ("npy", "npz"):
            for raw in (False, True):
                one_error(tmp_path / f"{name}.{suffix}", "only numbers can be opened", raw=raw)
    np.save(tmp_path / "object.npy", np.array([None]), allow_pickle=True)
    one_error(tmp_path / "object.npy", "no .npy or .npz of numbers")
    np.save(tmp_path / "complex.npy", np.array([1j]))
    one_error(tmp_path / "complex.npy", "complex numbers, which float32 cannot; open with raw=True")
    np.save(tmp_path / "scalar.npy", np.float64(3))
    one_error(tmp_path / "scalar.npy", "is a scalar")
    one_error(tmp_path / "complex.npy", "is no .npz file, so it has no key 'a'", key="a")


@settings(max_examples=60, deadline=None)
@given(ANY, st.data())
def test_windows_into_any_view(tmp_path_factory, values, data):
    path = tmp_path_factory.mktemp("v") / "a.npy"
    np.save(path, np.asfortranarray(values) if data.draw(st.booleans()) else values)
    scene = open_scene(str(path), raw=True)
    ends = [sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in values.shape]
    window = Window({dim: tuple(end) for dim, end in zip(scene.dims, ends)})
    want = values[window.slices(scene.dims)].astype(scene.dtype)
    slot = np.zeros((*want.shape, 2), scene.dtype)
    scene.read_into(slot[..., 1], window)
    assert same(slot[..., 1], want) and not slot[..., 0].any()
    assert scene.reader == "memory-mapped"


def test_a_changed_file_is_never_served_stale(tmp_path):
    for shape in ((30, 40), (40, 50)):
        np.save(tmp_path / "a.npy", np.zeros((30, 40)))
        scene = open_scene(str(tmp_path / "a.npy"))
        twin = pickle.loads(pickle.dumps(scene))
        assert scene.read().max() == twin.read().max() == 0
        np.save(tmp_path / "b.npy", np.ones(shape))
        later = (tmp_path / "a.npy").stat().st_mtime_ns + 10**9
        os.utime(tmp_path / "b.npy", ns=(later, later))
        (tmp_path / "b.npy").replace(tmp_path / "a.npy")
        for old in (scene, twin):
            with pytest.raises(OpenError, match="changed while it was read"):
                old.read()


def test_damaged_headers_are_errors_or_what_numpy_reads(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 99, (30, 40)).astype("i2"))
    good, rng, outcomes = (tmp_path / "a.npy").read_bytes(), np.random.default_rng(1), set()
    for number in range(600):
        data = bytearray(good)
        for _ in range(int(rng.integers(1, 3))):
            data[int(rng.integers(0, 128))] = int(rng.integers(0, 256))
        path = tmp_path / f"{number}.npy"
        path.write_bytes(data[: int(rng.integers(1, len(data)))] if number % 5 == 0 else data)
        try:
            found = open_scene(str(path), raw=True).read()
        except OpenError:
            outcomes.add("error")
            continue
        want = np.load(path)
        assert same(found, want.astype(want.dtype.newbyteorder("=")))
        outcomes.add("read")
    assert outcomes == {"error", "read"}


MEMORY = """
import sys
import streamgeo as sg
sg.config(cache_bytes=int(sys.argv[2]))
def resident():
    return int(next(x for x in open("/proc/self/status") if x.startswith("VmRSS")).split()[1]) >> 10
scene = sg.open_numpy(raw=True)(sys.argv[1])
before, most = resident(), 0
for y in range(0, 16000, 250):
    for x in range(0, 16000, 2000):
        scene.read(sg.Window(dim_0=slice(y, y + 250), dim_1=slice(x, x + 2000)))
    most = max(most, resident() - before)
print(most)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is asked of /proc")
@pytest.mark.parametrize("budget, low, high", [(0, 0, 150), (128, 0, 220), (2000, 380, 600)])
def test_maps_take_the_memory_that_the_cache_may_take(tmp_path, budget, low, high):
    np.lib.format.open_memmap(tmp_path / "a.npy", "w+", "u2", (16000, 16000)).flush()  # 512 MB, none on disk
    done = subprocess.run([sys.executable, "-c", MEMORY, str(tmp_path / "a.npy"), str(budget << 20)],
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert low <= int(done.stdout) <= high
