"""A classifier's coarse map: one answer a patch becomes one pixel, in its place on the map.

The classes are found by k-means on the mean and the spread of each band in each patch. Runs on Landsat 8 from the
sample folder (STREAMGEO_SAMPLES) where it is there, else on made four-band scenes.
"""

import os
from pathlib import Path

import numpy as np

import streamgeo as sg
from streamgeo import made

CLASSES, SIZE, STRIDE = 4, 32, 16
samples = os.environ.get("STREAMGEO_SAMPLES")
if samples:
    band = f"{samples}/remote_sensing/landsat8/LC08_L1TP_224077_20200518_20200518_01_RT_B{{}}.TIF"
    scenes = [[band.format(number) for number in (2, 3, 4)]]  # three files are one scene
else:
    scenes = made.land(Path("scenes/land"), shape=(512, 640))

chain = (
    sg.files(scenes, key="image")
    .key_transform("image", sg.open_geotiff())
    .key_transform("image", sg.normalize(mean=9000.0 if samples else 2000.0, std=1000.0))
    .key_transform("image", sg.patch(size=SIZE, stride=STRIDE, edge="pad"))
)
print(chain.explain())


def features(x: np.ndarray) -> np.ndarray:
    """(n, band, y, x) to (n, 2 band): mean and spread of what is known; NaN where a patch is all unknown."""
    known = np.isfinite(x)
    count = np.maximum(known.sum(axis=(2, 3)), 1)
    mean = np.where(known, x, 0).sum(axis=(2, 3)) / count
    spread = np.sqrt((np.where(known, x - mean[:, :, None, None], 0) ** 2).sum(axis=(2, 3)) / count)
    return np.where(known.any(axis=(2, 3)).repeat(2, axis=1), np.concatenate([mean, spread], axis=1), np.nan)


# training: k-means over one epoch of patches
seen = np.concatenate([features(batch["image"]) for batch in chain.shuffle(seed=0).batch(64).prefetch(4, 2)])
seen = seen[np.isfinite(seen).all(axis=1)]
centres = seen[np.argsort(seen[:, 0])[np.linspace(0, len(seen) - 1, CLASSES).astype(int)]]
for _ in range(20):
    nearest = np.argmin(((seen[:, None] - centres) ** 2).sum(axis=-1), axis=1)
    centres = np.stack(
        [seen[nearest == i].mean(axis=0) if (nearest == i).any() else centres[i] for i in range(CLASSES)]
    )


def model(x: np.ndarray) -> np.ndarray:
    """(n, band, y, x) to (n, class) probabilities: one vector a patch."""
    distance = ((features(x)[:, None] - centres) ** 2).sum(axis=-1)
    closeness = np.exp(-(distance - distance.min(axis=1, keepdims=True)))
    return (closeness / closeness.sum(axis=1, keepdims=True)).astype(np.float32)


# inference: classes are no reflectances, so nothing is undone: inverse=[]
for scene in chain.batch(64).prefetch(4, 2).predict(model, inverse=[], decide="argmax", to="out/classes"):
    labels, shares = np.unique(scene.array, return_counts=True)
    shown = ", ".join(f"{label}: {share / scene.array.size:.0%}" for label, share in zip(labels, shares))
    print(f"{scene.name}: {scene.shape[0]} x {scene.shape[1]} patches; {shown} (255: no data)")
    before, after = chain.scene("image", 0).grid, scene.grid
    print(f"a pixel is {after.affine[0]:g} m wide, {STRIDE} of the {before.affine[0]:g} m of the scene")
