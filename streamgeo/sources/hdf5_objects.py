"""Groups, datasets and attributes of an HDF5 file, by its headers and without the library.

The libraries take milliseconds to open a small file, in which no other thread opens one; a chain over thousands of
files needs no more than names, shapes and attributes to begin. Here only what almost all files hold is read, with
all checksums; whatever is out of the ordinary, or damaged, is left to the library.
Format: HDF5 file format specification 3.0, sections II, III and IV.A.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple, TypeVar

from streamgeo.sources.hdf5_trees import NOWHERE, Bytes, Unusual, dense, symbols
from streamgeo.sources.layouts import Identity

T = TypeVar("T")

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_VERSION_0, _VERSION_2 = struct.Struct("<20xI4Q8xQ"), struct.Struct("<9xBBB4Q")
_MESSAGE, _MESSAGE_2, _PLACE = struct.Struct("<HHB3x"), struct.Struct("<BHBH"), struct.Struct("<QQ")
_ATTRIBUTE = struct.Struct("<BBHHH")
_MOST = 1 << 12  # chunks of one header, and bytes of a name: far beyond what is real
_OBJECTS = 1 << 16  # of a file
_KNOWN = 0x18  # kinds of messages; of any other the library decides
_SHARED = 0x02  # it lies elsewhere

SPACE, LINKS, TYPE, OLD_FILL, FILL, LINK, EXTERNAL, LAYOUT = 1, 2, 3, 4, 5, 6, 7, 8
FILTERS, ATTRIBUTE, CONTINUED, SYMBOLS, ATTRIBUTES = 11, 12, 16, 17, 21


Message = tuple[int, int, bytes]  # place in the order of creation, flags, content


class Link(NamedTuple):
    """A member of a group; ``address`` is None for a soft or an external link."""

    name: str
    order: int
    address: int | None


class Attribute(NamedTuple):
    """An attribute, with its type, space and data as they lie in the file."""

    type: bytes
    space: bytes
    data: bytes


class Object:
    """A group, a dataset or a named type, by the messages of its header.

    Attributes:
        file: where it lies.
        tracked: whether attributes know the order in which they were made.
        is_group: whether it has members.
        is_dataset: whether it holds an array.
    """

    def __init__(self, file: File, tracked: bool, messages: dict[int, list[Message]]) -> None:
        self.file, self.tracked, self._messages = file, tracked, messages
        self.is_group = LINKS in messages or SYMBOLS in messages
        self.is_dataset = SPACE in messages and TYPE in messages and LAYOUT in messages

    def message(self, kind: int) -> bytes:
        """The content of the message of a kind; nothing where there is none.

        Raises:
            Unusual: when it lies elsewhere, as that of a type that has a name does, or there are several.
        """
        found = self._messages.get(kind)
        if found is None:
            return b""
        ((_, flags, body),) = found
        if flags & _SHARED:
            raise Unusual("a shared message")
        return body

    def links(self) -> list[Link]:
        """Its members: in the order in which they were made where it knows that, else by name."""
        table = self.message(SYMBOLS)
        if table:
            names = symbols(self.file.bytes, *_PLACE.unpack(table[:16]))
            return [Link(_text(name), 0, address) for name, address in names]
        about = self.message(LINKS)
        tracked = bool(about[1] & 1)
        links = [_link(body, tracked) for body, _ in self._every(LINK, about, 10 if tracked else 2, 5)]
        return sorted(links, key=lambda one: (one.order, one.name.encode()))

    def attributes(self) -> dict[str, Attribute]:
        """Its attributes: in the order in which they were made where it knows that, else as they come."""
        found = self._every(ATTRIBUTE, self.message(ATTRIBUTES), 4 if self.tracked else 2, 8)
        if self.tracked:
            found.sort(key=itemgetter(1))
        every = dict([_attribute(body) for body, _ in found])
        if len(every) < len(found):
            raise Unusual("two attributes of one name")
        return every

    def _every(self, kind: int, about: bytes, at: int, dense_kind: int) -> list[tuple[bytes, int]]:
        """The messages of a kind, with their order of creation; where there are many, they lie in a heap.

        Args:
            kind: of the messages.
            about: says where the heap and its tree are, if there are any.
            at: where it says so.
            dense_kind: of the records of the tree.
        """
        found = []
        for order, flags, body in self._messages.get(kind, ()):
            if flags & _SHARED:
                raise Unusual("a shared message")
            found.append((body, order))
        if about:
            if about[0]:
                raise Unusual("links or attributes of another version")
            heap, tree = _PLACE.unpack_from(about, at)
            if heap != NOWHERE:
                found += dense(self.file.bytes, heap, tree, dense_kind)
        return found


class File:
    """An HDF5 file that is open to read headers from.

    Attributes:
        bytes: of the file.
        objects: that were read, by their address.

    Raises:
        Unusual: when it does not begin as almost all do, is cut short, or is being written.
    """

    def __init__(self, fd: int, size: int) -> None:
        self.bytes = Bytes(fd, size)
        head = self.bytes.at(0, 96)
        if head[:8] != SIGNATURE or head[8] not in (0, 2, 3):
            raise Unusual("no superblock of version 0, 2 or 3 at byte 0")
        if head[8] == 0:
            flags, base, _, end, more, root = _VERSION_0.unpack_from(head)
            sizes = head[9:16] == b"\0\0\0\0\x08\x08\0"
        else:
            self.bytes.checked(0, 48)
            wide, far, flags, base, more, end, root = _VERSION_2.unpack_from(head)
            sizes = wide == far == 8
        if not sizes or flags or base or more != NOWHERE or end > size:
            raise Unusual(
                "a superblock with other sizes or with more to it, or a file that is cut short or written to"
            )
        self.objects: dict[int, Object] = {}
        self._root = root

    @property
    def root(self) -> Object:
        """The outermost group."""
        return self.object(self._root)

    def object(self, address: int) -> Object:
        """The object at an address."""
        if address not in self.objects:
            if len(self.objects) > _OBJECTS:
                raise Unusual("objects without end")
            self.objects[address] = self._read(address)
        return self.objects[address]

    def _read(self, address: int) -> Object:
        head = self.bytes.at(address, 16)
        if head[:4] == b"OHDR":
            return self._read_2(address, head)
        version, _, count, _, size = struct.unpack_from("<BBHII", head)
        if version != 1:
            raise Unusual("an object header of another version")
        found: dict[int, list[Message]] = {}
        chunks, seen = [(address + 16, size)], 0
        for place, length in chunks:
            data, at = self.bytes.at(place, length), 0
            while at < length:
                kind, size, flags = _MESSAGE.unpack_from(data, at)
                at += 8 + size
                if at > length or kind > _KNOWN:
                    raise Unusual(f"a message of kind {kind}, or one that reaches beyond its header")
                found.setdefault(kind, []).append((seen, flags, data[at - size : at]))
                seen += 1
            if CONTINUED in found:
                chunks += _continued(found.pop(CONTINUED), len(chunks))
        if seen != count:
            raise Unusual("a header with other messages than it says")
        return Object(self, False, found)

    def _read_2(self, address: int, head: bytes) -> Object:
        flags = head[5]
        if head[4] != 2 or flags & 0xC0:
            raise Unusual("an object header of another version")
        start, width = 6 + 16 * bool(flags & 32) + 4 * bool(flags & 16), 1 << (flags & 3)
        prefix = self.bytes.at(address, start + width)
        size = int.from_bytes(prefix[start:], "little")
        tracked, found = bool(flags & 4), dict[int, list[Message]]()
        at, wide, chunks = start + width, 6 if tracked else 4, [(address, start + width + size + 4)]
        for place, length in chunks:
            data, end = self.bytes.checked(place, length), length - 4
            if place != address and data[:4] != b"OCHK":
                raise Unusual("a header that goes on where it does not")
            while at + wide <= end:
                kind, size, flags, order = _MESSAGE_2.unpack_from(data, at)
                at += wide + size
                if at > end or kind > _KNOWN:
                    raise Unusual(f"a message of kind {kind}, or one that reaches beyond its header")
                message = order if tracked else 0, flags, data[at - size : at]
                if kind in found:
                    found[kind].append(message)
                else:
                    found[kind] = [message]
            if CONTINUED in found:
                chunks += _continued(found.pop(CONTINUED), len(chunks))
            at = 4
        return Object(self, tracked, found)


def _continued(messages: list[Message], chunks: int) -> list[tuple[int, int]]:
    """Where a header goes on that has so many chunks already."""
    if chunks > _MOST:
        raise Unusual("a header without end")
    return [_PLACE.unpack_from(body) for _, _, body in messages]


def _link(body: bytes, tracked: bool) -> Link:
    if body[0] != 1 or body[1] & 0xE0:
        raise Unusual("a link of another version")
    flags, at, kind, order = body[1], 2, 0, 0
    if flags & 8:
        kind, at = body[at], at + 1
    if flags & 4:
        order, at = int.from_bytes(body[at : at + 8], "little"), at + 8
    elif tracked:
        raise Unusual("a link that does not know when it was made")
    at += bool(flags & 16)
    width = 1 << (flags & 3)
    size, at = int.from_bytes(body[at : at + width], "little"), at + width
    name, address = body[at : at + size], body[at + size : at + size + 8]
    if len(address) < 8 and kind == 0:
        raise Unusual("a link that is cut short")
    return Link(_text(name), order, None if kind else int.from_bytes(address, "little"))


def _attribute(body: bytes) -> tuple[str, Attribute]:
    version, _, name, kind, space = _ATTRIBUTE.unpack_from(body)
    if version == 1:  # each part is filled up
        last = 8 + sum(-(-size // 8) * 8 for size in (name, kind, space))
    else:
        last = (9 if version == 3 else 8) + name + kind + space
    declared, kind, space = _declared(body[:last])
    return declared, Attribute(kind, space, body[last:])


@lru_cache(4096)
def _declared(body: bytes) -> tuple[str, bytes, bytes]:
    """Name, type and space of an attribute, which are alike in many files."""
    version, flags, name, kind, space = _ATTRIBUTE.unpack_from(body)
    if version not in (1, 2, 3) or (version > 1 and flags):
        raise Unusual("an attribute of another version, or one whose type has a name")
    wide, start = 8 if version == 1 else 1, 9 if version == 3 else 8
    second = start + -(-name // wide) * wide
    third = second + -(-kind // wide) * wide
    if third + space > len(body) or not name or body[start + name - 1]:
        raise Unusual("an attribute that is cut short")
    return _text(body[start : start + name - 1]), body[second : second + kind], body[third : third + space]


@lru_cache(4096)
def _text(name: bytes) -> str:
    if not name or len(name) > _MOST or b"\0" in name:
        raise Unusual("a name that is empty, or ends before its end")
    return name.decode()


def looked(path: str, stamp: Identity, view: Callable[[Object], T]) -> T | None:
    """What ``view`` makes of the root of a file of this identity; None where the library must read the file."""
    try:
        fd = os.open(path, os.O_RDONLY)
        try:
            stat = os.fstat(fd)
            if (stat.st_size, stat.st_mtime_ns) != stamp:
                return None
            file = File(fd, stat.st_size)
            try:
                return view(file.root)
            finally:
                file.objects.clear()  # they know their file, and would be garbage that only a search finds
        finally:
            os.close(fd)
    # Where there are no checksums, damage may have any of these come; the library has the last word.
    except (Unusual, OSError, LookupError, ValueError, OverflowError, RecursionError, struct.error):
        return None
