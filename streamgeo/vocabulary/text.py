"""Operations on text: bytes as int8 arrays, as mlx-data has them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Self

from streamgeo.engine import Kernel, Merges, Trie
from streamgeo.errors import ChainError
from streamgeo.vocabulary import array_kernels as k
from streamgeo.vocabulary import file_kernels
from streamgeo.vocabulary.base import Described, conditional


class Text(Described):
    """Text under a key: a string, or its bytes in int8 or uint8. The result is int8."""

    def replace(self, key: str, old: str, replacement: str, count: int = -1) -> Self:
        """``replacement`` in the place of ``old``, at most ``count`` times where that is not negative."""
        if not old:
            raise ChainError("replace: old is empty; give the text that is to be replaced")
        f = partial(k.replaced, old=old, replacement=replacement, count=count)
        return self._apply("replace", key, "", f, old, replacement, count)

    def replace_bytes(self, ikey: str, byte_map: Sequence[str], output_key: str = "") -> Self:
        """For each byte the text at its place in ``byte_map``, nothing past the end of the map.

        Arrays of other dtypes are taken byte by byte as they lie in memory.
        """
        table = tuple(text.encode() for text in byte_map[:256])
        f = partial(k.mapped, byte_map=table + (b"",) * (256 - len(table)))
        return self._apply("replace_bytes", ikey, output_key, f, list(byte_map))

    def tokenize(
        self,
        key: str,
        trie: Any,
        mode: Any = None,
        ignore_unk: bool = False,
        trie_key_scores: Sequence[float] = (),
        output_key: str = "",
    ) -> Self:
        """The numbers of the tokens that make up a text, in int64.

        Args:
            key: the text.
            trie: a ``mlx.data.core.CharTrie`` with the tokens.
            mode: ``TokenizeMode.Shortest`` (the default), or ``Rand``, which draws one of the ways to split
                the text; the draw depends on (seed, epoch, sample) only.
            ignore_unk: leave out what no token matches, which is an error otherwise.
            trie_key_scores: a weight for each token; the way with the least sum is taken.
            output_key: where the numbers go; by default they replace the text.
        """
        held = _trie("tokenize", "trie", trie)
        random = getattr(mode, "name", "Shortest") == "Rand"
        arguments: dict[str, Any] = {"key": "text", "trie": held, "ignore_unk": bool(ignore_unk)}
        arguments |= {"trie_key_scores": list(trie_key_scores)} | ({"mode": mode} if random else {})
        f = partial(file_kernels.tokens, kernel=Kernel("tokenize", arguments), seeded=random)
        told = [held, *(["mode=Rand"] if random else []), *(["ignore_unk=True"] if ignore_unk else [])]
        return self._apply("tokenize", key, output_key, f, *told, draws=random)

    def tokenize_bpe(self, key: str, symbols: Any, merges: Any, output_key: str = "") -> Self:
        """The numbers of the tokens of a text by byte pair encoding, in int64.

        Args:
            key: the text.
            symbols: a ``mlx.data.core.CharTrie`` with the symbols.
            merges: ``mlx.data.core.BPEMerges``, which pairs become which token.
            output_key: where the numbers go; by default they replace the text.
        """
        held = _trie("tokenize_bpe", "symbols", symbols)
        if type(merges).__name__ != "BPEMerges":
            raise ChainError(
                f"tokenize_bpe: merges is a {type(merges).__name__}; give an mlx.data.core.BPEMerges"
            )
        pairs = Merges(merges)
        kernel = Kernel("tokenize_bpe", {"key": "text", "symbols": held, "merges": pairs})
        f = partial(file_kernels.tokens, kernel=kernel, seeded=False)
        return self._apply("tokenize_bpe", key, output_key, f, held, pairs)

    replace_if = conditional(replace)
    replace_bytes_if = conditional(replace_bytes)
    tokenize_if = conditional(tokenize)
    tokenize_bpe_if = conditional(tokenize_bpe)


def _trie(operation: str, what: str, trie: Any) -> Trie:
    if type(trie).__name__ != "CharTrie":
        raise ChainError(f"{operation}: {what} is a {type(trie).__name__}; give an mlx.data.core.CharTrie")
    return Trie(trie)
