"""NetCDF files of cropped, turned, scaled and new grids."""

from __future__ import annotations

import netCDF4
import numpy as np
import pytest
import xarray as xr

from streamgeo.errors import WriteError
from streamgeo.grid import Grid, plain_grid
from streamgeo.locate import GeoLocator, WcsLocator
from streamgeo.sinks import netcdf as sink
from streamgeo.sources.netcdf import open_scene
from streamgeo.template import Template
from streamgeo.window import Window
from tests.netcdf_made import (
    RAMP16,
    make,
    make_field,
    reference,
    view,
)

# -- grids ------------------------------------------------------------------------------------------------


def test_descending_latitude_text_and_scalar_coordinates(tmp_path):
    field = make_field(tmp_path)
    scene = open_scene(field, variable="t2m")
    assert scene.grid.locator.spatial == ("lat", "lon")
    assert scene.grid.pixel_to_world(time=0, lat=1, lon=2)["lat"] == pytest.approx(60)
    scene.save(tmp_path / "out.nc")
    with netCDF4.Dataset(tmp_path / "out.nc") as d:
        assert list(d["label"][:]) == ["a", "b", "c"] and d["height"][...] == 2.0
        assert d["t2m"]._FillValue == -999 and d["t2m"].missing_value == -999
        assert d.dimensions["time"].isunlimited()
    assert_equal_in_xarray(field, tmp_path / "out.nc")


def assert_equal_in_xarray(a, b, **where):
    with xr.open_dataset(a) as want, xr.open_dataset(b) as got:
        xr.testing.assert_equal(got["t2m"], want["t2m"].isel(where) if where else want["t2m"])


def test_longitude_before_latitude(tmp_path):
    path = make(tmp_path / "in.nc", np.arange(12, dtype="f4").reshape(4, 3), dims=("lon", "lat"))
    with netCDF4.Dataset(path, "a") as d:
        d.createVariable("lat", "f4", ("lat",))[:] = [2, 1, 0]
        d.createVariable("lon", "f4", ("lon",))[:] = [10, 20, 30, 40]
    scene = open_scene(path, variable="v")
    assert scene.dims == ("lon", "lat") and scene.grid.spatial == ("lat", "lon")
    assert tuple(scene.grid.bounds) == (5, -0.5, 45, 2.5)
    scene.save(tmp_path / "out.nc")
    with netCDF4.Dataset(tmp_path / "out.nc") as d:
        assert d["v"].dimensions == ("lon", "lat") and np.array_equal(d["v"][:], scene.array)


def test_crop_and_flip_follow_in_the_coordinates(tmp_path):
    field = make_field(tmp_path)
    scene = open_scene(field, variable="t2m")
    window = Window(time=(1, 3), lat=(2, 7), lon=(3, 9))
    grid = scene.grid.crop(window).flip("lat")
    view(scene, scene.read(window)[:, ::-1], grid).save(tmp_path / "out.nc")
    assert_equal_in_xarray(field, tmp_path / "out.nc", time=slice(1, 3), lat=slice(6, 1, -1), lon=slice(3, 9))


@pytest.mark.parametrize("factor", [2, 0.5])
def test_coarsened_and_refined(tmp_path, factor):
    field = make_field(tmp_path)
    scene = open_scene(field, variable="t2m")
    grid = scene.grid.coarsen(lat=factor, lon=factor)
    view(scene, np.ones(grid.shape, np.float32), grid).save(tmp_path / "out.nc")
    with xr.open_dataset(tmp_path / "out.nc") as got, xr.open_dataset(field) as want:
        size = int(8 / factor)
        lat = 70 - 10 * ((np.arange(size) + 0.5) * factor - 0.5)
        np.testing.assert_allclose(got["lat"], lat)
        assert got["lat"].attrs["units"] == "degrees_north"
        xr.testing.assert_equal(got["time"], want["time"])


def test_dims_in_another_order_gone_and_new(tmp_path):
    field = make_field(tmp_path)
    scene = open_scene(field, variable="t2m")
    turned = scene.grid.transpose("lon", "time", "lat")
    view(scene, scene.array.transpose(2, 0, 1), turned).save(tmp_path / "turned.nc")
    assert_equal_in_xarray(field, tmp_path / "turned.nc")
    view(scene, scene.array[0], scene.grid.drop("time")).save(tmp_path / "flat.nc")
    with netCDF4.Dataset(tmp_path / "flat.nc") as d:
        assert d["t2m"].dimensions == ("lat", "lon")
    more = scene.grid.insert(3, "band", 2)
    view(scene, np.stack([scene.array] * 2, -1), more).save(tmp_path / "more.nc")
    with netCDF4.Dataset(tmp_path / "more.nc") as d:
        assert d["t2m"].dimensions == ("band", "time", "lat", "lon")
        assert np.array_equal(d["t2m"][1].filled(np.nan), scene.array, equal_nan=True)


