"""NetCDF read without netCDF-C, against netCDF4-python."""

from __future__ import annotations

import os
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import netCDF4
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgeo.chunks import CACHE
from streamgeo.errors import OpenError
from streamgeo.sources import netcdf
from streamgeo.sources.hdf5_filters import Damaged, Pipeline
from streamgeo.sources.netcdf import open_scene
from streamgeo.window import Window
from tests.netcdf_made import FILES, copy_of, make, pixels, quiet_open, reference, same, variables
from tests.test_hdf5_chunks import numbers, random_windows

CLASSIC = ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"]
OLD_TYPES = ["i1", "i2", "i4", "f4", "f8"]
NEW_TYPES = [*OLD_TYPES, "u1", "u2", "u4", "i8", "u8"]


@pytest.fixture(autouse=True)
def nothing_kept():
    CACHE.clear()


@pytest.fixture
def no_library(monkeypatch):
    """The library may not be asked for pixels."""

    def refuse(path, name, index):
        raise AssertionError(f"{name} of {path} was read by netCDF4")

    monkeypatch.setattr(netcdf, "_pixels", refuse)


def equal_everywhere(path, name="v", windows=5, want=None):
    """Whole and in windows, as stored and unpacked, against netCDF4-python; the reader's phrase."""
    for raw in (True, False):
        expected = reference(path, name, raw) if want is None else want[raw]
        scene = quiet_open(path, variable=name, raw=raw)
        assert same(scene.read(), expected), (name, raw)
        for window in random_windows(scene, windows):
            slot = np.empty((3, *window.shape, 2), scene.dtype)[1, ..., 0]  # a slot of a batch
            scene.read_into(slot, window)
            assert same(slot, expected[window.slices(scene.dims)]), (name, raw, window)
    return scene.reader


