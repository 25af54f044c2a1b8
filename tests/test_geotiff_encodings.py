"""GeoTIFF in encodings that are seldom met, by GDAL and by another writer: bit for bit what rasterio reads."""

from __future__ import annotations

import itertools
import struct
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import tifffile
from rasterio.windows import Window as Box

import streamgeo as sg
from streamgeo.chunks import CACHE
from streamgeo.sources.geotiff import open_scene
from tests.test_geotiff_chunks import LAYOUTS, expected, same

TILES = {"tiled": True, "blockxsize": 32, "blockysize": 16}
STRIPS = {"blockysize": 16}
pytestmark = pytest.mark.filterwarnings("ignore:.*beyond the range", "ignore:overflow encountered in cast")


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    CACHE.clear()


def image(dtype: str, *shape: int) -> np.ndarray:
    kind, rng = np.dtype(dtype), np.random.default_rng(1)
    smooth = np.add.outer(np.arange(shape[-2]), np.arange(shape[-1])) + rng.integers(0, 9, shape)
    if kind.kind in "iu":
        return (smooth.astype(np.int64) * 3 % min(np.iinfo(kind).max, 1 << 62)).astype(kind)
    return (smooth * 1.37 - 20 + (1j * smooth if kind.kind == "c" else 0)).astype(kind)


def write(path: Path, values: np.ndarray, **options: Any) -> str:
    count, height, width = values.shape
    profile = {
        "driver": "GTiff",
        "count": count,
        "height": height,
        "width": width,
        "dtype": values.dtype.name,
    }
    with warnings.catch_warnings(), rasterio.open(path, "w", **{**profile, **options}) as file:
        warnings.simplefilter("ignore")
        file.write(values)
    return str(path)


# -- another writer ---------------------------------------------------------------------------------------

DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8", "c8", "c16")
CODECS = (
    (None, False),
    ("zlib", False),
    ("zlib", True),
    ("lzma", True),
    ("zstd", True),
    ("lzw", True),
    ("packbits", False),
)
WAYS = list(
    itertools.product("<>", (False, True), DTYPES, CODECS, ((1, None), (3, "contig"), (3, "separate")))
)


def hold(ways: list[Any], path: Path) -> None:
    for number, (order, big, dtype, (codec, predictor), (bands, planar)) in enumerate(ways):
        if predictor and (np.dtype(dtype).kind == "c" or (dtype[1:] == "8" and dtype[0] in "iu")):
            continue  # it does not write them
        values = image(dtype, bands, 61, 75)
        values = values[0] if bands == 1 else values.transpose(1, 2, 0) if planar == "contig" else values
        layout = {"tile": (32, 48)} if number % 2 else {"rowsperstrip": 9}
        tifffile.imwrite(path, values, byteorder=order, bigtiff=big, compression=codec, predictor=predictor,
                         planarconfig=planar, photometric="minisblack", metadata=None, **layout)  # fmt: skip
        scene = same(str(path), 3, seed=number)
        assert "rasterio" not in scene.reader, (scene.reader, ways[number])


def test_files_of_another_writer(tmp_path: Path) -> None:
    hold(WAYS[::17], tmp_path / "a.tif")


@pytest.mark.long
def test_all_files_of_another_writer(tmp_path: Path) -> None:
    hold(WAYS, tmp_path / "a.tif")


# -- bits and colours -------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [TILES, STRIPS], ids=["tiles", "strips"])
def test_bits_that_are_no_whole_bytes(tmp_path: Path, layout: dict) -> None:
    for dtype, bits in [("uint8", b) for b in (1, 2, 3, 4, 7)] + [("uint16", b) for b in (9, 12, 15)]:
        values = image(dtype, 2, 61, 75) % (1 << bits)
        for codec in ("none", "deflate"):
            same(write(tmp_path / "a.tif", values, NBITS=bits, compress=codec, **layout), 5)
    for bits, predictor in ((16, 1), (16, 3), (24, 1)):
        values = image("float32", 1, 61, 75)
        same(
            write(tmp_path / "a.tif", values, NBITS=bits, compress="deflate", predictor=predictor, **layout),
            5,
        )
    same(write(tmp_path / "a.tif", image("complex64", 1, 61, 75), dtype="complex_int16", **layout), 5)


