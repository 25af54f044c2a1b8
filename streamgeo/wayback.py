"""The way back of one key: which inverses, in which order, and on which grids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import ChainError, InverseError, StepError
from streamgeo.grid import Axis, Grid, plain_grid
from streamgeo.links import Batch, Concatenate, Edit, Expand, Map, Mix, Node
from streamgeo.naming import naming
from streamgeo.openers import Opener
from streamgeo.plan import Place, StepScene, grid_of_window, residual_key
from streamgeo.scene import Scene
from streamgeo.step import POINT, Context, Step, wants
from streamgeo.steps.patch import Cut, Layout, Patch
from streamgeo.window import Window

Array = NDArray[Any]


@dataclass(frozen=True)
class Stage:
    """A step that a key went through: its number in the chain, and the key's name after it."""

    step: Step
    number: int
    key: str


@dataclass
class WayBack:
    """The stages of one key, by where they stand; each list is in the order of the chain."""

    key: str
    opened: bool = False
    scene: list[Stage] = field(default_factory=list)  # before patch
    patch: Patch | None = None
    sample: list[Stage] = field(default_factory=list)  # after patch
    batch: list[Stage] = field(default_factory=list)  # after batch
    batches: int = 0
    uncut: str | None = None  # a patch step that cut other keys and not this one

    def cut(self, grid: Grid) -> tuple[str, ...]:
        """The dims of a scene that were patched, in its order; the horizontal ones where it was not."""
        names = grid.spatial if self.patch is None or self.patch.dims is None else self.patch.dims
        return tuple(dim for dim in grid.dims if dim in names)

    def answer(self, values: Array, place: Place | None) -> tuple[Array, bool]:
        """What a model gave for a patch, and whether that is one value or one vector, as a classifier gives.

        A patch may have shrunk to a dim of size 1 for each that was cut, as pooling leaves them: these go.

        Raises:
            StepError: when some of the cut dims are gone, and not all.
        """
        if self.patch is None or place is None:
            return values, False
        if values.ndim >= len(place.window) and values.shape[-1] != 1:  # nearly always
            return values, False
        cut = self.cut(place.scene.grid)
        wide = any(place.window[dim].stop - place.window[dim].start > 1 for dim in cut)
        if wide and values.ndim >= len(cut) and set(values.shape[values.ndim - len(cut) :]) == {1}:
            return values.reshape(values.shape[: values.ndim - len(cut)]), True
        if 1 < values.ndim < len(cut):
            raise StepError(
                f"{self.key}: the model returned shape {values.shape} for a patch of {place.scene.name} with the dims "
                f"{cut} cut; keep those that it sums up with size 1"
            )
        return values, values.ndim < len(cut)

    def need_one_batch(self, operation: str) -> None:
        """A prediction must say which sample it is of.

        Raises:
            ChainError: for batches of batches.
        """
        if self.batches > 1:
            raise ChainError(f"{operation}: the chain has batches of batches; batch once")

    def need_cut(self, operation: str) -> None:
        """A prediction must say which part of the key's scene it is of.

        Raises:
            ChainError: for a key that stayed whole when others were cut.
        """
        if self.uncut is not None:
            raise ChainError(
                f"{operation}: {self.uncut} cut other keys and left {self.key!r} whole, so patches do not tell where "
                f"they lie in it; patch both in one key_transform((..., {self.key!r}), ...)"
            )

    def need_first_epoch(self, operation: str, remedy: str) -> None:
        """A scene is found again as it is in the first epoch; a sample does not tell which epoch it is of.

        Raises:
            ChainError: when a random step moves pixels before they are patched.
        """
        moved = next((s.step.label for s in self.scene if s.step.moves is not None and s.step.random), None)
        if moved is not None:
            raise ChainError(
                f"{operation}: {moved} moves the pixels of {self.key!r} anew each epoch, before it is patched; "
                f"{remedy}, or put it behind patch"
            )


