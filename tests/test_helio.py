from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.wcs import WCS

import streamgeo as sg
from streamgeo.errors import StepError
from streamgeo.grid import Grid
from streamgeo.helio.disc import ARCSEC, angular_radius, mu
from streamgeo.locate import WcsLocator
from streamgeo.window import Window
from tests.laws import EARTH, PLANE, SUN, SUN_HEADER

Array = np.ndarray[Any, np.dtype[Any]]

MU = (0.8, 0.5, 0.3, 0.2, 0.1)
TABLE = {
    "neckel1994": (0.9041, 0.7390, 0.6072, 0.5284, 0.4337),
    "hmi": (0.9039, 0.7390, 0.6066, 0.5280, 0.4306),
    "neckel2005": (0.9042, 0.7404, 0.6103, 0.5325, 0.4393),
    "allen": (0.9062, 0.7350, 0.6004, 0.5269, 0.4494),
}
FULL_DISC = ("AIA20110319_105400_0171.fits", "swap_lv1_20120101_001607.fits", "eit_l1_20020625_100011.fits")
STANDARD = (*FULL_DISC[:2], "aia_171_cutout.fits", "euvi_20090615_000900_n4euA_s.fts")
OLD = (
    "eit_l1_20020625_100011.fits",
    "HinodeXRT.fits",
    "mdi_fd_M_96m_01d.5874.0005_s.fits",
    "trace_1998-05-19T22_21_43_171_1024.fits",
)


def sun_grid(shape: tuple[int, int] = (12, 17), **cards: Any) -> Grid:
    """A helioprojective grid, with some cards of the header changed."""
    header = fits.Header(SUN_HEADER | cards)
    return Grid.of(("y", "x"), shape, WcsLocator(header.tostring(), ("y", "x"), ("y", "x")))


def one_pixel(mu: float, radius: float) -> Grid:
    """A grid of one pixel, at a given mu."""
    angle = np.arcsin(np.sqrt(1 - mu**2) * np.sin(radius * ARCSEC))
    arcsec = np.tan(angle) / ARCSEC  # TAN stretches an angle to its tangent; pixels of 1 arcsec
    centred = {"CRVAL1": 0.0, "CRVAL2": 0.0, "CDELT1": 1.0, "CDELT2": 1.0, "CRPIX2": 1.0}
    return sun_grid((1, 1), CRPIX1=1 - arcsec, **centred)


@pytest.mark.parametrize("law", TABLE)
def test_published_intensities(law: str) -> None:
    step = sg.helio.limb_darkening(wavelength=617.33, law=law)
    for position, published in zip(MU, TABLE[law]):
        relative = step.undo(np.ones((1, 1)), grid=one_pixel(position, 960.0), attrs={"RSUN_OBS": 960.0})
        assert abs(relative.item() - published) < 1e-3


def test_the_interpolated_row_of_neckel_and_labs() -> None:
    published = (0.31445, 1.35342, -1.82654, 2.35725, -1.68781, 0.48922)
    chosen = sg.helio.limb_darkening(wavelength=617.33).forward.keywords["coefficients"]  # type: ignore[attr-defined]
    np.testing.assert_allclose(chosen, published, atol=2e-5)


@pytest.mark.parametrize("nm", [450.0, 550.0, 700.0, 1000.0])
def test_the_two_laws_of_neckel_agree(nm: float) -> None:
    a, b = (
        sg.helio.limb_darkening(wavelength=nm, law=law).forward.keywords["coefficients"]  # type: ignore[attr-defined]
        for law in ("neckel1994", "neckel2005")
    )
    mu_values = np.linspace(0.2, 1, 9)
    np.testing.assert_allclose(
        np.polynomial.Polynomial(a)(mu_values), np.polynomial.Polynomial(b)(mu_values), atol=0.02
    )


