"""Samples that are kept."""

from __future__ import annotations

import os
from typing import Self

from streamgeo import links
from streamgeo.vocabulary.base import Described, whole


class Caching(Described):
    """Samples that are kept."""

    def cache(self, max_bytes: int | None = None, folder: str | os.PathLike[str] | None = None) -> Self:
        """Keep finished samples, so that a later epoch does not compute them again.

        What comes out is the same with and without it, random draws of later steps included. A scene that is
        still lazy stays lazy: its pixels are read or computed whole when the first of them is wanted, and kept,
        so ``.cache()`` between a heavy step and ``patch`` keeps the result of the step. A scene that does not
        fit is read as without a cache. The arrays that later steps get cannot be written to.

        In a Buffer a sample is told by what it is, so ``shuffle`` may stand before or behind. In a Stream it is
        told by its position, and what comes first is kept, as far as it fits.

        Args:
            max_bytes: how much is kept at most; what does not fit is computed each time, and counted in
                :meth:`Stream.stats`. By default a quarter of the memory that was free at first use; for a folder,
                no limit.
            folder: keep them in files there, for later processes too, and for several at a time. Their names
                tell the chain before, with the code of plain functions, and each sample's files by path, size
                and time, so what has changed is computed anew. What functions read by themselves is not seen.
                With ``max_bytes``, files of other chains that were used longest ago are removed; no other
                file of the folder is touched.

        Raises:
            ChainError: behind random steps, which it would freeze; behind a shuffle that it cannot see through;
                behind ``shard``; for a ``max_bytes`` below 1; for a folder that cannot be written to.
        """
        most = None if max_bytes is None else whole("cache", "max_bytes", max_bytes, 1)
        return self._with(links.cached(self.node, most, folder))
