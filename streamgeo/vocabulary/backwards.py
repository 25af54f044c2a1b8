"""The way back: predictions to scenes and files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from streamgeo.inverse import Inverse
from streamgeo.plan import Run
from streamgeo.predict import Inverses, Model, Wanted, Watch, predict
from streamgeo.steps.stitch import Blend
from streamgeo.tta import Turn
from streamgeo.vocabulary.base import Described, Key


class Backwards(Described):
    """A chain read backwards."""

    def inverse(self, key: str, *, blend: Blend = "mean", fill: float | None = None) -> Inverse:
        """The way back of ``key`` for your own loop: a function on arrays, or by ``.to(folder)`` a sink for batches.

        >>> chain = buffer_from_vector([{"x": np.arange(4.0)}]).key_transform("x", patch(2))
        >>> chain.inverse("x")(np.stack([sample["x"] * 10 for sample in chain])).tolist()
        [0.0, 10.0, 20.0, 30.0]

        Raises:
            InverseError: when a step of the key has no inverse; the message names it.
        """
        return Inverse(self.node, key, blend, fill)

    def predict(
        self,
        model: Model,
        key: Key = "image",
        output_key: str | None = None,
        *,
        inverse: Inverses = None,
        blend: Blend = "mean",
        fill: float | None = None,
        decide: str | None = None,
        tta: Sequence[Turn] = (),
        to: str | Path | None = None,
        resume: bool = True,
        **options: Any,
    ) -> Iterator[Any]:
        """Run a model over the chain and give back finished scenes, each as soon as its last patch has come.

        The model gets the array under ``key`` (a batch ``(n, ...)`` when the chain is batched) and returns one of
        the same leading size, or a dict of several; then each result is a :class:`Scenes`, a dict of scenes. It may
        change the number of bands, the dtype, the resolution by a rational factor, or give one value (or one vector)
        a patch, as a classifier does: the grid follows. Its output is taken back by the inverse of every step of the
        key, last to first, and stitched where the chain patched.

        A strip of a scene is finished when no patch that touches it is missing; it is taken back and put away at
        once (in a file where a scene is larger than 256 MiB), so in the order of the chain no more than two rows of
        patches are open. Steps whose inverse needs the scene as a whole wait for its end; ``explain()`` names them.

        Args:
            model: function of arrays (numpy in, anything numpy can read out).
            key: what the model gets; several keys are several arguments.
            output_key: the key whose steps take the output back, when the model makes another quantity.
            inverse: steps (in the order of a chain) or functions that take the output back instead, or a dict of
                these by the names of outputs. A standard deviation, say, is scaled back but not shifted.
            blend: weights on overlaps: ``"mean"``, ``"hann"``, ``"cosine"``, ``"gaussian"``; ``"crop"`` takes each
                pixel from the patch in which it lies deepest; or an array of the size of a patch.
            fill: value of pixels that no patch covers, or whose patch never came; None makes them an error.
            decide: ``"argmax"`` makes of class probabilities ``(class, y, x)``, once they are blended, the number of
                the most probable class: uint8, 255 where they are NaN.
            tta: test-time augmentation: the mean answer over orientations, ``sg.d4()`` or ``sg.flips()``.
            to: a folder in which every scene is saved as soon as it is whole. What is finished so far is noted there
                every two seconds, and a prediction that was interrupted goes on when it is called again: scenes that
                were saved are not given again. The model must be the same; nobody can check that.
            resume: False starts anew.
            options: of :meth:`Scene.save`, such as ``format=`` and ``compress=``, with ``to``.

        Raises:
            InverseError: at once, when a step has no inverse; the message names it.
            ChainError: at the end, when a scene did not get all its patches; it names the first that are missing.
                Also when ``to`` holds an interrupted prediction of another chain, or another process predicts there.
        """
        keys = (key,) if isinstance(key, str) else tuple(key)
        wanted = Wanted(keys, output_key or keys[0], inverse, blend, fill, decide, tta)
        run, watch = self._passing()
        return predict(self.node, run, model, wanted, watch=watch, to=to, resume=resume, options=options)

    def _passing(self) -> tuple[Run, Watch | None]:
        """The first epoch, and who counts the samples that are skipped."""
        return Run(self.node.seed, 0), None
