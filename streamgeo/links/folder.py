"""A folder of finished samples, which several processes may share."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from streamgeo.chunks import CACHE, ByteCache
from streamgeo.errors import ChainError
from streamgeo.gate import renewed_in_children
from streamgeo.links.base import Cursor, Node
from streamgeo.links.identity import chain_digest
from streamgeo.links.kept import Entry, kept_scene, nbytes_of
from streamgeo.links.stored import Damaged, Packer, from_file, opened, to_bytes
from streamgeo.meter import HITS, MISSES, count, waiting
from streamgeo.plan import Item, Run
from streamgeo.scene import Scene

LOG = logging.getLogger("streamgeo")
_PREFIX = "streamgeo-"  # of every file that is ours; no other file of the folder is touched
_STALE = 3600.0  # seconds after which a file that was begun and not finished is taken for abandoned
_FULL = 5.0  # seconds for which a folder that was found full is not looked through again


def check_folder(folder: str | os.PathLike[str]) -> str:
    """The path of a folder that can be written to; it is made if it is not there.

    Raises:
        ChainError: when it cannot be.
    """
    try:
        path = Path(folder).expanduser().absolute()
    except TypeError:
        raise ChainError(f"cache: folder={folder!r} is not a path; give text or a pathlib.Path") from None
    trial = path / f"{_PREFIX}{secrets.token_hex(8)}.part"
    try:
        path.mkdir(parents=True, exist_ok=True)
        trial.write_bytes(b"")
        trial.unlink()
    except OSError as error:
        raise ChainError(
            f"cache: folder={str(folder)!r} cannot be written to ({error.strerror or error}); give a folder that can"
        ) from error
    return str(path)


class Folder:
    """Entries as files ``streamgeo-<chain>-<sample>.npz``; the time of modification is that of the last use.

    A file is written beside and renamed, so it is there whole or not at all; one that is damaged all the same
    is told by its checksums, made again, and reported. Where ``limit`` is reached, the files of other chains go,
    those that were used longest ago first; those of this chain stay (see :class:`~streamgeo.links.kept.Memory`).
    """

    def __init__(self, path: str, limit: int | None, node: Node) -> None:
        self.path, self.limit, self.node = Path(path), limit, node
        self.chain = chain_digest(node)
        self._scenes = ByteCache(64 << 20)
        self._packer = Packer(node, self._scene)
        self._own = f"{_PREFIX}{self.chain}-"
        self._room = 0  # bytes that may be written before the folder is looked through again
        self._full_until = 0.0
        self._warned = False
        self.renew()
        renewed_in_children(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return Folder, (str(self.path), self.limit, self.node)

    def renew(self) -> None:
        """New locks, as in a forked child, where nobody is computing."""
        self._lock = threading.Lock()
        self._busy: dict[str, threading.Event] = {}

    # -- reading ----------------------------------------------------------------------------------------

    def get(self, key: Hashable, compute: Callable[[], Entry]) -> Entry:
        """The entry of ``key``; computed where it is not kept, by one thread for all that want it."""
        name = self._name(key)
        if isinstance(key, tuple) and key[0] == "pixels":  # all patches of a scene ask for it
            kept: Entry = CACHE.get((str(self.path), name), lambda: self._get(name, key, compute), _size)
            return kept
        return self._get(name, key, compute)

    def _get(self, name: str, key: Hashable, compute: Callable[[], Entry]) -> Entry:
        with self._alone(name):
            entry = self._load(name, key)
            if entry is not None:
                count(HITS)
                return entry
            entry = compute()
            if _worth(entry.item) and not entry.item.skipped:
                count(MISSES)
                self._save(name, entry)
            return entry

    def after(self, key: Hashable) -> tuple[bool, Cursor]:
        """Whether it is kept, and the cursor behind it."""
        name = self._name(key)
        try:
            meta, _ = from_file(self.path / name, name, arrays=False)
        except (OSError, Damaged):
            return False, None
        return True, meta.get("after")

    def room(self, key: Hashable, nbytes: int) -> bool:
        """Whether it is kept, or could be with so many bytes."""
        return self.limit is None or (self.path / self._name(key)).exists() or self._fits(nbytes)

    def _name(self, key: Hashable) -> str:
        return f"{self._own}{hashlib.sha256(repr(key).encode()).hexdigest()[:24]}.npz"

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """One thread at a time for each file; other processes may make the same sample, which does no harm."""
        while True:
            with self._lock:
                other = self._busy.get(name)
                if other is None:
                    mine = self._busy[name] = threading.Event()
                    break
            with waiting():
                other.wait()
        try:
            yield
        finally:
            with self._lock:
                self._busy.pop(name, None)
            mine.set()

    def _load(self, name: str, key: Hashable) -> Entry | None:
        path = self.path / name
        try:
            meta, arrays = from_file(path, name)
            entry = self._packer.unpack(
                meta, arrays, lambda scene, at: kept_scene(scene, self, ("pixels", key, at))
            )
            os.utime(path)
        except FileNotFoundError:
            return None
        except (Damaged, KeyError, IndexError, TypeError, ValueError, OSError) as error:
            LOG.warning("cache: %s is damaged (%s); the sample is computed again", path, error)
            return None
        return entry

    def _scene(self, recipe: dict[str, Any]) -> Scene:
        scene: Scene = self._scenes.get(
            repr(recipe), lambda: opened(self.node, recipe, Run()), lambda _: 64 << 10
        )
        return scene

    # -- writing ----------------------------------------------------------------------------------------

    def _save(self, name: str, entry: Entry) -> None:
        content = to_bytes(*self._packer.pack(entry, name))
        if not self._fits(len(content)):
            return
        self._room -= len(content)
        beside = self.path / f"{name}.{secrets.token_hex(8)}.part"
        try:
            try:
                beside.write_bytes(content)
                beside.replace(self.path / name)
            finally:
                beside.unlink(missing_ok=True)
        except OSError as error:
            if not self._warned:
                LOG.warning(
                    "cache: cannot write to %s (%s); samples are computed each time", self.path, error
                )
            self._warned = True

    def _fits(self, nbytes: int) -> bool:
        """Whether so many bytes may be written now.

        Each look at the folder allows an eighth of the room that it found, since up to seven other processes may
        be writing at the same time.
        """
        if self.limit is None:
            return True
        with self._lock:
            if nbytes <= self._room:
                return True
            began = time.monotonic()
            if nbytes > self.limit or began < self._full_until:
                return False
            free = self.limit - self._swept(nbytes)
            if free < nbytes:
                ended = time.monotonic()
                self._full_until = ended + max(_FULL, 50 * (ended - began))
                return False
            self._room = max(nbytes, free // 8)
            return True

    def _swept(self, nbytes: int) -> int:
        """Remove what was used longest ago until so many more bytes fit; bytes that are there then."""
        found: list[tuple[float, int, Path, bool]] = []
        for path in self.path.glob(f"{_PREFIX}*"):
            try:
                stat = path.stat()
            except OSError:  # another process removed it
                continue
            if path.suffix == ".part" and time.time() - stat.st_mtime > _STALE:
                path.unlink(missing_ok=True)
            elif path.suffix in (".npz", ".part"):
                theirs = path.suffix == ".npz" and not path.name.startswith(self._own)
                found.append((stat.st_mtime, stat.st_size, path, theirs))
        total = sum(size for _, size, _, _ in found)
        for _, size, path, theirs in sorted(found):
            if total + nbytes <= (self.limit or 0):
                break
            if theirs:
                path.unlink(missing_ok=True)
                total -= size
        return total


def _worth(item: Item) -> bool:
    """Whether there is something to keep: a path is not, and a lazy scene is opened again as fast."""
    values = item.values.values()
    return not values or any(not isinstance(value, (str, Scene)) for value in values)


def _size(entry: Entry) -> int:
    return nbytes_of(entry.item)
