from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units as u

import streamgeo as sg
from streamgeo.errors import StepError
from streamgeo.grid import Grid
from streamgeo.helio.disc import ARCSEC, angular_radius, mu
from streamgeo.helio.stretches import AIA_VMAX
from tests.laws import PLANE, SUN, SUN_HEADER

FULL_DISC = (
    "AIA20110319_105400_0171.fits",
    "swap_lv1_20120101_001607.fits",
    "euvi_20090615_000900_n4euA_s.fts",
)
MDI = "mdi_fd_M_96m_01d.5874.0005_s.fits"


@pytest.mark.parametrize("name", FULL_DISC)
def test_the_mask_is_sunpys_disc(samples: Path, name: str) -> None:
    sunpy_map = pytest.importorskip("sunpy.map")
    path = samples / "helio" / name
    scene, smap = sg.open_fits()(path), sunpy_map.Map(path)
    rsun = smap.rsun_obs.to_value("arcsec")
    y = sg.helio.off_limb_mask(rsun=rsun)(np.ones(scene.shape), grid=scene.grid)
    x = np.arange(0, scene.shape[1], 7)
    rows = np.arange(0, scene.shape[0], 7)
    sky = smap.pixel_to_world(*np.meshgrid(x, rows) * u.pix)
    away = np.sqrt(1 - (np.cos(sky.Tx) * np.cos(sky.Ty)) ** 2) / np.sin(smap.rsun_obs)
    np.testing.assert_array_equal(np.isfinite(y[::7, ::7]), away.to_value("") < 1)
    assert 0.2 < np.isfinite(y).mean() < 0.8
    corona = sg.helio.off_limb_mask(invert=True, rsun=rsun)(np.ones(scene.shape), grid=scene.grid)
    np.testing.assert_array_equal(np.isfinite(corona), np.isnan(y))
    wide = sg.helio.off_limb_mask(1.1, rsun=rsun)(np.ones(scene.shape), grid=scene.grid)
    grown = np.isfinite(wide).sum() / np.isfinite(y).sum()
    assert name.startswith("AIA") is False or abs(grown - 1.21) < 0.002


def test_mu_as_a_key_of_its_own(samples: Path) -> None:
    path = samples / "helio" / FULL_DISC[0]
    chain = sg.files(str(path), key="image").key_transform("image", sg.open_fits())
    chain = chain.key_transform("image", sg.helio.mu_map(), output_key="mu")
    chain = chain.key_transform(("image", "mu"), sg.patch(size=256))
    scene = sg.open_fits()(path)
    expected = mu(scene.grid, angular_radius(scene.attrs, "test"), "test").astype(np.float32)
    sample = chain[5]
    np.testing.assert_array_equal(sample["mu"], expected[256:512, 256:512])
    np.testing.assert_array_equal(sample["image"], scene.read()[256:512, 256:512])


def test_radial_field_of_a_magnetogram(samples: Path) -> None:
    scene = sg.open_fits()(samples / "helio" / MDI)
    x, given = scene.read(), {"grid": scene.grid, "attrs": scene.attrs}
    step = sg.helio.radial_field()
    y = step(x, **given)
    disc = mu(scene.grid, angular_radius(scene.attrs, "test"), "test")
    kept = disc >= 0.2
    assert kept.mean() > 0.3
    np.testing.assert_array_equal(np.isfinite(y), kept & np.isfinite(x))
    both = np.isfinite(y)
    np.testing.assert_allclose(y[both], (x / np.where(kept, disc, 1))[both], rtol=1e-6)
    np.testing.assert_allclose(step.undo(y, **given)[both], x[both], rtol=1e-6)
    assert np.all(np.abs(y[both]) >= np.abs(x[both]))