def test_a_valid_value_equal_to_the_fill_value_stays_valid(tmp_path):
    field = make_field(tmp_path)
    scene = open_scene(field, variable="t2m")
    values = scene.array.copy()
    values[1, 1, :2] = -999
    with pytest.warns(UserWarning, match="2 valid values in out.nc equal the fill value -999"):
        view(scene, values, scene.grid).save(tmp_path / "out.nc")
    got = reference(tmp_path / "out.nc", "t2m")
    assert np.array_equal(np.isnan(got), np.isnan(values)) and np.allclose(
        got, values, rtol=1e-6, equal_nan=True
    )


@pytest.mark.parametrize("dtype", ["f8", "f2", "i2", "u1", "i1", "i8", "?"])
def test_values_in_their_own_dtype(tmp_path, dtype):
    field = make_field(tmp_path)
    scene = open_scene(field, variable="t2m")
    values = np.random.default_rng(0).integers(-120, 127, scene.shape).astype(dtype)
    if dtype in ("i2", "i8"):
        values[0, 0, 0] = netCDF4.default_fillvals[dtype]
    if dtype in ("u1", "i1"):
        values[0] = netCDF4.default_fillvals[dtype]
    view(scene, values, scene.grid).save(tmp_path / "out.nc")
    with netCDF4.Dataset(tmp_path / "out.nc") as d:
        assert not np.ma.is_masked(d["t2m"][:]) and np.array_equal(d["t2m"][:], values)
        assert d["t2m"].dtype == {"f2": "f4", "?": "i1"}.get(dtype, dtype)
    with xr.open_dataset(tmp_path / "out.nc", mask_and_scale=False) as d:
        assert d["t2m"].dtype == {"f2": "f4"}.get(dtype, dtype)


def test_complex_numbers_and_wrong_shapes_are_refused(tmp_path):
    field = make_field(tmp_path)
    scene = open_scene(field, variable="t2m")
    with pytest.raises(WriteError, match="no type for complex64"):
        view(scene, scene.array.astype("c8"), scene.grid).save(tmp_path / "out.nc")
    with pytest.raises(WriteError, match="has shape"):
        sink.write(tmp_path / "out.nc", scene.array[0], scene.grid, scene.template)
    assert not (tmp_path / "out.nc").is_file() or not (tmp_path / "out.nc").stat().st_size


def test_raw_values_that_do_not_fit_are_refused(tmp_path):
    scene = open_scene(make(tmp_path / "in.nc", RAMP16, {"scale_factor": 0.5}), raw=True)
    view(scene, scene.array.astype("f4"), scene.grid).save(tmp_path / "same.nc")
    assert np.array_equal(reference(tmp_path / "same.nc", "v", True), RAMP16)
    with pytest.raises(WriteError, match="stored as int16, which does not hold these float32 values exactly"):
        view(scene, scene.array + np.float32(0.5), scene.grid).save(tmp_path / "out.nc")


def test_transform_attributes_follow_the_grid(tmp_path):
    path = make(tmp_path / "in.nc", np.zeros((6, 8), "f4"), {"grid_mapping": "crs"})
    with netCDF4.Dataset(path, "a") as d:
        for dim, first, step in (("y", 900.0, -10.0), ("x", 105.0, 10.0)):
            d.createVariable(dim, "f8", (dim,))[:] = first + step * np.arange(d.dimensions[dim].size)
        crs = d.createVariable("crs", "i4", ())
        crs.setncatts({"grid_mapping_name": "latitude_longitude", "GeoTransform": "100 10 0 905 0 -10"})
    scene = open_scene(path, variable="v")
    grid = scene.grid.crop(Window(y=(1, 5), x=(2, 8))).coarsen(y=2, x=2)
    view(scene, np.zeros(grid.shape, "f4"), grid).save(tmp_path / "out.nc")
    with netCDF4.Dataset(tmp_path / "out.nc") as d:
        assert [float(part) for part in d["crs"].GeoTransform.split()] == [120, 20, 0, 895, 0, -20]
        assert d["x"][0] == 130 and d["y"][0] == 885


# -- templates of other formats ---------------------------------------------------------------------------