@pytest.mark.parametrize("layout", [TILES, STRIPS], ids=["tiles", "strips"])
@pytest.mark.parametrize("colours", ["cmyk", "cielab", "icclab", "itulab", "miniswhite", "rgb"])
def test_colours(tmp_path: Path, colours: str, layout: dict) -> None:
    """GDAL turns CMYK and CIELAB of one byte into RGBA while it reads."""
    bands = {"cmyk": 4, "miniswhite": 1}.get(colours, 3)
    ways = [("uint8", c, "pixel") for c in ("none", "deflate", "lzw", "jpeg")] + [("uint16", "none", "pixel")]
    for dtype, codec, interleave in [*ways, ("uint8", "none", "band")]:
        options = {"photometric": colours, "compress": codec, "interleave": interleave, **layout}
        path = write(tmp_path / "a.tif", image(dtype, bands, 61, 75), **options)
        try:
            with rasterio.open(path) as file:
                file.read()
        except rasterio.errors.RasterioError:  # bands of CMYK that lie apart in tiles
            with pytest.raises(sg.OpenError):
                open_scene(path, raw=True).read()
            continue
        same(path, 5)


# -- what is missing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [TILES, STRIPS], ids=["tiles", "strips"])
@pytest.mark.parametrize("codec", ["lerc", "lerc_deflate", "lerc_zstd"])
def test_lerc_with_nan(tmp_path: Path, codec: str, layout: dict) -> None:
    for dtype, error in itertools.product(("float32", "float64"), (0, 0.25)):
        one = image(dtype, 3, 61, 75)
        one[:, 5:40, 5:30] = np.nan
        mixed, nothing, many = one.copy(), np.full_like(one, np.nan), image(dtype, 9, 61, 75)
        mixed[1, 30:35] = many[3, 5:40] = np.nan
        filled = np.nan_to_num(one, nan=-9999)
        ways = [(values, {}) for values in (one[:1], one, mixed, nothing, many)]
        ways += [(mixed, {"interleave": "band"}), (one, {"nodata": np.nan}), (filled, {"nodata": -9999})]
        for values, more in ways:
            path = write(tmp_path / "a.tif", values, compress=codec, max_z_error=error, **layout, **more)
            assert "lerc" in same(path, 4).reader


def pam(path: Path, *nodata: str) -> None:
    bands = (f'<PAMRasterBand band="{i}"><NoDataValue>{value}</NoDataValue></PAMRasterBand>'
             for i, value in enumerate(nodata, 1))  # fmt: skip
    Path(f"{path}.aux.xml").write_text(f"<PAMDataset>{''.join(bands)}</PAMDataset>")


def sparse(path: Path, dtype: str, bands: int, **options: Any) -> None:
    profile = {
        "driver": "GTiff",
        "dtype": dtype,
        "count": bands,
        "height": 100,
        "width": 130,
        "SPARSE_OK": True,
    }
    with rasterio.open(path, "w", **profile, tiled=True, blockxsize=32, blockysize=32, **options) as file:
        file.write(image(dtype, bands, 20, 30), window=Box(40, 40, 30, 20))


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "int16", "uint32", "int64", "uint64", "float32", "float64"]
)
def test_missing_chunks_hold_what_gdal_makes_of_nodata(tmp_path: Path, dtype: str) -> None:
    for nodata in (
        "0",
        "7",
        "3.5",
        "-1.5",
        "300",
        "1e10",
        "nan",
        "-inf",
        "1e300",
        str(2**64 - 1),
        str(-(2**63)),
    ):
        path = tmp_path / "a.tif"
        sparse(path, dtype, 1)
        pam(path, nodata)
        assert "chunks of 32 x 32" in same(str(path), 4).reader
        Path(f"{path}.aux.xml").unlink()


@pytest.mark.parametrize("options", [{}, {"interleave": "band", "compress": "lzw"}, {"nodata": 9}], ids=str)
def test_missing_chunks_hold_the_nodata_of_their_band(tmp_path: Path, options: dict) -> None:
    path = tmp_path / "a.tif"
    sparse(path, "uint8", 3, **options)
    pam(path, "10", "20", "30")
    with rasterio.open(path) as file:
        for bands in ([1], [2], [3, 1], [2, 2], [1, 2, 3]):
            for raw in (True, False):
                want = expected(file, bands, Box(0, 0, 130, 100), raw)
                np.testing.assert_array_equal(open_scene(str(path), bands=bands, raw=raw).read(), want)


# -- several images in a file -----------------------------------------------------------------------------


def append(path: Path, *images: tuple[np.ndarray, dict]) -> str:
    for number, (values, options) in enumerate(images):
        tifffile.imwrite(path, values, append=number > 0, metadata=None, photometric="minisblack", **options)
    return str(path)


