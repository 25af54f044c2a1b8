"""Buffer and Stream: the chains that users build. Frozen descriptions; running them is the plan's business."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from threading import Lock
from typing import Any, Self, overload

from numpy.typing import NDArray

from streamgeo import engine, explain, links, outline
from streamgeo.errors import ChainError, SampleError, StepError
from streamgeo.gate import renewed_in_children
from streamgeo.grid import Grid
from streamgeo.naming import naming
from streamgeo.parameters import function_name
from streamgeo.plan import Run, finished
from streamgeo.predict import Watch
from streamgeo.running import RAISE, OnError, Runner, policy
from streamgeo.scene import Scene
from streamgeo.stats import Stats
from streamgeo.vocabulary import array_kernels
from streamgeo.vocabulary.arrays import Arrays
from streamgeo.vocabulary.backwards import Backwards
from streamgeo.vocabulary.base import whole
from streamgeo.vocabulary.batches import Batches, BufferBatches, StreamBatches
from streamgeo.vocabulary.caching import Caching
from streamgeo.vocabulary.images import Images
from streamgeo.vocabulary.media import Media
from streamgeo.vocabulary.order import BufferOrder, StreamOrder
from streamgeo.vocabulary.readers import Readers
from streamgeo.vocabulary.text import Text
from streamgeo.vocabulary.transforms import Transforms

Array = NDArray[Any]
Sample = dict[str, Array]


@dataclass(frozen=True, eq=False, repr=False)
class Chain(Transforms, Arrays, Images, Media, Text, Batches, Caching, Backwards):
    """What Buffer and Stream share: a chain of operations on samples, which are dicts of numpy arrays."""

    def _stream(self, node: links.Node) -> Stream:
        return Stream(node)

    def _buffer(self, node: links.Node) -> Buffer:
        return Buffer(node)

    def filter(self, predicate: Callable[[Sample], bool]) -> Stream:
        """Only samples for which ``predicate(sample)`` holds.

        Samples are made one after another while the next that passes is looked for; a ``.prefetch`` before or
        behind makes them on its threads.
        """
        if not callable(predicate):
            raise StepError(f"filter: {predicate!r} is not a function")
        return self._stream(links.Sift(self.node, predicate, f".filter({function_name(predicate)})"))

    def filter_by_shape(self, key: str, dim: int, low: int = -1, high: int = -1) -> Stream:
        """Only samples whose array has from ``low`` to ``high`` places along ``dim``; below 0 is no limit."""
        for what, value in (("dim", dim), ("low", low), ("high", high)):
            whole("filter_by_shape", what, value)
        test = partial(array_kernels.fits, key=key, dim=dim, low=low, high=high)
        shown = f".filter_by_shape({key!r}, {dim}, {low}, {high})"
        return self._stream(links.Sift(self.node, test, shown))

    def filter_by_shape_if(
        self, cond: bool, key: str, dim: int, low: int = -1, high: int = -1
    ) -> Self | Stream:
        """The same as :meth:`filter_by_shape` when ``cond`` is true, else nothing."""
        return self.filter_by_shape(key, dim, low, high) if cond else self

    def prefetch(self, prefetch_size: int, num_threads: int = 1, max_bytes: int | None = None) -> Stream:
        """Compute samples (or batches) ahead on threads; the order is always kept.

        Args:
            prefetch_size: how many are computed ahead at most.
            num_threads: how many threads compute them.
            max_bytes: how many bytes of finished samples may wait; the threads pause then. A sample that is
                larger than that waits alone.

        Raises:
            ChainError: when one of them is not a whole number, 1 or more (of threads, 1024 at most).
        """
        size = whole("prefetch", "prefetch_size", prefetch_size, 1, links.MOST_AHEAD)
        threads = whole("prefetch", "num_threads", num_threads, 1, links.MOST_THREADS)
        most = None if max_bytes is None else whole("prefetch", "max_bytes", max_bytes, 1)
        return self._stream(links.Prefetch(links.made_ahead(self.node, size, threads), size, threads, most))

    def ordered_prefetch(
        self,
        prefetch_size: int,
        num_thread: int = 1,
        max_bytes: int | None = None,
        *,
        num_threads: int | None = None,
    ) -> Stream:
        """The same as :meth:`prefetch`, which keeps order; mlx-data's name for it, and its name of the threads."""
        return self.prefetch(prefetch_size, num_thread if num_threads is None else num_threads, max_bytes)

    def prefetch_if(self, cond: bool, prefetch_size: int, num_threads: int = 1) -> Self | Stream:
        """The same as :meth:`prefetch` when ``cond`` is true, else nothing."""
        return self.prefetch(prefetch_size, num_threads) if cond else self

    def _repr_html_(self) -> str:
        """A table for notebooks: each link with what it makes, told from the first header; nothing is computed."""
        return outline.html(self.node, type(self).__name__)

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

    def to_mlx(self) -> Any:
        """An mlx-data Buffer (of a Buffer) or Stream (of a Stream) of these samples.

        mlx-data carries int8, uint8, int32, int64, float32 and float64 arrays; a sample with another dtype
        raises an error that names the key.
        """
        raise NotImplementedError


