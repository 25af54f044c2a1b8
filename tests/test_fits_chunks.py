"""Tiles and maps of FITS files: bit for bit what astropy reads, whatever the encoding, by any number of threads."""

from __future__ import annotations

import gzip
import itertools
import math
import os
import pickle
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamgeo.chunks import CACHE
from streamgeo.errors import OpenError
from streamgeo.fits_packing import DTYPES
from streamgeo.sources import fits_images
from streamgeo.sources.fits import FitsScene, open_scene
from streamgeo.sources.fits_tiles import grouped
from streamgeo.window import Window
from tests.fits_files import astropy_data, odd_file, ramp, same, write_fits
from tests.real import CASES

REAL = [case for case in CASES if case.opener == "open_fits"]
ROOT = Path(__file__).parents[1]
COVERED = {"RICE_1", "GZIP_1", "GZIP_2", "PLIO_1", "HCOMPRESS_1"}
relaxed = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
pytestmark = pytest.mark.filterwarnings(
    "ignore:open_fits.*CDELT is 0", "ignore:.*BLANK.*", "ignore:.*overflow"
)


def compare(path: str | Path, count: int, *, hdu: int | None = None, seed: int = 0) -> FitsScene:
    """Hold the whole and so many random windows against astropy, raw and physical; the physical scene."""
    number = open_scene(str(path), hdu=hdu)._images[0].hdu
    rng = np.random.default_rng(seed)
    for raw in (True, False):
        CACHE.clear()
        scene = open_scene(str(path), hdu=hdu, raw=raw)
        with np.errstate(over="ignore"):
            want = astropy_data(path, number, do_not_scale_image_data=raw).astype(scene.dtype)
        blank = scene._images[0].packing.blank
        if not raw and blank is not None:  # astropy leaves it in where it is 0, and in unsigned integers
            want[astropy_data(path, number, do_not_scale_image_data=True) == blank] = np.nan
        for _ in range(count):
            cuts = [np.sort(rng.integers(0, size + 1, 2)) for size in scene.shape]
            window = Window({dim: (int(lo), int(hi)) for dim, (lo, hi) in zip(scene.dims, cuts)})
            assert same(scene.read(window), want[window.slices(scene.dims)]), (window, raw)
        assert same(scene.read(), want)
    return scene


# -- real files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", REAL, ids=str)
def test_real_files(case, samples):
    scene = compare(case.path, 200)
    assert "astropy" not in scene.reader
    tiled = "RICE_1" in scene.reader
    assert tiled == (case.path.parent.name == "sharp_377" or "cutout" in case.path.name)
    assert tiled or scene.reader == "memory-mapped"


@pytest.mark.parametrize("case", REAL, ids=str)
def test_the_quick_look_finds_what_astropy_finds(case, samples, monkeypatch):
    quick = open_scene(str(case.path))
    monkeypatch.setattr(fits_images, "_quickly", lambda *args: None)
    slow = open_scene(str(case.path))
    assert [i._replace(header=None) for i in quick._images] == list(slow._images)
    assert (quick.dims, quick.shape, quick.dtype) == (slow.dims, slow.shape, slow.dtype)


@pytest.mark.parametrize("case", REAL, ids=str)
def test_the_frame_is_that_of_the_grid(case, samples):
    scene = open_scene(str(case.path))
    frame, grid = scene.frame, scene.grid
    assert (frame.dims, frame.shape, frame.spatial) == (grid.dims, grid.shape, grid.spatial)


def test_the_frame_of_a_spectrum_is_that_of_its_grid(tmp_path):
    hdus = [fits.PrimaryHDU(ramp(7)), fits.ImageHDU(ramp(7))]
    for hdu in hdus:
        hdu.header.update({"CTYPE1": "WAVE", "CRPIX1": 1.0, "CDELT1": 2.0, "CUNIT1": "m"})
    path = write_fits(tmp_path / "a.fits", *hdus)
    for which in (0, [0, 1]):
        scene = open_scene(path, hdu=which)
        assert (scene.frame.dims, scene.frame.spatial) == (scene.grid.dims, scene.grid.spatial)


