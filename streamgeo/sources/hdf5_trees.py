"""Tables of an HDF5 file: what stands in trees and heaps, read without the library.

Format: HDF5 file format specification 3.0, section III (B-trees of version 1 and 2, symbol tables, local, global and
fractal heaps). Trees and heaps that are larger than names and attributes make them are left to the library.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise

NOWHERE = (1 << 64) - 1  # the address of what is not there
_FIRST, _BLOCK = 32 << 10, 16 << 10  # bytes that are read at first, and then at a time
_MOST = 16 << 20  # bytes of one table
_NODES = 1 << 12  # of one tree

_TREE, _HEADER_2 = struct.Struct("<4sBBHQQ"), struct.Struct("<4sBBIHHBBQHQ")
_FRACTAL = struct.Struct("<4sBHHBI12QHQQHHQH")
_ENTRY = struct.Struct("<QQI20x")
_OBJECT = struct.Struct("<HH4xQ")


class Unusual(Exception):
    """What is left to the library; the message is the reason, for people."""


class Bytes:
    """Bytes of a file that is open, read in blocks that are kept."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd, self._size = fd, size
        self._head = os.pread(fd, min(_FIRST, size), 0)
        self._blocks: dict[int, bytes] = {}
        self._heaps: dict[int, dict[int, bytes]] = {}
        self._fractals: dict[int, _Fractal] = {}

    def at(self, offset: int, size: int) -> bytes:
        """So many bytes.

        Raises:
            Unusual: when the file ends before.
        """
        end = offset + size
        if end <= len(self._head):
            return self._head[offset:end]
        if end > self._size or size > _MOST:
            raise Unusual("an address beyond the end of the file")
        number, start = divmod(offset, _BLOCK)
        if start + size > _BLOCK:
            found = os.pread(self._fd, size, offset)
        else:
            if number not in self._blocks:
                self._blocks[number] = os.pread(self._fd, _BLOCK, number * _BLOCK)
            found = self._blocks[number][start : start + size]
        if len(found) < size:
            raise Unusual("a file that became shorter")
        return found

    def checked(self, offset: int, size: int) -> bytes:
        """So many bytes, the last four of which are the checksum of those before.

        Raises:
            Unusual: when they are not.
        """
        data = self.at(offset, size)
        check(data[:-4], data[-4:])
        return data

    def text(self, data: bytes) -> bytes:
        """What an element of variable length holds, of which ``data`` says where it lies in a global heap."""
        size, address, number = struct.unpack_from("<IQI", data)
        if not size:
            return b""
        if address not in self._heaps:
            self._heaps[address] = dict(self._heap(address))
        found = self._heaps[address].get(number)
        if found is None:
            raise Unusual("an object that its heap does not hold")
        return found

    def _heap(self, address: int) -> Iterator[tuple[int, bytes]]:
        """The objects of a global heap; number 0 is what is free, and its size includes its header."""
        head = self.at(address, 16)
        size = int.from_bytes(head[8:], "little")
        if head[:8] != b"GCOL\x01\0\0\0" or size > _MOST:
            raise Unusual("a global heap of another version")
        data, at = self.at(address, size), 16
        while at + _OBJECT.size <= size:
            number, _, length = _OBJECT.unpack_from(data, at)
            need = _OBJECT.size + -(-length // 8) * 8 if number else length
            if need < _OBJECT.size or at + need > size:
                raise Unusual("a global heap whose objects overlap")
            if number:
                yield number, data[at + 16 : at + 16 + length]
            at += need

    def fractal(self, address: int) -> _Fractal:
        """The fractal heap at an address."""
        if address not in self._fractals:
            self._fractals[address] = _Fractal(self, address)
        return self._fractals[address]


def check(data: bytes, sum_: bytes) -> None:
    """Hold bytes against their checksum.

    Raises:
        Unusual: when they are damaged.
    """
    import imagecodecs

    if imagecodecs.h5checksum_metadata(data) != int.from_bytes(sum_, "little"):
        raise Unusual("a wrong checksum")


# -- symbol tables -------------------------------------------------------------------------------------


def symbols(file: Bytes, tree: int, heap: int) -> list[tuple[bytes, int | None]]:
    """Names and addresses of the members of an old group, by name; no address for a soft link."""
    head = file.at(heap, 32)
    if head[:8] != b"HEAP\0\0\0\0":
        raise Unusual("a local heap of another version")
    size, _, place = struct.unpack_from("<QQQ", head, 8)
    names = file.at(place, size)
    found: list[tuple[bytes, int | None]] = []
    for node in _leaves(file, tree):
        head = file.at(node, 8)
        count = int.from_bytes(head[6:], "little")
        if head[:5] != b"SNOD\x01":
            raise Unusual("a symbol table of another version")
        for start, address, cached in _ENTRY.iter_unpack(file.at(node + 8, 40 * count)):
            end = names.find(b"\0", start)
            if end < 0 or cached not in (0, 1, 2):
                raise Unusual("a name without end")
            found.append((names[start:end], None if cached == 2 else address))
    if any(one[0] >= two[0] for one, two in pairwise(found)):
        raise Unusual("a symbol table that is not in order")
    return found


def _leaves(file: Bytes, tree: int) -> list[int]:
    """The children of the lowest nodes of a B-tree of version 1."""
    nodes, level = [tree], None
    while level != 0:
        below: list[int] = []
        depths = set()
        for node in nodes:
            sign, kind, depth, count, _, _ = _TREE.unpack(file.at(node, 24))
            if sign != b"TREE" or kind:
                raise Unusual("another tree than that of a group")
            depths.add(depth)
            keys = struct.unpack(f"<{2 * count}Q", file.at(node + 24, 16 * count))
            below += keys[1::2]
        if len(depths) > 1 or len(below) > _NODES or (level is not None and depths != {level - 1}):
            raise Unusual("a tree of uneven depth")
        level, nodes = depths.pop(), below
    return nodes


# -- dense links and attributes -------------------------------------------------------------------------


def dense(file: Bytes, heap: int, tree: int, kind: int) -> list[tuple[bytes, int]]:
    """The messages in a fractal heap that a B-tree of version 2 lists, with their order of creation.

    Args:
        file: where they lie.
        heap, tree: their addresses.
        kind: 5 for links by name, 8 for attributes by name.
    """
    found, sizes = [], {5: 11, 8: 17}
    for record in _records(file, tree, kind, sizes[kind]):
        if kind == 5:
            found.append((file.fractal(heap).get(record[4:]), 0))
        elif record[8]:
            raise Unusual("a shared attribute")
        else:
            found.append((file.fractal(heap).get(record[:8]), int.from_bytes(record[9:13], "little")))
    return found


def _records(file: Bytes, address: int, kind: int, size: int) -> list[bytes]:
    head = file.checked(address, 38)
    sign, version, found, node, width, depth, _, _, root, count, total = _HEADER_2.unpack_from(head)
    if (sign, version, found, width) != (b"BTHD", 0, kind, size) or depth > 1:
        raise Unusual("another tree than that of links or attributes, or a deep one")
    if not total:
        return []
    if depth == 0 and count != total:
        raise Unusual("a tree with other records than it says")
    if depth == 0:
        return _leaf(file, root, kind, total, size)
    most = (node - 10) // size
    wide = (most.bit_length() + 7) // 8
    data = file.checked(root, 6 + count * size + (count + 1) * (8 + wide) + 4)
    if data[:6] != b"BTIN\0" + bytes([kind]):
        raise Unusual("a node of another tree")
    records: list[bytes] = []
    for i in range(count + 1):  # each child, and the record between it and the next one
        at, between = 6 + count * size + i * (8 + wide), 6 + i * size
        child, end = int.from_bytes(data[at : at + 8], "little"), at + 8 + wide
        records += _leaf(file, child, kind, int.from_bytes(data[at + 8 : end], "little"), size)
        records += [data[between : between + size]] if i < count else []
    if len(records) != total:
        raise Unusual("a tree with other records than it says")
    return records


def _leaf(file: Bytes, address: int, kind: int, count: int, size: int) -> list[bytes]:
    data = file.checked(address, 6 + count * size + 4)
    if data[:6] != b"BTLF\0" + bytes([kind]):
        raise Unusual("a node of another tree")
    return [data[6 + i * size : 6 + (i + 1) * size] for i in range(count)]


class _Fractal:
    """A fractal heap without filters, whose objects lie in direct blocks."""

    def __init__(self, file: Bytes, address: int) -> None:
        (sign, version, _, filters, flags, largest, _, self._tree, *_, width, start, most, bits, _, self._root,
         self._rows) = _FRACTAL.unpack_from(file.checked(address, _FRACTAL.size + 4))  # fmt: skip
        if (sign, version, filters) != (b"FRHP", 0, 0) or not (0 < start <= most and width and largest):
            raise Unusual("a fractal heap of another version, or one with filters")
        self._file, self._address, self._sums = file, address, bool(flags & 2)
        self._width, self._start, self._most = width, start, most
        self._far = (bits + 7) // 8
        self._long = min(((most.bit_length() - 1) + 7) // 8, (largest.bit_length() - 1) // 8 + 1)
        self._blocks: dict[int, bytes] = {}

    def get(self, name: bytes) -> bytes:
        """The object of an identifier."""
        kind = name[0] >> 4
        if kind == 2 and len(name) <= 17:  # so small that it stands in the identifier
            return name[1 : 2 + (name[0] & 15)]
        if kind == 1 and len(name) == 8:
            return self._huge(int.from_bytes(name[1:], "little"))
        if kind:
            raise Unusual("an identifier of another kind")
        offset = int.from_bytes(name[1 : 1 + self._far], "little")
        length = int.from_bytes(name[1 + self._far : 1 + self._far + self._long], "little")
        row, start, size = self._row(offset)
        number = (offset - start) // size
        begin = start + number * size
        data = self._block(row * self._width + number, begin, size)
        if offset - begin + length > size or not length:
            raise Unusual("an object that reaches beyond its block")
        return data[offset - begin : offset - begin + length]

    def _huge(self, number: int) -> bytes:
        """An object that is too large for the blocks."""
        for record in _records(self._file, self._tree, 1, 24):
            place, size, found = struct.unpack("<QQQ", record)
            if found == number:
                return self._file.at(place, size)
        raise Unusual("an object that its heap does not hold")

    def _row(self, offset: int) -> tuple[int, int, int]:
        """The row of the doubling table, where it begins in the heap, and the size of its blocks."""
        row, start, size = 0, 0, self._start
        while offset >= start + self._width * size:
            start += self._width * size
            row, size = row + 1, self._start << row
            if size > self._most:
                raise Unusual("a fractal heap with nested blocks")
        return row, start, size

    def _block(self, number: int, begin: int, size: int) -> bytes:
        if number not in self._blocks:
            if number >= len(self._places):
                raise Unusual("an object in a block that is not there")
            data = self._file.at(self._places[number], size)
            at = 13 + self._far
            if data[:13] != b"FHDB\0" + self._address.to_bytes(8, "little"):
                raise Unusual("a block of another heap")
            if int.from_bytes(data[13:at], "little") != begin:
                raise Unusual("a block of another place")
            if self._sums:
                check(data[:at] + bytes(4) + data[at + 4 :], data[at : at + 4])
            self._blocks[number] = data
        return self._blocks[number]

    @cached_property
    def _places(self) -> tuple[int, ...]:
        """The addresses of the direct blocks."""
        if not self._rows:
            return (self._root,)
        nested = (self._most // self._start).bit_length() + 1  # the first row whose blocks are not direct
        direct, rest = min(self._rows, nested) * self._width, max(self._rows - nested, 0) * self._width
        start = 13 + self._far
        data = self._file.checked(self._root, start + 8 * (direct + rest) + 4)
        if data[:13] != b"FHIB\0" + self._address.to_bytes(8, "little") or any(data[13:start]):
            raise Unusual("a block of another heap")
        return struct.unpack_from(f"<{direct}Q", data, start)
