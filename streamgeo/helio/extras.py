"""Libraries that come with ``pip install 'streamgeo[sun]'``."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from streamgeo.errors import StepError


def extra(module: str, what: str) -> Any:
    """A module of an optional library.

    Raises:
        StepError: where it, or a part of it, is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise StepError(
            f"{what}: it needs {module}, which cannot be imported ({error}); pip install 'streamgeo[sun]'"
        ) from error
