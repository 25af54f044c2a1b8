"""Copies that are put off for a while, so that one call does those of many patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgeo.chunked import HELD, Box, Chunked, few_pieces
from streamgeo.chunks import CACHE
from streamgeo.kernels import Pairs, Put
from streamgeo.meter import READ, span

Array = NDArray[Any]
_MANY = 256  # pieces that are copied at once


class Copy(NamedTuple):
    """A box of an array in chunks, where it goes, and how each piece of it is put there."""

    source: Chunked
    box: Box
    out: Array
    put: Put


class Together:
    """Pieces of decoded chunks, to be copied in one go.

    Every call into compiled code lets go of the interpreter, and waits for other threads when it comes back: for
    patches of chunks that are in memory that takes longer than the copy.

    Attributes:
        full: it is time to copy; what the cache lets go of meanwhile is held here.
    """

    def __init__(self) -> None:
        self._groups: dict[tuple[Put, np.dtype[Any]], Pairs] = {}
        self._count = self._held = 0
        self.full = False

    def take(self, copies: Sequence[Copy]) -> bool:
        """Decode what is to be copied, and note it; nothing, and False, where that is too much to be held.

        Raises:
            OpenError: as :meth:`Chunked.decode` says; then nothing is noted.
            Busy: as :meth:`ByteCache.get` says.
        """
        wanted, held = [], 0
        for copy in copies:
            pieces = few_pieces(copy.box, copy.source.chunks)
            if pieces is None or len(pieces) > copy.source.at_once:
                return False
            wanted.append(pieces)
            held += len(pieces) * copy.source.chunk_bytes
        room = max(HELD, CACHE.room)
        if held > room:
            return False
        found = [copy.source.parts(pieces) for copy, pieces in zip(copies, wanted)]
        for (_, _, out, put), parts in zip(copies, found):
            for part, at in parts:
                self._groups.setdefault((put, part.dtype), []).append((out[at], part))
            self._count += len(parts)
        self._held += held
        self.full = self._count >= _MANY or self._held > room
        return True

    def copy(self) -> None:
        """Copy what was noted."""
        groups, self._groups = self._groups, {}
        self._count, self._held, self.full = 0, 0, False
        with span(READ):
            for (put, _), pairs in groups.items():
                put.each(pairs)