@pytest.mark.parametrize("law", TABLE)
def test_disc_centre_is_one_and_off_limb_stays(law: str) -> None:
    grid = sun_grid(CRPIX1=9, CRPIX2=6, CRVAL1=0, CRVAL2=0)
    step = sg.helio.limb_darkening(wavelength=617.3, law=law)
    y = step(np.full(grid.shape, 5.0), grid=grid, attrs=SUN_HEADER)
    assert abs(y[5, 8] - 5) < 2e-2
    place = mu(grid, 960 * ARCSEC, "test")
    off = place == 0
    assert off.any()
    assert (~off).any()
    assert np.all(y[off] == 5)
    assert np.all(y[~off & (place < 0.999)] > 5)


def test_units_of_the_wavelength_and_the_radius() -> None:
    x = np.random.default_rng(0).random(SUN.shape)
    given = sg.helio.limb_darkening(wavelength=550.0, rsun=970.0)(x, grid=SUN)
    quantity = sg.helio.limb_darkening(wavelength=5500 * u.AA, rsun=(970 / 3600) * u.deg)(x, grid=SUN)
    np.testing.assert_allclose(given, quantity, rtol=1e-13)
    default = sg.helio.limb_darkening(wavelength=550.0, law="neckel1994")(
        x, grid=SUN, attrs={"RSUN_OBS": 970.0}
    )
    np.testing.assert_array_equal(given, default)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"give wavelength= in nm \(303.327 to 1098.95 for neckel1994\)"),
        (
            {"wavelength": 17.1},
            r"neckel1994 covers 303.327 to 1098.95 nm, not 17.1 nm; use another law \(.*allen: 400",
        ),
        (
            {"wavelength": 400.0, "law": "neckel2005"},
            r"neckel2005 covers 422.57 to 1100 nm.*neckel1994: 303.327",
        ),
        ({"wavelength": 500.0, "law": "hmi"}, r"hmi covers"),
        ({"wavelength": 399.0, "law": "allen"}, r"allen covers 400 to 1500 nm"),
        (
            {"wavelength": 617.3, "law": "neckel"},
            r"no law 'neckel'; the laws are neckel1994, neckel2005, allen, hmi",
        ),
        ({"wavelength": 617.3, "coefficients": (1.0,)}, r"give either coefficients= or a wavelength"),
        ({"coefficients": (0.3, 0.7), "law": "hmi"}, r"give either coefficients= or"),
        ({"coefficients": ()}, r"coefficients= is empty"),
        ({"coefficients": (-0.5, 1.5)}, r"intensity of -0.49.* on the disc"),
        ({"coefficients": (0.5, float("nan"))}, r"coefficients: nan is not finite"),
        ({"wavelength": 617.3, "rsun": -1.0}, r"rsun=-1 arcsec must be above 0"),
        ({"wavelength": 5 * u.K}, r"wavelength: 5.0 K cannot be given in nm"),
    ],
)
def test_limb_darkening_checks_its_parameters(options: dict[str, Any], message: str) -> None:
    with pytest.raises(StepError, match=r"helio.limb_darkening.*" + message):
        sg.helio.limb_darkening(**options)


@pytest.mark.parametrize("grid", [PLANE, EARTH, Grid.of(("y", "x"), (12, 17))])
def test_limb_darkening_needs_a_helioprojective_grid(grid: Grid) -> None:
    with pytest.raises(StepError, match="needs a helioprojective WCS, and the grid has"):
        sg.helio.limb_darkening(wavelength=617.3, rsun=960)(np.zeros(grid.shape), grid=grid)
    with pytest.raises(StepError, match="the array has shape"):
        sg.helio.limb_darkening(wavelength=617.3, rsun=960)(np.zeros((2, 2)), grid=SUN)


