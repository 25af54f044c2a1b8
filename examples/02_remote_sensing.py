"""Remote sensing: Landsat bands, one file each, to a water index that lies on the map where the bands lie.

Runs on Landsat 8 from the sample folder (STREAMGEO_SAMPLES) where it is there, else on a made four-band scene.
"""

import os
from pathlib import Path

import numpy as np

import streamgeo as sg
from streamgeo import made, remote

samples, out = os.environ.get("STREAMGEO_SAMPLES"), Path("out/remote_sensing")
if samples:
    band = f"{samples}/remote_sensing/landsat8/LC08_L1TP_224077_20200518_20200518_01_RT_B{{}}.TIF"
    scenes = [[band.format(number) for number in (2, 3, 4)]]  # three files are one scene
    reflectance = remote.reflectance(scale=2e-5, offset=-0.1)
else:
    scenes = made.land(Path("scenes/land"))
    reflectance = remote.reflectance(scale=1e-4, offset=0.0)

chain = (
    sg.files(scenes, key="image")
    .key_transform("image", sg.open_geotiff())  # (band, y, x), NaN where there is no data
    .key_transform("image", reflectance)
    .key_transform("image", sg.patch(size=256, stride=192, edge="shift"))
)
print(chain.explain())

mean, count = np.zeros(1), 0
for batch in chain.shuffle(seed=0).batch(8).prefetch(4, 2):
    mean = mean + np.nansum(batch["image"], axis=(0, 2, 3))
    count += int(np.isfinite(batch["image"][:, 0]).sum())
print("mean reflectance by band:", np.round(mean / count, 3))


def index(x: np.ndarray) -> np.ndarray:
    """Normalised difference of the first and the third band: (n, 3, H, W) to (n, H, W)."""
    return (x[:, 0] - x[:, 2]) / (x[:, 0] + x[:, 2])


# the index is another quantity than the bands, so nothing is undone but the patches: inverse=[]
for scene in chain.batch(8).prefetch(4, 2).predict(index, key="image", inverse=[]):
    path = scene.save(out)
    print(f"{path}: {scene.grid.crs.to_string()}, {scene.grid.bounds}")