# -- real files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_real_files_whole_and_in_200_windows(name, samples, tmp_path):
    with netCDF4.Dataset(copy_of(samples / name, tmp_path)) as dataset:
        names = list(variables(dataset))
        wants = {v: {raw: pixels(dataset[v], raw) for raw in (True, False)} for v in names}
    for variable, want in wants.items():
        reader = equal_everywhere(samples / name, variable, -(-100 // len(names)), want)
        assert reader == "memory-mapped" or reader.startswith("chunks of"), reader


# -- classic files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("growing", [False, True])
@pytest.mark.parametrize("fmt", CLASSIC)
def test_classic_files(fmt, growing, count, tmp_path, no_library):
    for dtype in NEW_TYPES if fmt.endswith("DATA") else OLD_TYPES:
        path = tmp_path / f"{dtype}.nc"
        with netCDF4.Dataset(path, "w", format=fmt) as d:
            for dim, size in (("t", None if growing else 5), ("y", 7), ("x", 3)):
                d.createDimension(dim, size)
            d.title = "some text"
            d.createVariable("fixed", "i2", ("y", "x"))[:] = numbers((7, 3), "i2")
            for i in range(count):
                v = d.createVariable(f"v{i}", dtype, ("t", "y", "x"))
                v.setncatts({"scale_factor": 0.5} if i else {})
                v.set_auto_maskandscale(False)
                v[:] = numbers((5, 7, 3), dtype, i)
            if count == 3:
                d.createVariable("time", "i1", ("t",))[:] = np.arange(5)
        for i in range(count):
            assert equal_everywhere(path, f"v{i}") == "memory-mapped"
        assert equal_everywhere(path, "fixed") == "memory-mapped"


def test_a_streamed_classic_file_is_left_to_the_library(tmp_path):
    path = str(tmp_path / "in.nc")
    with netCDF4.Dataset(path, "w", format="NETCDF3_CLASSIC") as d:
        d.createDimension("t", None)
        d.createDimension("x", 6)
        d.createVariable("v", "i2", ("t", "x"))[:] = numbers((4, 6), "i2")
    data = bytearray(Path(path).read_bytes())
    data[4:8] = struct.pack(">I", 0xFFFFFFFF)
    Path(path).write_bytes(data)
    scene = open_scene(path, raw=True)  # of as many records as the header can say
    assert scene.reader.startswith("netCDF4, because its header does not say how many records")
    assert same(scene.read(Window(t=(0, 4), x=(0, 6))), numbers((4, 6), "i2"))
    with pytest.raises(OpenError, match="does not fit in memory"):
        scene.read()


# -- NetCDF-4 ---------------------------------------------------------------------------------------------

FILTERS = {
    "uncompressed": {},
    "deflate": {"compression": "zlib", "shuffle": False},
    "shuffle, deflate": {"compression": "zlib"},
    "fletcher32, shuffle, deflate": {"compression": "zlib", "fletcher32": True},
    "fletcher32": {"fletcher32": True},
    "szip": {"compression": "szip", "szip_pixels_per_block": 8},
    "zstd": {"compression": "zstd"},
    "bzip2": {"compression": "bzip2"},
    "blosc": {"compression": "blosc_lz4"},
}


@pytest.mark.filterwarnings("error::UserWarning:streamgeo")
@pytest.mark.parametrize("endian", ["little", "big"])
@pytest.mark.parametrize("filters", FILTERS)
def test_filters_and_dtypes(filters, endian, tmp_path):
    options = FILTERS[filters]
    shape, chunks = (3, 37, 29), (2, 16, 29)
    for n, dtype in enumerate(NEW_TYPES):
        path = tmp_path / f"{n}.nc"
        try:
            with netCDF4.Dataset(path, "w") as d:
                for dim, size in zip("tyx", shape):
                    d.createDimension(dim, size)
                v = d.createVariable("v", dtype, tuple("tyx"), endian=endian, chunksizes=chunks, **options)
                v.set_auto_maskandscale(False)
                v[:] = np.sort(numbers(shape, dtype, n), axis=None).reshape(
                    shape
                )  # blosc refuses what stays large
        except RuntimeError as error:
            pytest.skip(f"this netCDF-C does not write {filters}: {error}")
        assert filters in equal_everywhere(path)


def test_what_was_never_written(tmp_path, no_library):
    with netCDF4.Dataset(tmp_path / "in.nc", "w") as d:
        for dim, size in (("t", None), ("y", 20), ("x", 30)):
            d.createDimension(dim, size)
        for name, fill in (("default", None), ("own", 7)):
            v = d.createVariable(
                name, "i2", ("t", "y", "x"), fill_value=fill, chunksizes=(1, 8, 8), zlib=True
            )
            v[2, 3:9, 5:20] = 3
        d.createVariable("empty", "f4", ("y", "x"))
        d.createVariable("none", "f4", ("y", "x"), fill_value=False)
    for name in ("default", "own", "empty"):
        assert equal_everywhere(tmp_path / "in.nc", name).startswith("chunks of")
    assert not open_scene(str(tmp_path / "in.nc"), variable="none", raw=True).read().any()


def test_a_variable_with_fewer_records_than_its_dim(tmp_path):
    with netCDF4.Dataset(tmp_path / "in.nc", "w") as d:
        d.createDimension("t", None)
        d.createDimension("x", 30)
        d.createVariable("long", "i2", ("t", "x"))[:9] = numbers((9, 30), "i2")
        d.createVariable("short", "i2", ("t", "x"))[:4] = numbers((4, 30), "i2")
    assert equal_everywhere(tmp_path / "in.nc", "long").startswith("chunks of")
    assert equal_everywhere(tmp_path / "in.nc", "short").startswith("netCDF4, because (4, 30) of (9, 30)")


def test_names_that_the_library_changes(tmp_path, no_library):
    with netCDF4.Dataset(tmp_path / "in.nc", "w") as d:
        g = d.createGroup("a").createGroup("b")
        g.createDimension("time", 6)
        g.createDimension("x", 5)
        g.createVariable("x", "f4", ("x", "time"))[:] = numbers((5, 6), "f4")
        g.createVariable("time", "i2", ("x", "time"), zlib=True)[:] = numbers((5, 6), "i2")
    for name in ("a/b/x", "a/b/time"):
        equal_everywhere(tmp_path / "in.nc", name)


def test_enumerations_and_groups(tmp_path, no_library):
    with netCDF4.Dataset(tmp_path / "in.nc", "w") as d:
        kind = d.createEnumType(np.uint8, "cloud", {"clear": 0, "cloudy": 1, "missing": 255})
        d.createDimension("x", 20)
        d.createDimension("y", 5)
        v = d.createGroup("g").createVariable("v", kind, ("y", "x"), fill_value=255, zlib=True)
        v[:] = numbers((5, 20), "u1") % 2
    scene = open_scene(str(tmp_path / "in.nc"), variable="g/v", raw=True)
    assert same(scene.read(), numbers((5, 20), "u1") % 2) and "deflate" in scene.reader


def test_several_variables_are_stacked(tmp_path, no_library):
    with netCDF4.Dataset(tmp_path / "in.nc", "w") as d:
        d.createDimension("y", 30)
        d.createDimension("x", 20)
        for i, options in enumerate(({"zlib": True, "chunksizes": (8, 8)}, {"contiguous": True})):
            v = d.createVariable(f"v{i}", "i2", ("y", "x"), **options)
            v.scale_factor = 0.5 + i
            v[:] = numbers((30, 20), "f4") // 2
    path = tmp_path / "in.nc"
    scene = open_scene(str(path), variable=["v0", "v1"])
    want = np.stack([reference(path, "v0"), reference(path, "v1")])
    assert scene.reader == "chunks of 8 x 8 (shuffle, deflate); memory-mapped"
    for window in random_windows(scene, 20):
        assert same(scene.read(window), want[window.slices(scene.dims)])


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_any_array_in_any_window(tmp_path_factory, data):
    shape = tuple(data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=3)))
    fmt = data.draw(st.sampled_from([*CLASSIC, "NETCDF4"]))
    dtype = data.draw(st.sampled_from(OLD_TYPES))
    growing = data.draw(st.booleans())
    path = tmp_path_factory.mktemp("n") / "in.nc"
    options = {}
    if fmt == "NETCDF4":
        chunks = tuple(data.draw(st.integers(1, size)) for size in shape)
        options = {
            "chunksizes": chunks,
            "zlib": data.draw(st.booleans()),
            "fletcher32": data.draw(st.booleans()),
        }
    with netCDF4.Dataset(path, "w", format=fmt) as d:
        for i, size in enumerate(shape):
            d.createDimension(f"d{i}", None if growing and i == 0 else size)
        for name in data.draw(st.sampled_from([["v"], ["v", "w"], ["w", "v"]])):
            v = d.createVariable(name, dtype, tuple(f"d{i}" for i in range(len(shape))), **options)
            v.set_auto_maskandscale(False)
            v[:] = numbers(shape, dtype)
    equal_everywhere(path, windows=4)


