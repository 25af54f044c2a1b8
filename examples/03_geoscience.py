"""Geoscience: monthly fields to anomalies, a model on patches, and back to NetCDF with its coordinates.

Runs on ERA-Interim winds from the sample folder (STREAMGEO_SAMPLES) where it is there, else on made sea surface
temperature.
"""

import os
from pathlib import Path

import numpy as np

import streamgeo as sg
from streamgeo import climate, made

samples, out = os.environ.get("STREAMGEO_SAMPLES"), Path("out/geoscience")
if samples:
    paths, opener = [f"{samples}/geoscience/eraint_uvz.nc"], sg.open_netcdf(variable=["u", "v"])
else:
    paths, opener = made.sea(Path("scenes/sea")), sg.open_netcdf(variable="sst")

first = opener(paths[0])
print(first, first.grid)
climatology = np.nanmean(first.array, axis=tuple(range(first.array.ndim - 2)))  # (lat, lon)

chain = (
    sg.files(paths, key="image")
    .key_transform("image", opener)
    .key_transform("image", climate.anomaly(climatology))
    .key_transform("image", sg.normalize(mean=0.0, std=float(np.nanstd(first.array - climatology))))
    .key_transform("image", sg.patch(size=64, stride=32))
)
print(chain.explain().splitlines()[-1])

for batch in chain.shuffle(seed=0).batch(4).prefetch(4, 2):
    assert batch["image"].dtype == np.float32  # training goes here; NaN where there are no data


def smooth(x: np.ndarray) -> np.ndarray:
    """Mean of a pixel and its neighbours to the north and south."""
    return (np.roll(x, 1, axis=-2) + x + np.roll(x, -1, axis=-2)) / 3


for scene in chain.batch(4).prefetch(4, 2).predict(smooth, key="image"):
    path = scene.save(out)
    print(f"{path}: {dict(zip(scene.dims, scene.shape))}, {scene.template.units}, {scene.grid.bounds}")
