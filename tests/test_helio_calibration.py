from __future__ import annotations

import warnings
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable, Table
from astropy.time import Time
from astropy.wcs import WCS

import streamgeo as sg
from streamgeo.errors import SampleError, StepError
from streamgeo.grid import Grid
from streamgeo.helio.disc import ARCSEC, mu
from streamgeo.locate import WcsLocator
from tests.laws import POINTED, SUN, SUN_HEADER

AIA = "AIA20110319_105400_0171.fits"

# -- degradation ----------------------------------------------------------------------------------------


def response_table() -> str:
    """The table of SolarSoft that aiapy brings for its own tests."""
    spec = find_spec("aiapy")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("aiapy is not installed")
    found = sorted(Path(spec.submodule_search_locations[0]).rglob("aia_V8_*_response_table.txt"))
    if not found:
        pytest.skip("this aiapy brings no response table")
    return str(found[0])


@pytest.mark.parametrize(
    ("channel", "date"), [(171, "2011-03-19T10:54:00"), (304, "2015-06-01"), (94, "2016-01-01")]
)
def test_degradation_as_aiapy_has_it(channel: int, date: str) -> None:
    path = response_table()
    calibrate = import_module("aiapy.calibrate")
    name = "utils" if find_spec("aiapy.calibrate.utils") else "util"
    table = import_module(f"aiapy.calibrate.{name}").get_correction_table(path)
    assert set(table["VER_NUM"]) == {8}
    which = "calibration_version" in signature(calibrate.degradation).parameters
    options = {"calibration_version": 8} if which else {}
    theirs = calibrate.degradation(channel * u.AA, Time(date), correction_table=table, **options)
    attrs = {"T_OBS": f"{date}Z", "WAVELNTH": channel}
    step = sg.helio.degradation(path)
    y = step(np.array([10.0, np.nan], np.float32), attrs=attrs)
    assert abs(y[0] / (10 / float(theirs[0])) - 1) < 1e-6
    assert theirs[0] < 1
    assert np.isnan(y[1])
    np.testing.assert_allclose(step.undo(y, attrs=attrs)[0], 10, rtol=1e-6)
    given = sg.helio.degradation(path, channel / 10 * u.nm, version=8)
    assert given(np.ones(1), attrs={"DATE-OBS": date}).item() == pytest.approx(
        1 / float(theirs[0]), rel=1e-12
    )
    assert sg.step_from_json(given.to_json()) == given


def test_degradation_by_date() -> None:
    step = sg.helio.degradation({"2020-01-01": 0.4, "2010-01-01": 1.0})
    middle = Time("2010-01-01") + (Time("2020-01-01") - Time("2010-01-01")) / 4
    for date, left in (("2010-01-01", 1.0), (middle.isot, 0.85), ("2020-01-01", 0.4)):
        assert step(np.ones(1), attrs={"DATE-OBS": date}).item() == pytest.approx(1 / left, rel=1e-9)
    assert step(np.ones(2, np.int16), attrs={"T_OBS": "2010.01.01_00:00:34_TAI"}).dtype == np.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sg.helio.degradation({}), "must be sensitivities by date, or the path"),
        (
            lambda: sg.helio.degradation({"2010-01-01": 0.0}),
            "the sensitivity at 2010-01-01 is 0; it must be above 0",
        ),
        (lambda: sg.helio.degradation({"2010-01-01": 1.0}, 171), "go with a response table"),
        (lambda: sg.helio.degradation("a.txt", 3 * u.K), "cannot be given in Angstrom"),
        (lambda: _run(sg.helio.degradation({"2010-01-01": 1.0}), {}), "the header has no date"),
        (lambda: _run(sg.helio.degradation({"soon": 1.0}), {"T_OBS": "2010-01-01"}), "'soon' is not a date"),
        (
            lambda: _run(sg.helio.degradation({"2010-01-01": 1, "2011-01-01": 1}), {"T_OBS": "2012-01-01"}),
            "2012-01-01T00:00:00.000 is not within the table, which is from 2010-01-01 to 2011-01-01",
        ),
        (lambda: _run(sg.helio.degradation("nowhere.txt"), {"T_OBS": "2010-01-01"}), "has no WAVELNTH"),
    ],
)
def test_degradation_refuses(make: Any, message: str) -> None:
    with pytest.raises(StepError, match=f"helio.degradation.*{message}"):
        make()


def test_response_tables_that_do_not_serve() -> None:
    path = response_table()
    attrs = {"T_OBS": "2011-01-01", "WAVELNTH": 171}
    with pytest.raises(StepError, match="the response table 'nowhere.txt' cannot be read"):
        _run(sg.helio.degradation("nowhere.txt"), attrs)
    with pytest.raises(StepError, match="no sensitivity at 172 Angstrom"):
        _run(sg.helio.degradation(path, 172), attrs)
    with pytest.raises(StepError, match=r"no sensitivity at 171 Angstrom on 1999"):
        _run(sg.helio.degradation(path), attrs | {"T_OBS": "1999-01-01"})


