"""Measurements in processes of their own: none finds memory, caches or open files of another."""

from __future__ import annotations

import multiprocessing
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

# A fork has everything imported already. It is safe here since the parent has no threads; macOS has no safe fork.
CONTEXT: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")


class Failed(Exception):
    """What was measured raised an error, died or took too long."""


def apart(function: Callable[..., Any], *arguments: Any, timeout: float = 120) -> Any:
    """What ``function(*arguments)`` gives, called in a new process.

    Raises:
        Failed: with the error of the process.
    """
    ours, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_call, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    try:
        if not ours.poll(timeout):
            raise Failed(f"no result within {timeout:g} s")
        done, result = ours.recv()
    except EOFError:
        process.join()
        raise Failed(f"its process ended with exit code {process.exitcode}") from None
    finally:
        process.join(5)
        if process.is_alive():
            process.kill()
    if not done:
        raise Failed(result)
    return result


def _call(pipe: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    warnings.simplefilter("ignore")  # of libraries about georeferencing, forks and the like
    try:
        pipe.send((True, function(*arguments)))
    except BaseException:
        pipe.send((False, traceback.format_exc()))
    pipe.close()
