"""FITS files made for what real ones do not show: numbers, shapes, stacks, odd headers."""

from __future__ import annotations

import gzip
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamgeo.errors import OpenError, WriteError
from streamgeo.grid import Grid
from streamgeo.scene import ArrayScene
from streamgeo.sources.fits import open_scene
from streamgeo.template import Template
from streamgeo.window import Window
from tests.fits_files import (
    astropy_data,
    make,
    odd_file,
    ramp,
    same,
    windows,
    write_fits,
)  # fmt: skip

# -- made files: every way to hold numbers --------------------------------------------------------------

COMPRESSIONS = {
    None: "u1 i2 i4 i8 f4 f8",
    "RICE_1": "u1 i2 i4 f4 f8",
    "GZIP_1": "u1 i2 i4 i8 f4 f8",
    "GZIP_2": "u1 i2 i4 i8 f4 f8",
    "PLIO_1": "u1 i2 i4",
    "HCOMPRESS_1": "u1 i2 i4",
}
UNSIGNED = {"u1": -128, "i2": 1 << 15, "i4": 1 << 31, "i8": 1 << 63}
relaxed = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def stored_images(draw):
    """(array as stored, BSCALE, BZERO, BLANK, compression, tile shape)."""
    compression = draw(st.sampled_from(list(COMPRESSIONS)))
    code = draw(st.sampled_from(COMPRESSIONS[compression].split()))
    dtype = np.dtype(code)
    ndim = 2 if compression == "HCOMPRESS_1" else draw(st.integers(1, 4))
    shape = tuple(draw(st.integers(4 if compression == "HCOMPRESS_1" else 1, 9)) for _ in range(ndim))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if dtype.kind == "f":
        array = rng.normal(100, 20, shape).astype(dtype)
        array[rng.random(shape) < 0.2] = np.nan
        blank = draw(st.sampled_from([None, 0, -5]))
    else:
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        array = rng.integers(low, high, shape, dtype, endpoint=True)
        blank = draw(st.sampled_from([None, 0, int(array.flat[0])]))
        if compression == "PLIO_1":  # for masks; astropy crashes when it encodes many short runs
            array, blank = np.sort(rng.integers(0, 3, shape, dtype), axis=None).reshape(shape), blank and 1
        elif blank is not None:
            array[rng.random(shape) < 0.3] = blank
    bscale = draw(st.sampled_from([1, 1.0, 0.0625, -3.5, 3, 1e-12]))
    bzero = draw(st.sampled_from([0, 0.0, 97304.0, -7, 204.8, UNSIGNED.get(code, 0)]))
    if (code, bscale, bzero) == ("u1", 1, -128):
        blank = None  # astropy cannot read signed bytes with BLANK
    if compression and blank is not None and blank > np.iinfo(np.int32).max:
        blank = None  # nor a BLANK past 32 bits in a compressed image
    tile = None if draw(st.booleans()) or compression is None else tuple(max(1, n // 2) for n in shape)
    return array, bscale, bzero, blank, compression, shape if compression == "HCOMPRESS_1" else tile


def reference(path, blank):
    """What astropy gives, and NaN for BLANK also where it leaves that in: BLANK = 0 and unsigned integers."""
    stored = astropy_data(path, 1, do_not_scale_image_data=True)
    with np.errstate(over="ignore"):
        data = astropy_data(path, 1)
        floats = data.astype(np.float32)
    if stored.dtype.kind != "f" and blank is not None and (blank == 0 or data.dtype.kind in "iu"):
        floats[stored == blank] = np.nan
    return stored, floats


@relaxed
@given(image=stored_images(), data=st.data())
def test_made_files_read_as_astropy_reads_them(tmp_path_factory, image, data):
    path = tmp_path_factory.mktemp("made") / "a.fits"
    blank = image[3]
    make(path, *image)
    stored, floats = reference(path, blank)
    scene, raw = open_scene(str(path)), open_scene(str(path), raw=True)
    with np.errstate(over="ignore"):
        assert same(scene.read(), floats) and same(raw.read(), stored)
        cut = {}
        for dim, size in zip(scene.dims, scene.shape):
            start = data.draw(st.integers(0, size))
            cut[dim] = (start, data.draw(st.integers(start, size)))
        window = Window(cut)
        assert same(scene.read(window), floats[window.slices(scene.dims)])
        assert same(raw.read(window), stored[window.slices(scene.dims)])


@relaxed
@given(image=stored_images())
def test_made_files_round_trip(tmp_path_factory, image):
    folder = tmp_path_factory.mktemp("made")
    path = make(folder / "a.fits", *image)
    with np.errstate(over="ignore"):
        stored, floats = reference(path, image[3])
        saved = open_scene(str(path)).save(folder / "physical.fits")
        assert same(astropy_data(saved, 1), floats)
    saved = open_scene(str(path), raw=True).save(folder / "raw.fits")
    assert same(astropy_data(saved, 1, do_not_scale_image_data=True), stored)
    with fits.open(saved, memmap=False) as hdus:
        hdus.verify("exception")
    before, after = (fits.getheader(f, 1, do_not_scale_image_data=True) for f in (path, saved))
    for keyword in ("BSCALE", "BZERO") if stored.dtype.kind == "f" else ("BSCALE", "BZERO", "BLANK"):
        assert after.get(keyword) == before.get(keyword)


def test_signed_bytes_with_blank(tmp_path):
    path = make(tmp_path / "a.fits", np.array([0, 200, 255], "u1"), bzero=-128, blank=0)
    assert same(open_scene(str(path)).read(), np.array([np.nan, 72, 127], "f4"))
    assert same(open_scene(str(path), raw=True).read(), np.array([0, 200, 255], "u1"))
    assert (
        open_scene(str(path), raw=True).template.nodata == 0 and open_scene(str(path)).template.nodata is None
    )


DTYPES = ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", ">i2", ">f8"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_dtype_is_written_as_it_is(dtype, tmp_path):
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        values = np.array([[1.5, np.nan, -2], [np.inf, 0, 7]], dtype)
    elif dtype.kind == "b":
        values = np.array([[True, False, True]])
    else:
        values = np.array([[np.iinfo(dtype).min, 1, np.iinfo(dtype).max]], dtype)
    kept = values.copy()
    grid = Grid.of(("y", "x"), values.shape)
    saved = ArrayScene(values, grid, Template("numpy", ("y", "x"), units="K"), name="a").save(
        tmp_path / "a.fits"
    )
    with fits.open(saved, memmap=False) as hdus:
        hdus.verify("exception")
        assert (
            np.array_equal(hdus[0].data, kept, equal_nan=dtype.kind == "f") and hdus[0].header["BUNIT"] == "K"
        )
        expected = {"?": "u1", "f2": "f4"}.get(
            dtype.str[1:] if dtype.kind == "f" else dtype.char, dtype.str[1:]
        )
        assert hdus[0].data.dtype.str[1:] == expected
    assert np.array_equal(values, kept, equal_nan=dtype.kind == "f")
    assert same(open_scene(str(saved)).read(), kept.astype(np.float32))


def test_what_fits_cannot_hold_is_refused(tmp_path):
    grid = Grid.of(("y", "x"), (2, 2))
    with pytest.raises(WriteError, match="no type for complex64"):
        ArrayScene(np.zeros((2, 2), "c8"), grid, Template("numpy", ("y", "x")), name="a").save(
            tmp_path / "a.fits"
        )
    raw = open_scene(str(make(tmp_path / "i.fits", np.ones((2, 2), "i2"))), raw=True)
    with pytest.raises(WriteError, match=r"raw=True and is stored as int16.*float32 values exactly"):
        ArrayScene(np.full((2, 2), 0.5, "f4"), raw.grid, raw.template, name="a").save(tmp_path / "b.fits")
    with pytest.raises(WriteError, match="uint16 values exactly"):
        ArrayScene(np.full((2, 2), 40000, "u2"), raw.grid, raw.template, name="a").save(tmp_path / "b.fits")
    whole = ArrayScene(np.full((2, 2), 7.0, "f4"), raw.grid, raw.template, name="a").save(tmp_path / "c.fits")
    assert same(astropy_data(whole, 1), np.full((2, 2), 7, "i2"))
    with pytest.raises(WriteError, match="no pixels"):
        empty = raw.grid.crop(Window(y=(0, 0)))
        ArrayScene(np.zeros((0, 2), "i2"), empty, raw.template, name="a").save(tmp_path / "d.fits")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.fits", "i.fits"]


# -- made files: shapes, stacks, headers ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "ctypes", "dims"),
    [
        ((7,), {}, ("x",)),
        ((3, 4, 5), {}, ("z", "y", "x")),
        ((3, 4, 5), {3: "WAVE"}, ("wave", "y", "x")),
        ((2, 3, 4, 5), {3: "FREQ", 4: "STOKES"}, ("stokes", "freq", "y", "x")),
        ((2, 3, 4, 5), {3: "Time", 4: "UTC"}, ("axis4", "time", "y", "x")),
        ((2, 2, 3, 4, 5), {}, ("axis5", "axis4", "z", "y", "x")),
    ],
)
def test_dims(shape, ctypes, dims, tmp_path):
    hdu = fits.PrimaryHDU(ramp(*shape))
    for axis, kind in ctypes.items():
        hdu.header[f"CTYPE{axis}"] = kind
    scene = open_scene(write_fits(tmp_path / "a.fits", hdu))
    assert scene.dims == dims and scene.shape == shape
    assert (scene.grid.locator is None) == (not ctypes)
    for window in windows(scene, 10):
        assert same(scene.read(window), ramp(*shape)[window.slices(dims)])
    assert same(astropy_data(scene.save(tmp_path / "b.fits"), 0), ramp(*shape))


@pytest.mark.parametrize("block", [7, 1000, 1 << 15])
def test_rows_are_read_right_whatever_share_of_them_is_wanted(block, tmp_path, monkeypatch):
    monkeypatch.setattr("streamgeo.kernels.BLOCK", block)  # several blocks in one window
    data = ramp(3, 41, 101, dtype="i4")
    scene = open_scene(write_fits(tmp_path / "a.fits", fits.PrimaryHDU(data)), raw=True)
    for width in (1, 25, 26, 100, 101):
        window = Window(z=(1, 3), y=(3, 40), x=(101 - width, 101))
        assert same(scene.read(window), data[1:3, 3:40, 101 - width :])
    make(tmp_path / "b.fits", data, bscale=0.5, bzero=7, blank=3)
    scaled = open_scene(str(tmp_path / "b.fits"))
    for width in (1, 25, 26, 100, 101):
        window = Window(z=(1, 3), y=(3, 40), x=(101 - width, 101))
        assert same(scaled.read(window), scaled.read()[1:3, 3:40, 101 - width :])
        assert same(scaled.read(window), data[1:3, 3:40, 101 - width :].astype("f4") * 0.5 + 7)


def test_gzipped_files(tmp_path):
    plain = make(tmp_path / "a.fits", ramp(20, 30, dtype="i2"), 0.5, 3.0, 7)
    packed = tmp_path / "a.fits.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    scene, expected = open_scene(str(packed)), open_scene(str(plain))
    window = Window(y=(3, 9), x=(5, 30))
    assert same(scene.read(), expected.read()) and same(scene.read(window), expected.read(window))
    packed.write_bytes(gzip.compress(plain.read_bytes())[:-60])
    with pytest.raises(OpenError):
        open_scene(str(packed)).read()


def test_two_threads_read_right_pixels(tmp_path):
    data = np.random.default_rng(0).integers(0, 3000, (256, 256), np.int16)
    tiled = make(tmp_path / "t.fits", data, compression="RICE_1", tile=(16, 64))
    plain = make(tmp_path / "p.fits", data)
    scenes = [open_scene(str(path), raw=True) for path in (tiled, plain)]

    def check(job):
        scene, window = job
        return np.array_equal(scene.read(window), data[window.slices(scene.dims)])

    jobs = [(scene, window) for i, scene in enumerate(scenes) for window in windows(scene, 60, seed=i)]
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(check, jobs))


