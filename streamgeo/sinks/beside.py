"""Write beside, then rename: a file appears whole or not at all."""

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
        with partial.open("rb+") as handle:
            os.fsync(handle.fileno())
        partial.replace(path)
