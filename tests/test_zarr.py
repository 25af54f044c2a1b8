"""Zarr stores of both versions against zarr and xarray: values, dims, coordinates, what means missing, bad input."""

from __future__ import annotations

import itertools
import os
import pickle
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import streamgeo as sg
from streamgeo.chunks import CACHE
from streamgeo.errors import OpenError
from streamgeo.sources.zarr import ZarrScene, open_scene
from streamgeo.window import Window

zarr = pytest.importorskip("zarr", minversion="3", reason="streamgeo[zarr] is not installed")
xr = pytest.importorskip("xarray", reason="xarray is what Zarr is held against")
pytestmark = pytest.mark.filterwarnings(
    "ignore::zarr.errors.ZarrUserWarning", "ignore:.*V3 specification.*", "ignore:.*Consolidated metadata.*"
)
ROOT = Path(__file__).parents[1]
REAL = [("seviri_rss_uk.zarr", "data"), ("seviri_rss_uk.zarr", "x_osgb"), ("gsp_pvlive.zarr", "generation_mw"),
        ("gsp_pvlive.zarr", "installedcapacity_mwp")]  # fmt: skip


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")


def windows(scene, count, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        cuts = [np.sort(rng.integers(0, size + 1, 2)) for size in scene.shape]
        yield Window({dim: (int(lo), int(hi)) for dim, (lo, hi) in zip(scene.dims, cuts)})


def native(values):
    return np.asarray(values).astype(np.asarray(values).dtype.newbyteorder("="))


# -- real stores ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("file", "name"), REAL)
def test_real_stores(file, name, samples):
    path = str(samples / "geoscience" / file)
    with xr.open_zarr(path) as physical, xr.open_zarr(path, mask_and_scale=False) as stored:
        for raw, source in ((True, stored), (False, physical)):
            scene = open_scene(path, variable=name, raw=raw)
            want = source[name].values.astype(scene.dtype)
            assert scene.dims == source[name].dims and same(scene.read(), want)
            for window in windows(scene, 200, seed=raw):
                assert same(scene.read(window), want[window.slices(scene.dims)])
            assert scene.reader.startswith("chunks of ")
        coords = {c.name: c for c in scene.grid.locator.coords} if scene.grid.locator else {}
        named = stored[name].encoding.get("coordinates", "").split()
        for key, coord in physical[name].coords.items():
            if key not in (*scene.dims, *named):
                continue  # xarray gives coordinates of the store to each array that has their dims
            assert coords[key].dims == coord.dims
            if coord.dtype.kind in "fi":
                assert np.array_equal(coords[key].raw, stored[key].values)
            elif coord.dtype.kind in "UO":
                assert list(coords[key].raw) == list(coord.values)


def test_real_stores_are_opened_by_their_content_and_saved(samples, tmp_path):
    path = samples / "geoscience" / "seviri_rss_uk.zarr"
    scene = sg.open()(path)
    assert isinstance(scene, ZarrScene) and scene.dims == ("time", "y", "x", "variable")
    assert scene.grid.spatial == ("y", "x") and scene.attrs["platform_name"] == "Meteosat-10"
    saved = scene.save(f"{tmp_path}/")
    assert saved.name == "seviri_rss_uk.nc"
    with xr.open_dataset(saved) as back, xr.open_zarr(path) as store:
        assert np.array_equal(back["data"].values, store["data"].values.astype("f4"))
        assert np.array_equal(back["time"].values, store["time"].values)
        assert np.array_equal(back["x_osgb"].values, store["x_osgb"].values)
    with pytest.raises(
        OpenError, match=r"choose variable= among generation_mw, installedcapacity_mwp of gsp_pvlive\.zarr"
    ):
        sg.open_zarr()(samples / "geoscience" / "gsp_pvlive.zarr")
    both = sg.open_zarr(["generation_mw", "installedcapacity_mwp"])(
        samples / "geoscience" / "gsp_pvlive.zarr"
    )
    assert both.dims == ("variable", "datetime_gmt", "gsp_id") and both.shape == (2, 49, 21)


def test_a_chain_over_folders(samples):
    chain = (
        sg.files(samples / "geoscience" / "seviri*.zarr", key="sat")
        .key_transform("sat", sg.open_zarr("data"))
        .key_transform("sat", sg.patch(size=128, stride=100))
    )
    with xr.open_zarr(samples / "geoscience" / "seviri_rss_uk.zarr") as store:
        whole = store["data"].values.astype("f4")
    count = 0
    for sample in chain.shuffle(seed=1).batch(1).prefetch(4, 2):
        _, (y0, y1), (x0, x1), _ = sample["sat.window"][0]
        assert np.array_equal(sample["sat"][0], whole[:, y0:y1, x0:x1])
        count += 1
    assert count == len(chain) == 3 * 6


# -- made stores ----------------------------------------------------------------------------------------

DTYPES = ["bool", "i1", "u1", "<i2", ">i2", "<u4", "<i8", "<f4", ">f8", "f2"]


def picture(dtype, shape, seed=0):
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return rng.random(shape) < 0.5
    return (rng.normal(50, 30, shape) if kind.kind == "f" else rng.integers(0, 100, shape)).astype(kind)


def codecs(version):
    if version == 2:
        import numcodecs

        return {"none": {"compressors": None}, "blosc": {"compressors": numcodecs.Blosc("lz4", shuffle=1)},
                "bz2": {"compressors": numcodecs.BZ2()}, "zlib, delta": {"compressors": numcodecs.Zlib(1)},
                "fortran": {"order": "F"},
                "slashes": {"chunk_key_encoding": {"name": "v2", "separator": "/"}}}  # fmt: skip
    from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

    return {"none": {"compressors": None}, "blosc": {"compressors": BloscCodec()}, "gzip": {"compressors": GzipCodec()},
            "zstd": {"compressors": ZstdCodec()}, "shards": {"shards": True},
            "dots": {"chunk_key_encoding": {"name": "v2", "separator": "."}}}  # fmt: skip


@pytest.mark.parametrize("version", [2, 3])
def test_every_dtype_codec_and_chunk_shape(version, tmp_path):
    cases = itertools.product(
        codecs(version).items(), DTYPES, [((17, 23), (5, 8)), ((40,), (7,)), ((3, 9, 11), (2, 4, 11))]
    )
    for number, ((codec, options), dtype, (shape, chunks)) in enumerate(cases):
        if number % 3 and codec not in ("shards", "fortran"):
            continue  # a third of the rest keeps this short
        values, path = picture(dtype, shape, number), tmp_path / f"{number}.zarr"
        options = dict(options)
        if options.get("shards"):
            options["shards"] = tuple(2 * n for n in chunks)
        array = zarr.create_array(
            path, shape=shape, chunks=chunks, dtype=dtype, zarr_format=version, **options
        )
        array[...] = values
        scene = open_scene(str(path), variable=str(number), raw=True)
        assert scene.dims == tuple(f"dim_{i}" for i in range(len(shape)))
        assert same(scene.read(), native(values)), (codec, dtype)
        for window in windows(scene, 5, seed=number):
            assert same(scene.read(window), native(values)[window.slices(scene.dims)])
        assert f"zarr {version}" in scene.reader and ("in shards of" in scene.reader) == (codec == "shards")


@pytest.mark.parametrize("version", [2, 3])
def test_chunks_that_are_not_stored(version, tmp_path):
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=(20, 30), chunks=(6, 7), dtype="i2", zarr_format=version, fill_value=9
    )
    array[3:9, 10:20] = 4
    raw = open_scene(str(tmp_path / "a.zarr"), variable="a", raw=True)
    assert same(raw.read(), native(array[...])) and set(np.unique(raw.read())) == {4, 9}
    physical = open_scene(str(tmp_path / "a.zarr"), variable="a").read()
    want = array[...].astype("f4")
    if version == 2:  # there the fill value means missing, as xarray has it
        want[want == 9] = np.nan
    assert same(physical, want)


