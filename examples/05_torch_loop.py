"""FITS to FITS with torch: training and inference on images of the Sun, and every step undone on the way back.

Open, look at the header, process, normalise, patch, model; then patches are stitched, un-normalised, un-processed, and
written with the header and the WCS of the file. Runs on SDO/AIA from the sample folder (STREAMGEO_SAMPLES) where it is
there, else on made HMI-like images. Needs torch (pip install 'streamgeo[torch]').
"""

import os
from pathlib import Path

import numpy as np
import torch

import streamgeo as sg
from streamgeo import helio, made

torch.manual_seed(0)
samples = os.environ.get("STREAMGEO_SAMPLES")
if samples:
    paths = [f"{samples}/helio/AIA20110319_105400_0171.fits"]
    good = helio.select.quality(30), helio.select.valid("wcs", "exposure", "wavelength")
    steps = [helio.exposure(), helio.aia_stretch()]  # DN to DN/s, to the range in use for 171 Angstrom
    mean, std = -0.6, 0.2
else:
    paths = made.sun(Path("scenes/sun"))
    good = helio.select.exposure(), helio.select.valid()
    steps = [helio.limb_darkening(wavelength=617.3)]
    mean, std = 53000.0, 4500.0

scenes = sg.files(paths, key="image").key_transform("image", sg.open_fits()).filter_by_attrs("image", *good)
for step in steps:
    scenes = scenes.key_transform("image", step)
scenes = scenes.key_transform("image", sg.normalize(mean, std)).key_transform("image", sg.fill_nan(0.0))
patches = sg.patch(size=64, stride=48)
chain = scenes.key_transform("image", patches)
print(chain.explain())

network = torch.nn.Sequential(
    torch.nn.Conv2d(1, 8, 5, padding=2), torch.nn.ReLU(), torch.nn.Conv2d(8, 1, 5, padding=2)
)
optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)

# training: the clean patch from a noisy one; the noise is new in each epoch
stream = chain.key_transform("image", sg.add_noise(0.3), "noisy").shuffle(seed=0).batch(16).prefetch(4, 2)
for epoch in range(2):
    losses = []
    for batch in stream:
        noisy, clean = (torch.from_numpy(batch[key])[:, None] for key in ("noisy", "image"))  # (n, 1, 64, 64)
        loss = torch.nn.functional.mse_loss(network(noisy), clean)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    print(f"epoch {epoch}: loss {np.mean(losses):.3f}")


@torch.no_grad()
def model(x: np.ndarray) -> np.ndarray:
    """(n, 64, 64) to (n, 64, 64): numpy in, numpy out; torch.from_numpy does not copy."""
    return network(torch.from_numpy(x)[:, None])[:, 0].numpy()


# inference on noisy images: un-patched, un-normalised, un-processed, NaN where it was
noisy = scenes.shuffle(seed=1).key_transform("image", sg.add_noise(0.3)).key_transform("image", patches)
for scene in noisy.batch(16).prefetch(4, 2).predict(model, key="image", blend="hann"):
    path = scene.save("out/torch/")
    observed = sg.open_fits()(scene.files).array
    alike = np.corrcoef(*(v[np.isfinite(observed)] for v in (scene.array, observed)))[0, 1]
    print(f"{path}: centre {scene.grid.wcs.wcs.crpix}, correlation with what was observed {alike:.3f}")
