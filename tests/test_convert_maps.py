"""Maps of sunpy in and out, and functions of maps as steps."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

import streamgeo as sg
from streamgeo.errors import GridError, InverseError, SampleError, StepError
from streamgeo.helio import on_map

sunpy_map = pytest.importorskip("sunpy.map")

FILES = ("AIA20110319_105400_0171.fits", "HinodeXRT.fits", "aia_171_cutout.fits", "efz20040301.010016_s.fits",
         "eit_l1_20020625_100011.fits", "euvi_20090615_000900_n4euA_s.fts", "mdi_fd_M_96m_01d.5874.0005_s.fits",
         "swap_lv1_20120101_001607.fits", "trace_1998-05-19T22_21_43_171_1024.fits")  # fmt: skip
CARDS = {
    "CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN", "CUNIT1": "arcsec", "CUNIT2": "arcsec", "CRPIX1": 20.0, "CRPIX2": 17.0,
    "CRVAL1": 3.0, "CRVAL2": -4.0, "CDELT1": 60.0, "CDELT2": 50.0, "CROTA2": 20.0, "RSUN_OBS": 960.0,
    "DSUN_OBS": 1.5e11, "HGLN_OBS": 0.0, "HGLT_OBS": 3.0, "DATE-OBS": "2020-01-01T00:00:00", "BUNIT": "DN",
    "EXPTIME": 2.0, "OBSERVER": "someone",
}  # fmt: skip
VALUES = np.random.default_rng(0).normal(100, 20, (32, 40)).astype(np.float32)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Old headers: sunpy and astropy tell each card that they mend."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="sunpy|astropy")
        yield


@pytest.fixture
def path(tmp_path: Path) -> str:
    header = fits.Header()
    header.update(CARDS)
    fits.PrimaryHDU(VALUES, header).writeto(tmp_path / "image.fits")
    return str(tmp_path / "image.fits")


def opened(path: str) -> sg.Buffer:
    return sg.files([path], key="image").key_transform("image", sg.open_fits())


def same_world(a: Any, b: Any, *, atol: float = 1e-9) -> None:
    rows, cols = (n - 1 for n in b.data.shape)
    x, y = np.array([0.0, cols, 0, cols, cols / 3]), np.array([0.0, 0, rows, rows, rows / 5])
    for mine, theirs in zip(a.wcs.pixel_to_world_values(x, y), b.wcs.pixel_to_world_values(x, y)):
        np.testing.assert_allclose(mine, theirs, atol=atol)


# -- to_map -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_a_scene_is_the_map_that_sunpy_opens(samples: Path, name: str) -> None:
    path = str(samples / "helio" / name)
    mine, theirs = sg.open_fits()(path).to_map(), sunpy_map.Map(path)
    assert type(mine) is type(theirs)
    assert mine.date == theirs.date
    np.testing.assert_allclose(mine.data, theirs.data.astype(np.float32), rtol=1e-6)
    same_world(mine, theirs)


def test_the_grid_of_a_scene_goes_with_it(path: str) -> None:
    chain = (
        opened(path)
        .key_transform("image", sg.crop(y=slice(4, 30), x=slice(5, 29)))
        .key_transform("image", sg.flip("x"))
        .key_transform("image", sg.remote.downsample(2))
    )
    made, whole = chain.scene("image").to_map(), sunpy_map.Map(path)
    assert made.data.shape == (13, 12)
    x, y = np.meshgrid(np.arange(12.0), np.arange(13.0))
    for mine, theirs in zip(
        made.wcs.pixel_to_world_values(x, y),
        whole.wcs.pixel_to_world_values(28 - (2 * x + 0.5), 4 + 2 * y + 0.5),
    ):
        np.testing.assert_allclose(mine, theirs, atol=1e-9)
    assert made.meta["observer"] == "someone"
    assert made.unit == whole.unit


def test_what_is_no_map(path: str, tmp_path: Path) -> None:
    with pytest.raises(GridError, match="a map is one image"):
        sg.open_fits()([path, path]).to_map()
    np.save(tmp_path / "plain.npy", VALUES)
    with pytest.raises(GridError, match="a map needs a FITS WCS"):
        sg.open_numpy()(tmp_path / "plain.npy").to_map()


# -- from_maps --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_maps_go_through_a_chain_and_are_saved(samples: Path, tmp_path: Path, name: str) -> None:
    smap = sunpy_map.Map(str(samples / "helio" / name))
    chain = (
        sg.from_maps(smap)
        .key_transform("image", sg.normalize(mean=10.0, std=3.0))
        .key_transform("image", sg.patch(size=64, stride=48))
    )
    (scene,) = chain.batch(8).predict(lambda x: x, key="image")
    again = sunpy_map.Map(str(scene.save(tmp_path / "out.fits")))
    spread = float(np.nanmax(np.abs(smap.data)))
    np.testing.assert_allclose(again.data, smap.data, rtol=1e-6, atol=1e-6 * spread)
    assert type(again) is type(smap) and again.date == smap.date
    same_world(again, smap)


def test_several_maps_are_several_samples(path: str) -> None:
    smap = sunpy_map.Map(path)
    for maps in ([smap, smap], sunpy_map.Map([path, path], sequence=True), iter([smap, smap])):
        chain = sg.from_maps(maps, key="sun")
        assert len(chain) == 2
        np.testing.assert_array_equal(chain[1]["sun"], VALUES)


def test_maps_that_sunpy_changed(path: str) -> None:
    """Cut, rotated and resampled by sunpy: its WCS is what counts."""
    import astropy.units as u

    smap = sunpy_map.Map(path)
    changed = [
        smap.submap([5, 6] * u.pix, width=20 * u.pix, height=12 * u.pix),
        smap.rotate(20 * u.deg, missing=np.nan),
        smap.resample([20, 16] * u.pix),
    ]
    chain = sg.from_maps(changed)
    for number, one in enumerate(changed):
        np.testing.assert_allclose(chain[number]["image"], one.data)
        same_world(chain.scene("image", number).to_map(), one)


def test_kinds_of_values(path: str) -> None:
    header = dict(CARDS)
    mask = np.zeros(VALUES.shape, bool)
    mask[3, 4] = True
    maps = [
        sunpy_map.Map(VALUES.astype(np.float64), header),
        sunpy_map.Map(VALUES.astype(np.int16), header),
        sunpy_map.Map(VALUES.astype(">f4"), header),
        sunpy_map.Map(VALUES, header, mask=mask),
        sunpy_map.Map(VALUES.astype(np.uint8), header, mask=mask),
    ]
    samples = [sample["image"] for sample in sg.from_maps(maps)]
    assert [x.dtype.name for x in samples] == ["float64", "float32", "float32", "float32", "float32"]
    assert all(x.dtype.isnative for x in samples)
    for x in samples[3:]:
        np.testing.assert_array_equal(np.isnan(x), mask)
    np.testing.assert_array_equal(samples[1], VALUES.astype(np.int16))


def test_lazy_maps_are_read_by_window(path: str) -> None:
    array = pytest.importorskip("dask.array")
    seen = []

    def block(x: Any, block_info: Any = None) -> Any:
        if block_info is not None and block_info != []:
            seen.append(block_info[0]["chunk-location"])
        return x

    lazy = array.from_array(VALUES, chunks=(16, 20)).map_blocks(block, dtype=np.float32)
    chain = sg.from_maps(sunpy_map.Map(lazy, CARDS)).key_transform("image", sg.patch(size=16))
    seen.clear()
    np.testing.assert_array_equal(chain[0]["image"], VALUES[:16, :16])
    assert set(seen) == {(0, 0)}


def test_chains_of_maps_pickle(path: str) -> None:
    chain = pickle.loads(pickle.dumps(sg.from_maps(sunpy_map.Map(path))))
    np.testing.assert_array_equal(chain[0]["image"], VALUES)
    assert chain.scene("image").attrs["OBSERVER"] == "someone"


def test_what_from_maps_refuses() -> None:
    with pytest.raises(StepError, match="give a map, or several"):
        sg.from_maps([])
    with pytest.raises(StepError, match="ndarray is no map of sunpy"):
        sg.from_maps([VALUES])
    with pytest.raises(StepError, match="int is no map of sunpy"):
        sg.from_maps(7)


# -- functions of maps as steps -----------------------------------------------------------------------------------


def doubled(smap: Any) -> Any:
    return sunpy_map.Map(smap.data * 2, smap.meta)


def halved(smap: Any) -> Any:
    return sunpy_map.Map(smap.data / 2, smap.meta)


def in_arcsec(smap: Any) -> Any:
    """Each pixel's distance from disc centre, so that it shows whether header and WCS are there."""
    where = sunpy_map.all_coordinates_from_map(smap)
    return sunpy_map.Map(np.hypot(where.Tx.value, where.Ty.value), smap.meta)