# -- the solar radius -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attrs", "arcsec"),
    [
        ({"RSUN_OBS": 963.9, "DSUN_OBS": 1.0e11}, 963.9),
        ({"RSUN_OBS": "nan", "RSUN_ARC": 975.9}, 975.9),
        ({"RSUN": 1002.7}, 1002.7),
        ({"RSUN": 6.957e8, "DSUN_OBS": 1.495978707e11}, 959.23),
        ({"RSUN_REF": 696e6, "DSUN_OBS": 1.48940609627e11}, 963.879683),
        ({"SOLAR_R": 372.27, "CDELT1": 2.63, "INSTRUME": "EIT"}, 979.07),
        ({"SOLAR_R": 960.0, "CDELT1": 2.63, "INSTRUME": "GONG"}, 960.0),
    ],
)
def test_solar_radius_from_the_header(attrs: dict[str, Any], arcsec: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert abs(angular_radius(attrs, "test") / ARCSEC - arcsec) < 1e-2


def test_solar_radius_from_the_date_warns() -> None:
    from sunpy.coordinates import sun

    with pytest.warns(UserWarning, match=r"test: the header has no solar radius.*from Earth on 2007-04-24"):
        found = angular_radius({"DATE_OBS": "2007-04-24T10:20:15.846Z"}, "test")
    assert abs(found / ARCSEC - sun.angular_radius("2007-04-24T10:20:15.846").to_value("arcsec")) < 1e-9


@pytest.mark.parametrize(
    ("attrs", "date"),
    [
        ({"T_OBS": "2011.02.15_00:00:34_TAI"}, "2011-02-15T00:00:00"),
        ({"DATE-OBS": "15/02/98", "TIME-OBS": "10:20:30"}, "1998-02-15T10:20:30"),
        ({"DATE-BEG": "2011-02-15T00:00:00"}, "2011-02-15T00:00:00"),
        ({"DATE-OBS": "2011-02-15", "TIME_OBS": "18:00:00"}, "2011-02-15T18:00:00"),
        ({"DATE-OBS": "2011-02-15T00:00:34", "TIMESYS": "TAI"}, "2011-02-15T00:00:00"),
    ],
)
def test_solar_radius_takes_the_dates_that_other_steps_take(attrs: dict[str, Any], date: str) -> None:
    from sunpy.coordinates import sun

    with pytest.warns(UserWarning, match=f"from Earth on {date}"):
        found = angular_radius(attrs, "test")
    assert abs(found / ARCSEC - sun.angular_radius(date).to_value("arcsec")) < 1e-9


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        ({}, r"no solar radius \(RSUN_OBS, .*\) and no DSUN_OBS; give rsun="),
        ({"DATE-OBS": "2009-06-15", "HGLN_OBS": 51.8}, r"no solar radius"),
        ({"DATE-OBS": "yesterday"}, r"'yesterday' is not a date"),
    ],
)
def test_solar_radius_that_nothing_tells(attrs: dict[str, Any], message: str) -> None:
    with pytest.raises(StepError, match=message):
        angular_radius(attrs, "test")


# -- mu against astropy and sunpy -----------------------------------------------------------------------


def reference_mu(wcs: WCS, radius: float, pixels: tuple[Array, Array]) -> Array:
    """mu from sunpy's frames: the angle between the surface and the observer. NaN off limb."""
    from sunpy.coordinates import frames

    seen = wcs.pixel_to_world(pixels[1], pixels[0])
    observer = seen.observer
    sphere = frames.Helioprojective(
        Tx=seen.Tx, Ty=seen.Ty, observer=observer, obstime=seen.obstime, rsun=np.sin(radius) * observer.radius
    )
    spot = sphere.transform_to(frames.Heliocentric(observer=observer, obstime=seen.obstime))
    normal = np.stack([spot.x.to_value("m"), spot.y.to_value("m"), spot.z.to_value("m")])
    sight = np.array([0, 0, observer.radius.to_value("m")])[:, None, None] - normal
    lengths = np.linalg.norm(normal, axis=0) * np.linalg.norm(sight, axis=0)
    return np.asarray((normal * sight).sum(axis=0) / lengths)


