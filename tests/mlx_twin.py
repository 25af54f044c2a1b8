"""The same operation on the same sample, by mlx-data and by streamgeo; and arrays to try it on."""

from __future__ import annotations

from typing import Any

import mlx.data as dx
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import streamgeo as sg

SIX = ("int8", "uint8", "int32", "int64", "float32", "float64")
OTHERS = ("bool", "int16", "uint16", "uint32", "uint64", "float16", "complex64", "complex128")
Sample = dict[str, np.ndarray]


def theirs(sample: Sample, operation: str, *args: Any, **options: Any) -> Sample:
    given = {
        key: np.array(value, order="C") if isinstance(value, np.ndarray) else value
        for key, value in sample.items()
    }
    return getattr(dx.buffer_from_vector([given]), operation)(*args, **options)[0]


def ours(sample: Sample, operation: str, *args: Any, **options: Any) -> Sample:
    return getattr(sg.buffer_from_vector([sample]), operation)(*args, **options)[0]


def same(a: Sample, b: Sample) -> None:
    assert a.keys() == b.keys()
    for key in a:
        assert a[key].dtype == b[key].dtype and a[key].shape == b[key].shape, key
        np.testing.assert_array_equal(a[key], b[key])


def agree(sample: Sample, operation: str, *args: Any, **options: Any) -> Sample:
    """Both give the same; what they give."""
    result = ours(sample, operation, *args, **options)
    same(result, theirs(sample, operation, *args, **options))
    return result


def arrays(
    dtypes: tuple[str, ...] = SIX, min_dims: int = 1, max_dims: int = 4, min_side: int = 1, max_side: int = 5
) -> st.SearchStrategy[np.ndarray]:
    """Small arrays, contiguous and not, in C and Fortran order."""
    shapes = hnp.array_shapes(min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=max_side)
    return st.builds(_arranged, st.sampled_from(dtypes), shapes, st.sampled_from("CFS>"), st.integers(0, 99))


def _arranged(dtype: str, shape: tuple[int, ...], order: str, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).integers(-9, 10, shape)
    array = (values % 2 if dtype == "bool" else abs(values) if dtype[0] == "u" else values).astype(dtype)
    if order == "S":
        wide = np.zeros((*shape[:-1], 2 * shape[-1]), dtype)
        wide[..., ::2] = array
        return wide[..., ::2]
    if order == ">":
        return array.astype(array.dtype.newbyteorder(">"))
    return np.array(array, order=order)  # type: ignore[call-overload]
