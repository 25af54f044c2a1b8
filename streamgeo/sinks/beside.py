"""Write beside, then rename: a file, or a folder that is a store, appears whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Give a path in a temporary folder beside ``path``; move it there when the block ends well.

    The temporary folder lies on the same file system, so the move is one rename. It is removed whatever
    happens, with any side-car file that a library leaves in it.
    """
    with tempfile.TemporaryDirectory(prefix=".streamgeo-", dir=path.parent) as folder:
        partial = Path(folder) / path.name
        yield partial
        for written in sorted(partial.rglob("*")) if partial.is_dir() else [partial]:
            if written.is_file():
                with written.open("rb+") as handle:
                    os.fsync(handle.fileno())
        _move(partial, path, Path(folder) / "old")


def _move(partial: Path, path: Path, old: Path) -> None:
    """Rename; a folder that is replaced goes first, and comes back if what should take its place cannot."""
    if not (partial.is_dir() and path.is_dir()):
        partial.replace(path)
        return
    path.replace(old)
    try:
        partial.replace(path)
    except OSError:
        old.replace(path)
        raise
