"""Which sample stands at an index, whatever the epoch, and what a chain is, whatever the process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from streamgeo.digest import digest, version
from streamgeo.errors import ChainError
from streamgeo.links.apply import Apply
from streamgeo.links.base import Node
from streamgeo.links.batch import Batch
from streamgeo.links.choose import Choose
from streamgeo.links.combine import Concatenate, Filter, Joined, Part, Zip
from streamgeo.links.order import AsStream, Every, Prefetch, Repeat, Select, Shard, listed, strided
from streamgeo.links.patches import Expand
from streamgeo.links.sources import Files, Iterable, MlxBuffer, Vector
from streamgeo.links.steps import Edit, Map
from streamgeo.plan import Run

Mark = Any  # tells one sample from all others of its chain: nested tuples of numbers and text
Tell = Callable[[Vector, int], str]

_DRAWN = (
    Vector,
    Files,
    Iterable,
    MlxBuffer,
    Map,
    Edit,
    Apply,
    AsStream,
    Batch,
    Part,
    Repeat,
    Concatenate,
    Zip,
)
_FIXED = (*_DRAWN, Filter, Prefetch, Expand)


def parents_of(node: Node) -> tuple[Node, ...]:
    """The links that a link stands on."""
    if isinstance(node, Joined):
        return node.parents
    return () if node.parent is None else (node.parent,)


def links_of(node: Node) -> Iterator[Node]:
    """A link, and all before it, in every chain that joins it."""
    yield node
    for parent in parents_of(node):
        yield from links_of(parent)


def keeps_order(node: Node) -> bool:
    """Whether this link gives the same samples in the same order in every epoch, if the links before do.

    A link that is not known here may mix anew each epoch, so it counts as one that does.
    """
    if isinstance(node, Select):
        return getattr(node.pick, "func", None) in (strided, listed)
    if isinstance(node, Every):
        return not node.even
    return type(node) in _FIXED or getattr(node, "keeps_order", False)


def makes_to_draw(node: Node) -> bool:
    """Whether drawing a task of a chain makes samples, or lets threads make them."""
    return any(type(link) not in (*_DRAWN, Select, Every) for link in links_of(node))


def check(node: Node) -> None:
    """Refuse a cache behind links that give other samples each epoch.

    Raises:
        ChainError: names the link and the remedy.
    """
    for link in links_of(node):
        text = link.text()[:200]
        if link.random and not any(parent.random for parent in parents_of(link)):
            raise ChainError(
                f"cache: {text} draws random numbers anew each epoch, and a cache behind it would freeze them; "
                "put .cache() before it"
            )
        if isinstance(link, Shard) or (isinstance(link, Every) and link.even):
            raise ChainError(
                f"cache: {text} hands each rank other samples when their number changes; put .cache() before it "
                "(a rank keeps only what it reads)"
            )
    _check_order(node, through=node.indexable)


def _check_order(node: Node, *, through: bool) -> None:
    """``through``: up to here samples are told apart by what they are, so their order may change."""
    known = isinstance(node, Select) and not keeps_order(node)
    if not keeps_order(node) and not (known and through):
        raise ChainError(
            f"cache: {node.text()[:200]} may give another order each epoch, and what is kept behind it would be that "
            "of the first one; put .cache() before it"
        )
    alone = isinstance(node, Select | Repeat | Concatenate | Map | Edit) or getattr(
        node, "keeps_order", False
    )
    for parent in parents_of(node):
        _check_order(parent, through=through and alone)


def mark_of(node: Node, index: int, run: Run, tell: Tell) -> Mark:
    """What tells the sample at ``index``: its number, and name, size and time of its files.

    A sample of a list is told by its number and by what ``tell`` says of it.
    """
    if isinstance(node, Vector):
        return index, tell(node, index)
    if isinstance(node, Files):
        return index, *stamps([node.paths[index]])
    if isinstance(node, MlxBuffer):
        return (index,)
    if isinstance(node, Select):
        return mark_of(node.before, node.pick(index, node.before.length(run), run), run, tell)
    if isinstance(node, Choose):
        return mark_of(node.before, node.at(index, run), run, tell)
    if isinstance(node, Repeat):
        epoch, at = divmod(index, node.before.length(run))
        return mark_of(node.before, at, node._epoch(run, epoch), tell)
    if isinstance(node, Expand):
        scene, part = node._find(index, run) or (-1, -1)
        return index, part, mark_of(node.before, scene, run, tell)
    if isinstance(node, Batch):
        return index, *(mark_of(node.before, i, run, tell) for i in _members(node, index))
    if isinstance(node, Concatenate):
        for which, parent in enumerate(node.parents):
            if index < parent.length(run):
                return which, node.offsets[which], mark_of(parent, index, run, tell)
            index -= parent.length(run)
    if isinstance(node, Zip):
        marks = (mark_of(parent, index, run, tell) for parent in node.parents)
        return *node.offsets, *marks
    assert node.parent is not None
    return mark_of(node.parent, index, run, tell)  # one to one, which check() has made sure of


def _members(node: Batch, index: int) -> range:
    if isinstance(node.size, tuple):
        low = sum(node.size[:index])
        return range(low, low + node.size[index])
    return range(index * node.size, min((index + 1) * node.size, len(node.before)))


def stamps(entries: Any) -> Iterator[tuple[str, int, int]]:
    """Path, size and time of modification of files; one that is not there is told when it is opened."""
    for path in (p for entry in entries for p in ([entry] if isinstance(entry, str) else entry)):
        try:
            found = Path(path).stat()
            yield str(Path(path).absolute()), found.st_size, found.st_mtime_ns
        except OSError:
            yield str(Path(path).absolute()), -1, -1


def stamp(node: Node, tell: Tell) -> str:
    """All files and lists that a chain reads, as a digest."""
    parts: list[Any] = []
    for link in links_of(node):
        if isinstance(link, Files):
            parts += stamps(link.paths)
        elif isinstance(link, Vector) and tell is content:
            parts += [content(link, index) for index in range(len(link))]
    return digest(parts)


def content(node: Vector, index: int) -> str:
    """A sample of a list, told by its values."""
    return digest(node.item(index, Run()).values)


def number_only(node: Vector, index: int) -> str:
    """A sample of a list, told by its number alone: enough within one process, where the list stays the same."""
    return ""


_LEFT_OUT = {
    "before",
    "parents",
    "shown",
    "data",
    "paths",
    "threads",
    "ahead",
    "max_bytes",
    "folder",
    "index",
}


def chain_digest(node: Node) -> str:
    """What a chain computes, without its files and lists: its links with their steps, functions and numbers."""
    parts: list[Any] = [version("streamgeo")]
    for link in links_of(node):
        if not isinstance(link, Prefetch):
            inner = {f.name: getattr(link, f.name) for f in fields(link) if f.name not in _LEFT_OUT}
            parts.append((type(link).__name__, inner))
    return digest(parts)
