"""Writing GeoTIFF: what rasterio reads from the written file against what the scene held."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import from_gcps

from streamgeo.errors import WriteError
from streamgeo.grid import Grid
from streamgeo.locate import Coord, CoordLocator, GeoLocator, WcsLocator
from streamgeo.scene import ArrayScene, Scene
from streamgeo.sinks.geotiff_values import range_of_nodata, taken_for_nodata
from streamgeo.sources.geotiff import open_scene
from streamgeo.template import Template
from streamgeo.window import Window

from .test_geotiff import (
    FLOATS,
    INTEGERS,
    POINTS,
    REAL,
    REPEATED,
    UTM,
    alpha_of,
    expected,
    make,
    same,
    some,
    source,
    vrt,
    with_gcps,
    with_rpcs,
)


def save(scene: Scene, folder: Path, *, quiet: bool = True, **changes: Any) -> Path:
    """Save what a scene holds, its parts replaced by ``changes``; nothing but the file may appear."""
    values, grid = changes.get("values"), changes.get("grid", scene.grid)
    template = replace(scene.template, **changes.get("template", {}))
    values = scene.read() if values is None else values
    target = folder / "out" / "saved.tif"
    with warnings.catch_warnings():
        if quiet:
            warnings.simplefilter("error", UserWarning)
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        path = ArrayScene(values, grid, template, name="a", files=scene.files).save(target)
    assert [p.name for p in path.parent.iterdir()] == ["saved.tif"]
    return path


def unchanging(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if not key.startswith("STATISTICS_")}


def plain(values: Any, dims: str = "y x", **template: Any) -> ArrayScene:
    """A scene without a file or place."""
    values = np.asarray(values)
    form = Template(**{"format": "numpy", "dims": tuple(dims.split()), **template})
    return ArrayScene(values, Grid.of(form.dims, values.shape), form, name="a")


# -- round trips --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("path", REAL, ids=lambda p: p.name)
def test_real_files_round_trip(path: Path, raw: bool, tmp_path: Path) -> None:
    scene = open_scene(str(path), raw=raw)
    saved = save(scene, tmp_path)
    with rasterio.open(path) as src, rasterio.open(saved) as dst:
        masks = [np.isnan(np.ma.filled(d.read(masked=True).astype(np.float64), np.nan)) for d in (src, dst)]
        assert np.array_equal(*masks)
        if raw:
            assert same(dst.read(), src.read()) and dst.dtypes == src.dtypes
            assert np.array_equal(dst.read_masks(), src.read_masks())
            assert (dst.scales, dst.offsets) == (src.scales, src.offsets)
            assert repr(dst.nodatavals) == repr(src.nodatavals)
        else:
            assert same(expected(saved), expected(path)) and set(dst.dtypes) == {"float32"}
            assert (
                dst.nodata == pytest.approx(src.nodata, nan_ok=True)
                if src.nodata is not None
                else (dst.nodata is None or (np.isnan(dst.nodata) and np.isnan(dst.read()).any()))
            )
        assert (dst.crs, dst.transform, dst.shape) == (src.crs, src.transform, src.shape)
        assert (dst.descriptions, dst.units, dst.colorinterp) == (
            src.descriptions,
            src.units,
            src.colorinterp,
        )
        assert dst.tags() == src.tags()
        assert [unchanging(dst.tags(i)) for i in dst.indexes] == [
            unchanging(src.tags(i)) for i in src.indexes
        ]
        assert dst.compression.name == "deflate" and not any(
            "STATISTICS_MEAN" in dst.tags(i) for i in dst.indexes
        )
        assert dst.profile.get("tiled", False) is (min(dst.shape) >= 256 and dst.shape != (256, 256))
    assert open_scene(str(saved)).grid == scene.grid


@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS, "complex64", "complex128"])
def test_raw_values_are_exact(tmp_path: Path, dtype: str) -> None:
    def packing(dst: Any) -> None:
        dst.scales, dst.offsets = (0.5, 2.0), (1.0, 0.0)

    data = some((2, 30, 40), dtype)
    scene = open_scene(make(tmp_path / "a.tif", data, packing, nodata=5), raw=True)
    with rasterio.open(save(scene, tmp_path)) as dst:
        assert same(dst.read(), data) and dst.nodata == 5
        assert (dst.scales, dst.offsets) == ((0.5, 2.0), (1.0, 0.0))


@pytest.mark.parametrize("options", [{}, {"AREA_OR_POINT": "Point"}])
@pytest.mark.parametrize("transform", [(30, 0, 500000.3, 0, -30, 4500000.7), (20, 3, 1, 2, 10, 5)])
def test_views_of_a_grid(tmp_path: Path, transform: tuple[float, ...], options: dict[str, str]) -> None:
    data = some((3, 40, 60), "float32")
    path = make(
        tmp_path / "a.tif", data, lambda d: d.update_tags(**options), transform=Affine(*transform), nodata=-1
    )
    scene = open_scene(path)
    views = {
        "crop": scene.grid.crop(Window(y=(5, 25), x=(7, 60))),
        "pad": scene.grid.pad(y=(3, 4), x=2),
        "flip": scene.grid.flip("y", "x"),
        "coarsen": scene.grid.coarsen(y=4, x=3),
        "refine": scene.grid.coarsen(y=0.5, x=0.5),
        "mixed": scene.grid.crop(Window(y=(1, 31), x=(2, 50))).flip("y").coarsen(y=2, x=2),
        "order": scene.grid.transpose("x", "band", "y"),
    }
    for name, grid in views.items():
        values = some(grid.shape, "float32", 1)
        values[0] = np.nan
        saved = save(scene, tmp_path, values=values, grid=grid)
        order = [grid.dims.index(dim) for dim in ("band", "y", "x")]
        with rasterio.open(saved) as dst:
            assert same(dst.read(masked=True).filled(np.nan), values.transpose(order)), name
            assert dst.transform[:6] == pytest.approx(grid.affine, rel=1e-12, abs=1e-9), name
        assert open_scene(str(saved)).grid == grid.transpose("band", "y", "x"), name


def test_metadata_goes_with_the_bands_that_are_left(tmp_path: Path) -> None:
    def describe(dst: Any) -> None:
        dst.descriptions, dst.units = ("blue", "green", "red"), ("K", "m", "s")
        for band in dst.indexes:
            dst.update_tags(band, N=str(band), STATISTICS_MEAN="3")
        alpha_of("blue green red")(dst)

    scene = open_scene(make(tmp_path / "a.tif", some((3, 9, 8), "uint8"), describe))

    def header(grid: Grid) -> tuple[Any, ...]:
        with rasterio.open(save(scene, tmp_path, values=np.zeros(grid.shape, np.float32), grid=grid)) as dst:
            colours = " ".join(kind.name for kind in dst.colorinterp)
            return dst.descriptions, dst.units, [dst.tags(i) for i in dst.indexes], colours

    assert header(scene.grid.flip("band")) == (
        ("red", "green", "blue"), ("s", "m", "K"), [{"N": "3"}, {"N": "2"}, {"N": "1"}], "red green blue",
    )  # fmt: skip
    part = header(scene.grid.crop(Window(band=(1, 3))))
    assert part == (("green", "red"), ("m", "s"), [{"N": "2"}, {"N": "3"}], "gray undefined")
    nothing = ((None,) * 3, (None,) * 3, [{}] * 3)
    assert header(scene.grid.resize(band=3))[:3] == nothing  # a model's bands are not the file's
    assert header(scene.grid.drop("band"))[:3] == ((None,), (None,), [{}])
    one = open_scene(str(tmp_path / "a.tif"), bands=2)
    with rasterio.open(save(one, tmp_path, template={"units": "1"})) as dst:
        assert (dst.descriptions, dst.units) == (("green",), ("1",))  # units of a model's output win


# -- nodata -------------------------------------------------------------------------------------------------

NODATA = [0.0, -9999.0, 1e-30, 7.5, 255.0, -3.4e38, 3.4e38, -1.5e-40]


@given(
    nodata=st.sampled_from(NODATA),
    dtype=st.sampled_from(FLOATS),
    steps=st.lists(st.integers(-40, 40), min_size=1, max_size=30),
)
@REPEATED
@pytest.mark.filterwarnings("ignore:save. .* valid values:UserWarning")
def test_a_valid_value_never_becomes_missing(
    tmp_path: Path, nodata: float, dtype: str, steps: list[int]
) -> None:
    kind = np.dtype(dtype).type
    with np.errstate(under="ignore", over="ignore"):
        near = kind(nodata) * (1 + np.array(steps) * np.finfo(np.float32).eps / 4).astype(dtype)
    near = np.where(np.isfinite(near), near, 1).astype(dtype)
    values = np.concatenate([near, np.array([np.nan, 1, np.inf, -np.inf], dtype)])[np.newaxis]
    path = save(plain(values, nodata=nodata), tmp_path, quiet=False)
    with rasterio.open(path) as dst:
        assert kind(dst.nodata) == kind(nodata)
        assert np.array_equal(dst.read_masks(1) == 0, np.isnan(values))
        got = dst.read(1, masked=True).filled(np.nan)
    if abs(nodata) < 1e38:  # near the end of float32 GDAL takes a wide range for nodata
        assert np.allclose(got, values, rtol=2e-6, atol=1e-44, equal_nan=True)


def test_the_input_is_not_changed_and_the_change_is_said(tmp_path: Path) -> None:
    values = np.array([[0, 1, np.nan, 0]], np.float32)
    before = values.copy()
    with pytest.warns(
        UserWarning, match=r"2 valid values would read as nodata 0.0: written as 1e-45 instead"
    ):
        path = save(plain(values, nodata=0), tmp_path, quiet=False)
    assert same(values, before)
    with rasterio.open(path) as dst:
        assert dst.read_masks(1).tolist() == [[255, 255, 0, 255]] and dst.read(1)[0, 2] == 0


@pytest.mark.parametrize(
    ("values", "nodata", "declared"),
    [
        (np.ones((1, 2), np.float32), None, None),
        (np.array([[np.nan, 1]], np.float32), None, np.nan),
        (np.ones((1, 2), np.float32), -9999, -9999),
        (np.ones((1, 2), np.float64), -1.7e308, -1.7e308),
        (np.ones((1, 2), np.float32), np.nan, np.nan),
        (np.ones((1, 2), np.float32), -1.7e308, None),
        (np.zeros((1, 2), np.uint8), 0, None),
        (np.zeros((1, 2), np.int64), 0, None),
        (np.array([[True, False]]), 0, None),
        (np.ones((1, 2), np.complex64), 0, None),
    ],
)
def test_which_nodata_is_declared(tmp_path: Path, values: np.ndarray, nodata: Any, declared: Any) -> None:
    with rasterio.open(save(plain(values, nodata=nodata), tmp_path)) as dst:
        assert repr(dst.nodata) == repr(None if declared is None else float(declared))
        assert np.array_equal(dst.read(1), values, equal_nan=True)


def test_nodata_out_of_range_and_of_several_kinds(tmp_path: Path) -> None:
    lost = np.array([[np.nan, 1]], np.float32)
    with pytest.warns(
        UserWarning, match=r"nodata -1.7e\+308 is out of the range of float32: NaN is declared"
    ):
        path = save(plain(lost, nodata=-1.7e308), tmp_path, quiet=False)
    with rasterio.open(path) as dst:
        assert np.isnan(dst.nodata) and dst.read_masks(1).tolist() == [[0, 255]]
    make(tmp_path / "s.tif", np.array([[[1, 2, 3]], [[1, 2, 3]]], np.int16))
    bands = [f"Int16|<NoDataValue>{i}</NoDataValue>{source('s.tif', i)}" for i in (1, 2)]
    two = vrt(tmp_path / "two.vrt", (1, 3), bands)
    with pytest.warns(UserWarning, match=r"different nodata values \(\[1.0, 2.0\]\).*NaN is declared"):
        path = save(open_scene(two), tmp_path, quiet=False)
    assert same(expected(path), expected(two))
    with pytest.warns(UserWarning, match="different nodata values.*none is declared"):
        path = save(open_scene(two, raw=True), tmp_path, quiet=False)
    with rasterio.open(path) as dst:
        assert dst.nodata is None and dst.read().tolist() == [[[1, 2, 3]]] * 2
    big = {"raw": True, "nodata": -(2**63)}
    with pytest.warns(UserWarning, match="cannot be declared for int64"):
        save(plain(np.array([[-(2**63)]]), **big), tmp_path, quiet=False)


def test_raw_values_of_another_dtype(tmp_path: Path) -> None:
    scene = open_scene(make(tmp_path / "a.tif", some((1, 4, 5), "uint16"), nodata=0), raw=True)
    with rasterio.open(save(scene, tmp_path, values=scene.read().astype(np.float32))) as dst:
        assert same(dst.read(), scene.read()) and dst.nodata == 0  # exact, so as it was
    for other in (scene.read() + np.float32(0.5), scene.read() + 2.0**17, scene.read().astype(int) - 65536):
        with pytest.warns(UserWarning, match="uint16 does not hold these raw .* exactly"):
            path = save(scene, tmp_path, quiet=False, values=other)
        with rasterio.open(path) as dst:
            assert same(dst.read(), other) and dst.nodata == 0
    made = scene.grid.resize(band=2)  # classes of a model: 0 is one of them
    with rasterio.open(save(scene, tmp_path, values=np.zeros(made.shape, np.uint8), grid=made)) as dst:
        assert dst.nodata is None and dst.dtypes == ("uint8", "uint8")


@pytest.mark.parametrize("dtype", ["bool", "float16", ">f4", "<i2", ">u8"])
def test_dtypes_that_are_adapted(tmp_path: Path, dtype: str) -> None:
    values = some((6, 7), "uint8").astype(dtype)
    with rasterio.open(save(plain(values), tmp_path)) as dst:
        kept = {"bool": "uint8", "float16": "float32"}.get(dtype, np.dtype(dtype).name)
        assert dst.dtypes == (kept,) and np.array_equal(dst.read(1), values)


# -- masks and colours --------------------------------------------------------------------------------------


@pytest.mark.parametrize("internal", [True, False])
def test_raw_values_keep_the_mask_of_their_file(tmp_path: Path, internal: bool) -> None:
    data = some((3, 40, 50), "uint8")
    mask = np.where(some((40, 50), "uint8", 4) > 100, 255, 0).astype(np.uint8)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal):
        path = make(tmp_path / "m.tif", data, lambda dst: dst.write_mask(mask))
    scene = open_scene(path, raw=True)
    for grid, wanted in (
        (scene.grid, mask),
        (scene.grid.flip("y").crop(Window(x=(5, 20))), mask[::-1, 5:20]),
        (scene.grid.pad(y=2, x=(1, 0)), np.pad(mask, ((2, 2), (1, 0)))),
        (scene.grid.coarsen(y=3, x=5), mask[1:39:3, 2::5]),
        (scene.grid.coarsen(y=2, x=10), mask[1::2, 5::10]),  # as GDAL's nearest: floor of the centre
        (scene.grid.crop(Window(y=(100, 110))), np.zeros((10, 50), np.uint8)),
    ):
        values = some(grid.shape, "uint8", 2)
        with rasterio.open(save(scene, tmp_path, values=values, grid=grid)) as dst:
            assert same(dst.read(), values) and np.array_equal(dst.dataset_mask(), wanted)
            assert dst.nodata is None
    Path(path).unlink()
    with pytest.raises(WriteError, match=r"no such file.*raw values go with the mask"):
        save(scene, tmp_path, values=data)


def test_alpha_stays_the_mask(tmp_path: Path) -> None:
    data = some((4, 20, 30), "uint8")
    data[3] = np.resize([0, 1, 128, 255], (20, 30))
    path = make(tmp_path / "rgba.tif", data, alpha_of("red green blue alpha"))
    with rasterio.open(save(open_scene(path), tmp_path)) as dst:
        assert dst.nodata is None and [kind.name for kind in dst.colorinterp] == [
            "red",
            "green",
            "blue",
            "alpha",
        ]
        assert same(dst.read(4), data[3].astype(np.float32))
    assert same(expected(tmp_path / "out" / "saved.tif"), expected(path))
    values = open_scene(path).read()
    values[1, 0, 1] = np.nan  # a pixel that alpha does not hide
    with rasterio.open(save(open_scene(path), tmp_path, values=values)) as dst:
        assert np.isnan(dst.nodata)
    rgb = open_scene(path, bands=[1, 2, 3], raw=True)  # without alpha among the bands, it becomes the mask
    with rasterio.open(save(rgb, tmp_path)) as dst:
        assert same(dst.read(), data[:3]) and np.array_equal(dst.dataset_mask() == 0, data[3] == 0)


def test_masks_that_do_not_fit_are_said(tmp_path: Path) -> None:
    make(tmp_path / "s.tif", some((2, 5, 6), "uint8"))
    inner = f'<MaskBand><VRTRasterBand dataType="Byte">{source("s.tif", 2)}</VRTRasterBand></MaskBand>'
    bands = [f"Byte|{source('s.tif', 1)}{inner}", f"Byte|{source('s.tif', 2)}"]
    path = vrt(tmp_path / "m.vrt", (5, 6), bands)
    with pytest.warns(UserWarning, match="one mask for all bands"):
        save(open_scene(path, raw=True), tmp_path, quiet=False)
    assert same(expected(save(open_scene(path), tmp_path)), expected(path))


def test_colour_map_goes_with_raw_values_only(tmp_path: Path) -> None:
    data, colours = some((1, 5, 6), "uint8"), {i: (i, 0, 255 - i, 255) for i in range(256)}
    path = make(tmp_path / "c.tif", data, lambda dst: dst.write_colormap(1, colours))
    with rasterio.open(save(open_scene(path, raw=True), tmp_path)) as dst:
        assert dst.colormap(1) == colours and same(dst.read(), data)
    with rasterio.open(save(open_scene(path), tmp_path)) as dst:
        assert same(dst.read(), data.astype(np.float32)) and dst.colorinterp[0].name == "gray"


# -- place --------------------------------------------------------------------------------------------------


def placed_by(dst: Any) -> Affine:
    return from_gcps(dst.gcps[0])


@pytest.mark.parametrize("point", ["Area", "Point"])
def test_control_points_follow_the_view(tmp_path: Path, point: str) -> None:
    def points(dst: Any) -> None:
        dst.update_tags(AREA_OR_POINT=point)
        with_gcps(dst)

    path = make(tmp_path / "g.tif", some((1, 12, 12), "uint8"), points, crs=None, transform=None)
    scene = open_scene(path)
    with rasterio.open(path) as src, rasterio.open(save(scene, tmp_path)) as dst:
        assert len(POINTS) == len(dst.gcps[0]) and dst.gcps[1] == CRS.from_epsg(4326)
        for a, b in zip(src.gcps[0], dst.gcps[0]):
            assert (a.row, a.col, a.x, a.y, a.z) == (b.row, b.col, b.x, b.y, b.z)
        before = src.gcps[0]
    grid = scene.grid.crop(Window(y=(2, 12), x=(3, 11))).flip("x").coarsen(y=2, x=2)
    with rasterio.open(save(scene, tmp_path, grid=grid, values=np.zeros(grid.shape, np.float32))) as dst:
        for a, b in zip(before, dst.gcps[0]):
            assert (b.row, b.col) == pytest.approx(((a.row - 2) / 2, (11 - a.col) / 2))
    with pytest.warns(UserWarning, match="control points and RPCs do not fit"):
        save(scene, tmp_path, quiet=False, grid=scene.grid.resize(y=12))


def test_rpcs_follow_the_view_as_gdal_moves_them(tmp_path: Path) -> None:
    path = make(tmp_path / "r.tif", some((1, 12, 18), "uint8"), with_rpcs, crs=None, transform=None)
    scene = open_scene(path)
    with rasterio.open(path) as src, rasterio.open(save(scene, tmp_path)) as dst:
        assert src.rpcs.to_dict() == dst.rpcs.to_dict()
    with rasterio.open(path, "r+") as src:
        src.build_overviews([2])
    with rasterio.open(path, overview_level=0) as small:
        wanted = small.rpcs
    grid = scene.grid.coarsen(y=2, x=2)
    with rasterio.open(save(scene, tmp_path, grid=grid, values=np.zeros(grid.shape, np.float32))) as dst:
        for key in ("line_off", "line_scale", "samp_off", "samp_scale"):
            assert getattr(dst.rpcs, key) == pytest.approx(getattr(wanted, key))
    with_crs = make(tmp_path / "c.tif", some((1, 12, 18), "uint8"), with_rpcs, transform=None)
    assert open_scene(with_crs).grid.locator is None  # the unit transform is none
    with rasterio.open(save(open_scene(with_crs), tmp_path)) as dst:
        assert dst.crs == CRS.from_epsg(32633) and dst.rpcs is not None
    grid = scene.grid.crop(Window(y=(2, 9), x=(5, 9)))
    with rasterio.open(save(scene, tmp_path, grid=grid, values=np.zeros(grid.shape, np.float32))) as dst:
        assert (dst.rpcs.line_off, dst.rpcs.samp_off) == (3.5, 4.0)


KINDS = ["EPSG:3857", "EPSG:2263", "+proj=sinu +R=6371007.181", "+proj=eqc +R=3396190", "EPSG:4979",
         'LOCAL_CS["mine",UNIT["metre",1]]']  # fmt: skip


@pytest.mark.parametrize("crs", KINDS)
def test_crs_of_many_kinds(tmp_path: Path, crs: str) -> None:
    path = make(tmp_path / "a.tif", some((1, 5, 6), "uint8"), crs=crs)
    with rasterio.open(path) as src, rasterio.open(save(open_scene(path), tmp_path)) as dst:
        assert src.crs is not None and dst.crs == src.crs


def test_a_crs_that_tiff_cannot_hold_is_refused(tmp_path: Path) -> None:
    locator = GeoLocator(
        (1, 0, 0, 0, -1, 0), "+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18"
    )
    scene = ArrayScene(
        np.ones((4, 5)), Grid.of("yx", (4, 5), locator), Template("geotiff", ("y", "x")), name="a"
    )
    with pytest.raises(
        WriteError, match="TIFF tags cannot hold the CRS .* save as NetCDF or Zarr, or reproject"
    ):
        save(scene, tmp_path)
    assert not [one for one in tmp_path.rglob("*") if one.is_file()]


# -- other formats ------------------------------------------------------------------------------------------


def coords(
    y: Any, x: Any, units: tuple[str, str] = ("degrees_north", "degrees_east"), crs: Any = None
) -> Grid:
    locator = CoordLocator(
        (Coord("lat", ("lat",), np.asarray(y), {"units": units[0]}),
         Coord("lon", ("lon",), np.asarray(x), {"units": units[1]})), ("lat", "lon"), crs,
    )  # fmt: skip
    return Grid.of(("lat", "lon"), (np.size(y), np.size(x)), locator)


def of_grid(grid: Grid, values: Any = None, **template: Any) -> ArrayScene:
    values = some(grid.shape, "float32") if values is None else values
    return ArrayScene(values, grid, Template(**{"format": "netcdf", "dims": grid.dims, **template}), name="a")


def test_regular_coordinates_become_a_transform(tmp_path: Path) -> None:
    lat, lon = np.float32(np.linspace(-89.875, 89.875, 720)), np.float32(np.arange(0, 359.8, 0.25))
    for y, step in ((lat, 0.25), (lat[::-1], -0.25)):  # an ascending latitude stays south-up
        grid = coords(y, lon)
        attrs = {"title": "t", "scale_factor": 0.1, "history": "h", "n": 3, "many": [1, 2]}
        scene = of_grid(grid, units="K", name="tos", nodata=-999, attrs=attrs)
        with rasterio.open(save(scene, tmp_path)) as dst:
            assert dst.transform[:6] == pytest.approx((0.25, 0, -0.125, 0, step, y[0] - step / 2), abs=1e-5)
            assert dst.crs == CRS.from_epsg(4326) and same(dst.read(1), scene.read())
            assert (dst.descriptions, dst.units, dst.nodata) == (("tos",), ("K",), -999)
            assert unchanging(dst.tags()) == {"AREA_OR_POINT": "Area", "title": "t", "history": "h", "n": "3"}
    cut = coords(lat, lon).crop(Window(lat=(10, 11), lon=(4, 9)))  # one row: its height is the file's step
    with rasterio.open(save(of_grid(cut), tmp_path)) as dst:
        assert dst.transform.e == pytest.approx(0.25, abs=1e-5) and dst.shape == (1, 5)
        assert dst.xy(0, 0) == pytest.approx((1.0, lat[10]), abs=1e-5)


@pytest.mark.parametrize(
    ("units", "mapping", "factor"),
    [
        (("km", "km"), {"grid_mapping_name": "lambert_azimuthal_equal_area"}, 1000.0),
        (("m", "m"), {"grid_mapping_name": "lambert_azimuthal_equal_area"}, 1.0),
        (
            ("rad", "rad"),
            {"grid_mapping_name": "geostationary", "perspective_point_height": 35786023.0,
             "longitude_of_projection_origin": -75.0, "sweep_angle_axis": "x"},
            35786023.0,
        ),
    ],
)  # fmt: skip
def test_units_of_projected_coordinates(tmp_path: Path, units: Any, mapping: Any, factor: float) -> None:
    grid = coords([0.3, 0.2, 0.1], [0.0, 0.1], units, {"name": "crs", **mapping})
    with rasterio.open(save(of_grid(grid), tmp_path)) as dst:
        assert dst.transform[:6] == pytest.approx(
            (0.1 * factor, 0, -0.05 * factor, 0, -0.1 * factor, 0.35 * factor), rel=1e-12, abs=1e-9
        )
        assert dst.crs.is_projected


def test_coordinates_without_a_transform(tmp_path: Path) -> None:
    gauss = [88.57, 86.72, 84.86, 83.0, 81.3]
    for grid, reason in (
        (coords(gauss, [1.0, 2.0]), r"'lat' is not regular \(off by up to 0.117, .*NetCDF, or reproject"),
        (coords([1.0, np.nan, 3.0], [1.0, 2.0]), "'lat' is not regular"),
        (coords([5.0], [1.0, 2.0]), "'lat' is not regular"),
    ):
        with pytest.raises(WriteError, match=reason):
            save(of_grid(grid), tmp_path)
    plane = CoordLocator(
        tuple(Coord(n, ("j", "i"), some((4, 5), "float64"), {}) for n in ("lat", "lon")), ("j", "i")
    )
    with pytest.raises(WriteError, match=r"2-D \(curvilinear\)"):
        save(of_grid(Grid.of(("j", "i"), (4, 5), plane)), tmp_path)
    index = (
        Coord("j", ("j",), np.arange(4.0)),
        Coord("i", ("i",), np.arange(5.0)),
    )  # says nothing of the map
    named = [replace(c, attrs={"standard_name": n}) for c, n in zip(plane.coords, ("latitude", "longitude"))]
    with pytest.raises(WriteError, match=r"2-D \(curvilinear\)"):
        save(of_grid(Grid.of(("j", "i"), (4, 5), CoordLocator((*index, *named), ("j", "i")))), tmp_path)
    with pytest.warns(UserWarning, match="no coordinates are known"):
        save(of_grid(Grid.of(("j", "i"), (4, 5), CoordLocator((), ("j", "i")))), tmp_path, quiet=False)


def test_a_third_dim_becomes_bands(tmp_path: Path) -> None:
    flat = coords([3.0, 2.0], [1.0, 2.0, 3.0])
    time = Coord("time", ("time",), np.array([0, 6, 12]), {"units": "hours since 2000-01-01"})
    locator = replace(flat.locator, coords=(*flat.locator.coords, time))
    grid = Grid.of(("lat", "lon", "time"), (2, 3, 3), locator)
    scene = of_grid(grid, units="K", name="tos")
    with rasterio.open(save(scene, tmp_path)) as dst:
        assert same(dst.read(), scene.read().transpose(2, 0, 1)) and dst.units == ("K",) * 3
        assert dst.descriptions == ("time=0", "time=6", "time=12")
    named = of_grid(Grid.of(("variable", "lat", "lon"), (2, 2, 3), flat.locator), name="u, v")
    with rasterio.open(save(named, tmp_path)) as dst:
        assert dst.descriptions == ("u", "v") and dst.crs.to_epsg() == 4326


def test_tags_of_another_format_and_a_wcs_that_has_no_place(tmp_path: Path) -> None:
    header = "".join(f"{key:8}= {value!s:>20}".ljust(80) for key, value in {
        "NAXIS": 2, "CTYPE1": "'HPLN-TAN'", "CTYPE2": "'HPLT-TAN'", "CDELT1": 0.1, "CDELT2": 0.1,
    }.items())  # fmt: skip
    attrs = {"TELESCOP": "SDO", "CRPIX1": 3.5, "BITPIX": -32, "EXPTIME": 2.9}
    with rasterio.open(save(of_grid(Grid.of("yx", (4, 5)), format="fits", attrs=attrs), tmp_path)) as dst:
        assert dst.crs is None and dst.transform == Affine.identity()
        assert dst.tags() == {"TELESCOP": "SDO", "EXPTIME": "2.9"}
    grid = Grid.of(("y", "x"), (4, 5), WcsLocator(header, ("y", "x"), ("y", "x")))
    with pytest.raises(WriteError, match="no place for the FITS WCS .* save as FITS, or as NetCDF or Zarr"):
        save(of_grid(grid, format="fits", attrs=attrs), tmp_path)


# -- what cannot be written ---------------------------------------------------------------------------------


def test_what_a_tiff_cannot_hold(tmp_path: Path) -> None:
    for scene, reason in (
        (
            plain(np.zeros((2, 3, 4, 5)), "time band y x"),
            r"\(band, y, x\), these values have time=2, band=3, y=4, x=5",
        ),
        (plain(np.zeros(4), "x"), "these values have x=4"),
        (plain(np.zeros((0, 4))), r"no pixels to write \(y=0, x=4\)"),
        (plain(np.array([["a"]])), r"cannot hold str\w* values; use astype"),
        (plain(np.zeros((2, 3), np.longdouble)), "use astype, for example to float32"),
    ):
        with pytest.raises(WriteError, match=reason):
            save(scene, tmp_path)
    assert not list((tmp_path / "out").glob("*"))
    with pytest.raises(WriteError, match="is a file that this scene is read from"):
        path = make(tmp_path / "a.tif", some((1, 4, 5), "uint8"))
        open_scene(path).save(path)


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    code = f"""
import resource, signal
import numpy as np
from streamgeo.errors import WriteError
from streamgeo.grid import Grid
from streamgeo.scene import ArrayScene
from streamgeo.template import Template
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for size in (200, 700):
    values = np.random.default_rng(0).random((size, size))
    scene = ArrayScene(values, Grid.of("yx", values.shape), Template("geotiff", ("y", "x")), name="a")
    try:
        scene.save({str(tmp_path / "full.tif")!r})
    except WriteError as error:
        print("cannot be written" in str(error))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True", "True"] and list(tmp_path.iterdir()) == []


