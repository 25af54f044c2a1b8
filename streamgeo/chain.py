"""Buffer and Stream: the chains that users build. Frozen descriptions; running them is the plan's business."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Self, overload

import numpy as np
from numpy.typing import NDArray

from streamgeo import engine, explain, links
from streamgeo.errors import ChainError, SampleError, StepError
from streamgeo.grid import Grid
from streamgeo.parameters import function_name
from streamgeo.plan import Run, finished, naming
from streamgeo.predict import Inverse, Model, Steps, predict
from streamgeo.running import RAISE, OnError, Runner
from streamgeo.scene import Scene
from streamgeo.stats import Stats
from streamgeo.step import Reach, as_step
from streamgeo.steps.patch import Patch

Array = NDArray[Any]
Sample = dict[str, Array]
Key = str | Sequence[str]


@dataclass(frozen=True, eq=False, repr=False)
class Chain:
    """What Buffer and Stream share: a chain of operations on samples, which are dicts of numpy arrays."""

    node: links.Node

    def _with(self, node: links.Node) -> Self:
        return type(self)(node)

    def _stream(self, node: links.Node) -> Stream:
        return Stream(node)

    def __repr__(self) -> str:
        first, *rest = (node.text() for node in self.node.path)
        return "\n".join([first, *(f"    {text}" for text in rest)])

    # -- steps ------------------------------------------------------------------------------------------

    def key_transform(
        self,
        key: Key,
        f: Any,
        output_key: Key = "",
        *,
        inverse: Callable[..., Any] | None = None,
        reach: Reach | None = None,
    ) -> Self:
        """Apply a step, or a plain function on arrays, to the value of a key.

        Args:
            key: the key, or several: then each gets the same windows and the same random draws.
            f: a :class:`~streamgeo.Step` such as ``sg.normalize(...)``, or a function array -> array.
            output_key: where the result goes; by default it replaces the value.
            inverse: the function that undoes a plain ``f``.
            reach: what a plain ``f`` needs around a pixel: ``sg.POINT``, ``sg.halo(n)``, or the whole scene
                (the default, since nothing is known of it).

        Raises:
            StepError: when ``f`` is neither a step nor a function.
            ChainError: when keys and output keys do not match in number.
        """
        step = as_step(f, inverse=inverse, reach=reach)
        keys = _names("key_transform", "key", key)
        outputs = _names("key_transform", "output_key", output_key) if output_key else keys
        if len(keys) != len(outputs):
            raise ChainError(
                f"key_transform: {len(keys)} keys {keys} but {len(outputs)} output keys {outputs}"
            )
        shown = [
            repr(key if isinstance(key, str) else tuple(key)),
            repr(f) if step is f else function_name(f),
        ]
        shown += [repr(output_key)] if output_key else []
        shown += [f"inverse={function_name(inverse)}"] if inverse else []
        shown += [f"reach={reach}"] if reach else []
        kind = links.Expand if isinstance(step, Patch) else links.Map
        if kind is links.Expand and any(isinstance(n, links.Batch) for n in self.node.path):
            raise ChainError(
                "patch: after batch the scenes are stacked; put .key_transform(..., patch) before .batch"
            )
        return self._with(kind(self.node, keys, outputs, step, f".key_transform({', '.join(shown)})"))  # type: ignore[arg-type]

    def sample_transform(
        self, f: Callable[[Sample], Mapping[str, Any]], *, keys: Sequence[str] | None = None
    ) -> Self:
        """Apply a function to whole samples, dict of arrays to dict of arrays.

        Args:
            f: the function; it gets its own dict, whose arrays it may change.
            keys: the keys that it changes. The others can still be predicted and inverted; when it is left
                out, all keys count as changed.

        A Stream skips samples for which ``f`` returns an empty dict.
        """
        if not callable(f):
            raise StepError(f"sample_transform: {f!r} is not a function")
        shown = f".sample_transform({function_name(f)}{'' if keys is None else f', keys={tuple(keys)!r}'})"
        change = partial(links.transform_sample, f=f)
        return self._with(links.Edit(self.node, change, shown, None if keys is None else tuple(keys)))

    def rename_key(self, key: str, output_key: str) -> Self:
        """The value of ``key`` under another name."""
        shown = f".rename_key({key!r}, {output_key!r})"
        change = partial(links.rename, key=key, output_key=output_key)
        return self._with(links.Edit(self.node, change, shown, renames=(key, output_key)))

    def filter_key(self, key: str, remove: bool = False) -> Self:
        """Only this key, or all but this key with ``remove=True``."""
        shown = f".filter_key({key!r}{', remove=True' if remove else ''})"
        return self._with(links.Edit(self.node, partial(links.select_keys, key=key, remove=remove), shown))

    def remove_value(self, key: str, size_key: str, dim: int, value: float, pad: float = 0) -> Self:
        """Remove a value from an array, shifting the rest to the start of ``dim``; as in mlx-data.

        The shape stays, the end is filled with ``pad``, and ``size_key`` gets the number of values left.
        """
        shown = f".remove_value({key!r}, {size_key!r}, {dim}, {value!r}, {pad!r})"
        change = partial(links.remove_value, key=key, size_key=size_key, dim=dim, value=value, pad=pad)
        return self._with(links.Edit(self.node, change, shown, (key, size_key)))

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

    def filter(self, predicate: Callable[[Sample], bool]) -> Stream:
        """Only samples for which ``predicate(sample)`` holds.

        Samples are made one after another while the next that passes is looked for; put ``.prefetch`` before
        ``.filter`` to make them on several threads.
        """
        if not callable(predicate):
            raise StepError(f"filter: {predicate!r} is not a function")
        return self._stream(links.Filter(self.node, predicate, f".filter({function_name(predicate)})"))

    # -- order ------------------------------------------------------------------------------------------

    def _partition(self, num_partitions: int, partition: int) -> Self:
        _check_part("partition", num_partitions, partition)
        pick = partial(links.strided, start=partition, step=num_partitions)
        count = partial(links.partition_size, parts=num_partitions, part=partition)
        return self._with(links.Select(self.node, pick, count, f".partition({num_partitions}, {partition})"))

    # -- to other things --------------------------------------------------------------------------------

    def prefetch(self, prefetch_size: int, num_threads: int = 1) -> Stream:
        """Compute samples (or batches) ahead on threads; the order is always kept.

        Args:
            prefetch_size: how many are computed ahead at most.
            num_threads: how many threads compute them.
        """
        for what, value in (("prefetch_size", prefetch_size), ("num_threads", num_threads)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise ChainError(f"prefetch: {what}={value!r} must be a whole number, 1 or more")
        return self._stream(links.Prefetch(self.node, int(prefetch_size), int(num_threads)))

    def ordered_prefetch(self, prefetch_size: int, num_threads: int = 1) -> Stream:
        """The same as :meth:`prefetch`, which keeps order; mlx-data's name for it."""
        return self.prefetch(prefetch_size, num_threads)

    def explain(self) -> str:
        """Each step with its reach, dims, shape and dtype, and whether patches are read as windows.

        Only headers are read where every step says what it does; a plain function is tried on one sample.
        """
        return explain.explain(self.node)

    def grid(self, key: str, sample: Mapping[str, Any] | int = 0) -> Grid:
        """The grid of the array under ``key`` in a sample (not a batch), or in sample number ``sample``.

        A sample is told by its ``<key>.scene`` and ``<key>.window``, so it may come from another process.
        """
        return explain.grid_of_sample(self.node, key, sample)

    def scene(self, key: str, index: int = 0) -> Scene:
        """The lazy scene number ``index`` of ``key``, as it is after the steps before ``patch``."""
        return explain.scene_of(self.node, key, index)

    def inverse(self, key: str) -> Inverse:
        """The way back of ``key`` as a plain function on arrays, for your own loop.

        Raises:
            InverseError: when a step of the key has no inverse; the message names it.
        """
        return Inverse(self.node, key)

    def predict(
        self,
        model: Model,
        key: Key = "image",
        output_key: str | None = None,
        *,
        inverse: Steps = None,
        blend: str = "mean",
    ) -> Iterator[Scene]:
        """Run a model over the chain and give back finished scenes, each as soon as its last patch has come.

        The model gets the array under ``key`` (a batch ``(n, ...)`` when the chain is batched) and returns
        one of the same leading size. It may change the number of bands, the dtype, or the resolution by a
        whole factor; then the grid follows. Its output is taken back by the inverse of every step of the key,
        last to first, and stitched where the chain patched.

        Args:
            model: function of arrays (numpy in, anything numpy can read out).
            key: what the model gets; several keys are several arguments.
            output_key: the key whose steps take the output back, when the model makes another quantity.
            inverse: steps (in the order of a chain) or one function that take the output back instead.
            blend: weights on overlaps, ``"mean"`` or ``"hann"``.

        Raises:
            InverseError: at once, when a step has no inverse; the message names it.
            ChainError: at the end, when a scene did not get all its patches.
        """
        return predict(self.node, _run(self.node, 0), model, key, output_key, inverse=inverse, blend=blend)

    def to_mlx(self) -> Any:
        """An mlx-data Buffer (of a Buffer) or Stream (of a Stream) of these samples.

        mlx-data carries int8, uint8, int32, int64, float32 and float64 arrays; a sample with another dtype
        raises an error that names the key.
        """
        raise NotImplementedError


