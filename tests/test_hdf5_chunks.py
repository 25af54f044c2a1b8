"""HDF5 read without the HDF5 library, against h5py."""

from __future__ import annotations

import ctypes
import itertools
import os
import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgeo.chunks import CACHE
from streamgeo.errors import OpenError
from streamgeo.sources import hdf5, netcdf
from streamgeo.sources.hdf5 import open_scene
from streamgeo.window import Window
from tests.netcdf_made import same
from tests.test_hdf5 import PLAIN, arrays

DTYPES = ["i1", "u1", "<i2", ">i2", "<u2", "<i4", ">u4", "<f4", ">f4", "<f8", ">f8", "<i8", ">u8"]
GRIDS = [((37, 53), (8, 16)), ((3, 20, 21), (2, 16, 21)), ((300,), (128,)), ((5, 7), (8, 8))]
OPTIONS = {
    "uncompressed": {},
    "deflate": {"compression": "gzip"},
    "shuffle, deflate": {"compression": "gzip", "shuffle": True},
    "shuffle, deflate, fletcher32": {"compression": "gzip", "shuffle": True, "fletcher32": True},
    "shuffle, lzf": {"compression": "lzf", "shuffle": True},
    "szip": {"compression": "szip", "compression_opts": ("nn", 16)},
    "shuffle, szip": {"compression": "szip", "compression_opts": ("ec", 8), "shuffle": True},
    "fletcher32": {"fletcher32": True},
    "shuffle": {"shuffle": True},
}


@pytest.fixture(autouse=True)
def nothing_kept():
    CACHE.clear()


@pytest.fixture
def no_library(monkeypatch):
    """The library may not be asked for pixels."""

    def refuse(path, name, index):
        raise AssertionError(f"{name} of {path} was read by h5py")

    monkeypatch.setattr(hdf5, "_pixels", refuse)


def numbers(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 120, shape)
    return (values + rng.random(shape)).astype(dtype) if np.dtype(dtype).kind == "f" else values.astype(dtype)