def test_scene_pickles_and_notices_a_changed_file(tmp_path):
    path = make(tmp_path / "a.fits", ramp(5, 6))
    scene = open_scene(str(path))
    twin = pickle.loads(pickle.dumps(scene))
    assert same(twin.read(), scene.read()) and twin.grid == scene.grid
    make(path, ramp(50, 60))
    with pytest.raises(OpenError, match="has changed since it was opened"):
        scene.read()


def stack(tmp_path, primary=False):
    first = fits.PrimaryHDU(ramp(4, 5)) if primary else fits.PrimaryHDU()
    hdus = [first] + [fits.ImageHDU(ramp(4, 5) + 100 * i, name=f"B{i}") for i in (1, 2, 3)]
    hdus[0].header["OBSERVER"] = "nobody"
    for i, hdu in enumerate(hdus):
        if hdu.data is not None:
            hdu.header.update({"CTYPE1": "LON", "CRPIX1": 1.0 + i, "CDELT1": 2.0, "BAND": i})
    return write_fits(tmp_path / "s.fits", *hdus)


def test_several_hdus_stack(tmp_path):
    path = stack(tmp_path)
    scene = open_scene(path, hdu=["b1", 3])
    assert scene.dims == ("hdu", "y", "x") and scene.shape == (2, 4, 5) and scene.attrs["BAND"] == 1
    assert same(scene.read(Window(hdu=(1, 2), x=(2, 4))), ramp(4, 5)[None, :, 2:4] + np.float32(300))
    with pytest.warns(UserWarning, match="differ in their WCS; the grid is that of hdu 1"):
        grid = scene.grid
    assert grid.pixel_to_world(x=1, y=0)["LON"] == 0 and scene.template.name == "B1,B3"
    saved = scene.save(tmp_path / "o.fits")
    with fits.open(saved) as hdus:
        hdus.verify("exception")
        assert [h.name for h in hdus] == ["PRIMARY", "B1", "B3"] and hdus[0].header["OBSERVER"] == "nobody"
        assert [h.header["CRPIX1"] for h in hdus[1:]] == [2, 4] and hdus[2].header["BAND"] == 3
        assert same(np.asarray(hdus[2].data, "f4"), ramp(4, 5) + np.float32(300))