@dataclass(frozen=True, eq=False, repr=False)
class Buffer(Chain):
    """Samples with a known length and an index. A description: nothing is read until a sample is asked for.

    >>> b = buffer_from_vector([{"x": np.arange(3) + i} for i in range(4)])
    >>> b = b.key_transform("x", lambda x: x * 2).batch(2)
    >>> len(b), b[1]["x"].tolist()
    (2, [[4, 6, 8], [6, 8, 10]])
    """

    def __len__(self) -> int:
        return len(self.node)

    def size(self) -> int:
        """The same as ``len``."""
        return len(self)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Sample | Self:
        """A sample by its number (negative from the end), or a Buffer of a slice."""
        size = len(self)
        if isinstance(index, slice):
            start, stop, step = index.indices(size)
            chosen = range(start, stop, step)
            shown = (
                f"[{':'.join('' if v is None else str(v) for v in (index.start, index.stop, index.step))}]"
            )
            pick = partial(links.strided, start=chosen.start, step=chosen.step)
            return self._with(
                links.Select(self.node, pick, partial(links.fixed_size, size=len(chosen)), shown)
            )
        number = int(index)
        if not -size <= number < size:
            raise IndexError(f"sample {number} of a Buffer of {size}")
        number %= size
        with naming("", index=number):
            return finished(self.node.item(number, _run(self.node, 0)))

    def __iter__(self) -> Iterator[Sample]:
        return self.to_stream().__iter__()

    def shuffle(self, seed: int = 0) -> Self:
        """A random order, another one each epoch; a pure function of (seed, epoch, position).

        No list is kept: it costs the same for ten samples and for 100 million.
        """
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
            raise ChainError(f"shuffle: seed={seed!r} must be a whole number")
        pick = partial(links.shuffled, seed=int(seed))
        return self._with(
            links.Select(self.node, pick, links.same_size, f".shuffle(seed={int(seed)})", int(seed))
        )

    def perm(self, perm: Sequence[int]) -> Self:
        """The samples with these numbers, in this order; any subset, with repetitions."""
        order = np.asarray(perm, np.int64)
        size = len(self)
        if order.ndim != 1 or (order.size and not (order.min() >= 0 and order.max() < size)):
            raise ChainError(f"perm: give a list of numbers from 0 to {size - 1}")
        shown = np.array2string(order, threshold=8, separator=", ")
        pick = partial(links.listed, order=order)
        count = partial(links.fixed_size, size=order.size)
        return self._with(links.Select(self.node, pick, count, f".perm({shown})"))

    def partition(self, num_partitions: int, partition: int) -> Self:
        """Every ``num_partitions``-th sample from number ``partition`` on."""
        return self._partition(num_partitions, partition)

    def shard(self, num_shards: int, index: int) -> Self:
        """The part of rank ``index``: as many samples on every rank, the last round filled up from the start."""
        _check_part("shard", num_shards, index)
        return self._with(links.Shard(self.node, num_shards, index))

    def take(self, count: int) -> Self:
        """The first ``count`` samples."""
        return self[: _count("take", count)]

    def skip(self, count: int) -> Self:
        """All but the first ``count`` samples."""
        return self[_count("skip", count) :]

    def repeat(self, times: int) -> Self:
        """The samples ``times`` times over, each time as a new epoch."""
        return self._with(links.Repeat(self.node, _times(times)))

    def to_stream(self) -> Stream:
        """The samples in order, once for each ``iter``."""
        return Stream(links.AsStream(self.node))

    def to_buffer(self) -> Self:
        """Itself."""
        return self

    def to_mlx(self) -> Any:
        """An mlx-data Buffer of these samples; see :meth:`Chain.to_mlx`."""
        return engine.to_mlx_buffer(len(self), self.__getitem__)