def _run(step: sg.Step, attrs: dict[str, Any]) -> Any:
    return step(np.ones(1), attrs=attrs)


# -- pointing -------------------------------------------------------------------------------------------

FRAME = {
    "CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN", "CUNIT1": "arcsec", "CUNIT2": "arcsec", "CRPIX1": 33.5, "CRPIX2": 30.5,
    "CRVAL1": 0.0, "CRVAL2": 0.0, "CDELT1": 0.6, "CDELT2": 0.6, "CROTA2": 0.05, "RSUN_OBS": 960.0, "X0_MP": 31.0,
    "Y0_MP": 29.0, "IMSCL_MP": 0.599489, "INSTROT": 0.0193, "SAT_ROT": -0.000019, "WAVELNTH": 171,
    "WAVEUNIT": "angstrom", "T_OBS": "2020-01-01T00:30:00.00Z", "DATE-OBS": "2020-01-01T00:29:59.00",
    "TELESCOP": "SDO/AIA", "INSTRUME": "AIA_3", "DSUN_OBS": 1.48e11, "HGLN_OBS": 0.0, "HGLT_OBS": 0.0, "EXPTIME": 2.0,
    "LVL_NUM": 1.0, "R_SUN": 1600.0,
}  # fmt: skip
TABLE: dict[str, list[Any]] = {
    "T_START": ["2019-12-31T21:00:00", "2020-01-01T00:00:00"], "T_STOP": ["2020-01-01T00:00:00", "2020-01-01T03:00:00"],
    "A_171_X0": [30.2, 31.8], "A_171_Y0": [29.5, 28.4], "A_171_IMSCALE": [0.6, 0.5995], "A_171_INSTROT": [0.02, 0.021],
}  # fmt: skip


@pytest.fixture
def frame(tmp_path: Path) -> Path:
    header = fits.Header()
    header.update(FRAME)
    fits.PrimaryHDU(np.arange(64.0 * 64, dtype=np.float32).reshape(64, 64), header).writeto(
        tmp_path / "a.fits"
    )
    return tmp_path / "a.fits"


def test_pointing_by_the_file_itself(frame: Path) -> None:
    scene = sg.open_fits()(frame)
    after = sg.helio.pointing().grid_after(scene.grid)
    wcs = after.wcs.wcs
    np.testing.assert_allclose(wcs.crpix, [32.0, 30.0])
    np.testing.assert_allclose(np.array(wcs.cdelt) * 3600, 0.599489, rtol=1e-12)
    angle = np.degrees(np.arctan2(wcs.get_pc()[1, 0], wcs.get_pc()[0, 0]))
    turn = FRAME["CROTA2"] * 0 + 0.0193 - 0.000019
    header = fits.Header.fromstring(after.locator.header)  # type: ignore[union-attr]
    assert header["CROTA2"] == pytest.approx(turn)
    expected = WCS(fits.Header(FRAME | {"CRPIX1": 32.0, "CRPIX2": 30.0, "CDELT1": 0.599489, "CDELT2": 0.599489,
                                        "CROTA2": turn}))  # fmt: skip
    here = after.pixel_to_world(y=[0, 63, 10], x=[0, 5, 63])
    lon, lat = expected.all_pix2world([0, 5, 63], [0, 63, 10], 0)
    np.testing.assert_allclose(here["HPLN"], lon, atol=1e-10)
    np.testing.assert_allclose(here["HPLT"], lat, atol=1e-10)
    assert abs(angle) < 1