def test_several_images_thumbnails_and_overviews_out_of_order(tmp_path: Path) -> None:
    big, half, small = image("u2", 64, 80), image("u2", 32, 40), image("u2", 8, 10)
    less = {"subfiletype": 1}
    files = [
        [(big, {}), (image("f4", 31, 40), {})],
        [(small, less), (big, {})],
        [(big, {}), (small, less), (half, {**less, "compression": "zlib"}), (half, less)],
        [(big, {}), (image("u2", 3, 32, 40), {**less, "planarconfig": "separate"}), (small, less)],
    ]
    for number, images in enumerate(files):
        path = append(tmp_path / f"{number}.tif", *images)
        same(path, 4)
        with rasterio.open(path) as file:
            levels = len(file.overviews(1))
        for level in range(levels):
            same(path, 4, overview=level)
    with tifffile.TiffWriter(tmp_path / "sub.tif") as file:
        file.write(big, metadata=None, subifds=1, tile=(16, 16))
        file.write(half, metadata=None, subfiletype=1, tile=(16, 16))
    same(str(tmp_path / "sub.tif"), 4)


COGS = [
    {"COMPRESS": "DEFLATE", "PREDICTOR": "YES"},
    {"COMPRESS": "JPEG"},
    {"COMPRESS": "WEBP", "QUALITY": 100},
    {"COMPRESS": "ZSTD", "INTERLEAVE": "BAND"},
    {"COMPRESS": "LERC"},
    {"COMPRESS": "NONE", "BIGTIFF": "YES"},
]


@pytest.mark.parametrize("options", COGS, ids=str)
def test_cogs(tmp_path: Path, options: dict) -> None:
    source = write(tmp_path / "in.tif", image("uint8", 3, 300, 400), **LAYOUTS["tiles"])
    path = str(tmp_path / "cog.tif")
    try:
        rasterio.shutil.copy(source, path, driver="COG", BLOCKSIZE=128, **options)
    except rasterio.errors.RasterioError as error:
        pytest.skip(f"this GDAL cannot write it: {error}")
    same(path, 6)
    for level in (0, 1):
        same(path, 6, overview=level)


def test_a_chunk_that_cannot_hold_what_the_header_claims(tmp_path: Path) -> None:
    """GDAL finds out after minutes."""
    path = Path(write(tmp_path / "a.tif", image("float32", 1, 40, 50), compress="zstd", **TILES))
    with tifffile.TiffFile(path) as file:
        tag = file.pages[0].tags["SamplesPerPixel"]
    data = bytearray(path.read_bytes())
    data[tag.valueoffset : tag.valueoffset + 2] = b"\xff\xff"
    path.write_bytes(data)
    scene = open_scene(str(path), bands=1, raw=True)
    with pytest.raises(
        sg.OpenError, match=r"tile \(0, 0, 0\) of .*a\.tif is damaged: \d+ bytes of zstd cannot hold"
    ):
        scene.read(sg.Window(y=(0, 1), x=(0, 1)))


def test_predictor_2_of_wide_numbers_is_left_to_gdal(tmp_path: Path) -> None:
    """Differences of 128 bits: no decoder here takes them, and GDAL says so."""
    values = (np.arange(64 * 64).reshape(64, 64) + 1j).astype("c16")
    path = tmp_path / "a.tif"
    predictor = [(316, "H", 1, 2, True)]  # under the number of another tag, which the writer does not look at
    tifffile.imwrite(
        path, values, compression="zlib", tile=(64, 64), photometric="minisblack", extratags=predictor
    )
    data = path.read_bytes()
    at = data.index(struct.pack("<HHI", 316, 3, 1))
    path.write_bytes(data[:at] + struct.pack("<H", 317) + data[at + 2 :])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(sg.OpenError):
            open_scene(str(path), raw=True).read()


def test_big_endian_maps_are_converted_by_blocks(tmp_path: Path) -> None:
    """No second array as large as the window comes into being."""
    values = np.arange(2048 * 2048, dtype=">u2").reshape(2048, 2048)
    tifffile.imwrite(tmp_path / "a.tif", values, byteorder=">", photometric="minisblack")
    scene = open_scene(str(tmp_path / "a.tif"))
    assert scene.reader == "memory-mapped"
    out = np.empty(scene.shape, np.float32)
    tracemalloc.start()
    try:
        scene.read_into(out)
        assert tracemalloc.get_traced_memory()[1] < out.nbytes // 4
    finally:
        tracemalloc.stop()
    assert np.array_equal(out.reshape(values.shape), values.astype(np.float32))