ENCODINGS = [
    {},
    {"dtype": "i2", "scale_factor": 0.5, "_FillValue": -999},
    {"dtype": "i2", "scale_factor": 0.01, "add_offset": 273.15, "_FillValue": -32768},
    {"dtype": "u1", "scale_factor": 0.5, "add_offset": -3.0, "_FillValue": 255},
    {"dtype": "f4", "_FillValue": -9999.0},
    {"dtype": "f8", "_FillValue": np.nan},
]


def dataset():
    rng = np.random.default_rng(4)
    values = np.round(rng.uniform(1, 100, (4, 6, 8)) * 2) / 2
    values[0, 2:4] = np.nan
    data = xr.Dataset(
        {"t2m": (("time", "lat", "lon"), values, {"units": "K", "grid_mapping": "crs", "long_name": "é"})},
        {"time": np.arange("2020-01-01", "2020-01-05", dtype="M8[D]").astype("M8[ns]"), "lat": np.linspace(50, 40, 6),
         "lon": np.linspace(0, 7, 8), "name": (("time",), ["a", "bb", "c", "d"])},
        {"title": "made", "levels": [1, 2], "nested": {"a": [1, "b"]}},
    )  # fmt: skip
    data["lat"].attrs["units"], data["lon"].attrs["units"] = "degrees_north", "degrees_east"
    data["crs"] = ((), 0, {"grid_mapping_name": "latitude_longitude", "semi_major_axis": 6378137.0,
                           "inverse_flattening": 298.257223563})  # fmt: skip
    return data


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
def test_what_xarray_writes(version, encoding, tmp_path):
    path = tmp_path / "a.zarr"
    chunks = {"chunks": (2, 4, 3)}
    dataset().to_zarr(
        path, zarr_format=version, encoding={"t2m": {**encoding, **chunks}}, consolidated=version == 2
    )
    scene, raw = open_scene(str(path)), open_scene(str(path), raw=True)
    with xr.open_zarr(path) as physical, xr.open_zarr(path, mask_and_scale=False) as stored:
        assert scene.dims == ("time", "lat", "lon") and same(raw.read(), native(stored["t2m"].values))
        want = physical["t2m"].values
        assert np.array_equal(np.isnan(scene.read()), np.isnan(want))
        assert np.allclose(scene.read(), want, rtol=1e-6, equal_nan=True)
        if encoding.get("scale_factor"):
            exact = stored["t2m"].values * np.float64(encoding["scale_factor"]) + encoding.get(
                "add_offset", 0.0
            )
            assert np.array_equal(scene.read()[~np.isnan(want)], exact.astype("f4")[~np.isnan(want)])
    grid = scene.grid
    assert grid.spatial == ("lat", "lon") and grid.locator.crs["grid_mapping_name"] == "latitude_longitude"
    assert {c.name for c in grid.locator.coords} == {"time", "lat", "lon", "name"}
    assert grid.pixel_to_world(time=0, lat=1, lon=2)["lat"] == 48
    assert scene.template.units == "K" and scene.attrs["long_name"] == "é"
    assert scene.attrs["global"]["title"] == "made" and scene.attrs["global"]["nested"] == '{"a": [1, "b"]}'
    for one in (scene, raw):
        with xr.open_dataset(one.save(tmp_path / "b.nc"), engine="netcdf4") as back:
            assert np.allclose(back["t2m"].values, want, rtol=1e-6, equal_nan=True)
            assert np.array_equal(back["time"].values, dataset()["time"].values)
            assert list(back["name"].values) == ["a", "bb", "c", "d"]