@pytest.mark.filterwarnings("ignore:.*differ in their WCS")
def test_stacks_are_cut_and_flipped_hdu_by_hdu(tmp_path):
    scene = open_scene(stack(tmp_path, primary=True), hdu=[0, 1, 2])
    assert fits.info(scene.save(tmp_path / "all.fits"), output=False)[0][5] == (5, 4)
    grid = scene.grid.crop(Window(hdu=(1, 3), x=(1, 5))).flip("hdu")
    values = scene.read(Window(hdu=(1, 3), x=(1, 5)))[::-1]
    saved = ArrayScene(values, grid, scene.template, name="a").save(tmp_path / "o.fits")
    with fits.open(saved) as hdus:
        assert [(h.name, h.header["CRPIX1"]) for h in hdus[1:]] == [("B2", 2), ("B1", 1)]
        assert np.array_equal(hdus[1].data, ramp(4, 5)[:, 1:] + 200)
    one = ArrayScene(values[0], grid.drop("hdu"), scene.template, name="a").save(tmp_path / "one.fits")
    assert same(astropy_data(one, 0), values[0])


def test_stacks_that_do_not_fit(tmp_path):
    hdus = [
        fits.PrimaryHDU(),
        fits.ImageHDU(ramp(4, 5)),
        fits.ImageHDU(ramp(5, 4)),
        fits.ImageHDU(ramp(4, 5, dtype="i2")),
    ]
    path = write_fits(tmp_path / "a.fits", *hdus)
    with pytest.raises(OpenError, match=r"hdu 1 of a.fits has shape \(4, 5\), hdu 2 has shape \(5, 4\)"):
        open_scene(path, hdu=[1, 2])
    assert open_scene(path, hdu=[1, 3]).dtype == np.float32
    with pytest.raises(OpenError, match="stored as float32, hdu 3 as int16"):
        open_scene(path, hdu=[1, 3], raw=True)


