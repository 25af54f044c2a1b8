"""Geoscience steps against xarray and scipy, on real files where they have what it takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import streamgeo as sg
from streamgeo import climate, made
from streamgeo.errors import GridError, OpenError, StepError
from streamgeo.grid import Grid
from streamgeo.locate import Coord, CoordLocator
from streamgeo.window import Window
from tests.laws import GLOBE, PLANE

xr = pytest.importorskip("xarray")
pd = pytest.importorskip("pandas")
pytest.importorskip("scipy")

WIND = "geoscience/uwnd_mean.nc"  # 12 months, 73 latitudes from north to south, longitudes 0 to 357.5


@pytest.fixture
def sea(tmp_path: Path) -> list[Path]:
    """Two years of made sea surface temperature, 360-day calendar, latitude descending, 0..360, land as NaN."""
    return made.sea(tmp_path / "sea", count=2, shape=(30, 48))


def opened(path: Path, name: str) -> object:
    coder = xr.coders.CFDatetimeCoder(use_cftime=True)
    return xr.open_dataset(path, decode_times=coder)[name].astype("f4")


def globe(values: np.ndarray, lat: np.ndarray, lon: np.ndarray) -> Grid:
    coords = (
        Coord("lat", ("lat",), lat, {"units": "degrees_north"}),
        Coord("lon", ("lon",), lon, {"units": "degrees_east"}),
    )
    dims = ("time", "lat", "lon")[3 - values.ndim :]
    return Grid.of(dims, values.shape, CoordLocator(coords, ("lat", "lon")))


# -- time -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "name"),
    [
        (WIND, "uwnd"),
        ("geoscience/A1B_north_america.nc", "air_temperature"),
        ("geoscience/ostia_monthly.nc", "surface_temperature"),
        ("geoscience/PLANET_SCOPE_3D.nc", "blue"),
        ("geoscience/nemo/nemo_1m_20150101-20150201_grid-T.nc", "tos"),
    ],
)
def test_times_of_real_files_as_xarray_decodes_them(samples: Path, file: str, name: str) -> None:
    scene = sg.open_netcdf(name)(samples / file)
    found = climate.times(scene)
    data = opened(samples / file, name)
    coord = next(
        c for n, c in data.coords.items() if n == "time" or "time" in c.attrs.get("standard_name", "")
    )
    expected = coord.values
    assert found.shape == np.shape(expected)
    assert [t.isoformat() for t in found.ravel()] == [t.isoformat() for t in np.ravel(expected)]


def test_times_follow_the_window(sea: list[Path]) -> None:
    scene = sg.open_netcdf("sst")(sea[0])
    dates = climate.times(scene.grid.crop(Window(time=(3, 5))))
    assert [(d.year, d.month, d.day, d.calendar) for d in dates] == [
        (2000, 4, 16, "360_day"),
        (2000, 5, 16, "360_day"),
    ]


@pytest.mark.parametrize("attrs", [{}, {"_FillValue": -999.0}])
def test_times_that_are_missing_are_no_times(attrs: dict[str, float]) -> None:
    values = np.array([0.0, np.nan if not attrs else -999.0, 31.0])
    coord = Coord("time", ("time",), values, {"units": "days since 2000-01-01", **attrs})
    grid = Grid.of(("time",), (3,), CoordLocator((coord,), ("time",)))
    with pytest.raises(
        GridError, match=r"climate.times: 1 of 3 times of 'time' are missing \(the first is number 1\)"
    ):
        climate.times(grid)
    assert [date.month for date in climate.times(grid.crop(Window({"time": (2, 3)})))] == [2]


def test_times_errors() -> None:
    with pytest.raises(GridError, match="has no time coordinate"):
        climate.times(PLANE)
    bad = Coord("time", ("time",), np.arange(3.0), {"units": "fortnights since spring"})
    with pytest.raises(GridError, match="'time' in 'fortnights since spring'"):
        climate.times(Grid.of(("time",), (3,), CoordLocator((bad,))))


# -- region and period ----------------------------------------------------------------------------------


def region_by_xarray(data: object, lon: tuple[float, float], lat: tuple[float, float]) -> object:
    west, east = lon
    data = data.assign_coords(lon=west + (data.lon - west) % 360).sortby("lon")
    return data.sel(lon=slice(west, east), lat=slice(lat[1], lat[0]))


@pytest.mark.parametrize(
    "lon", [(-30.0, 40.0), (330.0, 400.0), (10.0, 60.0), (-180.0, 179.9), (170.0, -160.0)]
)
def test_region_of_a_real_file_against_xarray(
    samples: Path, tmp_path: Path, lon: tuple[float, float]
) -> None:
    data = opened(samples / WIND, "uwnd").rename(longitude="lon", latitude="lat")
    chain = (
        sg.files([samples / WIND], key="u")
        .key_transform("u", sg.open_netcdf("uwnd"))
        .key_transform("u", climate.subset(lon=lon, lat=(-20, 45)))
        .key_transform("u", sg.patch(size=8, stride=5))
    )
    assert "not pushed down" not in chain.explain()
    east = lon[1] if lon[1] > lon[0] else lon[1] + 360
    expected = region_by_xarray(data, (lon[0], east), (-20, 45))
    (scene,) = chain.batch(7).prefetch(2, 2).predict(np.asarray, key="u", inverse=[])
    np.testing.assert_array_equal(scene.array, expected.values)
    saved = xr.open_dataset(scene.save(tmp_path / "region.nc"))
    name = next(n for n in saved.data_vars if "uwnd" in n)
    np.testing.assert_array_equal(saved[name].values, expected.values)
    np.testing.assert_allclose(saved.latitude, expected.lat)
    np.testing.assert_allclose(np.mod(saved.longitude, 360), np.mod(expected.lon, 360))
    assert np.all(np.diff(saved.longitude) > 0)


def test_region_goes_back_into_the_whole_file(samples: Path) -> None:
    whole = sg.open_netcdf("uwnd")(samples / WIND)
    chain = (
        sg.files([samples / WIND], key="u")
        .key_transform("u", sg.open_netcdf("uwnd"))
        .key_transform("u", climate.subset(lon=(-30, 40), lat=(-20, 45)))
        .key_transform("u", sg.patch(size=8, stride=8))
    )
    (scene,) = chain.batch(4).predict(np.asarray, key="u")
    assert scene.grid == whole.grid
    found, values = scene.array, whole.array
    kept = np.isfinite(found)
    assert 0 < kept.sum() < kept.size
    np.testing.assert_array_equal(found[kept], values[kept])


@pytest.mark.parametrize(
    ("time", "months"),
    [
        (("2000-03", "2000-05"), [2, 3, 4]),
        (("2000-03-16", "2000-03-16"), [2]),
        ((None, "2000-02-29"), [0, 1]),
        (("2000-11-30T12:00", None), [11]),
        (("1999", "2000"), list(range(12))),
    ],
)
def test_period_in_a_calendar_of_360_days(sea: list[Path], time: tuple[str, str], months: list[int]) -> None:
    scene = sg.open_netcdf("sst")(sea[0])
    step = climate.subset(time=time)
    np.testing.assert_array_equal(step(scene.array, grid=scene.grid), scene.array[months])
    assert [d.month - 1 for d in climate.times(step.grid_after(scene.grid))] == months


def test_period_as_xarray_takes_it(sea: list[Path]) -> None:
    found = climate.subset(time=("2000-03", "2000-08-10"))
    scene = sg.open_netcdf("sst")(sea[0])
    expected = opened(sea[0], "sst").sel(time=slice("2000-03", "2000-08-10"))
    np.testing.assert_array_equal(found(scene.array, grid=scene.grid), expected.values)


def test_curvilinear_region_is_the_smallest_box(samples: Path) -> None:
    scene = sg.open_netcdf("tos")(samples / "geoscience/nemo/nemo_1m_20150101-20150201_grid-T.nc")
    step = climate.subset(lon=(-40, 10), lat=(30, 60))
    after = step.grid_after(scene.grid)
    lat, lon = (sg.open_netcdf(n)(scene.files[0]).array for n in ("nav_lat", "nav_lon"))
    inside = (lat >= 30) & (lat <= 60) & (lon >= -40) & (lon <= 10)
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    assert after.shape[-2:] == (np.ptp(rows) + 1, np.ptp(columns) + 1)
    expected = scene.array[..., rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    np.testing.assert_array_equal(step(scene.array, grid=scene.grid), expected)


def test_region_of_finer_pixels_goes_back() -> None:
    step = climate.subset(lon=(-50, 50), lat=(0, 60))
    x = np.arange(np.prod(GLOBE.shape), dtype=float).reshape(GLOBE.shape)
    y = step(x, grid=GLOBE).repeat(2, 1).repeat(2, 2)
    back = step.undo(y, grid=GLOBE.coarsen(lat=0.5, lon=0.5))
    expected = step.undo(step(x, grid=GLOBE), grid=GLOBE).repeat(2, 1).repeat(2, 2)
    np.testing.assert_array_equal(back, expected)


@pytest.mark.parametrize("lon", [(-180, 180), (-90, 90)])
def test_climatology_does_not_fit_what_was_turned(sea: list[Path], lon: tuple[float, float]) -> None:
    scenes = sg.files(sea, key="sst").key_transform("sst", sg.open_netcdf("sst"))
    step = climate.fit_climatology(scenes, "sst").anomaly()
    after = scenes.key_transform("sst", climate.subset(lon=lon)).key_transform("sst", step)
    with pytest.raises(sg.SampleError, match="put climate.anomaly before a climate.subset"):
        after.scene("sst").read()
    before = scenes.key_transform("sst", step).key_transform("sst", climate.subset(lon=lon))
    whole = scenes.key_transform("sst", step).scene("sst")
    found = before.scene("sst")
    np.testing.assert_array_equal(found.array, climate.subset(lon=lon)(whole.array, grid=whole.grid))
    values = next(c for c in found.grid.coords if c.name == "lon").values
    np.testing.assert_allclose(values, np.arange(lon[0], lon[1] + (lon[1] - lon[0] < 360), 7.5))


def test_seam_with_a_gap_is_an_error() -> None:
    lon = np.arange(20.0, 350.0, 10.0)
    grid = globe(np.zeros((3, lon.size)), np.array([0.0, 1.0, 2.0]), lon)
    with pytest.raises(StepError, match="across a gap of 40 degrees"):
        climate.subset(lon=(-30, 30)).grid_after(grid)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: climate.subset(), StepError, "give lon, lat, time"),
        (lambda: climate.subset(lat=(50, 40)), StepError, r"must be \(south, north\)"),
        (lambda: climate.subset(lat=(0, 91)), StepError, "from -90 to 90"),
        (lambda: climate.subset(depth=(5, 1)), StepError, r"must be \(low, high\)"),
        (lambda: climate.subset(lon="west"), StepError, "two numbers"),
        (lambda: climate.subset(lon=(0, np.inf)), StepError, "must be finite"),
        (lambda: climate.subset(time="2001"), StepError, r"must be \(first, last\)"),
        (lambda: climate.subset(time=("May", "June")), StepError, "'May' is no date"),
        (lambda: climate.subset(time=("2002", "2001")), StepError, "ends before it begins"),
        (
            lambda: climate.subset(lat=(80, 89)).grid_after(GLOBE),
            StepError,
            r"no pixel .* \(lat is -55 to 66 here",
        ),
        (lambda: climate.subset(lat=(0, 1)).grid_after(PLANE), GridError, "no latitude and longitude"),
        (lambda: climate.subset(time=("2001", None)).grid_after(PLANE), GridError, "no dim with a time"),
        (lambda: climate.subset(time=("1900", "1901")).grid_after(GLOBE), StepError, "time is 2001-1-10 to"),
        (lambda: climate.subset(depth=(0, 1)).grid_after(GLOBE), GridError, "no coordinate vector 'depth'"),
        (lambda: climate.subset(lat=(0, 9)).undo(np.ones((2, 2)), grid=GLOBE), StepError, "has not the dims"),
        (
            lambda: climate.subset(lat=(0, 9)).undo(np.ones((5, 7, 18)), grid=GLOBE),
            StepError,
            "is not the region",
        ),
        (lambda: climate.cyclic(0), StepError, "width=0 must be a whole number"),
        (lambda: climate.cyclic(19).grid_after(GLOBE), StepError, "width 19 exceeds lon=18"),
        (lambda: climate.cyclic(1, "x")(np.ones((2, 2))), StepError, "not 'x'"),
        (lambda: climate.cyclic(1).grid_after(GLOBE.crop(Window(lon=(0, 9)))), StepError, "do not go round"),
        (lambda: climate.fill_gaps("magic"), StepError, "method='magic' must be"),
        (lambda: climate.fill_gaps(limit=0), StepError, "limit=0 must be above 0"),
        (lambda: climate.fill_time()(np.ones((2, 2))), StepError, "not 'time'"),
        (lambda: climate.fill_time()(np.ones((12, 17)), grid=PLANE), StepError, "have no time"),
        (lambda: climate.detrend("z")(np.ones((12, 17)), grid=PLANE), StepError, "no dim 'z'"),
        (lambda: climate.fft(())(np.ones(3)), StepError, "must name a dim"),
        (lambda: climate.fft()(np.ones(3)), StepError, "say which dims"),
        (lambda: climate.fft(0)(np.ones(3) * 1j), StepError, "complex"),
        (lambda: climate.fft(0).undo(np.ones((3, 4))), StepError, "no real and imaginary part"),
        (lambda: climate.geostrophic(equator=91), StepError, "equator=91.0 must be from 0 to 90"),
        (
            lambda: climate.geostrophic()(np.ones((12, 17)), grid=PLANE),
            GridError,
            "no latitude and longitude",
        ),
        (lambda: climate.anomaly(1.0, by="week"), StepError, "by='week' must be one of"),
        (lambda: climate.anomaly(np.ones((3, 4)), by="month"), StepError, "must have 12 in its first dim"),
        (lambda: climate.anomaly(np.ones(12), by="month")(np.ones(3)), StepError, "needs the times"),
        (lambda: climate.anomaly("none.npz"), OpenError, "none.npz is no climatology"),
        (lambda: climate.anomaly("none.npz", by="month"), StepError, "knows its groups"),
        (lambda: climate.anomaly(1.0, std=True), StepError, "std=True goes with the path"),
        (lambda: climate.fit_climatology([]), StepError, "no scene to fit to"),
        (lambda: climate.fit_climatology([], by="week"), StepError, "by='week'"),
        (lambda: climate.load_climatology("none.npz"), OpenError, "is no climatology"),
    ],
)
def test_errors(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()  # type: ignore[operator]


# -- climatologies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["month", "dayofyear"])
def test_climatology_against_xarray(sea: list[Path], by: str) -> None:
    chain = sg.files(sea, key="sst").key_transform("sst", sg.open_netcdf("sst"))
    found = climate.fit_climatology(chain, "sst", by=by)
    data = xr.concat([opened(p, "sst").astype("f8") for p in sea], "time")
    mean, std = data.groupby(f"time.{by}").mean(), data.groupby(f"time.{by}").std()
    groups = mean[by].values - 1
    np.testing.assert_allclose(found.mean[groups], mean.values, rtol=1e-9)
    np.testing.assert_allclose(found.std[groups], np.where(std > 0, std, np.nan), rtol=1e-7)
    rest = np.setdiff1d(np.arange(len(found.mean)), groups)
    assert np.isnan(found.mean[rest]).all()
    assert not found.count[rest].any()


def daily(folder: Path, name: str, year: int, calendar: str) -> Path:
    """A year of days, whose value is the number of the day."""
    import netCDF4

    path = folder / f"{name}.nc"
    with netCDF4.Dataset(path, "w") as file:
        for dim, size in (("time", None), ("lat", 2), ("lon", 3)):
            file.createDimension(dim, size)
        time = file.createVariable("time", "f8", ("time",))
        time.setncatts({"units": f"days since {year}-01-01", "calendar": calendar})
        leap = calendar == "standard" and year % 4 == 0
        time[:] = np.arange(360 if calendar == "360_day" else 366 if leap else 365)
        values = file.createVariable("t", "f4", ("time", "lat", "lon"))
        values[:] = np.arange(time.size)[:, None, None] + np.zeros((2, 3))
    return path


def test_days_of_leap_years_and_of_other_calendars(tmp_path: Path) -> None:
    plain, leap = daily(tmp_path, "plain", 2003, "standard"), daily(tmp_path, "leap", 2004, "standard")
    chain = sg.files([plain, leap], key="t").key_transform("t", sg.open_netcdf("t"))
    normals = climate.fit_climatology(chain, "t", by="dayofyear")
    np.testing.assert_array_equal(normals.mean[:, 0, 0], np.arange(366))
    assert normals.count[:, 0, 0].tolist() == [2] * 365 + [1]
    normals.save(tmp_path / "normals.npz")
    for number in (0, 1):
        departure = chain.key_transform("t", climate.anomaly(str(tmp_path / "normals.npz"))).scene(
            "t", number
        )
        np.testing.assert_array_equal(departure.array, 0)
    short = climate.fit_climatology(chain.take(1), "t", by="dayofyear")
    assert np.isnan(short.mean[365]).all()  # 31 December of leap years only
    assert np.isfinite(short.mean[:365]).all()
    even = daily(tmp_path, "even", 2003, "360_day")
    others = sg.files([plain, even], key="t").key_transform("t", sg.open_netcdf("t"))
    with pytest.raises(
        StepError, match=r"even.nc counts days in a calendar of 360_day, and plain.nc in one of leap"
    ):
        climate.fit_climatology(others, "t", by="dayofyear")
    by_month = climate.fit_climatology(others, "t", by="month")
    assert by_month.count[:, 0, 0].tolist() == [61, 58, *[61, 60] * 2, 61, 61, 60, 61, 60, 61]


def test_climatology_over_all_times(sea: list[Path]) -> None:
    chain = sg.files(sea, key="sst").key_transform("sst", sg.open_netcdf("sst"))
    found = climate.fit_climatology(chain, "sst", by=None)
    data = xr.concat([opened(p, "sst").astype("f8") for p in sea], "time")
    np.testing.assert_allclose(found.mean, data.mean("time").values, rtol=1e-9)
    np.testing.assert_allclose(found.std, data.std("time").values, rtol=1e-7)


@pytest.mark.parametrize("standardise", [False, True])
def test_standardised_anomalies_from_a_saved_climatology(
    sea: list[Path], tmp_path: Path, standardise: bool
) -> None:
    scenes = sg.files(sea, key="sst").key_transform("sst", sg.open_netcdf("sst"))
    path = climate.fit_climatology(scenes, "sst").save(tmp_path / "normals")
    step = climate.load_climatology(path).anomaly(standardise=standardise)
    chain = scenes.key_transform("sst", step).key_transform("sst", sg.patch(16, stride=12))
    data = xr.concat([opened(p, "sst") for p in sea], "time")
    groups = data.groupby("time.month")
    expected = (groups - groups.mean()).drop_vars("month")
    if standardise:
        expected = (expected.groupby("time.month") / groups.std()).drop_vars("month")
    found = np.concatenate([s.array for s in chain.batch(5).predict(np.asarray, key="sst", inverse=[])])
    expected = expected.where(np.isfinite(expected))
    np.testing.assert_allclose(found, expected.values, rtol=1e-3, atol=1e-4)
    back = np.concatenate([s.array for s in chain.batch(5).predict(np.asarray, key="sst")])
    kept = np.isfinite(expected.values)  # two years that are equal have no standard deviation
    assert kept.sum() > 0.95 * np.isfinite(data.values).sum()
    np.testing.assert_allclose(back, data.where(kept).values, atol=1e-4)
    again = sg.step_from_json(step.to_json())
    assert again == step
    by_path = climate.anomaly(str(path), std=standardise)
    first = sg.open_netcdf("sst")(sea[0])
    np.testing.assert_array_equal(by_path(first.array, grid=first.grid), again(first.array, grid=first.grid))
    assert len(repr(by_path)) < 300
    assert sg.step_from_json(by_path.to_json()) == by_path


def test_climatology_of_other_shapes_is_an_error(sea: list[Path], tmp_path: Path) -> None:
    other = made.sea(tmp_path / "other", count=1, shape=(20, 48))
    chain = sg.files([sea[0], other[0]], key="sst").key_transform("sst", sg.open_netcdf("sst"))
    with pytest.raises(StepError, match="bring them to one grid first"):
        climate.fit_climatology(chain, "sst")


# -- gaps -----------------------------------------------------------------------------------------------


def holes(shape: tuple[int, ...], share: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape)
    values[rng.random(shape) < share] = np.nan
    return values


@pytest.mark.parametrize("ends", [False, True])
def test_fill_time_against_xarray(ends: bool) -> None:
    values = holes(GLOBE.shape, 0.4)
    values[:, 2, 3] = np.nan
    time = GLOBE.coords[0].values
    data = xr.DataArray(values, dims=GLOBE.dims, coords={"time": time})
    expected = data.interpolate_na("time", use_coordinate=True)
    expected = expected.values
    if ends:
        expected = pd.DataFrame(expected.reshape(5, -1)).ffill().bfill().values.reshape(GLOBE.shape)
    np.testing.assert_allclose(climate.fill_time(ends=ends)(values, grid=GLOBE), expected, rtol=1e-12)


def test_fill_time_in_patches_that_cut_time(sea: list[Path]) -> None:
    chain = (
        sg.files(sea, key="sst")
        .key_transform("sst", sg.open_netcdf("sst"))
        .key_transform("sst", climate.fill_time(restore=False))
        .key_transform("sst", sg.patch({"time": 4, "lat": 10, "lon": 16}))
    )
    assert "not pushed down" not in chain.explain()
    found = [scene.array for scene in chain.batch(6).predict(np.asarray, key="sst")]
    for path, values in zip(sea, found):
        np.testing.assert_array_equal(values, opened(path, "sst").interpolate_na("time").values)


def nearest_by_hand(plane: np.ndarray) -> np.ndarray:
    """Distance to the nearest pixel that is there, over the globe."""
    rows, columns = np.nonzero(~np.isnan(plane))
    out = np.zeros(plane.shape)
    for y, x in np.ndindex(plane.shape):
        apart = np.abs(columns - x)
        out[y, x] = np.sqrt((rows - y) ** 2 + np.minimum(apart, plane.shape[1] - apart) ** 2).min()
    return out


def test_nearest_is_at_the_least_distance_round_the_globe() -> None:
    values = holes(GLOBE.shape, 0.7)
    filled = climate.fill_gaps()(values, grid=GLOBE)
    assert np.isfinite(filled).all()
    for plane, before in zip(filled, values):
        distance = nearest_by_hand(before)
        for y, x in np.argwhere(np.isnan(before)):
            sources = np.argwhere(before == plane[y, x])
            assert len(sources)
            apart = np.abs(sources[:, 1] - x)
            found = np.hypot(sources[:, 0] - y, np.minimum(apart, 18 - apart)).min()
            assert found == pytest.approx(distance[y, x])


def test_limit_of_filling() -> None:
    values = holes(GLOBE.shape, 0.9)[:1]
    grid = GLOBE.crop(Window(time=(0, 1)))
    filled = climate.fill_gaps(limit=1.5)(values, grid=grid)
    np.testing.assert_array_equal(np.isfinite(filled[0]), nearest_by_hand(values[0]) <= 1.5)


@pytest.mark.parametrize("direct", [True, False])
def test_inpainting_restores_a_harmonic_surface(direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from streamgeo.climate import gaps

    monkeypatch.setattr(gaps, "_DIRECT", 40_000 if direct else 0)
    y, x = np.mgrid[:20, :24].astype(float)
    surface = x**2 - y**2 + 3 * x * y - 2 * x + 7  # the five-point Laplacian of it is 0
    hole = surface.copy()
    hole[4:15, 6:18] = np.nan
    np.testing.assert_allclose(climate.fill_gaps("inpaint")(hole), surface, atol=1e-3 if not direct else 1e-8)


def test_inpainting_goes_round_the_globe() -> None:
    lon = np.arange(18) * 20.0
    values = np.tile(np.cos(np.radians(lon)), (12, 1))
    hole = values.copy()
    hole[:, [17, 0]] = np.nan
    grid = globe(values, np.linspace(55, -55, 12), lon)
    filled = climate.fill_gaps("inpaint")(hole, grid=grid)
    a, b = values[0, 16], values[0, 1]
    np.testing.assert_allclose(filled[:, [17, 0]], [[a + (b - a) / 3, a + 2 * (b - a) / 3]] * 12)


def test_filled_for_good(sea: list[Path]) -> None:
    step = climate.fill_gaps(restore=False)
    scene = sg.open_netcdf("sst")(sea[0])
    filled = step(scene.array, grid=scene.grid)
    assert np.isnan(scene.array).any()
    assert np.isfinite(filled).all()
    np.testing.assert_array_equal(step.undo(filled), filled)
    assert step.lossy


def test_gaps_come_back_from_the_chain(sea: list[Path]) -> None:
    chain = (
        sg.files(sea, key="sst")
        .key_transform("sst", sg.open_netcdf("sst"))
        .key_transform("sst", climate.fill_gaps("inpaint"))
        .key_transform("sst", climate.cyclic(8))
        .key_transform("sst", sg.patch(16, stride=16))
    )
    for batch in chain.batch(4).prefetch(2, 2):
        assert np.isfinite(batch["sst"]).all()
    for path, scene in zip(sea, chain.batch(4).predict(np.asarray, key="sst")):
        np.testing.assert_array_equal(scene.array, opened(path, "sst").values)


# -- padding, trends, spectra ---------------------------------------------------------------------------


def test_cyclic_against_xarray(samples: Path) -> None:
    scene = sg.open_netcdf("uwnd")(samples / WIND)
    data = opened(samples / WIND, "uwnd")
    step = climate.cyclic(5)
    np.testing.assert_array_equal(
        step(scene.array, grid=scene.grid), data.pad(longitude=5, mode="wrap").values
    )
    after = step.grid_after(scene.grid)
    lon = next(c for c in after.coords if c.name == "longitude").values
    np.testing.assert_allclose(lon, np.arange(-5, 149) * 2.5)


def test_cyclic_of_finer_predictions() -> None:
    step = climate.cyclic(2)
    x = np.arange(np.prod(GLOBE.shape), dtype=float).reshape(GLOBE.shape)
    y = step(x, grid=GLOBE).repeat(3, 1).repeat(3, 2)
    back = step.undo(y, grid=GLOBE.coarsen(lat=1 / 3, lon=1 / 3))
    np.testing.assert_array_equal(back, x.repeat(3, 1).repeat(3, 2))


def test_detrend_against_xarray() -> None:
    values = holes(GLOBE.shape, 0.2) + GLOBE.coords[0].values.reshape(-1, 1, 1) * 0.03
    data = xr.DataArray(values, dims=GLOBE.dims, coords={"time": GLOBE.coords[0].values})
    fitted = xr.polyval(data.time, data.polyfit("time", 1, skipna=True).polyfit_coefficients)
    enough = np.isfinite(values).sum(0) >= 2
    found = climate.detrend()(values, grid=GLOBE)
    np.testing.assert_allclose(found[:, enough], (data - fitted).values[:, enough], atol=1e-9)


def test_detrend_of_a_real_file(samples: Path) -> None:
    from scipy.signal import detrend

    path = samples / "geoscience/A1B_north_america.nc"
    scene = sg.open_netcdf("air_temperature")(path)
    chain = (
        sg.files([path], key="t")
        .key_transform("t", sg.open_netcdf("air_temperature"))
        .key_transform("t", climate.detrend())
        .key_transform("t", sg.patch(16))
    )
    (found,) = chain.batch(4).predict(np.asarray, key="t", inverse=[])
    steady = np.allclose(np.diff(scene.grid.coords[0].values), np.diff(scene.grid.coords[0].values)[0])
    assert steady
    np.testing.assert_allclose(found.array, detrend(scene.array.astype("f8"), axis=0), atol=2e-4)
    (back,) = chain.batch(4).predict(np.asarray, key="t")
    np.testing.assert_allclose(back.array, scene.array, rtol=1e-6)


@pytest.mark.parametrize("dims", ["time", ("lat", "lon"), ("time", "lat", "lon")])
@pytest.mark.parametrize("shift", [False, True])
def test_fft_against_scipy(dims: str | tuple[str, ...], shift: bool) -> None:
    import scipy.fft

    x = np.random.default_rng(0).normal(size=GLOBE.shape)
    axes = [GLOBE.dims.index(dim) for dim in ((dims,) if isinstance(dims, str) else dims)]
    expected = scipy.fft.fftn(x, axes=axes, norm="ortho")
    expected = scipy.fft.fftshift(expected, axes) if shift else expected
    y = climate.fft(dims, shift=shift)(x, grid=GLOBE)
    np.testing.assert_allclose(y[0] + 1j * y[1], expected, atol=1e-12)
    assert (y**2).sum() == pytest.approx((x**2).sum())  # Parseval


def test_fft_leaves_land_alone() -> None:
    x = np.random.default_rng(0).normal(size=GLOBE.shape)
    x[:, 2:5, 7] = np.nan  # land, at all times
    y = climate.fft("time")(x, grid=GLOBE)
    assert np.isnan(y[:, :, 2:5, 7]).all()
    assert np.isnan(y).sum() == 2 * np.isnan(x).sum()
    np.testing.assert_allclose(climate.fft("time").undo(y, grid=GLOBE), x, atol=1e-12)
    x[1, 9, 9] = np.nan
    with pytest.raises(StepError, match=r"climate.fft: 1 of 1080 values are NaN beside others.*fill_nan"):
        climate.fft("time")(x, grid=GLOBE)
    with pytest.raises(StepError, match="climate.fft: 16 of 1080 values"):
        climate.fft(("lat", "lon"))(x, grid=GLOBE)
    x[1] = np.nan  # a month without data
    with pytest.raises(StepError, match="climate.fft: 12 of 1080"):
        climate.fft(("lat", "lon"))(x, grid=GLOBE)


def test_low_pass_over_time_in_a_chain(sea: list[Path]) -> None:
    chain = (
        sg.files(sea[:1], key="sst")
        .key_transform("sst", sg.open_netcdf("sst"))
        .key_transform("sst", climate.fill_gaps())
        .key_transform("sst", climate.fft("time"))
        .key_transform("sst", sg.patch(10))
    )

    def mean_only(y: np.ndarray) -> np.ndarray:
        y = y.copy()
        y[:, :, 1:] = 0
        return y

    (scene,) = chain.batch(3).predict(mean_only, key="sst")
    data = opened(sea[0], "sst")
    expected = data.mean("time").broadcast_like(data).where(data.notnull())
    np.testing.assert_allclose(scene.array, expected.values, atol=1e-5)


# -- velocity -------------------------------------------------------------------------------------------


def test_slope_of_one_metre_in_a_hundred_kilometres() -> None:
    # At 45 degrees north that is g / f times 1e-5: 9.81 / 1.0313e-4 x 1e-5 = 0.951 m/s
    lat, lon = np.array([44.0, 45.0, 46.0]), np.array([10.0, 11.0, 12.0])
    metres = np.radians(lat - 45) * 6371000.0
    level = np.tile((metres * 1e-5)[:, None], (1, 3))
    u, v = climate.geostrophic()(level, grid=globe(level, lat, lon))
    assert u[1, 1] == pytest.approx(-0.951, abs=1e-3)
    assert v[1, 1] == pytest.approx(0.0, abs=1e-12)
    east = np.tile(np.radians(lon - 11) * 6371000.0 * np.cos(np.pi / 4) * 1e-5, (3, 1))
    u, v = climate.geostrophic()(east, grid=globe(east, lat, lon))
    assert v[1, 1] == pytest.approx(0.951, abs=1e-3)


@pytest.mark.parametrize("down", [False, True])
def test_velocity_against_xarray(down: bool) -> None:
    rng = np.random.default_rng(3)
    lat, lon = np.linspace(20, 50, 16), np.linspace(200, 240, 21)
    lat = lat[::-1] if down else lat
    level = rng.normal(size=(16, 21))
    data = xr.DataArray(level, dims=("lat", "lon"), coords={"lat": lat, "lon": lon})
    f = 2 * 7.2921e-5 * np.sin(np.radians(data.lat))
    degree = np.radians(1) * 6371000.0
    u = -9.81 / f * data.differentiate("lat") / degree
    v = 9.81 / f * data.differentiate("lon") / degree / np.cos(np.radians(data.lat))
    found = climate.geostrophic()(level, grid=globe(level, lat, lon))
    inner = np.s_[1:-1, 1:-1]
    np.testing.assert_allclose(found[0][inner], u.values[inner], rtol=1e-9)
    np.testing.assert_allclose(found[1][inner], v.values[inner], rtol=1e-9)


def test_velocity_goes_round_the_globe() -> None:
    lon = np.arange(36) * 10.0
    lat = np.array([30.0, 40.0, 50.0])
    level = np.tile(np.sin(np.radians(lon)), (3, 1))
    v = climate.geostrophic()(level, grid=globe(level, lat, lon))[1]
    turned = climate.geostrophic()(np.roll(level, 7, 1), grid=globe(level, lat, lon))[1]
    np.testing.assert_allclose(turned, np.roll(v, 7, 1), rtol=1e-9, atol=1e-12)


def test_no_velocity_at_the_equator_and_at_the_poles() -> None:
    lat, lon = np.linspace(-90, 90, 37), np.arange(36) * 10.0
    level = np.random.default_rng(0).normal(size=(37, 36))
    found = climate.geostrophic(equator=0)(level, grid=globe(level, lat, lon))
    none = np.isin(lat, [-90, 0, 90])
    assert np.isnan(found[:, none]).all()
    assert np.isfinite(found[:, ~none]).all()
    assert np.abs(found).max(initial=0, where=np.isfinite(found)) < 100


# -- longitudes that begin anew within the file ---------------------------------------------------------


@pytest.mark.parametrize("start", [350.0, -10.0])
def test_longitudes_that_begin_anew(start: float) -> None:
    """A region across Greenwich in 0..360, or one in -180..180: the same numbers, whatever the file calls them."""
    lat, lon = np.arange(10.0, 50, 5), start + np.arange(0, 30, 2.5)
    level = np.random.default_rng(0).normal(size=(8, 12))
    plain, jumped = globe(level, lat, lon), globe(level, lat, np.mod(lon, 360))
    steps = [climate.geostrophic(), climate.subset(lon=(-5, 4))]
    steps += [
        climate.regrid(np.arange(15.0, 40, 5), np.arange(-5.0, 15, 5), method)  # type: ignore[arg-type]
        for method in ("bilinear", "nearest", "conservative")
    ]
    for step in steps:
        expected = step(level, grid=plain)
        assert np.isfinite(expected).any()
        np.testing.assert_allclose(step(level, grid=jumped), expected, rtol=1e-12)
        if step.inverse is not None:
            np.testing.assert_allclose(
                step.undo(expected, grid=jumped), step.undo(expected, grid=plain), rtol=1e-12
            )
    far = climate.regrid([20.0, 25.0], [100.0, 110.0])(level, grid=jumped)
    assert np.isnan(far).all()  # and not between 18 and 350 degrees


def test_a_globe_that_begins_at_180_goes_round() -> None:
    lat, lon = np.array([0.0, 10.0]), np.mod(180 + np.arange(36) * 10.0, 360)
    level = np.random.default_rng(0).normal(size=(2, 36))
    grid = globe(level, lat, lon)
    np.testing.assert_array_equal(climate.cyclic(2)(level, grid=grid)[:, :2], level[:, -2:])
    turned = climate.subset(lon=(-180, 180))
    np.testing.assert_array_equal(turned(level, grid=grid), level)
