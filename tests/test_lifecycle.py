"""Lives and deaths of a stream that reads real formats: every end is clean, whenever it comes."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import streamgeo as sg
from streamgeo import made

ROOT = Path(__file__).parents[1]
PROGRAM = """
import os, signal, sys, threading
import streamgeo as sg
chain = (
    sg.files({pattern!r}, key="image").key_transform("image", sg.open())
    .key_transform("image", sg.normalize(mean=1.0, std=2.0)).key_transform("image", sg.patch(32, 16))
)
stream = chain.shuffle(seed=0).batch(2).prefetch(4, 3)
def interrupt(after):
    threading.Timer(after, os.kill, (os.getpid(), signal.SIGINT)).start()
"""
ENDS = {
    "exit": ("it = iter(stream); next(it)", 0),
    "sys.exit": ("for b in stream: sys.exit(7)", 7),
    "break": ("for b in stream: break", 0),
    "exception": ("for b in stream: raise ValueError('x')", 1),
    "del": ("it = iter(stream); next(it); del it", 0),
    "predict": ("p = chain.batch(2).prefetch(4, 3).predict(lambda x: x); next(p)", 0),
    "interrupt": ("interrupt({wait})\nwhile True:\n    for b in stream: pass", -signal.SIGINT),
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("scenes")
    made.sun(folder / "sun", 2, 96)
    made.land(folder / "land", 2, (100, 120))
    made.sea(folder / "sea", 2, (48, 64))
    return {kind: str(folder / kind / "*") for kind in ("sun", "land", "sea")}


def end(pattern: str, name: str, wait: float) -> None:
    code, expected = ENDS[name]
    program = PROGRAM.format(pattern=pattern) + code.format(wait=wait)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, timeout=60, capture_output=True, text=True
    )
    allowed = {expected, 128 - expected} if expected < 0 else {expected}
    assert done.returncode in allowed, f"{done.returncode}: {done.stderr}"


@pytest.mark.parametrize("kind", ["sun", "land", "sea"])
@pytest.mark.parametrize("name", ENDS)
def test_every_end_is_clean(scenes: dict[str, str], kind: str, name: str) -> None:
    end(scenes[kind], name, 0.1)


@pytest.mark.long
@pytest.mark.parametrize("name", ENDS)
def test_every_end_is_clean_fifty_times(scenes: dict[str, str], name: str) -> None:
    for number in range(50):
        end(scenes[("sun", "land", "sea")[number % 3]], name, number * 0.01)


@pytest.mark.long  # open: now and then a child forked while a reader is busy hangs on a lock of that reader
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.parametrize("kind", ["sun", "land", "sea"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_reads_the_same(scenes: dict[str, str], kind: str) -> None:
    program = PROGRAM.format(pattern=scenes[kind]) + (
        # Readers are loaded before: an import that another thread is in stays locked in the child (CPython).
        "chain[0]\nit = iter(stream)\nnext(it)\npid = os.fork()\n"
        "total = sum(float(b['image.window'].sum()) for b in it)\n"
        "whole = sum(float(b['image.window'].sum()) for b in chain.shuffle(seed=0).batch(2))\n"
        "first = float(next(iter(chain.shuffle(seed=0).batch(2)))['image.window'].sum())\n"
        "assert total == whole - first\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if pid else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, timeout=60, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def _sum(chain: sg.Buffer, queue: object) -> None:
    queue.put(sum(len(b["image"]) for b in chain.batch(4).prefetch(2, 2)))  # type: ignore[attr-defined]


def test_a_spawned_child_gets_a_working_chain(scenes: dict[str, str]) -> None:
    import multiprocessing

    chain = (
        sg.files(scenes["land"], key="image")
        .key_transform("image", sg.open())
        .key_transform("image", sg.patch(32))
    )
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=_sum, args=(chain, queue))
    child.start()
    assert queue.get(timeout=60) == len(chain)
    child.join(30)
    assert child.exitcode == 0


def test_chains_pickle_after_use(scenes: dict[str, str]) -> None:
    chain = (
        sg.files(scenes["sea"], key="image")
        .key_transform("image", sg.open())
        .key_transform("image", sg.patch(32))
    )
    sample = chain[3]
    again = pickle.loads(pickle.dumps(chain.shuffle(seed=1)))
    assert len(again) == len(chain)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(chain))[3]["image"], sample["image"])


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to count files")
def test_handles_are_bounded(tmp_path: Path) -> None:
    made.land(tmp_path, 1, (40, 40))
    content = (tmp_path / "scene_0.tif").read_bytes()
    for number in range(150):
        (tmp_path / f"copy_{number}.tif").write_bytes(content)
    chain = sg.files(str(tmp_path / "*.tif"), key="image").key_transform("image", sg.open_geotiff())
    before = len(os.listdir("/proc/self/fd"))
    assert sum(1 for _ in chain.key_transform("image", sg.patch(20)).batch(4).prefetch(4, 2)) == 151
    assert len(os.listdir("/proc/self/fd")) - before <= 70
