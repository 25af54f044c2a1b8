from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

import streamgeo as sg
from streamgeo.errors import ChainError, MissingKeyError, SampleError, StepError
from streamgeo.helio import select
from streamgeo.sources.fits import FitsScene

GOOD = {
    "CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN", "CUNIT1": "arcsec", "CUNIT2": "arcsec", "CRPIX1": 4.5, "CRPIX2": 4.5,
    "CRVAL1": 0.0, "CRVAL2": 0.0, "CDELT1": 300.0, "CDELT2": 300.0, "RSUN_OBS": 960.0,
    "DATE-OBS": "2020-01-01T00:00:00", "WAVELNTH": 171,
}  # fmt: skip


def write(path: Path, value: float = 0.0, **cards: Any) -> str:
    header = fits.Header()
    header.update(GOOD | {"QUALITY": 0, "EXPTIME": 2.0, "MISSVALS": 0, "TOTVALS": 64} | cards)
    fits.PrimaryHDU(np.full((8, 8), value, np.float32), header).writeto(path)
    return str(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty files, of which numbers 3, 7 and 12 are bad."""
    bad = {3: {"QUALITY": 1 << 18}, 7: {"EXPTIME": 0.05}, 12: {"MISSVALS": 40}}
    for number in range(20):
        write(tmp_path / f"{number:02d}.fits", number, **bad.get(number, {}))
    return tmp_path


CHECKS = (select.quality(), select.exposure(1.0), select.missing_values(0.1))


def opened(folder: Path) -> sg.Buffer:
    return sg.files(str(folder / "*.fits"), key="image").key_transform("image", sg.open_fits())


def numbers(chain: Any) -> list[int]:
    return [int(np.ravel(sample["image"])[0]) for sample in chain]


GOOD_ONES = [n for n in range(20) if n not in (3, 7, 12)]


def test_only_good_files_come_and_the_others_are_told(folder: Path) -> None:
    chain = opened(folder).filter_by_attrs("image", *CHECKS)
    assert isinstance(chain, sg.Buffer)
    assert len(chain) == 17
    assert numbers(chain) == GOOD_ONES
    assert int(chain[-1]["image"][0, 0]) == 19
    assert chain.left_out() == {
        "03.fits": "QUALITY=0x00040000: bit 18 is set",
        "07.fits": "EXPTIME=0.05 s is not above 1 s",
        "12.fits": "MISSVALS=40 of 64 is more than 10 %",
    }
    assert "filter_by_attrs('image', sg.helio.select.quality(), sg.helio.select.exposure(1.0)" in repr(chain)


def test_no_pixel_is_read_to_choose(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FitsScene, "_read_into", None)
    chain = opened(folder).filter_by_attrs("image", *CHECKS).key_transform("image", sg.patch(size=4))
    assert len(chain) == 17 * 4
    with pytest.raises(SampleError):
        chain[0]


def test_it_goes_with_the_rest_of_a_chain(folder: Path) -> None:
    chain = opened(folder).filter_by_attrs("image", *CHECKS)
    patches = chain.key_transform("image", sg.normalize(1.0, 2.0)).key_transform("image", sg.patch(size=4))
    alone = numbers(patches.shuffle(seed=1).batch(4))
    assert alone == numbers(patches.shuffle(seed=1).batch(4).prefetch(3, 4))
    assert sorted(set(numbers(chain.shuffle(seed=3)))) == GOOD_ONES
    assert sorted(numbers(opened(folder).shuffle(seed=3).filter_by_attrs("image", *CHECKS))) == GOOD_ONES
    scenes = list(patches.batch(4).predict(lambda x: x, key="image"))
    assert [scene.name for scene in scenes] == [f"{n:02d}.fits" for n in GOOD_ONES]
    assert all(np.all(scene.array == n) for scene, n in zip(scenes, GOOD_ONES))
    stream = patches.shuffle(seed=1).batch(4).to_stream()
    iterator = iter(stream)
    first = [next(iterator) for _ in range(3)]
    other = pickle.loads(pickle.dumps(stream))
    other.load_state_dict(stream.state_dict())
    assert [*numbers(first), *numbers(other)] == alone
    assert numbers(pickle.loads(pickle.dumps(chain))) == GOOD_ONES
    cached = chain.cache() if hasattr(chain, "cache") else chain
    assert numbers(cached) == numbers(cached) == GOOD_ONES
    assert "filter_by_attrs" in patches.explain()
    assert "filter_by_attrs" in patches._repr_html_()


def test_plain_functions_and_streams(folder: Path) -> None:
    lacking = opened(folder).filter_by_attrs("image", lambda attrs: attrs["NONE"] == 0)
    with pytest.raises(SampleError, match=r"sample 0: filter_by_attrs failed on 00.fits: KeyError: 'NONE'"):
        len(lacking)
    chain = opened(folder).filter_by_attrs("image", lambda attrs: attrs["QUALITY"] == 0)
    assert len(chain) == 19
    assert "does not hold" in chain.left_out()["03.fits"]
    stream = opened(folder).to_stream().filter_by_attrs("image", *CHECKS)
    assert isinstance(stream, sg.Stream)
    assert numbers(stream) == numbers(stream) == GOOD_ONES
    with pytest.raises(TypeError, match="no length"):
        len(stream)
    with pytest.raises(ChainError, match="left_out: a stream knows its files at its end only"):
        stream.left_out()
    assert numbers(stream.key_transform("image", sg.patch(size=8)).prefetch(2, 2)) == GOOD_ONES


def test_files_that_cannot_be_opened(folder: Path) -> None:
    (folder / "05.fits").write_bytes(b"no FITS")
    chain = opened(folder).filter_by_attrs("image", *CHECKS)
    with pytest.raises(SampleError, match=r"sample 5.*05.fits"):
        len(chain)
    stream = chain.to_stream().on_error("skip", limit=1)
    assert numbers(stream) == [n for n in GOOD_ONES if n != 5]
    assert len(stream.skipped) == 1


def test_what_has_no_header(folder: Path) -> None:
    with pytest.raises(StepError, match="filter_by_attrs: give functions of a header"):
        opened(folder).filter_by_attrs("image")
    with pytest.raises(StepError, match="give functions of a header, not .'QUALITY',"):
        opened(folder).filter_by_attrs("image", "QUALITY")  # type: ignore[arg-type]
    plain = sg.buffer_from_vector([{"x": np.zeros(3)}])
    with pytest.raises(SampleError, match="'x' comes from no file, so it has no header") as error:
        len(plain.filter_by_attrs("x", bool))
    assert isinstance(error.value.__cause__, ChainError)
    with pytest.raises(SampleError) as error:
        len(plain.filter_by_attrs("y", bool))
    assert isinstance(error.value.__cause__, MissingKeyError)


@pytest.mark.parametrize(
    ("check", "attrs", "reason"),
    [
        (select.quality(), {"QUALITY": "0x40000000"}, "QUALITY=0x40000000: bit 30 is set"),
        (select.quality(30), {"QUALITY": 1 << 30}, None),
        (select.quality([30, 2]), {"QUALITY": 0b1101 + (1 << 30)}, "QUALITY=0x4000000d: bits 0, 3 are set"),
        (select.quality(), {"QUALITY": -1}, "bits 0, 1, 2"),
        (select.quality(), {}, "the header has no QUALITY"),
        (select.quality(absent=True), {}, None),
        (select.quality(card="QUALLEV0"), {"QUALLEV0": 4.0, "QUALITY": 0}, "QUALLEV0=0x00000004: bit 2 is set"),
        (select.quality(), {"QUALITY": "good"}, "QUALITY='good' is not a number"),
        (select.exposure(), {"XPOSURE": 0.0}, "XPOSURE=0 s is not above 0 s"),
        (select.exposure(1, 3), {"EXPTIME": 3.5}, "EXPTIME=3.5 s is above 3 s"),
        (select.exposure(1, 3), {"EXPTIME": 3}, None),
        (select.exposure(card="SHT_MDUR"), {"EXPTIME": 1.0}, "the header has no SHT_MDUR with a number"),
        (select.quality(), {"QUALITY": -(1 << 31)}, "QUALITY=0x80000000: bit 31 is set"),
        (select.quality(31), {"QUALITY": -(1 << 31)}, None),
        (select.quality(), {"QUALITY": -(1 << 63) + 2}, "QUALITY=0x8000000000000002: bits 1, 63 are set"),
        (select.missing_values(), {"MISSVALS": 0}, None),
        (select.missing_values(), {"MISSVALS": 1}, "MISSVALS=1 is more than 0"),
        (select.missing_values(9), {"MISSVALS": 16235149}, "MISSVALS=16235149 is more than 9"),
        (select.missing_values(2), {"MISSVALS": 2}, None),
        (select.missing_values(0.5), {"MISSVALS": 2}, "the header has no TOTVALS above 0"),
        (select.missing_values(0.5), {"MISSVALS": 2, "TOTVALS": 4}, None),
        (select.missing_values(), {}, "the header has no MISSVALS with a number"),
        (select.missing_values(absent=True), {"MISSVALS": ""}, None),
        (select.valid(), GOOD, None),
        (select.valid("exposure", "wavelength"), GOOD, "the header has no EXPTIME or XPOSURE with a number"),
        (select.valid("wavelength"), {"WAVELNTH": 0}, "WAVELNTH is not a number above 0"),
        (select.valid(), GOOD | {"CTYPE1": "RA---TAN"}, "CTYPE1 and CTYPE2 are not helioprojective: RA---TAN and HPLT"),
        (select.valid(), GOOD | {"CDELT2": 0.0, "CRVAL1": "nan"}, "CRVAL1 is not a number; CDELT2 is 0"),
        (select.valid(), {k: v for k, v in GOOD.items() if k[:5] != "CDELT"} | {"CD1_1": 2.0}, None),
        (select.valid("date"), GOOD | {"DATE-OBS": "yesterday"}, "DATE-OBS='yesterday' is not a date"),
        (select.valid("date"), {}, "none of T_OBS, DATE-OBS"),
        (select.valid("date"), {"T_OBS": "2011.02.15_00:00:41.30_TAI"}, None),
        (select.valid("radius"), {}, "no solar radius"),
        (select.valid("radius"), {"DATE-OBS": "2020-01-01"}, None),
    ],
)  # fmt: skip
def test_checks_and_their_reasons(check: select.Check, attrs: dict[str, Any], reason: str | None) -> None:
    why = check.why(attrs)
    assert (why is None) == (reason is None)
    assert (reason or "") in (why or "")
    assert check(attrs) == (reason is None)
    again = eval(repr(check), {"sg": sg})
    assert again == check
    assert pickle.loads(pickle.dumps(check)) == check


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: select.quality(64), "bit 64 must be a whole number from 0 to 63"),
        (lambda: select.exposure(3, 1), "low=3 s must be below high=1 s"),
        (lambda: select.missing_values(-1), "most=-1 must be 0 or more"),
        (
            lambda: select.valid("pointing"),
            "'pointing' must be one of wcs, date, radius, exposure, wavelength",
        ),
    ],
)
def test_what_checks_refuse(make: Any, message: str) -> None:
    with pytest.raises(StepError, match=message):
        make()


VALID = ("AIA20110319_105400_0171.fits", "swap_lv1_20120101_001607.fits", "eit_l1_20020625_100011.fits",
         "HinodeXRT.fits", "euvi_20090615_000900_n4euA_s.fts", "aia_171_cutout.fits",
         "mdi_fd_M_96m_01d.5874.0005_s.fits", "trace_1998-05-19T22_21_43_171_1024.fits")  # fmt: skip


@pytest.mark.filterwarnings("ignore:open_fits")
def test_real_headers(samples: Path) -> None:
    for name in VALID:
        assert sg.helio.validate(sg.open_fits()(samples / "helio" / name).attrs) == [], name
    sharp = sg.open_fits()(
        samples / "helio/sharp_377/hmi.sharp_cea_720s.377.20110215_020000_TAI.continuum.fits"
    )
    assert any("CRLN-CEA" in reason for reason in sg.helio.validate(sharp.attrs))
    radio = sg.open_fits()(samples / "helio" / "BIR_20110922_103000_01.fit")
    assert len(sg.helio.validate(radio.attrs, "wcs", "wavelength")) >= 2
    paths = [str(samples / "helio" / name) for name in VALID]
    chain = sg.files(paths, key="image").key_transform("image", sg.open_fits())
    kept = chain.filter_by_attrs("image", select.exposure(1.0), select.valid())
    assert 0 < len(kept) < len(paths)
    assert len(kept) + len(kept.left_out()) == len(paths)


IMAGES = (*VALID, "efz20040301.010016_s.fits", "iris_l2_20130801_074720_4040000014_SJI_1400_t000.fits",
          "iris_l2_20210905_001833_3620258102_SJI_1330_t000.fits", "BIR_20110922_103000_01.fit",
          "sharp_377/hmi.sharp_cea_720s.377.20110215_020000_TAI.Br.fits")  # fmt: skip


@pytest.mark.filterwarnings("ignore:open_fits")
@pytest.mark.parametrize(
    ("check", "kept", "reasons"),
    [
        (
            select.quality(), 2,
            {"AIA20110319_105400_0171.fits": "QUALITY=0x40000000: bit 30 is set",
             "mdi_fd_M_96m_01d.5874.0005_s.fits": "QUALITY=0x00000200: bit 9 is set",
             "swap_lv1_20120101_001607.fits": "the header has no QUALITY"},
        ),
        (select.quality((9, 30), absent=True), 13, {}),
        (
            select.exposure(1.5), 8,
            {"iris_l2_20130801_074720_4040000014_SJI_1400_t000.fits": "EXPTIME=0.99997 s is not above 1.5 s",
             "BIR_20110922_103000_01.fit": "the header has no EXPTIME or XPOSURE with a number"},
        ),
        (
            select.missing_values(0.5, absent=True), 10,
            {"aia_171_cutout.fits": "MISSVALS=16235071 of 16777216 is more than 50 %"},
        ),
        (
            select.valid("wcs"), 11,
            {"hmi.*Br.fits": "CTYPE1 and CTYPE2 are not helioprojective: CRLN-CEA and CRLT-CEA"},
        ),
        (lambda attrs: attrs.get("WAVELNTH") == 171, 4, {"swap_lv1.*": "<lambda> does not hold"}),
    ],
)  # fmt: skip
def test_each_check_on_real_files_reads_no_pixel(
    samples: Path, monkeypatch: pytest.MonkeyPatch, check: Any, kept: int, reasons: dict[str, str]
) -> None:
    monkeypatch.setattr(FitsScene, "_read_into", None)
    monkeypatch.setattr(FitsScene, "_read", None)
    paths = [str(samples / "helio" / name) for name in IMAGES]
    chain = (
        sg.files(paths, key="image").key_transform("image", sg.open_fits()).filter_by_attrs("image", check)
    )
    assert len(chain) == kept
    left_out = {Path(name).name: reason for name, reason in chain.left_out().items()}
    assert len(left_out) == len(paths) - kept
    for name, reason in reasons.items():
        assert [found for file, found in left_out.items() if re.match(name, file)] == [reason]
