"""The lock around netCDF-C, which is not thread-safe at all: reading and writing share it."""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager
from typing import Any

from streamgeo.gate import GATE

_LOCK = threading.RLock()


def lock() -> AbstractContextManager[Any]:
    """The lock that every call into netCDF-C holds."""
    return _LOCK


def _after_fork_in_child() -> None:
    global _LOCK
    _LOCK = threading.RLock()


if hasattr(os, "register_at_fork"):
    # Held while forking, so that the child's copy of the library is not in the middle of a call.
    os.register_at_fork(
        before=lambda: _LOCK.acquire(),
        after_in_parent=lambda: _LOCK.release(),
        after_in_child=_after_fork_in_child,
    )
    GATE.go_first()
