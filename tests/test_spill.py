"""Decoded chunks in a folder: what comes out is what was decoded, whatever happens to the folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import streamgeo as sg
from streamgeo import spill
from streamgeo.chunked import At, Chunked
from streamgeo.chunks import CACHE
from streamgeo.errors import ChainError
from streamgeo.spill import Slot, Spill

Array = NDArray[Any]
HUGE = 1 << 40


@pytest.fixture(autouse=True)
def without_memory() -> Iterator[None]:
    """Nothing is kept in memory, and no folder stays set."""
    before = CACHE.limit
    CACHE.limit = 0
    yield
    CACHE.limit = before
    sg.cache(None)


class Counted(Chunked):
    """Numbers that follow from their place, and how often each chunk was decoded."""

    codec = "numbers"

    def __init__(
        self, path: str, mark: int, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: Any = np.float32
    ) -> None:
        self.key, self.shape, self.chunks = ("test", path, mark), shape, chunks
        self.dtype, self.mark, self.cut = np.dtype(dtype), mark, True
        self.decoded: list[At] = []

    def decode(self, at: At) -> Array:
        self.decoded.append(at)
        low = [i * n for i, n in zip(at, self.chunks)]
        high = [min(a + n, whole) if self.cut else a + n for a, n, whole in zip(low, self.chunks, self.shape)]
        places = np.meshgrid(*[np.arange(a, b) for a, b in zip(low, high)], indexing="ij")
        return (self.mark * 7 + sum(p * (3 + k) for k, p in enumerate(places))).astype(self.dtype)

    def whole(self) -> Array:
        out = np.empty(self.shape, self.dtype)
        self.read(tuple((0, n) for n in self.shape), out)
        return out


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("streamgeo-*.chunks"))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_second_pass_decodes_nothing_and_gives_the_same(data: st.DataObject, tmp_path_factory: Any) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=3)))
    chunks = tuple(data.draw(st.integers(1, 45)) for _ in shape)
    dtype = data.draw(st.sampled_from(["u1", "i2", "f4", "f8", "c16", "?"]))
    folder = tmp_path_factory.mktemp("spill")
    sg.cache(folder)
    first = Counted("a", 1, shape, chunks, dtype)
    first.cut = data.draw(st.booleans())
    expected = first.whole()
    again = Counted("a", 1, shape, chunks, dtype)
    np.testing.assert_array_equal(again.whole(), expected)
    assert not again.decoded
    assert len(files(folder)) == 1
    sg.cache(None)
    np.testing.assert_array_equal(first.whole(), expected)


def test_another_size_time_layout_or_path_is_another_file(tmp_path: Path) -> None:
    sg.cache(tmp_path)
    made = [
        Counted("a", 1, (20, 20), (8, 8)),
        Counted("a", 2, (20, 20), (8, 8)),
        Counted("b", 1, (20, 20), (8, 8)),
        Counted("a", 1, (20, 20), (8, 9)),
        Counted("a", 1, (20, 20), (8, 8), np.int64),
    ]
    for array in made:
        array.whole()
        assert array.decoded
    assert len(files(tmp_path)) == len(made)


def test_a_relative_path_is_that_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sg.cache(tmp_path / "spill")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        array = Counted("same.tif", 1, (20, 20), (8, 8))
        array.whole()
        assert array.decoded


def test_small_chunks_share_a_file_that_has_holes(tmp_path: Path) -> None:
    sg.cache(tmp_path)
    array = Counted("a", 1, (4096, 4096), (64, 64))
    array.chunk((63, 63))
    array.chunk((0, 0))
    (file,) = files(tmp_path)
    assert file.stat().st_size > 60 << 20
    assert file.stat().st_blocks * 512 < 1 << 20


def test_every_damaged_byte_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sg.cache(tmp_path)
    expected = Counted("a", 1, (30, 30), (16, 16), "u2").whole()
    (file,) = files(tmp_path)
    content = file.read_bytes()
    rng = np.random.default_rng(0)
    used = np.flatnonzero(np.frombuffer(content, np.uint8))
    for at in rng.choice(used, 150, replace=False).tolist():
        bad = bytearray(content)
        bad[at] ^= int(rng.integers(1, 256))
        file.write_bytes(bad)
        array = Counted("a", 1, (30, 30), (16, 16), "u2")
        np.testing.assert_array_equal(array.whole(), expected)
        assert len(array.decoded) == 1, at
        assert file.read_bytes() == content, "what was damaged is mended"
    assert "damaged" in caplog.text


@pytest.mark.parametrize("keep", [0, 5, 16, 40, 4096, 4100, 5000])
def test_a_file_cut_short(tmp_path: Path, keep: int) -> None:
    sg.cache(tmp_path)
    expected = Counted("a", 1, (30, 30), (16, 16)).whole()
    (file,) = files(tmp_path)
    os.truncate(file, keep)
    array = Counted("a", 1, (30, 30), (16, 16))
    np.testing.assert_array_equal(array.whole(), expected)
    assert array.decoded


def test_a_file_under_another_name_is_not_served(tmp_path: Path) -> None:
    sg.cache(tmp_path)
    Counted("a", 1, (30, 30), (16, 16)).whole()
    (a,) = files(tmp_path)
    Counted("b", 2, (30, 30), (16, 16)).whole()
    (b,) = set(files(tmp_path)) - {a}
    b.write_bytes(a.read_bytes())
    array = Counted("b", 2, (30, 30), (16, 16))
    assert array.whole()[0, 0] == 14
    assert len(array.decoded) == 4


def test_what_is_not_stored_costs_no_room(tmp_path: Path) -> None:
    class Fill(Counted):
        def decode(self, at: At) -> Array:
            return np.broadcast_to(np.float32(5), self.chunks)

    sg.cache(tmp_path)
    assert (Fill("a", 1, (30, 30), (16, 16)).whole() == 5).all()
    assert not files(tmp_path)


def test_oldest_arrays_go_first_and_other_files_stay(tmp_path: Path) -> None:
    (tmp_path / "streamgeo-notes.txt").write_bytes(b"x" * 500_000)
    (tmp_path / "mine.chunks").write_bytes(b"x" * 500_000)
    limit = 1 << 20
    sg.cache(tmp_path, bytes=limit)
    for number in range(12):
        Counted(f"f{number}", 1, (250, 256), (64, 64)).whole()  # about 256 KiB
        time.sleep(0.01)
        assert sum(f.stat().st_blocks * 512 for f in files(tmp_path)) <= limit
    last, first = (Counted(f"f{n}", 1, (250, 256), (64, 64)) for n in (11, 0))
    last.whole()
    assert not last.decoded
    first.whole()
    assert first.decoded
    assert (tmp_path / "streamgeo-notes.txt").stat().st_size == 500_000
    assert (tmp_path / "mine.chunks").stat().st_size == 500_000


def test_epochs_over_more_than_fits_are_served_in_part(tmp_path: Path) -> None:
    """Else each array would go just before it is wanted again."""
    sg.cache(tmp_path, bytes=1 << 20)
    decoded = []
    for _ in range(3):
        arrays = [Counted(f"f{n}", 1, (250, 256), (64, 64)) for n in range(8)]
        for array in arrays:
            array.whole()
        decoded.append(sum(len(a.decoded) for a in arrays))
    assert decoded[0] == 8 * 16
    assert decoded[1] <= 6 * 16
    assert decoded[2] <= 6 * 16


def test_an_array_larger_than_the_folder_is_kept_in_part(tmp_path: Path) -> None:
    sg.cache(tmp_path, bytes=300_000)
    expected = Counted("a", 1, (512, 512), (64, 64)).whole()
    assert sum(f.stat().st_blocks * 512 for f in files(tmp_path)) <= 300_000
    array = Counted("a", 1, (512, 512), (64, 64))
    np.testing.assert_array_equal(array.whole(), expected)
    assert 0 < len(array.decoded) < 64


def test_threads_share_a_folder(tmp_path: Path) -> None:
    folder = Spill(tmp_path, HUGE)
    array = Counted("a", 1, (256, 256), (16, 16))
    expected = {at: array.decode(at) for at in np.ndindex(16, 16)}
    wrong: list[At] = []

    def work(seed: int) -> None:
        for number in np.random.default_rng(seed).permutation(256).tolist():
            at = divmod(number, 16)
            slot = Slot.of(array, at)
            found = folder.load(slot)
            if found is None:
                folder.save(slot, expected[at])
            elif not np.array_equal(found, expected[at]):
                wrong.append(at)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert all(np.array_equal(folder.load(Slot.of(array, at)), expected[at]) for at in expected)


WRITER = """
import sys, numpy as np, streamgeo as sg
sys.path.insert(0, sys.argv[3])
from tests.test_spill import Counted
from streamgeo.chunks import CACHE
CACHE.limit = 0
sg.cache(sys.argv[1], bytes=3_000_000)
rng = np.random.default_rng(int(sys.argv[2]))
print("ready", flush=True)
while True:
    for n in rng.permutation(6).tolist():
        array = Counted(f"f{n}", n, (500, 512), (100, 100))
        expected = np.add.outer(np.arange(500) * 3, np.arange(512) * 4) + n * 7
        assert (array.whole() == expected).all(), "wrong values"
