"""Tiles and strips decoded without GDAL: bit for bit what rasterio reads, whatever the encoding."""

from __future__ import annotations

import itertools
import pickle
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.windows import Window as Box

import streamgeo as sg
from streamgeo.chunks import CACHE
from streamgeo.sources.geotiff import GeoTiffScene, open_scene
from tests.real import CASES

REAL = [case for case in CASES if case.opener == "open_geotiff"]
ROOT = Path(__file__).parents[1]


def expected(src: rasterio.DatasetReader, bands: list[int], box: Box, raw: bool) -> np.ndarray:
    stored = src.read(bands, window=box)
    if raw:
        return stored
    out = np.empty(stored.shape, np.float32)
    masks = src.read_masks(bands, window=box)
    for i, band in enumerate(bands):
        scale, offset = src.scales[band - 1], src.offsets[band - 1]
        plain = (scale, offset) == (1.0, 0.0)
        with np.errstate(over="ignore"):
            out[i] = stored[i] if plain else stored[i].astype(np.float64) * scale + offset
        if rasterio.enums.MaskFlags.all_valid not in src.mask_flag_enums[band - 1]:
            out[i][masks[i] == 0] = np.nan
    return out


def same(path: str, count: int, *, seed: int = 0, overview: int | None = None) -> GeoTiffScene:
    """Compare the whole and so many random windows, raw and physical; the scene."""
    rng = np.random.default_rng(seed)
    level = {} if overview is None else {"overview_level": overview}
    with rasterio.open(path, **level) as src:
        bands = list(range(1, src.count + 1))
        for raw in (True, False):
            if not raw and src.dtypes[0].startswith("complex"):
                continue
            scene = open_scene(path, raw=raw, overview=overview)
            boxes = [Box(0, 0, src.width, src.height)]
            for _ in range(count):
                (y0, y1), (x0, x1) = (sorted(rng.integers(0, n + 1, 2)) for n in src.shape)
                if y1 > y0 and x1 > x0:
                    boxes.append(Box(int(x0), int(y0), int(x1 - x0), int(y1 - y0)))
            for box in boxes:
                y, x = (
                    slice(box.row_off, box.row_off + box.height),
                    slice(box.col_off, box.col_off + box.width),
                )
                found = scene.read(sg.Window(y=y, x=x))
                want = expected(src, bands, box, raw)
                assert found.dtype == want.dtype
                np.testing.assert_array_equal(found, want, err_msg=f"{path} {box} raw={raw}")
    return scene  # type: ignore[return-value]


@pytest.mark.parametrize("case", REAL, ids=str)
@pytest.mark.filterwarnings("ignore:.*beyond the range")
def test_real_files(case: object, samples: Path) -> None:
    if dict(case.options).get("bands") is None:  # type: ignore[attr-defined]
        same(str(case.path), 40)  # type: ignore[attr-defined]


@pytest.mark.long
@pytest.mark.parametrize("case", REAL, ids=str)
@pytest.mark.filterwarnings("ignore:.*beyond the range")
def test_real_files_two_hundred_windows(case: object, samples: Path) -> None:
    same(str(case.path), 200, seed=1)  # type: ignore[attr-defined]


# -- made files -----------------------------------------------------------------------------------------

LAYOUTS = {
    "tiles": {"tiled": True, "blockxsize": 32, "blockysize": 16},
    "strips": {"blockysize": 7},
    "one strip": {"blockysize": 53},
}
CODECS = ["none", "deflate", "lzw", "zstd", "packbits", "lzma"]


