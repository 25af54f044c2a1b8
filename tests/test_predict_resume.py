"""A prediction that is interrupted at any moment goes on where it was, and gives the same files."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import streamgeo as sg

from .test_predict_more import write

SCRIPT = """
import sys, time
import numpy as np
import streamgeo as sg
import streamgeo.journal

streamgeo.journal._EVERY = 0.0
folder, out, wait = sys.argv[1], sys.argv[2], float(sys.argv[3])

def model(x):
    time.sleep(wait)
    return {"mean": x, "twice": x * 2}

chain = (
    sg.files(f"{folder}/*.tif", key="image").key_transform("image", sg.open_geotiff())
    .key_transform("image", sg.normalize(mean=100.0, std=10.0)).key_transform("image", sg.patch(16, 12)).batch(5)
)
print("ready", flush=True)
for scenes in chain.prefetch(4, 2).predict(model, inverse=[], to=out, blend="hann"):
    pass
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for number in range(3):
        write(tmp_path / "in" / f"{number}.tif", np.random.default_rng(number).normal(100, 10, (1, 60, 50)))
    return tmp_path / "in"


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamgeo.journal._EVERY", 0.0)


def chain_of(folder: Path, mean: float = 100.0) -> sg.Buffer:
    opened = sg.files(str(folder / "*.tif"), key="image").key_transform("image", sg.open_geotiff())
    scaled = opened.key_transform("image", sg.normalize(mean=mean, std=10.0))
    return scaled.key_transform("image", sg.patch(16, 12)).batch(5)


def files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.is_file()}


class Stops:
    """A model that fails at its n-th call."""

    __name__ = "model"

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def __call__(self, x: np.ndarray) -> np.ndarray:
        self.calls -= 1
        if self.calls < 0:
            raise RuntimeError("stopped")
        return x


@pytest.mark.parametrize("shuffled", [False, True])
def test_taken_up_after_every_batch(folder: Path, tmp_path: Path, shuffled: bool) -> None:
    chain = chain_of(folder)
    chain = chain.shuffle(seed=5) if shuffled else chain
    whole = [scene.name for scene in chain.predict(Stops(999), to=tmp_path / "whole")]
    assert sorted(whole) == ["0.tif", "1.tif", "2.tif"]
    for calls in range(len(chain)):
        out = tmp_path / f"out{calls}"
        saved: list[str] = []

        def some(model: Stops, out: Path = out, saved: list[str] = saved) -> None:
            for scene in chain.predict(model, to=out):
                saved.append(scene.name)

        with pytest.raises(RuntimeError, match="stopped"):
            some(Stops(calls))
        again = Stops(999)
        some(again)
        assert sorted(saved) == ["0.tif", "1.tif", "2.tif"]  # none is given twice
        assert files(out) == files(tmp_path / "whole")
        assert [path.name for path in out.iterdir() if path.is_dir()] == []
        if not shuffled:  # of the rows that are open not much is done again
            assert 999 - again.calls <= len(chain) - calls + 4


def test_rows_of_a_scene_that_is_not_seen_for_two_interruptions(folder: Path, tmp_path: Path) -> None:
    opened = sg.files(str(folder / "*.tif"), key="image").key_transform("image", sg.open_geotiff())
    patches = opened.key_transform("image", sg.patch(20))  # nine of each scene
    begin = [9, 10, 11, 0, 18, 1, 2]  # a row of one, then all of a row of another, with the third between
    chain = patches.perm([*begin, *(number for number in range(27) if number not in begin)]).batch(1)
    out = tmp_path / "out"
    for calls in (5, 4):
        with pytest.raises(RuntimeError, match="stopped"):
            list(chain.predict(Stops(calls), to=out))
    assert len(list(chain.predict(Stops(999), to=out))) == 3
    list(chain.predict(Stops(999), to=tmp_path / "whole"))
    assert files(out) == files(tmp_path / "whole")


def test_a_loop_that_is_left_gives_no_scene_twice(folder: Path, tmp_path: Path) -> None:
    seen = []
    for _ in range(3):
        for scene in chain_of(folder).predict(Stops(999), to=tmp_path / "out"):
            seen.append(scene.name)
            break
    assert seen == ["0.tif", "1.tif", "2.tif"]
    assert list(chain_of(folder).predict(Stops(999), to=tmp_path / "out")) == []
    list(chain_of(folder).predict(Stops(999), to=tmp_path / "whole"))
    assert files(tmp_path / "out") == files(tmp_path / "whole")


