"""Every example runs as a user would run it: in an empty folder, on made scenes, and on the real files."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import rasterio
from astropy.io import fits
from astropy.wcs import WCS

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("[0-9]*.py"))


def run(example: Path, folder: Path, samples: Path | None) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "STREAMGEO_SAMPLES"}
    environment["PYTHONPATH"] = str(example.parents[1])
    if samples is not None:
        environment["STREAMGEO_SAMPLES"] = str(samples.resolve())
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning:streamgeo", str(example)],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def needs(example: Path) -> None:
    for word, module in (("torch", "torch"), ("sst", "scipy"), ("sst", "xarray")):
        if word in example.name and importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


def fits_where_it_was(folder: Path, samples: Path | None) -> None:
    """The FITS files that come out have the WCS and the units of those that went in, and stand verification."""
    name = "helio/AIA20110319_105400_0171.fits"
    before = [samples / name] if samples else sorted((folder / "scenes/sun").glob("*.fits"))
    for given, made in zip(before, sorted((folder / "out/torch").glob("*.fits")), strict=True):
        with fits.open(given) as old, fits.open(made) as new:
            new.verify("exception")
            source, found = (next(h for h in hdus if h.data is not None) for hdus in (old, new))
            assert found.data.shape == source.data.shape
            np.testing.assert_array_equal(np.isnan(found.data), np.isnan(source.data))
            assert found.header.get("BUNIT") == source.header.get("BUNIT")
            for pixel in ((0, 0), (200, 30), (511, 511)):
                places = [WCS(h.header).wcs_pix2world([pixel], 0) for h in (source, found)]
                np.testing.assert_allclose(*places, rtol=1e-9, atol=1e-12)


def geotiff_where_it_was(folder: Path, samples: Path | None) -> None:
    """The map has CRS and transform of the bands, and is a prediction of a number without unit."""
    bands = folder / "scenes/landsat/LC09_B4.TIF"
    given = samples / "remote_sensing/localtileserver_landsat.tif" if samples else bands
    with rasterio.open(given) as old, rasterio.open(folder / "out/ndvi.tif") as new:
        assert (new.crs, new.shape, new.units) == (old.crs, old.shape, ("1",))
        assert new.transform.almost_equals(old.transform, 1e-9)
        assert np.nanmax(np.abs(np.nanquantile(new.read(1), [0.05, 0.5, 0.95]))) < 1


def netcdf_where_it_was(folder: Path, samples: Path | None) -> None:
    """The fields have all coordinates of those that went in, and no gap but land."""
    for path in sorted((folder / "scenes/sst").glob("*.nc")):
        with netCDF4.Dataset(path) as old, netCDF4.Dataset(folder / "out/sst" / path.name) as new:
            name = "surface_temperature" if samples else "sst"
            dims = old[name].dimensions
            assert new[name].dimensions == dims
            for dim in dims:
                np.testing.assert_array_equal(new[dim][:], old[dim][:])
            assert new[name].units == old[name].units
            assert new["time"].calendar == old["time"].calendar
            before, after = (np.ma.getmaskarray(file[name][:]) for file in (old, new))
            region = np.abs(new[dims[1]][:]) <= 50
            land = before.all(0)
            assert after[:, land].all()
            # what was under clouds in every year of a month has no mean to come back to
            sea = (region[:, None] & ~land)[None]
            assert after[np.broadcast_to(sea, after.shape)].mean() < 0.02 < 0.1 < before[:, sea[0]].mean()


CHECKS = {"05": fits_where_it_was, "07": geotiff_where_it_was, "08": netcdf_where_it_was}


def check(example: Path, folder: Path, samples: Path | None) -> None:
    run(example, folder, samples)
    assert [p for p in (folder / "out").rglob("*") if p.is_file()]
    if example.name[:2] in CHECKS:
        CHECKS[example.name[:2]](folder, samples)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda p: p.stem)
def test_on_made_scenes(example: Path, tmp_path: Path) -> None:
    needs(example)
    check(example, tmp_path, None)


ON_REAL_FILES = [p for p in EXAMPLES if p.name[:2] != "09"]


@pytest.mark.parametrize("example", ON_REAL_FILES, ids=lambda p: p.stem)
def test_on_real_files(example: Path, tmp_path: Path, samples: Path) -> None:
    needs(example)
    check(example, tmp_path, samples)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda p: p.stem)
def test_is_short(example: Path) -> None:
    assert len(example.read_text().splitlines()) < 80


def test_they_are_numbered() -> None:
    numbers = [p.name[:2] for p in EXAMPLES]
    assert len(set(numbers)) == len(numbers)
    assert {"01", "02", "03", "04", "05", "06", "07", "08", "09", "10"} <= set(numbers)
