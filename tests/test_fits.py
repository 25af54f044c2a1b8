"""FITS source and sink against astropy on every real file, and on bad input."""

from __future__ import annotations

import gzip
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import streamgeo as sg
from streamgeo.errors import OpenError
from streamgeo.fits_cards import is_wcs
from streamgeo.scene import ArrayScene
from streamgeo.sources.fits import open_scene
from streamgeo.sources.stack import StackedScene
from streamgeo.window import Window
from tests.fits_files import (
    VIEWS,
    assert_agree,
    astropy_data,
    astropy_header,
    check_view,
    make,
    odd_file,
    ramp,
    same,
    windows,
)  # fmt: skip

SHARP = "sharp_377/hmi.sharp_cea_720s.377.20110215_020000_TAI."
REAL = {  # file, by the HDU of its image
    "AIA20110319_105400_0171.fits": 0,
    "aia_171_cutout.fits": 1,
    "eit_l1_20020625_100011.fits": 0,
    "efz20040301.010016_s.fits": 0,
    "swap_lv1_20120101_001607.fits": 0,
    **{f"{SHARP}{name}.fits": 1 for name in ("Br", "Bp", "Bt", "continuum")},
    "euvi_20090615_000900_n4euA_s.fts": 0,
    "mdi_fd_M_96m_01d.5874.0005_s.fits": 0,
    "trace_1998-05-19T22_21_43_171_1024.fits": 0,
    "HinodeXRT.fits": 0,
    "iris_l2_20130801_074720_4040000014_SJI_1400_t000.fits": 0,
    "iris_l2_20210905_001833_3620258102_SJI_1330_t000.fits": 0,
    "iris_l2_20210905_001833_3620258102_SJI_1400_t000.fits": 0,
    "BIR_20110922_103000_01.fit": 0,
}
FLAT = "iris_l2_20130801_074720_4040000014_SJI_1400_t000.fits"  # CDELT3 = 0: astropy cannot build its WCS
STRUCTURE = re.compile(
    r"SIMPLE|XTENSION|BITPIX|NAXIS\d*|PCOUNT|GCOUNT|EXTEND|CHECKSUM|DATASUM|DATA(MIN|MAX|MEAN|MEDN|RMS|SKEW|KURT|P\d\d)"
)
pytestmark = pytest.mark.filterwarnings("ignore:open_fits.*CDELT is 0", "ignore:.*BLANK.*")


@pytest.fixture(params=REAL)
def real(request, samples) -> tuple[Path, int]:
    return samples / "helio" / request.param, REAL[request.param]


# -- every real file ------------------------------------------------------------------------------------


def test_real_whole_equals_astropy(real):
    path, hdu = real
    scene = open_scene(str(path))
    assert same(scene.read(), astropy_data(path, hdu).astype(np.float32))
    assert (scene.shape, scene.dtype) == (scene.read().shape, np.float32)
    stored = astropy_data(path, hdu, do_not_scale_image_data=True)
    raw = open_scene(str(path), raw=True)
    assert same(raw.read(), stored)
    assert raw.dtype.isnative and raw.dtype == raw.read().dtype


def test_real_windows_equal_cuts_from_the_whole(real):
    path, hdu = real
    for raw in (False, True):
        scene = open_scene(str(path), raw=raw)
        whole = astropy_data(path, hdu, do_not_scale_image_data=raw).astype(scene.dtype)
        for window in windows(scene, 20, seed=raw):
            assert same(scene.read(window), whole[window.slices(scene.dims)])


def test_real_opens_from_headers_alone(real, monkeypatch):
    from astropy.io.fits.hdu.compressed.section import CompImageSection

    def no_pixels(*args):
        raise AssertionError("pixels were read")

    monkeypatch.setattr("streamgeo.sources.layouts.Mapped.read", no_pixels)
    monkeypatch.setattr("streamgeo.sources.fits_tiles.FitsTiles.read", no_pixels)
    monkeypatch.setattr(CompImageSection, "__getitem__", no_pixels)
    scene = open_scene(str(real[0]))
    assert (
        scene.dims[-2:] == ("y", "x")
        and scene.grid.shape == scene.shape
        and scene.template.dims == scene.dims
    )
    with pytest.raises((OpenError, AssertionError)):
        scene.read()


def test_real_attrs_are_the_header(real):
    path, hdu = real
    attrs, header = open_scene(str(path)).attrs, astropy_header(path, hdu)
    assert type(attrs) is dict
    for keyword in set(header) - {"COMMENT", "HISTORY", ""}:
        given = attrs[keyword]
        bare_nan = isinstance(given, float) and np.isnan(given) and "nan" in str(header[keyword]).lower()
        missing = given is None and isinstance(header[keyword], fits.card.Undefined)
        assert given == header[keyword] or bare_nan or missing, keyword
    for keyword in ("COMMENT", "HISTORY"):
        assert attrs.get(keyword, "") == "\n".join(str(line) for line in header.get(keyword, []))