def random_windows(scene, count, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        ends = [np.sort(rng.integers(0, size + 1, 2)) for size in scene.shape]
        yield Window({dim: tuple(map(int, end)) for dim, end in zip(scene.dims, ends)})


def equal_everywhere(path, want, windows=5, name="a"):
    """Whole and in windows, as stored and as float32; the scene that was read as stored."""
    with np.errstate(all="ignore"):
        for raw, expected in ((True, want.astype(want.dtype.newbyteorder("="))), (False, want.astype("f4"))):
            scene = open_scene(str(path), dataset=name, raw=raw)
            assert same(scene.read(), expected)
            for window in random_windows(scene, windows):
                slot = np.empty((3, *window.shape, 2), scene.dtype)[1, ..., 0]  # a slot of a batch
                scene.read_into(slot, window)
                assert same(slot, expected[window.slices(scene.dims)]), window
    return open_scene(str(path), dataset=name, raw=True)


# -- real files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLAIN)
def test_real_files_whole_and_in_200_windows(name, samples):
    paths = arrays(samples / name)
    with h5py.File(samples / name) as file:
        for path in paths:
            scene = equal_everywhere(samples / name, file[path][()], -(-200 // len(paths)), path)
            assert scene.reader == "memory-mapped" or scene.reader.startswith("chunks of")


# -- made files -------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("userblock", [0, 512])
@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("filters", OPTIONS)
def test_filters_dtypes_and_grids(filters, libver, userblock, tmp_path):
    for n, (dtype, (shape, chunks)) in enumerate(itertools.product(DTYPES, GRIDS)):
        values, chunks = numbers(shape, dtype, n), tuple(map(min, chunks, shape))
        with h5py.File(tmp_path / f"{n}.h5", "w", libver=libver, userblock_size=userblock) as file:
            file.create_dataset("a", data=values, chunks=chunks, **OPTIONS[filters])
        scene = equal_everywhere(tmp_path / f"{n}.h5", values, 3)
        assert scene.reader == f"chunks of {' x '.join(map(str, chunks))} ({filters})"


def test_edge_chunks_without_filters(tmp_path):
    """A file may leave filters out where chunks reach beyond the array; only ctypes can ask for it."""
    libraries = [
        line.split()[-1]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if "libhdf5" in line and "h5py" in line
    ]
    if not libraries:
        pytest.skip("no HDF5 library of h5py's own")
    library = ctypes.CDLL(next(one for one in libraries if "_hl" not in one))
    values = numbers((20, 21), "<i4")
    for name, codes in (("deflate", (1,)), ("shuffle", (2,)), ("both", (2, 1))):
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((8, 16))
        for code in codes:
            plist.set_deflate(4) if code == 1 else plist.set_shuffle()
        assert library.H5Pset_chunk_opts(ctypes.c_int64(plist.id), ctypes.c_uint(2)) == 0
        with h5py.File(tmp_path / f"{name}.h5", "w", libver="latest") as file:
            space, kind = h5py.h5s.create_simple(values.shape), h5py.h5t.py_create(values.dtype)
            h5py.Dataset(h5py.h5d.create(file.id, b"a", kind, space, plist))[...] = values
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            equal_everywhere(tmp_path / f"{name}.h5", values)


@pytest.mark.parametrize("dtype", DTYPES)
def test_layouts(dtype, tmp_path):
    values = numbers((9, 11), dtype)
    fill = np.array(7, values.dtype.newbyteorder("="))
    with h5py.File(tmp_path / "in.h5", "w", userblock_size=1024) as file:
        file["contiguous"] = values
        file.create_dataset("unwritten", (9, 11), values.dtype, fillvalue=fill)
        file.create_dataset("unset", (9, 11), values.dtype)
        sparse = file.create_dataset("sparse", (9, 11), values.dtype, chunks=(4, 4), fillvalue=fill)
        sparse[2:5, 6:7] = 3
        compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        compact.set_layout(h5py.h5d.COMPACT)
        space, kind = h5py.h5s.create_simple((9, 11)), h5py.h5t.py_create(values.dtype)
        h5py.Dataset(h5py.h5d.create(file.id, b"compact", kind, space, compact))[...] = values
        never = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        never.set_chunk((4, 4))
        never.set_fill_value(fill)
        never.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        h5py.h5d.create(file.id, b"never", kind, space, never)
    how = {"contiguous": "memory-mapped", "unwritten": "chunks of 9 x 11", "unset": "chunks of 9 x 11",
           "sparse": "chunks of 4 x 4", "never": "chunks of 4 x 4",
           "compact": "chunks of 9 x 11 (in its header, read once by the library)"}  # fmt: skip
    for name, reader in how.items():
        with h5py.File(tmp_path / "in.h5") as file:
            want = file[name][()]
        assert equal_everywhere(tmp_path / "in.h5", want, name=name).reader.startswith(reader)


def test_what_is_left_to_the_library_says_so(tmp_path):
    values = numbers((9, 11), "<i4")
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file.create_dataset("scaleoffset", data=values, chunks=(4, 4), scaleoffset=0)
        file.create_dataset("external", data=values, external=[(str(tmp_path / "raw"), 0, values.nbytes)])
        virtual = h5py.VirtualLayout((9, 11), "i4")
        virtual[...] = h5py.VirtualSource(file["scaleoffset"])
        file.create_virtual_dataset("virtual", virtual)
        bits = h5py.h5t.STD_I32LE.copy()
        bits.set_precision(24)
        space = h5py.h5s.create_simple((9, 11))
        h5py.Dataset(h5py.h5d.create(file.id, b"bits", bits, space))[...] = values
        twice = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        twice.set_chunk((4, 4))
        twice.set_deflate(4)
        twice.set_deflate(4)
        kind = h5py.h5t.py_create(values.dtype)
        h5py.Dataset(h5py.h5d.create(file.id, b"twice", kind, space, twice))[...] = values
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["a"] = values
    with h5py.File(tmp_path / "in.h5", "a") as file:
        file["link"] = h5py.ExternalLink("other.h5", "a")
    why = {"scaleoffset": "filter 6 is not covered", "external": "another file", "virtual": "virtual dataset",
           "bits": "another form", "twice": "two compressors", "link": "another file"}  # fmt: skip
    for name, reason in why.items():
        reader = equal_everywhere(tmp_path / "in.h5", values, name=name).reader
        assert reader.startswith("h5py, because ") and reason in reader


def test_booleans_enumerations_and_half_floats(tmp_path, no_library):
    kind = h5py.enum_dtype({"a": 0, "b": 100}, basetype=">i2")
    flags = numbers((9, 11), "u1") > 60
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file.create_dataset("flags", data=flags, chunks=(4, 4))
        file.create_dataset("plain", data=flags)
        file.create_dataset("names", data=numbers((9, 11), ">i2"), dtype=kind, chunks=(4, 4))
        file.create_dataset("half", data=numbers((9, 11), ">f2"), chunks=(4, 4), compression="gzip")
    for name in ("flags", "plain", "names", "half"):
        with h5py.File(tmp_path / "in.h5") as file:
            want = file[name][()]
        scene = open_scene(str(tmp_path / "in.h5"), dataset=name, raw=True)
        assert same(scene.read(), want.astype(want.dtype.newbyteorder("=")))


@pytest.mark.parametrize("maxshape", [(None, 40), (40, None), (None, None), (60, 70)])
def test_arrays_that_grow(maxshape, tmp_path):
    values = numbers((37, 33), "<i2")
    for libver in ("earliest", "latest"):
        with h5py.File(tmp_path / f"{libver}.h5", "w", libver=libver) as file:
            dataset = file.create_dataset(
                "a", (5, 5), "<i2", maxshape=maxshape, chunks=(4, 8), compression="gzip"
            )
            dataset.resize((37, 33))
            dataset[...] = values
        scene = equal_everywhere(tmp_path / f"{libver}.h5", values, 20)
        # HDF5 lists the chunks of an extensible array wrongly when it grows along another axis than the first.
        listed = maxshape != (40, None) or libver == "earliest"
        assert scene.reader.startswith("chunks of 4 x 8" if listed else "h5py, because the HDF5 library")


@pytest.mark.parametrize("written", [np.s_[:], np.s_[0:1], np.s_[:, 0:1], np.s_[36:, 32:], np.s_[:4, 20:]])
@pytest.mark.parametrize("maxshape", [(37, None), (40, None), (200, None), (None, 33), (37, 300)])
def test_arrays_that_grow_and_are_written_in_part(maxshape, written, tmp_path):
    for libver in ("earliest", "latest"):
        with h5py.File(tmp_path / f"{libver}.h5", "w", libver=libver) as file:
            dataset = file.create_dataset("a", (37, 33), "<i2", maxshape=maxshape, chunks=(4, 2), fillvalue=9)
            dataset[written] = numbers((37, 33), "<i2")[written]
            want = dataset[...]
        equal_everywhere(tmp_path / f"{libver}.h5", want)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_array_in_any_window(tmp_path_factory, data):
    shape = tuple(data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=4)))
    chunks = tuple(data.draw(st.integers(1, size)) for size in shape)
    options = OPTIONS[data.draw(st.sampled_from(sorted(OPTIONS)))]
    values = numbers(shape, data.draw(st.sampled_from(DTYPES)))
    path = tmp_path_factory.mktemp("h") / "in.h5"
    with h5py.File(path, "w", libver=data.draw(st.sampled_from(["earliest", "latest"]))) as file:
        if "compression_opts" in options and values.nbytes // values.itemsize < 64:
            options = {}  # szip wants more numbers than that
        dataset = file.create_dataset("a", shape, values.dtype, chunks=None if "szip" in str(options) else chunks,
                                      fillvalue=5, **options)  # fmt: skip
        half = tuple(slice(0, -(-size // 2)) for size in shape)
        dataset[half] = values[half]
        want = dataset[...]
    equal_everywhere(path, want, 4)


def test_attributes_unpack_pieces_as_they_unpack_the_whole(tmp_path):
    values = numbers((70, 90), "<i2")
    with h5py.File(tmp_path / "in.h5", "w") as file:
        for name, chunks in (("thin", (1, 90)), ("wide", (64, 64)), ("plain", None)):
            dataset = file.create_dataset(name, data=values, chunks=chunks)
            dataset.attrs.update(
                scale_factor=0.1, add_offset=3.0, _FillValue=np.int16(5), valid_max=np.int16(99)
            )
    want = (values * 0.1 + 3.0).astype("f4")
    want[(values == 5) | (values > 99)] = np.nan
    for name in ("thin", "wide", "plain"):
        scene = open_scene(str(tmp_path / "in.h5"), dataset=name)
        assert same(scene.read(), want)
        for window in random_windows(scene, 20):
            assert same(scene.read(window), want[window.slices(scene.dims)])


# -- index --------------------------------------------------------------------------------------------------


def test_the_index_is_compact_and_taken_once(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "in.h5", "w") as file:
        dataset = file.create_dataset("a", (50, 2000), "i2", chunks=(1, 1), compression="gzip", fillvalue=3)
        packed = imagecodecs.deflate_encode(np.int16(9).tobytes())
        for at in itertools.product(range(25), range(2000)):
            dataset.id.write_direct_chunk(at, packed)
    scene = open_scene(str(tmp_path / "in.h5"), raw=True)
    assert set(scene.read(Window(dim_0=(24, 26), dim_1=(0, 9))).ravel().tolist()) == {9, 3}
    assert scene._found(0).nbytes < 25 * 50_000 + 2000
    monkeypatch.setattr(h5py.h5f, "open", None)
    again = open_scene(str(tmp_path / "in.h5"), raw=True)
    assert again.read(Window(dim_0=(0, 1), dim_1=(0, 1))).item() == 9


def test_threads_read_at_once(tmp_path, no_library):
    values = numbers((300, 310), "<f4")
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file.create_dataset("a", data=values, chunks=(16, 32), compression="gzip", shuffle=True)
        file["b"] = values
    scenes = [open_scene(str(tmp_path / "in.h5"), dataset=name) for name in "ab"]
    start = threading.Barrier(8)

    def work(seed):
        start.wait()
        return all(
            same(scene.read(window), values[window.slices(scene.dims)])
            for scene in scenes
            for window in random_windows(scene, 60, seed)
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_and_a_pickle_read_on(tmp_path):
    values = numbers((100, 100), "<i4")
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file.create_dataset("a", data=values, chunks=(16, 32), compression="gzip")
        file["b"] = values
    for name in "ab":
        scene = open_scene(str(tmp_path / "in.h5"), dataset=name, raw=True)
        scene.read()
        assert same(pickle.loads(pickle.dumps(scene)).read(), values)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                CACHE.clear()
                code = 0 if same(scene.read(), values) else 2
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("chunks", [None, (4, 4)])
def test_a_file_that_changed_is_never_served_stale(chunks, tmp_path):
    path = tmp_path / "in.h5"
    scene = None
    for n in range(4):
        with h5py.File(path.with_suffix(".new"), "w") as file:
            file.create_dataset(
                "a", data=np.full((9, 9), n, "i2"), chunks=chunks, compression=chunks and "gzip"
            )
        os.utime(path.with_suffix(".new"), ns=(n, n))
        path.with_suffix(".new").rename(path)
        if scene is not None:
            with pytest.raises(OpenError, match="in.[nch5]+ has changed since it was opened"):
                scene.read()
        scene = open_scene(str(path), raw=True)
        assert set(scene.read().ravel().tolist()) == {n}
    path.unlink()
    with pytest.raises(OpenError, match="no such file"):
        scene.read()


# -- damaged files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "filters", [f for f in OPTIONS if f not in ("uncompressed", "shuffle") and "szip" not in f]
)
def test_a_damaged_chunk_is_an_error_or_what_the_library_reads(filters, tmp_path):
    values = numbers((64, 64), "<i4")
    with h5py.File(tmp_path / "in.h5", "w") as file:
        dataset = file.create_dataset("a", data=values, chunks=(16, 32), **OPTIONS[filters])
        where = dataset.id.get_chunk_info(3)
    data = (tmp_path / "in.h5").read_bytes()
    rng = np.random.default_rng(0)
    for n in range(25):
        bad, path = bytearray(data), tmp_path / f"bad{n}.h5"
        for at in rng.integers(0, where.size, 3):
            bad[where.byte_offset + at] ^= int(rng.integers(1, 256))
        path.write_bytes(bad)
        scene = open_scene(str(path), raw=True)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                got = scene.read()
        except OpenError as error:
            assert path.name in str(error) and "chunk (1, 1) of 'a'" in str(error)
            assert same(scene.read(Window(dim_0=(0, 16), dim_1=(0, 64))), values[:16])
            continue
        with h5py.File(path) as file:
            assert same(got, file["a"][()])


def test_a_size_that_a_header_claims_is_not_believed(tmp_path):
    with h5py.File(tmp_path / "in.h5", "w") as file:
        dataset = file.create_dataset(
            "a", (1 << 14, 1 << 14), "i4", chunks=(1 << 14, 1 << 14), compression="gzip"
        )
        dataset.id.write_direct_chunk((0, 0), b"\x78\x9c" + bytes(100))
    with pytest.raises(OpenError, match=r"chunk \(0, 0\) of 'a' .*bytes of deflate cannot hold 1073741824"):
        open_scene(str(tmp_path / "in.h5")).read(Window(dim_0=(0, 1), dim_1=(0, 1)))
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file.create_dataset("a", (1 << 40, 1 << 20), "f8", chunks=(64, 64))
    scene = open_scene(str(tmp_path / "in.h5"))
    assert not scene.read(Window(dim_0=(1 << 39, (1 << 39) + 9), dim_1=(0, 9))).any()
    with pytest.raises(OpenError, match="does not fit in memory"):
        scene.read()


@pytest.mark.parametrize("options", [{}, {"fletcher32": True}, {"compression": "gzip"}], ids=str)
def test_an_index_that_lists_chunks_of_no_bytes(options, tmp_path):
    """The library takes four bytes of a checksum from the nothing that is there, and dies."""
    with h5py.File(tmp_path / "in.h5", "w") as file:
        dataset = file.create_dataset("a", data=numbers((64, 64), "<i4"), chunks=(16, 32), **options)
        chunk = dataset.id.get_chunk_info(3)
    data = bytearray((tmp_path / "in.h5").read_bytes())
    # A key of the tree: size, filters left out, where the chunk begins, and 0 for the bytes of a number.
    key = (
        np.array([chunk.size, 0], "<u4").tobytes() + np.array([16, 32, 0, chunk.byte_offset], "<u8").tobytes()
    )
    assert data.count(key) == 1
    at = data.index(key)
    for size, match in (
        (0, r"bad0\.h5 is damaged: it lists chunks of 0 bytes"),
        (3, r"chunk \(1, 1\) of 'a' .*damaged"),
    ):
        data[at : at + 4] = size.to_bytes(4, "little")
        (tmp_path / f"bad{size}.h5").write_bytes(data)
        with pytest.raises(OpenError, match=match):
            open_scene(str(tmp_path / f"bad{size}.h5")).read()


@pytest.mark.parametrize(("number", "size"), [(0, 8), (0, 0), (1, 1 << 20), (1, (1 << 64) - 1), (2, 1 << 63)])
def test_a_heap_that_would_keep_the_library_for_ever(number, size, tmp_path):
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["a"] = numbers((9, 9), "<i4")
        file["a"].attrs["words"] = ["one", "two", "three"]
    data = bytearray((tmp_path / "in.h5").read_bytes())
    heap = data.index(b"GCOL")
    assert same(open_scene(str(tmp_path / "in.h5"), raw=True).read(), numbers((9, 9), "<i4"))
    data[heap + 16 : heap + 18] = number.to_bytes(2, "little")
    data[heap + 24 : heap + 32] = size.to_bytes(8, "little")
    (tmp_path / "bad.h5").write_bytes(data)
    (tmp_path / "bad.nc").write_bytes(data)
    for opener, name in ((open_scene, "bad.h5"), (netcdf.open_scene, "bad.nc")):
        with pytest.raises(OpenError, match=f"{name} is damaged: the objects in the heap at byte {heap}"):
            opener(str(tmp_path / name))
