"""HDF5 sources and sinks against h5py and netCDF4-python."""

from __future__ import annotations

import itertools
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import netCDF4
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgeo.errors import OpenError, WriteError
from streamgeo.grid import Grid
from streamgeo.locate import GeoLocator
from streamgeo.scene import ArrayScene
from streamgeo.sinks import hdf5 as sink
from streamgeo.sources.hdf5 import open_scene
from streamgeo.sources.netcdf import open_scene as open_netcdf
from streamgeo.template import Template
from streamgeo.window import Window
from tests.netcdf_made import FILES, copy_of, pixels, reference, same

PLAIN = ["helio/eis_20210306_064444.data.h5", "helio/eis_20210306_064444.head.h5"]
CLASSIC = ("ascat", "eraint", "space_weather")  # no HDF5
SAVED = 2  # datasets of a file that are saved and read again


def arrays(path):
    found = []
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.append(name) if is_array(item) else None)
    return found


def is_array(item):
    return isinstance(item, h5py.Dataset) and item.dtype.kind in "iuf" and len(item.shape) >= 2


def quiet_open(path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return open_scene(str(path), **options)


@pytest.fixture
def real(samples, tmp_path):
    """A function that copies a sample."""
    return lambda name: copy_of(samples / name, tmp_path)


# -- real files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLAIN)
def test_plain_files_whole_in_windows_and_saved(name, samples, tmp_path):
    rng = np.random.default_rng(0)
    with h5py.File(samples / name) as file:
        for path, raw in itertools.product(arrays(samples / name), (False, True)):
            want = file[path][...] if raw else file[path][...].astype(np.float32)
            scene = open_scene(str(samples / name), dataset=path, raw=raw)
            assert same(scene.read(), want) and scene.dims == tuple(f"dim_{i}" for i in range(want.ndim))
            ends = [np.sort(rng.integers(0, size + 1, 2)) for size in scene.shape]
            window = Window({dim: tuple(end) for dim, end in zip(scene.dims, ends)})
            assert same(scene.read(window), want[window.slices(scene.dims)])
            scene.save(tmp_path / "out.h5")
            with h5py.File(tmp_path / "out.h5") as out:
                assert same(out[path][...], want) and dict(out[path].attrs) == {}
                assert (out[path].compression, out[path].shuffle) == ("gzip", True)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in FILES if not any(part in name for part in CLASSIC)])
def test_netcdf_files_are_read_and_saved_as_netcdf4_reads_them(name, real, samples, tmp_path):
    copy = real(name)
    for path in arrays(copy)[: SAVED if "GLMC" not in name else 1]:
        for raw in (False, True):
            scene, want = (
                quiet_open(samples / name, dataset=path, raw=raw),
                open_netcdf(str(copy), variable=path, raw=raw),
            )
            assert (
                scene.dims == want.dims
                and scene.grid == want.grid
                and scene.grid.spatial == want.grid.spatial
            )
            assert same(scene.read(), want.read())
            out = tmp_path / f"{len(list(tmp_path.iterdir()))}.h5"
            scene.save(out)
            assert same(reference(out, path, raw), pixels_of(copy, path, raw))
            again = open_scene(str(out), dataset=path, raw=raw)
            assert again.grid == scene.grid and same(again.read(), scene.read())
            with netCDF4.Dataset(out) as got, netCDF4.Dataset(copy) as source:
                assert got[path].dimensions == source[path].dimensions


def pixels_of(path, name, raw):
    with netCDF4.Dataset(path) as dataset:
        return pixels(dataset[name], raw)


def test_an_hdf5_file_saved_as_netcdf_and_back(samples, tmp_path):
    scene = open_scene(str(samples / FILES[3]), dataset="FS/SLV/precipWater")
    scene.save(tmp_path / "a.nc")
    middle = open_netcdf(str(tmp_path / "a.nc"), variable="FS/SLV/precipWater")
    assert middle.grid == scene.grid and same(middle.read(), scene.read())
    middle.save(tmp_path / "b.h5")
    end = open_scene(str(tmp_path / "b.h5"), dataset="FS/SLV/precipWater")
    assert end.grid == scene.grid and same(end.read(), scene.read())
    assert end.attrs["_FillValue"] == np.float32(-9999.9)


# -- made files -------------------------------------------------------------------------------------------


