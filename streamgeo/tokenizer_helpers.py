"""mlx-data's readers of vocabularies: read_trie_from_spm, read_bpe_from_hf and so on; loaded when asked for."""

from __future__ import annotations

from typing import Any

from streamgeo import engine


def __getattr__(name: str) -> Any:
    """One of its names."""
    return getattr(engine.own("tokenizer_helpers"), name)


def __dir__() -> list[str]:
    """All of its names."""
    return dir(engine.own("tokenizer_helpers"))
