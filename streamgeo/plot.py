"""Pictures, for people who would rather look than read. Needs the extra ``streamgeo[plot]``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import StreamGeoError
from streamgeo.optional import optional
from streamgeo.sinks.beside import beside

Array = NDArray[Any]


def triptych(path: Path, panels: Sequence[tuple[str, Array]], title: str, units: str = "") -> Path:
    """Save input, prediction and their difference beside each other as a PNG.

    Args:
        path: the PNG file.
        panels: three (caption, array ``(H, W)``); the first two share a colour scale, the third is centred on
            zero. NaN is grey.
        title, units: heading, and the unit at the colour bars.

    Raises:
        StreamGeoError: when matplotlib is not installed.
    """
    matplotlib = optional("matplotlib", "plot", "plot", error=StreamGeoError)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.2), layout="constrained")
    finite = np.concatenate([array[np.isfinite(array)].ravel() for _, array in panels[:2]])
    low, high = np.percentile(finite, [1, 99]).tolist() if finite.size else (0.0, 1.0)
    for number, (axes, (caption, array)) in enumerate(zip(figure.subplots(1, 3), panels)):
        if number == 2:
            known = np.abs(array[np.isfinite(array)])
            reach = float(np.percentile(known, 99)) if known.size else 1.0
            colours = matplotlib.colormaps["RdBu_r"].with_extremes(bad="0.6")
            image = axes.imshow(array, cmap=colours, vmin=-reach, vmax=reach, interpolation="nearest")
        else:
            colours = matplotlib.colormaps["viridis"].with_extremes(bad="0.6")
            image = axes.imshow(array, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
        axes.set_title(caption)
        axes.set_xticks([])
        axes.set_yticks([])
        figure.colorbar(image, ax=axes, shrink=0.8, label=units)
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as partial:
        figure.savefig(partial, dpi=110, format="png")
    return path
