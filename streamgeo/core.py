"""mlx-data's core: CharTrie, Tokenizer, BPEMerges, BPETokenizer, file fetchers. Loaded when a name is asked for."""

from __future__ import annotations

from typing import Any

from streamgeo import engine


def __getattr__(name: str) -> Any:
    """One of its names."""
    return getattr(engine.own("core"), name)


def __dir__() -> list[str]:
    """All of its names."""
    return dir(engine.own("core"))
