"""Decoded chunks in a local folder, for data that memory cannot hold: a second epoch reads what it need not decode.

One file holds the chunks of one array, each at an offset of its own, so that the file is as large as what was
written to it. It begins with a table, one entry a chunk: how many bytes, their checksum, and a checksum of the
entry. An entry is written after its chunk, and whoever reads a chunk checks both; so a process may be killed at any
moment, several may write the same chunk (they write the same bytes), and what is damaged is decoded again.

The name of a file is a digest of what decides the values in it: path, size and time of the file that they come
from, the layout of the chunks, and the version of streamgeo. A file that changes gets another one.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import shutil
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamgeo.digest import version
from streamgeo.errors import ChainError
from streamgeo.slots import SLOTS

Array = NDArray[Any]
At = tuple[int, ...]

LOG = logging.getLogger("streamgeo")
_PREFIX, _SUFFIX = (
    "streamgeo-",
    ".chunks",
)  # of every file that is ours; no other file of the folder is touched
_ENTRY = struct.Struct("<QII")  # bytes of the chunk, checksum of them, checksum of the entry
_PAGE = 4096
_TOUCH = 60.0  # seconds after which a file that is read counts as used again
_FULL = 5.0  # seconds for which a folder that was found full is not looked through again


class Chunks(Protocol):
    """What is asked of an array in chunks; see :class:`~streamgeo.chunked.Chunked`."""

    @property
    def key(self) -> Any:
        """What names it: its kind, the path of its file, and what tells the file's present content."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole array."""

    @property
    def chunks(self) -> tuple[int, ...]:
        """Shape of a full chunk."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""


@dataclass(frozen=True)
class Slot:
    """Where one chunk stands in the file of its array, and the two shapes that it may have."""

    name: str
    number: int
    entry: int  # offset of its entry
    data: int  # offset of its bytes
    full: tuple[int, ...]
    cut: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, array: Chunks, at: At) -> Slot:
        """That of one chunk."""
        number = 0
        for i, whole, size in zip(at, array.shape, array.chunks):
            number = number * -(-whole // size) + i
        count = math.prod(-(-whole // size) for whole, size in zip(array.shape, array.chunks))
        unit = 64 if (nbytes := math.prod(array.chunks) * array.dtype.itemsize) < _PAGE else _PAGE
        start = -(-count * _ENTRY.size // _PAGE) * _PAGE
        cut = tuple(min(size, whole - i * size) for i, whole, size in zip(at, array.shape, array.chunks))
        return cls(
            _named(array),
            number,
            number * _ENTRY.size,
            start + number * (-(-nbytes // unit) * unit),
            tuple(array.chunks),
            cut,
            array.dtype,
        )

    def nbytes(self, shape: tuple[int, ...]) -> int:
        """Of the chunk, when it has this shape."""
        return math.prod(shape) * self.dtype.itemsize

    def packed(self, nbytes: int, checksum: int) -> bytes:
        """Its entry. No entry is all zeros, as a hole in a file is: no chunk has 0 bytes."""
        return _ENTRY.pack(nbytes, checksum, self._check(nbytes, checksum))

    def _check(self, nbytes: int, checksum: int) -> int:
        return zlib.crc32(f"{self.name} {self.number} {nbytes} {checksum}".encode())

    def unpacked(self, entry: bytes) -> tuple[tuple[int, ...], int] | None:
        """Shape and checksum of the chunk; None when there is none.

        Raises:
            ValueError: when the entry is damaged.
        """
        if not any(entry):  # nothing was written here, or the file ends before
            return None
        if len(entry) != _ENTRY.size:
            raise ValueError("its entry is cut short")
        nbytes, checksum, check = _ENTRY.unpack(entry)
        shape = next((s for s in (self.full, self.cut) if self.nbytes(s) == nbytes), None)
        if check != self._check(nbytes, checksum) or shape is None:
            raise ValueError("its entry is damaged")
        return shape, checksum


def _named(array: Chunks) -> str:
    kind, path, *rest = array.key
    told = (
        version("streamgeo"),
        kind,
        str(Path(path).absolute()),
        rest,
        array.shape,
        array.chunks,
        array.dtype.str,
    )
    return f"{_PREFIX}{sha256(repr(told).encode()).hexdigest()[:32]}{_SUFFIX}"


class Spill:
    """A folder of decoded chunks, of at most ``limit`` bytes.

    When it is full, the arrays that were used longest ago go. An array that had to go once does not push others
    out when it comes back: else an epoch over more than the folder holds would lose each array just before it is
    wanted, and the folder would be written for nothing.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._gone: set[str] = set()
        self._room = 0  # bytes that may be written before the folder is looked through again
        self._full: dict[
            str, float
        ] = {}  # until when there is no room for an array; "" for all that went once
        self._warned: set[str] = set()
        self.reset()

    def reset(self) -> None:
        """A lock that nobody holds: what a child needs after a fork."""
        self._lock = threading.Lock()

    # -- reading ----------------------------------------------------------------------------------------

    def load(self, slot: Slot) -> Array | None:
        """The values of a chunk; None when they are not here, or are damaged."""
        try:
            with _opened(self._path(slot), os.O_RDONLY) as fd:
                return self._read(fd, slot)
        except FileNotFoundError:
            return None
        except ValueError as error:
            self._warn("damaged", f"{slot.name}: chunk {slot.number} {error}; it is decoded again")
        except OSError as error:
            self._warn("read", f"{slot.name} cannot be read ({error}); its chunks are decoded again")
        return None

    def _read(self, fd: int, slot: Slot) -> Array | None:
        found = slot.unpacked(os.pread(fd, _ENTRY.size, slot.entry))
        if found is None:
            return None
        shape, checksum = found
        array = SLOTS.empty(shape, slot.dtype)
        into = memoryview(array.reshape(-1).view(np.uint8))
        done = 0
        while done < len(into):
            got = os.preadv(fd, [into[done:]], slot.data + done)
            if not got:
                raise ValueError("is cut short")
            done += got
        if zlib.crc32(into) != checksum:
            raise ValueError("is damaged")
        if time.time() - os.fstat(fd).st_mtime > _TOUCH:
            os.utime(self._path(slot))
        return array

    def _path(self, slot: Slot) -> Path:
        return self.folder / slot.name

    def _warn(self, kind: str, text: str) -> None:
        """Once for each kind of trouble: a folder that fails does so for every chunk."""
        if kind not in self._warned:
            LOG.warning("cache: %s: %s", self.folder, text)
        self._warned.add(kind)

    # -- writing ----------------------------------------------------------------------------------------

    def save(self, slot: Slot, array: Array) -> None:
        """Keep a chunk, where there is room for it."""
        if array.shape not in (slot.full, slot.cut) or array.dtype != slot.dtype or not array.nbytes:
            return
        content = memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        try:
            if not self._fits(len(content) + 2 * _PAGE, slot.name):  # both ends may lie on pages of their own
                return
            with _opened(self._path(slot), os.O_RDWR | os.O_CREAT) as fd:
                _write(fd, content, slot.data)
                _write(fd, memoryview(slot.packed(len(content), zlib.crc32(content))), slot.entry)
        except OSError as error:
            self._full[""] = self._full[slot.name] = time.monotonic() + _FULL
            self._warn("write", f"cannot be written to ({error}); chunks are decoded each time")

    def _fits(self, nbytes: int, name: str) -> bool:
        """Whether so many bytes may be written now.

        Each look at the folder allows an eighth of the room that it found, since up to seven other processes may
        be writing at the same time.
        """
        with self._lock:
            began, which = time.monotonic(), "" if name in self._gone else name
            if began < self._full.get(which, 0.0):
                return False
            if nbytes > self._room:
                free = self.limit - self._swept(nbytes, name)
                if free < nbytes:
                    ended = time.monotonic()
                    self._full[which] = ended + max(_FULL, 50 * (ended - began))
                    return False
                self._room = max(nbytes, free // 8)
            self._room -= nbytes
            return True

    def _swept(self, nbytes: int, name: str) -> int:
        """Remove what was used longest ago until so many more bytes fit; bytes that are there then."""
        files = sorted(_sizes(self.folder))
        total = sum(size for _, size, _ in files)
        if name in self._gone:
            return total
        for _, size, path in files:
            if total + nbytes <= self.limit:
                break
            if path.name != name:
                path.unlink(missing_ok=True)
                self._gone.add(path.name)
                total -= size
        return total


def _sizes(folder: Path) -> Iterator[tuple[int, int, Path]]:
    """Time of the last use, bytes on the disk and path of each file of ours."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(_PREFIX) and entry.name.endswith(_SUFFIX):
                try:
                    stat = entry.stat(follow_symlinks=False)
                except OSError:  # another process removed it
                    continue
                yield stat.st_mtime_ns, stat.st_blocks * 512, Path(entry.path)


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    fd = os.open(path, flags | os.O_CLOEXEC, 0o666)
    try:
        yield fd
    finally:
        os.close(fd)


def _write(fd: int, content: memoryview, offset: int) -> None:
    done = 0
    while done < len(content):
        done += os.pwrite(fd, content[done:], offset + done)


# -- the one of this process ----------------------------------------------------------------------------

_NOW: Spill | None = None


def active() -> Spill | None:
    """The folder that chunks go to, if one was set."""
    return _NOW


def _after_fork() -> None:
    if _NOW is not None:
        _NOW.reset()  # a thread of the parent may have held the lock


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def cache(folder: str | os.PathLike[str] | None, *, bytes: int | None = None) -> dict[str, Any]:
    """Keep decoded chunks in a local folder too, for the whole process; ``cache(None)`` ends that.

    A chunk that memory does not hold (see :func:`~streamgeo.chunks.config`) is then read from the folder rather
    than decoded, from the second time on and in later runs as well. It is worth it where data is larger than
    memory, and the disk is faster than the codec. Several processes may share a folder; those that are forked do
    without saying so. Chunks of a file that has changed are not used.

    Args:
        folder: made if it is not there. Files in it that streamgeo did not write are left alone. What is kept
            stays after ``cache(None)`` and after the process; remove ``streamgeo-*.chunks`` to be rid of it.
        bytes: what the folder may hold, on the disk; the arrays that were used longest ago go first. By default
            half of what is free there, with what it holds already.

    Returns:
        What is set: ``{"folder": ..., "bytes": ...}``.

    Raises:
        ChainError: when the folder cannot be written to, or ``bytes`` is not a whole number, 1 or more.
    """
    global _NOW
    if folder is None:
        if bytes is not None:
            raise ChainError(
                f"cache: bytes={bytes!r} says nothing without a folder; give one, or leave it out"
            )
        _NOW = None
        return {"folder": None, "bytes": None}
    if bytes is not None and (isinstance(bytes, bool) or not isinstance(bytes, int) or bytes < 1):
        raise ChainError(f"cache: bytes={bytes!r} must be a whole number of bytes, 1 or more")
    path = _writable(folder)
    if bytes is None:
        bytes = (shutil.disk_usage(path).free + sum(size for _, size, _ in _sizes(path))) // 2
    _NOW = Spill(path, bytes)
    return {"folder": str(path), "bytes": bytes}


def _writable(folder: str | os.PathLike[str]) -> Path:
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
    return path
