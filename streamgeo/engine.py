"""The engine: mlx-data's thread pool, behind guards. The only module that touches mlx.data and threads.

Tasks run on mlx-data's prefetch threads and come out in order. What travels through mlx-data is an int64
ticket; tasks and results wait on a board on the Python side, so any dtype, any metadata and any exception can
come through. The guards, each for a fault that was measured:

* no exception reaches mlx-data (it would abort the process when the stream is deleted): it is caught, StopIteration
  and KeyboardInterrupt too, kept on the board, and raised in the consumer's thread;
* tickets never end, so mlx-data never sees the end of a stream with several threads in flight;
* ``Stream.prefetch`` gives tickets out of order; the board gives results in order;
* a live stream at interpreter exit crashes: every engine is closed by ``atexit``, and once closed its tasks are
  skipped, so closing waits for the running task only;
* a child forked from under a live stream has the stream but not its threads. The stream is left alone for good,
  and from then on the child runs its tasks in the consumer's own thread: more threads there make the exit crash.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from streamgeo.errors import ChainError

T = TypeVar("T")
Task = Callable[[], T]


@dataclass
class _Board(Generic[T]):
    """Open tasks and finished results by ticket; shared by the consumer and the worker threads."""

    tasks: Iterator[Task[T]]
    lock: threading.Lock = field(default_factory=threading.Lock)
    open: dict[int, Task[T]] = field(default_factory=dict)
    done: dict[int, tuple[T | None, BaseException | None]] = field(default_factory=dict)
    drawn: int = 0
    ended: bool = False
    closed: bool = False

    def tickets(self) -> Iterator[dict[str, Any]]:
        """Numbers without end; a task is drawn for each while there are tasks."""
        while True:
            yield {"ticket": np.array(self.draw(), np.int64)}

    def draw(self) -> int:
        """Take the next task; its ticket, or -1 when there is none."""
        with self.lock:
            ticket = self.drawn
            if self.closed or self.ended:
                return -1
            self.drawn += 1
            try:
                self.open[ticket] = next(self.tasks)
            except StopIteration:
                self.ended = True
                self.done[ticket] = (None, _End())
            except BaseException as error:
                self.ended = True
                self.done[ticket] = (None, error)
            return ticket

    def work(self, ticket: Any) -> Any:
        """Run the task of one ticket; whatever it raises is kept for the consumer."""
        number = int(ticket)
        task = self.open.get(number)
        if task is not None and not self.closed:
            try:
                outcome: tuple[T | None, BaseException | None] = (task(), None)
            except BaseException as error:
                outcome = (None, error)
            with self.lock:
                self.done[number] = outcome
        return np.array(number, np.int64)


class _End(Exception):
    """The tasks are at their end."""


class Engine(Generic[T]):
    """Results of ``tasks`` in their order, computed ahead by ``threads`` threads, at most ``size`` ahead.

    An error in a task is raised when its turn comes; iteration can go on after it.
    """

    def __init__(self, tasks: Iterator[Task[T]], size: int, threads: int) -> None:
        self._board: _Board[T] = _Board(tasks)
        self._size, self._threads = size, threads
        self._turn = 0
        self._stream: Any = None
        self._pid = os.getpid()
        self._consumer = threading.Lock()
        _LIVE.add(self)

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._consumer:
            return self._next()

    @property
    def queued(self) -> int:
        """How many finished results wait to be asked for."""
        board = self._board
        return max(0, len(board.done) - board.ended)

    def _next(self) -> T:
        board = self._board
        if board.closed:
            raise StopIteration
        if self._pid != os.getpid():
            self._take_up_after_fork()
        while self._turn not in board.done:
            self._advance(board)
        value, error = board.done[self._turn]
        if isinstance(error, _End):
            self.close()
            raise StopIteration
        with board.lock:
            board.open.pop(self._turn, None)
            del board.done[self._turn]
        self._turn += 1
        if isinstance(error, StopIteration):
            raise RuntimeError("a task raised StopIteration") from error  # it would end the epoch unseen
        if error is not None:
            raise error
        return value  # type: ignore[return-value]

    def _advance(self, board: _Board[T]) -> None:
        """Wait for one ticket, or run the next task here where there may be no threads."""
        if _INLINE:
            if self._turn not in board.open:
                board.draw()
            board.work(self._turn)
            return
        if self._stream is None:
            self._stream = _start(board, self._size, self._threads)
        self._stream.next()

    def _take_up_after_fork(self) -> None:
        """In a child: forget the parent's stream and lock; what was open in the parent runs here again."""
        _leave_alone(self._stream)
        self._stream, self._pid = None, os.getpid()
        self._board.lock = threading.Lock()

    def close(self) -> None:
        """Stop: tasks that have not begun are skipped; returns when the running ones are done."""
        self._board.closed = True
        stream, self._stream = self._stream, None
        if self._pid != os.getpid():
            _leave_alone(stream)
        del stream
        self._board.open.clear()
        self._board.done.clear()

    def __del__(self) -> None:
        if hasattr(self, "_stream"):
            self.close()


def _start(board: _Board[T], size: int, threads: int) -> Any:
    import mlx.data as dx

    tickets = dx.stream_python_iterable(board.tickets)
    return tickets.key_transform("ticket", board.work).prefetch(size, threads)


def _leave_alone(stream: Any) -> None:
    """Keep a stream whose threads live in another process from ever being destroyed here."""
    if stream is not None:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(stream))


_LIVE: weakref.WeakSet[Engine[Any]] = weakref.WeakSet()
_INLINE: list[bool] = []  # not empty in a child that was forked from under a live stream


def _after_fork() -> None:
    for engine in list(_LIVE):
        engine._consumer = threading.Lock()  # a thread that is not here may have held it
        if engine._stream is not None:
            _INLINE.append(True)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@atexit.register
def _close_all() -> None:
    for engine in list(_LIVE):
        engine.close()


# -- mlx-data at both ends ------------------------------------------------------------------------------


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