@pytest.mark.parametrize("raw", [False, True])
def test_real_identity_round_trip(real, raw, tmp_path):
    path, hdu = real
    scene = open_scene(str(path), raw=raw)
    saved = scene.save(tmp_path / f"out{path.suffix}")
    with fits.open(saved, memmap=False) as hdus:
        hdus.verify("exception")
        assert len(hdus) == hdu + 1
        assert same(np.asarray(hdus[hdu].data, np.float32), astropy_data(path, hdu).astype(np.float32))
    if raw:
        stored = astropy_data(path, hdu, do_not_scale_image_data=True)
        assert same(astropy_data(saved, hdu, do_not_scale_image_data=True), stored)
    again = open_scene(str(saved), raw=raw)
    assert again.dims == scene.dims and again.grid == scene.grid and same(again.read(), scene.read())
    assert again.template.carry["hdus"] == (hdu,)


@pytest.mark.parametrize("raw", [False, True])
def test_real_header_cards_are_carried_over(real, raw, tmp_path):
    path, hdu = real
    saved = open_scene(str(path), raw=raw).save(tmp_path / "out.fits")
    before, after = astropy_header(path, hdu), fits.getheader(saved, hdu)
    may_go = set() if raw else {"BSCALE", "BZERO", "BLANK"}
    if before["BITPIX"] < 0:
        may_go |= {"BLANK"}
    kept = [
        card for card in before.cards if not STRUCTURE.fullmatch(card.keyword) and card.keyword not in may_go
    ]
    got = [card for card in after.cards if not STRUCTURE.fullmatch(card.keyword)]
    assert [(c.keyword, str(c.value), c.comment) for c in got] == [
        (c.keyword, str(c.value), c.comment) for c in kept
    ]
    if hdu:
        assert [c.keyword for c in fits.getheader(saved, 0).cards][:3] == ["SIMPLE", "BITPIX", "NAXIS"]


