"""Names that do not clash."""

from __future__ import annotations

from collections.abc import Collection


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
