"""Heliophysics: train on patches of full-disc images, and get the prediction back as a FITS map.

Runs on SDO/AIA from the sample folder (STREAMGEO_SAMPLES) where it is there, else on made HMI-like scenes.
"""

import os
from pathlib import Path

import numpy as np

import streamgeo as sg
from streamgeo import helio, made

samples, out = os.environ.get("STREAMGEO_SAMPLES"), Path("out/heliophysics")
if samples:
    # AIA 171: DN to DN/s, then the stretch and the range in use for this channel
    paths = [f"{samples}/helio/AIA20110319_105400_0171.fits"]
    steps = [helio.exposure(), sg.stretch.signum_log(scale=0.01, mean=0.0, std=1.0)]
else:
    # continuum: take the limb darkening out
    paths = made.sun(Path("scenes/sun"))
    steps = [helio.limb_darkening(wavelength=617.3), sg.normalize(mean=53000.0, std=4500.0)]

chain = sg.files(paths, key="image").key_transform("image", sg.open_fits())
for step in steps:
    chain = chain.key_transform("image", step)
chain = chain.key_transform("image", sg.patch(size=128, stride=64))
print(chain.explain())

# training: a new order every epoch, patches read and processed on two threads
weight, bias = 0.0, 0.0
stream = chain.shuffle(seed=0).batch(16).prefetch(4, 2)
for _epoch in range(2):
    for batch in stream:
        x = batch["image"]  # (n, 128, 128) float32, NaN off the disc
        neighbours = (np.roll(x, 1, axis=-1) + np.roll(x, -1, axis=-1)) / 2
        known = np.isfinite(x) & np.isfinite(neighbours)
        error = weight * neighbours[known] + bias - x[known]
        weight -= 0.2 * np.mean(error * neighbours[known]) / (1 + np.mean(neighbours[known] ** 2))
        bias -= 0.2 * np.mean(error)


def model(x: np.ndarray) -> np.ndarray:
    """The mean of the left and right neighbours, weighed."""
    return weight * (np.roll(x, 1, axis=-1) + np.roll(x, -1, axis=-1)) / 2 + bias


# inference: stitched, un-normalised, limb darkening put back, written with the input's header and WCS
for scene in chain.batch(16).prefetch(4, 2).predict(model, key="image"):
    path = scene.save(out)
    print(f"{path}: centre at {scene.grid.wcs.wcs.crpix}, {scene.attrs.get('BUNIT', 'no unit')}")
