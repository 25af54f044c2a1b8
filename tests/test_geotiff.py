"""Opening GeoTIFF and other rasters, against rasterio."""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC
from rasterio.windows import Window as RioWindow

from streamgeo.errors import GridError, OpenError
from streamgeo.locate import GeoLocator
from streamgeo.sources.geotiff import GeoTiffScene, open_scene
from streamgeo.window import Window

from .conftest import SAMPLES

REAL = sorted(p for p in (SAMPLES / "remote_sensing").rglob("*") if p.suffix.lower() == ".tif")
UTM = {"crs": "EPSG:32633", "transform": Affine(30, 0, 500000.25, 0, -30, 4500000.75)}
REPEATED = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def make(path: Path, data: np.ndarray, after: Any = None, dtype: str | None = None, **options: Any) -> str:
    """Write ``data`` (band, y, x) with rasterio; ``after`` gets the dataset before the pixels are written."""
    count, height, width = data.shape
    kind = {"driver": "GTiff", **UTM, **options}
    with rasterio.open(
        path, "w", count=count, height=height, width=width, dtype=dtype or data.dtype.name, **kind
    ) as dst:
        if after is not None:
            after(dst)
        dst.write(data)
    return str(path)


def expected(
    path: str | Path, bands: Any = None, window: Any = None, overview: int | None = None
) -> np.ndarray:
    """Physical float32 with NaN, from rasterio's masked array."""
    options = {} if overview is None else {"overview_level": overview}
    with rasterio.open(path, **options) as src:
        masked = src.read(bands, window=window, masked=True)
        index = np.atleast_1d(bands if bands is not None else src.indexes) - 1
        shape = (-1, 1, 1) if masked.ndim == 3 else ()
        scale, offset = (np.reshape(np.take(v, index), shape) for v in (src.scales, src.offsets))
    values = masked.data.astype(np.float64) * scale + offset
    return np.where(np.ma.getmaskarray(masked), np.nan, values).astype(np.float32)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")