# -- one file, many readers -------------------------------------------------------------------------------


def test_threads_read_a_file_that_holds_text(tmp_path):
    """HDF5 crashes when a file with text is open twice in one process; here the index is taken beside the library."""
    values = numbers((6, 200, 210), "i2")
    with netCDF4.Dataset(tmp_path / "in.nc", "w") as d:
        for dim, size in zip("tyx", values.shape):
            d.createDimension(dim, size)
        d.setncattr_string("names", ["a", "b"])
        d.createVariable("label", str, ("t",))[:] = np.array(list("abcdef"), object)
        for i in range(6):
            v = d.createVariable(f"v{i}", "i2", tuple("tyx"), zlib=True, chunksizes=(1, 32, 64))
            v.setncattr_string("words", ["x", "y"])
            v.coordinates = "label"
            v[:] = values + i
    start = threading.Barrier(8)

    def work(seed):
        start.wait()
        for i in np.random.default_rng(seed).permutation(6):
            scene = open_scene(str(tmp_path / "in.nc"), variable=f"v{i}", raw=True)
            assert scene.attrs["words"] == ["x", "y"] and scene.template.attrs["global"]["names"] == [
                "a",
                "b",
            ]
            for window in random_windows(scene, 15, seed):
                assert same(scene.read(window), (values + i).astype("i2")[window.slices(scene.dims)])
            assert "label" in {c.name for c in scene.grid.coords}
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


@pytest.mark.parametrize("fmt", ["NETCDF3_CLASSIC", "NETCDF4"])
def test_a_file_that_changed_is_never_served_stale(fmt, tmp_path):
    path, scene = tmp_path / "in.nc", None
    for n in range(4):
        new = make(tmp_path / "new.nc", np.full((9, 9), n, "i2"), fmt=fmt)
        os.utime(new, ns=(n, n))
        Path(new).rename(path)
        if scene is not None:
            with pytest.raises(OpenError, match="in.[nch5]+ has changed since it was opened"):
                scene.read()
        scene = open_scene(str(path), raw=True)
        assert set(scene.read().ravel().tolist()) == {n}


def test_maps_are_let_go_and_read_again(tmp_path, monkeypatch):
    from streamgeo.chunks import ByteCache
    from streamgeo.sources import layouts

    monkeypatch.setattr(layouts, "_RESIDENT", 10_000)
    monkeypatch.setattr(layouts, "CACHE", ByteCache(0))
    values = numbers((20, 100, 100), "f4")
    path = make(tmp_path / "in.nc", values, fmt="NETCDF3_64BIT_OFFSET")
    scene = open_scene(path, raw=True)
    for window in random_windows(scene, 50):
        assert same(scene.read(window), values[window.slices(scene.dims)])


def test_what_only_the_library_decodes_is_read_by_it_aloud(tmp_path, monkeypatch):
    def fail(pipeline, data, mask, size):
        raise Damaged("not as it should be")

    values = numbers((40, 40), "i2")
    scene = open_scene(make(tmp_path / "in.nc", values, zlib=True, chunksizes=(20, 25)), raw=True)
    monkeypatch.setattr(Pipeline, "decode", fail)
    with pytest.warns(
        UserWarning, match=r"of 'v' of .* \(not as it should be\); the library reads it"
    ) as caught:
        assert same(scene.read(), values)
    assert len(caught) == 1


def test_a_damaged_chunk_names_file_and_chunk(tmp_path):
    values = numbers((40, 40), "i2")
    path = make(tmp_path / "in.nc", values, zlib=True, chunksizes=(20, 20), fletcher32=True)
    import h5py

    with h5py.File(path) as file:
        info = file["v"].id.get_chunk_info(2)
    data = bytearray(Path(path).read_bytes())
    data[info.byte_offset + 20] ^= 255
    (tmp_path / "bad.nc").write_bytes(data)
    scene = open_scene(str(tmp_path / "bad.nc"), raw=True)
    with pytest.raises(OpenError, match=r"chunk \(1, 0\) of 'v' of .*bad.nc is damaged \(deflate"):
        scene.read()
    assert same(scene.read(Window(y=(0, 20), x=(0, 40))), values[:20])
