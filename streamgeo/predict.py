"""A model over a chain: predictions back to whole scenes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import ChainError, MissingKeyError, StepError
from streamgeo.links import Node, epoch
from streamgeo.plan import Item, Place, Run, as_scene, grid_of
from streamgeo.replay import place_of
from streamgeo.scene import Scene
from streamgeo.step import Step
from streamgeo.steps.stitch import Canvas, check_blend
from streamgeo.wayback import Fit, WayBack, fit, undo_batch, undo_given, undo_sample, undo_scene, way_back
from streamgeo.window import Window

Array = NDArray[Any]
Model = Callable[..., Any]
Steps = Step | Callable[..., Any] | Sequence[Step | Callable[..., Any]] | None


@dataclass
class _Pending:
    """A scene in flight: its canvas, and which windows have come."""

    place: Place
    windows: int
    fit: Fit
    canvas: Canvas
    seen: set[tuple[int, ...]] = field(default_factory=set)


@dataclass
class Stitcher:
    """Puts predictions of patches into their scenes and gives back each scene when it is whole."""

    way: WayBack
    blend: str = "mean"
    steps: Sequence[Step] | None = None
    pending: dict[int, _Pending] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)

    def put(self, values: Array, place: Place) -> Scene | None:
        """One prediction; the finished scene when it was the last one missing."""
        entry = self.pending.get(place.index)
        if entry is None:
            entry = self.pending[place.index] = self._begin(values, place)
        found = self._fit(values, place)
        if found != entry.fit:
            raise StepError(
                f"predict: the model returned shape {values.shape} for one patch of {place.scene.name} and another "
                "shape for an earlier one"
            )
        start = [part.start for part in place.window.values()]
        entry.canvas.put(values, self._scaled(start, place, entry.fit))
        entry.seen.add(tuple(start))
        if len(entry.seen) < entry.windows:
            return None
        del self.pending[place.index]
        return self.finish(entry.canvas.result(), place, entry.fit)

    def finish(self, values: Array, place: Place, adapt: Fit) -> Scene:
        """The inverses of the steps before patch."""
        if self.steps is not None:
            scene = undo_given(self.steps, values, place, adapt, self.way)
        else:
            scene = undo_scene(self.way, values, place, adapt)
        scene.name = self._own_name(scene.name, scene.files, place.index)
        return scene

    def _own_name(self, name: str, paths: Sequence[str], index: int) -> str:
        """The file name, with its folder or a number before it when another scene has the same name already.

        Files of one name from several folders, saved to one folder, must not replace each other.
        """
        base = Path(name).name
        folder = Path(paths[0]).absolute().parent.name if paths else str(index)
        for own in (base, f"{folder}_{base}", f"{index}_{folder}_{base}"):
            if self.names.setdefault(own, index) == index:
                break
        return own

    def close(self) -> None:
        """Raise for scenes that did not get all their patches."""
        if self.pending:
            entry = next(iter(self.pending.values()))
            more = f" (and {len(self.pending) - 1} more scenes)" if len(self.pending) > 1 else ""
            raise ChainError(
                f"predict: {entry.place.scene.name} got {len(entry.seen)} of {entry.windows} patches{more}; the stream "
                "left some out (drop_last, a slice, partition or shard), so it cannot be stitched"
            )

    def cut_dims(self, place: Place) -> tuple[str, ...]:
        """The dims that were patched; the horizontal ones where the scene was not."""
        if self.way.patch is None:
            return place.scene.grid.spatial
        layout = self.way.patch.layout(place.scene.grid, place.scene.name)
        return tuple(layout.dims[axis] for axis in layout.patched)

    def _fit(self, values: Array, place: Place) -> Fit:
        window = place.window
        return fit(
            values.shape, window.dims, window.shape, self.cut_dims(place), f"predict: {place.scene.name}"
        )

    def _begin(self, values: Array, place: Place) -> _Pending:
        adapt = self._fit(values, place)
        grid = adapt.grid(place.scene.grid)
        cut = self.cut_dims(place)
        windows = 1 if self.way.patch is None else len(self.way.patch.layout(place.scene.grid))
        axes = [grid.dims.index(dim) for dim in cut]
        return _Pending(place, windows, adapt, Canvas(grid.shape, values.dtype, axes, self.blend))

    def _scaled(self, start: Sequence[int], place: Place, adapt: Fit) -> list[int]:
        """First pixel of a patch in the output's own pixels."""
        grid = adapt.grid(place.scene.grid)
        starts = dict(zip(place.window.dims, start))
        out = []
        for dim in grid.dims:
            at = starts.get(dim, 0) * adapt.scale.get(dim, 1)
            if at != int(at):
                raise StepError(
                    f"predict: a patch of {place.scene.name} starts at {dim}={starts[dim]}, which the model's factor "
                    f"{adapt.scale[dim]} does not divide; choose size and stride as multiples of it, and "
                    'edge="pad" or "drop"'
                )
            out.append(int(at))
        return out


def predict(
    node: Node,
    run: Run,
    model: Model,
    key: str | Sequence[str],
    output_key: str | None,
    *,
    inverse: Steps = None,
    blend: str = "mean",
) -> Iterator[Scene]:
    """See :meth:`streamgeo.chain.Chain.predict`; everything that can be checked is checked at once."""
    keys = (key,) if isinstance(key, str) else tuple(key)
    target = output_key or keys[0]
    if not callable(model):
        raise ChainError(f"predict: {model!r} is not a function")
    steps = None if inverse is None else _as_steps(inverse)
    way = way_back(node, target, check=steps is None)
    if way.batches > 1:
        raise ChainError("predict: the chain has batches of batches; batch once")
    return _predict(node, run, model, keys, Stitcher(way, check_blend(blend), steps))


