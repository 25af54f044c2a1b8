"""The benchmarks run, on data so small that times mean nothing: everyone takes part and gives the same patches."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("xbatcher", reason="the benchmarks need streamgeo[bench]")
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import bounds, data, readers
from benchmarks.measure import COPY, DECODE
from benchmarks.peers import LOADERS, ORDERS

ROOT = Path(__file__).parents[1]
CASES = data.cases(Path("nowhere"), data.TINY)
MEASURED = ("tiff-deflate-overlap", "netcdf-blocks", "fits-rice", "npy")
BY_HAND = ("streamgeo", "by hand", "by hand, whole scenes")  # what needs no other package


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest files, made in a process of their own since it forks."""
    folder = tmp_path_factory.mktemp("data")
    code = "import sys; from pathlib import Path; from benchmarks import data; data.make(Path(sys.argv[1]), data.TINY)"
    done = python("-c", code, str(folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def ran(made: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder with what came out, and what was said."""
    out = tmp_path_factory.mktemp("out")
    only = [word for name in MEASURED for word in ("--only", name)]
    done = python(
        "benchmarks/run.py",
        "--quick",
        "--size",
        "tiny",
        "--rounds",
        "1",
        "--data",
        str(made),
        "--out",
        str(out),
        *only,
    )
    assert done.returncode == 0, done.stderr
    return out, done.stderr


@pytest.fixture(scope="module")
def rows(ran: tuple[Path, str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((ran[0] / "results.json").read_text())
    return found


# -- a whole run ----------------------------------------------------------------------------------------


def test_all_rows_are_there(ran: tuple[Path, str]) -> None:
    report = (ran[0] / "report.md").read_text().splitlines()
    for case in MEASURED:
        for order in ORDERS:
            assert any(line.startswith(f"| {case} | {order} |") for line in report), (case, order)
    assert (ran[0] / "rates.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("case", MEASURED)
def test_all_contenders_were_compared(ran: tuple[Path, str], case: str) -> None:
    lines = ran[1].splitlines()
    said = lines[next(n for n, line in enumerate(lines) if line.startswith(f"{case}: ")) + 1]
    for loader in BY_HAND:
        assert f"{loader}: equal" in said
    for loader in LOADERS:
        assert (
            any(f"{loader}: {word}" in said for word in ("equal", "as by hand", "does not read"))
            or "is not installed" in said
        )


@pytest.mark.parametrize("case", MEASURED)
def test_everyone_goes_through_whole_epochs(rows: list[dict[str, Any]], case: str) -> None:
    for order in ORDERS:
        found = {row["contender"]: row for row in rows if (row["case"], row["order"]) == (case, order)}
        assert {*BY_HAND, DECODE, COPY} <= set(found)
        for name in BY_HAND:
            for phase in ("cold", "warm"):
                epoch = found[name][phase]
                assert epoch["whole"] and epoch["patches"] > 0 and epoch["seconds"] > 0, (name, phase)
        assert found["streamgeo"]["cold"]["patches"] == len(CASES[case])
        assert found[DECODE]["cold"]["seconds"] > 0 and found[COPY]["warm"]["seconds"] > 0


def test_who_takes_no_part_says_why(rows: list[dict[str, Any]]) -> None:
    without = [row for row in rows if row["contender"] in LOADERS and row["cold"] is None]
    reasons = {row["lacks"] for row in without} - {"as by hand"}
    assert None not in reasons
    assert all("does not read" in reason or "is not installed" in reason for reason in reasons), reasons
    assert {row["contender"] for row in rows} >= {*LOADERS, DECODE, COPY}


def test_an_unknown_case_is_refused(made: Path, tmp_path: Path) -> None:
    done = python(
        "benchmarks/run.py", "--size", "tiny", "--data", str(made), "--out", str(tmp_path), "--only", "tif"
    )
    assert done.returncode != 0 and "tiff-deflate" in done.stderr
    assert not list(tmp_path.iterdir())


# -- what it stands on ----------------------------------------------------------------------------------


def test_a_loader_with_other_values_is_found_out(made: Path) -> None:
    """The comparison itself: one value of one patch is off."""
    code = """if True:
        import sys
        from pathlib import Path
        from benchmarks import data, measure, peers, readers
        case = data.cases(Path(sys.argv[1]), data.TINY)["npy"]
        peers.LOADERS = {name: peers.LOADERS[name] for name in ("streamgeo", "by hand")}
        measure.LOADERS = peers.LOADERS
        assert set(measure.compare(case, 2).values()) == {"equal"}
        read = readers.Numpy.read
        def wrong(self, scene, slices, out):
            read(self, scene, slices, out)
            out.flat[-1] += 1
        readers.Numpy.read = wrong
        try:
            measure.compare(case, 2)
        except measure.Failed as error:
            print(error)
    """
    done = python("-c", code, str(made / "tiny"))
    assert done.returncode == 0, done.stderr
    assert "by hand" in done.stdout and "npy" in done.stdout


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
@given(st.data())
def test_places_and_numbers_of_patches(case: data.Case, draw: st.DataObject) -> None:
    index = draw.draw(st.integers(0, len(case) - 1))
    scene, slices = case.locate(index)
    assert 0 <= scene < len(case.paths)
    assert [s.stop - s.start for s in slices] == list(case.patch)
    assert all(s.start >= 0 and s.stop <= size for s, size in zip(slices, case.shape))
    assert case.number(scene, [s.start for s in slices]) == index


def test_patches_that_overlap_lie_half_a_patch_apart() -> None:
    plain, overlap = CASES["tiff-deflate"], CASES["tiff-deflate-overlap"]
    assert overlap.per_scene == (2 * plain.counts[1] - 1) ** 2
    assert overlap.locate(1)[1][2].start * 2 == plain.locate(1)[1][2].start


def _tiles(chunks: list[Any], case: data.Case) -> Any:
    across = case.shape[2] // chunks[0].shape[1]
    lines = [np.concatenate(chunks[at : at + across], axis=1) for at in range(0, len(chunks), across)]
    return np.moveaxis(np.concatenate(lines), 2, 0)


@pytest.mark.parametrize(
    ("name", "join"),
    [
        ("tiff-deflate", _tiles), ("tiff-zstd", _tiles), ("tiff-lzw", _tiles),
        ("netcdf-frames", lambda chunks, case: np.concatenate(chunks)),
        ("fits-rice", lambda chunks, case: np.concatenate(chunks)[: case.shape[0]]),
    ],
)  # fmt: skip
def test_the_decode_bound_decodes(name: str, join: Callable[[list[Any], data.Case], Any], made: Path) -> None:
    """Every decoder that is tried gives the pixels of the file, so that the bound is one for the same work."""
    case = data.cases(made / "tiny", data.TINY)[name]
    path = case.paths[0]
    stored = bounds.index(case)
    file = Path(path).read_bytes()
    chunks = [chunk for chunk in stored.chunks if chunk.path == path]
    wanted = readers.whole(case, path)
    decoders = bounds.decoders(case, stored)
    assert decoders
    for decode in decoders:
        found = []
        for chunk in chunks:
            out = np.zeros(stored.shape, stored.dtype)
            decode(file[chunk.offset : chunk.offset + chunk.size], out, chunk.parts)
            found.append(out.reshape(stored.shape))
        np.testing.assert_array_equal(join(found, case), wanted)
