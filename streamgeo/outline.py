"""A chain as a table: its links with keys, dims, shapes, dtypes and numbers of samples, without running it.

Nothing is computed: no pixel is read, no function of the user is called. What a step makes is worked out from
what it says of itself, from the header of the first file on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import numpy as np

from streamgeo.grid import Grid, plain_grid
from streamgeo.links import (
    Apply,
    AsStream,
    Batch,
    Cache,
    Choose,
    Concatenate,
    Drop,
    Edit,
    Every,
    Expand,
    Files,
    Filter,
    Joined,
    Map,
    Mix,
    Node,
    Part,
    Prefetch,
    Repeat,
    Reservoir,
    Select,
    Shard,
    Vector,
    Zip,
    called,
)
from streamgeo.links.steps import rename, select_keys, transform_sample
from streamgeo.links.values import as_value
from streamgeo.openers import Opener
from streamgeo.plan import Run
from streamgeo.step import REGISTRY, Step

_SAME = (AsStream, Cache, Choose, Every, Filter, Part, Prefetch, Repeat, Reservoir, Select, Shard)


@dataclass(frozen=True)
class Sketch:
    """What is known of the value under a key: None, or a size of None, where it is not.

    ``lazy`` is a scene: patches are cut from it, and steps on it keep its shape or say what they do to it.
    """

    dims: tuple[str, ...] | None = None
    shape: tuple[int | None, ...] | None = None
    dtype: str | None = None
    grid: Callable[[], Grid] | None = None
    lazy: bool = False
    text: str | None = None  # the value, where it is a path

    @property
    def sizes(self) -> str:
        """Dims and shape, for people."""
        return shown_sizes(self.dims, self.shape)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    link: str
    key: str = ""
    reach: str = ""
    sizes: str = ""
    dtype: str = ""
    count: str = ""
    why: str = ""
    first: bool = True  # of the lines of its link


Sketches = dict[str, Sketch]


def shown_sizes(dims: Sequence[str] | None, shape: Sequence[int | None] | None) -> str:
    """Dims and shape as text: ``y=256, x=256``."""
    if shape is None:
        return "?"
    sizes = ["?" if size is None else str(size) for size in shape]
    if dims is None or len(dims) != len(sizes):
        return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"
    return ", ".join(f"{dim}={size}" for dim, size in zip(dims, sizes))


def shown_reach(link: Map | Expand) -> str:
    """What a step needs around a pixel, as text."""
    if isinstance(link.step, Opener):
        return "file"
    return "scene -> patches" if isinstance(link, Expand) else str(link.step.reach)


def shown_key(key: str, output: str) -> str:
    """The key of a step, and the one that it writes to where that is another."""
    return output if key == output else f"{key} -> {output}"


# -- the table ------------------------------------------------------------------------------------------


def rows(node: Node) -> list[Row]:
    """The lines of a chain, source first."""
    found: list[Row] = []
    outline = _Outline()
    for link in called(node):
        text, sketches, count = link.text().lstrip("."), outline.sketches(link), outline.shown_count(link)
        why = outline.errors.get(link, "")
        shown = [
            Row(text, key, reach, sketch.sizes, sketch.dtype or "?", count, why, not number)
            for number, (key, reach, sketch) in enumerate(_shown(link, sketches))
        ]
        found += shown or [Row(text, count=count, why=why)]
    return found


def _shown(link: Node, sketches: Sketches) -> list[tuple[str, str, Sketch]]:
    """The keys to show with a link: those that it makes."""
    if isinstance(link, Map | Expand):
        return [
            (shown_key(key, output), shown_reach(link), sketches.get(output, Sketch()))
            for key, output in zip(link.keys, link.outputs)
        ]
    if isinstance(link, _SAME):
        return []
    return [(key, "", sketch) for key, sketch in sketches.items()]


_LEFT = ' style="text-align:left"'


def html(node: Node, kind: str) -> str:
    """The table for a notebook: plain, in the colours of the page around it."""
    lines: list[str] = []
    notes: list[str] = []
    for row in rows(node):
        link, count = (row.link, row.count) if row.first else ("", "")
        cells = [f"<code>{escape(link)}</code>" if link else ""]
        cells += map(escape, (row.key, row.sizes, row.dtype, count))
        lines.append(f"<tr>{''.join(f'<td{_LEFT}>{cell}</td>' for cell in cells)}</tr>")
        if row.why and row.why not in notes:
            notes.append(row.why)
    head = "".join(
        f'<th style="text-align:left">{name}</th>'
        for name in ("operation", "key", "dims", "dtype", "samples")
    )
    body = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    below = "".join(f"<p>{escape(note)}</p>" for note in notes)
    return f"<div><strong>streamgeo.{escape(kind)}</strong>{body}{below}</div>"


# -- what is known of each link ---------------------------------------------------------------------------


class _Outline:
    """Works a chain out from its source; what fails is noted and leaves the rest unknown."""

    def __init__(self) -> None:
        self._known: dict[Node, Sketches] = {}
        self._counts: dict[Node, int | None] = {}
        self.errors: dict[Node, str] = {}

    def sketches(self, link: Node) -> Sketches:
        """What is under each key behind a link."""
        if link not in self._known:
            try:
                self._known[link] = self._worked_out(link)
            except Exception as error:  # a header that cannot be read, a patch that does not fit, ...
                self.errors[link] = f"{link.text().lstrip('.')}: {type(error).__name__}: {error}"
                before = {} if link.parent is None else self.sketches(link.parent)
                self._known[link] = {key: Sketch() for key in before}
        return self._known[link]

    def _worked_out(self, link: Node) -> Sketches:
        if isinstance(link, Joined):
            return self._together(link)
        if link.parent is None:
            return _source(link)
        before = self.sketches(link.parent)
        if isinstance(link, Map):
            done = {
                output: _after(link.step, before.get(key)) for key, output in zip(link.keys, link.outputs)
            }
            return before | done
        if isinstance(link, Expand):
            return self._patched(link, before)
        if isinstance(link, Batch):
            return {key: self._batched(link, key, sketch) for key, sketch in before.items()}
        if isinstance(link, Edit) and type(link) in (Edit, Apply, Drop):
            return _edited(link, before)
        return before if isinstance(link, _SAME) else {}

    def _together(self, link: Joined) -> Sketches:
        parts = [self.sketches(parent) for parent in link.parents]
        if isinstance(link, Zip):
            return {key: sketch for part in parts for key, sketch in part.items()}
        if not isinstance(link, Concatenate | Mix):
            return {}
        same = {
            key
            for key in parts[0]
            if all(part.get(key) and _alike(part[key], parts[0][key]) for part in parts)
        }
        return {key: sketch if key in same else Sketch() for key, sketch in parts[0].items()}

    def _patched(self, link: Expand, before: Sketches) -> Sketches:
        out = dict(before)
        layout = None
        for key, output in zip(link.keys, link.outputs):
            sketch = before.get(key, Sketch())
            if sketch.grid is None:
                out[output] = replace(sketch, shape=None, dims=None, lazy=False)
                continue
            grid = sketch.grid()
            layout = layout or link.step.layout(grid, key)
            cut = {layout.dims[axis]: layout.cuts[axis].size for axis in layout.patched}
            shape = tuple(cut.get(dim, size) for dim, size in grid.sizes.items())
            small = grid.crop(layout[0].intersect(grid.window)) if shape == layout[0].shape else grid
            known = small if small.shape == shape else plain_grid(shape)
            out[output] = Sketch(grid.dims, shape, sketch.dtype, lambda known=known: known)  # type: ignore[misc]
        return out

    def _batched(self, link: Batch, key: str, sketch: Sketch) -> Sketch:
        if sketch.shape is None or key in link.dim:
            return replace(sketch, dims=None, shape=None, grid=None, lazy=False, text=None)
        inner = (None,) * len(sketch.shape) if key in link.pad else sketch.shape
        size = link.size if isinstance(link.size, int) else link.size[0]
        samples = self.count(link.before)
        number = size if samples is None else min(size, samples)
        dims = None if sketch.dims is None else ("sample", *sketch.dims)
        return Sketch(dims, (number, *inner), sketch.dtype)

    # -- numbers of samples ---------------------------------------------------------------------------

    def shown_count(self, link: Node) -> str:
        """The number of samples, for people."""
        count = self.count(link)
        if count is not None:
            return str(count)
        if isinstance(link, Repeat) and link.times is None:
            return "without end"
        layout = self._layout(link) if isinstance(link, Expand) else None
        return "?" if layout is None else f"{layout} in the first scene"

    def count(self, link: Node) -> int | None:
        """The number of samples, where it is known from lists and the first header."""
        if link not in self._counts:
            try:
                self._counts[link] = self._counted(link)
            except Exception:  # no length: TypeError, or an error that reading will tell
                self._counts[link] = None
        return self._counts[link]

    def _counted(self, link: Node) -> int | None:
        if link.parent is None:
            return len(link)
        parents = link.parents if isinstance(link, Joined) else (link.parent,)
        counts = [self.count(parent) for parent in parents]
        if isinstance(link, Expand):
            return self._patches(link, counts[0])
        if isinstance(link, Drop) or (isinstance(link, Edit) and not link.indexable and _changes_all(link)):
            return None  # samples that come back empty are left out
        known = [Sized(count) for count in counts if count is not None]
        if len(known) < len(counts):
            return None
        if isinstance(link, Joined):
            return len(replace(link, parents=tuple(known)))
        return len(replace(link, before=known[0]))  # type: ignore[call-arg]

    def _patches(self, link: Expand, scenes: int | None) -> int | None:
        known = None if scenes is None else link.counted(scenes)
        if known is not None:
            return known
        return self._layout(link) if scenes == 1 else None

    def _layout(self, link: Expand) -> int | None:
        grid = self.sketches(link.before).get(link.keys[0], Sketch()).grid
        try:
            return None if grid is None else len(link.step.layout(grid()))
        except Exception:  # told with the row
            return None


@dataclass(frozen=True, eq=False)
class Sized(Node):
    """A link of which only the length is known."""

    size: int

    indexable = True

    def length(self, run: Run) -> int:
        """That number."""
        return self.size

    def text(self) -> str:
        """What it stands for."""
        return f"{self.size} samples"


# -- single links -----------------------------------------------------------------------------------------


def _source(link: Node) -> Sketches:
    if isinstance(link, Files):
        path = link.paths[0]
        shape = () if isinstance(path, str) else (len(path),)
        return {link.key: Sketch((), shape, "text", text=path if isinstance(path, str) else "\n".join(path))}
    if isinstance(link, Vector) and len(link):
        return {key: _of_value(as_value(value)) for key, value in link.data[0].items()}
    return {}


def _of_value(value: Any) -> Sketch:
    if isinstance(value, str):
        return Sketch((), (), "text", text=value)
    grid = plain_grid(np.shape(value))
    return Sketch(grid.dims, grid.shape, str(value.dtype), lambda: grid)


def _after(step: Step, sketch: Sketch | None) -> Sketch:
    """What a step makes, as far as it can be told without running it."""
    if sketch is None:
        return Sketch()
    if isinstance(step, Opener):
        if sketch.text is None:
            return Sketch()
        paths = sketch.text.split("\n")
        scene = step(paths if len(paths) > 1 else paths[0])
        return Sketch(scene.dims, scene.shape, str(np.dtype(scene.dtype)), lambda: scene.grid, lazy=True)
    if not _ours(step):
        # A scene keeps its shape when it is patched; without patch, a function may return any.
        return Sketch(grid=sketch.grid if sketch.lazy and step.moves is None else None, lazy=sketch.lazy)
    dtype = None if sketch.dtype in (None, "text") else str(step.dtype_after(np.dtype(sketch.dtype)))
    if step.moves is None or sketch.grid is None:
        shape, dims = (sketch.shape, sketch.dims) if step.moves is None else (None, None)
        return replace(sketch, shape=shape, dims=dims, dtype=dtype, text=None)
    grid = step.grid_after(sketch.grid())
    return Sketch(grid.dims, grid.shape, dtype, lambda: grid, lazy=sketch.lazy)


def _ours(step: Step) -> bool:
    """Whether streamgeo made the step, so that what it says of itself runs no code of the user."""
    made = REGISTRY.get(step.name or "")
    return made is not None and made.__module__.split(".")[0] == "streamgeo"


def _edited(link: Edit, before: Sketches) -> Sketches:
    function, given = _parts(link.change)
    if function is rename and given["key"] in before:
        out = dict(before)
        out[given["output_key"]] = out.pop(given["key"])
        return out
    if function is select_keys:
        return {key: sketch for key, sketch in before.items() if (key == given["key"]) != given["remove"]}
    if link.touches is None:
        return {}
    return before | {key: Sketch() for key in link.touches}


def _changes_all(link: Edit) -> bool:
    return _parts(link.change)[0] is transform_sample


def _parts(change: Any) -> tuple[Any, Mapping[str, Any]]:
    return getattr(change, "func", change), getattr(change, "keywords", {})


def _alike(a: Sketch, b: Sketch) -> bool:
    return (a.dims, a.shape, a.dtype) == (b.dims, b.shape, b.dtype)