ODD = [
    "EXPTIME =                  NaN / exposure",
    "GAIN    =                 -nan",
    "VERSION =                1.5.2 / bad",
    "lower   =                    3 / lower case",
    "DATE OBS= '2011-01-01'",
    "NOVALUE =",
    "TAB     = 'a\tb'",
    "NAME    = 'caf\xe9'",
    "HIERARCH ESO DET WIN = 5 / x",
    "LONGS   = 'a long string that goes on and on and on and on and on and on, &'",
    "CONTINUE  'and ends here' / the comment",
    "DUP     =                    1",
    "DUP     =                    2",
    "HISTORY first",
    "COMMENT said",
    "HISTORY second",
    "B$D     =                    2",
    "NOEQUALS'abc'",
    "CTYPE1  = 'HPLN-TAN'",
    "CTYPE2  = 'HPLT-TAN'",
    "CDELT1  =                  0.5",
    "CDELT2  =                  0.5",
]


@pytest.mark.filterwarnings("ignore")
def test_odd_cards_do_not_matter(tmp_path):
    scene = open_scene(odd_file(tmp_path / "odd.fits", ODD))
    assert same(scene.read(), ramp(4, 5)) and scene.grid.world_to_pixel(HPLN=0, HPLT=0)["x"] == -1
    attrs = scene.attrs
    assert np.isnan(attrs["EXPTIME"]) and np.isnan(attrs["GAIN"]) and attrs["VERSION"] == "1.5.2"
    assert attrs["LOWER"] == 3 and attrs["DATE OBS"] == "2011-01-01" and attrs["NOVALUE"] is None
    assert (
        attrs["TAB"] == "a?b" and attrs["NAME"] == "caf?" and attrs["ESO DET WIN"] == 5 and attrs["DUP"] == 1
    )
    assert attrs["HISTORY"] == "first\nsecond" and attrs["COMMENT"] == "said" and attrs["B$D"] == 2
    assert attrs["LONGS"].startswith("a long") and attrs["LONGS"].endswith("and ends here")
    saved = scene.save(tmp_path / "out.fits")
    with fits.open(saved) as hdus:
        hdus.verify("exception")
        header = hdus[0].header
    assert (
        header["EXPTIME"] == "NaN"
        and header.comments["EXPTIME"] == "exposure"
        and header["LONGS"] == attrs["LONGS"]
    )
    assert list(header["HISTORY"]) == ["first", "second"] and header["DUP", 1] == 2 and header["DATE OBS"]
    again = open_scene(str(saved)).attrs
    assert {k: again[k] for k in attrs if k not in ("BITPIX", "EXPTIME", "GAIN")} == {
        k: attrs[k] for k in attrs if k not in ("BITPIX", "EXPTIME", "GAIN")
    }


