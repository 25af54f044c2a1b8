"""Waiting for a result no longer than one likes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from streamgeo.gate import GATE

T = TypeVar("T")


class Patience(Generic[T]):
    """Calls, one after another, each waited for up to a time; one that takes longer is waited for again.

    The thread that makes the calls is there from the first time limit on; before, the caller makes them itself.
    ``works`` says that a call computes, and does not only wait for the workers of an engine: then a fork has to
    wait for it.
    """

    def __init__(self, works: bool) -> None:
        self._works = works
        self._thread: ThreadPoolExecutor | None = None
        self._pending: Future[T] | None = None

    def get(self, call: Callable[[], T], timeout: float | None = None) -> T:
        """The result of the call that is pending, or else of ``call``.

        Raises:
            TimeoutError: when it takes longer than ``timeout`` seconds; the call goes on.
        """
        if timeout is None and self._pending is None:
            return call()
        if self._pending is None:
            self._thread = self._thread or ThreadPoolExecutor(1, "streamgeo-next")
            self._pending = self._thread.submit(_gated, call) if self._works else self._thread.submit(call)
        pending = self._pending
        try:
            return pending.result(timeout)
        finally:
            if pending.done():
                self._pending = None

    def close(self) -> None:
        """End the thread; waits for a call that is under way, and drops its result."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown()
        self._pending = None


def _gated(call: Callable[[], T]) -> T:
    with GATE:
        return call()
