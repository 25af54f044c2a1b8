"""One line of progress on a terminal."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from streamgeo.links import Node
from streamgeo.stats import Stats

_EVERY = 1.0  # seconds between two looks at the statistics


class Line:
    """How far an epoch is, its samples per second, and what limits them.

    It appears after two seconds, and never where the output is no terminal.
    """

    def __init__(self, node: Node, stats: Callable[[], Stats], position: int = 0) -> None:
        self._stats, self._looked = stats, monotonic()
        self._bar = bar(node, position, None, "step")

    def step(self) -> None:
        """One more sample (or batch) was handed out."""
        if self._bar.disable:
            return
        now = monotonic()
        if now - self._looked >= _EVERY:
            self._looked = now
            stats = self._stats()
            self._bar.set_postfix_str(
                f"{stats.samples_per_s:.4g} samples/s, {stats.limit.split(':')[0]}", False
            )
        self._bar.update()

    def close(self) -> None:
        """Take the line away."""
        self._bar.close()


def bar(node: Node, position: int, what: str | None, unit: str) -> Any:
    """A line of tqdm over an epoch that is taken up at a position: after two seconds, and only on a terminal."""
    from tqdm import tqdm

    return tqdm(
        total=_length(node), initial=position, desc=what, unit=unit, delay=2, disable=None, leave=False
    )


def _length(node: Node) -> int | None:
    try:
        return len(node)
    except TypeError:  # what has no length says so
        return None
