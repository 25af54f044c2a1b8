"""Sea surface temperature with clouds to fields without gaps, on the same coordinates, land left out.

Needs scipy and xarray (pip install 'streamgeo[xarray]'). The fields are made here: six years of months, int16, latitude
descending, a 360-day calendar, land and clouds as fill value.
"""

from pathlib import Path

import netCDF4
import numpy as np

import streamgeo as sg
from streamgeo import climate, made

OUT, SHAPE = Path("out/sst"), (96, 180)
paths = made.sea(Path("scenes/sst"), count=6, shape=SHAPE)
rng, truth = np.random.default_rng(1), []
for path in paths:  # clouds, which differ from month to month
    with netCDF4.Dataset(path, "a") as file:
        truth.append(file["sst"][:].filled(np.nan))
        cloudy = np.stack([made.smooth(rng, SHAPE, 4) > 0.9 for _ in range(12)])
        file["sst"][:] = np.ma.masked_where(cloudy, file["sst"][:])

scenes = sg.files(paths, key="sst").key_transform("sst", sg.open_netcdf("sst"))
normals = climate.fit_climatology(scenes, "sst", by="month")
print("months fitted to", normals.count.max(), "years, saved as", normals.save(OUT / "normals.npz"))

chain = (
    scenes.key_transform("sst", climate.anomaly("out/sst/normals.npz"))  # of the month
    .key_transform("sst", climate.subset(lat=(-50, 50), lon=(-180, 180)))  # 0..360 turned around
    .key_transform("sst", climate.fill_gaps("inpaint", restore=False))  # clouds, for good
    .key_transform("sst", climate.cyclic(8))  # so that the model sees across the date line
    .key_transform("sst", sg.normalize(mean=0.0, std=0.8))
    .key_transform("sst", sg.patch({"lat": 40, "lon": 64}, stride={"lat": 32, "lon": 48}))
)
print(chain.explain())


def model(x: np.ndarray) -> np.ndarray:
    """A mean over neighbours in space: stands for the network."""
    beside = sum(np.roll(x, shift, axis) for axis in (-2, -1) for shift in (-1, 1))
    return (2 * x + beside) / 6


# back: the padding is cut off, the region is put in its place, and the months' means (NaN on land) are added
for scene, full in zip(chain.batch(4).prefetch(4, 2).predict(model, key="sst"), truth):
    field = scene.to_xarray()  # dims, coordinates, calendar and units of the file
    observed = sg.open_netcdf("sst")(scene.files[0]).array
    hidden = np.isfinite(full) & np.isnan(observed) & np.isfinite(field.values)
    error, usual = (np.sqrt(np.mean((v - full)[hidden] ** 2)) for v in (field.values, normals.mean))
    path = scene.save(OUT / Path(scene.name).name)
    print(f"{path}: {dict(field.sizes)}, from {field.time.values[0]} on, {field.attrs['units']}")
    print(f"  {int(hidden.sum())} pixels under clouds: error {error:.2f}, of the months' mean {usual:.2f}")
