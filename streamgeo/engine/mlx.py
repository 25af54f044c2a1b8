"""mlx-data at both ends: its samples in and out, and its kernels."""

from __future__ import annotations

import atexit
import importlib
import io
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from streamgeo.errors import ChainError, StepError


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


# -- its kernels ----------------------------------------------------------------------------------------


@dataclass(eq=False)
class Kernel:
    """One operation of mlx-data on one sample at a time, as a function of a dict of arrays.

    The operation stands, ready made, on a one-sample Buffer that takes its sample from the calling thread: a
    call costs about 3 us beside the work, any number of threads may call, and no thread or stream is left.
    The caller checks the arguments first: some that are wrong end the process.
    """

    operation: str
    arguments: Mapping[str, Any]

    def __post_init__(self) -> None:
        self._given: dict[int, dict[str, Any]] = {}
        self._buffer: Any = None  # no fields: they say nothing of what it does

    def __call__(self, values: Mapping[str, Any], seed: int | None = None) -> dict[str, Any]:
        """The sample after the operation; ``seed`` is for those that draw random numbers."""
        thread = threading.get_ident()
        self._given[thread] = {key: _contiguous(value, key, self.operation) for key, value in values.items()}
        try:
            if seed is None:
                made: dict[str, Any] = self._ready()[0]
            else:
                with _SEEDING.lock:
                    _seed(seed)
                    made = self._ready()[0]
        finally:
            self._given.pop(thread, None)
        return made

    def _ready(self) -> Any:
        if self._buffer is None:
            import mlx.data as dx

            one = dx.buffer_from_vector([{"_": 0}]).sample_transform(self._sample)
            self._buffer = getattr(one, self.operation)(**{k: thawed(v) for k, v in self.arguments.items()})
            _KERNELS.add(self)
        return self._buffer

    def _sample(self, _: Any) -> dict[str, Any]:
        return self._given[threading.get_ident()]

    def close(self) -> None:
        """Let the operation go; the next call makes it again."""
        self._buffer = None

    def __getstate__(self) -> dict[str, Any]:
        return {"operation": self.operation, "arguments": self.arguments, "_given": {}, "_buffer": None}


_KERNELS: weakref.WeakSet[Kernel] = weakref.WeakSet()


@atexit.register
def _close_kernels() -> None:
    for kernel in list(_KERNELS):
        kernel.close()


@dataclass
class _Seeding:
    """mlx-data has one random state for all threads: from the seed to the draw nobody else may set it."""

    lock: threading.Lock = field(default_factory=threading.Lock)


_SEEDING = _Seeding()


def _after_fork() -> None:
    _SEEDING.lock = threading.Lock()  # a thread that is not here may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _seed(seed: int) -> None:
    from mlx.data import core

    core.set_state(seed)


def _contiguous(value: Any, key: str, operation: str) -> Any:
    array = np.asarray(value)
    if array.dtype.name not in _CARRIES:
        raise StepError(
            f"{operation}: {key!r} is {array.dtype}; it works on {', '.join(_CARRIES)}; use sg.cast first"
        )
    return np.require(array, requirements=["C", "W"])


class Trie:
    """A CharTrie that pickles: it is its keys with their numbers."""

    __slots__ = ("trie",)

    def __init__(self, trie: Any) -> None:
        self.trie = trie

    def __reduce__(self) -> tuple[Any, ...]:
        return _trie_of, (tuple(keys_of_trie(self.trie)),)

    def __repr__(self) -> str:
        return f"<CharTrie of {self.trie.num_keys()} keys>"


def keys_of_trie(trie: Any) -> list[tuple[bytes, int]]:
    """The keys of a CharTrie with their numbers, which need not be without gaps."""
    keys: list[tuple[bytes, int]] = []
    number, count = 0, trie.num_keys()
    while len(keys) < count and number < 64 * (count + 1024):
        with suppress(IndexError, RuntimeError):  # a number that no key has
            keys.append((bytes(trie.key_bytes(number)), number))
        number += 1
    if len(keys) < count:
        raise ChainError(f"the numbers of this CharTrie go past {number}; it cannot be pickled")
    return keys


def _trie_of(keys: tuple[tuple[bytes, int], ...]) -> Trie:
    from mlx.data.core import CharTrie

    trie = CharTrie()
    for key, number in keys:
        trie.insert(key, number)
    return Trie(trie)


class Merges:
    """BPEMerges, which mlx-data does not let out again."""

    __slots__ = ("merges",)

    def __init__(self, merges: Any) -> None:
        self.merges = merges

    def __reduce__(self) -> tuple[Any, ...]:
        raise ChainError("tokenize_bpe: BPEMerges cannot be pickled; build the chain in each process")

    def __repr__(self) -> str:
        return "<BPEMerges>"


def thawed(value: Any) -> Any:
    """An argument as mlx-data takes it."""
    return value.trie if isinstance(value, Trie) else value.merges if isinstance(value, Merges) else value


OWN = (
    *("LoadAudioInfo", "All", "NumFrames", "NumChannels", "SampleRate", "NumSeconds"),
    *("TokenizeMode", "Shortest", "Rand"),
)


def own(name: str) -> Any:
    """One of mlx-data's enums or modules."""
    import mlx.data as dx

    return getattr(dx, name) if name in OWN else importlib.import_module(f"mlx.data.{name}")


# -- its readers ----------------------------------------------------------------------------------------


def csv_rows(
    source: str | bytes, sep: str, quote: str, local_prefix: str = "", file_fetcher: Any = None
) -> Iterator[dict[str, Any]]:
    """The rows of a CSV file (by its path) or of its content, as text by column."""
    import mlx.data as dx

    if isinstance(source, bytes):
        yield from _samples(dx.stream_csv_reader_from_string(source, sep, quote))
    else:
        options = {"local_prefix": local_prefix, "file_fetcher": file_fetcher}
        yield from _samples(dx.stream_csv_reader(source, sep, quote, **options))


def text_lines(
    source: str | bytes, key: str, unzip: bool, local_prefix: str = "", file_fetcher: Any = None
) -> Iterator[dict[str, Any]]:
    """The lines of a text file (by its path) or of its content."""
    import mlx.data as dx

    file = io.BytesIO(source) if isinstance(source, bytes) else source
    options = {"local_prefix": local_prefix, "file_fetcher": file_fetcher}
    yield from _samples(dx.stream_line_reader(file, key, unzip, **options))


def _samples(stream: Any) -> Iterator[dict[str, Any]]:
    while sample := stream.next():
        yield dict(sample)


def tar_names(tarfile: str, nested: bool, num_threads: int) -> list[bytes]:
    """The names of the files in a tar archive."""
    import mlx.data as dx

    return [bytes(sample["file"]) for sample in dx.files_from_tar(tarfile, nested, num_threads)]
