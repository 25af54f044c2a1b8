"""The scene behind a sample, found again from its number alone."""

from __future__ import annotations

from functools import partial

import numpy as np

from streamgeo.errors import ChainError, MissingKeyError
from streamgeo.links import Edit, Expand, Joined, Map, Node, renumber
from streamgeo.naming import naming
from streamgeo.plan import Item, Place, Run, as_scene, grid_of
from streamgeo.scene import Scene


def place_of(node: Node, key: str, number: int) -> Place:
    """The place of scene ``number`` under ``key``, as the scene is just before it is patched (or at the end).

    Shuffles, slices and batches do not matter: the number of a scene is that of its file.

    Raises:
        ChainError: when the chain does not start from something with an index.
    """
    name = name_at_patch(node, key)
    with naming("", index=number):
        item, _ = _replayed(node, name, number, Run(node.seed, 0))
    return _place(item, name, number)


def _replayed(node: Node, key: str, number: int, run: Run) -> tuple[Item, bool]:
    """The item of scene ``number`` before ``key`` is patched, and whether that point was reached."""
    if isinstance(node, Joined):
        parent, inner = node.parent_of_scene(number)
        item, done = _replayed(parent, key, inner, run)
        return renumber(item, number - inner), done
    if node.parent is None:
        if not node.indexable:
            raise ChainError(
                f"{node.text()}: its samples have no index, so a scene cannot be found by its number"
            )
        if not 0 <= number < len(node):
            raise ChainError(f"scene {number} of {len(node)}: there is no such scene")
        return node.item(number, run), False
    item, done = _replayed(node.parent, key, number, run)
    if done or (isinstance(node, Expand) and key in node.keys):
        return item, True
    if isinstance(node, Map):
        return node.apply(item, run), False
    return (node.change(item) if isinstance(node, Edit) else item), False


def _place(item: Item, key: str, number: int) -> Place:
    if key in item.places:
        return item.places[key]
    if key not in item.values:
        raise MissingKeyError(f"no key {key!r} in the sample; it has {sorted(item.values)}")
    value = item.values[key]
    scene = value if isinstance(value, Scene) else as_scene(np.asarray(value), f"{key}_{number}")
    return Place(scene, number, scene.window, partial(grid_of, scene), dict(item.residuals))


def name_at_patch(node: Node, key: str) -> str:
    """The name that ``key`` had where it was patched; its own name where it was not."""
    name = key
    for link in reversed(node.path_of(key)):
        if isinstance(link, Expand) and name in link.outputs:
            return link.keys[link.outputs.index(name)]
        if isinstance(link, Map) and name in link.outputs:
            name = link.keys[link.outputs.index(name)]
        elif isinstance(link, Edit) and link.renames and name == link.renames[1]:
            name = link.renames[0]
    return key
