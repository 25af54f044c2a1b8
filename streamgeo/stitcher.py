"""Predictions of patches become scenes again, a strip of rows at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import ChainError, StepError
from streamgeo.grid import Grid
from streamgeo.plan import Place, origin
from streamgeo.rows import Rows, RowsScene
from streamgeo.scene import ArrayScene, Scene
from streamgeo.step import Step
from streamgeo.steps.patch import Cut
from streamgeo.steps.stitch import Blend, Canvas
from streamgeo.wayback import Fit, WayBack, fit, fit_cells, undo_given, undo_scene, why_whole
from streamgeo.window import Window

Array = NDArray[Any]
Mark = Any  # where in the epoch a batch begins; marks compare by their order
LOG = logging.getLogger("streamgeo")
_PIECE = (
    4 << 20
)  # bytes that are taken back at a time: they stay in the processor's cache, and their memory goes round
UNKNOWN = 255  # the label of a pixel without probabilities


@dataclass(frozen=True)
class Settings:
    """How predictions are put together; see :meth:`streamgeo.chain.Chain.predict`."""

    blend: Blend = "mean"
    steps: Sequence[Step] | None = None
    fill: float | None = None
    decide: bool = False


@dataclass(frozen=True)
class Strips:
    """How the output of one scene falls into strips: ``edges`` along one axis, one strip for each row of patches."""

    axis: int
    dim: str
    edges: tuple[int, ...]
    rows: Cut | None  # None where the scene was not patched
    others: tuple[tuple[str, Cut], ...]

    @property
    def count(self) -> int:
        """How many strips, and rows of patches, there are."""
        return len(self.edges) - 1

    @property
    def patches(self) -> int:
        """How many patches a row has."""
        return prod(cut.count for _, cut in self.others)

    def find(self, window: Window) -> tuple[int, int]:
        """Row, and number in the row, of a patch."""
        if self.rows is None:
            return 0, 0
        row, number = self.rows.number(window[self.dim].start), 0
        right = self.rows.start(row) == window[self.dim].start
        for dim, cut in self.others:
            at = cut.number(window[dim].start)
            right = right and at < cut.count and cut.start(at) == window[dim].start
            number = number * cut.count + at
        if not right or not 0 <= row < self.count:
            raise StepError(f"{window} is none of the patches; give windows as they came")
        return row, number

    def window(self, row: int, number: int) -> Window:
        """The window of a patch in the scene, in the dims that were cut; inverse of :meth:`find`."""
        box: dict[str, tuple[int, int]] = {}
        for dim, cut in reversed(self.others):
            number, at = divmod(number, cut.count)
            box[dim] = (cut.start(at), cut.start(at) + cut.size)
        if self.rows is not None:
            box[self.dim] = (self.rows.start(row), self.rows.start(row) + self.rows.size)
        return Window(dict(reversed(box.items())))


@dataclass
class Pending:
    """A scene in flight: which patches have come, the strips that are open, and the rows that are finished."""

    place: Place
    fit: Fit
    grid: Grid
    shape: tuple[int, ...]  # of what the model returned for the first patch, and must for all others
    dtype: np.dtype[Any]
    cut: tuple[int, ...]  # axes of the output along which there are patches
    strips: Strips
    by_rows: bool
    done: int = 0  # strips that are finished
    resumed: int = 0  # rows of patches that were complete before this epoch was taken up
    complete: int = 0  # rows of patches of which all, up to here, have come
    rows: Rows | None = None
    final: Grid | None = None  # of the scene after all inverses
    open: dict[int, Canvas] = field(default_factory=dict)
    spare: Canvas | None = None  # of a strip that is finished: fresh memory would take as long as filling it
    since: dict[int, Mark] = field(default_factory=dict)

    @cached_property
    def seen(self) -> NDArray[np.bool_]:
        """Which patches have come, by row."""
        seen = np.zeros((self.strips.count, self.strips.patches), bool)
        seen[: self.resumed] = True
        return seen

    @property
    def came(self) -> int:
        """How many patches have come."""
        return int(np.count_nonzero(self.seen))


@dataclass
class Stitcher:
    """Puts predictions of patches into their scenes and gives back each scene when it is whole.

    A strip of a scene is finished when no patch that touches it is missing: then it is blended, taken back by the
    inverses where these work on rows alone, and appended to the rows of the scene. So no more of a scene is open
    than patches in the order of the chain touch at a time.

    Attributes:
        folder: where rows are kept, so that an epoch can be taken up; by default memory or a temporary file.
        kept: how many strips of a scene are finished in that folder, by scene; of those that did not come again yet.
    """

    way: WayBack
    settings: Settings = Settings()
    suffix: str = ""
    folder: Path | None = None
    kept: dict[int, int] = field(default_factory=dict)
    pending: dict[int, Pending] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)

    def put(self, values: Array, place: Place, mark: Mark = None) -> Scene | None:
        """One prediction; the finished scene when it was the last one missing."""
        entry = self.pending.get(place.index)
        if entry is None:
            entry = self.pending[place.index] = self._begin(values, place)
        if values.dtype != entry.dtype or values.shape != entry.shape:
            raise StepError(
                f"predict: the model returned {values.dtype} of shape {values.shape} for one patch of "
                f"{place.scene.name} and another dtype or shape for an earlier one"
            )
        try:
            row, number = entry.strips.find(place.window)
        except StepError as error:
            raise StepError(f"predict: {place.scene.name}: {error}") from None
        if entry.seen[row, number]:
            return None  # it came before
        entry.seen[row, number] = True
        self._paint(entry, values, place.window, mark)
        while entry.complete < entry.strips.count and entry.seen[entry.complete].all():
            entry.complete += 1
        while entry.done < entry.complete:
            self._finish_strip(entry)
        if entry.done < entry.strips.count:
            return None
        del self.pending[place.index]
        return self._finish(entry)

    def _paint(self, entry: Pending, values: Array, window: Window, mark: Mark) -> None:
        cells = [dim for dim in entry.grid.dims if dim in entry.fit.cells]
        values = values.reshape((*values.shape, *(1 for _ in cells)))
        starts = [entry.fit.start(dim, window[dim].start) if dim in window else 0 for dim in entry.grid.dims]
        strips, axis = entry.strips, entry.strips.axis
        low, high = starts[axis], starts[axis] + values.shape[axis]
        for number in range(entry.done, strips.count):
            at, stop = strips.edges[number : number + 2]
            if at >= high:
                break
            if stop <= low:
                continue
            canvas = entry.open.get(number)
            if canvas is None:
                canvas = entry.open[number] = self._canvas(entry, number)
                entry.since[number] = mark
            canvas.put(values, [*starts[:axis], low - at, *starts[axis + 1 :]])

    def _canvas(self, entry: Pending, number: int) -> Canvas:
        at, stop = entry.strips.edges[number : number + 2]
        shape = list(entry.grid.shape)
        shape[entry.strips.axis] = stop - at
        spare, entry.spare = entry.spare, None
        if spare is not None and spare.shape == tuple(shape):
            spare.clear()
            return spare
        return Canvas(shape, entry.dtype, entry.cut, "mean" if entry.fit.cells else self.settings.blend)

    def _finish_strip(self, entry: Pending) -> None:
        """Blend a strip, take it back, and append it to the finished rows: a few rows at a time."""
        number, strips = entry.done, entry.strips
        at, stop = strips.edges[number : number + 2]
        canvas = entry.open.pop(number, None) or self._canvas(entry, number)
        entry.since.pop(number, None)
        if canvas.missing and self.settings.fill is None:
            raise ChainError(
                f"predict: {canvas.missing} pixels of {entry.place.scene.name}, in rows {at} to {stop} of "
                f'{strips.dim!r}, lie in no patch that has a weight there; use patch(..., edge="shift") or "pad", '
                "weights above 0, or fill= for their value"
            )
        whole = [slice(0, size) for size in canvas.shape]
        step = max(1, _PIECE // max(1, prod(canvas.shape) * entry.dtype.itemsize // max(1, stop - at)))
        for low in range(0, stop - at, step):
            high = min(low + step, stop - at)
            box = (*whole[: strips.axis], slice(low, high), *whole[strips.axis + 1 :])
            block = canvas.result(box)
            if entry.by_rows:
                part = entry.grid.window.intersect(Window({strips.dim: (at + low, at + high)}))
                block, entry.final = self._undo(block, entry.place, entry.fit, part)
            if canvas.missing:
                block = self._filled(block, canvas.uncovered(box), entry)
            if entry.rows is None:
                entry.rows = self._rows(entry, block)
            entry.rows.write(at + low, block)
        entry.done += 1
        entry.spare = canvas

    def _filled(self, block: Array, holes: Array, entry: Pending) -> Array:
        fill = np.asarray(self.settings.fill)
        if not entry.by_rows and not (block.dtype.kind in "fc" and np.isnan(fill)):
            raise ChainError(
                f"predict: fill={fill} would have to go through inverses that need {entry.place.scene.name} as a "
                "whole; give fill=np.nan, and a model that returns floats"
            )
        value = fill.astype(block.dtype) if np.isfinite(fill) or block.dtype.kind in "fc" else None
        if value is None or not (block.dtype.kind in "fc" or value == fill):
            raise StepError(f"predict: fill={fill} is no {block.dtype} number")
        dims = entry.final.dims if entry.final is not None else entry.grid.dims
        cut = [entry.grid.dims[axis] for axis in entry.cut]
        sizes = [holes.shape[entry.grid.dims.index(dim)] if dim in cut else 1 for dim in dims]
        block[np.broadcast_to(holes.reshape(sizes), block.shape)] = value
        return block

    def _undo(self, values: Array, place: Place, adapt: Fit, part: Window | None) -> tuple[Array, Grid]:
        if self.settings.steps is not None:
            values, grid = undo_given(self.settings.steps, values, place, adapt, part)
        else:
            values, grid = undo_scene(self.way, values, place, adapt, part)
        if self.settings.decide:
            values, grid = _labels(values, place), grid.drop(grid.dims[0])
        return values, grid

    def _rows(self, entry: Pending, block: Array) -> Rows:
        grid = entry.final or entry.grid
        path = self.path(entry.place.index)
        kept = entry.strips.edges[entry.resumed]
        return Rows(grid.shape, block.dtype, grid.dims.index(entry.strips.dim), path, kept)

    def path(self, index: int) -> Path | None:
        """The file that finished rows of a scene are kept in."""
        return self.folder / f"{index}{self.suffix}.rows" if self.folder is not None else None

    @property
    def strips(self) -> dict[int, int]:
        """How many strips are finished, by scene; of all that are not whole."""
        return self.kept | {index: entry.done for index, entry in self.pending.items()}

    def _finish(self, entry: Pending) -> Scene:
        rows, place = entry.rows, entry.place
        assert rows is not None
        if entry.by_rows:
            assert entry.final is not None
            rows.settle()
            return self._scene(entry.final, place, rows)
        whole = rows.read(entry.grid.window.slices(entry.grid.dims))
        rows.close()
        return self.finish(whole, place, entry.fit)

    def finish(self, values: Array, place: Place, adapt: Fit) -> Scene:
        """The inverses of the steps before patch, on the whole."""
        values, grid = self._undo(values, place, adapt, None)
        return self._scene(grid, place, values)

    def _scene(self, grid: Grid, place: Place, values: Array | Rows) -> Scene:
        source = place.scene
        told = (
            origin(source) if self.settings.steps is None else source
        )  # whose units the values are in again
        template = replace(told.template, nodata=UNKNOWN) if self.settings.decide else told.template
        name = self._own_name(source.name, source.files, place.index)
        if isinstance(values, Rows):
            return RowsScene(values, grid, template, name=name, files=source.files)
        return ArrayScene(values, grid, template, name=name, files=source.files)

    def _own_name(self, name: str, paths: Sequence[str], index: int) -> str:
        """The file name, with its folder or a number before it when another scene has the same name already.

        Files of one name from several folders, saved to one folder, must not replace each other.
        """
        base = PurePath(name).name
        if self.suffix:
            base = PurePath(base).stem + self.suffix + PurePath(base).suffix
        folder = Path(paths[0]).absolute().parent.name if paths else str(index)
        for own in (base, f"{folder}_{base}", f"{index}_{folder}_{base}"):
            if self.names.setdefault(own, index) == index:
                break
        return own

    def close(self) -> Iterator[Scene]:
        """The scenes that did not get all their patches, with ``fill`` for what is missing.

        Raises:
            ChainError: when no ``fill`` was given; it names the scene and the first patches that it misses.
        """
        if self.pending and self.settings.fill is None:
            entry = next(iter(self.pending.values()))
            more = f"; {len(self.pending) - 1} more scenes are incomplete" if len(self.pending) > 1 else ""
            raise ChainError(
                f"predict: {entry.place.scene.name} got {entry.came} of {entry.seen.size} patches; it misses "
                f"{self._missing(entry)}{more}. The stream left them out (on_error, drop_last, a slice, partition or "
                "shard); give fill= to put a value there"
            )
        for index in list(self.pending):
            entry = self.pending.pop(index)
            LOG.warning(
                "predict: %s got %d of %d patches; fill=%s where they are missing: %s",
                entry.place.scene.name, entry.came, entry.seen.size, self.settings.fill, self._missing(entry),
            )  # fmt: skip
            while entry.done < entry.strips.count:
                self._finish_strip(entry)
            yield self._finish(entry)

    def _missing(self, entry: Pending) -> str:
        """The first windows of which no prediction came."""
        absent = np.argwhere(~entry.seen)
        windows = [str(entry.strips.window(int(row), int(number))) for row, number in absent[:3]]
        return ", ".join(windows) + (f" and {len(absent) - 3} more" if len(absent) > 3 else "")

    def _fit(self, values: Array, place: Place) -> Fit:
        what = f"predict: {place.scene.name}"
        if self.way.patch is not None and self.way.answer(values, place)[1]:
            return fit_cells(values.shape, self.way.patch.layout(place.scene.grid, place.scene.name), what)
        return fit(values.shape, place.window.dims, place.window.shape, self.way.cut(place.scene.grid), what)

    def _begin(self, values: Array, place: Place) -> Pending:
        adapt = self._fit(values, place)
        grid = adapt.grid(place.scene.grid)
        try:
            strips = self._strips(place, grid, adapt)
        except StepError as error:
            raise StepError(f"predict: {place.scene.name}: {error}") from None
        by_rows = why_whole(self.way, self.settings.steps, place.scene) is None
        cut = tuple(grid.dims.index(dim) for dim in self.way.cut(place.scene.grid) if dim in grid.dims)
        entry = Pending(place, adapt, grid, values.shape, values.dtype, cut, strips, by_rows)
        entry.done = entry.resumed = entry.complete = self.kept.pop(place.index, 0)
        return entry

    def _strips(self, place: Place, grid: Grid, adapt: Fit) -> Strips:
        if self.way.patch is None:
            flat = [dim for dim in self.way.cut(place.scene.grid) if dim in grid.dims]
            axis = grid.dims.index(flat[0]) if flat else 0
            return Strips(axis, grid.dims[axis], (0, grid.shape[axis]), None, ())
        layout = self.way.patch.layout(place.scene.grid, place.scene.name)
        cuts = {layout.dims[axis]: layout.cuts[axis] for axis in layout.patched}
        dim, *others = (name for name in grid.dims if name in cuts)
        for name in others:
            adapt.start(name, cuts[name].start(min(1, cuts[name].count - 1)))
            adapt.start(name, cuts[name].last)
        starts = [adapt.start(dim, cuts[dim].start(number)) for number in range(cuts[dim].count)]
        axis = grid.dims.index(dim)
        return Strips(
            axis, dim, (*starts, grid.shape[axis]), cuts[dim], tuple((name, cuts[name]) for name in others)
        )


def _labels(values: Array, place: Place) -> Array:
    """The most probable class: uint8, 255 where probabilities are NaN."""
    if values.ndim < 3 or not 1 < len(values) < UNKNOWN:
        raise StepError(
            f"predict: decide needs probabilities of 2 to 254 classes as (class, y, x); for {place.scene.name} they "
            f"are {values.shape}"
        )
    labels = np.argmax(values, axis=0).astype(np.uint8)
    if values.dtype.kind == "f":
        labels[np.isnan(values).any(axis=0)] = UNKNOWN
    return np.asarray(labels)