@pytest.fixture
def made(tmp_path):
    """A function that makes a file from datasets by path, each an array or (array, attributes, options)."""

    def make(name="in.h5", **datasets):
        with h5py.File(tmp_path / name, "w", userblock_size=512) as file:
            for path, content in datasets.items():
                values, attrs, options = content if isinstance(content, tuple) else (content, {}, {})
                dataset = file.create_dataset(path.replace("__", "/"), data=values, **options)
                dataset.attrs.update(attrs)
        return str(tmp_path / name)

    return make


RAMP = np.arange(60, dtype=np.int16).reshape(6, 10)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": (4, 3)},
        {"chunks": (6, 10), "compression": "lzf"},
        {"compression": "gzip", "fletcher32": True},
    ],
)
@pytest.mark.parametrize("dtype", ["<i2", ">i2", ">f4", "<f8", "f2", "u1", "?", ">u8"])
def test_layouts_and_byte_orders(made, tmp_path, dtype, options):
    values = RAMP.astype(dtype)
    path = made(a=(values, {}, options))
    physical, raw = open_scene(path), open_scene(path, raw=True)
    assert same(physical.read(), values.astype(np.float32)) and same(
        raw.read(), values.astype(values.dtype.newbyteorder("="))
    )
    raw.save(tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["a"].dtype == values.dtype and np.array_equal(file["a"][...], values)


def test_compact_layout(tmp_path):
    with h5py.File(tmp_path / "in.h5", "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_layout(h5py.h5d.COMPACT)
        space, kind = h5py.h5s.create_simple((6, 10)), h5py.h5t.STD_I16LE
        h5py.Dataset(h5py.h5d.create(file.id, b"a", kind, space, plist))[...] = RAMP
        assert file["a"].id.get_create_plist().get_layout() == h5py.h5d.COMPACT
    assert same(open_scene(str(tmp_path / "in.h5"), raw=True).read(Window(dim_0=(2, 4))), RAMP[2:4])


def test_packing_attributes_count_and_the_storage_fill_does_not(made, tmp_path):
    attrs = {
        "scale_factor": np.array([0.5]),
        "add_offset": 1.0,
        "_FillValue": np.int16(3),
        "valid_max": np.int16(50),
    }
    want = RAMP.astype(np.float32) * 0.5 + 1
    want[(RAMP == 3) | (RAMP > 50)] = np.nan
    path = made(a=(RAMP, {**attrs, "units": np.bytes_("K")}, {}))
    scene = open_scene(path)
    assert same(scene.read(), want) and scene.template.units == "K"
    scene.save(tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        assert same(file["a"][...], want) and not {"scale_factor", "add_offset", "valid_max"} & set(
            file["a"].attrs
        )
    raw = open_scene(path, raw=True)
    raw.save(tmp_path / "raw.h5")
    with h5py.File(tmp_path / "raw.h5") as file:
        assert np.array_equal(file["a"][...], RAMP)
        assert all(file["a"].attrs[key] == value for key, value in attrs.items())
    other = made("other.h5", a=(RAMP, {}, {"fillvalue": 3}))
    assert same(open_scene(other).read(), RAMP.astype(np.float32))


@settings(max_examples=30, deadline=None)
@given(
    dtype=st.sampled_from(["i1", "u1", "i2", "u2", "i4", "f4", "f8"]),
    fill=st.one_of(st.none(), st.integers(0, 20)),
    scale=st.one_of(st.none(), st.sampled_from([0.01, -2.0, np.float32(0.1), 1.0])),
    offset=st.one_of(st.none(), st.sampled_from([0.0, 273.15, np.float32(1.5)])),
    limits=st.one_of(st.none(), st.tuples(st.integers(0, 10), st.integers(10, 60))),
)
def test_any_packing_as_netcdf4_reads_it(tmp_path_factory, dtype, fill, scale, offset, limits):
    folder, dtype = tmp_path_factory.mktemp("h"), np.dtype(dtype)
    attrs = {
        "_FillValue": None if fill is None else dtype.type(fill),
        "scale_factor": scale,
        "add_offset": offset,
    }
    attrs["valid_range"] = None if limits is None else np.array(limits, dtype)
    with h5py.File(folder / "in.h5", "w") as file:
        dataset = file.create_dataset("v", data=RAMP.astype(dtype))
        dataset.attrs.update({key: value for key, value in attrs.items() if value is not None})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scene = open_scene(str(folder / "in.h5"))
        assert same(scene.read(), reference(folder / "in.h5", "v"))
        scene.save(folder / "out.h5")
        assert same(reference(folder / "out.h5", "v"), scene.read())


def located(tmp_path):
    with h5py.File(tmp_path / "in.h5", "w", track_order=True) as file:
        file.attrs["title"] = "a field"
        group = file.create_group("field")
        group.attrs["note"] = "kept"
        data = group.create_dataset(
            "t", data=np.random.default_rng(0).random((3, 4, 5)), maxshape=(None, 4, 5)
        )
        data.attrs["units"] = "K"
        for i, (name, values, units) in enumerate(
            [("time", [0, 1, 2], "days since 2000-01-01"), ("lat", [60.0, 50, 40, 30], "degrees_north"),
             ("lon", [0.0, 10, 20, 30, 40], "degrees_east")]
        ):  # fmt: skip
            scale = file.create_dataset(name, data=values, maxshape=(None,) if name == "time" else None)
            scale.attrs["units"] = units
            scale.make_scale(name)
            data.dims[i].attach_scale(scale)
    return str(tmp_path / "in.h5")


def test_dimension_scales_are_coordinates_and_come_back(tmp_path):
    scene = open_scene(located(tmp_path))
    assert scene.dims == ("time", "lat", "lon") and scene.grid.locator.spatial == ("lat", "lon")
    window = Window(lat=(1, 4), lon=(0, 3))
    cut = ArrayScene(
        scene.read(window)[:, ::-1], scene.grid.crop(window).flip("lat"), scene.template, name="in.h5"
    )
    cut.save(tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        data = file["field/t"]
        assert (
            data.attrs["units"] == "K"
            and file["field"].attrs["note"] == "kept"
            and data.maxshape == (None, 3, 3)
        )
        assert [data.dims[i][0].name for i in range(3)] == ["/time", "/lat", "/lon"]
        assert list(file["lat"]) == [30, 40, 50] and file["lat"].attrs["units"] == "degrees_north"
        assert file["time"].dtype == np.int64 and file.attrs["title"] == "a field"
    with xr.open_dataset(tmp_path / "out.h5", group="field", engine="netcdf4") as dataset:
        assert np.array_equal(dataset["t"].values.astype("f4"), cut.array)


def test_latitude_and_longitude_beside_a_dataset_without_scales(made):
    lat, lon = np.mgrid[0:6.0, 0:10.0]
    path = made(data__v=np.zeros((6, 10, 3)), geo__Latitude=lat, geo__Longitude=lon, geo__time=np.arange(6.0))
    scene = open_scene(path, dataset="data/v")
    assert {c.name: c.dims for c in scene.grid.coords} == dict.fromkeys(
        ("Latitude", "Longitude"), ("dim_0", "dim_1")
    )
    assert scene.grid.spatial == ("dim_0", "dim_1")
    square = made("square.h5", v=np.zeros((6, 6)), lat=np.arange(6.0), lon=np.arange(6.0))
    assert open_scene(square, dataset="v").grid.coords == ()  # it cannot be told which is which


def test_labels_name_dims_and_come_back(tmp_path):
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["a"] = RAMP
        file["a"].dims[0].label = "row"
    scene = open_scene(str(tmp_path / "in.h5"))
    assert scene.dims == ("row", "dim_1")
    scene.save(tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        assert [d.label for d in file["a"].dims] == ["row", ""] and list(file) == ["a"]


def test_several_datasets_stack_and_come_apart(made, tmp_path):
    scene = open_scene(made(a=RAMP, b=RAMP + 100), dataset=["a", "b"], raw=True)
    assert scene.shape == (2, 6, 10) and same(scene.read(Window(variable=(1, 2))), RAMP[None] + np.int16(100))
    scene.save(tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        assert same(file["a"][...], RAMP) and same(file["b"][...], RAMP + np.int16(100))


def test_attributes_of_all_kinds_survive(made, tmp_path):
    attrs = {
        "text": "ä",
        "words": ["a", "b"],
        "list": np.arange(3),
        "one": 2.5,
        "flag": True,
        "none": h5py.Empty("S1"),
    }
    scene = open_scene(made(a=(RAMP, attrs, {})), raw=True)
    scene.save(tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        got = file["a"].attrs
        assert (got["text"], list(got["words"]), list(got["list"]), got["one"]) == (
            "ä",
            ["a", "b"],
            [0, 1, 2],
            2.5,
        )
        assert got["flag"] and got["none"] == ""
    scene.save(tmp_path / "out.nc")
    with netCDF4.Dataset(tmp_path / "out.nc") as dataset:
        assert dataset["a"].words == ["a", "b"] and dataset["a"].flag == 1


def test_references_are_left_out_aloud(tmp_path):
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["a"] = RAMP
        file["a"].attrs["link"] = file["a"].ref
    with pytest.warns(UserWarning, match="attribute 'link' has a type that cannot be kept"):
        open_scene(str(tmp_path / "in.h5"))


def test_an_enumeration_keeps_the_names_of_its_values(tmp_path):
    kind = h5py.enum_dtype({"clear": 0, "cloudy": 1}, basetype="u1")
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file.create_dataset("a", data=np.array([[0, 1], [1, 0]], "u1"), dtype=kind)
    scene = open_scene(str(tmp_path / "in.h5"))
    assert scene.attrs["flag_meanings"] == "clear cloudy" and same(
        scene.read(), np.array([[0, 1], [1, 0]], "f4")
    )


def test_a_geotiff_grid_in_hdf5(tmp_path):
    grid = Grid.of(("y", "x"), (5, 7), GeoLocator((30, 0, 5e5, 0, -30, 4.1e6), "EPSG:32633"))
    values = np.arange(35, dtype="f4").reshape(5, 7)
    values[0, 0] = np.nan
    sink.write(tmp_path / "out.h5", values, grid, Template("geotiff", grid.dims, name="red", units="K"))
    scene = open_scene(str(tmp_path / "out.h5"))
    assert scene.grid.crs.to_epsg() == 32633 and same(scene.read(), values)
    assert scene.grid.pixel_to_world(y=0, x=0)["x"] == 5e5 + 15


def test_model_outputs_of_other_dtypes(tmp_path):
    scene = open_scene(located(tmp_path))
    for values in (scene.array > 0.5, (scene.array * 9).astype("u1"), scene.array.astype("f8")):
        ArrayScene(values, scene.grid, scene.template, name="in.h5").save(tmp_path / "out.h5")
        with h5py.File(tmp_path / "out.h5") as file:
            assert same(file["field/t"][...], values)
    with pytest.raises(WriteError, match="no type for object in o.h5"):
        ArrayScene(np.full(scene.shape, None), scene.grid, scene.template, name="in.h5").save(
            tmp_path / "o.h5"
        )


def test_threads_read_at_once(samples):
    path, names = str(samples / PLAIN[0]), [f"level1/win0{i}" for i in range(4)]
    wants = [open_scene(path, dataset=name).read() for name in names]

    def work(i):
        return all(
            same(open_scene(path, dataset=names[(i + k) % 4]).read(), wants[(i + k) % 4]) for k in range(8)
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


# -- bad input --------------------------------------------------------------------------------------------


def one_error(path, match, **options):
    with pytest.raises(OpenError, match=match) as caught:
        open_scene(str(path), **options).read()
    assert Path(path).name in str(caught.value)
    return caught.value


def test_files_that_cannot_be_opened(made, tmp_path):
    one_error(tmp_path / "none.h5", "no such file")
    (tmp_path / "empty.h5").touch()
    one_error(tmp_path / "empty.h5", "is empty")
    one_error(tmp_path, "is a folder")
    (tmp_path / "text.h5").write_text("not HDF5" * 100)
    assert one_error(tmp_path / "text.h5", "damaged, cut short or not HDF5").__cause__ is not None
    data = Path(made(a=(np.random.default_rng(0).random((50, 60)), {}, {"chunks": (10, 10)}))).read_bytes()
    for i, size in enumerate([8, 520, 700, len(data) // 2, len(data) - 1]):
        (tmp_path / f"cut{i}.h5").write_bytes(data[:size])
        one_error(tmp_path / f"cut{i}.h5", "cut short")


def test_datasets_that_cannot_be_opened(made):
    records = np.zeros(3, [("a", "f4"), ("b", "i4")])
    path = made(g__win00=RAMP, g__win01=RAMP[1:], words=["a", "b"], fixed=np.array([b"a"]), pair=records,
                z=RAMP * 1j, one=3.0)  # fmt: skip
    one_error(path, "no dataset 'g/win02' in in.h5; it has g/win0", dataset="g/win02")
    one_error(path, "no dataset 'g'", dataset="g")
    one_error(path, "'words' of in.h5 holds text", dataset="words")
    one_error(path, "'fixed' of in.h5 holds text", dataset="fixed")
    one_error(path, "'pair' of in.h5 holds records", dataset="pair")
    one_error(path, "'z' of in.h5 holds complex numbers", dataset="z")
    one_error(path, "'one' of in.h5 is a scalar", dataset="one")
    one_error(path, "must share dims and shape", dataset=["g/win00", "g/win01"])
    one_error(path, "choose dataset= among g/win00, g/win01 of in.h5")
