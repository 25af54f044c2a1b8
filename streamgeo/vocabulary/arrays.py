"""Operations on arrays of any dtype."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Self, overload

from streamgeo import links
from streamgeo.errors import ChainError
from streamgeo.vocabulary import array_kernels as k
from streamgeo.vocabulary.base import Described, conditional, whole

Ints = int | Sequence[int]


class Arrays(Described):
    """Operations on arrays. A key that one of them changed cannot be predicted or inverted any more."""

    def pad(self, key: str, dim: int, lpad: int, rpad: int, pad_value: float, output_key: str = "") -> Self:
        """``lpad`` places before and ``rpad`` places after the array along ``dim``, filled with ``pad_value``."""
        lpad, rpad = whole("pad", "lpad", lpad, 0), whole("pad", "rpad", rpad, 0)
        f = partial(k.pad, dim=whole("pad", "dim", dim), lpad=lpad, rpad=rpad, pad_value=pad_value)
        return self._apply("pad", key, output_key, f, dim, lpad, rpad, pad_value)

    def pad_to_size(self, key: str, dim: int, size: int, pad_value: float, output_key: str = "") -> Self:
        """``size`` places along ``dim``, filled at the end; an array that is longer stays as it is."""
        f = partial(
            k.pad_to_size,
            dim=whole("pad_to_size", "dim", dim),
            size=whole("pad_to_size", "size", size, 0),
            pad_value=pad_value,
        )
        return self._apply("pad_to_size", key, output_key, f, dim, size, pad_value)

    def pad_to_multiple(
        self, key: str, dim: int, pad_multiple: int, pad_value: float, output_key: str = ""
    ) -> Self:
        """A multiple of ``pad_multiple`` places along ``dim``, filled at the end."""
        f = partial(
            k.pad_to_multiple,
            dim=whole("pad_to_multiple", "dim", dim),
            pad_multiple=whole("pad_to_multiple", "pad_multiple", pad_multiple, 1),
            pad_value=pad_value,
        )
        return self._apply("pad_to_multiple", key, output_key, f, dim, pad_multiple, pad_value)

    def slice(self, ikey: str, dims: Ints, starts: Ints, ends: Ints, output_key: str = "") -> Self:
        """From ``starts`` to ``ends`` (left out) along ``dims``; an end past the array is the array's end."""
        axes, lows, highs = (
            _several("slice", w, v) for w, v in (("dims", dims), ("starts", starts), ("ends", ends))
        )
        if not len(axes) == len(lows) == len(highs):
            raise ChainError(
                f"slice: {len(axes)} dims, {len(lows)} starts and {len(highs)} ends; give as many of each"
            )
        for low, high in zip(lows, highs):
            if not 0 <= low <= high:
                raise ChainError(
                    f"slice: start {low} and end {high} must be 0 or more, the end not before the start"
                )
        f = partial(k.cut, dims=axes, starts=lows, ends=highs)
        return self._apply("slice", ikey, output_key, f, dims, starts, ends)

    def random_slice(self, ikey: str, dims: Ints, sizes: Ints, output_key: str = "") -> Self:
        """A random range of ``sizes`` along ``dims``; all of a dim that is smaller.

        The draw depends on (seed, epoch, sample) only.
        """
        axes, lengths = _several("random_slice", "dims", dims), _several("random_slice", "sizes", sizes)
        if len(axes) != len(lengths):
            raise ChainError(f"random_slice: {len(axes)} dims and {len(lengths)} sizes; give as many of each")
        for size in lengths:
            whole("random_slice", "sizes", size, 1)
        f = partial(k.random_cut, dims=axes, sizes=lengths)
        return self._apply("random_slice", ikey, output_key, f, dims, sizes, draws=True)

    def shape(self, key: str, output_key: str, dim: int | None = None) -> Self:
        """The shape of an array, or its size along ``dim``, as int64."""
        f = partial(k.shape_of, dim=None if dim is None else whole("shape", "dim", dim))
        if not output_key:
            raise ChainError("shape: output_key is empty; give a name for the shape")
        shown = f".shape({key!r}, {output_key!r}{'' if dim is None else f', {dim}'})"
        return self._with(links.applied(self.node, f, key, output_key, "shape", shown))

    def squeeze(self, key: str, dim: Ints | None = None, output_key: str = "") -> Self:
        """Without the dims ``dim``, which must have size 1; without all dims of size 1 by default."""
        f = partial(k.squeezed, dim=() if dim is None else _several("squeeze", "dim", dim))
        return self._apply("squeeze", key, output_key, f, dim)

    def remove_value(self, key: str, size_key: str, dim: int, value: float, pad: float = 0) -> Self:
        """Remove a value from an array, shifting the rest to the start of ``dim``; as in mlx-data.

        The shape stays, the end is filled with ``pad``, and ``size_key``, which says how many values of each
        row count, gets the numbers that are left.
        """
        shown = f".remove_value({key!r}, {size_key!r}, {dim}, {value!r}, {pad!r})"
        whole("remove_value", "dim", dim)
        f = partial(k.without_value, key=key, size_key=size_key, dim=dim, value=value, pad=pad)
        change = partial(links.on_sample, f=f, keys=(key, size_key), operation="remove_value")
        return self._with(links.Apply(self.node, change, shown, (key, size_key)))

    @overload
    def shard(self, num_shards: int, index: int) -> Self: ...
    @overload
    def shard(self, key: str, num_shards: int, output_key: str = "") -> Self: ...
    def shard(  # type: ignore[misc]  # the first argument tells which of the two is meant
        self, key: Any = None, num_shards: Any = None, output_key: str = "", *, index: int | None = None
    ) -> Self:
        """With numbers: the part of one rank. With a key: the first dim of an array in equal parts.

        ``shard(num_shards, index)`` gives as many samples on every rank: a Buffer fills the last round up from
        its start, a Stream leaves out what does not go round.

        ``shard(key, num_shards, output_key="")`` is mlx-data's: the array of shape (n, ...) becomes one of shape
        (num_shards, n // num_shards, ...).
        """
        if isinstance(key, str):
            f = partial(k.sharded, num_shards=whole("shard", "num_shards", num_shards, 1))
            return self._apply("shard", key, output_key, f, num_shards)
        numbers = [number for number in (key, num_shards, index) if number is not None]
        if len(numbers) != 2:
            raise ChainError("shard: give num_shards and index, or a key and num_shards")
        return self._share(numbers[0], numbers[1])

    def shard_if(self, cond: bool, key: Any, num_shards: Any, output_key: str = "") -> Self:
        """The same as :meth:`shard` when ``cond`` is true, else nothing."""
        return self.shard(key, num_shards, output_key) if cond else self

    pad_if = conditional(pad)
    pad_to_size_if = conditional(pad_to_size)
    pad_to_multiple_if = conditional(pad_to_multiple)
    slice_if = conditional(slice)
    random_slice_if = conditional(random_slice)
    shape_if = conditional(shape)
    squeeze_if = conditional(squeeze)
    remove_value_if = conditional(remove_value)


def _several(operation: str, what: str, value: Any) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return tuple(whole(operation, what, v) for v in values)