def way_back(node: Node, key: str, *, check: bool = True) -> WayBack:
    """The stages that ``key`` went through.

    Raises:
        InverseError: when ``check`` and one of them has no inverse.
    """
    stages: list[tuple[Node, str]] = []
    found, uncut = key, None
    for link in reversed(node.path_of(key)):
        if check and isinstance(link, Concatenate | Mix):
            _same_steps(link, found)
        if isinstance(link, Map | Expand) and found in link.outputs:
            stages.append((link, found))
            found = link.keys[link.outputs.index(found)]
        elif isinstance(link, Edit) and link.renames and found == link.renames[1]:
            found = link.renames[0]
        elif isinstance(link, Edit) and (link.touches is None or found in link.touches):
            if check:
                raise InverseError(
                    f"{link.text()[1:]} has no inverse for {key!r}; use key_transform with inverse=, say which keys "
                    "it changes with keys=, or pass inverse= to predict"
                )
        elif isinstance(link, Batch):
            stages.append((link, found))
        elif isinstance(link, Expand):
            uncut = link.step.label
    way = WayBack(key, uncut=uncut)
    for link, name in reversed(stages):
        _place(way, link, name, check)
    if way.patch is None and not way.opened:
        way.sample, way.scene = [*way.scene, *way.sample], []
    return way


def _same_steps(link: Concatenate | Mix, key: str) -> None:
    """The steps since patch must be the same in all chains: a prediction does not tell which one it is from."""
    ways = [way_back(parent, key) for parent in link.parents]
    steps = [[way.patch, *(s.step for s in (*way.sample, *way.batch))] for way in ways]
    for number, other in enumerate(steps):
        if other != steps[0]:
            raise InverseError(
                f"{link.text()}: chain {number} treats {key!r} by {other} from patch on, chain 0 by {steps[0]}; "
                "predict each chain on its own"
            )


def _place(way: WayBack, link: Node, name: str, check: bool) -> None:
    if isinstance(link, Batch):
        way.batches += 1
    elif isinstance(link, Expand):
        way.patch = link.step
        way.scene, way.sample = [*way.scene, *way.sample], []
    elif isinstance(link, Map):
        if isinstance(link.step, Opener):
            way.opened = True
            return
        if check:
            link.step.need_inverse()
        stage = Stage(link.step, link.depth, name)
        (way.batch if way.batches else way.scene if way.patch is None else way.sample).append(stage)


# -- what a model did to the shape ------------------------------------------------------------------------


@dataclass(frozen=True)
class Fit:
    """How the output of a model relates to the grid it was computed on.

    ``scale`` is the factor by dim; ``added`` are new leading dims with their sizes; ``dropped`` are dims that
    are gone; ``resized`` are dims that were not cut and have another size, such as bands; ``cells`` are the cut dims
    of a model that gives one value a patch: a pixel of the output is as large as the stride, in the middle of a patch.
    """

    scale: Mapping[str, Fraction] = field(default_factory=dict)
    added: tuple[tuple[str, int], ...] = ()
    dropped: tuple[str, ...] = ()
    resized: Mapping[str, int] = field(default_factory=dict)
    cells: Mapping[str, Cut] = field(default_factory=dict)

    def start(self, dim: str, at: int) -> int:
        """First pixel in the output of a patch that starts at pixel ``at`` of the scene.

        Raises:
            StepError: when it lies between two pixels.
        """
        if dim in self.cells:
            return self.cells[dim].number(at)
        factor = self.scale.get(dim)
        if factor is None:
            return at
        place, rest = divmod(at * factor.numerator, factor.denominator)
        if rest:
            raise StepError(
                f"a patch starts at {dim}={at}, which the model's factor {self.scale[dim]} does not divide; choose "
                'size and stride as multiples of it, and edge="pad" or "drop"'
            )
        return place

    def grid(self, grid: Grid) -> Grid:
        """The grid of the output for a grid of the input."""
        factors = {
            dim: float(1 / factor) for dim, factor in self.scale.items() if dim in grid.dims and factor != 1
        }
        grid = grid.coarsen(**factors) if factors else grid
        gone = [dim for dim in self.dropped if dim in grid.dims]
        grid = grid.drop(*gone) if gone else grid
        if self.cells:
            axes = (
                _cell(axis, self.cells[axis.name]) if axis.name in self.cells else axis for axis in grid.axes
            )
            grid = replace(grid, axes=tuple(axes))
        changed = {dim: size for dim, size in self.resized.items() if dim in grid.dims}
        grid = grid.resize(**changed) if changed else grid
        for name, size in reversed(self.added):
            grid = grid.insert(0, name, size)
        return grid


