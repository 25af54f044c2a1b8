"""Libraries that only some operations need; an error names the extra that brings them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from streamgeo.errors import StepError, StreamGeoError


def optional(
    module: str, extra: str, what: str, *, least: int = 0, error: type[StreamGeoError] = StepError
) -> Any:
    """A module of an optional library.

    Args:
        module: its name, such as ``"scipy.ndimage"``.
        extra: what brings it: ``pip install 'streamgeo[extra]'``.
        what: the operation that needs it, for messages.
        least: the major version that it needs.
        error: what to raise.

    Raises:
        StepError: (or ``error``) where the library, or a part of it, is not installed or too old.
    """
    remedy = f"pip install 'streamgeo[{extra}]'"
    try:
        found = import_module(module)
    except ImportError as reason:
        raise error(f"{what}: it needs {module}, which cannot be imported ({reason}); {remedy}") from reason
    if least and int(found.__version__.split(".")[0]) < least:
        raise error(
            f"{what}: it needs {module} {least}, and {module} {found.__version__} is installed; {remedy}"
        )
    return found
