"""The same chain feeds torch: arrays are numpy, and torch.from_numpy takes them without a copy.

Needs torch (pip install 'streamgeo[torch]').
"""

from pathlib import Path

import numpy as np
import torch

import streamgeo as sg
from streamgeo import made

torch.manual_seed(0)
chain = (
    sg.files(made.land(Path("scenes/land")), key="image")
    .key_transform("image", sg.open_geotiff())
    .key_transform(
        "image", sg.normalize(mean=[900.0, 960.0, 940.0, 2700.0], std=[150.0, 150.0, 170.0, 900.0])
    )
    .key_transform("image", sg.fill_nan(0.0))  # remembers where, so that the prediction gets its NaN back
    .key_transform("image", sg.patch(size=128, stride=96))
)
network = torch.nn.Sequential(
    torch.nn.Conv2d(4, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3, padding=1)
)
optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)

stream = chain.shuffle(seed=0).batch(8).prefetch(4, 2)
for epoch in range(2):
    for batch in stream:
        x = torch.from_numpy(batch["image"])  # (n, 4, 128, 128) float32
        loss = torch.nn.functional.mse_loss(network(x), x)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    print(f"epoch {epoch}: loss {loss.item():.3f}")


@torch.no_grad()
def model(x: np.ndarray) -> np.ndarray:
    """Numpy in, numpy out."""
    return network(torch.from_numpy(x)).numpy()


for scene in chain.batch(8).prefetch(4, 2).predict(model, key="image"):
    print(scene.save("out/torch/"))