def _cell(axis: Axis, cut: Cut) -> Axis:
    origin = axis.origin + axis.step * (cut.size - cut.stride) / 2
    return replace(axis, size=cut.count, origin=origin, step=axis.step * cut.stride)


def fit_cells(shape: Sequence[int], layout: Layout, what: str) -> Fit:
    """What a classifier did, which gave an array of ``shape`` for each patch of a layout.

    Raises:
        StepError: when the last patches were moved inwards, so that the middles of the patches are no grid.
    """
    cells = {layout.dims[axis]: layout.cuts[axis] for axis in sorted(layout.patched)}
    for dim, cut in cells.items():
        if cut.last != (cut.count - 1) * cut.stride:
            raise StepError(
                f"{what}: the model gives one value a patch, and the last patches were moved inwards in {dim}, so the "
                'values lie on no regular grid; use patch(..., edge="pad") or "drop"'
            )
    names = ["band", *(f"band_{i}" for i in range(2, len(shape) + 1))]
    gone = tuple(dim for dim in layout.dims if dim not in cells)
    return Fit(added=tuple(zip(names, map(int, shape))), dropped=gone, cells=cells)


def fit(
    shape: Sequence[int], dims: Sequence[str], sizes: Sequence[int], cut: Sequence[str], what: str
) -> Fit:
    """What a model did: ``shape`` came out where ``dims`` with ``sizes`` went in and ``cut`` were patched.

    With as many dims as before they correspond one to one. Else the last ones are those that were cut, the
    others are new (``band``) or gone.

    Raises:
        StepError: when the shapes cannot be brought together.
    """
    came = f"{what}: the model returned shape {tuple(shape)} for {dict(zip(dims, sizes))}"
    kept = list(dims)
    added: tuple[tuple[str, int], ...] = ()
    dropped: tuple[str, ...] = ()
    if len(shape) != len(dims):
        kept = [dim for dim in dims if dim in cut]
        last = list(dims[len(dims) - len(kept) :]) == kept
        if len(shape) < len(kept) or not (last or len(shape) == len(kept)):
            raise StepError(
                f"{came}; where the number of dims changes, the last ones must be {tuple(cut)}, also on the way in"
            )
        dropped = tuple(dim for dim in dims if dim not in cut)
        names = ["band", *(f"band_{i}" for i in range(2, len(shape)))]
        added = tuple(zip(names, (int(size) for size in shape[: len(shape) - len(kept)])))
        shape = shape[len(shape) - len(kept) :]
    before = dict(zip(dims, sizes))
    scale: dict[str, Fraction] = {}
    resized: dict[str, int] = {}
    for dim, size in zip(kept, shape):
        if dim not in cut:
            if size != before[dim]:
                resized[dim] = int(size)
            continue
        scale[dim] = Fraction(int(size), int(before[dim]))
        if not scale[dim]:
            raise StepError(f"{came}; no pixel is left in {dim}")
    return Fit(scale, added, dropped, resized)


# -- undoing ----------------------------------------------------------------------------------------------


def undo_sample(way: WayBack, values: Array, place: Place | None, residuals: Mapping[str, Array]) -> Array:
    """The inverses of the steps after patch (or of all steps on a plain array), last to first."""
    values, single = way.answer(values, place)
    if not way.sample:
        return values
    if place is not None and single:
        return _undo_single(way, values, place)
    grids = [grid_of_window(place.scene, place.window) if place is not None else plain_grid(values.shape)]
    for stage in way.sample:
        grids.append(stage.step.grid_after(grids[-1], residuals.get(residual_key(stage.key, stage.number))))
    adapt = fit(values.shape, grids[-1].dims, grids[-1].shape, grids[-1].spatial, way.key)
    attrs = place.scene.attrs if place is not None else {}
    for stage, grid in zip(reversed(way.sample), reversed(grids[:-1])):
        residual = residuals.get(residual_key(stage.key, stage.number))
        with naming(f"inverse of {stage.step.label}", file=place.scene.name if place else None):
            values = stage.step.invert(values, Context(adapt.grid(grid), attrs, None, residual))
    return values


