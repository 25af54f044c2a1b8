"""Pre-patched files: chips on disk as npy, normalised while they stream, predictions saved beside them.

Runs on the SpaceNet tiles of the sample folder (STREAMGEO_SAMPLES) where it is there, else on made chips.
"""

import os
from pathlib import Path

import numpy as np

import streamgeo as sg
from streamgeo import made

samples, chips, out = os.environ.get("STREAMGEO_SAMPLES"), Path("scenes/chips"), Path("out/chips")
chips.mkdir(parents=True, exist_ok=True)
if samples:
    tiles = np.load(f"{samples}/remote_sensing/spacenet_tiles_16x250x250x1.npy")  # (16, 250, 250, 1) uint16
else:
    rng = np.random.default_rng(0)
    tiles = np.stack([made.smooth(rng, (96, 96), 6)[..., None] * 50 + 400 for _ in range(16)]).astype(
        np.uint16
    )
for number, tile in enumerate(tiles):
    np.save(chips / f"chip_{number:02d}.npy", tile)

chain = (
    sg.files(str(chips / "*.npy"), key="image")
    .key_transform("image", sg.open_numpy())  # float32; raw=True keeps uint16
    .key_transform("image", sg.normalize(mean=float(tiles.mean()), std=float(tiles.std())))
)
print(chain)
print({key: value.shape for key, value in chain[0].items()})

for epoch in range(2):
    total = 0
    for batch in chain.shuffle(seed=epoch).batch(4).prefetch(4, 2):
        total += len(batch["image"])
    print(f"epoch {epoch}: {total} chips")


def brighter(x: np.ndarray) -> np.ndarray:
    """A tenth of a standard deviation brighter."""
    return x + 0.1


for scene in chain.batch(4).predict(brighter, key="image"):
    path = scene.save(out)
print(
    f"last one: {path}, {np.load(path).dtype}, brighter by {np.mean(np.load(path) - tiles[-1].astype(float)):.2f}"
)