@pytest.mark.parametrize("version", [2, 3])
def test_groups_and_stacks(version, tmp_path):
    path = tmp_path / "a.zarr"
    root = zarr.open_group(path, mode="w", zarr_format=version)
    for group in ("", "deep", "deep/er"):
        where = root.require_group(group) if group else root
        for number, name in enumerate(("b2", "b3")):
            array = where.create_array(
                name, shape=(6, 7), chunks=(4, 4), dtype="u2", **names(version, ["y", "x"])
            )
            array[...] = picture("u2", (6, 7), number + len(group))
            mark(array, version, ["y", "x"])
    lat = root.create_array("y", shape=(6,), chunks=(6,), dtype="f8", **names(version, ["y"]))
    lat[...], _ = np.linspace(1, 2, 6), mark(lat, version, ["y"])
    scene = open_scene(str(path), variable=["deep/er/b3", "deep/er/b2"], raw=True)
    assert scene.dims == ("variable", "y", "x")
    assert same(scene.read(), np.stack([picture("u2", (6, 7), 7 + n) for n in (1, 0)]))
    assert "y" in {c.name for c in scene.grid.locator.coords}  # that of the root counts below it
    with pytest.raises(OpenError, match=r"no array 'b4' in a\.zarr; it has .*b[23]"):
        open_scene(str(path), variable="b4")
    with pytest.raises(OpenError, match="choose variable= among"):
        open_scene(str(path))


