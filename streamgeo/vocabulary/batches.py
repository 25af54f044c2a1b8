"""Samples stacked together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Number
from typing import Any, Self

import numpy as np

from streamgeo import links
from streamgeo.errors import ChainError
from streamgeo.parameters import function_name
from streamgeo.vocabulary.base import Described, by_key, names, whole


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
            pad: by key, a value to fill up arrays of different shapes with. Without it they are an error, but
                for vectors that did not come from a file: these are filled up with zero, as in mlx-data.
            dim: by key, an existing axis to concatenate along instead.
            drop_last: leave out a last batch that is not full.

        Raises:
            ChainError: for a size below 1.
            BatchError: on reading, when keys, shapes or dtypes of the samples differ.
        """
        several = isinstance(batch_size, Sequence | np.ndarray) and not isinstance(batch_size, str | bytes)
        sizes = tuple(whole("batch", "size", size, 1) for size in (batch_size if several else (batch_size,)))  # type: ignore[union-attr]
        if not sizes:
            raise ChainError("batch: the list of sizes is empty")
        count = sizes if several else sizes[0]
        padded = by_key("batch", "pad", pad, Number, "a number")
        axes = by_key("batch", "dim", dim, int, "a whole number")
        return self._with(links.Batch(self.node, count, padded, axes, bool(drop_last)))


class BufferBatches(Described):
    """Batches of a Buffer: of neighbours, of samples of many sizes."""

    def windows(self, size: int, stride: int = 1) -> Self:
        """Neighbouring samples stacked along a new leading axis, from each ``stride``-th sample on: a time series.

        A window that would end behind the last sample is left out. ``shuffle`` behind it shuffles windows; before
        it, what is neighbouring.

        >>> from streamgeo import buffer_from_vector
        >>> series = buffer_from_vector([{"x": n} for n in range(5)])
        >>> [window["x"].tolist() for window in series.windows(3, stride=2)]
        [[0, 1, 2], [2, 3, 4]]

        Raises:
            ChainError: for a size or a stride below 1.
        """
        length, step = whole("windows", "size", size, 1), whole("windows", "stride", stride, 1)
        return self._with(links.Windows(self.node, length, {}, {}, True, step))

    def dynamic_batch(
        self,
        key: str,
        min_data_size: int = -1,
        max_data_size: int = -1,
        pad: Mapping[str, float] | None = None,
        dim: Mapping[str, int] | None = None,
        drop_outliers: bool = False,
    ) -> Self:
        """Samples of about the same size together, so that little is padded.

        All samples are made once for their sizes, when the first batch or the length is asked for.

        Args:
            key: the array whose size counts.
            min_data_size: least number of its elements in a batch, padding included; samples that cannot be
                brought into such a batch are left out. Any number for 0 and below.
            max_data_size: largest number of its elements in a batch. For 0 and below all is one batch.
            pad: by key, a value to fill up with.
            dim: by key, an existing axis to concatenate along instead.
            drop_outliers: leave out samples larger than ``max_data_size``, which are batches of their own else.
        """
        packing = _packing(key, min_data_size, max_data_size, pad, dim, drop_outliers)
        told = _shown(key, packing)
        return self._with(links.dynamic_batch(self.node, packing, f".dynamic_batch({told})"))


class StreamBatches(Described):
    """A Stream taken buffer by buffer."""

    def buffered(
        self, buffer_size: int, on_refill: Callable[[Any], Any] | None = None, num_threads: int = 1
    ) -> Self:
        """Gather so many samples in a Buffer, let a function change it, and hand out its samples.

        Args:
            buffer_size: samples in a Buffer.
            on_refill: function of a Buffer that returns one, such as ``lambda b: b.shuffle()``. What it returns
                must depend on the Buffer only. A shuffle in it draws anew for each Buffer.
            num_threads: threads that fill the Buffer; with 1, its samples are made when they are asked for.
        """
        size = whole("buffered", "buffer_size", buffer_size, 1)
        threads = whole("buffered", "num_threads", num_threads, 1, links.MOST_THREADS)
        if on_refill is not None and not callable(on_refill):
            raise ChainError(f"buffered: on_refill={on_refill!r} is not a function")
        change = partial(links.by_function, f=on_refill, wrap=self._buffer)
        shown = f".buffered({size}{f', {function_name(on_refill)}' if on_refill else ''})"
        return self._with(links.Refill(self.node, change, shown, size=size, threads=threads))

    def dynamic_batch(
        self,
        buffer_size: int,
        key: str,
        max_data_size: int = -1,
        pad: Mapping[str, float] | None = None,
        dim: Mapping[str, int] | None = None,
        shuffle: bool = False,
        num_threads: int = 1,
        *,
        min_data_size: int = -1,
        drop_outliers: bool = False,
        max_skipped_samples: int = 1000,
    ) -> Self:
        """Of each ``buffer_size`` samples those of about the same size together, so that little is padded.

        Args:
            buffer_size: samples that are looked at together.
            key: the array whose size counts.
            max_data_size: largest number of its elements in a batch, padding included. For 0 and below the
                whole buffer is one batch.
            pad: by key, a value to fill up with.
            dim: by key, an existing axis to concatenate along instead.
            shuffle: the batches of a buffer in random order; otherwise those of small samples come first.
            num_threads: threads that fill the buffer.
            min_data_size: least number of elements in a batch. Samples that cannot be brought into such a batch
                wait for the next buffer; those that wait at the end are left out, and counted in the log.
            drop_outliers: leave out samples larger than ``max_data_size``, which are batches of their own else.
            max_skipped_samples: how many may wait; more are left out. Any number for 0 and below.
        """
        size = whole("dynamic_batch", "buffer_size", buffer_size, 1)
        threads = whole("dynamic_batch", "num_threads", num_threads, 1, links.MOST_THREADS)
        most = whole("dynamic_batch", "max_skipped_samples", max_skipped_samples)
        packing = _packing(key, min_data_size, max_data_size, pad, dim, drop_outliers)
        change = partial(links.packed, packing=packing, shuffle=bool(shuffle), most_skipped=most)
        told = _shown(key, packing) + (", shuffle=True" if shuffle else "")
        shown = f".dynamic_batch({size}, {told}{f', max_skipped_samples={most}' if most != 1000 else ''})"
        return self._with(links.Refill(self.node, change, shown, size=size, threads=threads))


def _packing(
    key: str,
    least: int,
    most: int,
    pad: Mapping[str, float] | None,
    dim: Mapping[str, int] | None,
    drop_outliers: bool,
) -> links.Packing:
    names("dynamic_batch", "key", (key,))
    least = whole("dynamic_batch", "min_data_size", least)
    most = whole("dynamic_batch", "max_data_size", most)
    if 0 < most < least:
        raise ChainError(f"dynamic_batch: min_data_size={least} is more than max_data_size={most}")
    padded = by_key("dynamic_batch", "pad", pad, Number, "a number")
    axes = by_key("dynamic_batch", "dim", dim, int, "a whole number")
    return links.Packing(key, least, most, padded, axes, bool(drop_outliers))


def _shown(key: str, packing: links.Packing) -> str:
    options = {
        "min_data_size": packing.least if packing.least > 0 else None,
        "max_data_size": packing.most if packing.most > 0 else None,
        "pad": packing.pad or None,
        "dim": packing.dim or None,
        "drop_outliers": packing.drop_outliers or None,
    }
    return repr(key) + "".join(f", {name}={value!r}" for name, value in options.items() if value is not None)
