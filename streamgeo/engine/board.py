"""Tasks run on mlx-data's prefetch threads and come out in order.

What travels through mlx-data is an int64 ticket; tasks and results wait on a board on the Python side, so any
dtype, any metadata and any exception can come through. The guards, each for a fault that was measured:

* no exception reaches mlx-data (it would abort the process when the stream is deleted): it is caught, StopIteration
  and KeyboardInterrupt too, kept on the board, and raised in the consumer's thread;
* tickets never end, so mlx-data never sees the end of a stream with several threads in flight;
* ``Stream.prefetch`` gives tickets out of order; the board gives results in order;
* a live stream at interpreter exit crashes: every engine is closed by ``atexit``, and once closed its tasks are
  skipped, so closing waits for the running task only;
* ``next`` of mlx-data waits for the thread that it started first, which may have drawn a later ticket than the one
  whose turn it is, and may pause until the consumer goes on. So the consumer waits on the board, and a thread of
  its own takes a ticket from mlx-data, which then begins another, for each whose results were taken;
* a thread of mlx-data that goes to sleep in the very moment in which its stream is deleted is never woken, and the
  deletion waits for it (3 of 230,000 streams). So the stream is left to come to rest first;
* a ticket costs tens of microseconds, and threads that share one interpreter hinder each other: where results come
  sooner without (``pace`` says so), the threads draw no more, and when all that they drew is taken, they are ended
  and the consumer goes on alone;
* a stream that is let go of, and not closed by name, is ended by another thread (``tickets`` says why);
* a child forked from under a live stream has the stream but not its threads. The stream is left alone for good,
  and from then on the child runs its tasks in the consumer's own thread: more threads there make the exit crash.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import numpy as np

from streamgeo.engine.pace import Pace
from streamgeo.engine.tickets import Tickets, elsewhere, leave_alone, may_wait, works
from streamgeo.gate import GATE

T = TypeVar("T")
Task = Callable[[], T]


class _End(Exception):
    """The tasks are at their end."""


class _Board(Generic[T]):
    """Open tasks and finished results by ticket; shared by the consumer and the worker threads.

    ``held`` are the bytes of the results that wait, ``largest`` those of the largest so far: a task begins when
    one more of that size still fits, and always when the consumer's turn is at it.
    """

    def __init__(self, tasks: Iterator[Task[T]], max_bytes: int | None, nbytes: Callable[[T], int]) -> None:
        self.tasks, self.max_bytes, self.nbytes = tasks, max_bytes, nbytes
        self.open: dict[int, Task[T]] = {}
        self.done: dict[int, tuple[T | None, BaseException | None, int]] = {}
        self.draws = self.drawn = self.turn = self.held = self.running = self.largest = 0
        self.ended = self.closed = self.resting = False
        # One for each ticket of this stream whose result was taken.
        self.asks: SimpleQueue[bool] = SimpleQueue()
        self.inner = GATE.entered  # a task reads it
        self.renew()

    def renew(self) -> None:
        """New locks: at the start, and in a child, where another thread may have held them."""
        self.drawing = threading.Lock()
        self.changed = threading.Condition()  # what is collected inside it may close the board

    def tickets(self) -> Iterator[dict[str, Any]]:
        """Numbers without end; a task is drawn for each while there are tasks."""
        while True:
            works()
            self.draws += 1
            yield {"ticket": np.array(self.draw(), np.int64)}

    def draw(self) -> int:
        """Take the next task; the ticket is its number, or -1 for none."""
        if self._over():
            return -1
        GATE.enter(self.inner)
        try:
            with self.drawing:
                with self.changed:  # so that nothing is drawn once the threads are to rest
                    if self._over():
                        return -1
                    number = self.drawn
                    self.drawn += 1
                try:
                    self.open[number] = next(self.tasks)
                except StopIteration:
                    self._finish(number, None, _End())
                except BaseException as error:
                    self._finish(number, None, error)
                return number
        finally:
            GATE.leave()

    def _over(self) -> bool:
        return self.closed or self.ended or self.resting

    def _finish(self, ticket: int, value: T | None, error: BaseException | None, nbytes: int = 0) -> None:
        with self.changed:
            self.ended = self.ended or ticket not in self.open
            self.done[ticket] = (value, error, nbytes)
            self.held += nbytes
            self.largest = max(self.largest, nbytes)
            self.changed.notify_all()

    def work(self, ticket: Any) -> Any:
        """Run the task of a ticket; whatever it raises is kept for the consumer."""
        works()
        number = int(ticket)
        task = self.open.get(number)
        if task is not None and not self.closed:
            self._run(number, task)
        return ticket

    def _run(self, number: int, task: Task[T]) -> None:
        if self.max_bytes is not None:
            self._pause(number, self.max_bytes)
        GATE.enter(self.inner)
        try:
            if not self.closed:
                value: T | None = None
                error: BaseException | None = None
                nbytes = 0
                try:
                    value = task()
                    nbytes = self.nbytes(value) if self.max_bytes is not None else 0
                except BaseException as raised:
                    error = raised
                self._finish(number, value, error, nbytes)
        finally:
            if self.max_bytes is not None:
                with self.changed:
                    self.running -= 1
            GATE.leave()

    def here(self) -> T:
        """Run the next task in the consumer's own thread.

        Raises:
            StopIteration: at the end.
        """
        GATE.enter(self.inner)
        try:
            task = self.open.pop(self.turn, None) or self._next_task()
            self.turn += 1
            try:
                return task()
            except StopIteration as error:
                raise RuntimeError("a task raised StopIteration") from error  # it would end the epoch unseen
        finally:
            GATE.leave()

    def _next_task(self) -> Task[T]:
        if self.ended:
            raise StopIteration
        self.ended = True  # whatever next() raises
        task = next(self.tasks)
        self.ended = False
        self.drawn = self.turn + 1
        return task

    def _pause(self, number: int, most: int) -> None:
        """Wait until one more result fits beside those that wait and those that are being made."""
        with self.changed:
            self.changed.wait_for(
                lambda: (
                    self.closed
                    or number == self.turn
                    or self.held + (self.running + 1) * self.largest <= most
                )
            )
            self.running += 1

    def rests(self) -> bool:
        """Let nothing more be drawn; whether all that was drawn has been taken.

        Nobody waits for that: the source, or a task, may be waiting for what the consumer does next.
        """
        with self.changed:
            self.resting = True
            return self.turn == self.drawn

    def take(self) -> tuple[T | None, BaseException | None]:
        """The result of the present turn, which is done; then it is the turn of the next."""
        with self.changed:
            value, error, nbytes = self.done.pop(self.turn)
            self.open.pop(self.turn, None)
            self.turn += 1
            self.asks.put(True)
            self.held -= nbytes
            if self.max_bytes is not None:
                self.changed.notify_all()
        return value, error

    def close(self) -> None:
        """Skip what has not begun, and let go of what nobody will take."""
        with self.changed:
            self.closed = True
            self.open.clear()
            self.done.clear()
            self.changed.notify_all()


class Engine(Generic[T]):
    """Results of ``tasks`` in their order, computed ahead by ``threads`` threads, at most ``size`` ahead.

    An error in a task is raised when its turn comes; iteration can go on after it. With ``max_bytes`` workers
    pause while the results that wait have so many bytes, as ``nbytes`` counts them; a result that is larger than
    that comes alone. Where ``pace`` finds that results come sooner so, the consumer computes them itself.
    """

    def __init__(
        self,
        tasks: Iterator[Task[T]],
        size: int,
        threads: int,
        max_bytes: int | None = None,
        nbytes: Callable[[T], int] = lambda value: 0,
        pace: Pace | None = None,
    ) -> None:
        self._board: _Board[T] = _Board(tasks, max_bytes, nbytes)
        self._size, self._threads = size, threads
        self._pace = pace or Pace()
        self._pace.begin()
        self._stream: Tickets | None = None
        self._first = False  # whether the threads have just come to rest
        self._pid = os.getpid()
        self._consumer = threading.Lock()
        _LIVE.add(self)

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._consumer:
            return self._next()

    @property
    def here(self) -> bool:
        """Whether the consumer runs the next task itself, so that it waits for nobody."""
        return self._pace.here and self._stream is None and not self._board.done

    @property
    def rests(self) -> bool:
        """Whether, beside, nothing is drawn, so that the consumer may as well go on with the tasks by itself."""
        board = self._board
        if not self._pace.here or self._stream is not None:
            return False
        return not (self._first or board.open or board.done or board.ended or board.closed)

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
        while board.turn not in board.done:
            if _INLINE or (self._pace.here and self._stream is None):
                return self._run_here(board)
            if self._pace.here and board.rests():
                self._stop()
                self._first = True
            else:
                self._advance(board)
            if board.closed:
                raise StopIteration
        value, error = board.take()
        if not self._pace.here:
            self._pace.took()
        if isinstance(error, _End):
            self.close()
            raise StopIteration
        if isinstance(error, StopIteration):
            raise RuntimeError("a task raised StopIteration") from error  # it would end the epoch unseen
        if error is not None:
            raise error
        return value  # type: ignore[return-value]

    def _run_here(self, board: _Board[T]) -> T:
        try:
            result = board.here()
        except StopIteration:
            self.close()
            raise
        if self._first:  # it is measured from here on
            self._first = False
            self._pace.start()
        else:
            self._pace.took()
        return result

    def _advance(self, board: _Board[T]) -> None:
        """Wait for the result whose turn it is."""
        if self._stream is None:
            self._start(board)
        with board.changed:
            board.changed.wait_for(lambda: board.turn in board.done or board.closed)

    def _start(self, board: _Board[T]) -> None:
        import mlx.data as dx

        board.resting, board.asks = False, SimpleQueue()
        tickets = dx.stream_python_iterable(board.tickets).key_transform("ticket", board.work)
        self._stream = Tickets(tickets.prefetch(self._size, self._threads), board)
        self._stream.begin()  # a signal may end the program anywhere here, and what has begun must be known

    def _take_up_after_fork(self) -> None:
        """In a child: forget the parent's stream and locks; what was open in the parent runs here again."""
        leave_alone(self._stream)
        self._stream, self._pid = None, os.getpid()
        self._board.renew()

    def close(self) -> None:
        """Stop: tasks that have not begun are skipped; returns when the running ones are done."""
        if self._pid != os.getpid():
            self._take_up_after_fork()
        self._board.close()
        self._stop()

    def let_go(self) -> None:
        """The same for whoever may not wait for that: another thread does, unless a stream is closed by name."""
        if may_wait() or self._stream is None or self._pid != os.getpid():
            self.close()
        else:
            stream, self._stream = self._stream, None
            elsewhere(partial(_end, self._board, stream))

    def _stop(self) -> None:
        """End the threads; waits for the tasks that they run."""
        if self._stream is not None:
            self._stream.stop()
            self._stream = None

    def __del__(self) -> None:
        if hasattr(self, "_consumer"):
            self.let_go()


def _end(board: _Board[Any], stream: Tickets) -> None:
    board.close()
    stream.stop()


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
