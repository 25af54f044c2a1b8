"""The way back of one key for loops of one's own: as a plain function, and as a place that predictions are put into."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from streamgeo.answers import answers
from streamgeo.errors import ChainError, MissingKeyError
from streamgeo.links import Node
from streamgeo.plan import Place, as_scene
from streamgeo.replay import place_of
from streamgeo.scene import Scene
from streamgeo.steps.stitch import Blend, check_blend
from streamgeo.stitcher import Settings, Stitcher
from streamgeo.wayback import fit, undo_batch, undo_sample, way_back
from streamgeo.window import Window

Array = NDArray[Any]
LOG = logging.getLogger("streamgeo")


class Inverse:
    """The way back of one key as a plain function on arrays; see :meth:`__call__`.

    Args:
        node: the chain.
        key: whose steps are undone.
        blend: weights where patches overlap, as in :meth:`streamgeo.chain.Chain.predict`.
        fill: value of pixels that no patch covers; None makes them an error.
    """

    def __init__(self, node: Node, key: str, blend: Blend = "mean", fill: float | None = None) -> None:
        self.node, self.key = node, key
        self.way = way_back(node, key)
        self.settings = Settings(check_blend(blend), fill=fill)
        self._known = bool(self.way.scene or self.way.sample or self.way.batch)

    def __repr__(self) -> str:
        stages = [*self.way.batch[::-1], *self.way.sample[::-1], *self.way.scene[::-1]]
        return (
            f"Inverse({self.key!r}: {' -> '.join(stage.step.label for stage in stages) or 'nothing to undo'})"
        )

    def __call__(self, values: Any, sample: Mapping[str, Array] | int = 0) -> Array:
        """Take predictions back to physical values of a scene.

        Args:
            values: predictions of all patches of one scene, ``(n, ...)``; or the array of a whole scene.
            sample: the batch (or several, concatenated by key) that the predictions belong to, which says by
                ``<key>.scene`` and ``<key>.window`` where they lie, in any order. Or the number of the scene,
                when the patches are all there in the order of the chain.

        Raises:
            ChainError: when patches are missing, or come from several scenes; for a batch of a chain that moves
                pixels at random before they are patched.
        """
        return self.scene(values, sample).array

    def scene(self, values: Any, sample: Mapping[str, Array] | int = 0) -> Scene:
        """The same as a :class:`~streamgeo.Scene`, with grid and header, that can be saved."""
        array = np.asarray(values)
        if self.way.patch is None and not self.way.opened:
            self._check_key()
            array = undo_sample(self.way, undo_batch(self.way, array, {}), None, {})
            return as_scene(array, self.key)
        residuals: Mapping[str, Array] = {}
        if isinstance(sample, Mapping):
            self.way.need_first_epoch("inverse", "use predict")
            residuals = sample
        array = undo_batch(self.way, array, residuals)
        place = place_of(self.node, self.key, self._number(sample))
        stitcher = Stitcher(self.way, self.settings)
        if self.way.patch is None or array.ndim == len(place.scene.dims):
            array = array[0] if array.ndim == len(place.scene.dims) + 1 and len(array) == 1 else array
            adapt = fit(
                array.shape, place.scene.dims, place.scene.shape, self.way.cut(place.scene.grid), "inverse"
            )
            return stitcher.finish(array, place, adapt)
        windows = self._windows(sample, place)
        if len(windows) != len(array):
            raise ChainError(
                f"inverse: {len(array)} patches for {len(windows)} windows of {place.scene.name}"
            )
        result = None
        for number, (row, window) in enumerate(zip(array, windows)):
            result = self.put(stitcher, row, cut_out(place, window), residuals, number) or result
        result = next(stitcher.close(), result)
        assert result is not None
        return result

    def put(
        self, stitcher: Stitcher, values: Array, place: Place, sample: Mapping[str, Array], number: int
    ) -> Scene | None:
        """Prediction ``number`` of a batch, taken back to where it was cut, into its scene."""
        kept = {name: value[number] for name, value in sample.items() if ".residual." in name}
        return stitcher.put(undo_sample(self.way, values, place, kept), place)

    def to(self, where: str | Path, **options: Any) -> Sink:
        """A place that predictions are put into, batch by batch; finished scenes are saved in the folder ``where``.

        Args:
            where: a folder, made if it is not there.
            options: of :meth:`Scene.save`, such as ``format=`` and ``compress=``.
        """
        return Sink(self, where, options)

    def _check_key(self) -> None:
        """Refuse a key that no step has made and no sample has."""
        if self.node.indexable and not self._known:
            place_of(self.node, self.key, 0)
            self._known = True

    def _number(self, sample: Mapping[str, Array] | int) -> int:
        if not isinstance(sample, Mapping):
            return int(sample)
        numbers = np.unique(numbers_of(sample, self.key, "inverse"))
        if numbers.size != 1:
            raise ChainError(
                f"inverse: the patches come from {numbers.size} scenes; give those of one, or use predict"
            )
        return int(numbers[0])

    def _windows(self, sample: Mapping[str, Array] | int, place: Place) -> list[Window]:
        if isinstance(sample, Mapping):
            return windows_of(sample, self.key, place.scene)
        assert self.way.patch is not None
        layout = self.way.patch.layout(place.scene.grid, place.scene.name)
        return [layout[number] for number in range(len(layout))]


class Sink:
    """Where predictions of a loop of one's own are put; scenes are saved as soon as they are whole.

    >>> chain = buffer_from_vector([{"x": np.arange(4.0)}]).key_transform("x", patch(2)).batch(1)
    >>> with tempfile.TemporaryDirectory() as folder, chain.inverse("x").to(folder) as sink:
    ...     for batch in chain:
    ...         sink.put(batch)
    ...     [scene.array.tolist() for scene in sink.finished()]
    [[0.0, 1.0, 2.0, 3.0]]
    """

    def __init__(self, inverse: Inverse, where: str | Path, options: Mapping[str, Any]) -> None:
        inverse.way.need_one_batch("inverse")
        inverse.way.need_first_epoch("inverse", "use predict")
        self._inverse, self._where, self._options = inverse, Path(where), dict(options)
        if self._where.exists() and not self._where.is_dir():
            raise ChainError(f"inverse: {where} is a file; give a folder")
        self._stitcher = Stitcher(inverse.way, inverse.settings)
        self._finished: deque[Scene] = deque()
        self._places: dict[int, Place] = {}
        self._whole: set[int] = set()
        self._late = 0  # predictions for scenes that were whole already
        self._closed = False

    def put(self, batch: Mapping[str, Any], values: Any = None) -> None:
        """Predictions of a batch, or of one sample of a chain that is not batched.

        Args:
            batch: as it came from the chain, in any order; under the key may stand the predictions. Patches that
                come again are left out; close() warns when their scene was whole already.
            values: the predictions, where they do not stand there.

        Raises:
            MissingKeyError: when the batch does not say by ``<key>.scene`` and ``<key>.window`` where it lies.
            ChainError: after :meth:`close`, and for a batch of another length.
        """
        if self._closed:
            raise ChainError("inverse: put after close; make another sink")
        way, key = self._inverse.way, self._inverse.key
        if values is None and isinstance(batch, Mapping) and key not in batch:
            raise MissingKeyError(
                f"put: the batch has no {key!r}; put the predictions there, or give values="
            )
        numbers = numbers_of(batch, key, "put")
        way.need_cut("put")
        (array,) = answers(batch[key] if values is None else values).values()
        if not numbers.ndim:
            batch = {name: np.asarray(value)[np.newaxis] for name, value in batch.items()}
            array, numbers = array[np.newaxis], numbers[np.newaxis]
        else:
            array = undo_batch(way, array, batch)
        if len(array) != len(numbers):
            raise ChainError(f"put: {len(array)} predictions for a batch of {len(numbers)}")
        for number, index in enumerate(numbers.tolist()):
            if index in self._whole:
                self._late += 1
                continue
            place = self._place(index)
            window = windows_of({k: v[number] for k, v in batch.items()}, key, place.scene)[0]
            scene = self._inverse.put(self._stitcher, array[number], cut_out(place, window), batch, number)
            if scene is not None:
                self._whole.add(index)
                self._save(scene)
                del self._places[index]

    def finished(self) -> Iterator[Scene]:
        """The scenes that were finished, and saved, since it was last asked."""
        while self._finished:
            yield self._finished.popleft()

    def close(self) -> None:
        """Nothing more will come; doing it again changes nothing.

        Raises:
            ChainError: when a scene is incomplete and no ``fill`` was given; the message names what it misses.
        """
        if self._closed:
            return
        self._closed = True
        if self._late:
            LOG.warning(
                "put: left out %d predictions that came again after their scene was whole", self._late
            )
        for scene in self._stitcher.close():
            self._save(scene)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._closed = self._closed or kind is not None  # an error is not hidden by what it left incomplete
        self.close()

    def _save(self, scene: Scene) -> None:
        self._where.mkdir(parents=True, exist_ok=True)
        scene.save(f"{self._where}/", **self._options)
        self._finished.append(scene)

    def _place(self, index: int) -> Place:
        if index not in self._places:
            self._places[index] = place_of(self._inverse.node, self._inverse.key, index)
        return self._places[index]


def numbers_of(sample: Mapping[str, Any], key: str, what: str) -> Array:
    """The numbers of the scenes that a batch comes from.

    Raises:
        MissingKeyError: when it does not tell.
    """
    if not isinstance(sample, Mapping):
        raise ChainError(
            f"{what}: this is {type(sample).__name__} and no batch; give the dict that the chain gave"
        )
    for name in (f"{key}.scene", f"{key}.window"):
        if name not in sample:
            raise MissingKeyError(f"{what}: the sample has no {name!r}; give the batch as it came")
    return np.asarray(sample[f"{key}.scene"])


def windows_of(sample: Mapping[str, Any], key: str, scene: Scene) -> list[Window]:
    """The windows of a batch."""
    boxes = np.asarray(sample[f"{key}.window"]).reshape(-1, len(scene.dims), 2)
    return [Window.from_array(scene.dims, box) for box in boxes]


def cut_out(place: Place, window: Window) -> Place:
    """The place of a patch of a scene."""
    return replace(place, window=window, locate=partial(place.scene.grid.crop, window))
