"""Every example runs as a user would run it: in an empty folder, on made scenes, and on the real files."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("[0-9]*.py"))


def run(example: Path, folder: Path, samples: Path | None) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "STREAMGEO_SAMPLES"}
    environment["PYTHONPATH"] = str(example.parents[1])
    if samples is not None:
        environment["STREAMGEO_SAMPLES"] = str(samples.resolve())
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning:streamgeo", str(example)],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def needs(example: Path) -> None:
    for word, module in (("torch", "torch"), ("sst", "scipy"), ("sst", "xarray")):
        if word in example.name and importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda p: p.stem)
def test_on_made_scenes(example: Path, tmp_path: Path) -> None:
    needs(example)
    run(example, tmp_path, None)
    assert [p for p in (tmp_path / "out").rglob("*") if p.is_file()]


ON_REAL_FILES = [p for p in EXAMPLES if p.name[:2] in ("01", "02", "03", "04", "06", "10")]


@pytest.mark.parametrize("example", ON_REAL_FILES, ids=lambda p: p.stem)
def test_on_real_files(example: Path, tmp_path: Path, samples: Path) -> None:
    run(example, tmp_path, samples)
    assert [p for p in (tmp_path / "out").rglob("*") if p.is_file()]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda p: p.stem)
def test_is_short(example: Path) -> None:
    assert len(example.read_text().splitlines()) < 80


def test_they_are_numbered() -> None:
    numbers = [p.name[:2] for p in EXAMPLES]
    assert len(set(numbers)) == len(numbers)
    assert {"01", "02", "03", "04", "05", "06", "07", "08", "09", "10"} <= set(numbers)