@pytest.mark.parametrize("size", [64, 4096])
def test_pointing_as_aiapy_updates_it(frame: Path, size: int) -> None:
    calibrate, sunpy_map = pytest.importorskip("aiapy.calibrate"), pytest.importorskip("sunpy.map")
    if "calibration_version" not in signature(calibrate.degradation).parameters and size != 4096:
        pytest.skip("this aiapy takes full frames only")
    if size == 4096:  # where X0_MP counts from 0, so that both rules of aiapy agree
        header = fits.Header()
        header.update(FRAME | {"CRPIX1": 2048.5, "CRPIX2": 2045.5, "X0_MP": 2047.5, "Y0_MP": 2044.5})
        fits.PrimaryHDU(np.zeros((size, size), np.int16), header).writeto(frame, overwrite=True)
    units = {"X0": u.pix, "Y0": u.pix, "IMSCALE": u.arcsec / u.pix, "INSTROT": u.deg}
    columns = {name: Time(values) for name, values in TABLE.items() if name.startswith("T_")}
    columns |= {name: TABLE[name] * units[name.rsplit("_", 1)[1]] for name in TABLE if name.startswith("A_")}
    table = QTable(columns)
    theirs = calibrate.update_pointing(sunpy_map.Map(frame), pointing_table=table)
    plain = sg.helio.pointing_table(table)
    assert sg.helio.pointing(plain) == sg.step_from_json(sg.helio.pointing(plain).to_json())
    grid = sg.open_fits()(frame).grid
    ours = sg.helio.pointing(plain).grid_after(grid)
    assert ours == sg.helio.pointing(TABLE).grid_after(grid)
    x, y = np.meshgrid([0, 20, size - 1], [0, 31, size - 1])
    sky = theirs.pixel_to_world(x * u.pix, y * u.pix)
    here = ours.pixel_to_world(y=y, x=x)
    lon = (here["HPLN"] + 180) % 360 - 180
    np.testing.assert_allclose(lon * 3600, sky.Tx.to_value("arcsec"), atol=1e-6)
    np.testing.assert_allclose(here["HPLT"] * 3600, sky.Ty.to_value("arcsec"), atol=1e-6)


def test_pointing_tables_are_cut_to_what_is_needed() -> None:
    wide = (
        TABLE
        | {f"A_094_{part}": [1.0, np.nan] for part in ("X0", "Y0", "IMSCALE", "INSTROT")}
        | {"VERSION": [1, 1]}
    )
    assert sg.helio.pointing_table(wide, 171) == {name: TABLE[name] for name in TABLE} | {
        name: [f"{date}.000" for date in TABLE[name]] for name in ("T_START", "T_STOP")
    }
    late = sg.helio.pointing_table(wide, start="2020-01-01T00:00:00", stop="2020-01-02")
    assert late["A_171_X0"] == [31.8] and np.isnan(late["A_094_X0"]).all() and "VERSION" not in late
    early = sg.helio.pointing_table(Table(wide), 171, 94, stop="2019-12-31T22:00:00")
    assert early["A_094_X0"] == [1.0] and early["T_START"] == ["2019-12-31T21:00:00.000"]
    with pytest.raises(StepError, match="the table has no A_193_X0"):
        sg.helio.pointing_table(wide, 193)
    with pytest.raises(StepError, match="no row between 2021-01-01 and None"):
        sg.helio.pointing_table(wide, start="2021-01-01")
    with pytest.raises(StepError, match="it needs T_START"):
        sg.helio.pointing_table({"T_STOP": []})


def test_pointing_takes_plain_columns() -> None:
    with pytest.raises(StepError, match="table is a Table; give columns by name"):
        sg.helio.pointing(Table(TABLE))  # type: ignore[arg-type]
    with pytest.raises(StepError, match=r"A_171_X0 of the table has <Quantity 30.2 pix>, a Quantity"):
        sg.helio.pointing(TABLE | {"A_171_X0": [30.2, 31.8] * u.pix})


def test_pointing_in_a_chain_and_back(frame: Path, tmp_path: Path) -> None:
    chain = sg.files(str(frame), key="image").key_transform("image", sg.open_fits())
    chain = chain.key_transform("image", sg.helio.pointing(TABLE))
    moved = chain.scene("image")
    np.testing.assert_array_equal(moved.read(), fits.getdata(frame))
    saved = fits.getheader(moved.save(tmp_path / "moved.fits"))
    assert (saved["CRPIX1"], saved["CRPIX2"]) == pytest.approx((34.3, 29.9))
    assert sg.open_fits()(tmp_path / "moved.fits").grid == moved.grid
    patches = chain.key_transform("image", sg.patch(size=32))
    (back,) = patches.batch(2).predict(lambda x: x, key="image")
    header = fits.getheader(back.save(tmp_path / "back.fits"))
    assert all(header[card] == FRAME[card] for card in ("CRPIX1", "CRPIX2", "CDELT1", "CROTA2"))
    registered = chain.key_transform("image", sg.helio.registration(32, scale=1.2))
    off = sg.helio.registration(32, scale=1.2)(fits.getdata(frame), grid=sg.open_fits()(frame).grid)
    assert np.nanmax(np.abs(registered[0]["image"] - off)) > 1


