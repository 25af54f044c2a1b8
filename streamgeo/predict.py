"""A model over a chain: predictions back to whole scenes, and to files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamgeo.answers import answers
from streamgeo.errors import ChainError, MissingKeyError, SampleError, StepError
from streamgeo.journal import Journal
from streamgeo.links import Node, Ready, epoch
from streamgeo.parameters import function_name
from streamgeo.plan import Item, Place, Run, as_scene, grid_of
from streamgeo.progress import bar
from streamgeo.scene import Scene
from streamgeo.state import fingerprint
from streamgeo.step import Step
from streamgeo.steps.stitch import Blend, check_blend
from streamgeo.stitcher import Settings, Stitcher
from streamgeo.tta import Turn, averaged
from streamgeo.wayback import undo_batch, undo_sample, way_back

Array = NDArray[Any]
Model = Callable[..., Any]
Steps = Step | Callable[..., Any] | Sequence[Step | Callable[..., Any]]
Inverses = Steps | Mapping[str, Steps] | None


class Watch(Protocol):
    """Who counts the samples that a stream skips."""

    def note(self, errors: Sequence[SampleError]) -> None:
        """List and log what was skipped."""

    def judge(self, skipped: int, seen: int, ended: bool = False) -> None:
        """Raise when they are too many."""


class Scenes(dict[str, Scene]):
    """The scenes of a model that returns several arrays, by their names."""

    def save(self, where: str | Path, **options: Any) -> dict[str, Path]:
        """Save each; see :meth:`Scene.save`. In a folder each has the name of its output behind that of the scene."""
        return {name: scene.save(where, **options) for name, scene in self.items()}


@dataclass(frozen=True)
class Wanted:
    """What :meth:`streamgeo.chain.Chain.predict` was asked for; checked when it is made."""

    keys: tuple[str, ...]
    target: str
    inverse: Inverses = None
    blend: Blend = "mean"
    fill: float | None = None
    decide: str | None = None
    tta: Sequence[Turn] = ()

    def __post_init__(self) -> None:
        check_blend(self.blend)
        if self.decide not in (None, "argmax"):
            raise ChainError(f'predict: decide={self.decide!r} must be "argmax", or None')
        if isinstance(self.fill, bool) or not isinstance(self.fill, (int, float, np.number, type(None))):
            raise ChainError(f"predict: fill={self.fill!r} must be a number")

    def settings(self, output: str) -> Settings:
        """Those of one output of the model; ``""`` where it returns one array."""
        given = self.inverse.get(output) if isinstance(self.inverse, Mapping) else self.inverse
        steps = None if given is None else as_steps(given)
        return Settings(check_blend(self.blend), steps, self.fill, self.decide is not None)

    def check(self, node: Node) -> None:
        """Refuse at once what the chain cannot do.

        Raises:
            InverseError: when a step that must be undone has no inverse.
        """
        own = self.inverse is None or isinstance(self.inverse, Mapping)
        way_back(node, self.target, check=own).need_one_batch("predict")
        for output in self.inverse if isinstance(self.inverse, Mapping) else [""]:
            self.settings(output)

    def check_outputs(self, outputs: Iterable[str]) -> None:
        """Refuse inverses for outputs that a model does not have."""
        unknown = self.inverse.keys() - set(outputs) if isinstance(self.inverse, Mapping) else set()
        if unknown:
            raise ChainError(
                f"predict: inverse= names {sorted(unknown)}, and the model returned {sorted(outputs) or 'one array'}"
            )

    def marks(self, node: Node, model: Model) -> list[str]:
        """What the result depends on, as far as it has a name."""
        asked = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return [*fingerprint(node), f"predict({function_name(model)}, {asked})"]


def as_steps(inverse: Steps) -> list[Step]:
    """Steps that were given as ``inverse=``: functions count as inverses.

    Raises:
        InverseError: when one has no inverse.
        ChainError: when one moves pixels.
    """
    given = list(inverse) if isinstance(inverse, Sequence) else [inverse]
    steps = [entry if isinstance(entry, Step) else Step(_same, entry) for entry in given]
    for step in steps:
        step.need_inverse()
        if step.moves is not None:
            raise ChainError(
                f"predict: inverse= has {step.label}, which moves pixels; give what changes values only, and let the "
                "chain bring pixels back to their place"
            )
    return steps


def _same(x: Array) -> Array:
    return x


def predict(
    node: Node,
    run: Run,
    model: Model,
    wanted: Wanted,
    *,
    watch: Watch | None = None,
    to: str | Path | None = None,
    resume: bool = True,
    options: Mapping[str, Any] | None = None,
) -> Iterator[Scene | Scenes]:
    """See :meth:`streamgeo.chain.Chain.predict`; everything that can be checked is checked at once."""
    if not callable(model):
        raise ChainError(f"predict: {model!r} is not a function")
    wanted.check(node)
    if to is None and options:
        raise ChainError(f"predict: {', '.join(options)} are for files; give to= a folder")
    journal = None
    if to is not None:
        folder = Path(to)
        if folder.exists() and not folder.is_dir():
            raise ChainError(f"predict: to={folder} is a file; give a folder")
        journal = Journal(folder / ".streamgeo-predict", wanted.marks(node, model), resume)
    return Prediction(node, run, model, wanted, watch, to, dict(options or {}), journal).scenes()


@dataclass
class Prediction:
    """A prediction while it runs: one stitcher for each output of the model."""

    node: Node
    run: Run
    model: Model
    wanted: Wanted
    watch: Watch | None
    to: str | Path | None
    options: dict[str, Any]
    journal: Journal | None
    stitchers: dict[str, Stitcher] = field(default_factory=dict)
    seen: int = 0
    skipped: int = 0

    def __post_init__(self) -> None:
        self.way = way_back(self.node, self.wanted.target, check=False)
        if self.wanted.tta:
            self.model = averaged(self.model, self.wanted.tta, min(self.way.batches, 1))

    def scenes(self) -> Iterator[Scene | Scenes]:
        """Each scene, or the scenes of all outputs, as soon as it is whole."""
        try:
            yield from self._scenes()
        finally:
            if self.journal is not None:
                self.journal.release()

    def _scenes(self) -> Iterator[Scene | Scenes]:
        journal = self.journal
        position, cursor = (journal.position, journal.cursor) if journal is not None else (0, None)
        with bar(self.node, position, "predict", "batch") as progress:
            for ready in epoch(self.node, self.run, cursor, position):
                self._watched(ready)
                for index, whole in self._put(ready.item, ready.sample, position):
                    yield self._kept(index, whole)
                position, cursor = ready.position, ready.after
                if journal is not None:
                    journal.update(self.stitchers, position, cursor)
                progress.update()
        if self.watch is not None:
            self.watch.judge(self.skipped, self.seen, ended=True)
        for left in zip(*(stitcher.close() for stitcher in self.stitchers.values())):
            yield self._kept(-1, dict(zip(self.stitchers, left)))
        if journal is not None:
            journal.close()

    def _watched(self, ready: Ready) -> None:
        skipped = ready.item.skipped
        self.skipped += len(skipped)
        self.seen += len(skipped) + (len(ready.item.parts) or bool(ready.sample))
        if skipped and self.watch is not None:
            self.watch.note(skipped)
            self.watch.judge(self.skipped, self.seen)

    def _put(
        self, item: Item, sample: Mapping[str, Array], mark: int
    ) -> Iterator[tuple[int, dict[str, Scene]]]:
        """Predictions of a batch into their scenes; those that are whole, by output, with their number."""
        if not sample:
            return
        try:
            self._check_turns(item)
            made = self._made(sample)
        except Exception as error:
            error.add_note(f"predict: the model was given {self._told(item, sample)}")
            raise
        rows = {name: self._rows(name, values, item) for name, values in made.items()}
        parts = item.parts if self.way.batches else [item]
        for number, part in enumerate(parts):
            if self.journal is not None and self._index(part) in self.journal.saved:
                continue
            whole = {}
            for name, values in rows.items():
                stitcher = self.stitchers[name]
                place = part.places.get(self.way.key)
                value = undo_sample(stitcher.way, np.asarray(values[number]), place, part.residuals)
                scene = stitcher.put(value, place or _unplaced(part, self.way.key, value), mark)
                if scene is not None:
                    whole[name] = scene
            if whole:
                yield self._index(part), whole

    def _check_turns(self, item: Item) -> None:
        """Orientations turn the last two axes, which must be the horizontal ones."""
        first = next(iter(item.parts), item)
        for key in self.wanted.keys if self.wanted.tta else ():
            grid = first.places[key].grid if key in first.places else None
            if grid is not None and set(grid.spatial) != set(grid.dims[-2:]):
                raise StepError(
                    f"tta: orientations turn the last two dims, and {key!r} has {grid.dims} with {grid.spatial} "
                    "horizontal; transpose these to the end, and turn them back in the model"
                )

    def _told(self, item: Item, sample: Mapping[str, Array]) -> str:
        """What the model was given, and where the first of it lies."""
        shapes = ", ".join(f"{key!r} {np.shape(sample[key])}" for key in self.wanted.keys if key in sample)
        place = next((part.places[key] for part in (*item.parts, item) for key in part.places), None)
        return shapes if place is None else f"{shapes}, from {place.scene.name} {place.window} on"

    def _index(self, part: Item) -> int:
        place = part.places.get(self.way.key)
        return part.index if place is None else place.index

    def _made(self, sample: Mapping[str, Array]) -> dict[str, Array]:
        """What the model makes of a sample, by the name of the output."""
        keys = self.wanted.keys
        missing = [key for key in (*keys, self.way.key) if key not in sample]
        if missing:
            raise MissingKeyError(f"predict: no key {missing[0]!r} in the sample; it has {sorted(sample)}")
        self.way.need_cut("predict")
        outputs = answers(self.model(*(sample[key] for key in keys)))
        if not self.stitchers:
            self.wanted.check_outputs(outputs)
            self.stitchers = {name: self._stitcher(name) for name in outputs}
        if outputs.keys() != self.stitchers.keys():
            raise StepError(
                f"predict: the model returned {sorted(outputs)}, and {sorted(self.stitchers)} for an earlier batch"
            )
        return outputs

    def _stitcher(self, output: str) -> Stitcher:
        settings, way = self.wanted.settings(output), self.way
        if settings.steps is not None:
            # What was given stands for what the numbers mean; where the pixels lie is still the chain's business.
            moving = [stage for stage in way.sample if stage.step.moves is not None]
            way = replace(way, sample=moving, batch=[])
        stitcher = Stitcher(way, settings, f"_{output}" if output else "")
        if self.journal is not None:
            self.journal.prepare(stitcher, output)
        return stitcher

    def _rows(self, name: str, made: Array, item: Item) -> Sequence[Array]:
        """The predictions for the samples of a batch (or for the one sample), after the steps since batch."""
        if not self.way.batches:
            return [made]
        count = len(item.parts)
        if made.ndim == 0 or len(made) != count:
            raise StepError(f"predict: the model returned shape {made.shape} for a batch of {count}")
        return list(undo_batch(self.stitchers[name].way, made, item.residuals))

    def _kept(self, index: int, whole: dict[str, Scene]) -> Scene | Scenes:
        """The result for the user, saved where a folder was given."""
        result: Scene | Scenes = whole[""] if set(whole) == {""} else Scenes(whole)
        if self.journal is not None and self.to is not None:
            Path(self.to).mkdir(parents=True, exist_ok=True)
            paths = [str(scene.save(f"{self.to}/", **self.options)) for scene in whole.values()]
            self.journal.saved[index] = paths
        return result


def _unplaced(item: Item, key: str, values: Array) -> Place:
    """The place of an array that came without a file."""
    scene = as_scene(values, f"{key}_{item.index}")
    return Place(scene, item.index, scene.window, partial(grid_of, scene))
