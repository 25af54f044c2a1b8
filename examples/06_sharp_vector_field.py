"""HMI SHARP: the three components of the vector field in one scene, denoised patch by patch, back as a FITS file.

Runs on SHARP 377 of 15 February 2011 from the sample folder (STREAMGEO_SAMPLES) where it is there, else on made files
that are laid out like it. The way back gives Mx/cm^2 in cylindrical equal area (CEA) coordinates.
"""

import os
from pathlib import Path

import numpy as np

import streamgeo as sg
from streamgeo import helio, made

COMPONENTS, SPREAD, NOISE = ("Bp", "Bt", "Br"), [200.0, 180.0, 275.0], 0.3
samples, folder = os.environ.get("STREAMGEO_SAMPLES"), Path("scenes/sharp")
if samples:
    folder = Path(samples) / "helio/sharp_377"
else:
    made.sharp(folder)

# components of one time, by their headers alone
good = helio.select.quality(absent=True)
times = helio.match_channels({name: str(folder / f"*.{name}.fits") for name in COMPONENTS}, 1.0, good)
print(times, dict(times.left_out))

scenes = (
    sg.files(times, key="field")
    .key_transform("field", sg.open_fits())  # three files are one scene (file, y, x)
    .key_transform("field", sg.normalize(mean=[0.0] * 3, std=SPREAD))
    .key_transform("field", sg.fill_nan(0.0))  # off the limb
)
patches = sg.patch(size=64, stride=48)
training = (
    scenes.key_transform("field", patches)
    .key_transform("field", sg.add_noise(NOISE), "noisy")
    .key_transform(("noisy", "field"), sg.random_crop(56))  # the same window for both
)


def features(x: np.ndarray) -> np.ndarray:
    """(n, 3, H, W) to (n, 27, H, W): each component at a pixel and at its eight neighbours."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    ny, nx = x.shape[2:]
    return np.concatenate([padded[:, :, j : j + ny, i : i + nx] for j in range(3) for i in range(3)], axis=1)


# training: the clean field from the noisy one, linear, by normal equations; noise and windows are new in each epoch
left, right = np.zeros((27, 27)), np.zeros((27, 3))
stream = training.shuffle(seed=0).batch(8).prefetch(4, 2)
for _epoch in range(3):
    for batch in stream:
        x = np.moveaxis(features(batch["noisy"]), 1, 0).reshape(27, -1).astype(np.float64)
        left, right = left + x @ x.T, right + x @ np.moveaxis(batch["field"], 1, 0).reshape(3, -1).T
weights = np.linalg.solve(left, right)


def model(x: np.ndarray) -> np.ndarray:
    """(n, 3, H, W) to (n, 3, H, W)."""
    return np.moveaxis(np.tensordot(features(x), weights, axes=(1, 0)), -1, 1)


# inference on scenes with noise of another seed: stitched, in Mx/cm^2 again, NaN where it was
noisy = scenes.shuffle(seed=1).key_transform("field", sg.add_noise(NOISE))
inference = noisy.key_transform("field", patches)
for scene in inference.batch(8).prefetch(4, 2).predict(model, key="field", blend="hann"):
    path = scene.save("out/sharp/denoised.fits")
    clean = sg.open_fits()(scene.files).array
    print(f"{path}: {scene.grid.sizes}, {list(scene.grid.wcs.wcs.ctype)}, centre {scene.grid.wcs.wcs.crval}")
    for name, spread, error in zip(COMPONENTS, SPREAD, np.nanstd(scene.array - clean, axis=(1, 2))):
        print(f"{name}: noise of {NOISE * spread:.0f} Mx/cm^2 before, {error:.0f} after")
