"""Writing NetCDF, against netCDF4-python and xarray."""

from __future__ import annotations

import warnings

import netCDF4
import numpy as np
import pytest
import xarray as xr

from streamgeo.cf_packing import MARKS, SCALES
from streamgeo.grid import Grid
from streamgeo.locate import CoordLocator
from streamgeo.scene import ArrayScene
from streamgeo.sources.netcdf import open_scene
from streamgeo.window import Window
from tests.netcdf_made import (
    FILES,
    assert_attributes,
    attributes,
    copy_of,
    quiet_open,
    quiet_save,
    reference,
    variables,
)

SAVED = 6  # variables of a file that are saved and read again: the rest are of the same kinds


# -- real files: writing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_save_and_reopen(name, raw, samples, tmp_path):
    copy = copy_of(samples / name, tmp_path)
    with netCDF4.Dataset(copy) as dataset:
        names = list(variables(dataset))[: SAVED if "GLMC" not in name else 1]
    for i, variable in enumerate(names):
        scene = quiet_open(samples / name, variable=variable, raw=raw)
        out = tmp_path / f"out{i}.nc"
        quiet_save(scene, out)
        for as_stored in {False, raw}:
            got, want = reference(out, variable, as_stored), reference(copy, variable, as_stored)
            assert got.dtype == want.dtype and np.array_equal(got, want, equal_nan=got.dtype.kind == "f")
        assert_same_file(out, copy, variable, raw, scene.template.carry)
        again = quiet_open(out, variable=variable, raw=raw)
        assert again.grid == scene.grid and again.grid.spatial == scene.grid.spatial
        assert_same_for_xarray(out, copy, variable, scene)


def assert_same_file(out, source, variable, raw, carry):
    with netCDF4.Dataset(out) as got, netCDF4.Dataset(source) as want:
        assert got.data_model == "NETCDF4"
        a, b = got[variable], want[variable]
        assert a.dimensions == b.dimensions and a.filters()["zlib"] and a.filters()["shuffle"]
        skip = () if raw else (*MARKS, *SCALES)
        if raw and b.dtype.kind in "iu" and np.isnan(np.asarray(getattr(b, "_FillValue", 0), float)):
            skip = ("_FillValue",)  # NaN for an integer cannot be written to NetCDF-4 (and meant nothing)
        assert_attributes(attributes(a, skip), attributes(b, skip))
        assert_attributes(attributes(got), attributes(want))
        got.set_auto_maskandscale(False), want.set_auto_maskandscale(False)
        for path in carry["coords"].values():
            assert_same_coordinate(got[path], want[path])
        if carry["grid_mapping"]:
            path = carry["grid_mapping"]["path"]
            assert_attributes(attributes(got[path]), attributes(want[path]))
        for home in carry["dims"].values():
            group = [d[home["group"]] if home["group"] else d for d in (got, want)]
            same = [g.dimensions[home["name"]] for g in group]
            assert same[0].isunlimited() == same[1].isunlimited() and len(same[0]) == len(same[1])


def assert_same_coordinate(got, want):
    assert np.dtype(got.dtype).newbyteorder("=") == np.dtype(want.dtype).newbyteorder("=")
    assert got.dimensions == want.dimensions
    assert np.array_equal(got[...], want[...], equal_nan=got.dtype.kind == "f")
    assert_attributes(attributes(got), attributes(want))


def assert_same_for_xarray(out, source, variable, scene):
    group, _, leaf = variable.rpartition("/")
    mapping = scene.template.carry["grid_mapping"]
    wanted = {path.rpartition("/")[2] for path in scene.template.carry["coords"].values()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with xr.open_dataset(out, group=group) as got, xr.open_dataset(source, group=group) as want:
            for name in wanted & set(want[leaf].coords):
                assert name in got.variables and got[name].variable.equals(want[name].variable), name
            if mapping:
                got_crs, want_crs = (
                    Grid((), CoordLocator((), (), d[mapping["path"]].attrs)) for d in (got, want)
                )
                assert (scene.grid.crs is None) or got_crs.crs == want_crs.crs == scene.grid.crs


def test_several_variables_come_apart_again(samples, tmp_path):
    names = ["blue", "green", "nir"]
    scene = open_scene(str(samples / FILES[24]), variable=names)
    assert scene.dims == ("variable", "y", "x") and scene.shape == (3, 668, 668)
    assert list(scene.template.attrs["variables"]) == names
    part = scene.grid.crop(Window(variable=(1, 3), y=(10, 300), x=(5, 400)))
    cut = ArrayScene(
        scene.read(Window(variable=(1, 3), y=(10, 300), x=(5, 400))), part, scene.template, name="s.nc"
    )
    cut.save(tmp_path / "out.nc")
    with netCDF4.Dataset(tmp_path / "out.nc") as dataset:
        assert "blue" not in dataset.variables
        assert dataset.variables["x"].size == 395
        np.testing.assert_allclose(dataset.transform, [30, 0, 3098805 + 5 * 30, 0, -30, -3199575 - 10 * 30])
    for name in names[1:]:
        want = reference(samples / FILES[24], name)[10:300, 5:400]
        assert np.array_equal(reference(tmp_path / "out.nc", name), want, equal_nan=True)


@pytest.mark.parametrize("new", [("band", 5), ("variable", 2)])
def test_a_changed_number_of_bands_is_one_variable(samples, tmp_path, new):
    scene = open_scene(str(samples / FILES[24]), variable=["blue", "green", "nir"], raw=True)
    dim, size = new
    grid = (
        scene.grid.drop("variable").insert(0, dim, size)
        if dim == "band"
        else scene.grid.resize(variable=size)
    )
    values = np.random.default_rng(0).random((size, 668, 668), np.float32)
    ArrayScene(values, grid, scene.template, name="s.nc").save(tmp_path / "out.nc")
    with xr.open_dataset(tmp_path / "out.nc") as dataset:
        assert list(dataset.data_vars) == ["blue_green_nir"]
        array = dataset["blue_green_nir"]
        assert array.dims == (dim, "y", "x") and np.array_equal(array.values, values)
        assert "scale_factor" not in array.attrs
