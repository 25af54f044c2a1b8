"""Small made scenes of the three domains, hard cases included, for the demo and the examples.

They are written with astropy, rasterio and netCDF4 themselves, so that what streamgeo reads was not made by it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def smooth(rng: np.random.Generator, shape: tuple[int, int], scale: int) -> Array:
    """A smooth random field of mean 0 and standard deviation 1, with features of about ``scale`` pixels."""
    ny, nx = shape
    spectrum = np.fft.rfft2(rng.standard_normal(shape))
    ky, kx = np.fft.fftfreq(ny)[:, None], np.fft.rfftfreq(nx)[None, :]
    field = np.fft.irfft2(spectrum * np.exp(-2 * (np.pi * scale) ** 2 * (ky**2 + kx**2) / 4), shape)
    return np.asarray((field - field.mean()) / field.std())


def sun(folder: Path, count: int = 2, size: int = 512) -> list[Path]:
    """Full-disc continuum images: int16, RICE-compressed in HDU 1, BSCALE and BZERO, BLANK off the limb."""
    from astropy.io import fits

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    radius = 959.63
    cdelt = 2.3 * radius / size
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    r2 = (x**2 + y**2) * (cdelt / radius) ** 2
    mu = np.sqrt(np.clip(1 - r2, 0, None))
    for number in range(count):
        rng = np.random.default_rng(number)
        quiet = 1 + 0.02 * smooth(rng, (size, size), 3) + 0.01 * rng.standard_normal((size, size))
        spots = np.exp(-np.clip(smooth(rng, (size, size), 16) - 2.2, 0, None) * 3)
        limb = 0.3 + 0.93 * mu - 0.23 * mu**2
        values = np.where(r2 < 1, 55000 * limb * quiet * spots, np.nan)
        stored = np.where(np.isnan(values), -32768, np.round((values - 32000) / 2)).astype(np.int16)
        hdu = fits.CompImageHDU(stored, compression_type="RICE_1")
        cards: dict[str, Any] = {
            "BSCALE": 2.0, "BZERO": 32000.0, "BLANK": -32768, "BUNIT": "DN", "EXPTIME": 2.0, "WAVELNTH": 6173,
            "CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN", "CUNIT1": "arcsec", "CUNIT2": "arcsec",
            "CRPIX1": (size + 1) / 2, "CRPIX2": (size + 1) / 2, "CRVAL1": 0.0, "CRVAL2": 0.0,
            "CDELT1": cdelt, "CDELT2": cdelt, "CROTA2": 0.0, "RSUN_OBS": radius, "DSUN_OBS": 1.496e11,
            "DATE-OBS": f"2024-05-{10 + number:02d}T12:00:00", "TELESCOP": "MADE", "INSTRUME": "DEMO",
        }  # fmt: skip
        hdu.header.update(cards)
        path = folder / f"continuum_{number}.fits"
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, overwrite=True)
        paths.append(path)
    return paths


def sharp(folder: Path, shape: tuple[int, int] = (300, 520)) -> list[Path]:
    """A vector field as HMI SHARPs hold it: a file for each of Bp, Bt, Br, int32, RICE-compressed in HDU 1, CEA."""
    from astropy.io import fits

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(377)
    potential = sum(1500 * smooth(rng, shape, scale) for scale in (9, 14, 22))
    south, west = np.gradient(potential)  # of one potential, so that the components belong together
    cards: dict[str, Any] = {
        "BSCALE": 0.01, "BZERO": 0.0, "BLANK": -(2**31), "BUNIT": "Mx/cm^2", "CTYPE1": "CRLN-CEA",
        "CTYPE2": "CRLT-CEA", "CUNIT1": "deg", "CUNIT2": "deg", "CRPIX1": (shape[1] + 1) / 2,
        "CRPIX2": (shape[0] + 1) / 2, "CRVAL1": 34.9, "CRVAL2": -21.1, "CDELT1": 0.03, "CDELT2": 0.03,
        "T_OBS": "2011.02.15_01:59:54_TAI", "QUALITY": 0, "TELESCOP": "MADE", "INSTRUME": "DEMO",
    }  # fmt: skip
    paths = []
    for name, field in zip(("Bp", "Bt", "Br"), (west, south, potential / 4)):
        stored = np.round(field / 0.01).astype(np.int32)
        stored[-3:, -5:] = -(2**31)  # off the limb
        hdu = fits.CompImageHDU(stored, compression_type="RICE_1")
        hdu.header.update(cards)
        paths.append(folder / f"sharp_377.20110215_020000_TAI.{name}.fits")
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(paths[-1], overwrite=True)
    return paths


def corona(folder: Path, times: int = 4, size: int = 192) -> list[Path]:
    """Images as SDO/AIA takes them: 171, 193 and 211 Angstrom, a few seconds apart, each with its own pointing.

    One of them has a quality flag set, and one 211 is missing.
    """
    from astropy.io import fits

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(171)
    base = [smooth(rng, (size, size), scale) for scale in (4, 8)]
    paths = []
    for number in range(times):
        for band, (wavelength, level, exposure) in enumerate(
            ((171, 600.0, 2.0), (193, 900.0, 2.0), (211, 300.0, 2.9))
        ):
            if (number, wavelength) == (2, 211):
                continue
            cdelt, shift, turn = 2600.0 / size * (1 + 0.004 * band), 1.5 * band, 0.05 * band
            y, x = np.mgrid[:size, :size] - (size - 1) / 2 - shift
            away = np.hypot(x, y) * cdelt / 960
            shape = base[0] if band == 0 else (0.6 * base[0] + 0.8 * base[1] if band == 1 else base[1])
            bright = np.exp(
                0.5 * np.roll(shape, number + round(shift), axis=(0, 1)) - 2 * np.clip(away - 1, 0, None)
            )
            counts = rng.poisson(level / 4 * bright * exposure) * 1.0
            header = fits.Header()
            header.update({
                "CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN", "CUNIT1": "arcsec", "CUNIT2": "arcsec",
                "CRPIX1": (size + 1) / 2 + shift, "CRPIX2": (size + 1) / 2 + shift, "CRVAL1": 0.0, "CRVAL2": 0.0,
                "CDELT1": cdelt, "CDELT2": cdelt, "CROTA2": turn, "RSUN_OBS": 960.0, "HGLT_OBS": -7.0,
                "HGLN_OBS": 0.0, "EXPTIME": exposure, "WAVELNTH": wavelength, "BUNIT": "DN", "TELESCOP": "MADE",
                "T_OBS": f"2011-03-19T10:{number:02d}:{10 + 3 * band:02d}.35Z",
                "QUALITY": (1 << 13) * ((number, wavelength) == (3, 193)),
            })  # fmt: skip
            paths.append(folder / f"aia_{wavelength}_{number}.fits")
            fits.PrimaryHDU(counts.astype(np.int16), header).writeto(paths[-1], overwrite=True)
    return paths


def land(folder: Path, count: int = 2, shape: tuple[int, int] = (500, 620)) -> list[Path]:
    """Multispectral scenes: four bands of uint16 reflectance, nodata 0 in a tilted corner, tiled, UTM."""
    import rasterio
    from rasterio.transform import from_origin

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        rng = np.random.default_rng(100 + number)
        relief, plants = smooth(rng, shape, 24), smooth(rng, shape, 8)
        bands = [
            900 + 120 * relief + slope * plants + 40 * rng.standard_normal(shape)
            for slope in (-60, -40, -90, 900)
        ]
        values = np.clip(np.round(np.stack(bands) + [[[0]], [[60]], [[40]], [[1800]]]), 1, 65535).astype(
            np.uint16
        )
        rows, columns = np.mgrid[: shape[0], : shape[1]]
        values[:, rows + 0.3 * columns < 60] = 0
        path = folder / f"scene_{number}.tif"
        profile = {
            "driver": "GTiff", "count": 4, "height": shape[0], "width": shape[1], "dtype": "uint16", "nodata": 0,
            "crs": "EPSG:32633", "transform": from_origin(300000.3 + 18600 * number, 5000000.7, 30, 30),
            "tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "predictor": 2,
        }  # fmt: skip
        with rasterio.open(path, "w", **profile) as file:
            file.write(values)
            file.descriptions = ("blue", "green", "red", "nir")
        paths.append(path)
    return paths


def landsat(folder: Path, shape: tuple[int, int] = (420, 510)) -> dict[str, Path]:
    """A scene of Landsat level 1 as USGS delivers it: B2 to B5, QA_PIXEL (clouds) and an MTL file, by these names.

    0 where there are no data, which the files do not declare; DN = (reflectance sin(elevation) + 0.1) / 2e-5.
    """
    import rasterio
    from rasterio.transform import from_origin

    folder.mkdir(parents=True, exist_ok=True)
    rng, elevation = np.random.default_rng(7), 48.2
    plants, light, clouds = (smooth(rng, shape, scale) for scale in (14, 30, 22))
    profile = {
        "driver": "GTiff", "count": 1, "dtype": "uint16", "height": shape[0], "width": shape[1], "crs": "EPSG:32621",
        "transform": from_origin(723885.0, -2718285.0, 30.0, 30.0), "tiled": True, "blockxsize": 256,
        "blockysize": 256, "compress": "deflate",
    }  # fmt: skip
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    bands = {"B2": (0.05, -0.005), "B3": (0.08, -0.005), "B4": (0.10, -0.025), "B5": (0.25, 0.07)}
    values = {"QA_PIXEL": np.where(clouds > 1.3, 22280, 21824)}  # high confidence of cloud; clear
    for band, (base, slope) in bands.items():
        reflectance = base + slope * plants + 0.008 * light + 0.003 * rng.standard_normal(shape)
        numbers = (np.where(clouds > 1.3, 0.6, reflectance) * np.sin(np.radians(elevation)) + 0.1) / 2e-5
        values[band] = np.where(rows + 0.2 * columns < 40, 0, np.round(numbers))
    paths = {name: folder / f"LC09_{name}.TIF" for name in values} | {"MTL": folder / "LC09_MTL.txt"}
    for name, stored in values.items():
        with rasterio.open(paths[name], "w", **profile) as file:
            file.write(stored.astype(np.uint16), 1)
    factors = [
        f"REFLECTANCE_{k}_BAND_{b[1]} = {n}" for b in bands for k, n in (("MULT", 2e-5), ("ADD", -0.1))
    ]
    paths["MTL"].write_text("\n".join([f"SUN_ELEVATION = {elevation}", *factors, "END"]))
    return paths


def sea(folder: Path, count: int = 2, shape: tuple[int, int] = (120, 240)) -> list[Path]:
    """Monthly sea surface temperature: packed int16, latitude descending, land as fill, 360-day calendar."""
    import netCDF4

    folder.mkdir(parents=True, exist_ok=True)
    lat = np.linspace(60, -60, shape[0])
    lon = np.arange(shape[1]) * 360 / shape[1]
    ground = smooth(np.random.default_rng(7), shape, 12) > 0.9
    paths = []
    for number in range(count):
        rng = np.random.default_rng(200 + number)
        path = folder / f"sst_{2000 + number}.nc"
        with netCDF4.Dataset(path, "w") as file:
            file.Conventions = "CF-1.8"
            for name, size in (("time", None), ("lat", shape[0]), ("lon", shape[1])):
                file.createDimension(name, size)
            for name, values, units in (("lat", lat, "degrees_north"), ("lon", lon, "degrees_east")):
                axis = file.createVariable(name, "f8", (name,))
                axis.setncatts(
                    {"units": units, "standard_name": {"lat": "latitude", "lon": "longitude"}[name]}
                )
                axis[:] = values
            time = file.createVariable("time", "f8", ("time",))
            time.setncatts({"units": f"days since {2000 + number}-01-01", "calendar": "360_day", "axis": "T"})
            time[:] = 15 + 30.0 * np.arange(12)
            sst = file.createVariable("sst", "i2", ("time", "lat", "lon"), zlib=True, fill_value=-32768)
            sst.setncatts({"units": "degC", "scale_factor": 0.01, "add_offset": 10.0,
                           "standard_name": "sea_surface_temperature"})  # fmt: skip
            for month in range(12):
                season = 3 * np.cos(2 * np.pi * (month - 7) / 12) * np.sin(np.radians(lat))[:, None]
                field = 28 * np.cos(np.radians(lat))[:, None] ** 2 + season + 0.8 * smooth(rng, shape, 10)
                field = field + 0.3 * rng.standard_normal(shape)
                sst[month] = np.ma.masked_array(field, mask=ground)
        paths.append(path)
    return paths
