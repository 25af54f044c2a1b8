"""A scene that is worked out window by window, larger than what a test may keep in memory; and how it is saved alone.

Run as ``python -m tests.ramp path rows columns options``: it prints by how many MB saving it raised the memory.
"""

from __future__ import annotations

import resource
import sys
import warnings
from pathlib import Path

import numpy as np

from streamgeo.grid import Grid
from streamgeo.locate import GeoLocator
from streamgeo.scene import Scene
from streamgeo.template import Template
from streamgeo.window import Window

UTM = GeoLocator((10.0, 0.0, 500000.0, 0.0, -10.0, 5100000.0), "EPSG:32633")


class Ramp(Scene):
    """Pixels that tell where they are; every window that is read is noted."""

    reads_files = False

    def __init__(
        self, shape, dtype="f4", *, locator=UTM, fails_at=None, dims=("band", "y", "x"), template=None
    ):
        self.name, self.shape, self.dtype = "ramp", tuple(shape), np.dtype(dtype)
        self.dims = dims[-len(shape) :]
        self._grid, self._fails_at, self.seen = Grid.of(self.dims, self.shape, locator), fails_at, []
        self._template = template or Template("numpy", self.dims, name="ramp", units="K")

    @property
    def grid(self):
        return self._grid

    @property
    def template(self):
        return self._template

    def _read(self, window: Window):
        if self._fails_at is not None and window["y"].stop > self._fails_at:
            raise ValueError(f"the model stopped at row {self._fails_at}")
        self.seen.append(window)
        out = np.zeros(window.shape, self.dtype)
        for axis, (part, factor) in enumerate(zip(window.values(), (7, 3, 1)[-len(self.shape) :])):
            line = (np.arange(part.start, part.stop) * factor % 101).astype(self.dtype)
            out += line.reshape([-1 if i == axis else 1 for i in range(out.ndim)])
        return out


def _peak() -> float:
    value = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return value / 1e6 if sys.platform == "darwin" else value / 1e3


def main(path: str, rows: str, columns: str, options: str = "{}") -> None:
    warnings.simplefilter("ignore")
    chosen = eval(options)
    target = Path(path)
    Ramp((300, 300)).save(target.with_name(f"small{target.suffix}"), **chosen)  # loads the libraries
    before = _peak()
    Ramp((int(rows), int(columns))).save(target, **chosen)
    print(_peak() - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
