from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

import streamgeo as sg
from streamgeo.errors import InverseError, StepError
from streamgeo.grid import Grid
from streamgeo.helio.disc import ARCSEC
from streamgeo.locate import WcsLocator
from streamgeo.plan import Draw, Run, StepScene
from streamgeo.window import Window
from tests.laws import EARTH, PLANE, SUN

Array = np.ndarray[Any, np.dtype[Any]]
AIA = "AIA20110319_105400_0171.fits"


def disc(path: Path, size: int = 200, **cards: Any) -> Path:
    """A disc with a bright patch in the north-west, seen with an offset and a roll."""
    header = fits.Header()
    header.update({
        "CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN", "CUNIT1": "arcsec", "CUNIT2": "arcsec", "CRPIX1": 90.0,
        "CRPIX2": 110.0, "CRVAL1": 0.0, "CRVAL2": 0.0, "CDELT1": 12.0, "CDELT2": 12.0, "CROTA2": 30.0,
        "RSUN_OBS": 960.0, "DATE-OBS": "2020-01-01T00:00:00", "DSUN_OBS": 1.48e11, "HGLN_OBS": 0.0, "HGLT_OBS": 0.0,
        "WAVELNTH": 171, "TELESCOP": "MADE",
    } | cards)  # fmt: skip
    y, x = np.mgrid[:size, :size]
    lon, lat = WCS(header).all_pix2world(x, y, 0)
    lon, lat = ((lon + 180) % 360 - 180) * 3600, lat * 3600
    values = np.where(np.hypot(lon, lat) < 960, 100.0, 5.0) + 80 * np.exp(
        -((lon - 400) ** 2 + (lat - 500) ** 2) / 150**2
    )
    fits.PrimaryHDU(values.astype(np.float32), header).writeto(path)
    return path


def test_the_sun_is_in_the_middle_with_north_up(tmp_path: Path) -> None:
    scene = sg.open_fits()(disc(tmp_path / "a.fits"))
    step = sg.helio.registration((120, 160), radius=50.0)
    y, grid = step(scene.read(), grid=scene.grid), step.grid_after(scene.grid)
    assert y.shape == grid.shape == (120, 160)
    centre = grid.world_to_pixel(HPLN=0.0, HPLT=0.0)
    np.testing.assert_allclose([centre["y"], centre["x"]], [59.5, 79.5], atol=1e-9)
    limb = grid.world_to_pixel(HPLN=[0, 960 / 3600], HPLT=[960 / 3600, 0])
    np.testing.assert_allclose(limb["y"], [109.5, 59.5], atol=1e-9)
    np.testing.assert_allclose(limb["x"], [79.5, 129.5], atol=1e-9)
    row, col = np.unravel_index(np.nanargmax(y), y.shape)
    spot = grid.pixel_to_world(y=float(row), x=float(col))
    assert abs(spot["HPLN"] * 3600 - 400) < 20
    assert abs(spot["HPLT"] * 3600 - 500) < 20
    inside = np.hypot(*(np.mgrid[:120, :160] - np.array([59.5, 79.5]).reshape(2, 1, 1)))
    assert y[inside < 48].min() > 95
    assert np.nanmax(y[(inside > 52) & (inside < 60)]) < 20


@pytest.mark.parametrize(("order", "method", "near"), [(1, "linear", 2e-4), (0, "nearest", 0.0)])
def test_as_sunpy_rotates(tmp_path: Path, order: int, method: str, near: float) -> None:
    sunpy_map = pytest.importorskip("sunpy.map")
    path = disc(tmp_path / "a.fits", CROTA2=17.3)
    turned = sunpy_map.Map(path).rotate(
        recenter=True, order=order, scale=1.25, missing=np.nan, method="scipy"
    )
    scene = sg.open_fits()(path)
    y = sg.helio.registration(turned.data.shape, scale=12.0 / 1.25, method=method)(
        scene.read(), grid=scene.grid
    )
    both = np.isfinite(y) & np.isfinite(turned.data)
    assert both.mean() > 0.4
    differs = ~np.isclose(y[both], turned.data[both], rtol=1e-4, atol=near)
    assert differs.mean() < 2e-3  # a nearest pixel may be either one, half way between


