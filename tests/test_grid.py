"""Grids: laws of the views, against odc-geo, astropy and plain coordinates."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from affine import Affine
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from streamgeo.errors import GridError
from streamgeo.grid import Axis, Grid, indices, plain_grid
from streamgeo.locate import Coord, CoordLocator, GeoLocator, WcsLocator
from streamgeo.window import Window

SHAPE = (40, 60)
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # of odc-geo's use of affine
QUICK = settings(max_examples=60, deadline=None)
UTM = GeoLocator((30.0, 0.0, 500000.25, 0.0, -30.0, 4500000.75), "EPSG:32633")
SHEARED = GeoLocator((20.0, 3.0, 1e5, 2.0, 10.0, 5e6), "EPSG:3857")


def header(**cards: Any) -> str:
    """Text of a FITS header: a tangential map of the Sun, changed by ``cards``."""
    plain = {
        "NAXIS": 2, "NAXIS1": SHAPE[1], "NAXIS2": SHAPE[0], "CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN",
        "CUNIT1": "arcsec", "CUNIT2": "arcsec", "CRPIX1": 31.25, "CRPIX2": 18.5, "CDELT1": 2.4, "CDELT2": 2.5,
        "CRVAL1": 12.0, "CRVAL2": -300.0, "CROTA2": 7.5,
    }  # fmt: skip
    return str(fits.Header({**plain, **cards}).tostring())


SUN = WcsLocator(header(), ("y", "x"), ("y", "x"))


def vectors(lat: Any, lon: Any, **attrs: Any) -> CoordLocator:
    return CoordLocator(
        (Coord("lat", ("y",), np.asarray(lat), {"units": "degrees_north", **attrs}),
         Coord("lon", ("x",), np.asarray(lon), {"units": "degrees_east", **attrs})), ("y", "x"),
    )  # fmt: skip


ROWS, COLS = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]].astype(np.float64)
CURVED = CoordLocator(
    (Coord("lat", ("y", "x"), 40 + 0.1 * ROWS + 0.02 * COLS, {"units": "degrees_north"}),
     Coord("lon", ("y", "x"), -5 + 0.12 * COLS - 0.03 * ROWS, {"units": "degrees_east"})), ("y", "x"),
)  # fmt: skip
LOCATORS: dict[str, Any] = {
    "utm": UTM, "sheared": SHEARED, "no crs": GeoLocator((1.0, 0, 0, 0, 1, 0), None), "sun": SUN,
    "latlon": vectors(np.linspace(50, 10, SHAPE[0]), np.linspace(0, 354, SHAPE[1])),
    "curved": CURVED, "none": None,
}  # fmt: skip
GRIDS = st.sampled_from(sorted(LOCATORS)).map(lambda name: Grid.of(("y", "x"), SHAPE, LOCATORS[name]))
PLACED = GRIDS.filter(lambda grid: grid.locator is not None)


def inside(size: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)).map(lambda v: (min(v), max(v) + 1))


WINDOWS = st.builds(lambda y, x: Window(y=y, x=x), *map(inside, SHAPE))


def views(draw: Callable[..., Any], grid: Grid) -> Grid:
    """A grid after some crops, flips and scales."""
    for kind in draw(st.lists(st.sampled_from(["crop", "flip", "coarsen", "refine"]), max_size=4)):
        if kind == "crop":
            grid = grid.crop(Window({a.name: draw(inside(a.size)) for a in grid.axes}))
        elif kind == "flip":
            grid = grid.flip(draw(st.sampled_from(grid.dims)))
        elif min(grid.shape) >= 4 and kind == "coarsen":
            grid = grid.coarsen(y=draw(st.integers(1, 3)), x=draw(st.integers(1, 3)))
        elif max(grid.shape) < 100:
            grid = grid.coarsen(y=1 / draw(st.integers(1, 3)), x=0.5)
    return grid


# -- laws ---------------------------------------------------------------------------------------------------


@given(GRIDS, WINDOWS, st.data())
@QUICK
def test_a_crop_of_a_crop(grid: Grid, window: Window, data: st.DataObject) -> None:
    part = grid.crop(window)
    inner = Window({a.name: data.draw(inside(a.size)) for a in part.axes})
    assert part.shape == window.shape
    assert part.crop(inner) == grid.crop(inner.shift(y=window["y"].start, x=window["x"].start))
    assert grid.crop(grid.window) == grid and grid.crop(Window()) == grid


@given(GRIDS, st.integers(0, 9), st.integers(0, 9))
@QUICK
def test_pad_and_crop_back(grid: Grid, before: int, after: int) -> None:
    padded = grid.pad(y=(before, after), x=np.int64(after))
    assert padded.shape == (SHAPE[0] + before + after, SHAPE[1] + 2 * after)
    back = padded.crop(Window(y=(before, before + SHAPE[0]), x=(after, after + SHAPE[1])))
    assert back == grid and back.axes == grid.axes


@given(GRIDS, st.sampled_from([("y",), ("x",), ("y", "x")]))
@QUICK
def test_flip_twice(grid: Grid, dims: tuple[str, ...]) -> None:
    assert grid.flip(*dims).flip(*dims) == grid
    assert (grid.flip(*dims) == grid) is (grid.locator is None)


@given(GRIDS, st.integers(1, 7), st.integers(1, 7))
@QUICK
def test_refine_and_coarsen_back(grid: Grid, by: int, bx: int) -> None:
    fine = grid.coarsen(y=1 / by, x=1 / bx)
    assert fine.shape == (SHAPE[0] * by, SHAPE[1] * bx)
    assert fine.coarsen(y=by, x=bx) == grid
    blocks = grid.coarsen(y=by, x=bx)
    assert blocks.shape == (SHAPE[0] // by, SHAPE[1] // bx)  # what does not fill a block is cut
    back = blocks.coarsen(y=1 / by, x=1 / bx)
    assert back == grid.crop(Window(y=(0, back.sizes["y"]), x=(0, back.sizes["x"])))


@given(PLACED, WINDOWS, st.data())
@QUICK
def test_pixels_of_a_view_are_pixels_of_the_whole(grid: Grid, window: Window, data: st.DataObject) -> None:
    y, x = (data.draw(st.floats(0, side.stop - side.start - 1)) for side in window.values())
    y0, x0 = (side.start for side in window.values())
    for view, (row, col) in (
        (grid.crop(window), (y + y0, x + x0)),
        (grid.flip("y", "x"), (SHAPE[0] - 1 - y, SHAPE[1] - 1 - x)),
        (grid.coarsen(y=0.5, x=0.25), ((y + 0.5) / 2 - 0.5, (x + 0.5) / 4 - 0.5)),
    ):
        a, b = view.pixel_to_world(y=y, x=x), grid.pixel_to_world(y=row, x=col)
        for name in b:
            assert np.allclose(a[name], b[name], rtol=1e-12, atol=1e-9, equal_nan=True)


@given(PLACED.filter(lambda grid: grid.locator is not CURVED), st.data())
@QUICK
def test_world_and_back(grid: Grid, data: st.DataObject) -> None:
    view = views(data.draw, grid)
    y, x = (
        np.array(data.draw(st.lists(st.floats(-5, size + 5), min_size=3, max_size=3))) for size in view.shape
    )
    world = view.pixel_to_world(y=y, x=x)
    back = view.world_to_pixel(**world)
    assert np.allclose(back["y"], y, atol=1e-6) and np.allclose(back["x"], x, atol=1e-6)


@given(st.data())
@QUICK
def test_curved_coordinates_find_the_nearest_pixel(data: st.DataObject) -> None:
    view = views(data.draw, Grid.of(("y", "x"), SHAPE, CURVED))
    world = Grid.of(("y", "x"), SHAPE, CURVED).pixel_to_world(y=[3, 17], x=[8, 55])
    back = view.world_to_pixel(**world)
    there = view.pixel_to_world(**back)
    for name in world:
        assert np.allclose(there[name], world[name], rtol=1e-9)


@given(GRIDS, st.data())
@QUICK
def test_equality_is_reflexive_and_survives_pickle(grid: Grid, data: st.DataObject) -> None:
    view = views(data.draw, grid)
    view.coords  # a cached property must not matter
    copy = pickle.loads(pickle.dumps(view))
    assert view == view and copy == view and copy.axes == view.axes and view != "grid"


@given(PLACED, st.sampled_from(["y", "x"]), st.sampled_from([1, -1]))
@QUICK
def test_equality_sees_a_shift_of_one_pixel(grid: Grid, dim: str, by: int) -> None:
    window = Window(y=(3, 30), x=(4, 50))
    assert grid.crop(window) != grid.crop(window.shift(**{dim: by}))
    assert grid.coarsen(**{dim: 2}) != grid.crop(Window({dim: (0, grid.sizes[dim] // 2)}))
    assert grid != grid.transpose("x", "y") and grid != Grid.of(("y", "x"), SHAPE)


@pytest.mark.parametrize("pixel", [1e-5, 0.1, 30.0, 1e4])
def test_equality_to_a_small_part_of_a_pixel(pixel: float) -> None:
    def grid(shift: float) -> Grid:
        return Grid.of(
            "yx", SHAPE, GeoLocator((pixel, 0, 500000 + shift * pixel, 0, -pixel, 4.5e6), "EPSG:32633")
        )

    assert grid(0) == grid(1e-11) and grid(0) != grid(0.01)
    wide = Grid.of("yx", SHAPE, GeoLocator((300.0382, 0, 5e5, 0, -300.0382, 4.5e6), "EPSG:32618"))
    other = Grid.of("yx", SHAPE, GeoLocator((300.0387, 0, 5e5, 0, -300.0387, 4.5e6), "EPSG:32618"))
    assert wide != other and wide != Grid.of("yx", SHAPE, GeoLocator(wide.affine, "EPSG:32617"))


# -- against odc-geo ----------------------------------------------------------------------------------------


@given(st.sampled_from([UTM, SHEARED]), WINDOWS, st.integers(0, 9), st.integers(0, 9))
@QUICK
def test_views_agree_with_geobox(locator: GeoLocator, window: Window, py: int, px: int) -> None:
    grid = Grid.of(("band", "y", "x"), (3, *SHAPE), locator)
    box = GeoBox(SHAPE, Affine(*locator.affine), locator.crs)

    def same(view: Grid, wanted: GeoBox) -> None:
        assert view.shape[1:] == tuple(wanted.shape) == tuple(view.geobox.shape)
        assert view.affine == pytest.approx(wanted.affine[:6], rel=1e-13, abs=1e-9)
        assert view.geobox.crs == wanted.crs == view.crs
        limits = wanted.boundingbox
        assert view.bounds == pytest.approx((limits.left, limits.bottom, limits.right, limits.top), rel=1e-12)

    same(grid, box)
    same(grid.crop(window), box[window.slices(("y", "x"))])
    same(grid.pad(y=py, x=px), box.pad(px, py))
    same(grid.flip("y"), box.flipy())
    same(grid.flip("x"), box.flipx())
    same(grid.coarsen(y=2, x=2), box.zoom_out(2))
    same(grid.coarsen(y=0.5, x=0.5), box.zoom_out(0.5))
    same(grid.coarsen(y=4, x=5), box.zoom_to((10, 12)))
    same(grid.crop(window).flip("y").pad(x=px), box[window.slices(("y", "x"))].flipy().pad(px, 0))
    assert grid.transpose("x", "y", "band").affine == grid.affine


def test_large_coordinates_keep_all_digits() -> None:
    grid = Grid.of("yx", (100000, 100000), GeoLocator((0.1, 0, 500000.1, 0, -0.1, 4500000.3), "EPSG:32633"))
    world = grid.crop(Window(y=(99999, 100000), x=(99999, 100000))).pixel_to_world(y=0, x=0)
    assert world["x"].dtype == np.float64
    assert world["y"].item() == pytest.approx(4500000.3 - 0.1 * 99999.5, abs=1e-8)
    assert float(np.float32(world["y"])) != world["y"].item()  # what float32 would have lost
    assert grid.crop(Window(y=(0, 1))).affine[5] == 4500000.3


# -- against astropy ----------------------------------------------------------------------------------------

SIP = {
    "CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "CUNIT1": "deg", "CUNIT2": "deg", "CRVAL2": 30.0,
    "A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-5, "B_1_1": -2e-5, "CDELT1": -0.01, "CDELT2": 0.01,
}  # fmt: skip
CARDS: dict[str, dict[str, Any]] = {
    "rotated": {},
    "unlike pixels": {"CDELT1": -3.0, "CDELT2": 0.7, "CROTA2": 40.0},
    "cd": {"CDELT1": None, "CDELT2": None, "CROTA2": None, "CD1_1": 2e-3, "CD1_2": 3e-4, "CD2_1": -2e-4,
           "CD2_2": 1e-3},
    "cea": {"CTYPE1": "CRLN-CEA", "CTYPE2": "CRLT-CEA", "CUNIT1": "deg", "CUNIT2": "deg", "CDELT1": 0.03,
            "CDELT2": 0.03, "CROTA2": 0.0, "CRVAL2": 0.0},
    "sip": SIP,
}  # fmt: skip


def sun(kind: str) -> Grid:
    cards = {**CARDS[kind]}
    text = fits.Header.fromstring(header(**{k: v for k, v in cards.items() if v is not None}))
    for key in [k for k, v in cards.items() if v is None]:
        text.remove(key)
    return Grid.of(("y", "x"), SHAPE, WcsLocator(text.tostring(), ("y", "x"), ("y", "x")))


@pytest.mark.parametrize("kind", CARDS)
@given(window=WINDOWS)
@QUICK
def test_wcs_crops_as_astropy_slices(kind: str, window: Window) -> None:
    grid = sun(kind)
    wanted = WCS(fits.Header.fromstring(grid.locator.header)).slice(window.slices(("y", "x")))
    got = grid.crop(window).wcs
    y, x = [0.0, 3.5, 20], [1.0, 7, -2]
    assert np.allclose(got.all_pix2world(x, y, 0), wanted.all_pix2world(x, y, 0), rtol=1e-12, atol=1e-12)
    assert tuple(got.wcs.crpix) == pytest.approx(tuple(wanted.wcs.crpix)) and got.array_shape == window.shape
    world = grid.crop(window).pixel_to_world(y=y, x=x)
    assert np.allclose(list(world.values()), wanted.all_pix2world(x, y, 0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", CARDS)
@given(data=st.data())
@QUICK
def test_wcs_of_any_view_says_where_its_pixels_are(kind: str, data: st.DataObject) -> None:
    view = views(data.draw, sun(kind))
    y, x = np.array([0.0, 3.5, 20]), np.array([1.0, 7, -2])
    world = view.pixel_to_world(y=y, x=x)
    assert np.allclose(list(world.values()), view.wcs.all_pix2world(x, y, 0), rtol=1e-11, atol=1e-11)
    written = WCS(view.wcs.to_header(relax=True))  # as a file would hold it
    assert np.allclose(list(world.values()), written.all_pix2world(x, y, 0), rtol=1e-8, atol=1e-8)


def test_wcs_of_cubes_and_of_other_grids() -> None:
    cube = header(NAXIS=3, NAXIS3=5, CTYPE3="WAVE", CUNIT3="m", CRVAL3=1e-7, CDELT3=1e-9, CRPIX3=1.0)
    grid = Grid.of(("wave", "y", "x"), (5, *SHAPE), WcsLocator(cube, ("wave", "y", "x"), ("y", "x")))
    assert grid.spatial == ("y", "x")
    one = grid.crop(Window(wave=(2, 3), x=(10, 20)))
    assert one.pixel_to_world(y=0, x=0)["WAVE"].item() == pytest.approx(1.02e-7)
    assert one.bounds.right > one.bounds.left and one.wcs.array_shape == (1, 40, 10)
    with pytest.raises(GridError, match="give wave= as well"):
        grid.pixel_to_world(y=0, x=0)
    with pytest.raises(GridError, match="give HPLN= as well"):
        Grid.of(("y", "x"), SHAPE, SUN).world_to_pixel(HPLT=0)
    for name in ("wcs", "affine"):
        with pytest.raises(GridError, match=f"{name}: this grid is located by CoordLocator"):
            getattr(Grid.of(("y", "x"), SHAPE, CURVED), name)


# -- coordinate arrays --------------------------------------------------------------------------------------


def test_vectors_are_cut_as_stored_and_interpolated_when_scaled() -> None:
    lat, lon = np.linspace(50, 11, 40, dtype=np.float32), np.arange(60.0)
    grid = Grid.of(("y", "x"), SHAPE, vectors(lat, lon))
    cut = {c.name: c for c in grid.crop(Window(y=(5, 9), x=(0, 3))).flip("y").coords}
    assert cut["lat"].raw.dtype == np.float32 and np.array_equal(cut["lat"].raw, lat[5:9][::-1])
    coarse = {c.name: c.values for c in grid.coarsen(y=4, x=3).coords}
    assert np.allclose(coarse["lat"], lat.reshape(-1, 4).mean(1)) and np.array_equal(coarse["lon"], lon[1::3])
    padded = {c.name: c.values for c in grid.pad(y=2, x=1).coords}
    assert np.allclose(padded["lat"][[0, 1, -1]], [52, 51, 9]) and padded["lon"][-1] == 60
    assert grid.bounds == pytest.approx((-0.5, 10.5, 59.5, 50.5))  # latitude descends
    back = grid.world_to_pixel(lat=[50, 49.5], lon=[2.25, 0])
    assert np.allclose(back["y"], [0, 0.5]) and np.allclose(back["x"], [2.25, 0])


def test_packed_coordinates_are_decoded_and_kept_packed() -> None:
    raw = np.array([-200, -100, 0, 100, -999], np.int16)
    coord = Coord("t", ("t",), raw, {"scale_factor": 0.01, "add_offset": 5.0, "_FillValue": np.int16(-999)})
    assert np.allclose(coord.values, [3, 4, 5, 6, np.nan], equal_nan=True)
    grid = Grid.of(("t",), (5,), CoordLocator((coord,)))
    (cut,) = grid.crop(Window(t=(1, 4))).coords
    assert np.array_equal(cut.raw, raw[1:4]) and cut.attrs == coord.attrs
    (scaled,) = grid.crop(Window(t=(0, 4))).coarsen(t=2).coords
    assert np.allclose(scaled.values, [3.5, 5.5]) and "scale_factor" not in scaled.attrs
    unsigned = Coord("u", ("u",), np.array([-1, 1], np.int8), {"_Unsigned": "true"})
    assert unsigned.values.tolist() == [255, 1]


def test_labels_bounds_and_scalars() -> None:
    locator = CoordLocator((
        Coord("name", ("y",), np.array(["a", "b", "c", "d"])), Coord("y", ("y",), np.arange(4.0)),
        Coord("y_bnds", ("y", "nv"), np.arange(8.0).reshape(4, 2)), Coord("height", (), np.array(2.0)),
        Coord("run", (), np.array("abc", object)),
    ))  # fmt: skip
    grid = Grid.of(("y",), (4,), locator)
    cut = {c.name: c.raw for c in grid.crop(Window(y=(1, 3))).coords}
    assert cut["name"].tolist() == ["b", "c"] and cut["y_bnds"].tolist() == [[2, 3], [4, 5]]
    assert cut["height"].item() == 2.0 and cut["run"].item() == "abc"
    scaled = {c.name for c in grid.coarsen(y=2).coords}
    assert scaled == {"y", "height", "run"}  # labels and cell bounds mean nothing any more
    assert {c.name for c in grid.resize(y=4).coords} == {"height", "run"}
    with pytest.raises(GridError, match="'name' holds text"):
        locator.coords[0].values
    assert grid == Grid.of(("y",), (4,), locator) and grid != grid.flip("y")


def test_coordinates_near_zero_are_equal_when_they_only_round_apart() -> None:
    lon = np.linspace(-1, 1, 61)[:-1]
    lat = np.linspace(1, -1, 40)
    near = np.where(lon == 0, 1e-17, lon) + 1e-16
    assert Grid.of(("y", "x"), SHAPE, vectors(lat, lon)) == Grid.of(("y", "x"), SHAPE, vectors(lat, near))
    assert Grid.of(("y", "x"), SHAPE, vectors(lat, lon)) != Grid.of(
        ("y", "x"), SHAPE, vectors(lat, lon + 1e-6)
    )


def test_curved_coordinates() -> None:
    grid = Grid.of(("y", "x"), SHAPE, CURVED)
    world = grid.pixel_to_world(y=[2.5, -3], x=[7.25, 0])
    assert world["lat"][0] == pytest.approx(40 + 0.25 + 0.145) and np.isnan(world["lat"][1])  # NaN outside
    lat, lon = (coord.values for coord in CURVED.coords)
    west, south, east, north = grid.bounds
    assert west < lon.min() < lon.max() < east and south < lat.min() < lat.max() < north
    (cut, _) = grid.crop(Window(y=(3, 9), x=(5, 6))).coords
    assert np.array_equal(cut.raw, lat[3:9, 5:6])
    around = CoordLocator((
        Coord("lat", ("y", "x"), np.zeros((1, 3)), {"units": "degrees_north"}),
        Coord("lon", ("y", "x"), np.array([[178.0, 179.5, -179.0]]), {"units": "degrees_east"}),
    ), ("y", "x"))  # fmt: skip
    assert (
        Grid.of(("y", "x"), (1, 3), around).world_to_pixel(lat=0, lon=180.9)["x"] == 2
    )  # past the date line


def test_the_nearest_pixel_near_a_pole() -> None:
    polar = CoordLocator((
        Coord("lat", ("y", "x"), np.array([[80.0, 82.0]]), {"units": "degrees_north"}),
        Coord("lon", ("y", "x"), np.array([[4.0, 0.0]]), {"units": "degrees_east"}),
    ), ("y", "x"))  # fmt: skip
    grid = Grid.of(("y", "x"), (1, 2), polar)
    assert (
        grid.world_to_pixel(lat=80, lon=0)["x"] == 0
    )  # four degrees of longitude are less than two of latitude
    with pytest.raises(GridError, match="no pixel for lat=nan"):
        grid.world_to_pixel(lat=np.nan, lon=0)


# -- dims ---------------------------------------------------------------------------------------------------


def test_inserted_and_resized_dims_have_no_place() -> None:
    grid = Grid.of(("y", "x"), SHAPE, UTM).insert(0, "band", 3)
    assert grid.dims == ("band", "y", "x") and grid.spatial == ("y", "x") and not grid.axis("band").located
    assert grid.affine == UTM.affine and grid.drop("band") == Grid.of(("y", "x"), SHAPE, UTM)
    assert grid.pixel_to_world(band=2, y=0, x=0) == Grid.of(("y", "x"), SHAPE, UTM).pixel_to_world(y=0, x=0)
    lost = grid.resize(y=7)
    assert lost == lost and lost != grid.crop(Window(y=(0, 7)))
    for call in (
        lambda: lost.affine, lambda: lost.geobox, lambda: lost.bounds, lambda: lost.pixel_to_world(y=0, x=0),
        lambda: lost.world_to_pixel(x=0, y=0),
    ):  # fmt: skip
        with pytest.raises(GridError, match="y was given another size, so it has no georeference"):
            call()
    times = Coord("time", ("time",), np.arange(4.0))
    cube = Grid.of(("time", "y", "x"), (4, *SHAPE), CoordLocator((*CURVED.coords, times), ("y", "x")))
    assert "time" not in cube.resize(time=2).pixel_to_world(time=0, y=0, x=0)
    assert cube.resize(time=2).bounds == cube.bounds
    line = grid.drop("y")
    assert line == line and line == pickle.loads(pickle.dumps(line))


def test_grids_without_a_place() -> None:
    grid = plain_grid((2, 3))
    assert grid.dims == ("dim_0", "dim_1") and grid.crs is None and grid.coords == ()
    assert repr(grid) == "Grid(dim_0=2, dim_1=3; no georeference)"
    assert repr(Grid.of(("y", "x"), SHAPE, UTM)) == "Grid(y=40, x=60; CRS)"
    for call in (lambda: grid.affine, lambda: grid.bounds, lambda: grid.wcs, lambda: grid.pixel_to_world()):
        with pytest.raises(GridError, match=r"this grid \(dim_0, dim_1\) has no georeference"):
            call()
    assert {name: index.shape for name, index in indices(grid).items()} == {"dim_0": (2, 1), "dim_1": (1, 3)}
    with pytest.raises(TypeError):
        hash(grid)


def test_errors_name_the_dim() -> None:
    grid = Grid.of(("y", "x"), SHAPE, UTM)
    for call in (
        lambda: grid.crop(Window(z=(0, 1))), lambda: grid.pad(z=1), lambda: grid.coarsen(z=2),
        lambda: grid.flip("z"), lambda: grid.drop("z"), lambda: grid.resize(z=3), lambda: grid.axis("z"),
        lambda: grid.pixel_to_world(z=0),
    ):  # fmt: skip
        with pytest.raises(GridError, match=r"no dim 'z'; the dims are \('y', 'x'\)"):
            call()
    flat = Grid.of("yx", SHAPE, GeoLocator((1, 1, 0, 1, 1, 0), None))
    bumpy = Grid.of("yx", (3, 2), vectors([1, 3, 2], [0, 1]))
    for reason, call in {
        "factor y=0 must be positive": lambda: grid.coarsen(y=0),
        "not a permutation": lambda: grid.transpose("y", "z"),
        "there is a dim 'y' already": lambda: grid.insert(0, "y", 2),
        "give y= as well": lambda: grid.pixel_to_world(x=0),
        "give x= as well": lambda: grid.world_to_pixel(y=0),
        "cannot be inverted": lambda: flat.world_to_pixel(x=0, y=0),
        "no pixel from": lambda: Grid.of("yx", SHAPE, CURVED).world_to_pixel(depth=1),
        "not monotonic": lambda: bumpy.world_to_pixel(lat=1, lon=0),
        "has one value": lambda: Grid.of("yx", (1, 2), vectors([1], [0, 1])).world_to_pixel(lat=1, lon=0),
    }.items():  # fmt: skip
        with pytest.raises(GridError, match=reason):
            call()


def test_axes_map_edges_not_centres() -> None:
    axis = Axis("x", 10, origin=4.0, step=2.0)
    assert axis.centres([0, 1]).tolist() == [4.5, 6.5] and axis.index([4.5, 6.5]).tolist() == [0, 1]
    flipped = Grid((axis,)).flip("x").axis("x")
    assert flipped.origin == 24 and flipped.step == -2 and flipped.centres(9).item() == 4.5
