"""The order of samples: shuffled, chosen, shared out, repeated."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal, Self

import numpy as np

from streamgeo import links
from streamgeo.digest import digest
from streamgeo.errors import ChainError
from streamgeo.vocabulary.base import Described, conditional, count_of, part_of, times_of, whole


class BufferOrder(Described):
    """Other indices of the samples of a Buffer."""

    def _slice(self, index: slice) -> Self:
        chosen = range(*index.indices(len(self.node)))
        shown = f"[{':'.join('' if v is None else str(v) for v in (index.start, index.stop, index.step))}]"
        pick = partial(links.strided, start=chosen.start, step=chosen.step)
        return self._with(links.Select(self.node, pick, partial(links.fixed_size, size=len(chosen)), shown))

    def shuffle(self, seed: int = 0, locality: int | Literal["auto"] | None = "auto") -> Self:
        """A random order, another one each epoch; a pure function of (seed, epoch, position).

        No list is kept: it costs the same for ten samples and for 100 million.

        Args:
            seed: names the order.
            locality: how many consecutive samples are kept together. Blocks of so many are permuted, and samples
                mixed among 16 blocks at a time, so that what patches share (the chunks of their file) is decoded
                once even when it does not all fit into memory. ``"auto"`` takes, behind ``patch``, the patches of
                whole rows of chunks of the first scene, 32 at least; elsewhere it is None: a permutation of all
                samples, each order as likely as any other.

        Raises:
            ChainError: for a seed or a locality that is no whole number, or a locality below 1.
        """
        whole("shuffle", "seed", seed)
        block = None if locality == "auto" else locality
        if block is not None and (
            isinstance(block, bool) or not isinstance(block, (int, np.integer)) or block < 1
        ):
            raise ChainError(f'shuffle: locality={locality!r} must be a whole number above 0, None or "auto"')
        told = "" if locality == "auto" else f", locality={locality}"
        pick = partial(links.shuffled, seed=int(seed), block=None if block is None else int(block))
        if locality == "auto" and links.shares_chunks(self.node):
            pick = partial(links.near, seed=int(seed), node=self.node)
        return self._with(
            links.Select(self.node, pick, links.same_size, f".shuffle(seed={int(seed)}{told})", int(seed))
        )

    def perm(self, perm: Sequence[int]) -> Self:
        """The samples with these numbers, in this order; any subset, with repetitions."""
        given, size = np.asarray(perm), len(self.node)
        if given.ndim != 1 or (
            given.size and not (given.dtype.kind in "iu" and given.min() >= 0 and given.max() < size)
        ):
            raise ChainError(f"perm: give a list of whole numbers from 0 to {size - 1}")
        order = given.astype(np.int64)
        # A long list is told by its digest: repr stays readable, and another list has another fingerprint.
        shown = repr(order.tolist()) if order.size <= 1000 else f"<{order.size} numbers, {digest(order)}>"
        pick = partial(links.listed, order=order)
        count = partial(links.fixed_size, size=order.size)
        return self._with(links.Select(self.node, pick, count, f".perm({shown})"))

    def partition(self, num_partitions: int, partition: int) -> Self:
        """Every ``num_partitions``-th sample from number ``partition`` on."""
        num_partitions, partition = part_of("partition", num_partitions, partition)
        pick = partial(links.strided, start=partition, step=num_partitions)
        count = partial(links.partition_size, parts=num_partitions, part=partition)
        return self._with(links.Select(self.node, pick, count, f".partition({num_partitions}, {partition})"))

    def _share(self, num_shards: int, index: int) -> Self:
        num_shards, index = part_of("shard", num_shards, index)
        return self._with(links.Shard(self.node, num_shards, index))

    def take(self, count: int) -> Self:
        """The first ``count`` samples."""
        return self._slice(slice(None, count_of("take", count)))

    def skip(self, count: int) -> Self:
        """All but the first ``count`` samples."""
        return self._slice(slice(count_of("skip", count), None))

    def repeat(self, num_time: int) -> Self:
        """The samples ``num_time`` times over, each time as a new epoch."""
        return self._with(links.Repeat(self.node, times_of(num_time)))

    shuffle_if = conditional(shuffle)
    partition_if = conditional(partition)


class StreamOrder(Described):
    """Another order of the samples of a Stream."""

    def shuffle(self, buffer_size: int, seed: int = 0) -> Self:
        """Shuffled through a buffer of so many samples: each that comes lets a random one out."""
        size, named = whole("shuffle", "buffer_size", buffer_size, 1), whole("shuffle", "seed", seed)
        return self._with(links.Reservoir(self.node, size, named))

    def partition(self, num_partitions: int, partition: int) -> Self:
        """Every ``num_partitions``-th sample from number ``partition`` on."""
        num_partitions, partition = part_of("partition", num_partitions, partition)
        return self._with(links.Every(self.node, num_partitions, partition, False))

    def _share(self, num_shards: int, index: int) -> Self:
        num_shards, index = part_of("shard", num_shards, index)
        return self._with(links.Every(self.node, num_shards, index, True))

    def take(self, count: int) -> Self:
        """The first ``count`` samples."""
        return self._with(links.Part(self.node, 0, count_of("take", count), f".take({count})"))

    def skip(self, count: int) -> Self:
        """All but the first ``count`` samples, which are not made."""
        return self._with(links.Part(self.node, count_of("skip", count), None, f".skip({count})"))

    def repeat(self, num_time: int | None = None) -> Self:
        """The stream ``num_time`` times over, each time as a new epoch; without end when None or negative."""
        endless = num_time is None or (isinstance(num_time, (int, np.integer)) and num_time < 0)
        return self._with(links.Repeat(self.node, None if endless else times_of(num_time or 0)))

    shuffle_if = conditional(shuffle)
    partition_if = conditional(partition)
