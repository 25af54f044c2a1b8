"""SDO/AIA: one channel made from two others, on images matched by time and brought to one frame.

The files are made here as level 1 has them: three wavelengths a few seconds apart, each with its own pointing and
scale, one of bad quality, one missing. The predicted 211 goes back to the pixels and counts of its file.
"""

from pathlib import Path

import numpy as np

import streamgeo as sg
from streamgeo import helio, made

FOLDER, KEYS, INPUTS = Path("scenes/aia"), ("171", "193", "211"), ("171", "193")
made.corona(FOLDER)

# who belongs together, from headers alone: a bad file, or a channel that is missing, leaves its time out
matched = helio.match_channels(
    {key: str(FOLDER / f"aia_{key}_*.fits") for key in KEYS}, 12.0, helio.select.quality()
)
print(matched)
for path, reason in matched.left_out.items():
    print(f"  {path}: {reason}")

chain = sg.buffer_from_vector(matched.samples)
for key in KEYS:
    chain = (
        chain.key_transform(key, sg.open_fits())
        .key_transform(key, helio.exposure())  # DN to DN/s
        .key_transform(key, helio.registration(shape=160, radius=64.0))  # disc centre, north up, one scale
        .key_transform(key, helio.differential_rotation(to="2011-03-19T10:00:00"))  # all at one time
        .key_transform(key, helio.aia_stretch())  # by the wavelength in the header
    )
chain = chain.key_transform(KEYS, sg.patch(size=40, stride=30))
training = chain.key_transform(KEYS, sg.random_flip()).key_transform(KEYS, sg.random_rot90())
print(training.explain())

# training: a linear mix of two channels, by normal equations, on the disc
left, right = np.zeros((3, 3)), np.zeros(3)
stream = training.shuffle(seed=0).batch(8).prefetch(4, 2)
for _epoch in range(2):
    for batch in stream:
        known = np.all([np.isfinite(batch[key]) for key in KEYS], axis=0)
        x = np.stack([*(batch[key][known] for key in INPUTS), np.ones(int(known.sum()))]).astype(np.float64)
        left, right = left + x @ x.T, right + x @ batch["211"][known]
weights = np.linalg.solve(left, right)


def model(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, H, W) of 171 and 193 to (n, H, W) of 211."""
    return np.float32(weights[0]) * a + np.float32(weights[1]) * b + np.float32(weights[2])


# inference on the very chain that was trained on, flips and all: each patch is turned back before it is stitched,
# then stretch, rotation, registration and exposure of 211 are undone
for scene in training.batch(8).prefetch(4, 2).predict(model, key=INPUTS, output_key="211"):
    path = scene.save("out/aia/")
    truth = sg.open_fits()(scene.files[0]).array
    disc = np.isfinite(scene.array)
    alike = np.corrcoef(scene.array[disc], truth[disc])[0, 1]
    print(f"{path}: {disc.mean():.0%} of the pixels, correlation with what was observed {alike:.2f}")