def _predict(node: Node, run: Run, model: Model, keys: Sequence[str], stitcher: Stitcher) -> Iterator[Scene]:
    from tqdm import tqdm

    total = len(node) if node.parent is not None and _sized(node) else None
    progress = tqdm(total=total, desc="predict", unit="batch", delay=2, disable=None, leave=False)
    with progress:
        for ready in epoch(node, run):
            outputs = _outputs(model, ready.sample, keys, stitcher.way, ready.item)
            for part, values in outputs:
                scene = stitcher.put(values, _place(part, stitcher.way, values))
                if scene is not None:
                    yield scene
            progress.update()
    stitcher.close()


def _sized(node: Node) -> bool:
    try:
        len(node)
    except TypeError:
        return False
    return True


def _outputs(
    model: Model, sample: Mapping[str, Array], keys: Sequence[str], way: WayBack, item: Item
) -> list[tuple[Item, Array]]:
    """The model's output for each sample of a batch (or for the one sample), after the steps since patch."""
    missing = [key for key in (*keys, way.key) if key not in sample]
    if missing:
        raise MissingKeyError(f"predict: no key {missing[0]!r} in the sample; it has {sorted(sample)}")
    made = np.asarray(model(*(sample[key] for key in keys)))
    if made.dtype.kind in "OV":
        raise StepError("predict: the model must return one array of numbers")
    parts = item.parts if way.batches else [item]
    if way.batches and (made.ndim == 0 or len(made) != len(parts)):
        raise StepError(f"predict: the model returned shape {made.shape} for a batch of {len(parts)}")
    made = undo_batch(way, made, item.residuals) if way.batches else made
    rows = list(made) if way.batches else [made]
    return [
        (part, undo_sample(way, np.asarray(values), part.places.get(way.key), part.residuals))
        for part, values in zip(parts, rows)
    ]


def _place(item: Item, way: WayBack, values: Array) -> Place:
    place = item.places.get(way.key)
    if place is not None:
        return place
    scene = as_scene(values, f"{way.key}_{item.index}")
    return Place(scene, item.index, scene.window, partial(grid_of, scene))


def _as_steps(inverse: Steps) -> list[Step]:
    given = list(inverse) if isinstance(inverse, Sequence) else [inverse]
    steps = [entry if isinstance(entry, Step) else Step(_same, entry) for entry in given]
    for step in steps:
        step.need_inverse()
    return steps


def _same(x: Array) -> Array:
    return x


class Inverse:
    """The way back of one key as a plain function on arrays; see :meth:`__call__`."""

    def __init__(self, node: Node, key: str) -> None:
        self.node, self.key = node, key
        self.way = way_back(node, key)

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
            array = undo_sample(self.way, undo_batch(self.way, array, {}), None, {})
            return as_scene(array, self.key)
        residuals: Mapping[str, Array] = {}
        if not isinstance(sample, int):
            self.way.need_first_epoch("inverse", "use predict")
            residuals = sample
        array = undo_batch(self.way, array, residuals)
        place = place_of(self.node, self.key, self._number(sample))
        stitcher = Stitcher(self.way)
        if self.way.patch is None or array.ndim == len(place.scene.dims):
            array = array[0] if array.ndim == len(place.scene.dims) + 1 and len(array) == 1 else array
            adapt = fit(array.shape, place.scene.dims, place.scene.shape, stitcher.cut_dims(place), "inverse")
            return stitcher.finish(array, place, adapt)
        windows = self._windows(sample, place)
        if len(windows) != len(array):
            raise ChainError(
                f"inverse: {len(array)} patches for {len(windows)} windows of {place.scene.name}"
            )
        result = None
        for number, (row, window) in enumerate(zip(array, windows)):
            here = Place(
                place.scene, place.index, window, partial(_crop, place.scene, window), place.residuals
            )
            kept = {name: value[number] for name, value in residuals.items() if ".residual." in name}
            result = stitcher.put(undo_sample(self.way, row, here, kept), here) or result
        stitcher.close()
        assert result is not None
        return result

    def _number(self, sample: Mapping[str, Array] | int) -> int:
        if isinstance(sample, int):
            return sample
        if f"{self.key}.scene" not in sample:
            raise MissingKeyError(
                f"inverse: the sample has no {self.key + '.scene'!r}; give the batch as it came"
            )
        numbers = np.unique(sample[f"{self.key}.scene"])
        if numbers.size != 1:
            raise ChainError(
                f"inverse: the patches come from {numbers.size} scenes; give those of one, or use predict"
            )
        return int(numbers[0])

    def _windows(self, sample: Mapping[str, Array] | int, place: Place) -> list[Window]:
        if not isinstance(sample, int):
            boxes = np.asarray(sample[f"{self.key}.window"]).reshape(-1, len(place.scene.dims), 2)
            return [Window.from_array(place.scene.dims, box) for box in boxes]
        assert self.way.patch is not None
        layout = self.way.patch.layout(place.scene.grid, place.scene.name)
        return [layout[number] for number in range(len(layout))]


def _crop(scene: Scene, window: Window) -> Any:
    return scene.grid.crop(window)