def _undo_single(way: WayBack, values: Array, place: Place) -> Array:
    """The same for one value a patch: it has no pixels, so steps that only move these leave it as it is."""
    for stage in reversed(way.sample):
        if stage.step.keeps_residual:
            raise StepError(
                f"predict: the model gives one value a patch, and the inverse of {stage.step.label} needs pixels; say "
                "with inverse=[...] what takes the values back, or inverse=[] for nothing"
            )
        if stage.step.moves is None:
            with naming(f"inverse of {stage.step.label}", file=place.scene.name):
                values = stage.step.invert(values, Context(None, place.scene.attrs))
    return values


def undo_batch(way: WayBack, values: Array, residuals: Mapping[str, Array]) -> Array:
    """The inverses of the steps on whole batches, last to first."""
    for stage in reversed(way.batch):
        residual = residuals.get(residual_key(stage.key, stage.number))
        with naming(f"inverse of {stage.step.label}"):
            values = stage.step.invert(values, Context(None, {}, None, residual))
    return values


def why_whole(way: WayBack, steps: Sequence[Step] | None, scene: Scene) -> str | None:
    """Why the inverses of the steps before patch need the scene as a whole; None where rows of it suffice."""
    chain = list(steps) if steps is not None else []
    while steps is None and isinstance(scene, StepScene):
        chain.append(scene.step)
        scene = scene.parent
    for step in chain:
        asks = wants(step.inverse) if step.inverse is not None else frozenset()
        if step.moves is not None:
            return f"{step.label} moves pixels"
        if step.reach != POINT:
            return f"{step.label} has reach {step.reach!r}"
        if step.keeps_residual or "rng" in asks:
            return f"the inverse of {step.label} needs what forward saw of the whole scene"
    if steps is None and not way.opened and way.scene:
        return "its steps ran on an array that came without a file"
    return None


def undo_scene(
    way: WayBack, values: Array, place: Place, adapt: Fit, part: Window | None = None
) -> tuple[Array, Grid]:
    """The inverses of the steps before patch, last to first, and the grid of the whole scene.

    ``part`` is the window of the output that the values fill; None is all of it.
    """
    scene = place.scene
    while isinstance(scene, StepScene):
        step, parent = scene.step, scene.parent
        with naming(f"inverse of {step.label}", file=scene.name):
            asks = wants(step.need_inverse())
            context = Context(
                _part(adapt.grid(parent.grid), part) if "grid" in asks else None,
                scene.attrs,
                scene.draw.generator() if "rng" in asks else None,
                scene.residual() if step.keeps_residual else None,
            )
            values = step.invert(values, context)
        scene = parent
    if not way.opened:
        for stage in reversed(way.scene):
            residual = place.residuals.get(residual_key(stage.key, stage.number))
            with naming(f"inverse of {stage.step.label}", file=scene.name):
                values = stage.step.invert(values, Context(plain_grid(values.shape), {}, None, residual))
        if part is None:
            return values, plain_grid(values.shape)
    grid = adapt.grid(scene.grid)
    if _part(grid, part).shape != values.shape:
        raise StepError(
            f"predict: {scene.name} came back with shape {values.shape}, but its grid has {_part(grid, part).shape}; "
            "an inverse step changed the shape without saying so"
        )
    return values, grid


def undo_given(
    steps: Sequence[Step], values: Array, place: Place, adapt: Fit, part: Window | None = None
) -> tuple[Array, Grid]:
    """The inverses of steps that the user gave, on the grid of the scene; and that of the whole scene after them."""
    grid = adapt.grid(place.scene.grid)
    here = _part(grid, part)
    for step in reversed(steps):
        with naming(f"inverse of {step.label}", file=place.scene.name):
            values = step.invert(values, Context(here, place.scene.attrs))
    if values.shape != here.shape:
        changed = fit(values.shape, here.dims, here.shape, here.spatial, "inverse=")
        if part is not None and any(factor != 1 for factor in changed.scale.values()):
            raise StepError(
                "inverse=: a step of reach POINT changed the number of pixels; say reach=sg.SCENE"
            )
        grid = changed.grid(grid)
    return np.asarray(values), grid


def _part(grid: Grid, part: Window | None) -> Grid:
    return grid if part is None else grid.crop(part)