def test_where_the_radius_comes_from() -> None:
    x = np.ones(SUN.shape)
    by_header = sg.helio.off_limb_mask()(x, grid=SUN, attrs=SUN_HEADER)
    np.testing.assert_array_equal(by_header, sg.helio.off_limb_mask(rsun=960.0)(x, grid=SUN))
    larger = sg.helio.off_limb_mask(rsun=1100.0)(x, grid=SUN, attrs=SUN_HEADER)
    assert np.isfinite(larger).sum() > np.isfinite(by_header).sum()
    np.testing.assert_allclose(
        sg.helio.mu_map()(x, grid=SUN, attrs=SUN_HEADER), mu(SUN, 960 * ARCSEC, "test"), rtol=1e-12
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sg.helio.off_limb_mask(0), "off_limb_mask: radius=0 solar radii must be above 0"),
        (lambda: sg.helio.off_limb_mask(rsun=-1), "off_limb_mask: rsun=-1 arcsec"),
        (lambda: sg.helio.mu_map(rsun=0), "mu_map: rsun=0 arcsec"),
        (lambda: sg.helio.radial_field(1.0), "radial_field: limit=1 must be 0 or more, and below 1"),
        (lambda: sg.helio.aia_stretch(172), "no range for 172 Angstrom, only for 94, 131"),
        (lambda: sg.helio.aia_stretch(3 * u.K), "aia_stretch: wavelength: 3.0 K cannot be given in Angstrom"),
        (lambda: sg.helio.aia_stretch()(np.ones(2), attrs={}), "the header has no WAVELNTH"),
        (lambda: sg.helio.aia_stretch()(np.ones(2), attrs={"WAVELNTH": 4500}), "no range for 4500"),
    ],
)
def test_what_is_refused(make: Any, message: str) -> None:
    with pytest.raises(StepError, match=message):
        make()


@pytest.mark.parametrize("step", [sg.helio.off_limb_mask(), sg.helio.mu_map(), sg.helio.radial_field()])
def test_what_is_no_image_of_the_sun(step: sg.Step) -> None:
    for grid in (PLANE, Grid.of(("y", "x"), (12, 17))):
        with pytest.raises(StepError, match="needs a helioprojective WCS"):
            step(np.zeros(grid.shape), grid=grid, attrs=SUN_HEADER)
    with pytest.raises(StepError, match="the array has shape"):
        step(np.zeros((2, 2)), grid=SUN, attrs=SUN_HEADER)
    with pytest.raises(StepError, match="no solar radius"):
        step(np.zeros(SUN.shape), grid=SUN, attrs={})


@pytest.mark.parametrize(("channel", "vmax"), AIA_VMAX.items())
def test_aia_ranges(channel: int, vmax: float) -> None:
    soft = 0.001 if channel == 304 else 0.005
    x = np.array([-vmax / 100, 0.0, soft * vmax, vmax / 2, vmax, 3 * vmax])
    expected = 2 * np.arcsinh(x / (soft * vmax)) / np.arcsinh(1 / soft) - 1
    for step, attrs in ((sg.helio.aia_stretch(channel), {}), (sg.helio.aia_stretch(), {"WAVELNTH": channel})):
        y = step(x, attrs=attrs)
        np.testing.assert_allclose(y, expected, rtol=1e-12)
        assert y[[1, 4]].tolist() == [-1.0, 1.0]
        np.testing.assert_allclose(step.undo(y, attrs=attrs), x, rtol=1e-10, atol=1e-9)


def test_aia_ranges_of_a_file_in_per_second(samples: Path) -> None:
    path = samples / "helio" / FULL_DISC[0]
    chain = sg.files(str(path), key="image").key_transform("image", sg.open_fits())
    chain = chain.key_transform("image", sg.helio.exposure()).key_transform("image", sg.helio.aia_stretch())
    image = chain[0]["image"]
    assert image.dtype == np.float32
    assert np.mean((image > -1.1) & (image < 1.0)) > 0.999
    (back,) = chain.predict(lambda x: x, key="image")
    np.testing.assert_allclose(back.array, sg.open_fits()(path).read(), rtol=1e-5, atol=1e-2)
