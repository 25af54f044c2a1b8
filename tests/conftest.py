"""Fixtures: the folder of real sample files, where there is one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SAMPLES = Path(os.environ.get("STREAMGEO_SAMPLES") or Path(__file__).parents[2] / "shared" / "data")


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of real sample files; a test that asks for it is skipped where there is none."""
    if not SAMPLES.is_dir():
        pytest.skip("no sample files: set STREAMGEO_SAMPLES to their folder")
    return SAMPLES