@pytest.mark.parametrize("name", STANDARD)
def test_mu_of_real_files_as_sunpy_has_it(samples: Path, name: str) -> None:
    pytest.importorskip("sunpy.coordinates")  # teaches astropy the frames of solar WCS

    path = samples / "helio" / name
    scene = sg.open_fits()(path)
    radius = angular_radius(scene.attrs, "test")
    with fits.open(path) as file:
        wcs = WCS(file[-1].header)
    pixels = np.mgrid[0 : scene.shape[0] : 9, 0 : scene.shape[1] : 9]
    expected = reference_mu(wcs, radius, (pixels[0], pixels[1]))
    found = mu(scene.grid, radius, "test")[::9, ::9]
    np.testing.assert_array_equal(np.isfinite(expected), found > 0)
    inside = np.isfinite(expected)
    assert inside.mean() > 0.2
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-7)


def tangent_radius(header: fits.Header, shape: tuple[int, ...]) -> Array:
    """Angle from disc centre by astropy, of a header with CTYPE Solar-X / Solar-Y: TAN in arcsec."""
    header = header.copy()
    for axis, kind in ((1, "HPLN-TAN"), (2, "HPLT-TAN")):
        header[f"CTYPE{axis}"], header[f"CUNIT{axis}"] = kind, "arcsec"
    x, y = np.meshgrid(np.arange(shape[1]), np.arange(shape[0]))
    lon, lat = np.radians(WCS(header).all_pix2world(x, y, 0))
    return np.arctan2(np.hypot(np.sin(lat), np.cos(lat) * np.sin(lon)), np.cos(lat) * np.cos(lon))


@pytest.mark.parametrize("name", OLD)
def test_mu_of_headers_from_before_the_standard(samples: Path, name: str) -> None:
    path = samples / "helio" / name
    grid = sg.open_fits()(path).grid
    radius = 960 * ARCSEC
    rho = tangent_radius(fits.getheader(path), grid.shape)
    expected = np.sqrt(np.maximum(0, 1 - (np.sin(rho) / np.sin(radius)) ** 2))
    found = mu(grid, radius, "test")
    np.testing.assert_allclose(found**2, expected**2, atol=1e-9)
    assert (found > 0).any()


@pytest.mark.filterwarnings("ignore:open_fits")
def test_mu_of_a_time_cube_is_one_plane(samples: Path) -> None:
    scene = sg.open_fits()(samples / "helio" / "iris_l2_20130801_074720_4040000014_SJI_1400_t000.fits")
    radius = angular_radius(scene.attrs, "test")
    found = mu(scene.grid, radius, "test")
    assert found.shape == (1, *scene.shape[1:])
    header = fits.getheader(scene.files[0])
    header["CDELT3"] = 1.0  # 0 in the file, so that astropy refuses it
    wcs = WCS(header).celestial
    pixels = np.mgrid[0 : scene.shape[1] : 9, 0 : scene.shape[2] : 9]
    lon, lat = np.radians(wcs.all_pix2world(pixels[1], pixels[0], 0))
    expected = 1 - (1 - (np.cos(lat) * np.cos(lon)) ** 2) / np.sin(radius) ** 2
    np.testing.assert_allclose(found[0, ::9, ::9] ** 2, expected, atol=1e-7)


@pytest.mark.parametrize(
    "change", [{"CTYPE1": "HPLN-ARC", "CTYPE2": "HPLT-ARC"}, {"LONPOLE": 170.0}, {"PV2_1": 0.0}]
)
def test_mu_of_other_projections(change: dict[str, Any]) -> None:
    header, grid = fits.Header(SUN_HEADER | change), sun_grid(**change)
    x, y = np.meshgrid(np.arange(17), np.arange(12))
    lon, lat = np.radians(WCS(header).all_pix2world(x, y, 0))
    expected = 1 - (1 - (np.cos(lat) * np.cos(lon)) ** 2) / np.sin(960 * ARCSEC) ** 2
    np.testing.assert_allclose(mu(grid, 960 * ARCSEC, "test") ** 2, np.maximum(expected, 0), atol=1e-9)


