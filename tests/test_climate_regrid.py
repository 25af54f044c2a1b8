"""Regridding against xarray, scipy and rasterio, on a real file where one serves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import streamgeo as sg
from streamgeo import climate
from streamgeo.climate.weights import closest, edges, linear, overlaps
from streamgeo.errors import GridError, StepError
from tests.laws import GLOBE, PLANE
from tests.test_climate import WIND, globe, opened

xr = pytest.importorskip("xarray")
pytest.importorskip("scipy")


@pytest.mark.parametrize("method", ["bilinear", "nearest"])
def test_real_file_against_xarray(samples: Path, method: str) -> None:
    lat, lon = np.linspace(-81.3, 77.7, 41), np.linspace(1.1, 356.2, 83)
    data = opened(samples / WIND, "uwnd")
    expected = data.interp(
        latitude=lat, longitude=lon, method={"bilinear": "linear"}.get(method, method), assume_sorted=False
    )
    chain = (
        sg.files([samples / WIND], key="u")
        .key_transform("u", sg.open_netcdf("uwnd"))
        .key_transform("u", climate.regrid(lat, lon, method))
        .key_transform("u", sg.patch(16, stride=11))
    )
    assert "not pushed down" not in chain.explain()
    (scene,) = chain.batch(6).prefetch(2, 2).predict(np.asarray, key="u", inverse=[])
    np.testing.assert_allclose(scene.array, expected.values, rtol=1e-5, atol=1e-5)


def test_bilinear_between_the_last_longitude_and_the_first() -> None:
    x = np.random.default_rng(0).normal(size=GLOBE.shape)
    y = climate.regrid([55.0, 44.0], [345.0, 350.0, 355.0])(x, grid=GLOBE)
    share = np.array([0.25, 0.5, 0.75])
    expected = x[:, 1:3, 17:] * (1 - share) + x[:, 1:3, :1] * share
    np.testing.assert_allclose(y, expected, rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_conservative_keeps_the_mean_over_the_sphere(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lat, lon = np.linspace(85, -85, 18), np.arange(36) * 10.0
    x = rng.normal(size=(18, 36))
    ny, nx = rng.integers(5, 40, 2)
    step = climate.regrid(
        (np.arange(ny) + 0.5) * 180 / ny - 90,
        np.arange(nx) * 360 / nx - 180 + rng.uniform(0, 9),
        "conservative",
    )
    y = step(x, grid=globe(x, lat, lon))
    assert np.isfinite(y).all()

    def mean(values: np.ndarray, count: int) -> float:
        edges = np.linspace(-90, 90, count + 1)
        return float(np.average(values.mean(1), weights=np.diff(np.sin(np.radians(edges)))))

    assert mean(y, ny) == pytest.approx(mean(x[::-1], 18), abs=1e-12)


def test_conservative_to_whole_blocks_is_the_mean_weighted_by_area(samples: Path) -> None:
    scene = sg.open_netcdf("uwnd")(samples / WIND)
    inner = climate.subset(lat=(-87.5, 87.5))
    x, grid = inner(scene.array, grid=scene.grid), inner.grid_after(scene.grid)
    lat = next(c for c in grid.coords if c.name == "latitude").values
    found = climate.regrid(lat[1::3][:23], np.arange(1, 144, 2) * 2.5 - 1.25, "conservative")(x, grid=grid)
    edges = np.sin(np.radians(np.append(lat + 1.25, lat[-1] - 1.25)))
    area = np.repeat(-np.diff(edges)[:, None], 144, 1)
    cut = np.s_[:, :69, :]
    blocks = [(v[cut] if v.ndim == 3 else v[:69])[...].reshape(-1, 23, 3, 72, 2) for v in (x * area, area)]
    expected = blocks[0].sum((2, 4)) / blocks[1].sum((2, 4))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_conservative_in_part_of_the_globe_against_rasterio() -> None:
    from rasterio.transform import from_origin
    from rasterio.warp import Resampling, reproject

    lat, lon = np.arange(2.875, -3, -0.25), np.arange(10.125, 16, 0.25)  # so near the equator areas are alike
    x = np.random.default_rng(1).normal(size=(lat.size, lon.size)).astype(np.float32)
    coarse_lat, coarse_lon = np.arange(2.5, -3, -1.0), np.arange(10.5, 16, 1.0)
    expected = np.zeros((6, 6), np.float32)
    reproject(
        x, expected, src_crs="EPSG:4326", dst_crs="EPSG:4326", src_transform=from_origin(10, 3, 0.25, 0.25),
        dst_transform=from_origin(10, 3, 1, 1), resampling=Resampling.average,
    )  # fmt: skip
    found = climate.regrid(coarse_lat, coarse_lon, "conservative")(x, grid=globe(x, lat, lon))
    np.testing.assert_allclose(found, expected, atol=2e-3)


@pytest.mark.parametrize("method", ["bilinear", "nearest", "conservative"])
@pytest.mark.parametrize("west", [-10.0, 170.0, -190.0, 350.0])
def test_a_region_of_a_globe_and_back(method: str, west: float) -> None:
    """A region in another convention of longitudes, across the end of the file: there, and back to where it was."""
    lat, lon = np.arange(88.75, -90, -2.5), np.arange(1.25, 360, 2.5)
    x = np.add.outer(np.sin(np.radians(lat)), np.cos(np.radians(lon)))
    step = climate.regrid(np.arange(31.25, 60, 2.5), np.arange(west + 1.25, west + 50, 2.5), method)
    y = step(x, grid=globe(x, lat, lon))
    back = step.undo(y, grid=globe(x, lat, lon))
    inside = np.ix_((lat > 30) & (lat < 60), np.mod(lon - west, 360) < 50)
    assert y.shape == (12, 20)
    np.testing.assert_allclose(back[inside], x[inside], atol=1e-12)
    assert np.isfinite(back).sum() == y.size


@pytest.mark.parametrize(
    "lon", [np.array([30.0, 120, 250]), np.array([250.0, 120, 30]), np.array([-110.0, 30, 120])]
)
def test_conservative_by_hand(lon: np.ndarray) -> None:
    """Weights are areas on the sphere: differences of sines times differences of longitudes."""
    old_lat, old_lon = np.array([80.0, 40, 0, -40, -80]), np.array([0.0, 90, 180, 270])
    new_lat, values = np.array([60.0, 10, -50]), np.arange(20.0).reshape(5, 4)
    found = climate.regrid(new_lat, lon, "conservative")(values, grid=globe(values, old_lat, old_lon))
    parallels, meridians = np.array([90.0, 60, 20, -20, -60, -90]), np.array([-45.0, 45, 135, 225, 315])
    cells = np.array([85.0, 35, -20, -80]), edges(lon)
    for i, j in np.ndindex(3, 3):
        north, south = cells[0][i], cells[0][i + 1]
        west, east = sorted(cells[1][j : j + 2])
        total = area = 0.0
        for a, b, turn in np.ndindex(5, 4, 5):
            height = [np.sin(np.radians(v)) for v in (min(north, parallels[a]), max(south, parallels[a + 1]))]
            left, right = meridians[b : b + 2] + 360 * (turn - 2)
            part = max(height[0] - height[1], 0) * max(min(east, right) - max(west, left), 0)
            total, area = total + part * values[a, b], area + part
        np.testing.assert_allclose(found[i, j], total / area, rtol=1e-12)


def test_a_part_of_the_globe_to_the_whole() -> None:
    lat, lon = np.arange(30.5, 60), np.arange(350.5, 380)
    x = np.ones((lat.size, lon.size))
    step = climate.regrid(np.arange(-87.5, 90, 5.0), np.arange(2.5, 360, 5.0), "conservative")
    y = step(x, grid=globe(x, lat, lon))
    assert np.isfinite(y).sum() == 6 * 6  # 30 to 60 north, 350 to 20 east
    assert np.isfinite(y[24:30, [0, 1, 2, 3, 70, 71]]).all()


def test_weights_of_fine_axes_are_few() -> None:
    fine, coarse = (np.arange(n) * 360 / n for n in (86400, 360))
    found = overlaps(edges(fine), edges(coarse), 360.0)
    assert found.pixels.shape == (241, 360)  # of 240 pixels, two are halved
    np.testing.assert_allclose(found.shares.sum(0), 1)
    assert linear(coarse, fine, 360.0).pixels.shape == (2, 86400)
    assert closest(fine, coarse, 360.0).pixels.shape == (1, 360)


def test_share_of_values_that_must_be_there() -> None:
    x = np.ones(GLOBE.shape)
    x[:, 0, 0] = np.nan
    target = {"lat": [60.5, 38.5], "lon": [10.0, 50.0]}
    strict = climate.regrid(**target)(x, grid=GLOBE)
    loose = climate.regrid(**target, valid=0.5)(x, grid=GLOBE)
    assert np.isnan(strict[:, 0, 0]).all()
    assert np.isnan(strict).sum() == len(x)
    np.testing.assert_array_equal(loose, 1.0)


def test_prediction_comes_back_on_the_grid_of_the_file(samples: Path, tmp_path: Path) -> None:
    whole = sg.open_netcdf("uwnd")(samples / WIND)
    step = climate.regrid(np.linspace(-90, 90, 181), np.arange(0, 360, 1.25))
    chain = (
        sg.files([samples / WIND], key="u")
        .key_transform("u", sg.open_netcdf("uwnd"))
        .key_transform("u", step)
        .key_transform("u", sg.patch(64, stride=48))
    )
    (scene,) = chain.batch(4).predict(np.asarray, key="u")
    assert scene.grid == whole.grid
    with xr.open_dataset(scene.save(tmp_path / "back.nc")) as saved:
        found = saved["uwnd"].values
    assert np.isfinite(found).all()
    exact = np.s_[:, ::2, :]  # every other latitude of the file is one of the new ones
    np.testing.assert_allclose(found[exact], whole.array[exact], rtol=1e-5, atol=1e-5)
    assert np.abs(found - whole.array).mean() < 0.3


def test_geographic_raster_becomes_coordinates(samples: Path, tmp_path: Path) -> None:
    scene = sg.open_geotiff()(samples / "remote_sensing/rmnp-dem.tif")
    left, bottom, right, top = scene.grid.bounds
    lat, lon = np.linspace(top - 0.01, bottom + 0.01, 30), np.linspace(left + 0.01, right - 0.01, 40)
    step = climate.regrid(lat, lon)
    grid = step.grid_after(scene.grid)
    found = step(scene.array, grid=scene.grid)
    data = scene.to_xarray().interp(y=lat, x=lon)
    both = np.isfinite(found) & np.isfinite(data.values)
    assert both.mean() > 0.8
    np.testing.assert_allclose(found[both], data.values[both], rtol=1e-5)
    assert grid.crs is not None
    assert grid.crs.is_geographic


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: climate.regrid([0, 1], [0, 1], "cubic"), StepError, "method='cubic' must be"),
        (lambda: climate.regrid([0, 1], [0, 1], valid=0), StepError, "valid=0 must be a share"),
        (lambda: climate.regrid([0, 1, 0], [0, 1]), StepError, "rises or falls steadily"),
        (lambda: climate.regrid("north", [0, 1]), StepError, "holds no numbers"),
        (lambda: climate.regrid([0, 91], [0, 1]), StepError, "lat reaches 91"),
        (lambda: climate.regrid([0, 1], [0, 1]).grid_after(PLANE), GridError, "no latitude and longitude"),
        (
            lambda: climate.regrid([0, 1], [0, 1])(np.ones((5, 3, 3)), grid=GLOBE),
            StepError,
            "where the grid has",
        ),
        (
            lambda: climate.regrid([0, 1], [0, 1])(
                np.ones((1, 3)), grid=globe(np.ones((1, 3)), np.ones(1), np.arange(3.0))
            ),
            GridError,
            "1 latitudes and 3 longitudes",
        ),
    ],
)
def test_errors(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()  # type: ignore[operator]
