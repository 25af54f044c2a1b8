"""Reading NetCDF, against netCDF4-python."""

from __future__ import annotations

import itertools
import os
import pickle
import struct
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import netCDF4
import numpy as np
import pytest

import streamgeo as sg
from streamgeo.errors import OpenError
from streamgeo.locate import CoordLocator
from streamgeo.sources import netcdf
from streamgeo.sources.netcdf import open_scene
from streamgeo.window import Window
from tests.netcdf_made import (
    FILES,
    copy_of,
    make,
    make_field,
    pixels,
    quiet_open,
    same,
    variables,
)

# -- real files: reading ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_every_variable_whole_and_in_windows(name, samples, tmp_path):
    rng = np.random.default_rng(0)
    with netCDF4.Dataset(copy_of(samples / name, tmp_path)) as dataset:
        names = list(variables(dataset))
        assert names
        for variable, raw in itertools.product(names, (False, True)):
            scene = quiet_open(samples / name, variable=variable, raw=raw)
            got, want = scene.read(), pixels(dataset[variable], raw)
            assert scene.shape == got.shape == want.shape and scene.dtype == got.dtype == want.dtype
            assert same(got, want), variable
            for _ in range(3):
                ends = [np.sort(rng.integers(0, size + 1, 2)) for size in scene.shape]
                window = Window({dim: tuple(end) for dim, end in zip(scene.dims, ends)})
                assert same(scene.read(window), want[window.slices(scene.dims)]), variable


def test_the_only_data_variable_is_found(samples):
    found = {}
    for name in FILES:
        try:
            found[Path(name).name[:5]] = open_scene(str(samples / name)).template.name
        except OpenError as error:
            assert "choose variable= among" in str(error)
    assert found["nemo_"] == "tos" and found["basin"] == "basin" and found["tmmx_"] == "air_temperature"
    assert found["hybri"] == "air_potential_temperature" and found["uwnd_"] == "uwnd"