def test_a_function_of_maps_and_its_inverse(path: str) -> None:
    chain = opened(path).key_transform("image", on_map(doubled, halved))
    np.testing.assert_allclose(chain[0]["image"], 2 * VALUES)
    (scene,) = chain.key_transform("image", sg.patch(16, 8)).batch(4).predict(lambda x: x, key="image")
    np.testing.assert_allclose(scene.array, VALUES, rtol=1e-6)
    pickle.loads(pickle.dumps(chain))
    with pytest.raises(InverseError, match="has no inverse"):
        opened(path).key_transform("image", on_map(doubled)).predict(lambda x: x, key="image")


def test_each_window_gets_its_own_place(path: str) -> None:
    chain = opened(path).key_transform("image", on_map(in_arcsec, reach=sg.POINT))
    whole = in_arcsec(sunpy_map.Map(path)).data
    np.testing.assert_allclose(chain[0]["image"], whole, rtol=1e-5)
    for sample in chain.key_transform("image", sg.patch(16)):
        (y0, y1), (x0, x1) = sample["image.window"]
        np.testing.assert_allclose(sample["image"], whole[y0:y1, x0:x1], rtol=1e-5)


def test_a_function_that_moves_pixels_says_where_to(path: str) -> None:
    import astropy.units as u

    def shrunk(smap: Any) -> Any:
        return smap.superpixel([2, 2] * u.pix, func=np.mean)

    step = on_map(shrunk, grid=lambda grid: grid.coarsen(y=2, x=2))
    chain = opened(path).key_transform("image", step)
    np.testing.assert_allclose(chain[0]["image"], VALUES.reshape(16, 2, 20, 2).mean((1, 3)), rtol=1e-6)
    with pytest.raises(
        SampleError, match=r"returned shape \(16, 20\), not \(32, 40\); say what it does to the grid"
    ):
        opened(path).key_transform("image", on_map(shrunk))[0]


