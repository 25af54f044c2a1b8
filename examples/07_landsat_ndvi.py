"""Landsat level 1 to NDVI: digital numbers, metadata and quality bits in, a map that a model predicted out.

Runs on Landsat 7 of the Great Salt Lake from the sample folder (STREAMGEO_SAMPLES) where it is there: one file, without
metadata and quality band. Else on a made scene, laid out as USGS delivers it: one file a band, QA_PIXEL, and an MTL
file, with clouds. Both have 0 where there are no data, which the files do not declare.
"""

import os
from pathlib import Path

import numpy as np

import streamgeo as sg
from streamgeo import made, remote

BANDS = {"blue": 2, "green": 3, "red": 4, "nir": 5}
samples = os.environ.get("STREAMGEO_SAMPLES")
if samples:
    files = {"image": f"{samples}/remote_sensing/localtileserver_landsat.tif"}
    opener = sg.open_geotiff(bands=[1, 2, 3, 4])
    # ETM+ of high gain: gain and bias, and the irradiance of the sun, of Chander et al. 2009, Remote Sens. Environ.
    # 113, 893, tables 4 and 5. The elevation of the sun is the same for all bands, so NDVI does not depend on it.
    gain = np.array([0.778740, 0.798819, 0.621654, 0.639764]) * np.pi / [1997, 1812, 1533, 1039]
    bias = np.array([-6.98, -7.20, -5.62, -5.74]) * np.pi / [1997, 1812, 1533, 1039]
    reflectance = remote.toa_reflectance(gain, bias, sun_elevation=60)
else:
    scene = made.landsat(Path("scenes/landsat"))
    files = {"image": [scene[f"B{band}"] for band in BANDS.values()], "quality": scene["QA_PIXEL"]}
    opener = sg.open_geotiff()  # four files are one scene (band, y, x)
    reflectance = remote.landsat(scene["MTL"], list(BANDS.values()), "reflectance")

chain = (
    sg.buffer_from_vector([files])
    .key_transform("image", opener)
    .key_transform("image", remote.nodata(0))
    .key_transform("image", reflectance)
    .key_transform("image", remote.index("NDVI", bands=list(BANDS)), "ndvi")
)
if "quality" in files:
    clouds = remote.qa_mask(["cloud", "cloud_shadow", "dilated_cloud"])
    chain = (
        chain.key_transform("quality", sg.open_geotiff(bands=1))
        .key_transform("quality", clouds, "cloud")
        .key_transform(("image", "ndvi", "cloud"), sg.patch(size=128, stride=96))
        .sample_transform(remote.masked("ndvi", "cloud"), keys=["ndvi"])
    )
else:
    chain = chain.key_transform(("image", "ndvi"), sg.patch(size=128, stride=96))
print(chain.explain())

# training: NDVI from the bands, a linear fit by normal equations, on clear pixels only
left, right = np.zeros((5, 5)), np.zeros(5)
for batch in chain.shuffle(seed=0).batch(6).prefetch(4, 2):
    known = np.abs(batch["ndvi"]) <= 1  # neither NaN nor, over dark water, a ratio of two small numbers
    x = np.vstack([np.moveaxis(batch["image"], 1, 0)[:, known], np.ones(int(known.sum()))]).astype(np.float64)
    left, right = left + x @ x.T, right + x @ batch["ndvi"][known]
weights = np.linalg.solve(left, right)


def model(x: np.ndarray) -> np.ndarray:
    """(n, 4, H, W) reflectances to (n, H, W) NDVI."""
    return np.tensordot(x, weights[:4], axes=(1, 0)) + weights[4]


# inference: the prediction is another quantity than the bands, so nothing is undone but the patches: inverse=[]
for scene in chain.batch(6).prefetch(4, 2).predict(model, key="image", inverse=[]):
    path = scene.save("out/ndvi.tif")
    ndvi = chain.scene("ndvi").array
    clear = (np.abs(ndvi) <= 1) & (chain.scene("cloud").array == 0 if "quality" in files else True)
    off = np.abs(scene.array - ndvi)[clear].mean()
    print(f"{path}: {scene.grid.crs.to_string()}, {scene.grid.bounds}")
    print(f"mean difference from NDVI itself, on {clear.mean():.0%} of the pixels: {off:.4f}")
