"""An index of many files: the size of each scene, so that patches are counted without opening a file.

One file holds it all, as numbers and text. It is written beside and renamed, so it is there whole or not at all.
An entry is used only for a file whose size and time of modification are those of the entry.
"""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgeo.digest import version
from streamgeo.errors import ChainError, OpenError
from streamgeo.gate import GATE
from streamgeo.headers import THREADS
from streamgeo.names import matching
from streamgeo.openers import Opener, open
from streamgeo.sinks.beside import beside

LOG = logging.getLogger("streamgeo")
SCHEMA = 1
NAME = ".streamgeo-index.npz"
_AT_ONCE = 1024  # files that are handed to the threads together, which bounds the memory


class Frame(NamedTuple):
    """Dims, shape and horizontal dims of a scene: what decides into which windows it is cut."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    spatial: tuple[str, ...]


class Entry(NamedTuple):
    """One file as it was when it was opened."""

    size: int
    mtime_ns: int
    frame: Frame


Entries = dict[tuple[str, str], Entry]  # by absolute path and repr of the opener


@dataclass(frozen=True)
class Indexed:
    """What :func:`index` did.

    Attributes:
        file: the index.
        files: how many files of the call are in it.
        opened: how many of them had to be opened, since they were new or had changed.
        bad: files that cannot be opened, with the reason; they are not in the index.
    """

    file: Path
    files: int
    opened: int
    bad: Mapping[str, str] = field(default_factory=dict)


def index(
    pattern: str | Path | Sequence[str | Path],
    file: str | Path | None = None,
    *,
    opener: Opener | None = None,
) -> Indexed:
    """Write or update an index of files, for ``sg.files(..., index=file)``.

    With it a chain of ``sg.files``, an opener, steps of reach POINT and ``patch`` is counted without opening a
    file; without it, every file is opened once for that. Only files that are new, or of another size or time of
    modification than before, are opened; a file that cannot be does not hide the others.

    Args:
        pattern: a folder, for all files in it at any depth but hidden ones; else as in :func:`~streamgeo.files`.
        file: the index; by default ``.streamgeo-index.npz`` in the folder, or in the one that the pattern starts
            from. One index may serve several folders and several openers; of two calls that write it at the same
            time, the later one stays.
        opener: that of the chain, with the same options; by default ``sg.open()``.

    Returns:
        What it did, with the files that cannot be opened.

    Raises:
        ChainError: when no file is found, ``file`` is left out for a list, is something else than an index, or
            cannot be written.
    """
    step = open() if opener is None else opener
    if not isinstance(step, Opener):
        raise ChainError(f"index: opener={step!r} is no opener; give one such as sg.open_fits()")
    where = _file_for(pattern, file)
    listed, own = (absolute(path) for path in found("index", pattern)), absolute(where)
    names = [name for name in listed if name != own]
    if not names:
        raise ChainError(f"index: there is no file in {str(pattern)!r} but the index itself")
    told = repr(step)
    entries = _old(where)
    bad: dict[str, str] = {}
    marks = {name: mark for name in names if (mark := mark_of(name)) is not None}
    bad.update((name, "there is no such file, or it is a folder") for name in names if name not in marks)
    new = [name for name, mark in marks.items() if _stale(entries.get((name, told)), mark)]
    for name in set(names) - marks.keys() | set(new):
        entries.pop((name, told), None)
    opened = 0
    try:
        for name, result in _opened(new, step):
            if isinstance(result, Frame):
                entries[name, told] = Entry(*marks[name], result)
                opened += 1
            else:
                bad[name] = result
    finally:  # what was read is kept when the rest is interrupted
        _save(where, {key: e for key, e in entries.items() if key[0] in marks or Path(key[0]).exists()})
    return Indexed(where, len(marks) - sum(name in marks for name in bad), opened, bad)


def found(operation: str, pattern: Any) -> list[str]:
    """The files that a pattern, a folder or a list names.

    Raises:
        ChainError: when there are none.
    """
    if not isinstance(pattern, (str, Path)):
        paths = list(pattern)
        wrong = next((path for path in paths if not isinstance(path, (str, Path))), None)
        if wrong is not None:
            raise ChainError(f"{operation}: {wrong!r} is not a path; give text or a pathlib.Path")
        names = [str(path) for path in paths]
    elif (folder := Path(pattern).expanduser()).is_dir():
        walked = ((Path(top), names) for top, _, names in os.walk(folder))
        names = sorted(str(top / name) for top, names in walked for name in names if not name.startswith("."))
    else:
        names = sorted(name for name in matching(pattern) if not Path(name).is_dir())
    if not names:
        raise ChainError(
            f"{operation}: {str(pattern)!r} names no file; the working directory is {Path.cwd()}"
        )
    return names


def absolute(path: str | Path) -> str:
    """A path as the index has it."""
    return str(Path(path).absolute())


def mark_of(path: str) -> tuple[int, int] | None:
    """Size and time of modification of a file; None when there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return None if stat.S_ISDIR(found.st_mode) else (found.st_size, found.st_mtime_ns)


def _stale(entry: Entry | None, mark: tuple[int, int]) -> bool:
    return entry is None or entry[:2] != mark


