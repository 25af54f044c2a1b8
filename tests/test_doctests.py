"""The examples in docstrings run, and give what they say."""

from __future__ import annotations

import doctest
import pkgutil
import tempfile
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import streamgeo as sg

NAMES = {name: getattr(sg, name) for name in sg.__all__}
GLOBALS = {**NAMES, "sg": sg, "np": np, "Path": Path, "tempfile": tempfile, "partial": partial}
MODULES = sorted(module.name for module in pkgutil.walk_packages(sg.__path__, "streamgeo."))


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_examples_in_docstrings(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = import_module(name)
    own = {key: value for key, value in GLOBALS.items() if key not in vars(module)}
    done = doctest.testmod(module, extraglobs=own)
    assert done.failed == 0
