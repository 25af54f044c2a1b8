"""What a chain will do, told before it is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo import kernels
from streamgeo.errors import ChainError, InverseError, MissingKeyError
from streamgeo.grid import Grid
from streamgeo.links import Batch, Expand, Map, Node
from streamgeo.outline import shown_key, shown_reach, shown_sizes
from streamgeo.plan import Item, Run, StepScene, finished, grid_of_window, residual_key
from streamgeo.replay import place_of
from streamgeo.scene import Scene
from streamgeo.wayback import way_back, why_whole
from streamgeo.window import Window

Array = NDArray[Any]


def scene_of(node: Node, key: str, index: int) -> Scene:
    """The lazy scene behind ``key``, after the steps before patch."""
    return place_of(node, key, index).scene


def grid_of_sample(node: Node, key: str, sample: Mapping[str, Array] | int) -> Grid:
    """The grid of an array of a sample, after all steps.

    Raises:
        ChainError: for a sample that was cut from what a random step moved: it does not tell which epoch it is of.
    """
    way = way_back(node, key, check=False)
    if isinstance(sample, (int, np.integer)):
        sample = finished(node.item(int(sample), Run(node.seed, 0)))
    else:
        way.need_first_epoch("grid", "give the number of the sample in the first epoch")
    for name in (f"{key}.scene", f"{key}.window"):
        if name not in sample:
            raise MissingKeyError(f"grid: the sample has no {name!r}; it has {sorted(sample)}")
    number, box = np.asarray(sample[f"{key}.scene"]), np.asarray(sample[f"{key}.window"])
    if number.ndim:
        raise ChainError(
            "grid: this is a batch; give one of its samples, such as {k: v[0] for k, v in batch.items()}"
        )
    place = place_of(node, key, int(number))
    grid = grid_of_window(place.scene, Window.from_array(place.scene.dims, box))
    for stage in way.sample:
        grid = stage.step.grid_after(grid, sample.get(residual_key(stage.key, stage.number)))
    return grid


def explain(node: Node) -> str:
    """A table of the steps, and for each patched key how its patches are read."""
    rows = [("step", "key", "reach", "dims and shape", "dtype")]
    notes: list[str] = []
    for link in node.path:
        item = _first(link)
        if isinstance(link, Map | Expand):
            for key, output in zip(link.keys, link.outputs):
                shown = (shown_key(key, output), shown_reach(link), *_shape(item, output))
                rows.append((_brief(repr(link.step)), *shown))
            if isinstance(link, Expand):
                notes += [*_pushdown(link), *_back(node, link)]
        elif isinstance(link, Batch):
            shapes = (
                [f"{key} {value.shape}" for key, value in item.values.items() if "." not in key]
                if item
                else []
            )
            rows.append((link.text()[1:], "", "", ", ".join(shapes), ""))
        else:
            rows.append((link.text().lstrip("."), "", "", "", ""))
    if kernels.compiled is None:
        notes.append(kernels.MISSING)
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def _brief(text: str) -> str:
    """A step as its call, without the middle of an array that it holds: a climatology has millions of numbers."""
    return text if len(text) <= 160 else f"{text[:110]} ... {text[-40:]}"


def _first(link: Node) -> Item | None:
    """The first item of a link, lazy where it can be; None where there is no index to ask for it."""
    run = Run(link.seed, 0)
    for task in link.tasks(run) if not _threads(link) else ():
        return task()
    return None


def _threads(link: Node) -> bool:
    from streamgeo.links import Iterable, Prefetch

    return any(isinstance(part, Prefetch | Iterable) for part in link.path)


def _shape(item: Item | None, key: str) -> tuple[str, str]:
    if item is None or key not in item.values:
        return "?", "?"
    value = item.values[key]
    if isinstance(value, Scene):
        return shown_sizes(value.dims, value.shape), str(np.dtype(value.dtype))
    place = item.places.get(key)
    dims = place.grid.dims if place is not None else ()
    return shown_sizes(dims, np.shape(value)), str(np.asarray(value).dtype)


def _file(scene: Scene) -> Scene:
    """The scene below all steps."""
    while isinstance(scene, StepScene):
        scene = scene.parent
    return scene


def _back(node: Node, link: Expand) -> list[str]:
    """How predictions would be put together again; nothing where the key cannot be undone."""
    notes = []
    for key in link.outputs if link.before.indexable and len(link.before) else ():
        scene = link.scene(0, Run(link.seed, 0))[0].values[link.keys[link.outputs.index(key)]]
        try:
            way = way_back(node, key)
        except (InverseError, ChainError):
            continue
        if not isinstance(scene, Scene):
            continue
        why = why_whole(way, None, scene)
        notes.append(
            f"{key}: the way back is taken row by row, as patches come." if why is None
            else f"{key}: the way back needs each scene as a whole: {why}."
        )  # fmt: skip
    return notes


def _pushdown(link: Expand) -> list[str]:
    if not link.before.indexable or not len(link.before):
        return []
    item, layout = link.scene(0, Run(link.seed, 0))
    notes = []
    for key in link.keys:
        value = item.values[key]
        if not isinstance(value, Scene):
            notes.append(f"{key}: an array in memory; patches are cut from it.")
            continue
        reader = _file(value).reader
        notes += [f"{key}: pixels are read as {reader}."] if reader else []
        why = value.why_whole() if isinstance(value, StepScene) else None
        if why is None:
            notes.append(
                f"{key}: pushed down; only the windows of the patches are read, and the steps run on them."
            )
        else:
            notes.append(
                f"{key}: not pushed down; each scene is computed whole, once, and kept in memory: {why}."
            )
    if layout.dropped:
        total = int(np.prod([cut.whole for cut in layout.cuts]))
        notes.append(
            f'edge="drop" leaves {layout.dropped} of {total} pixels of the first scene in no patch '
            f"({100 * layout.dropped / total:.2g} %)."
        )
    return notes