def test_crs_and_affine_become_vectors_and_a_grid_mapping(tmp_path):
    from affine import Affine
    from pyproj import CRS

    grid = Grid.of(("band", "y", "x"), (2, 5, 7), GeoLocator((30, 0, 5e5, 0, -30, 4.1e6), "EPSG:32633"))
    values = np.arange(70, dtype="f4").reshape(2, 5, 7)
    template = Template(
        "geotiff", grid.dims, name="red", units="K", attrs={"TIFFTAG_SOFTWARE": "x", "n": {"a": 1}}
    )
    sink.write(tmp_path / "out.nc", values, grid, template)
    with xr.open_dataset(tmp_path / "out.nc") as d:
        assert np.array_equal(d["red"].values, values) and d["red"].attrs["TIFFTAG_SOFTWARE"] == "x"
        np.testing.assert_allclose(d["x"], 5e5 + 30 * (np.arange(7) + 0.5))
        np.testing.assert_allclose(d["y"], 4.1e6 - 30 * (np.arange(5) + 0.5))
        mapping = d[d["red"].encoding.get("grid_mapping") or d["red"].attrs["grid_mapping"]]
        assert CRS.from_cf(mapping.attrs).to_epsg() == 32633
        gdal = [float(part) for part in mapping.attrs["GeoTransform"].split()]
        assert Affine.from_gdal(*gdal) == Affine(*grid.affine)
    again = open_scene(str(tmp_path / "out.nc"))
    assert again.grid.crs.to_epsg() == 32633 and again.grid.spatial == ("y", "x")
    assert again.template.units == "K"


def test_the_transform_is_read_by_gdal(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    grid = Grid.of(("y", "x"), (5, 7), GeoLocator((30, 0, 5e5, 0, -30, 4.1e6), "EPSG:32633"))
    sink.write(tmp_path / "out.nc", np.ones((5, 7), "f4"), grid, Template("geotiff", grid.dims, name="red"))
    try:
        with rasterio.open(f"netcdf:{tmp_path / 'out.nc'}:red") as d:
            assert d.transform.almost_equals(rasterio.Affine(*grid.affine)) and d.crs.to_epsg() == 32633
    except rasterio.errors.RasterioIOError as error:
        pytest.skip(f"this GDAL has no NetCDF driver: {error}")


def test_rotated_grids_get_2d_coordinates(tmp_path):
    grid = Grid.of(("y", "x"), (4, 5), GeoLocator((3, 1, 100, 1, -3, 200), "EPSG:32633"))
    sink.write(tmp_path / "out.nc", np.ones((4, 5), "f4"), grid, Template("geotiff", grid.dims))
    want = grid.pixel_to_world(y=2, x=3)
    with xr.open_dataset(tmp_path / "out.nc") as d:
        assert float(d["xc"][2, 3]) == want["x"] and float(d["yc"][2, 3]) == want["y"]
        assert "xc" in d["data"].coords


def test_a_wcs_leaves_its_cards(tmp_path):
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.cunit = ["HPLN-TAN", "HPLT-TAN"], ["deg", "deg"]
    wcs.wcs.crpix, wcs.wcs.cdelt = [10, 20], [0.001, 0.001]
    grid = Grid.of(("y", "x"), (40, 30), WcsLocator(wcs.to_header_string(), ("y", "x"), ("y", "x")))
    cut = grid.crop(Window(y=(5, 25), x=(2, 22)))
    attrs = {"CRPIX1": 10.0, "NAXIS1": 30, "TELESCOP": "SDO", "BSCALE": 2.0}
    sink.write(
        tmp_path / "out.nc",
        np.ones((20, 20), "f4"),
        cut,
        Template("fits", ("y", "x"), name="a b", attrs=attrs),
    )
    with netCDF4.Dataset(tmp_path / "out.nc") as d:
        assert (d["a_b"].CRPIX1, d["a_b"].CRPIX2, d["a_b"].TELESCOP) == (8, 15, "SDO")
        assert not {"NAXIS1", "BSCALE"} & set(d["a_b"].ncattrs())


def test_nodata_of_stored_values_of_another_format(tmp_path):
    grid = Grid.of(("y", "x"), (2, 2), GeoLocator((1, 0, 0, 0, -1, 0), None))
    values = np.array([[0, 1], [2, 255]], np.uint8)
    sink.write(tmp_path / "out.nc", values, grid, Template("geotiff", grid.dims, raw=True, nodata=0))
    with netCDF4.Dataset(tmp_path / "out.nc") as d:
        assert np.ma.getmaskarray(d["data"][:]).tolist() == [[True, False], [False, False]]


def test_values_alone(tmp_path):
    sink.write(tmp_path / "out.nc", RAMP16, plain_grid((6, 10)), Template("numpy", ("dim_0", "dim_1")))
    with xr.open_dataset(tmp_path / "out.nc") as d:
        assert np.array_equal(d["data"], RAMP16)


def test_a_reprojected_scene_loses_the_old_georeference(tmp_path):
    field = make_field(tmp_path)
    scene = open_scene(field, variable="t2m")
    grid = Grid.of(("time", "y", "x"), (3, 4, 5), GeoLocator((1e5, 0, 0, 0, -1e5, 7e6), "EPSG:3857"))
    view(scene, np.ones((3, 4, 5), "f4"), grid).save(tmp_path / "out.nc")
    again = open_scene(str(tmp_path / "out.nc"))
    assert again.grid.crs.to_epsg() == 3857 and "coordinates" not in again.attrs
    assert again.attrs["units"] == "K"
