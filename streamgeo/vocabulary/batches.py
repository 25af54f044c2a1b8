"""Samples stacked together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np

from streamgeo import links
from streamgeo.errors import ChainError
from streamgeo.vocabulary.base import Described


class Batches(Described):
    """Samples stacked together."""

    def batch(
        self,
        batch_size: int | Sequence[int],
        pad: Mapping[str, float] | None = None,
        dim: Mapping[str, int] | None = None,
        drop_last: bool = False,
    ) -> Self:
        """Stack samples along a new leading axis.

        Args:
            batch_size: samples in a batch (or a list, the size of each batch).
            pad: by key, a value to fill up arrays of different shapes with. Without it they are an error.
            dim: by key, an existing axis to concatenate along instead.
            drop_last: leave out a last batch that is not full.

        Raises:
            ChainError: for a size below 1.
            BatchError: on reading, when keys, shapes or dtypes of the samples differ.
        """
        sizes = (batch_size,) if isinstance(batch_size, (int, np.integer)) else tuple(batch_size)
        for size in sizes:
            if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
                raise ChainError(f"batch: size {size!r} must be a whole number, 1 or more")
        count = int(sizes[0]) if isinstance(batch_size, (int, np.integer)) else tuple(int(s) for s in sizes)
        return self._with(links.Batch(self.node, count, dict(pad or {}), dict(dim or {}), drop_last))
