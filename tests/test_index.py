"""An index of files: the same patches as without it, and no file opened to count them."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamgeo as sg
from streamgeo import indexing, openers
from streamgeo.errors import ChainError, OpenError, SampleError
from streamgeo.step import POINT, Step


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were opened."""
    seen: list[str] = []
    original = openers._open_one

    def open_one(path: str, kind: str, options: dict[str, Any]) -> Any:
        seen.append(Path(path).name)
        return original(path, kind, options)

    monkeypatch.setattr(openers, "_open_one", open_one)
    return seen


def write(folder: Path, shapes: list[tuple[int, ...]]) -> list[Path]:
    """Files of numbers of these shapes."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number:04d}.npy" for number in range(len(shapes))]
    for number, (path, shape) in enumerate(zip(paths, shapes)):
        np.save(path, np.full(shape, number, np.float32))
    return paths


def chain(pattern: Any, index: Path | None = None, size: int = 8) -> sg.Buffer:
    return (
        sg.files(pattern, key="x", index=index)
        .key_transform("x", sg.open_numpy())
        .key_transform("x", sg.normalize(1.0, 2.0))
        .key_transform("x", sg.patch(size, edge="pad"))
    )


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_it_counts_what_opening_counts(data: st.DataObject, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("index")
    shape = st.lists(st.integers(1, 20), min_size=1, max_size=3).map(tuple)
    write(folder, data.draw(st.lists(shape, min_size=1, max_size=20)))
    file = sg.index(folder, opener=sg.open_numpy()).file
    size, edge = data.draw(st.integers(4, 12)), data.draw(st.sampled_from(["pad", "drop", "shift"]))

    def lengths(index: Path | None) -> Any:
        begun = sg.files(folder / "*.npy", index=index).key_transform("file", sg.open_numpy())
        made = begun.shuffle(3).key_transform("file", sg.patch(size, edge=edge))
        try:
            return len(made), [s["file.scene"].item() for s in made]
        except SampleError as error:  # smaller than the patch: told with the file's name, as without an index
            assert ".npy" in str(error)
            return "a scene smaller than the patch"

    assert lengths(file) == lengths(None)


def test_no_file_is_opened_to_count(tmp_path: Path, opened: list[str]) -> None:
    paths = write(tmp_path / "d", [(20, 30)] * 50)
    result = sg.index(tmp_path / "d" / "*.npy", opener=sg.open_numpy())
    assert (result.files, result.opened, result.bad) == (50, 50, {})
    assert result.file == tmp_path / "d" / indexing.NAME
    opened.clear()
    made = chain(paths, result.file)
    assert len(made) == 50 * 12
    assert not opened
    assert made[12 * 7]["x"][0, 0] == 3
    assert set(opened) == {"0007.npy"}
    copy = pickle.loads(pickle.dumps(made))
    assert len(copy) == 600
    assert eval(repr_of(made), {"sg": sg}) is not None


def repr_of(made: sg.Buffer) -> str:
    return made.node.path[0].text()


def test_samples_are_the_same_with_and_without(tmp_path: Path) -> None:
    write(tmp_path / "d", [(20, 30), (9, 9), (8, 40)] * 6)
    file = sg.index(tmp_path / "d", opener=sg.open_numpy()).file
    for a, b in zip(
        chain(tmp_path / "d" / "*.npy", file).shuffle(1),
        chain(tmp_path / "d" / "*.npy").shuffle(1),
        strict=True,
    ):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


@pytest.mark.parametrize("change", ["size", "time", "gone from the index"])
def test_a_changed_file_is_opened(tmp_path: Path, opened: list[str], change: str) -> None:
    paths = write(tmp_path / "d", [(16, 16)] * 20)
    if change == "gone from the index":
        file = sg.index(paths[:5] + paths[6:], tmp_path / "index.npz", opener=sg.open_numpy()).file
    else:
        file = sg.index(paths, tmp_path / "index.npz", opener=sg.open_numpy()).file
    if change == "size":
        before = paths[5].stat()
        np.save(paths[5], np.zeros((16, 32), np.float32))
        os.utime(paths[5], ns=(before.st_atime_ns, before.st_mtime_ns))
    elif change == "time":
        np.save(paths[5], np.zeros((32, 8), np.float32))
        os.utime(paths[5], ns=(0, 12345))
    opened.clear()
    assert len(chain(paths, file)) == 20 * 4 + (4 if change == "size" else 0)
    assert set(opened) == {"0005.npy"}
    again = sg.index(paths, file, opener=sg.open_numpy())
    assert (again.files, again.opened) == (20, 1)
    opened.clear()
    assert len(chain(paths, file)) == 20 * 4 + (4 if change == "size" else 0)
    assert not opened
    assert sg.index(paths, file, opener=sg.open_numpy()).opened == 0


def test_bad_files_are_listed_and_do_not_hide_the_others(tmp_path: Path) -> None:
    paths = write(tmp_path / "d", [(16, 16)] * 20)
    paths[3].write_bytes(b"nothing of use")
    paths[4].write_bytes(b"")
    os.truncate(paths[5], 40)
    missing = tmp_path / "d" / "missing.npy"
    result = sg.index([*paths, missing], tmp_path / "index.npz", opener=sg.open_numpy())
    assert sorted(result.bad) == sorted(map(str, [*paths[3:6], missing]))
    assert all(result.bad.values())
    assert (result.files, result.opened) == (17, 17)
    with pytest.raises(SampleError, match="3 of 3 scenes cannot be opened|cannot be read|0 bytes"):
        len(chain(paths, result.file))
    assert len(chain(paths[6:], result.file)) == 14 * 4
    np.save(paths[3], np.zeros((16, 16), np.float32))
    again = sg.index(paths, result.file, opener=sg.open_numpy())
    assert (again.opened, len(again.bad)) == (1, 2)
    os.truncate(paths[9], 30)  # was good, and is not any more
    third = sg.index(paths, result.file, opener=sg.open_numpy())
    assert str(paths[9]) in third.bad
    assert third.files == 17


def test_one_index_for_several_openers_and_folders(tmp_path: Path, opened: list[str]) -> None:
    file = tmp_path / "index.npz"
    first, second = write(tmp_path / "a", [(16, 16)] * 3), write(tmp_path / "b", [(8, 8)] * 3)
    for folder in ("a", "b"):
        sg.index(tmp_path / folder, file, opener=sg.open_numpy())
    sg.index(first, file, opener=sg.open_numpy(raw=True))
    opened.clear()
    assert len(chain([*first, *second], file)) == 3 * 4 + 3
    raw = sg.files(first, key="x", index=file).key_transform("x", sg.open_numpy(raw=True))
    assert len(raw.key_transform("x", sg.patch(8))) == 12
    assert not opened
    second[0].unlink()
    sg.index(first, file, opener=sg.open_numpy())
    assert {Path(path).name for path, _ in indexing.load(file) if "/b/" in path} == {"0001.npy", "0002.npy"}


def test_another_opener_is_told(tmp_path: Path, opened: list[str], caplog: pytest.LogCaptureFixture) -> None:
    paths = write(tmp_path / "d", [(16, 16)] * 3)
    file = sg.index(tmp_path / "d").file
    opened.clear()
    assert len(chain(paths, file)) == 12
    assert len(opened) == 3
    assert "nothing for sg.open_numpy(), only for sg.open()" in caplog.text


def crop(buffer: sg.Buffer) -> sg.Buffer:
    return buffer.key_transform("x", sg.crop(dim_0=slice(0, 8)))


def scene_step(buffer: sg.Buffer) -> sg.Buffer:
    return buffer.key_transform("x", Step(np.sort))


def own(buffer: sg.Buffer) -> sg.Buffer:
    return buffer.sample_transform(lambda sample: sample)


@pytest.mark.parametrize("between", [crop, scene_step, own])
def test_other_links_between_open_the_files(
    tmp_path: Path, opened: list[str], between: Callable[[sg.Buffer], sg.Buffer]
) -> None:
    paths = write(tmp_path / "d", [(16, 24)] * 4)
    file = sg.index(tmp_path / "d", opener=sg.open_numpy()).file
    opened.clear()

    def count(index: Path | None) -> int:
        begun = sg.files(paths, key="x", index=index).key_transform("x", sg.open_numpy())
        return len(between(begun).key_transform("x", sg.patch(8)))

    assert count(file) == count(None)
    assert len(opened) >= 8


def test_order_point_steps_and_other_keys_go_with_it(tmp_path: Path, opened: list[str]) -> None:
    paths = write(tmp_path / "d", [(8 * (1 + n % 3), 8) for n in range(30)])
    file = sg.index(paths, tmp_path / "i.npz", opener=sg.open_numpy()).file
    opened.clear()

    def made(index: Path | None) -> sg.Buffer:
        begun = sg.files(paths, key="path", index=index).shuffle(5)[3:20]
        scenes = begun.key_transform("path", sg.open_numpy(), output_key="x")
        point = scenes.key_transform("x", Step(np.negative, reach=POINT), output_key="y")
        return point.key_transform("y", sg.patch(8))

    length = len(made(file))
    assert not opened
    assert length == len(made(None))


def test_groups_of_files_are_opened(tmp_path: Path) -> None:
    paths = write(tmp_path / "d", [(16, 16)] * 4)
    file = sg.index(tmp_path / "d", opener=sg.open_numpy()).file
    grouped = sg.files([paths[:2], paths[2:]], key="x", index=file).key_transform("x", sg.open_numpy())
    assert len(grouped.key_transform("x", sg.patch(8))) == 8


def test_many_files_take_little_memory_and_no_opening(tmp_path: Path, opened: list[str]) -> None:
    """Hard links, so that it costs no room; a link has size and time of its file."""
    (first,) = write(tmp_path / "d", [(16, 16)])
    for number in range(1, 5000):
        os.link(first, first.with_name(f"{number:04d}.npy"))
    file = sg.index(tmp_path / "d", opener=sg.open_numpy()).file
    assert file.stat().st_size < 5000 * 40
    opened.clear()
    made = chain(tmp_path / "d" / "*.npy", file)
    batch = next(iter(made.shuffle(seed=0).batch(32)))
    assert len(made) == 20_000
    assert batch["x"].shape == (32, 8, 8)
    assert len(opened) <= 32 + 1  # the first one tells how patches share chunks


TERMINAL = """
import os, sys, time, streamgeo as sg
from streamgeo import openers
original = openers._open_one
openers._open_one = lambda *a: (time.sleep(0.5), original(*a))[1]
sg.index(sys.argv[1], opener=sg.open_numpy())
"""


def test_progress_on_a_terminal_when_it_takes_long(tmp_path: Path) -> None:
    write(tmp_path / "d", [(8, 8)] * 50)
    pty, fcntl, termios = (pytest.importorskip(name) for name in ("pty", "fcntl", "termios"))
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [sys.executable, "-c", TERMINAL, str(tmp_path / "d")]
    with subprocess.Popen(command, stderr=child, stdout=child) as process:
        os.close(child)
        shown = b""
        while True:
            try:
                some = os.read(parent, 4096)
            except OSError:  # how Linux tells the end
                break
            if not some:
                break
            shown += some
    os.close(parent)
    assert process.returncode == 0
    assert b"index:" in shown
    assert b"/50" in shown
    (tmp_path / "d" / indexing.NAME).unlink()
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stderr == b""


def test_damage_of_the_index(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = write(tmp_path / "d", [(16, 16)] * 8)
    file = tmp_path / "index.npz"
    sg.index(paths, file, opener=sg.open_numpy())
    content = file.read_bytes()
    rng = np.random.default_rng(0)
    for at in [*range(0, len(content), 97), len(content) - 1]:
        file.write_bytes(content[:at])
        with pytest.raises(OpenError, match="no index of streamgeo, or it is damaged"):
            indexing.load(file)
    for at in rng.integers(0, len(content), 200).tolist():
        bad = bytearray(content)
        bad[at] ^= 0xFF
        file.write_bytes(bad)
        try:
            found = indexing.load(file)
        except OpenError:
            continue
        assert {entry.frame.shape for entry in found.values()} <= {(16, 16)}, at
        assert {path for path, _ in found} <= set(map(str, paths)), at
    file.write_bytes(b"my own notes")
    with pytest.raises(ChainError, match="no index of streamgeo"):
        sg.index(paths, file, opener=sg.open_numpy())
    assert file.read_bytes() == b"my own notes"


def test_another_version_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    paths = write(tmp_path / "d", [(16, 16)] * 3)
    with monkeypatch.context() as patch:
        patch.setattr(indexing, "version", lambda _: "0.0.1")
        file = sg.index(paths, tmp_path / "index.npz", opener=sg.open_numpy()).file
    assert len(chain(paths, file)) == 12
    assert "streamgeo 0.0.1 and is not used" in caplog.text
    monkeypatch.setattr(indexing, "SCHEMA", 2)
    assert indexing.load(file) == {}
    assert sg.index(paths, file, opener=sg.open_numpy()).opened == 3


def test_an_interrupt_keeps_what_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write(tmp_path / "d", [(16, 16)] * 20)
    monkeypatch.setattr(indexing, "_AT_ONCE", 8)
    original = openers._open_one

    def open_one(path: str, kind: str, options: dict[str, Any]) -> Any:
        if path.endswith("0013.npy"):
            raise KeyboardInterrupt
        return original(path, kind, options)

    with monkeypatch.context() as patch:
        patch.setattr(openers, "_open_one", open_one)
        with pytest.raises(KeyboardInterrupt):
            sg.index(paths, tmp_path / "index.npz", opener=sg.open_numpy())
    result = sg.index(paths, tmp_path / "index.npz", opener=sg.open_numpy())
    assert result.files == 20
    assert 0 < result.opened < 13


def test_odd_names(tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    for name in ("a b.npy", "line\nbreak.npy", "été.npy", os.fsdecode(b"\xff\xfe.npy")):
        np.save(folder / name, np.zeros((8, 8), np.float32))
    (folder / ".hidden").write_text("x")
    file = sg.index(folder, opener=sg.open_numpy()).file
    monkeypatch.chdir(folder)
    opened.clear()
    assert len(chain("*.npy", file)) == 4
    assert not opened


def test_what_cannot_be_done(tmp_path: Path) -> None:
    (path,) = write(tmp_path / "d", [(8, 8)])
    with pytest.raises(ChainError, match="names no file"):
        sg.index(tmp_path / "none*")
    with pytest.raises(ChainError, match="give file="):
        sg.index([path])
    with pytest.raises(ChainError, match="no opener"):
        sg.index(path, opener=sg.normalize(0, 1))  # type: ignore[arg-type]
    with pytest.raises(ChainError, match="not a path"):
        sg.index([path, 3], tmp_path / "i")  # type: ignore[list-item]
    with pytest.raises(ChainError, match="cannot be written"):
        sg.index(path, tmp_path / "none" / "i.npz")
    with pytest.raises(ChainError, match=r"make it with sg\.index"):
        sg.files([path], index=tmp_path / "none.npz")
    (tmp_path / "text").write_text("text")
    with pytest.raises((ChainError, OpenError), match="no index of streamgeo"):
        len(chain([path], tmp_path / "text"))


def test_an_index_of_real_files(samples: Path) -> None:
    """Every kind of file that opens without options."""
    names = [
        str(p) for p in sorted(samples.rglob("*")) if p.suffix in (".fits", ".tif", ".npy") and p.is_file()
    ]
    if not names:
        pytest.skip("no FITS, GeoTIFF or NumPy files among the samples")
    opener = sg.open()
    for name in names[:30]:
        try:
            scene = opener(name)
        except Exception:
            continue
        known = indexing.Frame(scene.frame.dims, scene.shape, scene.grid.spatial)
        assert len(sg.patch(64, edge="pad").layout_of(*known)) == len(
            sg.patch(64, edge="pad").layout(scene.grid)
        )
