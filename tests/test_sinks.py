"""Sinks read a scene block by block, each pixel once, in bounded memory; a failure leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import streamgeo as sg
from streamgeo.errors import StreamGeoError, WriteError
from streamgeo.locate import Coord, CoordLocator, GeoLocator, WcsLocator
from streamgeo.scene import ArrayScene
from streamgeo.sinks.pixels import BLOCK, Pixels, chunks_for
from streamgeo.template import Template
from tests.ramp import UTM, Ramp

ROOT = Path(__file__).parents[1]
KINDS = ["tif", "nc", "h5", "fits", "npy", "npz", "zarr"]
OPTIONS = [
    ("tif", {}), ("tif", {"cog": True}), ("tif", {"overviews": True}), ("nc", {}), ("h5", {}), ("fits", {}),
    ("fits", {"rice": True, "quantize": 0.5}), ("npy", {}), ("npz", {}), ("zarr", {}),
]  # fmt: skip


def need(kind):
    if kind == "zarr":
        pytest.importorskip("zarr", minversion="3", reason="streamgeo[zarr] is not installed")


def opened(path):
    scene = sg.open(variable="ramp")(path) if path.suffix in (".nc", ".zarr") else sg.open()(path)
    return scene.read()


# -- blocks -----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:save")
@pytest.mark.parametrize("shape", [(3000, 700), (3, 1100, 900)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_each_pixel_is_read_once_from_the_first_row_on(kind, shape, tmp_path, monkeypatch):
    need(kind)
    monkeypatch.setattr(Pixels.blocks, "__kwdefaults__", {"limit": 1 << 20})
    scene = Ramp(shape)
    path = scene.save(tmp_path / f"out.{kind}")
    count = np.zeros(shape, np.uint8)
    for window in scene.seen:
        count[window.slices(scene.dims)] += 1
    assert count.min() == count.max() == 1 and (len(scene.seen) > 1 or kind == "npz")
    assert all(window["x"] == slice(0, shape[-1]) for window in scene.seen)
    if kind != "npz":
        rows = [window["y"].start for window in scene.seen]
        assert rows == sorted(rows)
    np.testing.assert_array_equal(opened(path).reshape(shape), Ramp(shape).read())


@pytest.mark.filterwarnings("ignore:save")
@pytest.mark.parametrize("kind", KINDS)
def test_a_lazy_scene_gives_the_file_that_its_array_gives(kind, tmp_path, monkeypatch):
    need(kind)
    monkeypatch.setattr(Pixels.blocks, "__kwdefaults__", {"limit": 1 << 18})
    lazy = Ramp((2, 700, 500), "i2")
    held = ArrayScene(lazy.read(), lazy.grid, lazy.template, name="ramp")
    one, other = lazy.save(tmp_path / f"a.{kind}"), held.save(tmp_path / f"b.{kind}")
    if kind in ("tif", "fits", "npy"):
        assert one.read_bytes() == other.read_bytes()
    np.testing.assert_array_equal(opened(one), opened(other))


def test_blocks_hold_whole_chunks_and_stay_small():
    pixels = Pixels.of(Ramp((5, 60000, 60000)), Ramp((5, 60000, 60000)).grid, "big")
    chunks = chunks_for(pixels)
    steps = pixels._steps(chunks, BLOCK)
    assert steps[1] % chunks[1] == 0 and steps[2] == 60000
    assert np.prod(steps) * 4 <= 2 * BLOCK
    asked = chunks_for(pixels, (5, 4096, 4096))
    assert asked[2] == 4096 and asked[1] * 60000 * 5 * 4 <= 2 * BLOCK
    assert chunks_for(np.zeros((1000, 2, 2))) == (1000, 2, 2)


@pytest.mark.filterwarnings("ignore:save")
@pytest.mark.parametrize(("kind", "options"), OPTIONS, ids=str)
def test_memory_stays_below_the_scene(kind, options, tmp_path):
    need(kind)
    scene = 12288 * 8192 * 4 / 1e6
    assert grown(tmp_path / f"out.{kind}", 12288, 8192, options) < 0.5 * scene


@pytest.mark.long
@pytest.mark.parametrize(("kind", "options"), OPTIONS, ids=str)
def test_memory_is_the_same_for_a_scene_of_gigabytes(kind, options, tmp_path):
    need(kind)
    scene = 40000 * 20000 * 4 / 1e6
    assert grown(tmp_path / f"out.{kind}", 40000, 20000, options) < 0.1 * scene


def grown(path, rows, columns, options):
    command = [sys.executable, "-m", "tests.ramp", str(path), str(rows), str(columns), repr(options)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def test_a_step_that_needs_the_whole_scene_runs_once(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(600.0).reshape(20, 30))
    runs = []

    def centred(x):
        runs.append(x.shape)
        return (x - x.mean()).astype(np.float64)

    chain = (
        sg.files([tmp_path / "a.npy"], key="x")
        .key_transform("x", sg.open_numpy())
        .key_transform("x", centred)
    )
    scene = chain.scene("x")
    assert not scene.by_window
    saved = np.load(scene.save(tmp_path / "out.npy"))
    assert runs[-1] == (20, 30) and len(runs) == 1
    np.testing.assert_allclose(saved, np.arange(600.0).reshape(20, 30) - 299.5)


def test_a_step_must_give_the_dtype_that_it_announced(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 5), np.float32))
    wide = sg.Step(lambda x: x.astype(np.float64), reach=sg.POINT)
    chain = (
        sg.files([tmp_path / "a.npy"], key="x").key_transform("x", sg.open_numpy()).key_transform("x", wide)
    )
    with pytest.raises(StreamGeoError, match=r"a step gives float64 for out\.npy and had announced float32"):
        chain.scene("x").save(tmp_path / "out.npy")


# -- failures ---------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:save")
@pytest.mark.parametrize(("kind", "options"), OPTIONS, ids=str)
def test_a_failed_write_leaves_nothing_behind(kind, options, tmp_path, monkeypatch):
    need(kind)
    monkeypatch.setattr(Pixels.blocks, "__kwdefaults__", {"limit": 1 << 18})
    scene = Ramp((900, 400), fails_at=700)
    with pytest.raises(ValueError, match="the model stopped at row 700"):
        scene.save(tmp_path / f"out.{kind}", **options)
    assert (scene.seen or kind == "npz") and not list(tmp_path.iterdir())
    old = Ramp((300, 200)).save(tmp_path / f"out.{kind}", **options)
    with pytest.raises(ValueError, match="the model stopped"):
        scene.save(old, **options)
    assert [one.name for one in tmp_path.iterdir()] == [old.name]
    assert opened(old).shape[-2:] == (300, 200)


def test_errors_keep_what_caused_them(tmp_path):
    class Broken(Ramp):
        def _read(self, window):
            raise sg.OpenError("the file is gone") from OSError("disk")

    with pytest.raises(sg.OpenError, match="the file is gone") as caught:
        Broken((10, 10)).save(tmp_path / "a.tif")
    assert isinstance(caught.value.__cause__, OSError)


# -- options ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        (
            "tif",
            {"level": 3},
            "geotiff has no option 'level'; it has compress, blocksize, overviews, cog, sparse",
        ),
        ("npy", {"compress": 3}, "numpy has no option 'compress'; it has none"),
        ("fits", {"cog": True}, "fits has no option 'cog'; it has rice, quantize"),
        ("nc", {"rice": True}, "netcdf has no option 'rice'; it has compress, chunks"),
        ("tif", {"compress": "jpeg"}, "compress='jpeg' is none of deflate, zstd"),
        ("tif", {"blocksize": 100}, "blocksize=100 must be a positive multiple of 16"),
        ("tif", {"overviews": [1]}, "overviews=.1. must be True, False or whole factors above 1"),
        ("nc", {"compress": 11}, "compress=11 is no level; give 0"),
        ("h5", {"chunks": (3,)}, r"chunks=\(3,\) must be one positive whole number for each of the dims"),
        ("fits", {"quantize": 1.0}, "quantize=1.0 is for rice=True"),
        (
            "fits",
            {"rice": True},
            "the Rice code has integers only, and out.fits holds float32; give quantize=",
        ),
        ("fits", {"rice": True, "quantize": -1}, "quantize=-1 must be positive"),
        ("fits", {"rice": True, "quantize": 1e-9}, "spans 200, more than 2.31 steps of quantize=1e-09"),
    ],
)
def test_options_that_do_not_fit_are_refused(kind, options, says, tmp_path):
    with pytest.raises(WriteError, match=says):
        Ramp((300, 200)).save(tmp_path / f"out.{kind}", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("compress", [0, 9])
@pytest.mark.parametrize("kind", ["nc", "h5", "zarr"])
def test_compression_and_chunks(kind, compress, tmp_path):
    need(kind)
    path = Ramp((3, 200, 300)).save(tmp_path / f"out.{kind}", compress=compress, chunks=(1, 64, 50))
    np.testing.assert_array_equal(opened(path), Ramp((3, 200, 300)).read())
    if kind == "zarr":
        import zarr

        array = zarr.open(path, mode="r")["ramp"]
        assert array.chunks == (1, 64, 50) and bool(array.compressors) == bool(compress)
        return
    import h5py

    with h5py.File(path) as file:
        assert file["ramp"].chunks == (1, 64, 50)
        assert file["ramp"].compression_opts == (compress or None)


# -- place ------------------------------------------------------------------------------------------------

PLACES = {
    "north up": UTM,
    "south up": GeoLocator((0.25, 0.0, -180.0, 0.0, 0.25, -90.0), "EPSG:4326"),
    "rotated": GeoLocator((8.0, 6.0, 4.5e5, 6.0, -8.0, 6.1e6), "EPSG:32632"),
}


def corner(affine, row, col):
    a, b, c, d, e, f = affine[:6]
    return a * col + b * row + c, d * col + e * row + f


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("options", [{}, {"cog": True, "blocksize": 128}, {"overviews": (2, 4)}], ids=str)
def test_geotiff_lies_where_the_scene_lay(place, options, tmp_path):
    import rasterio

    scene = Ramp((700, 500), locator=PLACES[place])
    path = scene.save(tmp_path / "out.tif", **options)
    with rasterio.open(path) as file:
        for row, col in ((0, 0), (0, 500), (700, 0), (700, 500), (350, 250)):
            got, want = corner(tuple(file.transform), row, col), corner(PLACES[place].affine, row, col)
            np.testing.assert_allclose(got, want, rtol=1e-9)
        assert file.crs.to_string() == PLACES[place].crs
        np.testing.assert_array_equal(file.read(1), scene.read())
        layout = file.tags(ns="IMAGE_STRUCTURE").get("LAYOUT")
        assert layout == ("COG" if "cog" in options else None)
        factors = {(): [], ("cog", "blocksize"): [2, 4, 8], ("overviews",): [2, 4]}[tuple(options)]
        assert file.overviews(1) == factors
        assert file.block_shapes == [(128, 128) if "cog" in options else (256, 256)]


@pytest.mark.parametrize("point", [False, True])
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_control_points_stay_in_a_cog(point, tmp_path):
    import rasterio
    from rasterio.control import GroundControlPoint

    points = [
        GroundControlPoint(r, c, 5e5 + 7 * c + r, 5e6 - 8 * r) for r in (0, 250, 600) for c in (0, 200, 500)
    ]
    profile = {"driver": "GTiff", "width": 500, "height": 600, "count": 1, "dtype": "uint8", "gcps": points}
    with rasterio.open(tmp_path / "in.tif", "w", crs="EPSG:32633", **profile) as file:
        file.update_tags(AREA_OR_POINT="Point" if point else "Area")
        file.write(np.arange(300000).reshape(1, 600, 500).astype("u1"))
    scene = sg.open_geotiff()(tmp_path / "in.tif")
    for options in ({}, {"cog": True}):
        path = scene.save(tmp_path / "out.tif", **options)
        with rasterio.open(path) as got, rasterio.open(tmp_path / "in.tif") as want:
            for one, other in zip(got.gcps[0], want.gcps[0], strict=True):
                there = (other.row, other.col, other.x, other.y)
                np.testing.assert_allclose((one.row, one.col, one.x, one.y), there, rtol=1e-9)
            assert got.gcps[1] == want.gcps[1] and len(got.gcps[0]) == 9
            np.testing.assert_array_equal(got.read(1), want.read(1))


@pytest.mark.parametrize("kind", ["nc", "zarr"])
@pytest.mark.parametrize("place", PLACES)
def test_cf_coordinates_lie_where_the_scene_lay(kind, place, tmp_path):
    need(kind)
    xr = pytest.importorskip("xarray")
    pytest.importorskip("rioxarray")
    scene = Ramp((70, 50), locator=PLACES[place])
    path = scene.save(tmp_path / f"out.{kind}")
    opener = xr.open_zarr if kind == "zarr" else xr.open_dataset
    with opener(path, decode_cf=True, decode_coords="all") as data:
        names = ("yc", "xc") if place == "rotated" else ("y", "x")
        a, b, c, d, e, f = PLACES[place].affine
        col, row = np.arange(50) + 0.5, np.arange(70)[:, None] + 0.5
        y, x = np.broadcast_arrays(*(data[name].values for name in names)) if place == "rotated" else (
            data["y"].values[:, None], data["x"].values
        )  # fmt: skip
        np.testing.assert_allclose(np.broadcast_to(x, (70, 50)), a * col + b * row + c, rtol=1e-9)
        np.testing.assert_allclose(np.broadcast_to(y, (70, 50)), d * col + e * row + f, rtol=1e-9)
        assert data.rio.crs.to_string() == PLACES[place].crs
        assert data["ramp"].attrs["units"] == "K"
        np.testing.assert_array_equal(data["ramp"].values, scene.read())


def test_2d_and_descending_coordinates_stay_as_they_are(tmp_path):
    xr = pytest.importorskip("xarray")
    row, col = np.mgrid[0:60, 0:40]
    north, east = {"units": "degrees_north"}, {"units": "degrees_east"}
    swath = [
        Coord("lat", ("y", "x"), 50 - 0.1 * row + 0.01 * col, north),
        Coord("lon", ("y", "x"), 10 + 0.1 * col, east),
    ]
    vectors = [
        Coord("lat", ("lat",), 50 - 0.1 * row[:, 0], north),
        Coord("lon", ("lon",), 10 + 0.1 * col[0], east),
    ]
    for coords, dims in ((swath, ("y", "x")), (vectors, ("lat", "lon"))):
        for kind in ("nc", "h5", *(["zarr"] if zarr_there() else [])):
            scene = _Plain((60, 40), locator=CoordLocator(tuple(coords)), dims=dims)
            path = scene.save(tmp_path / f"{dims[0]}.{kind}")
            opener = xr.open_zarr if kind == "zarr" else xr.open_dataset
            with opener(path, decode_cf=True) as data:
                for coord in coords:
                    assert data[coord.name].dims == coord.dims and coord.name in data["ramp"].coords
                    np.testing.assert_allclose(data[coord.name].values, coord.raw, rtol=1e-9)
                np.testing.assert_array_equal(data["ramp"].values, scene.read())


@pytest.mark.parametrize("options", [{}, {"rice": True}, {"rice": True, "quantize": 0.01}], ids=str)
def test_fits_lies_where_the_scene_lay(options, tmp_path):
    from astropy.io import fits
    from astropy.wcs import WCS

    scene = _solar((300, 280), "f4" if "quantize" in options or not options else "i2")
    window = sg.Window(y=(20, 290), x=(5, 270))
    grid = scene.grid.crop(window)
    path = ArrayScene(scene.read(window), grid, scene.template, name="a").save(
        tmp_path / "out.fits", **options
    )
    with fits.open(path) as file:
        file.verify("exception")
        hdu = file[1 if options else 0]
        got, want = WCS(hdu.header), WCS(fits.Header.fromstring(scene.grid.locator.header))
        assert hdu.data.dtype.newbyteorder("=") == scene.dtype
        np.testing.assert_allclose(hdu.data, scene.read(window), atol=0.0051)
    for x, y in ((-0.5, -0.5), (264.5, -0.5), (-0.5, 269.5), (264.5, 269.5), (132, 134.5)):
        there = want.wcs_pix2world([[x + 5, y + 20]], 0)
        np.testing.assert_allclose(got.wcs_pix2world([[x, y]], 0), there, rtol=1e-9, atol=1e-13)
    assert np.array_equal(sg.open_fits()(path).grid.shape, (270, 265))


def test_sunpy_makes_a_map_of_it(tmp_path):
    sunpy_map = pytest.importorskip("sunpy.map")
    scene = _solar((120, 100), "i2")
    for options in ({}, {"rice": True}):
        path = scene.save(tmp_path / "out.fits", **options)
        read = sunpy_map.Map(path)
        read = read[-1] if isinstance(read, list) else read
        assert read.data.shape == (120, 100) and read.coordinate_system.axis1 == "HPLN-TAN"
        np.testing.assert_allclose(read.scale.axis1.to_value("arcsec / pix"), 0.6, rtol=1e-9)
        np.testing.assert_array_equal(read.data, scene.read())


class _Plain(Ramp):
    """Rows and columns by whatever name."""

    def _read(self, window):
        whole = Ramp(self.shape, self.dtype).read()
        return whole[window.slices(self.dims)]


def _solar(shape, dtype):
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.cunit = ["HPLN-TAN", "HPLT-TAN"], ["arcsec", "arcsec"]
    wcs.wcs.crpix, wcs.wcs.crval, wcs.wcs.cdelt = [60.5, 70.25], [12.0, -30.0], [0.6, 0.6]
    angle = np.deg2rad(3)
    wcs.wcs.pc = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    wcs.wcs.dateobs = "2020-01-01T00:00:00"
    header = wcs.to_header()
    header["HGLN_OBS"], header["HGLT_OBS"], header["DSUN_OBS"] = 0.0, 3.0, 1.496e11
    return Ramp(shape, dtype, locator=WcsLocator(header.tostring(), ("y", "x"), ("y", "x")))


# -- what stands for missing ------------------------------------------------------------------------------


def test_geotiff_nodata_is_declared_when_the_last_block_has_it(tmp_path, monkeypatch):
    import rasterio

    monkeypatch.setattr(Pixels.blocks, "__kwdefaults__", {"limit": 1 << 18})
    values = Ramp((900, 300)).read()
    values[-1, -1] = np.nan
    for options in ({}, {"cog": True}):
        scene = ArrayScene(values, Ramp((900, 300)).grid, Template("numpy", ("y", "x")), name="a")
        with rasterio.open(scene.save(tmp_path / "out.tif", **options)) as file:
            assert np.isnan(file.nodata) and file.read_masks(1).sum() == 255 * (values.size - 1)
            np.testing.assert_array_equal(file.read(1), values)


def test_empty_tiles_are_not_stored(tmp_path):
    import rasterio

    values = np.full((2048, 2048), np.nan, np.float32)
    values[300:310, 700:710] = 5
    scene = ArrayScene(values, Ramp(values.shape).grid, Template("numpy", ("y", "x")), name="a")
    for options in ({"compress": "none"}, {"compress": "none", "cog": True}):
        dense = scene.save(tmp_path / "dense.tif", **options).stat().st_size
        path = scene.save(tmp_path / "sparse.tif", sparse=True, **options)
        assert path.stat().st_size < 0.3 * dense
        with rasterio.open(path) as file:
            np.testing.assert_array_equal(file.read(1), values)


@pytest.mark.parametrize("dtype", ["i2", "u2", "i4", "u4", "i8"])
def test_integers_that_equal_the_default_fill_value_stay_valid(dtype, tmp_path):
    import netCDF4

    xr = pytest.importorskip("xarray")
    default = netCDF4.default_fillvals[dtype]
    limits = np.iinfo(dtype)
    values = np.array([[1, default], [limits.min, limits.max]], dtype)
    scene = ArrayScene(values, Ramp((2, 2)).grid, Template("numpy", ("y", "x"), name="class"), name="a")
    path = scene.save(tmp_path / "out.nc")
    with netCDF4.Dataset(path) as file:
        assert not np.ma.is_masked(file["class"][:])
        np.testing.assert_array_equal(file["class"][:], values)
    with xr.open_dataset(path, mask_and_scale=False) as data:
        np.testing.assert_array_equal(data["class"].values, values)


def zarr_there():
    try:
        import zarr
    except ImportError:
        return False
    return int(zarr.__version__.split(".")[0]) >= 3


# -- Zarr -------------------------------------------------------------------------------------------------


def test_zarr_is_read_back_to_the_same_grid(tmp_path):
    need("zarr")
    for place in PLACES.values():
        scene = Ramp((2, 300, 200), locator=place)
        path = scene.save(tmp_path / "out.zarr")  # the second one replaces the first
        again = sg.open_zarr("ramp")(path)
        want = sg.open_netcdf("ramp")(scene.save(tmp_path / "out.nc"))
        assert again.grid == want.grid and again.template.units == "K"
        np.testing.assert_array_equal(again.read(), scene.read())
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out.nc", "out.zarr"]


def test_real_files_as_zarr(samples, tmp_path):
    need("zarr")
    cases = [("geoscience/tmmx_20190121.nc", "air_temperature"), ("geoscience/PLANET_SCOPE_3D.nc", ["blue", "green"]),
             ("geoscience/SS_VIIRS_NPP-NAVO-L2P-v3.0.nc", "sea_surface_temperature")]  # fmt: skip
    for file, name in cases:
        for raw in (False, True):
            scene = sg.open_netcdf(name, raw=raw)(samples / file)
            again = sg.open_zarr(name, raw=raw)(scene.save(tmp_path / "out.zarr"))
            assert again.grid == scene.grid and again.dtype == scene.dtype
            np.testing.assert_array_equal(again.read(), scene.read())


def test_a_folder_that_is_no_store_is_not_replaced(tmp_path):
    need("zarr")
    (tmp_path / "mine.zarr").mkdir()
    (tmp_path / "mine.zarr" / "notes.txt").write_text("keep")
    with pytest.raises(
        WriteError, match=r"mine\.zarr is a folder that holds something else than a Zarr store"
    ):
        Ramp((10, 10)).save(tmp_path / "mine.zarr")
    assert (tmp_path / "mine.zarr" / "notes.txt").read_text() == "keep"