def test_as_aiapy_registers(samples: Path) -> None:
    aiapy = pytest.importorskip("aiapy.calibrate")
    sunpy_map = pytest.importorskip("sunpy.map")
    path = samples / "helio" / AIA
    smap = sunpy_map.Map(path)
    smap.meta["crota2"], smap.meta["crpix1"], smap.meta["crpix2"] = 0.4, 509.1, 515.3
    for card in ("pc1_1", "pc1_2", "pc2_1", "pc2_2"):
        smap.meta.pop(card, None)
    smap = sunpy_map.Map(smap.data.astype(np.float64), smap.meta)
    theirs = aiapy.register(smap, order=1, method="scipy", missing=np.nan)
    header = smap.fits_header
    grid = Grid.of(("y", "x"), smap.data.shape, WcsLocator(header.tostring(), ("y", "x"), ("y", "x")))
    scale = float(theirs.scale[0].to_value("arcsec/pix"))
    ours = sg.helio.registration(theirs.data.shape, scale=scale)(smap.data, grid=grid)
    both = np.isfinite(ours) & np.isfinite(theirs.data)
    assert both.mean() > 0.9
    assert np.corrcoef(ours[both], theirs.data[both])[0, 1] > 0.99999
    np.testing.assert_allclose(ours[both], theirs.data[both], rtol=2e-2, atol=1.0)


@pytest.mark.parametrize("name", [AIA, "euvi_20090615_000900_n4euA_s.fts", "eit_l1_20020625_100011.fits"])
def test_windows_and_inverse_of_real_files(samples: Path, name: str) -> None:
    scene = sg.open_fits()(samples / "helio" / name)
    x = scene.read()
    step = sg.helio.registration(1200, radius=480.0, method="cubic")
    later = StepScene(scene, step, Draw(Run(), 0, 0))
    assert later.pushes_down
    whole = step(x, grid=scene.grid)
    window = Window(y=(301, 477), x=(100, 613))
    np.testing.assert_array_equal(later.read(window), whole[window.slices(scene.dims)])
    back = step.undo(whole, grid=scene.grid)
    known = np.isfinite(back)
    assert known.mean() > 0.5
    spread = np.std(x[known])
    assert np.sqrt(np.mean((back - x)[known] ** 2)) < 0.1 * spread
    smooth = np.broadcast_to(np.linspace(0, 1, x.shape[1]), x.shape).astype(np.float64)
    again = step.undo(step(smooth, grid=scene.grid), grid=scene.grid)
    inner = np.isfinite(
        np.roll(again, 4, 0) + np.roll(again, -4, 0) + np.roll(again, 4, 1) + np.roll(again, -4, 1)
    )
    inner[:4] = inner[-4:] = inner[:, :4] = inner[:, -4:] = False
    np.testing.assert_allclose(again[inner], smooth[inner], atol=1e-6)


def test_a_chain_predicts_on_the_pixels_of_the_file(tmp_path: Path) -> None:
    path = disc(tmp_path / "a.fits")
    chain = (
        sg.files(str(path), key="image")
        .key_transform("image", sg.open_fits())
        .key_transform("image", sg.helio.registration(128, radius=50.0))
        .key_transform("image", sg.patch(size=64))
    )
    assert "pushed down" in chain.explain()
    original = fits.getdata(path)
    (same,) = chain.batch(2).predict(lambda x: x, key="image")
    saved = same.save(tmp_path / "out.fits")
    assert WCS(fits.getheader(saved)).wcs.compare(WCS(fits.getheader(path)).wcs)
    known = np.isfinite(same.array)
    assert known.mean() > 0.5
    near = np.abs(same.array - original)[known]
    assert np.median(near) < 0.1
    (fine,) = chain.batch(2).predict(lambda x: x.repeat(2, -1).repeat(2, -2), key="image")
    assert fine.shape == (400, 400)
    assert fine.grid == sg.open_fits()(path).grid.coarsen(y=0.5, x=0.5)
    known = np.isfinite(fine.array)
    assert np.median(np.abs(fine.array - original.repeat(2, 0).repeat(2, 1))[known]) < 0.5