@pytest.mark.parametrize("view", VIEWS)
def test_real_wcs_follows_the_view(real, view, tmp_path):
    path, hdu = real
    scene = open_scene(str(path))
    grid = VIEWS[view](scene.grid)
    saved = ArrayScene(np.zeros(grid.shape, np.float32), grid, scene.template, name="x").save(
        tmp_path / "v.fits"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old, new = astropy_header(path, hdu), fits.getheader(saved, hdu)
        for key in "A " if "CTYPE1A" in old else " ":
            naxis = 2 if path.name == FLAT else None
            check_view(WCS(old, naxis=naxis, key=key), WCS(new, naxis=naxis, key=key), grid)
        if path.name != FLAT:
            assert_agree(grid.wcs, WCS(new), grid)
    assert open_scene(str(saved)).grid == grid
    for keyword in old:  # units, projections and reference values stay as they were
        if is_wcs(keyword) and not re.match("CRPIX|CDELT|CD|PC", keyword):
            assert new[keyword] == old[keyword], keyword


def test_real_files_make_the_same_sunpy_map(real, tmp_path):
    for needed in ("scipy", "reproject", "mpl_animators"):
        pytest.importorskip(needed, reason="sunpy.map needs it")
    sunpy_map = pytest.importorskip("sunpy.map")
    path, _ = real
    if "iris" in path.name or path.suffix == ".fit":
        pytest.skip("no map of the Sun in two dims")
    scene = open_scene(str(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, after = (sunpy_map.Map(str(file)) for file in (path, scene.save(tmp_path / path.name)))
        assert type(after) is type(before) and (after.date, after.unit) == (before.date, before.unit)
        assert np.array_equal(after.data, before.data.astype(np.float32), equal_nan=True)
        assert np.array_equal(after.rotation_matrix, before.rotation_matrix)
        assert after.wcs.wcs.compare(before.wcs.wcs)


def test_files_stack_to_a_cube_with_the_header_of_the_first(samples, tmp_path):
    scene = StackedScene(
        [open_scene(str(samples / "helio" / f"{SHARP}{name}.fits")) for name in ("Br", "Bp")]
    )
    saved = scene.save(tmp_path / "cube.fits")
    header = fits.getheader(saved, 1)
    assert same(astropy_data(saved, 1), scene.read()) and header["NAXIS3"] == 2
    assert (header["CRPIX1"], header["CTYPE2"], header["BUNIT"]) == (372.5, "CRLT-CEA", "Mx/cm^2")
    assert open_scene(str(saved)).dims == ("z", "y", "x")


def test_tables_only_names_them(samples):
    with pytest.raises(OpenError, match=r"tables and no image.*'FLUXES' \(table\).*Table\.read"):
        open_scene(str(samples / "helio" / "go1520110607.fits"))


def test_names_of_leading_dims(samples):
    scene = open_scene(str(samples / "helio" / "iris_l2_20210905_001833_3620258102_SJI_1330_t000.fits"))
    assert scene.dims == ("time", "y", "x") and scene.grid.spatial == ("y", "x")
    assert open_scene(str(samples / "helio" / "BIR_20110922_103000_01.fit")).dims == ("y", "x")


def test_flat_time_axis_counts_pixels_and_says_so(samples, tmp_path):
    path = samples / "helio" / FLAT
    with pytest.warns(UserWarning, match=r"CDELT is 0 on axis 3 \(Time\)"):
        grid = open_scene(str(path)).grid
    world = grid.pixel_to_world(time=1, y=10, x=20)
    sky = WCS(astropy_header(path, 0), naxis=2).all_pix2world(20, 10, 0)
    assert np.allclose([world["HPLN"], world["HPLT"]], sky, rtol=0, atol=1e-12)


# -- bad input ------------------------------------------------------------------------------------------


def test_bad_input_is_an_open_error(tmp_path):
    good = make(tmp_path / "good.fits", ramp(50, 60), compression="GZIP_1")
    (tmp_path / "empty.fits").write_bytes(b"")
    (tmp_path / "text.fits").write_text("not an image\n" * 500)
    (tmp_path / "noimage.fits").write_bytes(good.read_bytes()[:2880])
    cases = {
        "missing.fits": "no such file",
        "empty.fits": "0 bytes",
        ".": "folder",
        "text.fits": "No SIMPLE card",
        "noimage.fits": "no image with pixels",
    }
    for name, message in cases.items():
        with pytest.raises(OpenError, match=message):
            open_scene(str(tmp_path / name))
    for which, message in (
        (9, "no hdu 9"),
        ("sci", "no hdu 'sci'"),
        (0, "hdu 0 of good.fits holds no image"),
        ([], "names no"),
    ):
        with pytest.raises(OpenError, match=rf"{message}.*hdu 1 'COMPRESSED_IMAGE' \(50x60 image\)"):
            open_scene(str(good), hdu=which)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("compression", [None, "RICE_1", "GZIP_1"])
def test_truncated_files_are_open_errors(compression, tmp_path):
    whole = make(
        tmp_path / "a.fits",
        np.random.default_rng(0).integers(0, 999, (91, 80), "i2"),
        compression=compression,
    )
    content, expected = whole.read_bytes(), open_scene(str(whole)).read()
    cut = tmp_path / "cut.fits"
    outcomes = set()
    for size in sorted({*range(1, len(content), 997), *(len(content) - i for i in range(1, 2890, 7))}):
        cut.write_bytes(content[:size])
        try:
            assert same(open_scene(str(cut)).read(), expected)  # only padding is gone
            outcomes.add("whole")
        except OpenError:
            outcomes.add("error")
    assert outcomes == {"whole", "error"}


def test_a_huge_claim_is_no_allocation(tmp_path):
    path = Path(odd_file(tmp_path / "a.fits", []))
    claim = f"NAXIS1  = {2**40:20d}".ljust(80).encode()
    path.write_bytes(path.read_bytes().replace(f"NAXIS1  = {5:20d}".ljust(80).encode(), claim))
    with pytest.raises(
        OpenError, match=r"truncated: the pixels of hdu 0 take 8796093022208 bytes from byte 2880"
    ):
        open_scene(str(path))


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(at=st.integers(0, 8639), byte=st.integers(0, 255), compression=st.sampled_from([None, "GZIP_1"]))
def test_a_flipped_header_byte_never_crashes(tmp_path_factory, at, byte, compression):
    path = make(
        tmp_path_factory.mktemp("fuzz") / "a.fits", ramp(12, 11, dtype="i2"), 2.0, 1.0, 5, compression
    )
    content = bytearray(path.read_bytes())
    content[at % (len(content) - 2880)] = byte
    path.write_bytes(content)
    try:
        scene = open_scene(str(path))
        assert scene.read(Window(x=(0, 1), y=(0, 1))).shape[-2:] == (1, 1) and scene.grid.dims == scene.dims
        assert scene.template.attrs["BITPIX"]
    except OpenError:
        pass


def test_a_packed_file_is_told_by_what_is_in_it(tmp_path):
    fits.PrimaryHDU(np.arange(12, dtype="i2").reshape(3, 4)).writeto(tmp_path / "a.fits.gz")
    assert sg.open()(str(tmp_path / "a.fits.gz")).read().tolist() == np.arange(12.0).reshape(3, 4).tolist()
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"something else"))
    (tmp_path / "c.gz").write_bytes((tmp_path / "a.fits.gz").read_bytes()[:12])
    for name in ("b.gz", "c.gz"):
        with pytest.raises(sg.OpenError, match="none of FITS"):
            sg.open()(str(tmp_path / name))
