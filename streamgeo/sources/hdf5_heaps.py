"""The heaps in which HDF5 keeps texts and references of attributes, looked at before the library sees them.

The library takes the sizes in a heap as they are, and never comes back from one whose next object lies where this one
does. Source: HDF5 file format specification 3.0, section III.E (global heap).
"""

from __future__ import annotations

import os
import struct

from streamgeo.errors import OpenError

_HEAP = b"GCOL\x01\0\0\0"
_FIRST = 256 << 10  # bytes that are looked at: heaps of attributes lie near the header
_OBJECT = struct.Struct("<HHIQ")  # number, references, nothing, bytes


def check_heaps(path: str) -> None:
    """Refuse a file with a heap whose objects do not lie one behind another; a file of another kind passes.

    Raises:
        OpenError: with the place of the heap.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        data = os.pread(fd, _FIRST, 0)
    finally:
        os.close(fd)
    at = data.find(_HEAP)
    while at >= 0:
        if not _sound(data, at):
            raise OpenError(
                f"open: {path} is damaged: the objects in the heap at byte {at} overlap, or reach beyond it; "
                "fetch the file again"
            )
        at = data.find(_HEAP, at + 1)


def _sound(data: bytes, at: int) -> bool:
    """Whether the objects fill the heap. Number 0 is what is free, and its size includes this header."""
    end = at + int.from_bytes(data[at + 8 : at + 16], "little")
    place = at + 16
    while place + _OBJECT.size <= min(end, len(data)):
        number, _, _, size = _OBJECT.unpack_from(data, place)
        need = _OBJECT.size + -(-size // 8) * 8 if number else size
        if need < _OBJECT.size or place + need > end:
            return False
        place += need
    return True