def test_mu_of_axes_in_the_other_order() -> None:
    swapped = {"CTYPE1": "HPLT-TAN", "CTYPE2": "HPLN-TAN", "CROTA2": 0.0}
    header, grid = fits.Header(SUN_HEADER | swapped), sun_grid(**swapped)
    x, y = np.meshgrid(np.arange(17), np.arange(12))
    lat, lon = np.radians(WCS(header).all_pix2world(x, y, 0))
    expected = 1 - (1 - (np.cos(lat) * np.cos(lon)) ** 2) / np.sin(960 * ARCSEC) ** 2
    np.testing.assert_allclose(mu(grid, 960 * ARCSEC, "test") ** 2, np.maximum(expected, 0), atol=1e-9)


# -- limb darkening on real files -----------------------------------------------------------------------


@pytest.mark.parametrize("name", FULL_DISC)
def test_limb_darkening_of_real_files_goes_back(samples: Path, name: str) -> None:
    scene = sg.open_fits()(samples / "helio" / name)
    x = scene.read()
    step = sg.helio.limb_darkening(wavelength=617.3)
    context = {"grid": scene.grid, "attrs": scene.attrs}
    y = step(x, **context)
    assert y.dtype == np.float32
    disc = mu(scene.grid, angular_radius(scene.attrs, "test"), "test")
    np.testing.assert_array_equal(y[disc == 0], x[disc == 0])
    assert np.all(np.abs(y[disc > 0]) >= np.abs(x[disc > 0]) * (1 - 1e-6))
    np.testing.assert_allclose(step.undo(y, **context), x, rtol=1e-5)
    window = Window(y=(301, 477), x=(100, 613))
    part = step(scene.read(window), grid=scene.grid.crop(window), attrs=scene.attrs)
    np.testing.assert_array_equal(part, y[window.slices(scene.dims)])


def test_limb_darkening_of_flipped_and_cut_grids() -> None:
    x = np.random.default_rng(0).random(SUN.shape)
    step = sg.helio.limb_darkening(wavelength=617.3)
    y = step(x, grid=SUN, attrs=SUN_HEADER)
    np.testing.assert_allclose(
        step(x[::-1].T, grid=SUN.flip("y").transpose("x", "y"), attrs=SUN_HEADER), y[::-1].T, rtol=1e-14
    )
    cube = np.stack([x, 2 * x])
    np.testing.assert_array_equal(
        step(cube, grid=SUN.insert(0, "band", 2), attrs=SUN_HEADER), np.stack([y, 2 * y])
    )


def test_limb_darkening_of_what_is_not_helioprojective(samples: Path) -> None:
    step = sg.helio.limb_darkening(wavelength=617.3)
    for name, kinds in (
        ("sharp_377/hmi.sharp_cea_720s.377.20110215_020000_TAI.continuum.fits", "CRLN-CEA / CRLT-CEA"),
        ("BIR_20110922_103000_01.fit", r"Time \[UT\] / Frequency \[MHz\]"),
    ):
        scene = sg.open_fits()(samples / "helio" / name)
        with pytest.raises(StepError, match=rf"needs a helioprojective image.*{kinds}"):
            step(scene.read(), grid=scene.grid, attrs=scene.attrs | {"RSUN_OBS": 960.0})


# -- exposure -------------------------------------------------------------------------------------------


