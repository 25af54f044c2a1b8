"""Imports every module that registers steps, so that any of them can be built from JSON."""

from __future__ import annotations

import pkgutil
from importlib import import_module

_FAMILIES = ("steps", "helio", "remote", "climate")

import_module("streamgeo.openers")
for _family in _FAMILIES:
    _package = import_module(f"streamgeo.{_family}")
    for _found in pkgutil.iter_modules(_package.__path__, f"{_package.__name__}."):
        import_module(_found.name)