def made(path: Path, dtype: str, bands: int, *, shape: tuple[int, int] = (53, 70), **options: object) -> str:
    rng = np.random.default_rng(3)
    kind = np.dtype(dtype)
    smooth = np.add.outer(np.arange(shape[0]), np.arange(shape[1]))[None] + rng.integers(
        0, 9, (bands, *shape)
    )
    if kind.kind == "f":
        values = (smooth * 1.37 - 20).astype(kind)
    else:
        values = (smooth * 3 - (0 if kind.kind == "u" else 90)).astype(kind)
    profile = {"driver": "GTiff", "dtype": dtype, "count": bands, "height": shape[0], "width": shape[1]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", **profile, **options) as dst:
            dst.write(values)
    return str(path)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_encoding(tmp_path: Path, codec: str, layout: str) -> None:
    cases = itertools.product(
        ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64", "uint64", "int64"),
        (1, 3),
        ("pixel", "band"),
        ("LITTLE", "BIG"),
        (1, 2, 3),
    )
    fast = 0
    for number, (dtype, bands, interleave, order, predictor) in enumerate(cases):
        kind = np.dtype(dtype)
        if predictor > 1 and (
            codec not in ("deflate", "lzw", "zstd") or (predictor == 3) != (kind.kind == "f")
        ):
            continue
        if number // 3 % 3 != len(layout) % 3 and predictor == 1:
            continue  # a third of the plain ones for each layout keeps this short
        options = {"compress": codec, "interleave": interleave, "ENDIANNESS": order, **LAYOUTS[layout]}
        if predictor > 1:
            options["predictor"] = predictor
        path = made(tmp_path / f"{number}.tif", dtype, bands, **options)
        scene = same(path, 6, seed=number)
        fast += "rasterio" not in scene.reader
        if kind.itemsize < 8 and not (codec == "none" and predictor > 1):
            assert "rasterio" not in scene.reader, (scene.reader, options, dtype)
    assert fast


@pytest.mark.parametrize(
    ("options", "bands"),
    [
        ({"compress": "jpeg", "jpeg_quality": 80}, 1),
        ({"compress": "jpeg", "photometric": "ycbcr"}, 3),
        ({"compress": "jpeg"}, 3),
        ({"compress": "jpeg", "interleave": "band"}, 3),
        ({"compress": "webp", "webp_lossless": True}, 3),
        ({"compress": "webp", "webp_level": 60}, 3),
        ({"compress": "webp", "webp_lossless": True}, 4),
        ({"compress": "lerc"}, 1),
        ({"compress": "lerc", "max_z_error": 2}, 3),
        ({"compress": "lerc_zstd"}, 1),
        ({"compress": "lerc_deflate", "max_z_error": 1}, 3),
        ({"compress": "deflate", "photometric": "cmyk"}, 4),
        ({"photometric": "cmyk"}, 4),
        ({"BIGTIFF": "YES", "compress": "deflate"}, 2),
        ({"compress": "deflate", "NBITS": 4}, 1),
        ({"compress": "deflate", "photometric": "miniswhite"}, 1),
        ({"compress": "ccittfax4", "NBITS": 1}, 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_in_chunks_and_oddities(tmp_path: Path, options: dict, bands: int, layout: str) -> None:
    sizes = dict(LAYOUTS[layout])
    if options.get("compress") == "jpeg" and layout == "strips":
        sizes["blockysize"] = 16
    try:
        path = made(tmp_path / "a.tif", "uint8", bands, **options, **sizes)
    except rasterio.errors.RasterioError as error:
        pytest.skip(f"this GDAL cannot write it: {error}")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "read: chunk")  # no chunk goes another way than explain() says
        same(path, 20)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("nodata", [0, 3, -9999, 255, 1e10, float("nan"), -3.4e38, 0.5])
@pytest.mark.filterwarnings("ignore:.*beyond the range")
def test_nodata_and_scales(tmp_path: Path, dtype: str, nodata: float) -> None:
    try:
        path = made(tmp_path / "a.tif", dtype, 2, nodata=nodata, compress="deflate", **LAYOUTS["tiles"])
    except (ValueError, rasterio.errors.RasterioError):
        pytest.skip("rasterio does not write this nodata in this dtype")
    same(path, 10)
    with rasterio.open(path, "r+") as dst:
        dst.scales, dst.offsets = (0.01, 1.0), (5.0, 0.0)
        if dtype.startswith("f") and np.isfinite(nodata):
            values = dst.read(1)
            values[:3] = nodata
            values[3:6] = np.nextafter(values.dtype.type(nodata), values.dtype.type(1))
            dst.write(values, 1)
    same(path, 10)


def test_sparse_files_masks_alpha_and_overviews(tmp_path: Path) -> None:
    profile = {"driver": "GTiff", "dtype": "uint16", "count": 1, "height": 200, "width": 300, "tiled": True,
               "blockxsize": 64, "blockysize": 64, "compress": "deflate", "SPARSE_OK": True}  # fmt: skip
    for nodata in (None, 7):
        with rasterio.open(tmp_path / f"sparse_{nodata}.tif", "w", **profile, nodata=nodata) as dst:
            dst.write(np.full((40, 50), 900, np.uint16), 1, window=Box(70, 70, 50, 40))
        assert "chunks of 64 x 64" in same(str(tmp_path / f"sparse_{nodata}.tif"), 20).reader
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(tmp_path / "mask.tif", "w", **profile) as dst,
    ):
        dst.write(np.arange(60000, dtype=np.uint16).reshape(1, 200, 300))
        dst.write_mask((np.arange(60000).reshape(200, 300) % 7 > 2).astype(np.uint8) * 255)
    assert "masks by rasterio" in same(str(tmp_path / "mask.tif"), 10).reader
    with rasterio.open(tmp_path / "mask.tif", "r+") as dst:
        dst.build_overviews([2, 4])
    for level in (0, 1):
        same(str(tmp_path / "mask.tif"), 10, overview=level)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize(("bands", "colours"), [(4, "rgb"), (2, "minisblack")])
def test_alpha(tmp_path: Path, dtype: str, interleave: str, bands: int, colours: str) -> None:
    rng = np.random.default_rng(1)
    profile = {"driver": "GTiff", "dtype": dtype, "count": bands, "height": 60, "width": 70, "photometric": colours,
               "alpha": "yes", "interleave": interleave, "compress": "lzw", **LAYOUTS["tiles"]}  # fmt: skip
    values = rng.integers(0, 9, (bands, 60, 70)).astype(dtype)  # GDAL must not take a small alpha for none
    values[-1] *= rng.integers(0, 60000 if dtype == "uint16" else 28, (60, 70)).astype(dtype) // 9
    values[-1, :20] = np.arange(70) // 10
    with rasterio.open(tmp_path / "alpha.tif", "w", **profile) as dst:
        dst.write(values)
    scene = same(str(tmp_path / "alpha.tif"), 20)
    assert "rasterio" not in scene.reader
    with rasterio.open(tmp_path / "alpha.tif") as src:
        for chosen in ([1], [bands], [bands, 1], list(range(1, bands))):
            found = open_scene(str(tmp_path / "alpha.tif"), bands=chosen).read()
            np.testing.assert_array_equal(found, expected(src, chosen, Box(0, 0, 70, 60), False))


def test_a_chunk_that_only_gdal_reads_is_told(tmp_path: Path) -> None:
    path = made(tmp_path / "a.tif", "uint8", 1, compress="packbits", blockysize=53)
    with tifffile.TiffFile(path) as file:
        place, size = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    data = bytearray(Path(path).read_bytes())
    data[place : place + size] = b"\x80" * size  # no operation: libtiff fills what is missing, or refuses
    Path(path).write_bytes(data)
    with rasterio.open(path) as src:
        try:
            want = src.read()
        except rasterio.errors.RasterioError:
            with pytest.raises(sg.OpenError, match="cannot be read"):
                open_scene(path, raw=True).read()
            return
    with pytest.warns(UserWarning, match="is not what its header says .* rasterio reads it"):
        np.testing.assert_array_equal(open_scene(path, raw=True).read(), want)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[GeoTiffScene, np.ndarray]:
    path = made(
        tmp_path_factory.mktemp("t") / "a.tif",
        "uint16",
        3,
        compress="deflate",
        predictor=2,
        **LAYOUTS["tiles"],
    )
    with rasterio.open(path) as src:
        return open_scene(path), src.read().astype(np.float32)  # type: ignore[return-value]


@settings(max_examples=200, deadline=None)
@given(st.tuples(*[st.integers(0, 70)] * 4), st.integers(0, 3), st.integers(0, 3))
def test_any_window(
    scene: tuple[GeoTiffScene, np.ndarray], box: tuple[int, ...], first: int, last: int
) -> None:
    (y0, y1), (x0, x1) = sorted(min(n, 53) for n in box[:2]), sorted(box[2:])
    b0, b1 = sorted((first, last))
    found = scene[0].read(sg.Window(band=slice(b0, b1), y=slice(y0, y1), x=slice(x0, x1)))
    np.testing.assert_array_equal(found, scene[1][b0:b1, y0:y1, x0:x1])


def test_reading_into_a_view(scene: tuple[GeoTiffScene, np.ndarray]) -> None:
    out = np.zeros((3, 2, 40, 60), np.float32)[:, :, ::2, ::3].transpose(0, 1, 2, 3)
    place = out[:, 0]
    scene[0].read_into(place, sg.Window(y=slice(5, 25), x=slice(30, 50)))
    np.testing.assert_array_equal(place, scene[1][:, 5:25, 30:50])


def test_threads_read_the_same(scene: tuple[GeoTiffScene, np.ndarray]) -> None:
    CACHE.clear()
    wrong: list[object] = []

    def look(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(100):
            y, x = int(rng.integers(0, 40)), int(rng.integers(0, 50))
            found = scene[0].read(sg.Window(y=slice(y, y + 13), x=slice(x, x + 20)))
            if not np.array_equal(found, scene[1][:, y : y + 13, x : x + 20]):
                wrong.append((y, x))

    threads = [threading.Thread(target=look, args=(seed,)) for seed in range(8)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert not wrong
    again = pickle.loads(pickle.dumps(scene[0]))
    np.testing.assert_array_equal(again.read(), scene[1])


def test_a_changed_file_is_never_served_stale(tmp_path: Path) -> None:
    path = made(tmp_path / "a.tif", "uint16", 1, compress="deflate", **LAYOUTS["tiles"])
    old = open_scene(path)
    before = old.read()
    time.sleep(0.01)
    made(tmp_path / "b.tif", "int16", 1, compress="deflate", **LAYOUTS["tiles"])
    (tmp_path / "b.tif").replace(path)
    with pytest.raises(sg.OpenError, match="changed since it was opened"):
        old.read()
    assert not np.array_equal(open_scene(path).read(), before)