@pytest.mark.filterwarnings("ignore:.*Unparsable")
def test_wcs_that_cannot_be_used_is_reported_and_kept(tmp_path):
    cards = [
        "CTYPE1  = 'HPLN-TAN'",
        "CTYPE2  = 'HPLT-TAN'",
        "CRVAL1  =                  NaN",
        "CRPIX1  =                  3.0",
    ]
    scene = open_scene(odd_file(tmp_path / "a.fits", cards))
    with pytest.warns(UserWarning, match="no georeference: CRVAL1 = 'NaN' is not a number"):
        grid = scene.grid
    assert grid.locator is None
    cut = grid.crop(Window(x=(1, 4)))
    saved = ArrayScene(np.zeros((4, 3), "f4"), cut, scene.template, name="a").save(tmp_path / "b.fits")
    assert fits.getheader(saved)["CRPIX1"] == 2 and fits.getheader(saved)["CTYPE1"] == "HPLN-TAN"


def test_unusable_packing_cards_are_errors(tmp_path):
    path = odd_file(tmp_path / "a.fits", ["BSCALE  = 'two'"])
    with pytest.raises(OpenError, match=r"BSCALE = 'two' is not a number"):
        open_scene(path)


def test_numbers_that_a_file_does_not_hold_warn_of_nothing(tmp_path) -> None:
    hdu = fits.PrimaryHDU(np.ones((300, 300), "i2"))
    hdu.header["BSCALE"] = 1e35
    hdu.writeto(tmp_path / "a.fits")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_scene(str(tmp_path / "a.fits")).read().max() == np.float32(1e35)