@pytest.mark.parametrize("in_memory", [0, 1 << 20])
def test_rows_go_when_their_scene_is_saved(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int
) -> None:
    monkeypatch.setattr("streamgeo.rows.IN_MEMORY", in_memory)
    out, scenes = tmp_path / "out", []
    for scene in chain_of(folder).predict(Stops(999), to=out):
        assert len(list((out / ".streamgeo-predict").glob("*.rows"))) <= 1
        scenes.append(scene)
    for scene, path in zip(scenes, sorted(folder.iterdir()), strict=True):  # also when the folder is gone
        np.testing.assert_allclose(scene.array, sg.open_geotiff()(path).array, rtol=1e-6)


def test_another_prediction_is_refused(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(RuntimeError):
        list(chain_of(folder).predict(Stops(2), to=out))
    with pytest.raises(
        sg.ChainError, match=r"predict: [^ ]* holds another prediction .*mean=100.0.*mean=90.0.*resume=False"
    ):
        chain_of(folder, mean=90.0).predict(Stops(999), to=out)
    with pytest.raises(sg.ChainError, match="holds another prediction"):
        chain_of(folder).predict(Stops(999), to=out, blend="hann")
    assert len(list(chain_of(folder, mean=90.0).predict(Stops(999), to=out, resume=False))) == 3
    (out / ".streamgeo-predict").mkdir()
    for wrong, said in (
        ("{", ""),
        ("[]", ""),
        ('{"version": 0}', "version 0, and this is"),
        ('{"version": 1}', ""),
    ):
        (out / ".streamgeo-predict" / "journal.json").write_text(wrong)
        with pytest.raises(sg.ChainError, match=rf"is no journal \(.*{said}"):
            chain_of(folder).predict(Stops(999), to=out)


def test_a_full_disk(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, write_to, calls = tmp_path / "out", os.pwrite, 0

    def full(*args: Any) -> int:
        nonlocal calls
        calls += 1
        if calls == 4:
            write_to(args[0], args[1][:7], args[2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_to(*args)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match=r"predict: finished rows: No space left.*\.rows"):
            list(chain_of(folder).predict(Stops(999), to=out))
    list(chain_of(folder).predict(Stops(999), to=out))
    list(chain_of(folder).predict(Stops(999), to=tmp_path / "whole"))
    assert files(out) == files(tmp_path / "whole")


def test_two_predictions_to_one_folder(folder: Path, tmp_path: Path) -> None:
    first = chain_of(folder).predict(Stops(999), to=tmp_path / "out")
    with pytest.raises(sg.ChainError, match="another process predicts to"):
        chain_of(folder).predict(Stops(999), to=tmp_path / "out")
    assert len(list(first)) == 3
    with pytest.raises(sg.ChainError, match="is a file; give a folder"):
        chain_of(folder).predict(Stops(999), to=tmp_path / "out" / "0.tif")
    with pytest.raises(sg.ChainError, match="compress are for files; give to="):
        chain_of(folder).predict(Stops(999), compress="none")


def test_rows_that_were_cut_off_are_told(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(RuntimeError):
        list(chain_of(folder).predict(Stops(3), to=out))
    (rows,) = (out / ".streamgeo-predict").glob("*.rows")
    rows.write_bytes(rows.read_bytes()[:-1])
    with pytest.raises(sg.StepError, match="finished rows is damaged; start anew with resume=False"):
        list(chain_of(folder).predict(Stops(999), to=out))
    assert len(list(chain_of(folder).predict(Stops(999), to=out, resume=False))) == 3


def start(folder: Path, out: Path, wait: float) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(sg.__file__).parents[1])}
    command = [sys.executable, "-c", SCRIPT, str(folder), str(out), str(wait)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


KILLS = [
    signal.SIGKILL,
    *(pytest.param(kind, marks=pytest.mark.long) for kind in (signal.SIGTERM, signal.SIGINT)),
]


@pytest.mark.parametrize("kind", KILLS)
def test_killed_and_taken_up(folder: Path, tmp_path: Path, kind: signal.Signals) -> None:
    rng = random.Random(int(kind))
    out = tmp_path / "out"
    for _ in range(3):
        child = start(folder, out, 0.05)
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.0, 0.6))
        child.send_signal(kind)
        child.wait(30)
    assert start(folder, out, 0.0).wait(60) == 0
    assert sorted(files(out)) == sorted(f"{i}_{name}.tif" for i in range(3) for name in ("mean", "twice"))
    assert start(folder, tmp_path / "whole", 0.0).wait(60) == 0
    assert files(out) == files(tmp_path / "whole")
    assert not (out / ".streamgeo-predict").exists()