def test_a_registered_scene_is_saved_with_its_own_wcs(tmp_path: Path) -> None:
    path = disc(tmp_path / "a.fits")
    chain = sg.files(str(path), key="image").key_transform("image", sg.open_fits())
    chain = chain.key_transform("image", sg.helio.registration((120, 160), radius=50.0))
    scene = chain.scene("image")
    header = fits.getheader(scene.save(tmp_path / "b.fits"))
    assert (header["CRPIX1"], header["CRPIX2"], header["CRVAL1"]) == (80.5, 60.5, 0.0)
    assert abs(header["CDELT1"] - np.tan(960 * ARCSEC) / ARCSEC / 50) < 1e-9
    assert header.get("CROTA2", 0) == 0
    assert header["TELESCOP"] == "MADE"
    again = sg.open_fits()(tmp_path / "b.fits")
    assert again.grid == scene.grid
    np.testing.assert_array_equal(again.read(), scene.read())


def test_bands_go_with_their_pixels() -> None:
    cube = np.random.default_rng(0).random((3, 12, 17))
    step = sg.helio.registration((6, 8), radius=5.0)
    grid = SUN.insert(0, "band", 3)
    y = step(cube, grid=grid)
    assert step.grid_after(grid).dims == ("band", "y", "x")
    np.testing.assert_array_equal(y[1], step(cube[1], grid=SUN))
    turned = step(cube[1].T[::-1], grid=SUN.transpose("x", "y").flip("x"))
    np.testing.assert_allclose(turned, y[1].T, rtol=1e-9)


def test_other_projections_are_found_by_their_wcs() -> None:
    header = fits.Header({
        "NAXIS": 2, "NAXIS1": 60, "NAXIS2": 50, "CTYPE1": "HPLN-ARC", "CTYPE2": "HPLT-ARC", "CUNIT1": "arcsec",
        "CUNIT2": "arcsec", "CRPIX1": 30.0, "CRPIX2": 25.0, "CRVAL1": 0.0, "CRVAL2": 0.0, "CDELT1": 40.0,
        "CDELT2": 40.0, "RSUN_OBS": 960.0,
    })  # fmt: skip
    grid = Grid.of(("y", "x"), (50, 60), WcsLocator(header.tostring(), ("y", "x"), ("y", "x")))
    step = sg.helio.registration(49, scale=40.0)
    y, x = np.mgrid[:50, :60]
    found = step(x + 100.0 * y, grid=grid)
    dy, dx = np.mgrid[:49, :49] - 24.0
    angle = np.maximum(np.hypot(dy, dx), 1e-9) * 40 * ARCSEC
    shrunk = np.arctan(angle) / angle  # from tangents to angles
    expected = (29 + dx * shrunk) + 100 * (24 + dy * shrunk)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": 10}, "give either radius= in pixels or scale="),
        ({"shape": 10, "radius": 3.0, "scale": 0.6}, "give either radius= in pixels or scale="),
        ({"shape": 0, "radius": 3.0}, "shape=0 must be a number of pixels"),
        ({"shape": (4, 5, 6), "radius": 3.0}, "must be a number of pixels, or that of rows and of columns"),
        ({"shape": 10, "radius": -3.0}, "radius=-3 must be above 0"),
        ({"shape": 10, "scale": 0}, "scale=0 must be above 0"),
        (
            {"shape": 10, "scale": 1.0, "method": "spline"},
            "method='spline' must be one of nearest, linear, cubic",
        ),
        ({"shape": 10, "radius": 1.0, "rsun": -1.0}, "rsun=-1 arcsec must be above 0"),
    ],
)
def test_registration_checks_its_parameters(options: dict[str, Any], message: str) -> None:
    with pytest.raises(StepError, match=rf"helio.registration.*{message}"):
        sg.helio.registration(**options)


def test_registration_says_what_it_cannot_do() -> None:
    step = sg.helio.registration(10, radius=3.0)
    for grid in (PLANE, EARTH):
        with pytest.raises(StepError, match="needs a helioprojective WCS"):
            step(np.zeros(grid.shape), grid=grid)
    with pytest.raises(StepError, match="the array has shape"):
        step(np.zeros((3, 3)), grid=SUN)
    with pytest.raises(StepError, match=r"inverse of helio.registration: shape \(7, 10\)"):
        step.undo(np.zeros((7, 10)), grid=SUN)
    with pytest.raises((StepError, InverseError)):
        step.undo(np.zeros(10), grid=SUN)