@dataclass(frozen=True, eq=False, repr=False)
class Stream(Chain):
    """Samples in order, one epoch for each ``iter``: shuffles and random steps draw anew every time.

    A description like a Buffer: two iterators over one stream do not disturb each other. Beside it, a stream
    remembers how many epochs were begun and where the last one stands (:meth:`state_dict`).
    """

    errors: OnError = RAISE
    line: bool = False

    @cached_property
    def _runner(self) -> Runner:
        return Runner(self.node, self.errors, self.line)

    def _with(self, node: links.Node) -> Self:
        return type(self)(node, self.errors, self.line)

    def _stream(self, node: links.Node) -> Stream:
        return self._with(node)

    def __iter__(self) -> Iterator[Sample]:
        return self._runner.begin()

    def __enter__(self) -> Self:
        self._runner.closed = False
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End every iterator over this stream; a later ``next`` raises. Doing it again changes nothing."""
        self._runner.close()

    def on_error(self, action: str, limit: float = 0) -> Self:
        """What a failing sample does.

        Args:
            action: ``"raise"`` (the default of a stream) or ``"skip"``: leave it out, log it, and list its
                error in :attr:`skipped`. A batch then has the samples that are left.
            limit: how many may be skipped: a whole number, or a share (a float below 1) of what came so far.

        Raises:
            ChainError: on reading, when more were skipped.
        """
        if action not in ("raise", "skip"):
            raise ChainError(f'on_error: {action!r} must be "raise" or "skip"')
        if limit < 0 or (isinstance(limit, float) and limit > 1):
            raise ChainError(f"on_error: limit={limit!r} must be a whole number, or a share from 0.0 to 1.0")
        return type(self)(self.node, OnError(action, limit), self.line)

    def progress(self) -> Self:
        """The same stream, with one line of progress on the terminal while it is read.

        The line has samples per second and what limits them; it appears after two seconds, and not at all
        where the output is no terminal.
        """
        return type(self)(self.node, self.errors, True)

    def stats(self) -> Stats:
        """What the stream did so far, over all its epochs, and what limits its speed; print it for a table.

        >>> stream = buffer_from_vector([{"x": np.zeros(3)}] * 5).batch(2).to_stream()
        >>> _ = list(stream)
        >>> stream.stats().samples, stream.stats().batches
        (5, 3)
        """
        return self._runner.stats()

    @property
    def skipped(self) -> list[SampleError]:
        """The errors of the samples that were skipped so far."""
        return list(self._runner.skipped)

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands: a small dict that JSON can hold.

        It names epoch, position and a fingerprint of the chain and its files; the position is that behind the
        last sample handed out by the iterator that was opened last. Threads and prefetch do not matter.
        """
        return self._runner.state()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next ``iter`` give exactly the samples that were left when the state was taken.

        Raises:
            ChainError: for the state of another chain; the message says what differs.
        """
        self._runner.restore(state)

    def __len__(self) -> int:
        return len(self.node)

    def __bool__(self) -> bool:
        return True

    def shuffle(self, buffer_size: int, seed: int = 0) -> Self:
        """Shuffled through a buffer of so many samples: each that comes lets a random one out."""
        if isinstance(buffer_size, bool) or not isinstance(buffer_size, (int, np.integer)) or buffer_size < 1:
            raise ChainError(f"shuffle: buffer_size={buffer_size!r} must be a whole number, 1 or more")
        return self._with(links.Reservoir(self.node, int(buffer_size), int(seed)))

    def partition(self, num_partitions: int, partition: int) -> Self:
        """Every ``num_partitions``-th sample from number ``partition`` on."""
        _check_part("partition", num_partitions, partition)
        return self._with(links.Every(self.node, num_partitions, partition, False))

    def shard(self, num_shards: int, index: int) -> Self:
        """The part of rank ``index``: as many samples on every rank; what does not go round is left out."""
        _check_part("shard", num_shards, index)
        return self._with(links.Every(self.node, num_shards, index, True))

    def take(self, count: int) -> Self:
        """The first ``count`` samples."""
        return self._with(links.Part(self.node, 0, _count("take", count), f".take({count})"))

    def skip(self, count: int) -> Self:
        """All but the first ``count`` samples, which are not made."""
        return self._with(links.Part(self.node, _count("skip", count), None, f".skip({count})"))

    def repeat(self, times: int | None = None) -> Self:
        """The stream ``times`` times over (without end when None), each time as a new epoch."""
        return self._with(links.Repeat(self.node, None if times is None else _times(times)))

    def to_stream(self) -> Self:
        """Itself."""
        return self

    def to_buffer(self) -> Buffer:
        """All samples of one epoch, held in memory."""
        return Buffer(links.Vector(list(self), f"{self.node.text()}.to_buffer()"))

    def to_mlx(self) -> Any:
        """An mlx-data Stream of these samples; see :meth:`Chain.to_mlx`."""
        return engine.to_mlx_stream(self.__iter__)


# -- running --------------------------------------------------------------------------------------------


def _run(node: links.Node, epoch: int) -> Run:
    return Run(node.seed, epoch)


def _names(operation: str, what: str, value: Key) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else tuple(value)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ChainError(f"{operation}: {what}={value!r} must be a name, or a sequence of names")
    return names


def _check_part(operation: str, parts: int, part: int) -> None:
    if isinstance(parts, bool) or not isinstance(parts, (int, np.integer)) or parts < 1:
        raise ChainError(f"{operation}: {parts!r} parts; give a whole number, 1 or more")
    if not 0 <= part < parts:
        raise ChainError(f"{operation}: part {part} of {parts} must be from 0 to {parts - 1}")


def _times(times: int) -> int:
    if isinstance(times, bool) or not isinstance(times, (int, np.integer)) or times < 1:
        raise ChainError(f"repeat: {times!r} times; give a whole number, 1 or more")
    return int(times)


def _count(operation: str, count: int) -> int:
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 0:
        raise ChainError(f"{operation}: {count!r} samples; give a whole number, 0 or more")
    return int(count)
