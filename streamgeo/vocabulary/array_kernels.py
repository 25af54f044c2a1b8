"""Plain functions on arrays of any dtype, with the meaning that mlx-data gives them on its six dtypes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import StepError
from streamgeo.links import filling

Array = NDArray[Any]


def axis_of(array: Array, dim: int) -> int:
    """A dim, counted from the end when negative, as an axis of this array."""
    if not -array.ndim <= dim < array.ndim:
        limits = f"use {-array.ndim} to {array.ndim - 1}" if array.ndim else "it has no dims"
        raise StepError(f"dim {dim} is out of range for an array of shape {array.shape}; {limits}")
    return dim % array.ndim


def pad(array: Array, *, dim: int, lpad: int, rpad: int, pad_value: float) -> Array:
    """``lpad`` and ``rpad`` more places along one dim."""
    axis = axis_of(array, dim)
    if not lpad and not rpad:
        return array
    shape = list(array.shape)
    shape[axis] += lpad + rpad
    out = np.empty(shape, array.dtype)
    out[...] = filling(pad_value, array.dtype)
    out[(slice(None),) * axis + (slice(lpad, lpad + array.shape[axis]),)] = array
    return out


def pad_to_size(array: Array, *, dim: int, size: int, pad_value: float) -> Array:
    """As many places at the end as ``size`` asks for; nothing where there are more already."""
    missing = size - array.shape[axis_of(array, dim)]
    return pad(array, dim=dim, lpad=0, rpad=max(0, missing), pad_value=pad_value)


def pad_to_multiple(array: Array, *, dim: int, pad_multiple: int, pad_value: float) -> Array:
    """As many places at the end as the next multiple asks for."""
    missing = -array.shape[axis_of(array, dim)] % pad_multiple
    return pad(array, dim=dim, lpad=0, rpad=missing, pad_value=pad_value)


def cut(array: Array, *, dims: Sequence[int], starts: Sequence[int], ends: Sequence[int]) -> Array:
    """Half-open ranges along some dims; an end past the array is the array's end."""
    ranges = [slice(None)] * array.ndim
    for dim, start, end in zip(dims, starts, ends):
        axis = axis_of(array, dim)
        size = array.shape[axis]
        if start >= max(size, 1):
            raise StepError(f"start {start} is past dim {dim} of shape {array.shape}; use 0 to {size - 1}")
        ranges[axis] = slice(start, min(size, end))
    return array[tuple(ranges)]


def random_cut(array: Array, *, dims: Sequence[int], sizes: Sequence[int], rng: np.random.Generator) -> Array:
    """A random range of a given size along some dims; all of a dim that is smaller."""
    ranges = [slice(None)] * array.ndim
    for dim, size in zip(dims, sizes):
        axis = axis_of(array, dim)
        start = int(rng.integers(max(0, array.shape[axis] - size) + 1))
        ranges[axis] = slice(start, start + size)
    return array[tuple(ranges)]


def shape_of(array: Array, *, dim: int | None) -> Array:
    """The shape, or its entry at ``dim``, in int64."""
    if dim is None:
        return np.array(array.shape, np.int64)
    return np.array(array.shape[axis_of(array, dim)], np.int64)


def squeezed(array: Array, *, dim: tuple[int, ...]) -> Array:
    """Without the given dims, or all dims, of size 1."""
    axes = tuple(axis_of(array, d) for d in dim)
    for d, axis in zip(dim, axes):
        if array.shape[axis] != 1:
            raise StepError(
                f"dim {d} of shape {array.shape} has size {array.shape[axis]}; only 1 can be squeezed"
            )
    return array.squeeze(axes or None)


def sharded(array: Array, *, num_shards: int) -> Array:
    """The first dim in ``num_shards`` equal parts, as a new first dim."""
    axis_of(array, 0)
    if array.shape[0] % num_shards:
        raise StepError(
            f"the first dim of shape {array.shape} does not go into {num_shards} equal parts; pad it"
        )
    return array.reshape(num_shards, array.shape[0] // num_shards, *array.shape[1:])


def without_value(
    values: Mapping[str, Array], *, key: str, size_key: str, dim: int, value: float, pad: float
) -> dict[str, Array]:
    """Each row along ``dim`` without a value: the rest moves up, the end is filled, the sizes follow."""
    array, sizes = values[key], values[size_key]
    axis = axis_of(array, dim)
    if sizes.dtype.kind not in "iu":
        raise StepError(f"{size_key!r} is {sizes.dtype}; sizes are whole numbers")
    rows = np.moveaxis(array, axis, -1)
    if sizes.size != max(1, int(np.prod(rows.shape[:-1]))):
        raise StepError(
            f"{size_key!r} has {sizes.size} sizes for {key!r} of shape {array.shape} along dim {dim}"
        )
    if sizes.size and sizes.max() > array.shape[axis]:
        raise StepError(
            f"{size_key!r} says {sizes.max()}, but dim {dim} of {key!r} is {array.shape[axis]} long"
        )
    out = np.full(rows.shape, filling(pad, array.dtype, "pad"), array.dtype)
    left = np.empty(sizes.size, sizes.dtype)
    flat, to = rows.reshape(sizes.size, -1), out.reshape(sizes.size, -1)
    for number, size in enumerate(sizes.ravel()):
        kept = flat[number, :size]
        kept = kept[kept != value]
        to[number, : kept.size] = kept
        left[number] = kept.size
    return {key: np.ascontiguousarray(np.moveaxis(out, -1, axis)), size_key: left.reshape(sizes.shape)}


def fits(sample: Mapping[str, Array], *, key: str, dim: int, low: int, high: int) -> bool:
    """Whether the size at ``dim`` is from ``low`` to ``high``; below 0 there is no limit."""
    if key not in sample:
        raise StepError(f"no key {key!r} in the sample; it has {sorted(sample)}")
    size = sample[key].shape[axis_of(sample[key], dim)]
    return (low < 0 or size >= low) and (high < 0 or size <= high)


# -- bytes ----------------------------------------------------------------------------------------------


def bytes_of(array: Array) -> bytes:
    """Text or an array of bytes, as bytes."""
    if array.dtype.kind == "U" and array.ndim == 0:
        return str(array).encode()
    if array.dtype.kind not in "iuS" or (array.dtype.kind != "S" and array.itemsize != 1):
        raise StepError(f"an array of {array.dtype} is not text; give bytes, or int8 or uint8 arrays of them")
    return array.tobytes()


def text_of(content: bytes) -> Array:
    """Bytes as mlx-data keeps text: an int8 vector."""
    return np.frombuffer(content, np.int8)


def replaced(array: Array, *, old: str, replacement: str, count: int) -> Array:
    """Text with ``old`` replaced, at most ``count`` times where that is not negative."""
    return text_of(bytes_of(array).replace(old.encode(), replacement.encode(), max(-1, count)))


def mapped(array: Array, *, byte_map: Sequence[bytes]) -> Array:
    """Each byte as the text that it maps to; other dtypes are taken byte by byte as they lie in memory."""
    content = bytes_of(array) if array.dtype.kind == "U" else array.tobytes()
    return text_of(b"".join([byte_map[byte] for byte in content]))
