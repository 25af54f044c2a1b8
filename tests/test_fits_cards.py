"""Cards that FITS files get for views, dims that come and go, and grids of other formats."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from streamgeo.fits_cards import is_wcs
from streamgeo.grid import Grid
from streamgeo.locate import Coord, CoordLocator, GeoLocator, WcsLocator
from streamgeo.scene import ArrayScene
from streamgeo.sources.fits import open_scene
from streamgeo.template import Template
from streamgeo.window import Window
from tests.fits_files import (
    VIEWS,
    astropy_data,
    check_view,
    ramp,
    same,
    write_fits,
)  # fmt: skip

# -- cards of views -------------------------------------------------------------------------------------


def cube_scene(tmp_path, **cards):
    """A cube (time, y, x) with a rotated sky, a time axis and two alternates."""
    hdu = fits.PrimaryHDU(ramp(3, 8, 9))
    hdu.header.update(
        {
            "WCSAXES": 3, "CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN", "CTYPE3": "TIME",
            "CUNIT1": "arcsec", "CUNIT2": "arcsec", "CUNIT3": "s",
            "CRPIX1": 4.0, "CRPIX2": 5.0, "CRPIX3": 1.0, "CDELT1": 0.6, "CDELT2": 0.6, "CDELT3": 12.0,
            "CRVAL3": 100.0,
            "PC1_1": 0.8, "PC1_2": -0.6, "PC2_1": 0.6, "PC2_2": 0.8,
            "CTYPE1A": "X", "CTYPE2A": "Y", "CRPIX1A": 1.0, "CD1_1A": 2.0, "CD2_2A": 3.0, "CDELT3A": 7.0,
            "LONPOLE": 180.0, "CRVAL1B": 5.0, "MJDREF": 0.0,
        }
    )  # fmt: skip
    hdu.header.update(cards)
    return open_scene(write_fits(tmp_path / "cube.fits", hdu))


def saved_header(tmp_path, scene, grid, template=None):
    values = np.zeros(grid.shape, np.float32)
    saved = ArrayScene(values, grid, template or scene.template, name="a").save(tmp_path / "saved.fits")
    with fits.open(saved) as hdus:
        hdus.verify("exception")
    return fits.getheader(saved)


def test_only_cards_that_change_change(tmp_path):
    scene = cube_scene(tmp_path)
    before = fits.getheader(tmp_path / "cube.fits")
    after = saved_header(tmp_path, scene, scene.grid.crop(Window(x=(2, 9), y=(0, 8))))
    changed = {k for k in before if is_wcs(k) and after[k] != before[k]}
    assert changed == {"CRPIX1", "CRPIX1A"} and after["CRPIX1"] == 2 and after["CRPIX1B"] == -2
    assert [c.image for c in after.cards if c.keyword in ("CUNIT1", "CDELT1", "PC1_2")] == [
        c.image for c in before.cards if c.keyword in ("CUNIT1", "CDELT1", "PC1_2")
    ]
    after = saved_header(tmp_path, scene, scene.grid.coarsen(x=2, y=4).flip("y"))
    assert (after["CDELT1"], after["CDELT2"], after["CD2_2A"]) == (1.2, -2.4, -12.0)
    assert (after["PC1_2"], after["PC2_1"], after["PC1_1"]) == (-0.6 * -4 / 2, 0.6 * 2 / -4, 0.8)


def test_dims_that_go_take_their_cards_along(tmp_path):
    scene = cube_scene(tmp_path)
    flat = saved_header(tmp_path, scene, scene.grid.drop("time"))
    assert flat["WCSAXES"] == 2 and not [k for k in flat if re.fullmatch(r"C.*3.?|PC.*3", k)]
    assert "axis 3 (TIME)" in str(flat["HISTORY"]) and flat["CTYPE2"] == "HPLT-TAN"
    resized = saved_header(tmp_path, scene, scene.grid.resize(time=2))
    assert resized["NAXIS3"] == 2 and "CTYPE3" not in resized and WCS(resized).naxis == 3
    row = saved_header(tmp_path, scene, scene.grid.drop("y"))  # half a sky says nothing: time moves to axis 2
    assert [row.get(f"CTYPE{i}") for i in (1, 2, 3)] == [None, "TIME", None] and row["CDELT2"] == 12
    assert row["CTYPE1A"] == "X" and row["CD1_1A"] == 2 and "CD2_2A" not in row and row["CDELT2A"] == 7
    coupled = cube_scene(make_room(tmp_path), PC1_3=0.1)
    assert "CTYPE1" not in saved_header(tmp_path, coupled, coupled.grid.drop("time"))


def make_room(tmp_path):
    (tmp_path / "room").mkdir()
    return tmp_path / "room"


def test_new_and_transposed_dims(tmp_path):
    scene = cube_scene(tmp_path)
    grid = scene.grid.insert(3, "band", 2).transpose("y", "band", "x", "time")
    values = ramp(8, 2, 9, 3)
    saved = ArrayScene(values, grid, scene.template, name="a").save(tmp_path / "n.fits")
    assert same(astropy_data(saved, 0), values.transpose(1, 3, 0, 2))
    again = open_scene(str(saved))
    assert again.dims == ("axis4", "time", "y", "x")
    assert again.grid.pixel_to_world(x=1, y=2, time=1, axis4=0)["TIME"] == 112


def test_degenerate_axes_stay(tmp_path):
    hdu = fits.PrimaryHDU(ramp(4, 5))
    hdu.header.update({"WCSAXES": 3, "CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN", "CTYPE3": "STOKES"})
    hdu.header.update({"CRVAL3": 1.0, "CRPIX3": 1.0, "CDELT3": 1.0, "CRPIX1": 3.0})
    scene = open_scene(write_fits(tmp_path / "a.fits", hdu))
    grid = scene.grid.crop(Window(x=(1, 5)))
    assert grid.wcs.naxis == 3 and grid.pixel_to_world(x=0, y=0)["STOKES"] == 1
    after = saved_header(tmp_path, scene, grid)
    assert after["CTYPE3"] == "STOKES" and after["WCSAXES"] == 3 and after["CRPIX1"] == 2
    assert "CTYPE3" not in saved_header(tmp_path, scene, grid.insert(0, "band", 2))


@pytest.mark.parametrize("view", VIEWS)
def test_sip_follows_the_view(view, tmp_path):
    hdu = fits.PrimaryHDU(ramp(40, 50))
    hdu.header.update(
        {
            "CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "CRPIX1": 20.0, "CRPIX2": 17.0,
            "CRVAL1": 30.0, "CRVAL2": 10.0, "CD1_1": -1e-3, "CD1_2": 2e-4, "CD2_1": 1e-4, "CD2_2": 1e-3,
            "A_ORDER": 2, "B_ORDER": 3, "A_2_0": 1e-4, "A_1_1": -2e-4, "B_0_2": 3e-4, "B_2_1": 1e-6,
            "A_DMAX": 0.5,
        }
    )  # fmt: skip
    scene = open_scene(write_fits(tmp_path / "a.fits", hdu))
    grid = VIEWS[view](scene.grid)
    after = saved_header(tmp_path, scene, grid)
    check_view(scene.grid.wcs, WCS(after), grid)
    check_view(scene.grid.wcs, grid.wcs, grid)
    assert after["A_DMAX"] == 0.5 / abs(grid.axis("x").step)


def test_wcs_of_another_file_replaces_that_of_the_input(tmp_path):
    scene, other = cube_scene(tmp_path), fits.Header({"NAXIS": 2, "CTYPE1": "CRLN-CAR", "CTYPE2": "CRLT-CAR"})
    other.update({"CRPIX1": 10.0, "CDELT1": 2.0, "CDELT2": 2.0, "OBSERVER": "other"})
    grid = Grid.of(("y", "x"), (4, 5), WcsLocator(other.tostring(), ("y", "x"), ("y", "x"))).crop(
        Window(x=(1, 5))
    )
    after = saved_header(tmp_path, scene, grid)
    assert (after["CTYPE1"], after["CRPIX1"], after["CDELT1"]) == (
        "CRLN-CAR",
        9,
        2,
    ) and "OBSERVER" not in after
    assert "MJDREF" in after and not [k for k in after if k.startswith("PC") or k.endswith("A")]
    plain = saved_header(tmp_path, scene, Grid.of(("y", "x"), (4, 5)))
    assert not [k for k in plain if is_wcs(k)] and "MJDREF" in plain
    foreign = saved_header(
        tmp_path, scene, grid, Template("numpy", ("y", "x"), units="G", attrs={"OBSERVER": "me"})
    )
    assert (foreign["CRPIX1"], foreign["OBSERVER"], foreign["BUNIT"]) == (9, "other", "G")


def test_units_of_the_template_win(tmp_path):
    scene = cube_scene(tmp_path, BUNIT="DN")
    assert scene.template.units == "DN"
    assert saved_header(tmp_path, scene, scene.grid, replace(scene.template, units="DN/s"))["BUNIT"] == "DN/s"
    assert "BUNIT" not in saved_header(tmp_path, scene, scene.grid, replace(scene.template, units=""))


# -- grids and templates of other formats ---------------------------------------------------------------


@pytest.mark.parametrize("affine", [(30.0, 0, 5e5, 0, -30.0, 4.1e6), (30.0, 4.0, 5e5, 3.0, -30.0, 4.1e6)])
def test_crs_and_affine_become_linear_cards(affine, tmp_path):
    from pyproj import CRS

    grid = Grid.of(("band", "y", "x"), (2, 6, 7), GeoLocator(affine, "EPSG:32633")).crop(Window(x=(2, 7)))
    template = Template(
        "geotiff", ("band", "y", "x"), units="1", attrs={"AREA_OR_POINT": "Area", "lut": [1, 2], "n": 3}
    )
    header = saved_header(tmp_path, None, grid, template)
    x, y, _ = WCS(header).all_pix2world([0, 4], [0, 5], [0, 0], 0)
    world = grid.pixel_to_world(x=[0, 4], y=[0, 5])
    assert np.allclose(x, world["x"], rtol=1e-12) and np.allclose(y, world["y"], rtol=1e-12)
    assert header["CUNIT1"] == "m" and CRS.from_wkt(header["CRS_WKT"]) == CRS("EPSG:32633")
    assert header["AREA_OR_POINT"] == "Area" and header["N"] == 3 and "lut" in str(header["HISTORY"])
    assert open_scene(str(tmp_path / "saved.fits")).grid.pixel_to_world(x=0, y=0, z=0)["X"] == world["x"][0]


def test_coordinate_vectors_become_cards_where_regular(tmp_path):
    coords = (
        Coord("time", ("time",), np.array([0, 1, 5.0]), {"units": "days since 2000-01-01"}),
        Coord("lat", ("lat",), np.linspace(50, 40, 5).astype("f4"), {"units": "degrees_north"}),
        Coord("lon", ("lon",), np.arange(6) * 0.25, {"units": "degrees_east"}),
        Coord("area", ("lat", "lon"), np.ones((5, 6)), {}),
    )
    grid = Grid.of(("time", "lat", "lon"), (3, 5, 6), CoordLocator(coords, ("lat", "lon"))).crop(
        Window(lon=(2, 6))
    )
    attrs = {
        "long_name": "sea ice",
        "_FillValue": -9.0,
        "scale_factor": 0.1,
        "comment": "caf\xe9",
        "CRPIX1": 5,
    }
    header = saved_header(
        tmp_path, None, grid, Template("netcdf", ("time", "lat", "lon"), units="K", attrs=attrs)
    )
    lon, lat, _ = WCS(header).all_pix2world([0, 3], [0, 4], [0, 0], 0)
    assert np.allclose(lon, [0.5, 1.25]) and np.allclose(lat, [50, 40]) and header["CUNIT2"] == "deg"
    history = str(header["HISTORY"])
    assert "CTYPE3" not in header and "time of axis 3 is not regular" in history and "area" in history
    assert header["LONG_NAME"] == "sea ice" and "SCALE_FACTOR" not in header and "_FILLVALUE" not in header
    assert header["CRPIX1"] == 1 and header["BUNIT"] == "K"


def test_integers_of_another_format_keep_their_nodata(tmp_path):
    values = np.array([[0, 5, 65535]], np.uint16)
    template = Template("geotiff", ("y", "x"), raw=True, nodata=65535)
    saved = ArrayScene(values, Grid.of(("y", "x"), (1, 3)), template, name="a").save(tmp_path / "a.fits")
    assert same(astropy_data(saved, 0), values)
    assert same(open_scene(str(saved)).read(), np.array([[0, 5, np.nan]], "f4"))


def test_attributes_alone_make_a_header(tmp_path):
    attrs = {"TELESCOP": "SDO/AIA", "EXPTIME": 2.0, "HISTORY": "one\ntwo", "NAXIS1": 99, "BLANK": 0}
    grid = Grid.of(("y", "x"), (4, 5))
    for template in (Template("fits", ("y", "x"), attrs=attrs), Template("numpy", ("y", "x"), attrs=attrs)):
        header = saved_header(tmp_path, None, grid, template)
        assert (header["TELESCOP"], header["EXPTIME"], header["NAXIS1"]) == ("SDO/AIA", 2.0, 5)
        assert list(header["HISTORY"]) == ["one", "two"] and "BLANK" not in header
