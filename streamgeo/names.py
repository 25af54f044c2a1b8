"""Names: those that do not clash, and those of files that a pattern matches."""

from __future__ import annotations

import glob
from collections.abc import Collection
from pathlib import Path


def unique(name: str, taken: Collection[str]) -> str:
    """``name``, or the first of ``name_1``, ``name_2``, ... that is not taken.

    >>> unique("x", ["x", "y"])
    'x_1'
    """
    candidate, i = name, 0
    while candidate in taken:
        i += 1
        candidate = f"{name}_{i}"
    return candidate


def matching(pattern: str | Path) -> list[str]:
    """What a pattern matches, in sorted order."""
    return sorted(glob.glob(str(Path(pattern).expanduser()), recursive=True))
