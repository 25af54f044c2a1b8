"""DataArrays of scenes and scenes of DataArrays, against xarray, rioxarray and rasterio on real files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

import streamgeo as sg
from streamgeo import climate, made
from streamgeo.errors import GridError, StepError
from tests.laws import EARTH, GLOBE, SUN, SUN_HEADER

xr = pytest.importorskip("xarray")

RASTERS = [
    "remote_sensing/landsat8/LC08_L1TP_224077_20200518_20200518_01_RT_B2.TIF",
    "remote_sensing/RGB.byte.tif",
    "remote_sensing/rotated.tif",
    "remote_sensing/cog_nodata_nan.tif",
    "remote_sensing/co_elevation_roi.tif",
]
FIELDS = [
    ("geoscience/uwnd_mean.nc", "uwnd"),
    ("geoscience/A1B_north_america.nc", "air_temperature"),
    ("geoscience/rotated_pole.nc", "air_pressure_at_sea_level"),
    ("geoscience/nemo/nemo_1m_20150101-20150201_grid-T.nc", "tos"),
    ("geoscience/tmmx_20190121.nc", "air_temperature"),
    ("geoscience/PLANET_SCOPE_3D.nc", "blue"),
]


# -- to_xarray ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", RASTERS)
def test_raster_against_rioxarray(samples: Path, file: str) -> None:
    rioxarray = pytest.importorskip("rioxarray")
    scene = sg.open_geotiff()(samples / file)
    found, expected = scene.to_xarray(), rioxarray.open_rasterio(samples / file, masked=True)
    assert found.dims == expected.dims
    np.testing.assert_allclose(found.values, expected.values.astype("f4"), rtol=1e-6)
    assert found.rio.crs == expected.rio.crs
    np.testing.assert_allclose(found.rio.transform(), expected.rio.transform(), rtol=1e-12, atol=1e-9)
    for name in {"x", "y", "xc", "yc"} & expected.coords.keys():
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-12)


@pytest.mark.parametrize(("file", "name"), FIELDS)
def test_field_against_xarray(samples: Path, file: str, name: str) -> None:
    found = sg.open_netcdf(name)(samples / file).to_xarray()
    with xr.open_dataset(samples / file, decode_coords="all", decode_timedelta=False) as data:
        expected = data[name].load()
    assert found.dims == expected.dims
    assert found.attrs["units"] == expected.attrs["units"]
    np.testing.assert_allclose(found.values, expected.values.astype("f4"), rtol=1e-6)
    for dim in expected.indexes:
        np.testing.assert_array_equal(found[dim].values, expected[dim].values)
    for key in {n for n, c in expected.coords.items() if c.ndim == 2 and c.dtype.kind == "f"} & set(
        found.coords
    ):
        np.testing.assert_array_equal(found[key].values, expected[key].values)


def test_a_window_is_where_it_was(samples: Path) -> None:
    chain = (
        sg.files([samples / FIELDS[0][0]], key="u")
        .key_transform("u", sg.open_netcdf("uwnd"))
        .key_transform("u", sg.crop(latitude=slice(10, 20), longitude=slice(30, 60)))
    )
    found = chain.scene("u").to_xarray()
    with xr.open_dataset(samples / FIELDS[0][0]) as data:
        expected = data["uwnd"].isel(latitude=slice(10, 20), longitude=slice(30, 60))
        xr.testing.assert_equal(found.drop_attrs(), expected.drop_attrs())


def test_other_calendars_become_cftime(tmp_path: Path) -> None:
    (path,) = made.sea(tmp_path, count=1, shape=(4, 6))
    found = sg.open_netcdf("sst")(path).to_xarray()
    assert found.time.values[0].calendar == "360_day"
    assert found.sel(time=slice("2000-03", "2000-05")).sizes["time"] == 3
    assert found.name == "sst"


def test_fits_keeps_its_header(tmp_path: Path) -> None:
    (path,) = made.sun(tmp_path, count=1, size=64)
    found = sg.open_fits()(path).to_xarray()
    assert found.dims == ("y", "x")
    assert found.attrs["TELESCOP"] == "MADE"


# -- to_rasterio ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", RASTERS)
def test_profile_writes_the_same_raster(samples: Path, tmp_path: Path, file: str) -> None:
    scene = sg.open_geotiff()(samples / file)
    with rasterio.open(tmp_path / "out.tif", "w", **scene.to_rasterio()) as out:
        out.write(scene.array)
    with rasterio.open(tmp_path / "out.tif") as out, rasterio.open(samples / file) as source:
        assert out.crs == source.crs
        assert out.transform.almost_equals(source.transform, 1e-9)
        assert (out.count, out.shape) == (source.count, source.shape)


def test_profile_of_even_coordinates() -> None:
    profile = (
        sg.from_xarray(
            xr.DataArray(
                np.zeros((3, 4, 5), "f4"),
                dims=("time", "lat", "lon"),
                coords={"lat": [40.0, 39.0, 38.0, 37.0], "lon": np.arange(5) * 0.5},
            )
        )
        .scene("image")
        .to_rasterio()
    )
    assert profile["transform"][:6] == pytest.approx((0.5, 0, -0.25, 0, -1, 40.5))
    assert (profile["count"], profile["height"], profile["width"], profile["crs"]) == (3, 4, 5, None)
    assert np.isnan(profile["nodata"])


def test_profile_errors(tmp_path: Path) -> None:
    (path,) = made.sun(tmp_path, count=1, size=64)
    with pytest.raises(GridError, match="no affine transform"):
        sg.open_fits()(path).to_rasterio()
    field = xr.DataArray(
        np.zeros((2, 3)), dims=("lat", "lon"), coords={"lat": [0.0, 1.0], "lon": [0.0, 1.0, 5.0]}
    )
    with pytest.raises(GridError, match="lon has no evenly spaced"):
        sg.from_xarray(field).scene("image").to_rasterio()
    turned = sg.from_xarray(field.transpose()).scene("image")
    with pytest.raises(GridError, match="must be the last two"):
        turned.to_rasterio()


# -- from_xarray ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("file", "name"), FIELDS)
def test_field_comes_back_as_it_was(samples: Path, tmp_path: Path, file: str, name: str) -> None:
    with xr.open_dataset(samples / file, decode_coords="all", decode_timedelta=False) as data:
        given = data[name].load()
    chain = sg.from_xarray(given, key="t").key_transform("t", sg.normalize(mean=3.0, std=2.0))
    again = sg.open_netcdf(name)(samples / file)
    np.testing.assert_allclose(chain.scene("t").array * 2 + 3, given.values, rtol=1e-6, atol=1e-6)
    assert chain.scene("t").grid.spatial == again.grid.spatial
    (scene,) = chain.predict(np.asarray, key="t")
    with xr.open_dataset(
        scene.save(tmp_path / "out.nc"), decode_coords="all", decode_timedelta=False
    ) as saved:
        found = saved[name]
        np.testing.assert_allclose(found.values, given.values, rtol=1e-6, atol=1e-6)
        for dim in given.indexes:
            np.testing.assert_array_equal(found[dim].values, given[dim].values)
        assert found.attrs["units"] == given.attrs["units"]


@pytest.mark.parametrize("file", RASTERS[:2])
def test_raster_comes_back_as_a_geotiff(samples: Path, tmp_path: Path, file: str) -> None:
    rioxarray = pytest.importorskip("rioxarray")
    given = rioxarray.open_rasterio(samples / file, masked=True)
    scene = sg.from_xarray(given).scene("image")
    assert scene.grid == sg.open_geotiff()(samples / file).grid
    with rasterio.open(scene.save(tmp_path / "out.tif")) as out, rasterio.open(samples / file) as source:
        assert (out.crs, out.count) == (source.crs, source.count)
        assert out.transform.almost_equals(source.transform, 1e-6)


@pytest.mark.parametrize("name", ["rotated.tif", "au-3577-rotated.tif"])
@pytest.mark.parametrize("cut", [{}, {"x": slice(3, 8), "y": slice(2, 15, 3)}, {"x": slice(None, None, -1)}])
def test_rotated_rasters_come_in_with_their_place(samples: Path, name: str, cut: dict[str, slice]) -> None:
    rioxarray = pytest.importorskip("rioxarray")
    path = samples / "remote_sensing" / name
    scene = sg.open_geotiff()(path)
    for given in (rioxarray.open_rasterio(path, masked=True), scene.to_xarray()):
        found = sg.from_xarray(given.isel(cut)).scene("image")
        assert found.grid.crs == scene.grid.crs
        here = found.grid.pixel_to_world(**{d: np.arange(4) for d in ("y", "x")})
        there = scene.grid.pixel_to_world(
            **{d: np.arange(scene.grid.sizes[d])[cut.get(d, slice(None))][:4] for d in ("y", "x")}
        )
        for axis in ("x", "y"):
            np.testing.assert_allclose(here[axis], there[axis], rtol=1e-12)


def test_a_transform_that_is_cut_short_gives_way_to_the_coordinates(samples: Path) -> None:
    given = sg.open_netcdf("air_temperature")(samples / "geoscience/tmmx_20190121.nc").to_xarray()
    assert len(given["crs"].attrs["GeoTransform"].split()) == 5
    scene = sg.from_xarray(given).scene("image")
    place = scene.grid.pixel_to_world(lat=np.array([0, 584]), lon=np.array([0, 1385]))
    np.testing.assert_allclose(place["lat"], given["lat"].values[[0, -1]])
    np.testing.assert_allclose(place["lon"], given["lon"].values[[0, -1]])


def test_patches_of_lazy_arrays_are_windows() -> None:
    dask = pytest.importorskip("dask.array")
    read = []

    def block(block_info: object = None) -> np.ndarray:
        place = block_info[None]["array-location"]  # type: ignore[index]
        read.append(place)
        return np.full([b - a for a, b in place], 1.0, "f4")

    values = dask.map_blocks(block, chunks=((8,) * 8, (8,) * 8), dtype="f4", meta=np.empty((0, 0), "f4"))
    chain = sg.from_xarray(xr.DataArray(values, dims=("y", "x"))).key_transform("image", sg.patch(8))
    assert len(chain) == 64
    read.clear()
    assert chain[9]["image"].sum() == 64
    assert read == [[(8, 16), (8, 16)]]


def test_several_arrays_are_several_samples() -> None:
    arrays = [xr.DataArray(np.full((6, 6), float(i)), dims=("y", "x"), name=f"n{i}") for i in range(3)]
    chain = sg.from_xarray(arrays, "x").key_transform("x", sg.patch(3)).batch(5).prefetch(2, 2)
    found = [scene.array for scene in chain.predict(lambda x: x + 1, key="x")]
    assert [np.unique(a).tolist() for a in found] == [[1.0], [2.0], [3.0]]
    assert "3 DataArrays" in repr(sg.from_xarray(arrays))


def test_from_xarray_errors() -> None:
    with pytest.raises(StepError, match="int is no xarray.DataArray"):
        sg.from_xarray(3)
    with pytest.raises(StepError, match="give a DataArray"):
        sg.from_xarray([])
    with pytest.raises(StepError, match="give numbers"):
        sg.from_xarray(xr.DataArray(["a", "b"], dims="x"))
    field = xr.DataArray(np.ones((2, 3)), dims=("y", "x"))
    with pytest.raises(StepError, match=r"Dataset is no xarray.DataArray; give one of its variables"):
        sg.from_xarray(field.to_dataset(name="a"))
    with pytest.raises(StepError, match=r"the coordinate 'z' cannot be written as CF.*reset_index\('z'\)"):
        sg.from_xarray(field.stack(z=("y", "x")))


@pytest.mark.parametrize("grid", [EARTH, GLOBE])
def test_there_and_back(grid: sg.Grid) -> None:
    from streamgeo.convert_xarray import grid_of
    from streamgeo.dataarrays import to_dataarray

    found = grid_of(to_dataarray(np.zeros(grid.shape), grid))
    assert found.dims == grid.dims
    mine, theirs = ({c.name: c for c in g.coords} for g in (found, grid))
    assert mine.keys() == theirs.keys()
    for name in ("lat", "lon"):
        assert mine[name].equals(theirs[name])
    if "time" in mine:
        assert climate.times(found).tolist() == climate.times(grid).tolist()


# -- on_dataarray ---------------------------------------------------------------------------------------


def test_functions_of_xarray_as_steps(tmp_path: Path) -> None:
    paths = made.sea(tmp_path, count=2, shape=(20, 24))
    chain = (
        sg.files(paths, key="sst")
        .key_transform("sst", sg.open_netcdf("sst"))
        .key_transform("sst", climate.on_dataarray(shifted, inverse=unshifted))
        .key_transform("sst", sg.patch(8))
    )
    first = xr.open_dataset(paths[0], decode_times=xr.coders.CFDatetimeCoder(use_cftime=True))["sst"]
    np.testing.assert_allclose(
        chain.scene("sst").array, shifted(first).transpose("time", "lat", "lon").values, rtol=1e-5
    )
    for path, scene in zip(paths, chain.batch(4).predict(np.asarray, key="sst")):
        np.testing.assert_allclose(scene.array, sg.open_netcdf("sst")(path).array, atol=1e-4)


def shifted(data: object) -> object:
    """Uses names, coordinates and times, and turns the dims around."""
    return (data + data.lat / 10 + data.time.dt.month).transpose("lon", "lat", "time")


def unshifted(data: object) -> object:
    return data - data.lat / 10 - data.time.dt.month


def test_on_dataarray_gets_attributes() -> None:
    seen = {}

    def look(data: object) -> object:
        seen.update(data.attrs)
        return data * 2

    assert climate.on_dataarray(look)(np.ones((12, 17), "f4"), grid=SUN, attrs=SUN_HEADER).dtype == np.float32
    assert seen["EXPTIME"] == 2.9


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda d: d.values, "returned ndarray"),
        (lambda d: d.mean("lat"), "must keep the dims"),
        (lambda d: d.isel(lat=slice(0, 3)), "must keep the dims"),
    ],
)
def test_on_dataarray_errors(f: object, message: str) -> None:
    with pytest.raises(StepError, match=message):
        climate.on_dataarray(f)(np.ones(EARTH.shape), grid=EARTH)
    with pytest.raises(StepError, match="is not a function"):
        climate.on_dataarray(3)  # type: ignore[arg-type]
