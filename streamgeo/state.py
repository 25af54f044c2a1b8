"""Where a stream stands: a small dict that JSON can hold, and the check that it belongs to this chain."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streamgeo.errors import ChainError
from streamgeo.links import Cache, Cursor, Every, Files, Joined, Node, Prefetch, Select, Shard, block_of, near

VERSION = 2


@dataclass
class Position:
    """Epoch, number of samples handed out in it, and the cursor behind the last of them."""

    epoch: int = 0
    count: int = 0
    cursor: Cursor = None


def fingerprint(node: Node) -> list[str]:
    """What a chain is, link by link: the call that made each, with long ones shortened to a digest.

    Threads, the number of shards, and where a cache keeps how much are left out, since order does not depend on
    them. Files count with name and size.
    """
    links, files = _walk(node)
    told = [f"{path.rstrip('/').rpartition('/')[2]} {_size(path)}" for path in files]
    return [*links, f"{len(files)} files, {_digest(told)}"]


def _walk(node: Node) -> tuple[list[str], list[str]]:
    """The texts of the links that decide the order, and the files that they read."""
    links: list[str] = []
    files: list[str] = []
    for link in node.path:
        if isinstance(link, Joined):
            parts = [_walk(parent) for parent in link.parents]
            links = [f"{type(link).__name__}: {texts}" for texts, _ in parts]
            files = [path for _, paths in parts for path in paths]
            links.append(_short(link.text()) if not files else type(link).__name__)
        elif isinstance(link, Files):
            files += _paths(link.paths)
        if not isinstance(link, Prefetch | Shard | Joined) and not (isinstance(link, Every) and link.even):
            links.append(".cache()" if isinstance(link, Cache) else _short(link.text()))
        if isinstance(link, Select) and getattr(link.pick, "func", None) is near:
            links.append(f"in blocks of {block_of(link.before)}")  # by the chunks of the first file
    return links, files


def _paths(entries: Sequence[str | tuple[str, ...]]) -> list[str]:
    return [path for entry in entries for path in ([entry] if isinstance(entry, str) else entry)]


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # a Path costs ten times that
    except OSError:
        return -1  # it is told when it is opened


def _short(text: str) -> str:
    if text.startswith("sg.files("):
        return "sg.files(...)"  # told by the files themselves, which may lie elsewhere by now
    return text if len(text) <= 200 else f"{text[:80]}... {_digest([text])}"


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def to_dict(position: Position, seed: int, marks: list[str]) -> dict[str, Any]:
    """The state as a dict."""
    state = {
        "version": VERSION,
        "seed": seed,
        "epoch": position.epoch,
        "position": position.count,
        "cursor": position.cursor,
        "fingerprint": marks,
    }
    return {**state, "digest": _digest_of(state)}


def _digest_of(state: Mapping[str, Any]) -> str:
    """Of all that is in a state beside this."""
    return _digest([json.dumps({key: state[key] for key in state if key != "digest"}, sort_keys=True)])


def from_dict(state: Mapping[str, Any], marks: list[str]) -> Position:
    """The position in a state.

    Raises:
        ChainError: when it is no state, or that of another chain; the message says what differs.
    """
    try:
        version, theirs = state["version"], list(state["fingerprint"])
        whole = version != VERSION or state["digest"] == _digest_of(state)
        position = Position(state["epoch"], state["position"], state["cursor"])
    except (KeyError, TypeError, ValueError) as error:
        raise ChainError(
            f"load_state_dict: not a state of a stream ({error!r} is missing or wrong)"
        ) from None
    if version != VERSION:
        raise ChainError(f"load_state_dict: the state has version {version}, this streamgeo writes {VERSION}")
    if theirs != marks:
        pairs = list(zip(theirs, marks))
        told = next((f"{a!r} in the state, {b!r} here" for a, b in pairs if a != b), "")
        told = told or f"{len(theirs)} links in the state, {len(marks)} here"
        raise ChainError(f"load_state_dict: the state is that of another chain: {told}")
    if not whole:
        raise ChainError(
            "load_state_dict: the state is not what state_dict() gave: its digest does not fit; give it unchanged"
        )
    return position
