"""Libraries that only some steps need; an error names the extra that brings them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from streamgeo.errors import StepError


def scipy_part(name: str, what: str) -> Any:
    """A module of scipy.

    Raises:
        StepError: where scipy is not installed.
    """
    try:
        return import_module(f"scipy.{name}")
    except ImportError as error:
        raise StepError(
            f"{what}: it needs scipy, which is not installed ({error}); pip install 'streamgeo[xarray]'"
        ) from None