def test_opening_leaves_astropy_alone(samples):
    path = next(case.path for case in REAL if "cutout" in case.path.name)
    code = (
        "import sys; from streamgeo.sources.fits import open_scene\n"
        f"scene = open_scene({str(path)!r}); scene.frame, scene.shape\n"
        "print('astropy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# -- made files: codecs, dtypes, tiles ------------------------------------------------------------------


def picture(dtype: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return np.cumsum(rng.normal(0, 3, shape), axis=-1).astype(kind)
    info = np.iinfo(kind)
    if kind.itemsize == 8:
        return rng.integers(info.min, info.max, shape, kind, endpoint=True)
    middle = 100 if kind.kind == "u" else 0
    return (np.cumsum(rng.integers(-3, 4, shape), axis=-1) + middle).clip(info.min, info.max).astype(kind)


SHAPES = {
    (37,): [(37,), (10,), (50,)],
    (23, 41): [(1, 41), (8, 16), (23, 41), (5, 41)],
    (3, 17, 29): [(1, 1, 29), (2, 5, 10), (1, 17, 29)],
}
DTYPES_OF = {
    "RICE_1": "u1 i2 i4 u2 u4 f4 f8",
    "GZIP_1": "u1 i1 i2 i4 i8 u2 u4 u8 f4 f8",
    "GZIP_2": "u1 i2 i4 i8 u8 f4 f8",
    "PLIO_1": "u1 i2 i4",
    "HCOMPRESS_1": "u1 i2 i4 f4 f8",
}


def compressed(path: Path, array: np.ndarray, codec: str, tile: tuple[int, ...], **options) -> Path:
    cards = options.pop("cards", {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hdu = fits.CompImageHDU(array, compression_type=codec, tile_shape=tile, **options)
        hdu.header.update(cards)
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, overwrite=True)
    return path


@pytest.mark.parametrize("codec", DTYPES_OF)
def test_every_codec_dtype_and_tile(codec, tmp_path):
    cases = itertools.product(DTYPES_OF[codec].split(), SHAPES)
    number = 0
    for dtype, shape in cases:
        for tile in SHAPES[shape]:
            wide = [n for n, size in zip(tile, shape) if min(n, size) > 1]
            if codec == "HCOMPRESS_1" and (
                len(wide) != 2 or any(0 < s % n < 4 for s, n in zip(shape, tile) if n > 1)
            ):
                continue
            array = picture(dtype, shape, number)
            if codec == "PLIO_1":
                array = np.abs(array) // 7 * (array % 3 > 0)
            path = compressed(tmp_path / f"{number}.fits", array.astype(dtype), codec, tile)
            scene = compare(path, 8, seed=number)
            assert ("astropy" in scene.reader) == (codec not in COVERED), scene.reader
            number += 1
    assert number >= 4


QUANTISED = list(
    itertools.product(("RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1"), ("f4", "f8"), (-1, 1, 2), (0, 16, -0.5))
)


@pytest.mark.parametrize(("codec", "dtype", "dither", "level"), QUANTISED)
def test_quantised_floats(codec, dtype, dither, level, tmp_path):
    array = picture(dtype, (24, 40), 5)
    array[3:5, 7:20] = np.nan  # ZBLANK
    array[9, :8] = 0.0  # kept exactly by the second way of dithering
    array[16:20, :10] = 1e30  # cannot be quantised: the tile is zipped
    for tile, seed in (((8, 20), 1), ((1, 40), 9999), ((24, 40), 137)):
        if codec == "HCOMPRESS_1" and 1 in tile:
            continue
        options = {"quantize_level": level, "quantize_method": dither, "dither_seed": seed}
        if codec == "HCOMPRESS_1" and level == 0:
            continue  # astropy writes what it cannot read
        path = compressed(tmp_path / f"{seed}.fits", array, codec, tile, **options)
        scene = compare(path, 10)
        assert ("quantised" in scene.reader) == (level != 0) or "astropy" in scene.reader
        if dither > 0 and level:
            assert f"SUBTRACTIVE_DITHER_{dither}" in scene.reader or "astropy" in scene.reader


@pytest.mark.parametrize("smooth", [0, 1])
@pytest.mark.parametrize("scale", [0, 1, 2.5, -4])
def test_lossy_hcompress(scale, smooth, tmp_path):
    array = picture("i2", (48, 64), 2) * 30
    compare(
        compressed(
            tmp_path / "a.fits", array, "HCOMPRESS_1", (16, 32), hcomp_scale=scale, hcomp_smooth=smooth
        ),
        10,
    )


@pytest.mark.parametrize("codec", ["RICE_1", "GZIP_1", "GZIP_2"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "i4"])
def test_scales_and_blanks(codec, dtype, tmp_path):
    array = picture(dtype, (20, 30), 1)
    blank = int(array[3, 4])
    packings = itertools.product(
        (1, 0.25, -3), (0, 10.5, {"u1": -128, "i2": 1 << 15, "i4": 1 << 31}[dtype]), (None, blank, 0)
    )
    for number, (scale, zero, missing) in enumerate(packings):
        if (dtype, scale, zero) == ("u1", 1, -128) and missing is not None:
            continue  # astropy cannot read signed bytes with BLANK
        cards = {"BSCALE": scale, "BZERO": zero} | ({} if missing is None else {"BLANK": missing})
        compare(compressed(tmp_path / f"{number}.fits", array, codec, (7, 11), cards=cards), 6, seed=number)


# -- made files: what astropy does not write ------------------------------------------------------------


def card(keyword: str, value: object) -> bytes:
    if isinstance(value, bool):
        text = f"{'T' if value else 'F':>20}"
    elif isinstance(value, str):
        text = f"'{value:8}'"
    else:
        text = f"{value!r:>20}"
    return f"{keyword:8}= {text}".ljust(80).encode()


def block(cards: dict[str, object]) -> bytes:
    text = b"".join(card(*one) for one in cards.items()) + b"END".ljust(80)
    return text + b" " * (-len(text) % 2880)


def table(
    path: Path,
    shape: tuple[int, ...],
    tile: tuple[int, ...],
    bitpix: int,
    codec: str,
    columns: dict[str, tuple[str, list]],
    *,
    gap: int = 0,
    **cards: object,
) -> Path:
    """A compressed image, put together by hand.

    ``columns`` have a form each; for one with P or Q the values are bytes, which go to the heap.
    """  # fmt: skip
    rows = math.prod(-(-n // t) for n, t in zip(shape, tile))
    heap, parts, head = b"", [], {}
    for number, (name, (form, values)) in enumerate(columns.items(), 1):
        assert len(values) == rows
        head |= {f"TTYPE{number}": name, f"TFORM{number}": form}
        letters = form.lstrip("1")
        if letters[0] in "PQ":
            size = {"B": 1, "I": 2, "E": 4, "D": 8}[letters[1]]
            pairs = []
            for value in values:
                pairs.append((len(value) // size, len(heap)))
                heap += value
            parts.append(np.array(pairs, ">i4" if letters[0] == "P" else ">i8"))
        else:
            code = {"D": ">f8", "E": ">f4", "J": ">i4", "I": ">i2"}[letters[0]]
            parts.append(np.array(values, code).reshape(rows, 1))
    body = np.concatenate([part.view("u1").reshape(rows, -1) for part in parts], axis=1)
    axes = {}
    for axis, (size, n) in enumerate(zip(reversed(shape), reversed(tile)), 1):
        axes |= {f"ZNAXIS{axis}": size, f"ZTILE{axis}": n}
    header = {
        "XTENSION": "BINTABLE", "BITPIX": 8, "NAXIS": 2, "NAXIS1": body.shape[1], "NAXIS2": rows,
        "PCOUNT": len(heap) + gap, "GCOUNT": 1, "TFIELDS": len(columns), **head, "ZIMAGE": True, "ZCMPTYPE": codec,
        "ZBITPIX": bitpix, "ZNAXIS": len(shape), **axes, **({"THEAP": body.size + gap} if gap else {}), **cards,
    }  # fmt: skip
    data = body.tobytes() + bytes(gap) + heap
    primary = block({"SIMPLE": True, "BITPIX": 8, "NAXIS": 0, "EXTEND": True})
    path.write_bytes(primary + block(header) + data + bytes(-len(data) % 2880))
    return path


def tiles_of(array: np.ndarray, tile: tuple[int, ...]) -> list[np.ndarray]:
    steps = [range(0, size, n) for size, n in zip(array.shape, tile)]
    return [array[tuple(slice(s, s + n) for s, n in zip(at, tile))] for at in itertools.product(*steps)]


def rice(tile: np.ndarray, block: int = 32) -> bytes:
    return bytes(imagecodecs.rcomp_encode(np.ascontiguousarray(tile).ravel(), nblock=block))


@pytest.mark.parametrize("form", ["1PB(200)", "1QB", "PB", "QB"])
@pytest.mark.parametrize("gap", [0, 48])
def test_descriptors_and_heaps(form, gap, tmp_path):
    array = picture("i2", (13, 21), 4)
    blobs = [rice(tile) for tile in tiles_of(array, (4, 8))]
    path = table(tmp_path / "a.fits", (13, 21), (4, 8), 16, "RICE_1", {"COMPRESSED_DATA": (form, blobs)}, gap=gap,
                 ZNAME1="BLOCKSIZE", ZVAL1=32, ZNAME2="BYTEPIX", ZVAL2=2)  # fmt: skip
    scene = compare(path, 20)
    assert same(open_scene(str(path), raw=True).read(), array)
    assert scene.reader == "chunks of 16 x 24 (RICE_1 in tiles of 4 x 8)"


@pytest.mark.parametrize(
    ("block", "width", "bitpix"), [(16, 4, 16), (32, 4, 8), (7, 2, 32), (64, 1, 16), (1000, 4, 32)]
)
def test_rice_of_another_width_than_the_image(block, width, bitpix, tmp_path):
    array = (picture("u1", (9, 14), 6) % 100).astype(f"i{width}")
    blobs = [rice(tile, block) for tile in tiles_of(array, (3, 14))]
    path = table(tmp_path / "a.fits", (9, 14), (3, 14), bitpix, "RICE_ONE", {"COMPRESSED_DATA": ("1PB", blobs)},
                 ZNAME1="BYTEPIX", ZVAL1=width, ZNAME2="BLOCKSIZE", ZVAL2=block)  # fmt: skip
    compare(path, 10)
    assert same(open_scene(str(path), raw=True).read(), array.astype(DTYPES[bitpix]))


def test_tiles_that_are_stored_in_other_columns(tmp_path):
    array = picture("f4", (8, 12), 3)
    quantised = [np.round(tile * 4).astype("i4") for tile in tiles_of(array, (2, 12))]
    coded = [rice(quantised[0]), b"", rice(quantised[2]), b""]
    zipped = [
        b"",
        gzip.compress(array[2:4].astype(">f4").tobytes()),
        b"",
        gzip.compress(array[6:].astype(">f4").tobytes()),
    ]
    columns = {
        "COMPRESSED_DATA": ("1PB", coded),
        "GZIP_COMPRESSED_DATA": ("1PB", zipped),
        "ZSCALE": ("1D", [0.25, 0, 0.5, 0]),
        "ZZERO": ("1E", [0, 0, 7, 0]),
    }
    path = table(tmp_path / "a.fits", (8, 12), (2, 12), -32, "RICE_1", columns)
    scene = compare(path, 20)
    assert same(scene.read()[2:4], array[2:4]) and same(scene.read()[:2], (quantised[0] / 4).astype("f4"))
    columns.pop("GZIP_COMPRESSED_DATA")
    columns["UNCOMPRESSED_DATA"] = (
        "1PE",
        [b"", array[2:4].astype(">f4").tobytes(), b"", array[6:].astype(">f4").tobytes()],
    )
    assert same(
        compare(table(tmp_path / "b.fits", (8, 12), (2, 12), -32, "RICE_1", columns), 20).read(), scene.read()
    )


def test_scales_in_keywords_are_applied(tmp_path):
    """astropy does not: it gives the integers. The standard (section 10.1.3) and CFITSIO have it this way."""
    values = picture("i4", (6, 9), 3)
    blobs = {"COMPRESSED_DATA": ("1PB", [rice(tile) for tile in tiles_of(values, (2, 9))])}
    path = table(tmp_path / "a.fits", (6, 9), (2, 9), -32, "RICE_1", blobs, ZSCALE=0.5, ZZERO=3.0)
    assert same(open_scene(str(path)).read(), (values * 0.5 + 3).astype("f4"))


@pytest.mark.parametrize("bitpix", [16, -32])
def test_blanks_by_tile(bitpix, tmp_path):
    values = picture("i4", (6, 9), 3) % 5
    columns = {
        "COMPRESSED_DATA": ("1PB", [rice(tile) for tile in tiles_of(values, (2, 9))]),
        "ZBLANK": ("1J", [1, 2, 99]),
    }
    if bitpix < 0:
        columns |= {"ZSCALE": ("1D", [0.5] * 3), "ZZERO": ("1D", [1.0] * 3)}
    extra = {} if bitpix < 0 else {"BLANK": -9}
    path = table(tmp_path / "a.fits", (6, 9), (2, 9), bitpix, "RICE_1", columns, **extra)
    scene = compare(path, 10)
    assert np.isnan(scene.read()[:2][values[:2] == 1]).all() and not np.isnan(scene.read()[4:]).any()


def test_tiles_without_compression(tmp_path):
    values = picture("i4", (6, 9), 3)
    columns = {
        "COMPRESSED_DATA": ("1PB", [tile.astype(">i4").tobytes() for tile in tiles_of(values, (4, 5))])
    }
    path = table(tmp_path / "a.fits", (6, 9), (4, 5), 32, "NOCOMPRESS", columns)
    assert same(open_scene(str(path), raw=True).read(), values) and "NOCOMPRESS" in compare(path, 10).reader


def test_several_images_in_one_file(tmp_path):
    hdus = [fits.PrimaryHDU(ramp(5, 6)), fits.ImageHDU(picture("i2", (7, 8)), name="A")]
    hdus += [fits.CompImageHDU(picture("i2", (9, 10), n), name=f"C{n}", tile_shape=(2, 5)) for n in (1, 2)]
    path = write_fits(tmp_path / "a.fits", *hdus)
    for number in range(4):
        compare(path, 10, hdu=number)
    stacked = open_scene(path, hdu=["c2", 2], raw=True)
    assert same(stacked.read(), np.stack([picture("i2", (9, 10), n) for n in (2, 1)]))
    window = Window(hdu=(1, 2), y=(3, 9), x=(0, 4))
    assert same(stacked.read(window), picture("i2", (9, 10), 1)[None, 3:, :4])
    assert open_scene(path, hdu=["A"]).reader == "memory-mapped"


# -- what astropy reads ---------------------------------------------------------------------------------


def test_packed_files_are_read_by_astropy_once(tmp_path, monkeypatch):
    array = picture("i2", (60, 70))
    plain = compressed(tmp_path / "a.fits", array, "RICE_1", (16, 16))
    packed = tmp_path / "a.fits.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    scene = open_scene(str(packed), raw=True)
    assert scene.reader == "astropy, because the whole file is packed"
    assert same(scene.read(Window(y=(3, 9), x=(5, 30))), array[3:9, 5:30])
    monkeypatch.setattr("streamgeo.sources.fits.by_astropy", None)  # it is kept
    assert same(scene.read(), array)


@pytest.mark.parametrize(
    "cards",
    [
        ["BSCALE  = 0.5e0"],
        ["BSCALE= 0.5"],
        ["bscale  =                  0.5"],
        ["BLANK   =                 -3.0"],
        ["  BZERO =                  2.5"],
        ["ENDING  =                    1", "END_    =                    2"],
        ["EXTNAME = 'a long name, &'", "CONTINUE  'and more'"],
    ],
    ids=str,
)
def test_unusual_headers_mean_what_astropy_says(cards, tmp_path):
    path = odd_file(tmp_path / "a.fits", cards)
    quick, scene = fits_images._quickly(path, os.stat(path).st_size, None), open_scene(path)
    assert quick is None or quick == list(scene._images)
    assert (quick is None) == (cards[0][:6] != "ENDING")
    with np.errstate(all="ignore"):
        assert same(scene.read(), astropy_data(path, 0).astype("f4"))


@pytest.mark.parametrize("card", ["BSCALE  =                    1", "HIERARCH BSCALE = 0.5"])
def test_cards_that_contradict_each_other_are_an_error(card, tmp_path):
    path = odd_file(tmp_path / "a.fits", ["BSCALE  =                    2", card])
    assert fits_images._quickly(path, os.stat(path).st_size, None) is None
    with pytest.raises(OpenError, match="what BSCALE of .*a.fits is cannot be told from BSCALE  = .*BSCALE"):
        open_scene(path)
    again = ["BSCALE  =                    2"] * 2
    assert same(open_scene(odd_file(tmp_path / "b.fits", again)).read(), 2 * ramp(4, 5))


def test_an_end_that_is_none_is_left_to_astropy(tmp_path):
    path = odd_file(tmp_path / "a.fits", ["BSCALE  =                    2", "END        x"])
    assert fits_images._quickly(path, os.stat(path).st_size, None) is None
    assert open_scene(path)._images[0].packing.bscale == fits.getheader(path)["BSCALE"]


def test_an_unusual_compressed_header_is_read_by_astropy(tmp_path):
    array = picture("i2", (40, 50))
    path = compressed(tmp_path / "a.fits", array, "RICE_1", (1, 50))
    path.write_bytes(
        path.read_bytes().replace(b"ZBITPIX =                   16", b"ZBITPIX =               16    ")
    )
    assert "chunks of" in compare(path, 10).reader  # free format is as good
    path.write_bytes(
        path.read_bytes().replace(b"ZBITPIX =               16    ", b"zbitpix =               16    ")
    )
    scene = compare(path, 10)
    assert scene.reader == "astropy, because its header is unusual"


values_st = st.one_of(
    st.integers(-70000, 70000).map(str),
    st.floats(allow_nan=False, width=32).map(repr),
    st.sampled_from(["T", "F", "'x'", "", "NaN"]),
)


@relaxed
@given(
    key=st.sampled_from(["BSCALE", "BZERO", "BLANK", "EXTNAME", "PCOUNT", "GCOUNT", "NAXIS3", "BITPIX", "CTYPE3",
                         "GROUPS", "EXTEND"]),
    value=values_st, shift=st.integers(0, 12), comment=st.sampled_from(["", " / said", "/", " said"]),
    spelling=st.sampled_from([str.upper, str.lower, str.title]),
)  # fmt: skip
def test_any_card_is_read_as_astropy_reads_it(tmp_path_factory, key, value, shift, comment, spelling):
    folder = tmp_path_factory.mktemp("cards")
    text = f"{spelling(key):8}= {' ' * shift}{value}{comment}"
    path = odd_file(folder / "a.fits", [text])
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        quick = fits_images._quickly(path, os.stat(path).st_size, None)
        if quick is None:
            return
        with fits_images.reading(path), fits.open(path, do_not_scale_image_data=True) as hdus:
            index = fits_images._choose(hdus, None, path)[0]
            assert [fits_images._image(hdus, index, path, os.stat(path).st_size)] == quick


# -- windows, threads, forks, changes -------------------------------------------------------------------


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    folder, out = tmp_path_factory.mktemp("three"), []
    array = picture("i2", (61, 83), 9)
    out.append((open_scene(str(compressed(folder / "a.fits", array, "RICE_1", (1, 83))), raw=True), array))
    out.append((open_scene(str(compressed(folder / "b.fits", array, "GZIP_2", (16, 10))), raw=True), array))
    path = write_fits(folder / "c.fits", fits.PrimaryHDU(array))
    out.append((open_scene(path, raw=True), array))
    path = compressed(folder / "d.fits", array[:60, :80], "HCOMPRESS_1", (20, 16))
    out.append((open_scene(str(path), raw=True), array[:60, :80]))
    floats = picture("f4", (61, 83), 9)
    path = compressed(folder / "e.fits", floats, "RICE_1", (8, 83), quantize_method=2, dither_seed=77)
    out.append((open_scene(str(path), raw=True), astropy_data(path, 1)))
    return out


@relaxed
@given(
    which=st.integers(0, 4),
    box=st.tuples(*[st.integers(0, 83)] * 4),
    steps=st.tuples(*[st.integers(1, 3)] * 2),
)
def test_any_window_into_any_view(three, which, box, steps):
    scene, array = three[which]
    (y0, y1), (x0, x1) = (
        sorted(min(n, size) for n in pair) for pair, size in zip((box[:2], box[2:]), array.shape)
    )
    out = np.full(((y1 - y0) * steps[0], (x1 - x0) * steps[1]), 7, array.dtype)
    scene.read_into(out[:: steps[0], :: steps[1]], Window(y=(y0, y1), x=(x0, x1)))
    assert np.array_equal(out[:: steps[0], :: steps[1]], array[y0:y1, x0:x1])
    assert steps[0] == 1 or np.all(out[1 :: steps[0]] == 7)


def test_eight_threads_read_right_pixels(three):
    wrong = []

    def look(seed):
        rng = np.random.default_rng(seed)
        for _ in range(60):
            scene, array = three[int(rng.integers(0, len(three)))]
            (y0, y1), (x0, x1) = (np.sort(rng.integers(0, n + 1, 2)) for n in array.shape)
            if not np.array_equal(scene.read(Window(y=(y0, y1), x=(x0, x1))), array[y0:y1, x0:x1]):
                wrong.append((scene.name, y0, y1, x0, x1))
            if rng.random() < 0.1:
                CACHE.clear()

    CACHE.clear()
    threads = [threading.Thread(target=look, args=(seed,)) for seed in range(8)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert not wrong


def test_scenes_pickle_and_work_in_a_fork(three):
    for scene, array in three:
        assert same(pickle.loads(pickle.dumps(scene)).read(), array)
    CACHE.clear()
    with ThreadPoolExecutor(2) as pool:
        [future.result() for future in [pool.submit(scene.read) for scene, _ in three]]
    child = os.fork()
    if child == 0:
        good = all(np.array_equal(scene.read(), array) for scene, array in three)
        CACHE.clear()
        os._exit(0 if good and all(np.array_equal(scene.read(), array) for scene, array in three) else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("codec", [None, "RICE_1"])
def test_a_changed_file_is_never_served_stale(codec, tmp_path):
    def write(seed):
        array, path = picture("i2", (40, 50), seed), tmp_path / f"{seed}.fits"
        if codec:
            return array, compressed(path, array, codec, (1, 50))
        return array, Path(write_fits(path, fits.PrimaryHDU(array)))

    first, path = write(0)
    old = open_scene(str(path), raw=True)
    assert same(old.read(), first)
    second, other = write(1)
    os.utime(other, ns=(path.stat().st_mtime_ns + 10**9,) * 2)
    other.replace(path)
    with pytest.raises(OpenError, match="has changed since it was opened"):
        old.read()
    assert same(open_scene(str(path), raw=True).read(), second)


def test_groups_of_tiles():
    assert grouped((4096, 4096), (1, 4096), 2) == (64, 4096)
    assert grouped((4096, 4096), (256, 256), 2) == (512, 512)
    assert grouped((10, 40, 37), (1, 1, 37), 4) == (10, 40, 37)
    assert grouped((100,), (7,), 8) == (105,)
    assert grouped((3000, 3000), (2000, 3000), 4) == (2000, 3000)
    assert grouped((5, 6), (50, 60), 4) == (50, 60)


def test_tiles_come_from_the_cache(three, monkeypatch):
    scene, array = three[0]
    scene.read()
    monkeypatch.setattr("streamgeo.sources.fits_tiles.FitsTiles.decode", None)
    assert same(scene.read(Window(y=(3, 50), x=(7, 60))), array[3:50, 7:60])


# -- damaged files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["RICE_1", "GZIP_1"])
def test_a_damaged_tile_is_an_error_where_it_is_needed(codec, tmp_path):
    array = picture("i2", (40, 64), 3)
    path = compressed(tmp_path / "a.fits", array, codec, (1, 64))
    scene = open_scene(str(path), raw=True)
    places = scene._chunks(0)._table
    content = bytearray(path.read_bytes())
    start, size = int(places.starts[17]), int(places.sizes[17])
    content[start : start + size] = b"\xff" * size
    path.write_bytes(content)
    scene = open_scene(str(path), raw=True)
    assert same(scene.read(Window(y=(0, 17), x=(3, 60))), array[:17, 3:60])
    assert same(scene.read(Window(y=(18, 40), x=(0, 64))), array[18:])
    for window in (None, Window(y=(17, 18), x=(0, 2))):
        with pytest.raises(OpenError, match=r"tile 17 of hdu 1 of .*a\.fits is damaged"):
            scene.read(window)


def test_claims_of_a_header_take_no_memory(tmp_path):
    blobs = {"COMPRESSED_DATA": ("1PB", [rice(picture("i2", (4, 8)))])}
    for shape, codec in (
        ((1 << 14, 1 << 14), "RICE_1"),
        ((1 << 14, 1 << 14), "GZIP_1"),
        ((1 << 20, 1 << 20), "RICE_1"),
    ):
        path = table(tmp_path / "a.fits", shape, shape, 16, codec, blobs, ZNAME1="BYTEPIX", ZVAL1=2)
        with pytest.raises(OpenError, match=r"damaged|2 GiB"):
            open_scene(str(path)).read(Window(y=(0, 1), x=(0, 1)))


@pytest.mark.parametrize(
    "settings", [{"BLOCKSIZE": 0}, {"BLOCKSIZE": -5}, {"BLOCKSIZE": 1 << 31}, {"BYTEPIX": 8}]
)
def test_codes_that_would_never_end_are_refused(settings, tmp_path):
    blobs = {"COMPRESSED_DATA": ("1PB", [rice(picture("i2", (4, 8)))])}
    ((name, value),) = settings.items()
    path = table(tmp_path / "a.fits", (4, 8), (4, 8), 16, "RICE_1", blobs, ZNAME1=name, ZVAL1=value)
    with pytest.raises(OpenError, match=f"{name} = {value}".replace("-", "[-]")):
        open_scene(str(path)).read()


@pytest.mark.parametrize(("at", "what"), [(2, "pixels"), (6, "pixels"), (22, "bit planes")])
def test_hcompress_tiles_that_lie_do_not_reach_the_decoder(at, what, tmp_path):
    """It would write beyond its memory, or shift numbers away."""
    array = picture("i2", (40, 50))
    path = compressed(tmp_path / "a.fits", array, "HCOMPRESS_1", (20, 25))
    table = open_scene(str(path))._chunks(0)._table
    data = bytearray(path.read_bytes())
    data[int(table.starts[1]) + at] = 255
    path.write_bytes(data)
    scene = open_scene(str(path), raw=True)
    with pytest.raises(
        OpenError, match=rf"tile 1 of hdu 1 of .*a\.fits is damaged \(HCOMPRESS says .*{what}"
    ):
        scene.read()
    assert same(scene.read(Window(x=(0, 25))), array[:, :25])


@pytest.mark.parametrize(("word", "value"), [(1, -5), (1, 30000), (3, 32767), (4, 99), (4, -3), (2, 32767)])
def test_plio_tiles_that_lie_do_not_reach_the_decoder(word, value, tmp_path):
    array = np.abs(picture("i2", (40, 50))) // 9
    path = compressed(tmp_path / "a.fits", array, "PLIO_1", (5, 50))
    table = open_scene(str(path))._chunks(0)._table
    data = bytearray(path.read_bytes())
    start = int(table.starts[3]) + 2 * word
    data[start : start + 2] = value.to_bytes(2, "big", signed=True)
    path.write_bytes(data)
    with pytest.raises(OpenError, match=r"tile 3 of hdu 1 of .*a\.fits is damaged \(PLIO says"):
        open_scene(str(path)).read()


@pytest.mark.parametrize("codec", ["RICE_1", "GZIP_1", "GZIP_2"])
@pytest.mark.parametrize(("size", "offset"), [(-(1 << 31), 0), (7, -(1 << 20)), (0, 0), (1 << 30, 0)])
def test_tiles_that_cannot_be_where_they_should_be(codec, size, offset, tmp_path):
    path = compressed(tmp_path / "a.fits", picture("i2", (40, 50)), codec, (8, 50))
    with fits.open(path, disable_image_compression=True) as hdus:
        row = hdus[1].fileinfo()["datLoc"] + 3 * hdus[1].header["NAXIS1"]
    data = bytearray(path.read_bytes())
    data[row : row + 8] = np.array([size, offset], ">i4").tobytes()
    path.write_bytes(data)
    with pytest.raises(OpenError, match=r"tile 3 of hdu 1 of .*a\.fits is damaged \(.*bytes"):
        open_scene(str(path)).read()


@pytest.mark.parametrize("keyword", ["TFIELDS", "ZNAXIS", "NAXIS"])
def test_a_header_that_counts_without_end(keyword, tmp_path):
    """astropy would count."""
    path = compressed(tmp_path / "a.fits", picture("i2", (40, 50)), "RICE_1", (8, 50))
    data = path.read_bytes()
    at = data.index(f"{keyword:8}=".encode(), 2880) + 10
    path.write_bytes(data[:at] + b"9999999".rjust(20) + data[at + 20 :])
    with pytest.raises(OpenError, match=rf"a\.fits: {keyword} = 9999999 exceeds 999"):
        open_scene(str(path))


def test_sizes_below_zero_are_no_image(tmp_path):
    path = compressed(tmp_path / "a.fits", picture("i2", (40, 50)), "RICE_1", (8, 50))
    data = path.read_bytes()
    at = data.index(b"ZNAXIS1 =") + 10
    path.write_bytes(data[:at] + b"-1".rjust(20) + data[at + 20 :])
    with pytest.raises(OpenError, match=r"a\.fits"):
        open_scene(str(path))