def names(version, dims):
    return {"dimension_names": dims} if version == 3 else {}


def mark(array, version, dims):
    if version == 2:
        array.attrs["_ARRAY_DIMENSIONS"] = dims


def test_times_that_zarr_knows_as_times(tmp_path):
    days = np.array(["2020-01-01", "NaT", "2020-01-03"], "M8[s]")
    array = zarr.create_array(tmp_path / "a.zarr", shape=(3, 1), chunks=(2, 1), dtype="M8[s]", zarr_format=2)
    array[...] = days[:, None]
    scene = open_scene(str(tmp_path / "a.zarr"), variable="a", raw=True)
    assert same(scene.read(), days[:, None].view("i8")) and scene.template.units == "seconds since 1970-01-01"
    assert np.isnan(open_scene(str(tmp_path / "a.zarr"), variable="a").read()[1, 0])


# -- windows, threads, forks, changes -------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    values, path = picture("<i2", (37, 53), 8), tmp_path_factory.mktemp("m") / "a.zarr"
    array = zarr.create_array(path, shape=values.shape, chunks=(8, 9), dtype="i2", zarr_format=3)
    array[...] = values
    return open_scene(str(path), variable="a", raw=True), native(values)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(box=st.tuples(*[st.integers(0, 53)] * 4), step=st.integers(1, 3))
def test_any_window_into_any_view(made, box, step):
    scene, values = made
    (y0, y1), (x0, x1) = sorted(min(n, 37) for n in box[:2]), sorted(box[2:])
    out = np.zeros(((y1 - y0), (x1 - x0) * step), np.int16)
    scene.read_into(out[:, ::step], Window(dim_0=(y0, y1), dim_1=(x0, x1)))
    assert np.array_equal(out[:, ::step], values[y0:y1, x0:x1])


