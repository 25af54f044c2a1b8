"""Samples as files: arrays as they are, and what finds their scenes again; no code, so a file can do no harm."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from streamgeo.errors import ChainError
from streamgeo.grid import Grid, plain_grid
from streamgeo.links.base import Node
from streamgeo.links.combine import Joined
from streamgeo.links.kept import Entry, HollowScene, KeptScene, KeptStep, still
from streamgeo.links.patches import Expand
from streamgeo.links.steps import Edit, Map
from streamgeo.naming import naming
from streamgeo.openers import Opener
from streamgeo.plan import Draw, Item, Place, Run, StepScene, grid_after, grid_of, grid_of_window
from streamgeo.scene import ArrayScene, Scene
from streamgeo.step import Step
from streamgeo.template import Template
from streamgeo.window import Window

Array = NDArray[Any]
VERSION = 1


class Damaged(Exception):
    """A file that is not what it should be; the message says why."""


# -- one file -------------------------------------------------------------------------------------------


def to_bytes(meta: dict[str, Any], arrays: list[Array]) -> bytes:
    """An .npz file, not compressed: ``0.npy``, ``1.npy``, ... and ``meta.json``; each with its checksum.

    The members have no date, so that the same sample gives the same bytes.
    """
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("meta.json"), json.dumps(meta, default=int))
        for number, array in enumerate(arrays):
            with archive.open(zipfile.ZipInfo(f"{number}.npy"), "w", force_zip64=True) as member:
                npy.write_array(member, array, allow_pickle=False)
    return out.getvalue()


def from_file(path: Path, key: str, *, arrays: bool = True) -> tuple[dict[str, Any], list[Array]]:
    """What :func:`to_bytes` wrote, checked.

    Raises:
        Damaged: when it is truncated, changed, or not the file of ``key``.
        FileNotFoundError: when it is not there.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            meta = json.loads(archive.read("meta.json"))
            if not isinstance(meta, dict) or (meta.get("version"), meta.get("key")) != (VERSION, key):
                raise Damaged("it is the file of another sample")
            found = [_array(archive, number) for number in range(meta["arrays"])] if arrays else []
        return meta, found
    except (FileNotFoundError, Damaged):
        raise
    except Exception as error:  # a zip that was cut or changed shows in many ways
        raise Damaged(f"{type(error).__name__}: {error}") from error


def _array(archive: zipfile.ZipFile, number: int) -> Array:
    content = archive.read(f"{number}.npy")  # the checksum is compared here
    array: Array = npy.read_array(io.BytesIO(content), allow_pickle=False)
    array.flags.writeable = False
    return array


# -- a sample -------------------------------------------------------------------------------------------