"""


def test_processes_killed_at_any_moment(tmp_path: Path) -> None:
    """Several write, and throw out each other's arrays; none ever reads a wrong value."""
    rng = np.random.default_rng(1)
    root = str(Path(__file__).parents[1])
    for _ in range(4):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, tmp_path, str(rng.integers(1 << 30)), root],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=tmp_path,
                text=True,
            )
            for _ in range(3)
        ]
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
        time.sleep(float(rng.uniform(0.1, 0.6)))
        for writer in writers:
            writer.kill()
        for writer in writers:
            _, errors = writer.communicate(timeout=30)
            assert writer.returncode == -signal.SIGKILL, errors
    assert files(tmp_path)
    sg.cache(tmp_path, bytes=HUGE)
    for n in range(6):
        expected = np.add.outer(np.arange(500) * 3, np.arange(512) * 4) + n * 7
        assert (Counted(f"f{n}", n, (500, 512), (100, 100)).whole() == expected).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_goes_on(tmp_path: Path) -> None:
    sg.cache(tmp_path)
    folder = spill.active()
    assert folder is not None
    Counted("a", 1, (64, 64), (16, 16)).whole()
    with folder._lock:  # as if another thread held it
        child = os.fork()
        if not child:
            old, new = Counted("a", 1, (64, 64), (16, 16)), Counted("b", 1, (64, 64), (16, 16))
            old.whole()
            new.whole()
            os._exit(0 if not old.decoded and new.decoded else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    after = Counted("b", 1, (64, 64), (16, 16))
    after.whole()
    assert not after.decoded


def test_a_folder_that_goes_away_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "spill"
    sg.cache(folder)
    folder.rmdir()
    array = Counted("a", 1, (64, 64), (16, 16))
    expected = array.decode((1, 1))
    for _ in range(2):
        np.testing.assert_array_equal(array.chunk((1, 1)), expected)
    assert caplog.text.count("cannot be written to") == 1


def test_a_patched_geotiff(tmp_path: Path) -> None:
    """Through a chain; and a file that was written anew is read anew."""
    import tifffile

    path = tmp_path / "a.tif"
    rng = np.random.default_rng(0)
    sg.cache(tmp_path / "spill")
    for _ in range(2):
        values = rng.integers(0, 1000, (500, 520)).astype(np.uint16)
        tifffile.imwrite(path, values, tile=(128, 128), compression="zlib")
        chain = sg.files([path], key="x").key_transform("x", sg.open_geotiff(bands=1, raw=True))
        for _ in range(2):
            patches = chain.key_transform("x", sg.patch(100, edge="pad", fill=0))
            for sample in patches:
                (y0, y1), (x0, x1) = sample["x.window"]
                expected = values[y0:y1, x0:x1]
                np.testing.assert_array_equal(sample["x"][: expected.shape[0], : expected.shape[1]], expected)
    assert len(files(tmp_path / "spill")) == 2


def test_what_cannot_be_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for arguments in ({"bytes": 0}, {"bytes": True}, {"bytes": 1.5}):
        with pytest.raises(ChainError, match="whole number of bytes"):
            sg.cache(tmp_path, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ChainError, match="cannot be written to"):
        sg.cache(tmp_path / "file")
    with pytest.raises(ChainError, match="not a path"):
        sg.cache(3)  # type: ignore[arg-type]
    with pytest.raises(ChainError, match="without a folder"):
        sg.cache(None, bytes=5)
    assert sg.cache(None) == {"folder": None, "bytes": None}
    assert sg.cache(tmp_path / "new", bytes=10) == {"folder": str(tmp_path / "new"), "bytes": 10}
    assert sg.cache(tmp_path / "new")["bytes"] > 1 << 20