@dataclass(frozen=True, eq=False, repr=False)
class Buffer(BufferOrder, BufferBatches, Chain):
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
        if isinstance(index, slice):
            return self._slice(index)
        size = len(self)
        try:
            number = operator.index(index)
        except TypeError:
            raise ChainError(f"Buffer: index {index!r} must be a whole number or a slice") from None
        if not -size <= number < size:
            raise IndexError(f"sample {number} of a Buffer of {size}")
        number %= size
        with naming("", index=number):
            return finished(self.node.item(number, _run(self.node, 0)))

    def __iter__(self) -> Iterator[Sample]:
        return self.to_stream()._runner.begin()

    def sliding_window(self, key: str, size: int, stride: int, dim: int = -1, index_key: str = "") -> Stream:
        """The sample once for each window of an array; see :meth:`Stream.sliding_window`."""
        return self.to_stream().sliding_window(key, size, stride, dim, index_key)

    def append(self, buffer: Buffer) -> Buffer:
        """The samples of another Buffer after those of this one; as ``sg.concatenate``."""
        if not isinstance(buffer, Buffer):
            raise ChainError(f"append: {type(buffer).__name__} is not a Buffer")
        return Buffer(links.Concatenate((self.node, buffer.node)))

    def concretize(self) -> Buffer:
        """All samples, made now and held in memory."""
        return Buffer(links.Vector(list(self), f"{links.repr_of(self.node)}.concretize()"))

    def to_stream(self) -> Stream:
        """The samples in order, once for each ``iter``."""
        return Stream(links.AsStream(self.node))

    def to_buffer(self) -> Self:
        """Itself."""
        return self

    def to_mlx(self) -> Any:
        """An mlx-data Buffer of these samples; see :meth:`Chain.to_mlx`."""
        return engine.to_mlx_buffer(len(self), self.__getitem__)


class _Hand:
    """The pass of a stream that ``next`` reads, from any thread; a copy of the stream begins without one."""

    def __init__(self) -> None:
        self.iterator: Iterator[Sample] | None = None
        self.renew()
        renewed_in_children(self)

    def renew(self) -> None:
        """A new lock, as in a forked child."""
        self.lock = Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Hand, ()


@dataclass(frozen=True, eq=False, repr=False)
class Stream(StreamOrder, StreamBatches, Readers, Chain):
    """Samples in order, one epoch for each ``iter``: shuffles and random steps draw anew every time.

    A description like a Buffer: two iterators over one stream do not disturb each other. Beside it, a stream
    remembers how many epochs were begun and where the last one stands (:meth:`state_dict`).
    """

    errors: OnError = RAISE
    line: bool = False

    @cached_property
    def _runner(self) -> Runner:
        return Runner(self.node, self.errors, self.line)

    @cached_property
    def _hand(self) -> _Hand:
        return _Hand()

    def _passing(self) -> tuple[Run, Watch | None]:
        return Run(self.node.seed, 0, self.errors.action == "skip"), self._runner

    def _with(self, node: links.Node) -> Self:
        return type(self)(node, self.errors, self.line)

    def _stream(self, node: links.Node) -> Stream:
        return self._with(node)

    def __iter__(self) -> Iterator[Sample]:
        self._runner.look()
        return self._runner.begin()

    def __next__(self) -> Sample:
        sample = self.next()
        if not sample:
            raise StopIteration
        return sample

    def __call__(self) -> Sample:
        """The same as :meth:`next`."""
        return self.next()

    def next(self) -> Sample:
        """The next sample of a pass of the stream's own, an empty dict at its end and until :meth:`reset`."""
        with self._hand.lock:
            self._hand.iterator = self._hand.iterator or iter(self)
            iterator = self._hand.iterator
        return next(iterator, {})

    def reset(self) -> None:
        """Let :meth:`next` begin the next epoch. A ``for`` begins one by itself, and is not disturbed."""
        self._hand.iterator = None

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
            limit: how many samples of an epoch may be skipped: a whole number, or a share (a float up to 1).

        Raises:
            ChainError: on reading, when more were skipped: at once for a number; a share is looked at from the
                100th sample on, and at the end of the epoch.
        """
        return type(self)(self.node, policy(action, limit), self.line)

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

    def to_stream(self) -> Self:
        """Itself."""
        return self

    def to_buffer(self) -> Buffer:
        """All samples of one epoch, held in memory.

        Raises:
            ChainError: for a stream without end.
        """
        if self.node.endless:
            raise ChainError("to_buffer: the stream has no end; cut it first, with .take(count)")
        return Buffer(links.Vector(list(self), f"{self.node.text()}.to_buffer()"))

    def to_mlx(self) -> Any:
        """An mlx-data Stream of these samples; see :meth:`Chain.to_mlx`."""
        return engine.to_mlx_stream(self.__iter__)


# -- running --------------------------------------------------------------------------------------------


def _run(node: links.Node, epoch: int) -> Run:
    return Run(node.seed, epoch)
