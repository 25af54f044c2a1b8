"""The scene behind a sample, found again from its number alone."""

from __future__ import annotations

from functools import partial

import numpy as np

from streamgeo.errors import ChainError, MissingKeyError
from streamgeo.links import Edit, Expand, Map, Node
from streamgeo.plan import Item, Place, Run, as_scene, grid_of, naming
from streamgeo.scene import Scene


def place_of(node: Node, key: str, number: int) -> Place:
    """The place of scene ``number`` under ``key``, as the scene is just before it is patched (or at the end).

    Shuffles, slices and batches do not matter: the number of a scene is that of its file.

    Raises:
        ChainError: when the chain does not start from something with an index.
    """
    source = node.path[0]
    if not source.indexable:
        raise ChainError(
            f"{source.text()}: its samples have no index, so a scene cannot be found by its number"
        )
    if not 0 <= number < len(source):
        raise ChainError(f"scene {number} of {len(source)}: there is no such scene")
    run = Run(node.seed, 0)
    name = name_at_patch(node, key)
    with naming("", index=number):
        item = source.item(number, run)
        for link in node.path[1:]:
            if isinstance(link, Expand) and name in link.keys:
                break
            if isinstance(link, Map):
                item = link.apply(item, run)
            elif isinstance(link, Edit):
                item = link.change(item)
    return _place(item, name, number)


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
    for link in reversed(node.path):
        if isinstance(link, Expand) and name in link.outputs:
            return link.keys[link.outputs.index(name)]
        if isinstance(link, Map) and name in link.outputs:
            name = link.keys[link.outputs.index(name)]
        elif isinstance(link, Edit) and link.renames and name == link.renames[1]:
            name = link.renames[0]
    return key
