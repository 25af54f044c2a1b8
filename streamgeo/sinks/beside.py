"""Write beside, then rename: a file, or a folder that is a store, appears whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TURNS = 10
_RACE = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT)  # another store has come, or was moved away, meanwhile


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
        _move(partial, path, Path(folder))


def _move(partial: Path, path: Path, folder: Path) -> None:
    """Rename; a folder that is replaced goes first, and comes back if what should take its place cannot.

    Another process may save a store under the same name meanwhile: then the last one stays.
    """
    for turn in range(_TURNS):
        old = folder / f"old-{turn}"
        try:
            if partial.is_dir() and path.is_dir():
                path.replace(old)
            partial.replace(path)
            return
        except OSError as error:
            if error.errno in _RACE and turn < _TURNS - 1:
                continue
            if old.exists() and not path.exists():
                old.replace(path)
            raise