def test_threads_pickles_and_forks(made):
    scene, values = made
    wrong = []

    def look(seed):
        for window in windows(scene, 30, seed):
            if not np.array_equal(scene.read(window), values[window.slices(scene.dims)]):
                wrong.append(window)

    CACHE.clear()
    threads = [threading.Thread(target=look, args=(seed,)) for seed in range(8)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert not wrong
    assert same(pickle.loads(pickle.dumps(scene)).read(), values)
    CACHE.clear()
    child = os.fork()
    if child == 0:
        good = np.array_equal(scene.read(), values)
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("version", [2, 3])
def test_what_changes_is_never_served_stale(version, tmp_path):
    path = tmp_path / "a.zarr"
    array = zarr.create_array(path, shape=(20, 20), chunks=(5, 5), dtype="i2", zarr_format=version)
    array[...] = 1
    scene = open_scene(str(path), variable="a", raw=True)
    assert scene.read().max() == 1
    array[7, 7] = 2
    assert np.argwhere(scene.read() == 2).tolist() == [[7, 7]]
    other = tmp_path / "b.zarr"
    zarr.create_array(other, shape=(30, 30), chunks=(5, 5), dtype="i4", zarr_format=version)
    (next(other.glob("*.json"), other / ".zarray")).replace(
        path / ("zarr.json" if version == 3 else ".zarray")
    )
    with pytest.raises(OpenError, match="has changed since it was opened"):
        scene.read()


# -- bad input ------------------------------------------------------------------------------------------


def test_stores_that_cannot_be_opened(tmp_path):
    with pytest.raises(OpenError, match="no such folder"):
        sg.open_zarr()(tmp_path / "none.zarr")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(OpenError, match=r"empty\.zarr is no Zarr store"):
        sg.open_zarr()(tmp_path / "empty.zarr")
    with pytest.raises(OpenError, match="is a folder"):
        sg.open()(tmp_path / "empty.zarr")
    root = zarr.open_group(tmp_path / "a.zarr", mode="w")
    root.create_array("text", shape=(3, 3), dtype="U4", chunks=(3, 3))
    root.create_array("number", shape=(), dtype="f4")
    root.create_array("complex", shape=(3, 3), dtype="c8", chunks=(3, 3))
    for name, message in (("text", "holds text"), ("number", "is a scalar"), ("complex", "complex numbers")):
        with pytest.raises(OpenError, match=message):
            sg.open_zarr(name)(tmp_path / "a.zarr")
    with pytest.raises(OpenError, match="holds no numeric array"):
        sg.open_zarr()(tmp_path / "a.zarr")


@pytest.mark.parametrize("version", [2, 3])
def test_damaged_stores(version, tmp_path):
    path = tmp_path / "a.zarr"
    array = zarr.create_array(path, shape=(20, 20), chunks=(10, 10), dtype="i4", zarr_format=version)
    array[...] = picture("i4", (20, 20))
    chunk = path / array.metadata.encode_chunk_key((1, 0))
    good = chunk.read_bytes()
    scene = open_scene(str(path), variable="a", raw=True)
    for content in (b"", good[: len(good) // 2], b"\x07" * len(good)):
        chunk.write_bytes(content)
        with pytest.raises(OpenError, match=r"chunk \(1, 0\) of 'a' of .*a\.zarr cannot be read"):
            scene.read()
        assert np.array_equal(scene.read(Window(dim_0=(0, 10))), array[:10])
    header = path / ("zarr.json" if version == 3 else ".zarray")
    text = header.read_text()
    for content in (
        "",
        "{",
        text[: len(text) // 2],
        text.replace("20", '"x"'),
        text.replace("chunk", "shunk"),
    ):
        header.write_text(content)
        with pytest.raises(OpenError):
            open_scene(str(path), variable="a")
        with pytest.raises(OpenError):
            scene.read()


def test_without_zarr_the_error_names_the_extra(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "zarr.json").write_text("{}")
    code = (
        "import sys; sys.modules['zarr'] = None; import streamgeo as sg\n"
        f"try: sg.open()({str(tmp_path / 'a.zarr')!r})\n"
        "except sg.OpenError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "pip install 'streamgeo[zarr]'" in done.stdout


def test_importing_the_source_loads_no_zarr():
    code = "import sys, streamgeo.sources.zarr; print('zarr' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_attributes_that_netcdf_cannot_hold_stay_as_json(tmp_path):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(2, 2), chunks=(2, 2), dtype="f4", zarr_format=2)
    given = {
        "flag": True,
        "mixed": [1, "a"],
        "empty": [],
        "none": None,
        "numbers": [1, 2.5],
        "words": ["a", "b"],
        "n": 3,
    }
    array.attrs.update(given)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attrs = open_scene(str(tmp_path / "a.zarr"), variable="a").attrs
    assert (
        attrs["flag"] == 1
        and attrs["mixed"] == '[1, "a"]'
        and attrs["empty"] == "[]"
        and attrs["none"] == "null"
    )
    assert attrs["numbers"].tolist() == [1, 2.5] and attrs["words"] == ["a", "b"] and attrs["n"] == 3
