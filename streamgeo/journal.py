"""What a long prediction has done so far: a small file beside its rows, from which it can be taken up."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

from streamgeo.errors import ChainError
from streamgeo.stitcher import Stitcher

LOG = logging.getLogger("streamgeo")
_EVERY = 2.0  # seconds between two writes
_VERSION = 1


class Journal:
    """The journal in a folder.

    Args:
        folder: made if it is not there; holds the journal and the finished rows.
        marks: what the prediction depends on; a journal with other marks is refused.
        resume: False starts anew.

    Raises:
        ChainError: when the folder holds the journal of another prediction.
    """

    def __init__(self, folder: Path, marks: Sequence[str], resume: bool) -> None:
        self.folder, self._marks = folder, list(marks)
        self._path = folder / "journal.json"
        self.saved: dict[int, list[str]] = {}  # files by number of the scene
        self.position, self.cursor = 0, None  # where the epoch is to be taken up
        self.kept: dict[str, dict[int, int]] = {}
        self.names: dict[str, dict[str, int]] = {}
        self._starts: dict[int, Any] = {}
        self._written, self._noted = monotonic(), 0
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = (folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise ChainError(
                f"predict: another process predicts to {folder.parent}; wait for it, or give another folder"
            ) from None
        if not resume:
            for kept in folder.iterdir():
                if kept.name != "lock":
                    kept.unlink()
        try:
            if self._path.exists():
                self._read()
        except ChainError:
            self.release()
            raise
        self._starts[self.position] = self.cursor

    def _read(self) -> None:
        try:
            content = json.loads(self._path.read_text())
            if (version := content["version"]) != _VERSION:
                raise ValueError(f"version {version}, and this is {_VERSION}")
            marks = content["marks"]
            self.position, self.cursor, self.names = (
                content["position"],
                content["cursor"],
                content["names"],
            )
            self.saved = {int(index): paths for index, paths in content["saved"].items()}
            for name, kept in content["kept"].items():
                self.kept[name] = {int(index): strips for index, strips in kept.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ChainError(
                f"predict: {self._path} is no journal ({error}); remove its folder, or give resume=False"
            ) from None
        self._check(marks)
        self._noted = len(self.saved)
        LOG.info("predict: taken up at batch %d; %d scenes are there", self.position, len(self.saved))

    def _check(self, marks: Sequence[str]) -> None:
        if marks != self._marks:
            told = next(
                (f"{a!r} there, {b!r} here" for a, b in zip(marks, self._marks) if a != b), "its length"
            )
            raise ChainError(
                f"predict: {self.folder} holds another prediction that was not finished ({told}); finish that, or "
                "give resume=False to start anew"
            )

    def update(self, stitchers: Mapping[str, Stitcher], position: int, cursor: Any) -> None:
        """After a batch whose finished scenes are saved: write where to go on, at most every two seconds."""
        begun = {at for s in stitchers.values() for e in s.pending.values() for at in e.since.values()}
        first = min(begun, default=position)
        self._starts = {at: start for at, start in self._starts.items() if at in begun}
        self._starts[position] = cursor
        if monotonic() - self._written < _EVERY:
            return
        for stitcher in stitchers.values():
            for entry in stitcher.pending.values():
                if entry.rows is not None:
                    entry.rows.sync()
        self.position = first
        self.kept |= {name: stitcher.strips for name, stitcher in stitchers.items()}
        self.names |= {name: stitcher.names for name, stitcher in stitchers.items()}
        self.cursor = self._starts[first]
        self._put()
        live = {stitcher.path(index) for stitcher in stitchers.values() for index in stitcher.strips}
        for path in self.folder.glob("*.rows"):
            if stitchers and path not in live:  # of a scene that is saved, and the journal says so
                path.unlink()

    def _put(self) -> None:
        content = {
            "version": _VERSION, "marks": self._marks, "position": self.position, "cursor": self.cursor,
            "saved": self.saved, "kept": self.kept, "names": self.names,
        }  # fmt: skip
        beside = self._path.with_suffix(".new")
        with beside.open("w") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)
        self._written, self._noted = monotonic(), len(self.saved)

    def prepare(self, stitcher: Stitcher, output: str) -> None:
        """Let the stitcher of an output keep its rows here, and go on where it was."""
        stitcher.folder = self.folder
        stitcher.kept = dict(self.kept.get(output, {}))
        stitcher.names = self.names.get(output, {})

    def close(self) -> None:
        """All is done: the folder goes."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def release(self) -> None:
        """Let other processes use the folder; scenes that were saved since it was last written are noted."""
        if len(self.saved) > self._noted and self.folder.exists():
            with suppress(OSError):  # what it says already is right too
                self._put()
        self._lock.close()
