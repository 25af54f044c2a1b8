"""mlx-data at both ends: its samples in and out, and its kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from streamgeo.errors import ChainError


def mlx_kind(source: Any) -> str | None:
    """``"Buffer"``, ``"Stream"``, or None for something else."""
    import mlx.data as dx

    if isinstance(source, dx.Buffer):
        return "Buffer"
    return "Stream" if isinstance(source, dx.Stream) else None


def from_mlx_stream(source: Any) -> Iterator[dict[str, Any]]:
    """The samples of an mlx-data Stream from its start."""
    source.reset()
    while sample := source.next():
        yield dict(sample)


def to_mlx_buffer(size: int, get: Callable[[int], dict[str, Any]]) -> Any:
    """An mlx-data Buffer of ``size`` samples that ``get`` makes."""
    import mlx.data as dx

    tickets = dx.buffer_from_vector([{"ticket": np.array(number, np.int64)} for number in range(size)])
    return tickets.sample_transform(lambda sample: _carried(get(int(sample["ticket"]))))


def to_mlx_stream(samples: Callable[[], Iterator[dict[str, Any]]]) -> Any:
    """An mlx-data Stream of the samples of each iterator that ``samples`` makes."""
    import mlx.data as dx

    return dx.stream_python_iterable(lambda: (_carried(sample) for sample in samples()))


_CARRIES = ("int8", "uint8", "int32", "int64", "float32", "float64")


def _carried(sample: dict[str, Any]) -> dict[str, Any]:
    """The sample as mlx-data can carry it: contiguous arrays of its six dtypes, text as bytes."""
    out = {}
    for key, value in sample.items():
        array = np.asarray(value)
        if array.dtype.kind == "U" and array.ndim == 0:
            array = np.frombuffer(str(array).encode(), np.int8)
        if array.dtype.name not in _CARRIES:
            raise ChainError(
                f"to_mlx: {key!r} is {array.dtype}, and mlx-data carries {', '.join(_CARRIES)} only; use sg.cast"
            )
        out[key] = np.array(array, order="C")
    return out