def test_the_map_is_one_of_the_instrument(samples: Path) -> None:
    """With its exposure time and its observer, as functions of aiapy ask for."""
    path = str(samples / "helio" / "aia_171_cutout.fits")
    smap = sunpy_map.Map(path)
    seen = []

    def look(given: Any) -> Any:
        seen.append(type(given).__name__)
        assert given.observer_coordinate.separation(smap.observer_coordinate).arcsec < 1e-6
        return sunpy_map.Map(given.data / given.exposure_time.value, given.meta)

    found = opened(path).key_transform("image", on_map(look))[0]["image"]
    np.testing.assert_allclose(found, smap.data / smap.exposure_time.value, rtol=1e-6)
    assert seen == ["AIAMap"]


def test_what_is_masked_becomes_nan(path: str) -> None:
    def cold(smap: Any) -> Any:
        return sunpy_map.Map(smap.data, smap.meta, mask=smap.data < 100)

    np.testing.assert_array_equal(
        opened(path).key_transform("image", on_map(cold))[0]["image"], np.where(VALUES < 100, np.nan, VALUES)
    )


def test_the_input_is_not_written_to(path: str) -> None:
    def zeroed(smap: Any) -> Any:
        smap.data[:] = 0
        return smap

    x = VALUES.copy()
    grid = sg.open_fits()(path).grid
    assert not on_map(zeroed)(x, grid=grid).any()
    np.testing.assert_array_equal(x, VALUES)


WRONG: list[tuple[Any, str]] = [
    (lambda smap: smap.data, "returned ndarray; it must return a map"),
    (lambda smap: sunpy_map.Map(smap.data, {**smap.meta, "crval1": 33.0}), "the function moved the image"),
]


@pytest.mark.parametrize(("f", "message"), WRONG)
def test_functions_that_do_not_keep_their_word(path: str, f: Any, message: str) -> None:
    with pytest.raises(SampleError, match=message):
        opened(path).key_transform("image", on_map(f))[0]


def test_what_is_no_function() -> None:
    with pytest.raises(StepError, match="inverse=3 is not a function"):
        on_map(doubled, 3)  # type: ignore[arg-type]
