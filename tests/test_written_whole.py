"""A file that is saved is there whole or not at all, whatever happens meanwhile, and says what happened."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import streamgeo as sg
from streamgeo.grid import Grid
from streamgeo.scene import ArrayScene
from streamgeo.template import Template
from tests.ramp import UTM

pytestmark = pytest.mark.filterwarnings("ignore:save. a NumPy file")

ROOT = Path(__file__).parents[1]
KINDS = [
    ("tif", {}), ("tif", {"cog": True}), ("tif", {"overviews": True}), ("nc", {}), ("h5", {}), ("fits", {}),
    ("fits", {"rice": True, "quantize": 1e-6}), ("npy", {}), ("npz", {}), ("zarr", {}),
]  # fmt: skip
NOBODY = 65534


def need(kind: str) -> None:
    if kind == "zarr":
        pytest.importorskip("zarr", minversion="3", reason="streamgeo[zarr] is not installed")


def noise(seed: int, size: int = 600) -> ArrayScene:
    values = np.random.default_rng(seed).random((size, size), np.float32)
    return ArrayScene(values, Grid.of("yx", values.shape, UTM), Template("numpy", ("y", "x")), name="noise")


def opened(path: Path) -> np.ndarray:
    scene = sg.open(variable="data")(path) if path.suffix in (".nc", ".zarr") else sg.open()(path)
    return scene.read().reshape(scene.shape[-2:])


def child(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.test_written_whole", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.strip().splitlines()[-1]


def test_a_full_disk_leaves_nothing_and_is_said(tmp_path):
    need("zarr")
    process = child("full", tmp_path)
    ended(process)
    for i, (kind, _) in enumerate(KINDS):
        folder = tmp_path / str(i)
        said = (tmp_path / f"{i}.txt").read_text()
        assert said.startswith("WriteError save:") and f"out.{kind} cannot be written" in said
        assert [one.name for one in folder.iterdir()] == [f"out.{kind}"]
        np.testing.assert_array_less(
            np.abs(opened(folder / f"out.{kind}") - noise(0).array), 1e-6
        )  # as it was


@pytest.mark.skipif(os.name != "posix", reason="users are those of POSIX")
def test_a_folder_that_may_not_be_written_to_is_said():
    with tempfile.TemporaryDirectory() as place:
        refused(Path(place))


def refused(folder: Path) -> None:
    folder.chmod(0o555)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(NOBODY)
        with pytest.raises(
            sg.WriteError, match=r"save: .*out\.npy cannot be written: Permission denied; give"
        ):
            noise(0, 8).save(folder / "out.npy")
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    "kind",
    ["tif", "zarr", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("nc", "h5", "fits", "npy"))],
)
def test_killed_at_any_moment_leaves_the_old_file_or_the_new_one(kind, tmp_path):
    need(kind)
    path = tmp_path / f"out.{kind}"
    noise(0).save(path)
    for pause in (0.01, 0.07):
        process = child("again", path)
        assert process.stdout is not None and process.stdout.readline().strip() == "saving"
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        others = [one.name for one in tmp_path.iterdir() if one != path]
        assert all(name.startswith(".streamgeo-") for name in others), others
        if not path.exists():  # between the two renames of a store: the old one is in a hidden folder
            assert kind == "zarr" and others
            continue
        got = opened(path)
        assert any(np.array_equal(got, noise(seed).array) for seed in (0, 1, 2))


def test_two_processes_that_save_the_same_names(tmp_path):
    need("zarr")
    for process in [child("many", tmp_path, seed) for seed in (1, 2)]:
        assert ended(process) == "saved"
    names = sorted({f"out.{kind}" for kind, _ in KINDS})
    assert sorted(one.name for one in tmp_path.iterdir()) == names
    for name in names:
        got = opened(tmp_path / name)
        assert any(np.abs(got - noise(seed, 64).array).max() < 1e-6 for seed in (1, 2))


def test_a_store_that_comes_between_the_two_renames_is_replaced(tmp_path, monkeypatch):
    need("zarr")
    path, replace, seen = tmp_path / "out.zarr", Path.replace, []
    noise(0, 8).save(path)

    def raced(self, target):
        result = replace(self, target)
        if self == path and not seen:  # the old store has just gone: the other process is first
            seen.append(noise(1, 8).save(path))
        return result

    monkeypatch.setattr(Path, "replace", raced)
    noise(2, 8).save(path)
    np.testing.assert_array_equal(opened(path), noise(2, 8).array)
    assert seen and [one.name for one in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(("kind", "options"), KINDS, ids=str)
def test_saved_over_what_was_there(kind, options, tmp_path):
    need(kind)
    path = tmp_path / f"out.{kind}"
    noise(1, 700).save(path, **options)
    noise(2, 300).save(path, **options)
    np.testing.assert_array_less(np.abs(opened(path) - noise(2, 300).array), 1e-6)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def main(what: str, path: str, given: str = "") -> None:
    """What a process does that is killed, has no room, or has another beside it."""
    warnings.simplefilter("ignore")
    if what == "full":
        full(Path(path))
    elif what == "again":
        first, second = noise(1), noise(2)
        print("saving", flush=True)
        while True:
            first.save(path)
            second.save(path)
    else:
        for _ in range(10):
            for kind, options in KINDS:
                noise(int(given), 64).save(Path(path) / f"out.{kind}", **options)
        print("saved")


def full(folder: Path) -> None:
    """Save each kind twice, the second time where files may not grow large."""
    for i, (kind, options) in enumerate(KINDS):
        path = folder / str(i) / f"out.{kind}"
        noise(0).save(path, **options)
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000 if kind == "zarr" else 400_000, hard))
        try:
            said = f"saved {noise(1).save(path, **options)}"
        except Exception as error:
            said = f"{type(error).__name__} {error}"
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        (folder / f"{i}.txt").write_text(" ".join(said.split()))
    print("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
