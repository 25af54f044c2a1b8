"""Patches whose pixels are not read yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.meter import READ, span, step_ran, step_span
from streamgeo.naming import naming
from streamgeo.scene import Scene
from streamgeo.steps.patch import Patch
from streamgeo.together import Together
from streamgeo.window import Window

Array = NDArray[Any]


@dataclass(eq=False, slots=True)
class Unread:
    """The pixels of a patch that are not read yet: who batches them gives the place to read them to."""

    step: Patch
    scene: Scene
    window: Window

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the patch."""
        return self.window.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the scene."""
        return self.scene.dtype

    def read(self) -> Array:
        """The pixels."""
        with naming(self.step.label, file=self.scene.name, window=self.window), step_span(self.step.label):
            return self.step.read(self.scene, self.window)

    def foresee(self) -> bool:
        """Said some time before they are read; see :meth:`Scene.foresee`."""
        scene, window = self.scene, self.window
        inside = window.within(scene.dims, scene.shape)
        return scene.foresee(window if inside else window.clip(scene.dims, scene.shape))

    def noted(self, out: Array, together: Together) -> bool:
        """Have them decoded, and copied together with other patches; False where they are to be read for themselves."""
        scene, window = self.scene, self.window
        if not window.within(scene.dims, scene.shape):
            return False
        try:  # as naming() does it: what does not fail costs less without the block
            with span(READ):
                copies = scene.copies(window, out)
                noted = copies is not None and together.take(copies)
        except Exception as error:
            raise naming(self.step.label, file=scene.name, window=window).named(error) from error
        if noted:
            step_ran(self.step.label)
        return noted

    def read_into(self, out: Array) -> None:
        """The pixels, written to an array of this shape and dtype."""
        with naming(self.step.label, file=self.scene.name, window=self.window), step_span(self.step.label):
            self.step.read_into(self.scene, self.window, out)
