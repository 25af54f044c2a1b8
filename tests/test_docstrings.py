"""The examples in docstrings run, and every step has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import tempfile
from pathlib import Path

import numpy as np
import pytest

import streamgeo as sg
from streamgeo.step import REGISTRY
from tests.laws import CASES

ROOT = Path(sg.__file__).parent
OPTIONAL = {"climate.gaps": "scipy", "climate.lift": "xarray", "convert_xarray": "xarray"}
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted(ROOT.rglob("*.py"))
    if ">>> " in path.read_text()
]


@pytest.mark.parametrize("module", MODULES)
def test_examples_run(module: str) -> None:
    if module in OPTIONAL:
        pytest.importorskip(OPTIONAL[module])
    found = importlib.import_module(f"streamgeo.{module}")
    names = {"buffer_from_vector": sg.buffer_from_vector, "patch": sg.patch, "tempfile": tempfile, "np": np}
    done = doctest.testmod(found, extraglobs={**names, "sg": sg, "Path": Path})
    assert done.failed == 0
    assert done.attempted > 0 or "doctest: +SKIP" in inspect.getsource(found)


@pytest.mark.parametrize("name", sorted(name for name in CASES if "." in name))
def test_steps_say_what_they_do(name: str) -> None:
    """What becomes of NaN, of the dtype and of the way back, what is refused, and an example."""
    text = inspect.getdoc(REGISTRY[name]) or ""
    for word in ("NaN", "nverse", "Raises:", ">>> "):
        assert word in text, word
    assert any(word in text for word in ("dtype", "float32", "uint8"))