@pytest.mark.parametrize(
    ("name", "variable", "spatial", "coords", "epsg_or_name"),
    [
        (FILES[0], "HT", ("y", "x"), {"t", "local_zenith_angle", "time_bounds"}, "geostationary"),
        (FILES[2], "obs", ("downtrack", "crosstrack"), {"lat", "lon", "bands"}, 4326),
        (FILES[3], "FS/SLV/precipWater", ("nscan", "nray"), {"Latitude", "Longitude"}, None),
        (FILES[4], None, ("y", "x"), {"y", "x"}, "sinu"),
        (FILES[6], "blue", ("y", "x"), {"time", "y", "x"}, 32722),
        (FILES[7], "PRODUCT/methane_mixing_ratio", ("scanline", "ground_pixel"),
         {"latitude", "longitude", "latitude_bounds", "time"}, None),
        (FILES[10], "wind_speed", ("NUMROWS", "NUMCELLS"), {"lat", "lon"}, None),
        (FILES[11], None, ("Y", "X"), {"X", "Y", "Z"}, None),
        (FILES[13], None, (), {"range", "azimuth", "elevation"}, None),
        (FILES[14], None, ("grid_latitude", "grid_longitude"), {"sigma", "surface_altitude", "sigma_bnds"}, "ob_tran"),
        (FILES[15], None, ("y", "x"), {"nav_lat", "nav_lon", "time_centered", "bounds_lon"}, None),
        (FILES[19], None, ("lat", "lon"), {"lat", "lon", "day"}, 4326),
        (FILES[20], "data", ("y", "x"), {"x", "y", "lat", "lon", "time"}, "stere"),
        (FILES[24], "nir", ("y", "x"), {"x", "y"}, 8858),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:You will likely lose important projection information")
def test_coordinates_crs_and_horizontal_dims(samples, name, variable, spatial, coords, epsg_or_name):
    grid = open_scene(str(samples / name), variable=variable).grid
    assert isinstance(grid.locator, CoordLocator)
    assert grid.locator.spatial == spatial
    assert coords <= {c.name for c in grid.coords}
    if epsg_or_name is None:
        assert grid.crs is None
    elif isinstance(epsg_or_name, int):
        assert grid.crs.to_epsg() == epsg_or_name
    else:
        assert epsg_or_name in str(grid.crs.to_dict()) or epsg_or_name in str(grid.crs.to_cf())


def test_2d_coordinates_are_read_only_for_the_grid(samples, monkeypatch):
    read, pixels = [], netcdf._pixels
    monkeypatch.setattr(
        netcdf, "_pixels", lambda path, name, index: (read.append(name), pixels(path, name, index))[1]
    )
    scene = open_scene(str(samples / FILES[15]))
    scene.read(Window(y=(0, 2), x=(0, 2)))
    assert scene.template.units == "degree_C" and set(read) <= {"tos"}
    assert scene.grid.coords and "nav_lat" in read


def test_attrs_and_template(samples):
    template = open_scene(str(samples / FILES[15])).template
    assert template.attrs["standard_name"] == "sea_surface_temperature"
    assert template.attrs["global"]["Conventions"].startswith("CF")
    assert template.nodata == pytest.approx(1e20) and template.format == "netcdf"
    assert open_scene(str(samples / FILES[19])).template.nodata is None
    assert open_scene(str(samples / FILES[19]), raw=True).template.nodata == 32767


# -- groups, threads, processes ---------------------------------------------------------------------------


def test_groups_with_dims_of_their_parents(tmp_path):
    with netCDF4.Dataset(tmp_path / "in.nc", "w") as d:
        d.createDimension("x", 3)
        a = d.createGroup("a")
        a.note = "kept"
        a.createDimension("y", 2)
        a.createVariable("y", "f4", ("y",))[:] = [1, 2]
        d.createVariable("x", "f4", ("x",))[:] = [1, 2, 3]
        v = a.createGroup("b").createVariable("v", "f4", ("y", "x"))
        v.coordinates = "../aux /a/scalar"
        v[:] = np.ones((2, 3))
        a.createVariable("aux", "f4", ("y",))[:] = [7, 8]
        a.createVariable("scalar", "f4", ())[...] = 4
        d.createGroup("other").createDimension("y", 9)
    for name in ("a/b/v", "/a/b/v", None):
        scene = open_scene(str(tmp_path / "in.nc"), variable=name)
        assert {c.name for c in scene.grid.coords} == {"x", "y", "aux", "scalar"}
    scene.save(tmp_path / "out.nc")
    with netCDF4.Dataset(tmp_path / "out.nc") as d:
        assert list(d["a/y"][:]) == [1, 2] and list(d["a/aux"][:]) == [7, 8] and d["a"].note == "kept"
        assert list(d.dimensions) == ["x"] and list(d["a"].dimensions) == ["y"]


def test_threads_read_at_once(samples):
    names = [FILES[i] for i in (1, 15, 16, 17)]
    wants = {name: open_scene(str(samples / name)).read() for name in names}
    start = threading.Barrier(4)

    def work(i):
        start.wait()
        for k in range(12):
            name = names[(i + k) % len(names)]
            if not np.array_equal(open_scene(str(samples / name)).read(), wants[name], equal_nan=True):
                return name
        return None

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [None] * 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_reads_while_a_thread_reads(samples):
    scene = open_scene(str(samples / FILES[1]))
    want, stop = scene.read(), threading.Event()

    def keep_reading():
        while not stop.is_set():
            scene.read()

    thread = threading.Thread(target=keep_reading)
    thread.start()
    try:
        for _ in range(5):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    code = 0 if np.array_equal(scene.read(), want) else 2
                finally:
                    os._exit(code)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        thread.join()


def test_a_scene_pickles(samples):
    scene = open_scene(str(samples / FILES[19]))
    again = pickle.loads(pickle.dumps(scene))
    assert np.array_equal(again.read(), scene.read(), equal_nan=True) and again.grid == scene.grid


# -- bad input --------------------------------------------------------------------------------------------


def one_error(path, match, **options):
    with pytest.raises(OpenError, match=match) as caught:
        open_scene(str(path), **options).read()
    assert Path(path).name in str(caught.value)
    return caught.value


def test_files_that_cannot_be_opened(tmp_path):
    one_error(tmp_path / "none.nc", "no such file")
    (tmp_path / "empty.nc").touch()
    one_error(tmp_path / "empty.nc", "is empty")
    one_error(tmp_path, "is a folder")
    (tmp_path / "text.nc").write_text("not NetCDF" * 100)
    assert one_error(tmp_path / "text.nc", "damaged, cut short or not NetCDF").__cause__ is not None


@pytest.mark.parametrize("fmt", ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA", "NETCDF4"])
@pytest.mark.parametrize("growing", [False, True])
def test_files_that_are_cut_short(tmp_path, fmt, growing):
    with netCDF4.Dataset(tmp_path / "whole.nc", "w", format=fmt) as d:
        for name, size in (("t", None if growing else 5), ("y", 30), ("x", 21)):
            d.createDimension(name, size)
        d.createVariable("time", "i2", ("t",))[:] = np.arange(5)
        d.title = "abc"
        d.createVariable("v", "i1", ("t", "y", "x"))[:] = np.random.default_rng(0).integers(0, 9, (5, 30, 21))
    data = (tmp_path / "whole.nc").read_bytes()
    assert open_scene(str(tmp_path / "whole.nc")).read().shape == (5, 30, 21)
    cuts = [4, 12, 60, len(data) // 2, len(data) - 100, len(data) - (8 if fmt != "NETCDF4" else 1)]
    for i, size in enumerate(cuts):
        (tmp_path / f"cut{i}.nc").write_bytes(data[:size])
        one_error(tmp_path / f"cut{i}.nc", "cut short")


def test_a_classic_header_that_lies(tmp_path):
    (tmp_path / "bad.nc").write_bytes(b"CDF\x01" + struct.pack(">IIII", 0, 10, 1, 2**31) + bytes(64))
    one_error(tmp_path / "bad.nc", "cut short or damaged")


def test_a_file_with_a_damaged_chunk(tmp_path):
    rng = np.random.default_rng(0)
    path = make(tmp_path / "in.nc", rng.integers(0, 99, (400, 400), np.int16), zlib=True, fletcher32=True)
    data = bytearray(Path(path).read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(200)
    (tmp_path / "bad.nc").write_bytes(data)
    one_error(tmp_path / "bad.nc", "damaged")


def test_variables_that_cannot_be_opened(tmp_path):
    field = make_field(tmp_path)
    one_error(field, r"no variable 't2n' in field.nc; it has t2m", variable="t2n")
    one_error(field, "no variable 'x/t2m'", variable="x/t2m")
    one_error(field, "'label' of field.nc holds text", variable="label")
    one_error(field, "'height' of field.nc is a scalar", variable="height")
    one_error(field, "must share dims and shape", variable=["t2m", "lat"])
    one_error(field, "twice", variable=["t2m", "t2m"])
    one_error(field, "empty", variable=[])
    with netCDF4.Dataset(tmp_path / "other.nc", "w") as d:
        d.createDimension("x", 3)
        d.createVariable("c", "S1", ("x",))
        records = d.createCompoundType(np.dtype([("a", "f4"), ("b", "i4")]), "pair")
        d.createVariable("r", records, ("x",))
        lengths = d.createVLType(np.int32, "many")
        d.createVariable("l", lengths, ("x",))
        d.createVariable("i", "i4", ("x",))
        d.createVariable("f", "f4", ("x",))
    for name, content in (("c", "text"), ("r", "records"), ("l", "records")):
        one_error(tmp_path / "other.nc", f"'{name}' of other.nc holds {content}", variable=name)
    one_error(tmp_path / "other.nc", "share their dtype", variable=["i", "f"], raw=True)
    one_error(tmp_path / "other.nc", "choose variable= among i, f of other.nc")
    assert open_scene(str(tmp_path / "other.nc"), variable=["i", "f"]).dtype == np.float32


OPENED_TWICE = """
import sys
import netCDF4
import streamgeo as sg

path, name = sys.argv[1:]
opened = sg.files(path, key="x").key_transform("x", sg.open_netcdf(variable=name))
chain = opened.key_transform("x", sg.patch(64, edge="pad")).batch(8)
for _ in range(6):
    assert len(list(chain.prefetch(2, 2))) and chain.scene("x").grid.dims
    for group in ("PRODUCT", "PRODUCT/SUPPORT_DATA", "PRODUCT/SUPPORT_DATA/INPUT_DATA"):
        with netCDF4.Dataset(path) as file:
            for variable in file[group].variables.values():
                variable[:], variable.__dict__
"""


def test_a_file_may_be_opened_beside_its_chain(samples: Path) -> None:
    """netCDF-C crashes when a file with text is open twice, so none is left open."""
    (path,) = (samples / "geoscience").glob("S5P*.nc4")
    name = "PRODUCT/SUPPORT_DATA/INPUT_DATA/altitude_levels"
    environment = {**os.environ, "PYTHONPATH": str(Path(sg.__file__).parents[1])}
    command = [sys.executable, "-W", "ignore", "-c", OPENED_TWICE, str(path), name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