def test_pointing_follows_cuts() -> None:
    whole = sg.helio.pointing().grid_after(POINTED)
    box = sg.Window(y=(3, 9), x=(2, 11))
    assert sg.helio.pointing().grid_after(POINTED.crop(box)) == whole.crop(box)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: sg.helio.pointing({"T_START": [1]}),
            "the table needs T_START, T_STOP and A_<wavelength>_X0",
        ),
        (lambda: sg.helio.pointing(TABLE | {"T_STOP": ["2020-01-01"]}), "must have one length"),
        (lambda: sg.helio.pointing().grid_after(SUN), "the header has no X0_MP with a number"),
        (lambda: sg.helio.pointing().grid_after(Grid.of(("y", "x"), (2, 2))), "needs a helioprojective WCS"),
        (
            lambda: _point(TABLE, T_OBS="2021-01-01T00:00:00"),
            "2021-01-01T00:00:00.000 is in no row of the table",
        ),
        (lambda: _point(TABLE, WAVELNTH=94), "the table has no A_094_X0"),
        (lambda: _point(TABLE | {"A_171_Y0": [1.0, np.nan]}), "a value is missing in the row of 2020-01-01"),
    ],
)
def test_pointing_refuses(make: Any, message: str) -> None:
    with pytest.raises(StepError, match=f"helio.pointing: .*{message}"):
        make()


def _point(table: dict[str, list[Any]], **cards: Any) -> Grid:
    text = fits.Header(FRAME | {"NAXIS": 2, "NAXIS1": 64, "NAXIS2": 64} | cards).tostring()
    return sg.helio.pointing(table).grid_after(
        Grid.of(("y", "x"), (64, 64), WcsLocator(text, ("y", "x"), ("y", "x")))
    )


# -- the profile of an image ----------------------------------------------------------------------------


def continuum(shape: tuple[int, int] = (120, 140)) -> tuple[np.ndarray[Any, Any], Grid]:
    """A disc with the limb darkening of Neckel and Labs, spots, noise and gaps."""
    cards = SUN_HEADER | {
        "CRPIX1": 70.3,
        "CRPIX2": 60.1,
        "CDELT1": 17.0,
        "CDELT2": 17.0,
        "NAXIS1": 140,
        "NAXIS2": 120,
    }
    grid = Grid.of(("y", "x"), shape, WcsLocator(fits.Header(cards).tostring(), ("y", "x"), ("y", "x")))
    law = sg.helio.limb_darkening(617.3)
    rng = np.random.default_rng(0)
    flat = 50000 * (1 + 0.01 * rng.standard_normal(shape))
    flat[50:56, 60:70] *= 0.4
    values = law.undo(flat, grid=grid, attrs=SUN_HEADER)
    values[mu(grid, 960 * ARCSEC, "test") == 0] = 30.0
    values[rng.random(shape) < 0.01] = np.nan
    return values, grid


def test_the_profile_of_an_image_flattens_it_as_the_law_does() -> None:
    values, grid = continuum()
    disc = mu(grid, 960 * ARCSEC, "test")
    y, profile = sg.helio.limb_profile().apply(values, sg.step.Context(grid, SUN_HEADER))
    law = sg.helio.limb_darkening(617.3)(values, grid=grid, attrs=SUN_HEADER)
    inside = (disc > 0.15) & np.isfinite(values)
    np.testing.assert_allclose(y[inside], law[inside], rtol=1.5e-2)
    assert abs(profile[1:].sum() - 1) < 1e-12
    np.testing.assert_array_equal(y[disc == 0], values[disc == 0])
    np.testing.assert_array_equal(np.isnan(y), np.isnan(values))


def test_the_profile_is_kept_for_the_way_back(samples: Path) -> None:
    path = samples / "helio" / AIA
    chain = sg.files(str(path), key="image").key_transform("image", sg.open_fits())
    chain = chain.key_transform("image", sg.helio.limb_profile(3)).key_transform("image", sg.patch(size=256))
    assert "not pushed down" in chain.explain()
    (back,) = chain.batch(4).prefetch(2, 2).predict(lambda x: x, key="image")
    np.testing.assert_allclose(back.array, sg.open_fits()(path).read(), rtol=1e-6, atol=1e-4)
    whole = sg.files(str(path), key="image").key_transform("image", sg.open_fits())
    sample = whole.key_transform("image", sg.helio.limb_profile(3))[0]
    assert not np.allclose(sample["image"], back.array)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sg.helio.limb_profile(0), "degree=0 must be a whole number from 1 to 9"),
        (lambda: _profile(np.full((12, 17), np.nan)), "0 pixels with values on the disc are too few"),
        (lambda: _profile(-np.ones((12, 17))), "the profile has -1 at disc centre"),
        (lambda: _profile(np.zeros((3, 3))), "the array has shape"),
    ],
)
def test_the_profile_refuses(make: Any, message: str) -> None:
    with pytest.raises((StepError, SampleError), match=f"helio.limb_profile: .*{message}"):
        make()


def _profile(x: np.ndarray[Any, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return sg.helio.limb_profile(3)(x, grid=SUN, attrs=SUN_HEADER)
