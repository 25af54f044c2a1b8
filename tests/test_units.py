"""Units follow the values: in the headers that steps see, and in what is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

import streamgeo as sg
from streamgeo import climate, helio, made, remote
from streamgeo.errors import SampleError, StepError
from streamgeo.scene import ArrayScene
from streamgeo.template import Template
from tests.laws import AFFINE, BANDS, GLOBE


def counts(folder: Path, unit: str = "DN") -> Path:
    (path,) = made.sun(folder, count=1, size=64)
    with fits.open(path, mode="update") as hdus:
        header = next(hdu.header for hdu in hdus if hdu.data is not None)
        header["EXPTIME"] = 4.0
        if unit:
            header["BUNIT"] = unit
        else:
            header.remove("BUNIT", ignore_missing=True)
    return path


def images(path: Path) -> sg.Buffer:
    return sg.files([path], key="i").key_transform("i", sg.open_fits())


@pytest.mark.parametrize(("unit", "rate"), [("DN", "DN/s"), ("ct / pix", "ct / pix/s"), ("", "s-1")])
def test_exposure_divides_once(tmp_path: Path, unit: str, rate: str) -> None:
    path = counts(tmp_path, unit)
    once = images(path).key_transform("i", helio.exposure())
    with pytest.raises(SampleError, match=r"per second already; leave this step out"):
        once.key_transform("i", helio.exposure()).scene("i").read()
    with pytest.raises(SampleError, match=r"per second already; leave this step out"):
        once.key_transform("i", sg.patch(32)).key_transform("i", helio.exposure())[0]
    saved = once.scene("i").save(tmp_path / "rate.fits")
    again = images(saved)
    assert again.scene("i").attrs["BUNIT"] == again.scene("i").template.units == rate
    with pytest.raises(SampleError, match=r"per second already; leave this step out"):
        again.key_transform("i", helio.exposure()).scene("i").read()


def test_units_go_back_with_the_values(tmp_path: Path) -> None:
    path = counts(tmp_path)
    whole = images(path).scene("i").array
    chain = images(path).key_transform("i", helio.exposure()).key_transform("i", sg.patch(32))
    (scene,) = chain.batch(2).predict(np.asarray, key="i")
    np.testing.assert_allclose(scene.array, whole, rtol=1e-6)
    with fits.open(scene.save(tmp_path / "back.fits")) as hdus:
        assert next(hdu.header for hdu in hdus if hdu.data is not None)["BUNIT"] == "DN"
    (rates,) = chain.batch(2).predict(np.asarray, key="i", inverse=[])
    np.testing.assert_allclose(rates.array, whole / 4, rtol=1e-6)
    assert rates.template.units == "DN/s"


STEPS: list[tuple[sg.Step, sg.Grid, str]] = [
    (remote.radiance(0.01), BANDS, "W m-2 sr-1 um-1"),
    (remote.toa_reflectance(2e-5, -0.1, 40.0), BANDS, "1"),
    (remote.sentinel2("04.00"), BANDS, "1"),
    (remote.brightness_temperature(774.8853, 1321.0789), BANDS, "K"),
    (remote.decibel(), BANDS, "dB"),
    (remote.index("NDVI", ["red", "nir", "blue"]), BANDS, "1"),
    (remote.qa_mask("cloud"), BANDS, "1"),
    (climate.geostrophic(), GLOBE, "m s-1"),
    (climate.anomaly(1.0, std=2.0), GLOBE, "1"),
    (climate.anomaly(1.0), GLOBE, "degree"),
    (sg.normalize(0.0, 2.0), GLOBE, "degree"),
    (sg.Step(np.square, units="{}2".format), BANDS, "degree2"),
    (sg.Step(np.square, units="m").replaced(inverse=np.sqrt, reach=sg.POINT), BANDS, "m"),
]


@pytest.mark.parametrize(("step", "grid", "units"), STEPS)
def test_steps_say_their_units(step: sg.Step, grid: sg.Grid, units: str) -> None:
    assert step.units_after("degree") == units
    values = np.ones(grid.shape, np.float32)
    template = Template(
        "netcdf", grid.dims, name="x", units="degree", attrs={"units": "degree", "title": "t"}
    )
    scene = ArrayScene(values, grid, template, name="x.nc")
    chain = sg.from_xarray(scene.to_xarray(), "x").key_transform("x", step)
    found = chain.scene("x")
    assert dict(found.attrs) == {"units": units, "title": "t"}
    assert found.to_xarray().attrs["units"] == units


def test_units_of_bands_in_a_geotiff(tmp_path: Path) -> None:
    import rasterio

    template = Template("geotiff", ("band", "y", "x"), units="count")
    scene = ArrayScene(np.full(BANDS.shape, 10.0, np.float32), BANDS, template, name="x.tif")
    path = scene.save(tmp_path / "x.tif")
    kelvin = (
        sg.files([path], key="x")
        .key_transform("x", sg.open_geotiff())
        .key_transform("x", remote.brightness_temperature(774.8853, 1321.0789))
    )
    with rasterio.open(kelvin.scene("x").save(tmp_path / "y.tif")) as file:
        assert set(file.units) == {"K"}
        assert file.crs == AFFINE.crs


def test_what_is_no_unit_of_a_second(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="EXPTIME=0 s must be above 0"):
        helio.exposure()(np.ones(1), attrs={"EXPTIME": 0, "BUNIT": "DN"})
    attrs: dict[str, Any] = {"EXPTIME": 2.0, "BUNIT": "DN/s"}
    assert helio.exposure().undo(np.ones(1), attrs=attrs).tolist() == [2.0]  # what the way back sees


def test_predictions_of_plain_arrays_are_saved(tmp_path: Path) -> None:
    chain = sg.buffer_from_vector([{"x": np.arange(6)}]).key_transform("x", sg.patch(3)).batch(1)
    (scene,) = chain.predict(lambda x: x + 0.5, key="x")
    np.testing.assert_array_equal(np.load(scene.save(tmp_path / "x.npy")), np.arange(6) + 0.5)
