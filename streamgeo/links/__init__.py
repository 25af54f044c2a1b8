"""The links of a chain: frozen descriptions, each of which makes items from those of the link before it."""

from streamgeo.links.apply import Apply, applied, arrays, on_sample, written
from streamgeo.links.base import Cursor, Link, Node, Ready, Task, epoch
from streamgeo.links.batch import Batch, filling
from streamgeo.links.cache import Cache, cached
from streamgeo.links.choose import Choose
from streamgeo.links.combine import Concatenate, Filter, Joined, Mix, Part, Zip, called, renumber, repr_of
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
from streamgeo.links.patches import Expand, shares_chunks
from streamgeo.links.refill import Packing, Refill, by_function, dynamic_batch, packed
from streamgeo.links.sources import Files, Iterable, MlxBuffer, Vector
from streamgeo.links.steps import Edit, Map, rename, select_keys, transform_sample
from streamgeo.links.unfold import Drop, Sift, Unfold, made_ahead, readable, rows, windows

__all__ = [
    "Apply",
    "AsStream",
    "Batch",
    "Cache",
    "Choose",
    "Concatenate",
    "Cursor",
    "Drop",
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
    "Packing",
    "Part",
    "Prefetch",
    "Ready",
    "Refill",
    "Repeat",
    "Reservoir",
    "Select",
    "Shard",
    "Sift",
    "Task",
    "Unfold",
    "Vector",
    "Zip",
    "applied",
    "arrays",
    "by_function",
    "cached",
    "called",
    "dynamic_batch",
    "epoch",
    "filling",
    "fixed_size",
    "listed",
    "made_ahead",
    "on_sample",
    "packed",
    "partition_size",
    "readable",
    "rename",
    "renumber",
    "repr_of",
    "rows",
    "same_size",
    "select_keys",
    "shard_size",
    "shares_chunks",
    "shuffled",
    "strided",
    "transform_sample",
    "windows",
    "written",
]
