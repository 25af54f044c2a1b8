"""Files of several channels by observation time: who belongs to whom, who is left out, and what chains make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.units import Quantity
from hypothesis import given, settings
from hypothesis import strategies as st

import streamgeo as sg
from streamgeo.errors import OpenError, StepError
from streamgeo.helio import match_channels, select
from streamgeo.helio.channels import nearest_pairs
from streamgeo.sources.fits import FitsScene

CARDS = {
    "CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN", "CUNIT1": "arcsec", "CUNIT2": "arcsec", "CRPIX1": 16.5, "CRPIX2": 16.5,
    "CRVAL1": 0.0, "CRVAL2": 0.0, "CDELT1": 80.0, "CDELT2": 80.0, "RSUN_OBS": 960.0, "QUALITY": 0,
}  # fmt: skip


def write(folder: Path, channel: str, seconds: float | None, value: float = 0.0, **cards: Any) -> str:
    """A file of a channel at some seconds after noon."""
    folder.mkdir(exist_ok=True)
    header = fits.Header()
    minute, rest = divmod(seconds or 0.0, 60)
    time = {} if seconds is None else {"T_OBS": f"2020-01-01T12:{int(minute):02d}:{rest:05.2f}Z"}
    header.update(CARDS | time | {"WAVELNTH": int(channel)} | cards)
    path = folder / f"{channel}_{'none' if seconds is None else f'{seconds:07.2f}'}.fits"
    y, x = np.mgrid[:32, :32]
    fits.PrimaryHDU((value + 0.01 * x + 0.1 * y).astype(np.float32), header).writeto(path)
    return str(path)


def names(matched: Any) -> list[tuple[str, ...]]:
    return [tuple(Path(path).stem for path in group) for group in matched]


def reasons(matched: Any) -> dict[str, str]:
    return {Path(path).stem: reason for path, reason in matched.left_out.items()}


def test_each_time_has_all_channels(tmp_path: Path) -> None:
    for seconds in (0, 12, 24, 36, 48):
        write(tmp_path, "171", seconds)
    for seconds in (6.5, 13, 23, 50, 200):
        write(tmp_path, "193", seconds)
    for seconds in (1, 11, 37, 47):
        write(tmp_path, "211", seconds)
    matched = match_channels({c: str(tmp_path / f"{c}_*.fits") for c in ("171", "193", "211")}, 8.0)
    assert names(matched) == [
        ("171_0000.00", "193_0006.50", "211_0001.00"),
        ("171_0012.00", "193_0013.00", "211_0011.00"),
        ("171_0048.00", "193_0050.00", "211_0047.00"),
    ]
    assert reasons(matched) == {
        "171_0024.00": "no 211 within 8 s; the nearest is 13 s away",
        "171_0036.00": "no 193 within 8 s; the nearest is 13 s away",
        "193_0023.00": "it belongs to 171_0024.00.fits, which has no 211 within 8 s; the nearest is 13 s away",
        "193_0200.00": "no 171 within 8 s; the nearest is 152 s away",
        "211_0037.00": "it belongs to 171_0036.00.fits, which has no 193 within 8 s; the nearest is 13 s away",
    }
    assert repr(matched) == "<3 times of 171, 193, 211; 5 files left out>"
    assert [Path(v).stem for v in matched.samples[1].values()] == [
        "171_0012.00",
        "193_0013.00",
        "211_0011.00",
    ]
    near = {"171": [group[0] for group in matched], "193": [group[1] for group in matched]}
    assert len(match_channels(near, Quantity(0.05, "min"))) == 2


def test_why_a_file_has_no_partner(tmp_path: Path) -> None:
    first = [write(tmp_path / "a", "171", 0), write(tmp_path / "a", "171", 2)]
    matched = match_channels({"171": first, "193": [write(tmp_path / "b", "193", 3)]}, 12.0)
    assert names(matched) == [("171_0002.00", "193_0003.00")]
    assert reasons(matched) == {"171_0000.00": "no 193 within 12 s that has not a nearer one"}
    bad = [write(tmp_path / "c", "193", 3, QUALITY=1)]
    matched = match_channels({"171": first[:1], "193": bad}, 12.0, select.quality(absent=True))
    assert reasons(matched) == {
        "171_0000.00": "no 193 that can be used",
        "193_0003.00": "QUALITY=0x00000001: bit 0 is set",
    }


def test_no_pixel_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> Any:
        raise AssertionError("a pixel was read")

    monkeypatch.setattr(FitsScene, "_read", refuse)
    paths = {c: [write(tmp_path, c, s) for s in range(20)] for c in ("171", "193")}
    assert len(match_channels(paths, 0.5)) == 20


def test_a_good_file_takes_the_place_of_a_bad_one(tmp_path: Path) -> None:
    first = [write(tmp_path, "171", 10)]
    bad, good = write(tmp_path, "193", 10, QUALITY=1 << 3), write(tmp_path, "193", 14)
    undated = write(tmp_path, "193", None)
    matched = match_channels({"171": first, "193": [bad, good, undated]}, 6.0, select.quality())
    assert list(matched) == [(first[0], good)]
    assert matched.left_out[bad] == "QUALITY=0x00000008: bit 3 is set"
    assert "the header has no date" in matched.left_out[undated]
    by_function = match_channels({"171": first, "193": [bad, good]}, 6.0, lambda attrs: not attrs["QUALITY"])
    assert list(by_function) == list(matched)


def test_scales_of_time_are_brought_together(tmp_path: Path) -> None:
    """HMI counts in TAI, 37 seconds ahead of UTC since 2017."""
    aia = [write(tmp_path, "171", 60)]
    hmi = [write(tmp_path, "6173", s, T_OBS=f"2020.01.01_12:{s:02d}:37_TAI") for s in (1, 2)]
    assert list(match_channels({"171": aia, "hmi": hmi}, 1.0)) == [(aia[0], hmi[0])]


def test_chains_stack_what_was_matched(tmp_path: Path) -> None:
    paths = {
        c: [write(tmp_path, c, s, value=v + s) for s in (0, 12)] for c, v in (("171", 100.0), ("193", 200.0))
    }
    matched = match_channels(paths, 6.0)
    chain = sg.files(matched, key="image").key_transform("image", sg.open_fits())
    assert len(chain) == 2
    assert chain[1]["image"].shape == (2, 32, 32)
    assert chain[1]["image"][:, 0, 0].tolist() == [112.0, 212.0]
    patched = chain.key_transform("image", sg.patch(16))
    for scene, found in zip(patched.batch(3).predict(lambda x: x, key="image"), chain):
        np.testing.assert_array_equal(scene.array, found["image"])


def test_channels_of_other_pointing_are_registered_one_by_one(tmp_path: Path) -> None:
    """Each channel has its own pixels; on one frame their patches lie on one another, and each goes back to its own."""
    paths = {
        "171": [write(tmp_path, "171", s, value=5.0) for s in (0, 12)],
        "193": [
            write(tmp_path, "193", s + 1, value=9.0, CRPIX1=15.0, CDELT1=75.0, CDELT2=75.0) for s in (0, 12)
        ],
    }
    matched = match_channels(paths, 6.0)
    keys = matched.channels
    chain: Any = sg.buffer_from_vector(matched.samples)
    for key in keys:
        chain = chain.key_transform(key, sg.open_fits())
    frame = sg.helio.registration(shape=24, radius=10.0)
    chain = chain.key_transform(keys, frame).key_transform(keys, sg.patch(8))
    sample = chain[4]
    assert sample["171"].shape == sample["193"].shape == (8, 8)
    assert chain.grid("171", 4).same_place(chain.grid("193", 4), ("y", "x"))
    scenes = chain.batch(4).predict(lambda a, b: a + 0 * b, key=keys, output_key="193")
    for scene, group in zip(scenes, matched):
        assert scene.shape == (32, 32)
        assert scene.grid == sg.open_fits()(group[1]).grid


def test_on_real_files(samples: Path) -> None:
    folder = samples / "helio" / "sharp_377"
    names = ("Bp", "Bt", "Br")
    matched = match_channels({name: str(folder / f"*.{name}.fits") for name in names}, 0.0)
    assert len(matched) == 1 and not matched.left_out
    image = sg.files(matched, key="field").key_transform("field", sg.open_fits())[0]["field"]
    for number, path in enumerate(matched[0]):
        with fits.open(path) as hdus:
            np.testing.assert_allclose(image[number], hdus[1].data, rtol=1e-6)
    wide = match_channels(
        {"aia": [samples / "helio" / "AIA20110319_105400_0171.fits"], "Br": matched[0][2:]}, 60
    )
    assert len(wide) == 0 and len(wide.left_out) == 2
    assert "the nearest is 2" in wide.left_out[str(samples / "helio" / "AIA20110319_105400_0171.fits")]


@pytest.mark.filterwarnings("ignore:open_fits")
def test_slit_jaw_images_and_levels_of_eit(samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """IRIS of one minute in two channels, a third file years apart; EIT, whose dates are of two forms."""
    monkeypatch.setattr(FitsScene, "_read_into", None)
    monkeypatch.setattr(FitsScene, "_read", None)
    folder = samples / "helio"
    iris = match_channels({name: str(folder / f"iris_*SJI_{name}_*.fits") for name in ("1330", "1400")}, 60)
    assert [[Path(path).name[8:23] for path in group] for group in iris] == [["20210905_001833"] * 2]
    assert [Path(path).name[8:16] for path in iris.left_out] == ["20130801"]
    eit = {"195": folder / "eit_l1_20020625_100011.fits", "171": folder / "efz20040301.010016_s.fits"}
    apart = match_channels({name: [path] for name, path in eit.items()}, 3600)
    assert not len(apart)
    assert "no 171 within 3600 s; the nearest is 5.3" in apart.left_out[str(eit["195"])]  # 614.6 days
    assert len(match_channels({name: [path] for name, path in eit.items()}, Quantity(615, "day"))) == 1


times = st.lists(st.integers(0, 60), max_size=14).map(sorted)


@settings(max_examples=400, deadline=None)
@given(a=times, b=times, tolerance=st.integers(0, 30))
def test_no_pair_would_rather_be_together(a: list[int], b: list[int], tolerance: int) -> None:
    """A matching by distance: no file twice, and no two files that are nearer to one another than to their partners."""
    x, y = np.array(a, float), np.array(b, float)
    found = nearest_pairs(x, y, tolerance)
    taken = found[found >= 0]
    assert len(set(taken.tolist())) == len(taken)
    of_a = np.where(found >= 0, np.abs(x - (y[found] if y.size else 0)), np.inf)
    of_b = np.full(y.size, np.inf)
    of_b[taken] = of_a[found >= 0]
    assert (of_a[found >= 0] <= tolerance).all()
    for i in range(x.size):
        for j in range(y.size):
            apart = abs(x[i] - y[j])
            assert apart > tolerance or apart >= of_a[i] or apart >= of_b[j]


def test_many_times_take_little() -> None:
    """A hundred thousand times, as of a month at 12 s: rounds of sorting, not a table of all with all."""
    a = np.arange(100_000) * 12.0
    b = a + np.random.default_rng(0).uniform(-5, 5, a.size)
    np.testing.assert_array_equal(nearest_pairs(a, np.sort(b), 6.0), np.arange(a.size))


WRONG: list[tuple[Any, Any, str]] = [
    ({"171": ["a.fits"]}, 12, "two channels or more"),
    ({"171": ["a.fits"], "193": []}, 12, "channel '193' has no files"),
    ({"171": ["a.fits"], "193": "nowhere/*.fits"}, 12, "channel '193' has no files: 'nowhere/"),
    ({"171": ["a.fits"], "193": ["b.fits"]}, -1, "tolerance=-1 s must be 0 or more"),
    ({"171": ["a.fits"], "193": ["b.fits"]}, Quantity(1, "m"), "tolerance"),
]


@pytest.mark.parametrize(("files", "tolerance", "message"), WRONG)
def test_wrong_parameters(files: Any, tolerance: Any, message: str) -> None:
    with pytest.raises(StepError, match=message):
        match_channels(files, tolerance)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OpenError, match=r"gone\.fits"):
        match_channels({"171": [write(tmp_path, "171", 0)], "193": [tmp_path / "gone.fits"]})