def test_metadata_that_is_no_list_of_keys_is_said(tmp_path: Path) -> None:
    scene = open_scene(make(tmp_path / "a.tif", some((1, 4, 5), "uint8")))
    tags = {**scene.template.carry["tags"], "xml:XMP": {"xml:XMP": "<x/>"}, "FOO": {"a": "b"}}
    with pytest.warns(UserWarning, match="domain 'xml:XMP' is left out"):
        path = save(scene, tmp_path, quiet=False, template={"carry": {**scene.template.carry, "tags": tags}})
    with rasterio.open(path) as dst:
        assert dst.tags(ns="FOO") == {"a": "b"} and dst.crs == CRS.from_user_input(UTM["crs"])


def test_a_transform_and_control_points_together(tmp_path: Path) -> None:
    scene = open_scene(make(tmp_path / "a.tif", some((1, 4, 5), "uint8")))
    carry = {
        **scene.template.carry,
        "gcps": tuple((g.row, g.col, g.x, g.y) for g in [GroundControlPoint(0, 0, 1, 1)]),
    }
    with pytest.warns(UserWarning, match="the points are left out"):
        path = save(scene, tmp_path, quiet=False, template={"carry": carry})
    with rasterio.open(path) as dst:
        assert dst.transform == UTM["transform"]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(
    "nodata", [0.0, -9999.0, 1e20, -3.4028234663852886e38, 3e38, 1e-40, 255.0, -1.7e308, 0.1]
)
def test_the_floats_that_gdal_takes_for_nodata_are_a_range(dtype: str, nodata: float) -> None:
    kind = np.dtype(dtype)
    if abs(nodata) > np.finfo(kind).max:
        pytest.skip("not a number of this dtype")
    low, high = range_of_nodata(nodata, kind)
    steps = np.array(nodata, kind).view(f"i{kind.itemsize}") + np.arange(-3000, 3000)
    near = np.concatenate(
        [steps.astype(f"i{kind.itemsize}").view(kind), kind.type(nodata) * np.linspace(0.5, 1.5, 999)]
    )
    ends = np.array(
        [low, high, np.nextafter(low, -np.inf), np.nextafter(high, np.inf), np.inf, -np.inf, 0], kind
    )
    values = np.concatenate([near.astype(kind), ends])
    np.testing.assert_array_equal((values >= low) & (values <= high), taken_for_nodata(values, nodata))
