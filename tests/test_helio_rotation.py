"""Differential rotation against sunpy, on real files too."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.units import Quantity

import streamgeo as sg
from streamgeo.errors import SampleError, StepError
from streamgeo.helio import differential_rotation
from streamgeo.helio.rotation import Turn, _locate
from tests.laws import SPINNING

CARDS = {
    "CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN", "CUNIT1": "arcsec", "CUNIT2": "arcsec", "CRPIX1": 64.5,
    "CRPIX2": 64.5, "CRVAL1": 0.0, "CRVAL2": 0.0, "CDELT1": 18.0, "CDELT2": 18.0, "DSUN_OBS": 1.49e11,
    "RSUN_REF": 695700000.0, "HGLN_OBS": 0.0, "HGLT_OBS": -7.0, "DATE-OBS": "2011-03-19T10:54:00",
}  # fmt: skip


def write(path: Path, values: Any, **cards: Any) -> str:
    header = fits.Header()
    header.update({key: value for key, value in (CARDS | cards).items() if value is not None})
    fits.PrimaryHDU(np.asarray(values, np.float32), header).writeto(path)
    return str(path)


def by_sunpy(path: str, rows: Any, cols: Any, days: float) -> tuple[Any, Any, float]:
    """Where features at some pixels are seen after some days, by an observer of the same Stonyhurst place.

    The radius in arcsec that sunpy takes comes third: it does not know the cards of all instruments.
    """
    pytest.importorskip("sunpy.map")
    import astropy.units as u
    import sunpy.map
    from astropy.coordinates import SkyCoord
    from sunpy.coordinates import HeliographicStonyhurst, Helioprojective
    from sunpy.physics.differential_rotation import solar_rotate_coordinate

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        smap = sunpy.map.Map(path)
        later = smap.reference_date + days * u.day
        here = smap.observer_coordinate.transform_to(HeliographicStonyhurst(obstime=smap.reference_date))
        there = SkyCoord(here.lon, here.lat, here.radius, frame=HeliographicStonyhurst(obstime=later))
        turned = solar_rotate_coordinate(smap.pixel_to_world(cols * u.pix, rows * u.pix), observer=there)
        sky = turned.transform_to(Helioprojective(observer=there, obstime=later))
        x, y = smap.wcs.world_to_pixel_values(sky.Tx.to_value("deg"), sky.Ty.to_value("deg"))
    return y, x, float(smap.rsun_obs.to_value("arcsec"))


def same_places(path: str, days: float) -> None:
    scene = sg.open_fits()(path)
    step = max(1, scene.shape[0] // 24)
    rows, cols = np.mgrid[step // 2 : scene.shape[0] : step, step // 2 : scene.shape[1] : step]
    *expected, rsun = by_sunpy(path, rows, cols, days)
    found = _locate(scene.grid, Turn(days, None, "howard", rsun), back=True)(scene.window)
    known = np.isfinite(found[0][rows, cols]) & np.isfinite(expected[0])
    assert known.sum() > 30
    for mine, theirs in zip(found, expected):
        np.testing.assert_allclose(mine[rows, cols][known], theirs[known], atol=1e-4)


@pytest.mark.parametrize("days", [0.5, 4.0, -3.0])
def test_places_are_those_of_sunpy(tmp_path: Path, days: float) -> None:
    same_places(
        write(tmp_path / "sun.fits", np.zeros((128, 128)), CROTA2=30.0, CRPIX1=50.0, CRVAL2=100.0), days
    )


@pytest.mark.parametrize("name", ["AIA20110319_105400_0171.fits", "swap_lv1_20120101_001607.fits"])
def test_places_on_real_files(samples: Path, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # headers without latitude
        same_places(str(samples / "helio" / name), 1.5)


def test_values_are_those_of_sunpy(samples: Path) -> None:
    """A whole image, against sunpy's reprojection along with the turning surface."""
    pytest.importorskip("reproject")
    sunpy_map = pytest.importorskip("sunpy.map")
    import astropy.units as u
    from astropy.coordinates import SkyCoord
    from sunpy.coordinates import HeliographicStonyhurst, Helioprojective, propagate_with_solar_surface

    path = samples / "helio" / "AIA20110319_105400_0171.fits"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        smap = sunpy_map.Map(path)
        later = smap.reference_date + 1 * u.day
        here = smap.observer_coordinate.transform_to(HeliographicStonyhurst(obstime=smap.reference_date))
        there = SkyCoord(here.lon, here.lat, here.radius, frame=HeliographicStonyhurst(obstime=later))
        centre = smap.reference_coordinate
        header = sunpy_map.make_fitswcs_header(
            smap.data.shape,
            SkyCoord(centre.Tx, centre.Ty, frame=Helioprojective(observer=there, obstime=later)),
            reference_pixel=u.Quantity(smap.reference_pixel),
            scale=u.Quantity(smap.scale),
            rotation_matrix=smap.rotation_matrix,
        )
        header["rsun_ref"] = smap.rsun_meters.to_value("m")
        with propagate_with_solar_surface():
            expected = smap.reproject_to(sunpy_map.Map(np.zeros(smap.data.shape), header).wcs).data
    scene = sg.open_fits()(str(path))
    found = differential_rotation(1.0)(scene.array, grid=scene.grid)
    both = np.isfinite(expected) & np.isfinite(found)
    assert both.sum() > 0.99 * np.isfinite(found).sum()
    y, x = np.indices(found.shape) - 511.5
    inner = both & (np.hypot(x, y) < 380)  # at the limb a pixel stands for much of the surface
    np.testing.assert_allclose(found[inner], expected[inner], atol=0.01)