class Packer:
    """Turns the entries of a chain to numbers and arrays, and back.

    A scene of a file is put down as the opener's files and the steps that it went through, and opened again,
    lazily, where the sample is taken from the folder.
    """

    def __init__(self, node: Node, scene: Callable[[Any], Scene]) -> None:
        self.node, self._found = node, scene

    def pack(self, entry: Entry, key: str) -> tuple[dict[str, Any], list[Array]]:
        """The entry as JSON can hold it, and its arrays."""
        arrays: list[Array] = []
        meta = {"version": VERSION, "key": key, "after": entry.after, "item": self._item(entry.item, arrays)}
        return {**meta, "arrays": len(arrays)}, arrays

    def unpack(self, meta: dict[str, Any], arrays: list[Array], kept: Callable[[Scene, str], Scene]) -> Entry:
        """The entry; ``kept`` makes the lazy scene under a name one whose pixels are kept."""
        return Entry(self._made(meta["item"], arrays, kept), meta["after"])

    def _item(self, item: Item, arrays: list[Array]) -> dict[str, Any]:
        return {
            "index": item.index,
            "values": {name: self._value(name, value, item, arrays) for name, value in item.values.items()},
            "places": {name: self._place(name, place, item, arrays) for name, place in item.places.items()},
            "residuals": {name: _put(name, array, arrays) for name, array in item.residuals.items()},
            "parts": [self._item(part, arrays) for part in item.parts],
        }

    def _value(self, name: str, value: Any, item: Item, arrays: list[Array]) -> Any:
        if isinstance(value, str):
            return {"text": str(value)}
        if isinstance(value, Scene):
            number = item.places[name].index if name in item.places else item.index
            return {"scene": self._recipe(name, value, number)}
        return _put(name, value, arrays)

    def _place(self, name: str, place: Place, item: Item, arrays: list[Array]) -> dict[str, Any]:
        lazy = isinstance(item.values.get(name), Scene)
        return {
            "index": place.index,
            "window": [place.window.dims, place.window.to_array().tolist()],
            "scene": self._recipe(name, place.scene, place.index),
            "lazy": lazy,
            "residuals": {key: _put(key, array, arrays) for key, array in place.residuals.items()},
        }

    def _recipe(self, name: str, scene: Scene, number: int) -> dict[str, Any]:
        """What finds a scene again."""
        layers: list[list[int]] = []
        while isinstance(scene, (StepScene, KeptScene)):
            if isinstance(scene, (KeptScene, KeptStep)):
                scene = scene.origin
            else:
                layers.insert(0, [scene.draw.step, scene.draw.index])
                scene = scene.parent
        if isinstance(scene, (ArrayScene, HollowScene)):
            if layers or scene.files or scene.grid != plain_grid(scene.shape):
                raise ChainError(
                    f"cache: {scene.name} is in memory only, so a folder cannot lead back to it; use .cache() "
                    "without a folder"
                )
            return {"name": scene.name, "shape": scene.shape, "dtype": np.dtype(scene.dtype).str}
        paths = [part.files[0] for part in getattr(scene, "parts", [scene])]
        return {"key": name, "number": number, "paths": paths, "layers": layers}

    def _made(self, meta: dict[str, Any], arrays: list[Array], kept: Callable[[Scene, str], Scene]) -> Item:
        values: dict[str, Any] = {}
        for name, value in meta["values"].items():
            if not isinstance(value, dict):
                values[name] = arrays[value]
            elif "text" in value:
                values[name] = np.str_(value["text"])
            else:
                values[name] = kept(self.scene(value["scene"]), name)
        places = {
            name: self._located(name, place, values.get(name), arrays)
            for name, place in meta["places"].items()
        }
        residuals = {name: arrays[number] for name, number in meta["residuals"].items()}
        parts = [self._made(part, arrays, kept) for part in meta["parts"]]
        return Item(meta["index"], values, places, residuals, parts)

    def _located(self, name: str, meta: dict[str, Any], value: Any, arrays: list[Array]) -> Place:
        scene = value if meta["lazy"] else self.scene(meta["scene"])
        dims, box = meta["window"]
        window = Window.from_array(tuple(dims), np.array(box, np.int64).reshape(-1, 2))
        residuals = {key: arrays[number] for key, number in meta["residuals"].items()}
        if meta["lazy"]:
            return Place(scene, meta["index"], window, partial(grid_of, scene), residuals)
        locate: Callable[[], Grid] = partial(grid_of_window, scene, window)
        layers = [step for step, _ in meta["scene"].get("layers", [])]
        for step in steps_on_arrays(self.node, name, meta["index"], layers):
            locate = partial(grid_after, step, locate)
        return Place(scene, meta["index"], window, locate, residuals)

    def scene(self, recipe: dict[str, Any]) -> Scene:
        """The scene of a recipe; one of a file is kept open while it is in use."""
        if "name" in recipe:
            grid = plain_grid(tuple(recipe["shape"]))
            template = Template("numpy", grid.dims, raw=True)
            return HollowScene(recipe["name"], grid, template, recipe["dtype"])
        return self._found(recipe)


def _put(name: str, value: Any, arrays: list[Array]) -> int:
    array = np.asarray(value)
    if array.dtype.hasobject or npy.descr_to_dtype(npy.dtype_to_descr(array.dtype)) != array.dtype:
        raise ChainError(
            f"cache: {name!r} has dtype {array.dtype}, which an .npy file cannot hold; use sg.cast, or .cache() "
            "without a folder"
        )
    arrays.append(still(array))
    return len(arrays) - 1


# -- the way of a key through a chain -------------------------------------------------------------------


def opened(node: Node, recipe: dict[str, Any], run: Run) -> Scene:
    """The lazy scene of a recipe: opened, and with the steps that it went through.

    Raises:
        Damaged: when the chain has no such opener or step.
    """
    steps: dict[int, Step] = {}
    opener: Opener | None = None
    for link, _ in trail(node, recipe["key"], recipe["number"]):
        if isinstance(link, Map):
            if isinstance(link.step, Opener):
                opener = link.step
                break
            steps[link.depth] = link.step
    if opener is None or any(step not in steps for step, _ in recipe["layers"]):
        raise Damaged("it names steps that the chain has not got")
    paths = recipe["paths"]
    with naming(opener.label, file=paths[0]):
        scene = opener(paths if len(paths) > 1 else paths[0])
    for step, index in recipe["layers"]:
        scene = StepScene(scene, steps[step], Draw(run, index, step))
    return scene


def trail(node: Node | None, key: str, number: int) -> Iterator[tuple[Node, str]]:
    """The links that scene ``number`` came through under ``key``, from the last to the first, with its name."""
    while node is not None:
        if isinstance(node, Joined):
            node, number = node.parent_of_scene(number)
            continue
        yield node, key
        if isinstance(node, Map | Expand) and key in node.outputs:
            key = node.keys[node.outputs.index(key)]
        elif isinstance(node, Edit) and node.renames and key == node.renames[1]:
            key = node.renames[0]
        node = node.parent


def steps_on_arrays(node: Node, key: str, number: int, layers: list[int]) -> list[Step]:
    """The steps that ran on the array since it was read, in the order of the chain."""
    steps: list[Step] = []
    for link, name in trail(node, key, number):
        if isinstance(link, Expand) and name in link.outputs:
            break
        if isinstance(link, Map) and name in link.outputs:
            if isinstance(link.step, Opener) or link.depth in layers:
                break
            steps.insert(0, link.step)
    return steps
