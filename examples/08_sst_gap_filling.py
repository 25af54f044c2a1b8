"""Sea surface temperature with clouds to fields without gaps, on the same coordinates, land left out.

Runs on OSTIA (months of the tropics, longitudes 0..360) from the sample folder (STREAMGEO_SAMPLES) where it is there,
else on fields made here: six years of months, int16, latitude descending, a 360-day calendar, land as fill value. In
both, clouds are put over a fifth of the sea, so that it is known what was under them. Needs scipy and xarray (pip
install 'streamgeo[xarray]').
"""

import os
import shutil
from pathlib import Path

import netCDF4
import numpy as np

import streamgeo as sg
from streamgeo import climate, made

IN, OUT = Path("scenes/sst"), Path("out/sst")
samples = os.environ.get("STREAMGEO_SAMPLES")
if samples:
    IN.mkdir(parents=True, exist_ok=True)
    paths, name = (
        [Path(shutil.copyfile(f"{samples}/geoscience/ostia_monthly.nc", IN / "ostia.nc"))],
        "surface_temperature",
    )
else:
    paths, name = made.sea(IN, count=6, shape=(96, 180)), "sst"
rng, truth = np.random.default_rng(1), []
for path in paths:  # clouds, which differ from month to month
    with netCDF4.Dataset(path, "a") as file:
        field = file[name]
        truth.append(field[:].filled(np.nan))
        cloudy = np.stack([made.smooth(rng, field.shape[1:], 4) > 0.9 for _ in field])
        field[:] = np.ma.masked_where(cloudy, field[:])

scenes = sg.files(paths, key="sst").key_transform("sst", sg.open_netcdf(name))
normals = climate.fit_climatology(scenes, "sst", by="month")
print("months fitted to", normals.count.max(), "years, saved as", normals.save(OUT / "normals.npz"))

rows = min(40, scenes.scene("sst").shape[1])
chain = (
    scenes.key_transform("sst", climate.anomaly("out/sst/normals.npz"))  # of the month
    .key_transform("sst", climate.subset(lat=(-50, 50), lon=(-180, 180)))  # 0..360 turned around
    .key_transform("sst", climate.fill_gaps("inpaint", restore=False))  # clouds, for good
    .key_transform("sst", climate.cyclic(8))  # so that the model sees across the date line
    .key_transform("sst", sg.normalize(mean=0.0, std=0.8))
    .key_transform("sst", sg.patch(size=(rows, 64), stride=(max(1, rows - 8), 48)))
)
print(chain.explain())


def model(x: np.ndarray) -> np.ndarray:
    """A mean over neighbours in space: stands for the network."""
    beside = sum(np.roll(x, shift, axis) for axis in (-2, -1) for shift in (-1, 1))
    return (2 * x + beside) / 6


# back: the padding is cut off, the region is put in its place, and the months' means (NaN on land) are added
for scene, full in zip(chain.batch(4).prefetch(4, 2).predict(model, key="sst"), truth):
    field = scene.to_xarray()  # dims, coordinates, calendar and units of the file
    observed = sg.open_netcdf(name)(scene.files[0]).array
    month = climate.times(scene)
    usual = normals.mean[[date.month - 1 for date in month]]
    hidden = np.isfinite(full) & np.isnan(observed) & np.isfinite(field.values)
    error, of_month = (np.sqrt(np.mean((v - full)[hidden] ** 2)) for v in (field.values, usual))
    path = scene.save(OUT / Path(scene.name).name)
    print(f"{path}: {dict(field.sizes)}, from {month[0]} on, {field.attrs['units']}")
    print(f"  {int(hidden.sum())} pixels under clouds: error {error:.2f}, of the months' mean {of_month:.2f}")
