"""Operations on arrays of any dtype."""

from __future__ import annotations

from functools import partial
from typing import Self

from streamgeo import links
from streamgeo.vocabulary.base import Described


class Arrays(Described):
    """Operations on arrays."""

    def remove_value(self, key: str, size_key: str, dim: int, value: float, pad: float = 0) -> Self:
        """Remove a value from an array, shifting the rest to the start of ``dim``; as in mlx-data.

        The shape stays, the end is filled with ``pad``, and ``size_key`` gets the number of values left.
        """
        shown = f".remove_value({key!r}, {size_key!r}, {dim}, {value!r}, {pad!r})"
        change = partial(links.remove_value, key=key, size_key=size_key, dim=dim, value=value, pad=pad)
        return self._with(links.Edit(self.node, change, shown, (key, size_key)))