def test_a_spot_moves_and_comes_back(tmp_path: Path) -> None:
    y, x = np.mgrid[:128, :128]
    spot = np.exp(-((y - 70) ** 2 + (x - 40) ** 2) / 18)
    path = write(tmp_path / "spot.fits", spot)
    chain = (
        sg.files([path], key="image")
        .key_transform("image", sg.open_fits())
        .key_transform("image", differential_rotation(2.0, method="cubic"))
    )
    turned = chain[0]["image"]
    row, col = (float(v) for v in by_sunpy(path, np.array(70.0), np.array(40.0), 2.0)[:2])
    weight = np.nan_to_num(turned)
    assert (weight * x).sum() / weight.sum() == pytest.approx(col, abs=0.3)
    assert (weight * y).sum() / weight.sum() == pytest.approx(row, abs=0.3)
    back = next(iter(chain.predict(lambda v: v, key="image"))).array
    known = np.isfinite(back)
    assert known[50:90, 20:60].all()
    assert np.abs(back - spot)[known].max() < 0.02
    assert np.isnan(turned[0, 0])  # off the limb
    assert np.isnan(turned[64, 15])  # had not come around the limb yet


def test_images_of_two_days_are_brought_to_one_time(tmp_path: Path) -> None:
    """The image of a later day is the earlier one turned, so both are the same at one time."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:128, :128]
    early = sum(
        np.exp(-((y - a) ** 2 + (x - b) ** 2) / 40) for a, b in rng.uniform(40, 90, (12, 2))
    )  # smooth, so that two interpolations change little
    first = write(tmp_path / "first.fits", early)
    late = differential_rotation(1.0)(early.astype("f4"), grid=sg.open_fits()(first).grid)
    second = write(tmp_path / "second.fits", late, **{"DATE-OBS": "2011-03-20T10:54:00"})
    chain = (
        sg.files([first, second], key="image")
        .key_transform("image", sg.open_fits())
        .key_transform("image", differential_rotation(to="2011-03-19T22:54:00"))
    )
    a, b = chain[0]["image"], chain[1]["image"]
    known = np.isfinite(a) & np.isfinite(b)
    assert known[30:100, 30:100].all()
    assert np.abs(a - b)[known].max() < 0.03 * early.max()


def test_a_window_is_that_of_the_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "sun.fits", np.random.default_rng(0).normal(size=(128, 128)))
    chain = (
        sg.files([path], key="image")
        .key_transform("image", sg.open_fits())
        .key_transform("image", differential_rotation(1.0))
    )
    assert "windows" in chain.key_transform("image", sg.patch(32)).explain()
    whole = chain[0]["image"]
    for sample in chain.key_transform("image", sg.patch(32)):
        (y0, y1), (x0, x1) = sample["image.window"]
        np.testing.assert_array_equal(sample["image"], whole[y0:y1, x0:x1])


def test_duration_in_any_unit_and_as_a_date() -> None:
    x = np.random.default_rng(0).normal(size=SPINNING.shape).astype("f4")
    steps = (
        differential_rotation(1.5),
        differential_rotation(Quantity(36, "h")),
        differential_rotation(to="2012-03-05T17:06:07"),
    )
    first, *rest = (step(x, grid=SPINNING) for step in steps)
    for other in rest:
        np.testing.assert_allclose(other, first, atol=1e-5)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "give either duration="),
    ({"duration": 1, "to": "2012-01-01"}, "give either duration="),
    ({"duration": 1, "model": "fast"}, "model='fast' must be one of howard, snodgrass, allen, rigid"),
    ({"to": "yesterday"}, "to='yesterday' is not a date"),
    ({"duration": Quantity(1, "m")}, "duration"),
    ({"duration": 1, "method": "spline"}, "method='spline' must be one of"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_wrong_parameters(options: dict[str, Any], message: str) -> None:
    with pytest.raises(StepError, match=message):
        differential_rotation(**options)


def test_headers_that_do_not_tell(tmp_path: Path) -> None:
    def run(name: str, **cards: Any) -> Any:
        path = write(tmp_path / name, np.zeros((128, 128)), **cards)
        chain = sg.files([path], key="image").key_transform("image", sg.open_fits())
        return chain.key_transform("image", differential_rotation(1.0))[0]["image"]

    with pytest.raises(SampleError, match="the header has no date"):
        run("a.fits", **{"DATE-OBS": None})
    with pytest.raises(SampleError, match="no heliographic latitude"):
        run("b.fits", HGLT_OBS=None, HGLN_OBS=120.0)
    with pytest.warns(UserWarning, match="no heliographic latitude .* as seen from Earth .* -7"):
        seen = run("c.fits", HGLT_OBS=None, HGLN_OBS=None)
    assert np.isfinite(seen[64, 64])