def _file_for(pattern: Any, file: str | Path | None) -> Path:
    if file is not None:
        return Path(file).expanduser()
    if not isinstance(pattern, (str, Path)):
        raise ChainError("index: a list of paths has no folder of its own for the index; give file=")
    start = Path(pattern).expanduser()
    while not start.is_dir() and start != start.parent:
        start = start.parent
    return start / NAME


def _opened(names: list[str], step: Opener) -> Iterator[tuple[str, Frame | str]]:
    """Each file with its frame, or with what is wrong with it."""
    from tqdm import tqdm

    inner = GATE.entered

    def read(name: str) -> Frame | str:
        GATE.enter(inner)
        try:
            frame = step(name).frame
            return Frame(tuple(frame.dims), tuple(map(int, frame.shape)), tuple(frame.spatial))
        except Exception as error:  # whatever a library raises for a damaged file
            return str(error) or type(error).__name__
        finally:
            GATE.leave()

    with (
        ThreadPoolExecutor(THREADS, "streamgeo-index") as pool,
        tqdm(total=len(names), desc="index", delay=2, disable=None, leave=False) as bar,
    ):
        for start in range(0, len(names), _AT_ONCE):
            some = names[start : start + _AT_ONCE]
            for name, result in zip(some, pool.map(read, some), strict=True):
                bar.update()
                yield name, result


# -- the file -------------------------------------------------------------------------------------------


def load(file: str | Path) -> Entries:
    """All entries of an index; none where another version of streamgeo wrote it, which may see files otherwise.

    Raises:
        OpenError: when there is none, or it is damaged, or no index.
    """
    try:
        with np.load(file, allow_pickle=False) as content:
            if int(content["streamgeo_index"]) != SCHEMA:
                return _outdated(file, f"schema {int(content['streamgeo_index'])}")
            about = json.loads(content["about"].tobytes())
            if about["streamgeo"] != version("streamgeo"):
                return _outdated(file, f"streamgeo {about['streamgeo']}")
            return _entries(about, content)
    except FileNotFoundError:
        raise OpenError(f"index: there is no file {str(file)!r}; make it with sg.index(...)") from None
    except Exception as error:  # damaged archives raise all kinds
        raise OpenError(
            f"index: {str(file)!r} is no index of streamgeo, or it is damaged ({error}); remove it, or name another "
            "file, and call sg.index(...)"
        ) from error


def _outdated(file: str | Path, by: str) -> Entries:
    LOG.warning("index: %s was written by %s and is not used; call sg.index(...) again", file, by)
    return {}


def _entries(about: Any, content: Any) -> Entries:
    frames = [Frame(*map(tuple, frame)) for frame in about["frames"]]
    openers = about["openers"]
    text = content["paths"].tobytes().decode("utf-8", "surrogateescape")
    columns = [content[name].tolist() for name in ("size", "mtime_ns", "opener", "frame")]
    paths = text.split("\0") if text else []
    return {
        (path, openers[opener]): Entry(size, time, frames[frame])
        for path, size, time, opener, frame in zip(paths, *columns, strict=True)
    }


def _old(where: Path) -> Entries:
    if not where.exists():
        return {}
    try:
        return load(where)
    except OpenError as error:
        raise ChainError(str(error)) from error


def _save(where: Path, entries: Entries) -> None:
    openers = {told: number for number, told in enumerate(dict.fromkeys(told for _, told in entries))}
    frames = {frame: number for number, frame in enumerate(dict.fromkeys(e.frame for e in entries.values()))}
    about = {"streamgeo": version("streamgeo"), "openers": list(openers), "frames": list(frames)}
    paths = "\0".join(path for path, _ in entries).encode("utf-8", "surrogateescape")  # no path holds a zero
    columns: dict[str, NDArray[Any]] = {
        "size": np.array([e.size for e in entries.values()], np.int64),
        "mtime_ns": np.array([e.mtime_ns for e in entries.values()], np.int64),
        "opener": np.array([openers[told] for _, told in entries], np.int32),
        "frame": np.array([frames[e.frame] for e in entries.values()], np.int32),
        "paths": np.frombuffer(paths, np.uint8),
        "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
        "streamgeo_index": np.array(SCHEMA),
    }
    try:
        with beside(where) as partial, partial.open("wb") as out:
            np.savez_compressed(out, **columns)  # type: ignore[arg-type]
    except OSError as error:
        raise ChainError(
            f"index: {str(where)!r} cannot be written ({error.strerror or error}); name another with file="
        ) from error


# -- use ------------------------------------------------------------------------------------------------


class Known:
    """The frames of files that one opener has opened, as the index has them."""

    def __init__(self, file: str, opener: str) -> None:
        entries = load(file)
        self._entries = {path: entry for (path, told), entry in entries.items() if told == opener}
        if entries and not self._entries:
            others = ", ".join(sorted({told for _, told in entries}))
            LOG.warning(
                "index: %s has nothing for %s, only for %s; files are opened to count patches, unless it is made "
                "with sg.index(..., opener=%s)",
                file,
                opener,
                others,
                opener,
            )

    def frame(self, path: str) -> Frame | None:
        """That of a file; None when it is not known, or the file has changed."""
        entry = self._entries.get(absolute(path))
        return None if entry is None or _stale(entry, mark_of(path) or (-1, -1)) else entry.frame