def test_exposure_divides_and_multiplies() -> None:
    x = np.array([8.0, np.nan], np.float32)
    y = sg.helio.exposure()(x, attrs={"EXPTIME": 2.0, "XPOSURE": 3.0, "BUNIT": "DN"})
    np.testing.assert_array_equal(y, np.array([4.0, np.nan], np.float32))
    np.testing.assert_array_equal(sg.helio.exposure().undo(y, attrs={"EXPTIME": 2.0}), x)
    assert sg.helio.exposure()(x, attrs={"XPOSURE": 4.0})[0] == 2
    assert sg.helio.exposure(card="SHT_MDUR")(x, attrs={"EXPTIME": 2.0, "SHT_MDUR": 8.0})[0] == 1


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        ({}, r"no EXPTIME or XPOSURE with a number in the header$"),
        ({"EXPTIME": "nan", "SHT_MDUR": 23.1}, r"it has EXPTIME, SHT_MDUR: give the one in seconds as card="),
        ({"EXPTIME": 0.0}, r"EXPTIME=0 s must be above 0"),
        ({"EXPTIME": -1.0}, r"EXPTIME=-1 s must be above 0"),
    ],
)
def test_exposure_that_is_not_known(attrs: dict[str, Any], message: str) -> None:
    for call in (sg.helio.exposure(), sg.helio.exposure().undo):
        with pytest.raises(StepError, match=message):
            call(np.ones(2), attrs=attrs)


@pytest.mark.parametrize(
    "unit",
    ["DN/s", "DN / s", "DN/s/pixel", "DN/sec", "DN / (pix s)", "ct s-1", "DN s^-1", "count s**-1",
     "erg/cm^2/s",     "DN/seconds", "counts per second", "ph / (s cm2 sr)", "DN/ms", "s^(-1)"],
)  # fmt: skip
def test_exposure_does_not_divide_twice(unit: str) -> None:
    with pytest.raises(StepError, match=r"says that the values are per second already"):
        sg.helio.exposure()(np.ones(2), attrs={"EXPTIME": 2.0, "BUNIT": unit})


@pytest.mark.parametrize(
    "unit",
    ["", "DN", "counts / pixel", "Corrected DN", "Gauss", "Mx/cm^2", "W/sr", "DN s", "counts/superpixel"],
)
def test_exposure_of_other_units(unit: str) -> None:
    assert sg.helio.exposure()(np.ones(1), attrs={"EXPTIME": 2.0, "BUNIT": unit}).item() == 0.5


def test_exposure_of_real_files(samples: Path) -> None:
    folder = samples / "helio"
    aia = sg.open_fits()(folder / "AIA20110319_105400_0171.fits")
    np.testing.assert_allclose(
        sg.helio.exposure()(aia.read(), attrs=aia.attrs), aia.read() / 1.999601, rtol=1e-6
    )
    swap = sg.open_fits()(folder / "swap_lv1_20120101_001607.fits")
    with pytest.raises(StepError, match="BUNIT='DN/s/pixel'"):
        sg.helio.exposure()(swap.read(), attrs=swap.attrs)
    trace = sg.open_fits()(folder / "trace_1998-05-19T22_21_43_171_1024.fits")
    with pytest.raises(StepError, match="SHT_MDUR"):
        sg.helio.exposure()(trace.read(), attrs=trace.attrs)


def test_a_chain_over_windows_equals_the_whole(samples: Path) -> None:
    path = samples / "helio" / "AIA20110319_105400_0171.fits"
    steps = [sg.helio.exposure(), sg.helio.limb_darkening(wavelength=617.3), sg.stretch.asinh(8600.0)]
    scene = sg.open_fits()(path)
    values = scene.read()
    for step in steps:
        values = step(
            values, **{k: v for k, v in (("grid", scene.grid), ("attrs", scene.attrs)) if k in step.asks}
        )
    chain = sg.files(str(path), key="image").key_transform("image", sg.open_fits())
    for step in steps:
        chain = chain.key_transform("image", step)
    chain = chain.key_transform("image", sg.patch(size=512))
    found = [sample["image"] for sample in chain]
    assert len(found) == 4
    np.testing.assert_array_equal(found[3], values[512:, 512:])
