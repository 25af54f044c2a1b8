"""The links of a chain: frozen descriptions, each of which makes items from those of the link before it."""

from streamgeo.links.base import Cursor, Link, Node, Ready, Task, epoch
from streamgeo.links.batch import Batch
from streamgeo.links.combine import Concatenate, Filter, Joined, Mix, Part, Zip, renumber
from streamgeo.links.order import (
    AsStream,
    Every,
    Prefetch,
    Repeat,
    Reservoir,
    Select,
    Shard,
    fixed_size,
    listed,
    partition_size,
    same_size,
    shuffled,
    strided,
)
from streamgeo.links.patches import Expand
from streamgeo.links.sources import Files, Iterable, MlxBuffer, Vector
from streamgeo.links.steps import Edit, Map, remove_value, rename, select_keys, transform_sample

__all__ = [
    "AsStream",
    "Batch",
    "Concatenate",
    "Cursor",
    "Edit",
    "Every",
    "Expand",
    "Files",
    "Filter",
    "Iterable",
    "Joined",
    "Link",
    "Map",
    "Mix",
    "MlxBuffer",
    "Node",
    "Part",
    "Prefetch",
    "Ready",
    "Repeat",
    "Reservoir",
    "Select",
    "Shard",
    "Task",
    "Vector",
    "Zip",
    "epoch",
    "fixed_size",
    "listed",
    "partition_size",
    "remove_value",
    "rename",
    "renumber",
    "same_size",
    "select_keys",
    "shard_size",
    "shuffled",
    "strided",
    "transform_sample",
]