def some(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    """Random values over the range of a dtype (modest for floats)."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind in "iu":
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    values = rng.normal(0, 1000, shape)
    return (values + 1j * values[::-1] if np.dtype(dtype).kind == "c" else values).astype(dtype)


# -- real files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", REAL, ids=lambda p: p.name)
def test_real_files_whole_and_in_windows(path: Path) -> None:
    rng = np.random.default_rng(7)
    with rasterio.open(path) as src:
        stored, shape, transform, crs = src.read(), src.shape, src.transform, src.crs
    wanted = {False: expected(path), True: stored}
    for raw in (False, True):
        cube, plane = open_scene(str(path), raw=raw), open_scene(str(path), bands=1, raw=raw)
        assert cube.dims == ("band", "y", "x") and plane.dims == ("y", "x")
        assert cube.shape == stored.shape and cube.dtype == (stored.dtype if raw else np.float32)
        assert same(cube.read(), wanted[raw]) and same(plane.read(), wanted[raw][0])
        for _ in range(20):
            (y0, y1), (x0, x1) = (sorted(rng.integers(0, size + 1, 2).tolist()) for size in shape)
            window = Window(y=(y0, y1), x=(x0, x1))
            assert same(cube.read(window), wanted[raw][:, y0:y1, x0:x1])
            assert same(plane.read(window), wanted[raw][0, y0:y1, x0:x1])
            if y0 < y1 and x0 < x1 and not raw:
                window_of_rasterio = RioWindow(x0, y0, x1 - x0, y1 - y0)
                assert same(plane.read(window), expected(path, 1, window_of_rasterio))
        if cube.grid.locator is not None:
            assert cube.grid.affine == transform[:6]
            assert CRS.from_user_input(cube.grid.locator.crs) == crs if crs else cube.grid.crs is None
        assert cube.grid.crop(Window(band=(0, 1))).drop("band") == plane.grid


@pytest.mark.parametrize("path", REAL, ids=lambda p: p.name)
def test_real_overviews(path: Path) -> None:
    with rasterio.open(path) as src:
        levels = src.overviews(1)
    whole = open_scene(str(path)).grid
    for level in range(len(levels)):
        scene = open_scene(str(path), overview=level)
        with rasterio.open(path, overview_level=level) as src:
            assert scene.grid.affine == src.transform[:6]
            assert same(open_scene(str(path), overview=level, raw=True).read(), src.read())
        assert same(scene.read(), expected(path, overview=level))
        assert scene.grid.bounds == pytest.approx(whole.bounds, rel=1e-12)
        window = Window(y=(1, scene.shape[1]), x=(0, scene.shape[2] - 1))
        assert same(scene.read(window), scene.read()[:, 1:, :-1])
    with pytest.raises(OpenError, match=rf"no overview level {len(levels)} in {path.name}; it has"):
        open_scene(str(path), overview=len(levels))


def test_bands_by_number_order_and_repetition(samples: Path) -> None:
    path = str(samples / "remote_sensing" / "localtileserver_landsat.tif")
    with rasterio.open(path) as src:
        stored = src.read()
    scene = open_scene(path, bands=[7, 2, 2], raw=True)
    assert same(scene.read(), stored[[6, 1, 1]])
    assert scene.attrs["descriptions"] == ("B7", "B2", "B2")
    assert same(scene.read(Window(band=(1, 3), y=(5, 9))), stored[[1, 1], 5:9])
    assert same(open_scene(path, bands=(3,), raw=True).read(), stored[[2]])
    assert same(open_scene(path, bands=np.int64(3), raw=True).read(), stored[2])
    for bad in (0, 8, -1, True, 1.5, "1", [1, 9], [], [1, "2"]):
        with pytest.raises(OpenError, match="bands are counted from 1 to 7"):
            open_scene(path, bands=bad)


# -- dtypes, nodata, scale ----------------------------------------------------------------------------------

INTEGERS = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]
FLOATS = ["float32", "float64"]


@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS])
def test_every_dtype(tmp_path: Path, dtype: str) -> None:
    data = some((2, 20, 30), dtype)
    data[:, 3:5] = 7
    path = make(tmp_path / "a.tif", data, nodata=7)
    assert same(open_scene(path, raw=True).read(), data)
    got = open_scene(path).read()
    assert same(got, expected(path)) and np.isnan(got[:, 3:5]).all()
    template = open_scene(path).template
    assert (template.format, template.nodata, template.raw, template.dims) == (
        "geotiff", 7.0, False, ("band", "y", "x"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("dtype", "read_as"), [("complex64",) * 2, ("complex128",) * 2, ("complex_int16", "complex64")]
)
def test_complex_is_kept_raw_and_refused_otherwise(tmp_path: Path, dtype: str, read_as: str) -> None:
    data = np.round(some((1, 5, 6), read_as))
    path = make(tmp_path / "slc.tif", data, dtype=dtype)
    scene = open_scene(path, raw=True)
    assert scene.dtype == np.dtype(read_as) and same(scene.read(), data)
    with pytest.raises(OpenError, match=r"slc.tif holds complex\d+; give raw=True"):
        open_scene(path)


@given(
    dtype=st.sampled_from(["uint8", "int8", "int16", "uint16", "int32", "float32", "float64"]),
    nodata=st.sampled_from([None, 0, 1, 3.0, 100]),
    scale=st.sampled_from([1.0, 0.01, -2.5]),
    offset=st.sampled_from([0.0, 1000.0]),
    box=st.tuples(*[st.integers(0, 20)] * 4),
)
@REPEATED
def test_physical_values_are_rasterios(
    tmp_path: Path, dtype: str, nodata: float | None, scale: float, offset: float, box: tuple[int, ...]
) -> None:
    data = (some((2, 20, 20), "uint8", 3) % 120).astype(dtype)
    if data.dtype.kind == "f":
        data[1, 4] = np.nan
        data[1, 5] = np.inf

    def packing(dst: Any) -> None:
        dst.scales, dst.offsets = (scale, 1.0), (0.0, offset)

    path = make(tmp_path / "p.tif", data, packing, nodata=nodata)
    y, x = sorted(box[:2]), sorted(box[2:])
    whole = expected(path)
    assert same(open_scene(path).read(), whole)
    cut = open_scene(path).read(Window(y=(y[0], y[1]), x=(x[0], x[1])))
    assert same(cut, whole[:, y[0] : y[1], x[0] : x[1]])


@pytest.mark.parametrize(
    ("dtype", "text", "lost"),
    [
        ("uint8", b"-99", []), ("uint8", b"300", []), ("uint8", b"nan", []), ("int16", b"9e9", []),
        ("uint8", b"001", [1]), ("int16", b"-99", [-99]), ("float32", b"nan", [np.nan]),
        ("float32", b"0.1", [0.1]),
    ],
)  # fmt: skip
def test_nodata_that_the_dtype_cannot_hold_is_none(
    tmp_path: Path, dtype: str, text: bytes, lost: list[float]
) -> None:
    values = {"u": [0, 1, 44, 255], "i": [0, 1, -99, 300], "f": [0, 0.1, np.nan, 300]}[np.dtype(dtype).kind]
    path = Path(make(tmp_path / "n.tif", np.array([[values]], dtype), nodata=123))
    raw = path.read_bytes()
    assert raw.count(b"123\0") == 1  # nodata is stored as text
    path.write_bytes(raw.replace(b"123\0", text + b"\0"))
    got = open_scene(str(path)).read()
    assert same(got, expected(path))
    assert np.array_equal(np.isnan(got[0, 0]), np.isin(values, lost) | np.isnan(values))


def test_float32_nodata_given_with_the_digits_of_float64(samples: Path) -> None:
    scene = open_scene(str(samples / "remote_sensing" / "co_elevation_roi.tif"))
    assert scene.template.nodata == pytest.approx(-3.4028230607370965e38, rel=1e-15)
    with rasterio.open(samples / "remote_sensing" / "co_elevation_roi.tif") as src:
        assert np.array_equal(np.isnan(scene.read()), src.read_masks() == 0)


def test_values_beyond_float32_are_said(tmp_path: Path) -> None:
    data = np.array([[[1e300, -1.7e308, 2.0]]])
    path = make(tmp_path / "big.tif", data, nodata=-1.7e308)
    with pytest.warns(UserWarning, match="big.tif beyond the range of float32"):
        got = open_scene(path).read()
    assert same(got, np.array([[[np.inf, np.nan, 2]]], np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(open_scene(path).read(Window(x=(1, 2)))).all()  # nodata alone is no reason


def vrt(path: Path, shape: tuple[int, int], bands: list[str]) -> str:
    """A VRT file of bands given as (dtype, inner XML)."""
    inner = "".join(
        f'<VRTRasterBand dataType="{text.split("|")[0]}" band="{i}">{text.split("|")[1]}</VRTRasterBand>'
        for i, text in enumerate(bands, start=1)
    )
    path.write_text(f'<VRTDataset rasterXSize="{shape[1]}" rasterYSize="{shape[0]}">{inner}</VRTDataset>')
    return str(path)


def source(name: str, band: int) -> str:
    file = f'<SourceFilename relativeToVRT="1">{name}</SourceFilename>'
    return f"<SimpleSource>{file}<SourceBand>{band}</SourceBand></SimpleSource>"


def test_nodata_scale_mask_and_dtype_by_band(tmp_path: Path) -> None:
    data = (some((3, 9, 8), "uint8", 1) % 4).astype(np.uint8)
    make(tmp_path / "src.tif", data)
    mask = f'<MaskBand><VRTRasterBand dataType="Byte">{source("src.tif", 3)}</VRTRasterBand></MaskBand>'
    path = vrt(
        tmp_path / "by_band.vrt",
        (9, 8),
        [
            f"Byte|<NoDataValue>1</NoDataValue><Scale>2</Scale>{source('src.tif', 1)}",
            f"Int16|<NoDataValue>-7</NoDataValue><Offset>5</Offset>{source('src.tif', 2)}",
            f"Float32|{source('src.tif', 3)}{mask}",
        ],
    )
    wanted = np.stack([
        np.where(data[0] == 1, np.nan, data[0] * 2.0), data[1] + 5.0, np.where(data[2] == 0, np.nan, data[2])
    ]).astype(np.float32)  # fmt: skip
    scene = open_scene(path)
    assert same(scene.read(), wanted)
    assert same(scene.read(Window(band=(1, 3), y=(2, 4))), wanted[1:, 2:4])
    assert scene.template.nodata is None and scene.attrs["nodatavals"] == (1.0, -7.0, None)
    assert open_scene(path, bands=2).template.nodata == -7
    stored = open_scene(path, raw=True).read()
    assert same(stored, data.astype(np.float32))
    assert str(tmp_path / "src.tif") in scene.files and path in scene.files


# -- masks --------------------------------------------------------------------------------------------------


def alpha_of(name: str) -> Any:
    def set_colours(dst: Any) -> None:
        dst.colorinterp = [ColorInterp[kind] for kind in name.split()]

    return set_colours


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("colours", ["red green blue alpha", "gray alpha"])
def test_alpha_hides_the_other_bands_only(tmp_path: Path, dtype: str, colours: str) -> None:
    kinds = colours.split()
    data = some((len(kinds), 10, 12), dtype)
    at = kinds.index("alpha")
    data[at] = np.resize([0, 1, 255, 3], (10, 12))
    path = make(tmp_path / "rgba.tif", data, alpha_of(colours))
    got = open_scene(path).read()
    assert same(got, expected(path))
    assert same(got[at], data[at].astype(np.float32))  # alpha itself stays as it is
    others = np.delete(got, at, axis=0)
    assert np.array_equal(np.isnan(others), np.broadcast_to(data[at] == 0, others.shape))
    assert np.array_equal(np.isnan(open_scene(path, bands=1).read()), data[at] == 0)


@pytest.mark.parametrize("colours", ["alpha gray", "red green blue undefined alpha"])
def test_alpha_in_another_place_is_no_mask_to_gdal(tmp_path: Path, colours: str) -> None:
    data = some((len(colours.split()), 10, 12), "uint8") // 128
    path = make(tmp_path / "a.tif", data, alpha_of(colours))
    got = open_scene(path).read()
    assert same(got, data.astype(np.float32)) and same(got, expected(path))


@pytest.mark.parametrize("internal", [True, False])
def test_mask_band_in_the_file_and_beside_it(tmp_path: Path, internal: bool) -> None:
    data = some((3, 40, 50), "uint8")
    mask = np.where(data[0] > 128, 255, 0).astype(np.uint8)
    path = tmp_path / "m.tif"
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal):
        make(path, data, lambda dst: dst.write_mask(mask))
    assert Path(f"{path}.msk").exists() is not internal
    scene = open_scene(str(path))
    assert np.array_equal(np.isnan(scene.read()), np.broadcast_to(mask == 0, data.shape))
    assert same(scene.read(Window(y=(3, 9))), expected(path)[:, 3:9])
    assert same(open_scene(str(path), raw=True).read(), data)
    assert (f"{path}.msk" in scene.files) is not internal


def test_nodata_of_all_bands_together(tmp_path: Path) -> None:
    data = np.array([[[1, 1, 9]], [[2, 9, 2]]], np.uint8)
    path = make(tmp_path / "n.tif", data, lambda dst: dst.update_tags(NODATA_VALUES="1 2"))
    got = open_scene(path).read()
    assert same(got, expected(path)) and np.isnan(got[:, 0, 0]).all() and np.isnan(got).sum() == 2


# -- layouts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"tiled": True, "blockxsize": 16, "blockysize": 32}, {"blockysize": 7}, {"interleave": "pixel"},
        {"interleave": "band", "tiled": True, "blockxsize": 16, "blockysize": 16}, {"BIGTIFF": "YES"},
        {"ENDIANNESS": "BIG"}, {"ENDIANNESS": "BIG", "compress": "deflate", "predictor": 2},
        {"compress": "lzw", "predictor": 2}, {"compress": "packbits"}, {"compress": "zstd"},
        {"compress": "lerc"}, {"SPARSE_OK": "TRUE", "tiled": True, "blockxsize": 16, "blockysize": 16},
    ],
    ids=str,
)  # fmt: skip
def test_layouts_and_compressions(tmp_path: Path, options: dict[str, Any]) -> None:
    data = some((2, 45, 61), "int16")
    data[:, 16:, :32] = 0  # whole blocks of zeros, which a sparse file leaves out
    path = make(tmp_path / "a.tif", data, **options)
    scene = open_scene(path, raw=True)
    assert same(scene.read(), data)
    assert same(scene.read(Window(y=(13, 40), x=(9, 50))), data[:, 13:40, 9:50])
    assert scene.read().dtype.isnative


@pytest.mark.parametrize("driver", ["PNG", "JP2OpenJPEG", "VRT", "ENVI"])
def test_other_drivers(tmp_path: Path, driver: str) -> None:
    suffix = {"PNG": "png", "JP2OpenJPEG": "jp2", "VRT": "vrt", "ENVI": "img"}[driver]
    data, path = some((3, 64, 70), "uint8"), tmp_path / f"a.{suffix}"
    tiff = make(tmp_path / "a.tif", data)
    if driver == "VRT":
        vrt(path, (64, 70), [f"Byte|{source('a.tif', band)}" for band in (1, 2, 3)])
    else:
        lossless = {"QUALITY": "100", "REVERSIBLE": "YES", "YCBCR420": "NO"} if "JP2" in driver else {}
        with rasterio.open(tiff) as src:
            make(path, src.read(), driver=driver, **lossless)
    assert same(open_scene(str(path), raw=True).read(), data)
    assert same(open_scene(str(path), bands=2).read(), data[1].astype(np.float32))


# -- place and header ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "transform",
    [
        Affine(30, 0, 500000.25, 0, 30, 1.5), Affine(20, 3, 1, 2, -10, 5), Affine(-1, 0, 7, 0, -1, 8),
        Affine(1, 0, 0, 0, -1, 0),
    ],
    ids=["south-up", "sheared", "mirrored", "unit"],
)  # fmt: skip
@pytest.mark.parametrize("crs", [None, "EPSG:32633"])
@pytest.mark.parametrize("point", ["Area", "Point"])
def test_transforms(tmp_path: Path, transform: Affine, crs: str | None, point: str) -> None:
    path = make(
        tmp_path / "t.tif", some((1, 6, 7), "uint8"), lambda dst: dst.update_tags(AREA_OR_POINT=point),
        transform=transform, crs=crs,
    )  # fmt: skip
    scene = open_scene(path)
    with rasterio.open(path) as src:
        assert scene.grid.affine == src.transform[:6] == pytest.approx(transform[:6])
        x, y = src.xy(2, 3)  # of the pixel's centre
        assert scene.grid.crs == (src.crs.to_wkt() if src.crs else None)
    world = scene.grid.pixel_to_world(y=2, x=3)
    assert (world["x"].item(), world["y"].item()) == pytest.approx((x, y), rel=1e-12)
    assert scene.attrs.get("AREA_OR_POINT", "Area") == point


def test_no_georeference_and_crs_alone(tmp_path: Path) -> None:
    data = some((1, 4, 5), "uint8")
    assert open_scene(make(tmp_path / "a.tif", data, crs=None, transform=None)).grid.locator is None
    alone = open_scene(make(tmp_path / "b.tif", data, transform=None)).grid
    assert isinstance(alone.locator, GeoLocator) and alone.crs.to_epsg() == 32633


POINTS = [
    GroundControlPoint(row=2.0 * k, col=3.0 * (k % 3), x=10 + k, y=20 - k, z=1.5, id=str(k)) for k in range(5)
]
COEFFICIENTS = [0.0, 1.0] + [0.0] * 18
RPCS = RPC(
    height_off=1.0, height_scale=2.0, lat_off=3.0, lat_scale=4.0, long_off=7.0, long_scale=8.0,
    line_off=5.5, line_scale=6.0, samp_off=9.0, samp_scale=10.0,
    line_num_coeff=COEFFICIENTS, line_den_coeff=[1.0] + [0.0] * 19,
    samp_num_coeff=COEFFICIENTS, samp_den_coeff=[1.0] + [0.0] * 19,
)  # fmt: skip


def with_gcps(dst: Any) -> None:
    dst.gcps = (POINTS, CRS.from_epsg(4326))


def with_rpcs(dst: Any) -> None:
    dst.rpcs = RPCS


def test_control_points_and_rpcs_are_carried(tmp_path: Path) -> None:
    data = some((1, 12, 12), "uint8")
    scene = open_scene(make(tmp_path / "g.tif", data, with_gcps, crs=None, transform=None))
    assert scene.grid.locator is None and len(scene.template.carry["gcps"]) == 5
    assert scene.template.carry["gcps"][1][:5] == (2.0, 3.0, 11.0, 19.0, 1.5)
    scene = open_scene(make(tmp_path / "r.tif", data, with_rpcs, crs=None, transform=None))
    assert scene.grid.locator is None and float(scene.template.carry["rpcs"]["LINE_OFF"]) == 5.5
    placed = open_scene(make(tmp_path / "p.tif", data, with_rpcs))
    assert placed.grid.affine == UTM["transform"][:6] and placed.template.carry["rpcs"]


def test_header(tmp_path: Path) -> None:
    def describe(dst: Any) -> None:
        dst.update_tags(SENSOR="x", TIFFTAG_SOFTWARE="y")
        dst.update_tags(ns="FOO", a="b")
        dst.update_tags(2, WAVELENGTH="0.6")
        dst.descriptions, dst.units = ("blue", "red"), ("K", "K")
        dst.scales, dst.offsets = (0.1, 0.2), (0.0, 5.0)

    scene = open_scene(make(tmp_path / "h.tif", some((2, 5, 6), "int16"), describe, nodata=-1))
    assert scene.attrs["SENSOR"] == "x" and scene.attrs["TIFFTAG_SOFTWARE"] == "y"
    assert scene.attrs["descriptions"] == ("blue", "red") and scene.attrs["units"] == ("K", "K")
    assert scene.attrs["scales"] == (0.1, 0.2) and scene.attrs["offsets"] == (0.0, 5.0)
    assert scene.attrs["band_tags"] == ({}, {"WAVELENGTH": "0.6"})
    assert scene.attrs["colorinterp"] == ("gray", "undefined")
    assert scene.template.units == "K" and scene.template.carry["tags"]["FOO"] == {"a": "b"}


def test_colour_map_is_carried_and_values_stay_indices(tmp_path: Path) -> None:
    data = some((1, 5, 6), "uint8")
    colours = {i: (i, 0, 255 - i, 255) for i in range(256)}
    scene = open_scene(make(tmp_path / "c.tif", data, lambda dst: dst.write_colormap(1, colours)))
    assert scene.template.carry["colormaps"] == {0: colours} and scene.attrs["colorinterp"] == ("palette",)
    assert same(scene.read(), data.astype(np.float32))


def test_scenes_pickle_and_read_in_many_threads(samples: Path) -> None:
    path = str(samples / "remote_sensing" / "cog_int16.tif")
    scene = pickle.loads(pickle.dumps(open_scene(path)))
    whole = open_scene(path).read()
    windows = [Window(y=(i * 300, i * 300 + 400), x=(500, 1500)) for i in range(7)]
    with ThreadPoolExecutor(4) as pool:
        for window, got in zip(windows, pool.map(scene.read, windows)):
            assert same(got, whole[window.slices(scene.dims)])
    assert isinstance(scene, GeoTiffScene) and scene.grid == open_scene(path).grid
    with pytest.raises(GridError, match=r"reaches outside cog_int16\.tif"):
        scene.read(Window(y=(2600, 2700)))


# -- bad input ----------------------------------------------------------------------------------------------


def test_files_that_are_no_rasters(tmp_path: Path) -> None:
    (tmp_path / "empty.tif").touch()
    (tmp_path / "text.tif").write_text("not a raster at all\n")
    (tmp_path / "noise.tif").write_bytes(b"II*\0" + np.random.default_rng(0).bytes(500))
    for name, reason in {
        "none.tif": "no such file", "empty.tif": "is empty", "": "is a folder",
        "text.tif": "not recognized", "noise.tif": "open_geotiff: .*noise.tif cannot be read",
    }.items():  # fmt: skip
        with pytest.raises(OpenError, match=reason):
            open_scene(str(tmp_path / name) if name else str(tmp_path))


@pytest.mark.parametrize(
    "name", ["RGB.byte.tif", "cog_int16.tif", "cogeo.tif", "AST_L1A_00303182012144228_Z.tif"]
)
def test_truncated_at_any_place(samples: Path, tmp_path: Path, name: str) -> None:
    whole = (samples / "remote_sensing" / name).read_bytes()
    for length in np.linspace(1, 0.99 * len(whole), 25).astype(int):
        path = tmp_path / f"{length}.tif"
        path.write_bytes(whole[:length])
        with pytest.raises(OpenError, match=r"(open_geotiff|read .*): .*cannot be read") as caught:
            open_scene(str(path)).read()
        assert caught.value.__cause__ is not None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # rasterio's log of odd bytes
def test_damaged_bytes_never_crash(samples: Path, tmp_path: Path) -> None:
    whole = bytearray((samples / "remote_sensing" / "landsat_016037" / "red.tif").read_bytes())
    rng, path = np.random.default_rng(5), tmp_path / "d.tif"
    outcomes = set()
    for _ in range(60):
        damaged = bytearray(whole)
        for at in rng.integers(0, 3000, 12):
            damaged[at] = int(rng.integers(0, 256))
        path.write_bytes(damaged)
        try:
            open_scene(str(path)).read(Window(y=(0, 40), x=(0, 40)))
            outcomes.add("read")
        except (OpenError, GridError):
            outcomes.add("error")
    assert "error" in outcomes


def test_a_damaged_file_does_not_spoil_the_next(tmp_path: Path) -> None:
    good = make(tmp_path / "good.tif", some((3, 200, 200), "float32"), compress="deflate", tiled=True,
                blockxsize=64, blockysize=64)  # fmt: skip
    whole, rng, failed = Path(good).read_bytes(), np.random.default_rng(0), 0
    open_scene(good).read()  # its handle is kept
    for number in range(10):
        damaged = bytearray(whole)
        for at in rng.integers(1000, len(whole), 200):
            damaged[at] = int(rng.integers(0, 256))
        (tmp_path / f"{number}.tif").write_bytes(damaged)
        try:
            open_scene(str(tmp_path / f"{number}.tif")).read()
        except OpenError:
            failed += 1
        assert open_scene(good).attrs["colorinterp"] == ("gray", "undefined", "undefined")
    assert failed


def test_a_script_ends_quietly(tmp_path: Path) -> None:
    paths = [make(tmp_path / f"{i}.tif", some((1, 4, 5), "uint8")) for i in range(20)]
    code = "import sys\nfrom streamgeo.sources.geotiff import open_scene\nfor p in sys.argv[1:]: open_scene(p).read()"
    run = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    assert run.stdout == run.stderr == ""


def test_a_gigantic_header_allocates_nothing(tmp_path: Path) -> None:
    size = 2**31 - 1
    tags = [(256, size), (257, size), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 4)]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = b"II*\0" + struct.pack("<I", 12) + b"data" + struct.pack("<H", len(tags))
    path = tmp_path / "huge.tif"
    path.write_bytes(head + directory + b"\0" * 4)
    code = """
import resource, sys
from streamgeo.sources.geotiff import open_scene
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
open_scene(sys.argv[1]).read()
before = peak()
scene = open_scene(sys.argv[2])
print(scene.shape[1], peak() < 1.2 * before)
"""
    small = make(tmp_path / "small.tif", some((1, 4, 5), "uint8"))
    run = subprocess.run(
        [sys.executable, "-c", code, small, str(path)], capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == [str(size), "True"]
