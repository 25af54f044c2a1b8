"""What the messages of HDF5 headers say: types, shapes, how datasets are stored, the values of attributes.

Format: HDF5 file format specification 3.0, section IV.A.2.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgeo.sources import hdf5_objects as objects
from streamgeo.sources.hdf5_objects import Attribute, Object
from streamgeo.sources.hdf5_trees import Unusual

Array = NDArray[Any]
DEFLATE, SHUFFLE = 1, 2  # numbers of filters
SCALE = b"DIMENSION_SCALE"  # the class of a dataset that gives a dim its name
_ENDLESS = (1 << 64) - 1
_MOST = 1 << 20  # elements of an attribute
_COMPACT, _CONTIGUOUS, _CHUNKED = 0, 1, 2
_FILTER, _INTEGER, _VARIABLE = struct.Struct("<HHHH"), struct.Struct("<HH"), 16


@dataclass(frozen=True)
class Type:
    """What an element is.

    Attributes:
        size: its bytes.
        dtype: of plain numbers, in the byte order of the file; None for anything else.
        text: ``"fixed"`` or ``"variable"`` for text that ends with a zero, or is filled up with zeros.
        references: whether it is a list of places of objects.
    """

    size: int
    dtype: np.dtype[Any] | None = None
    text: str = ""
    references: bool = False


@dataclass(frozen=True)
class Dataset:
    """What the header of a dataset says; ``most`` has None where a dim can grow without end."""

    shape: tuple[int, ...]
    most: tuple[int | None, ...]
    type: Type
    chunks: tuple[int, ...] | None
    compact: bool
    filters: dict[int, tuple[int, ...]]
    filled: bool  # whether its own fill value was given


# -- types ----------------------------------------------------------------------------------------------


def _numbers() -> dict[bytes, np.dtype[Any]]:
    """Each dtype by its type as the file has it, without the version: of any other form the library decides."""
    found = {}
    floats = {
        2: (15, 10, 5, 0, 10, 15),
        4: (31, 23, 8, 0, 23, 127),
        8: (63, 52, 11, 0, 52, 1023),
    }  # sign, exponent at and of so many bits, mantissa at and of so many, bias
    for order, bit in (("<", 0), (">", 1)):
        for size in (1, 2, 4, 8)[bit:]:
            for kind, sign in (("u", 0), ("i", 8)):
                text = struct.pack("<BBBBIHH", 0, bit | sign, 0, 0, size, 0, 8 * size)
                found[text] = np.dtype(f"{order}{kind}{size}")
        for size, (sign, at, bits, start, mantissa, bias) in floats.items():
            text = struct.pack(
                "<BBBBIHHBBBBI", 1, bit | 0x20, sign, 0, size, 0, 8 * size, at, bits, start, mantissa, bias
            )
            found[text] = np.dtype(f"{order}f{size}")
    return found


_NUMBERS = _numbers()
_BOOL = (
    b"\x02\0\0\x01\0\0\0\x10\x08\0\0\x01\0\0\0\0\0\x08\0FALSE\0\0\0TRUE\0\0\0\0\0\x01"  # as h5py writes it
)
_NUMBER_SIZES = {0: 12, 1: 20}  # bytes of a type, by its class


@lru_cache(1024)
def type_of(body: bytes) -> Type:
    """The type that a message describes.

    Raises:
        Unusual: for what is no plain number, text or list of references.
    """
    kind, size = body[0] & 15, int.from_bytes(body[4:8], "little")
    if kind in _NUMBER_SIZES:
        dtype = _NUMBERS.get(bytes([kind]) + body[1 : _NUMBER_SIZES[kind]])
        if dtype is not None:
            return Type(size, dtype)
    elif body[:1] == b"\x18" and body[1:38] == _BOOL:
        return Type(size, np.dtype(bool))
    elif kind == 3 and body[1] & 15 in (0, 1) and 0 < size < _MOST:
        return Type(size, text="fixed")
    elif kind == 9 and size == _VARIABLE:
        if body[1] & 15 == 1:
            return Type(size, text="variable")
        if body[8] & 15 == 7 and body[9:12] == b"\0\0\0" and body[12:16] == b"\x08\0\0\0":
            return Type(size, references=True)
    raise Unusual("a type that is no plain number or text")


def space(body: bytes) -> tuple[tuple[int, ...], tuple[int | None, ...]]:
    """Sizes, and the most that they can become.

    Raises:
        Unusual: for a space that is empty or of another version.
    """
    version, rank, flags, kind = body[:4]
    if version not in (1, 2) or flags > 1 or rank > 32 or (version == 2 and kind != (rank > 0)):
        raise Unusual("a space that is empty or of another version")
    start = 8 if version == 1 else 4
    shape = struct.unpack_from(f"<{rank}Q", body, start)
    if not flags:
        return shape, shape
    most = struct.unpack_from(f"<{rank}Q", body, start + 8 * rank)
    return shape, tuple(None if size == _ENDLESS else size for size in most)


# -- datasets -------------------------------------------------------------------------------------------


def dataset(found: Object) -> Dataset:
    """What the header of a dataset says.

    Raises:
        Unusual: when it is not as almost all are.
    """
    if found.message(objects.EXTERNAL):
        raise Unusual("a dataset whose numbers lie in another file")
    shape, most = space(found.message(objects.SPACE))
    layout, chunks = _layout(found.message(objects.LAYOUT), len(shape))
    filters = _filters(found.message(objects.FILTERS))
    fill = found.message(objects.FILL)
    filled = _filled(fill) if fill else any(found.message(objects.OLD_FILL)[:4])
    return Dataset(
        shape, most, type_of(found.message(objects.TYPE)), chunks, layout == _COMPACT, filters, filled
    )


def _layout(body: bytes, rank: int) -> tuple[int, tuple[int, ...] | None]:
    version, kind = body[:2]
    if version not in (3, 4) or kind > _CHUNKED:
        raise Unusual("a layout of another version")
    if kind != _CHUNKED:
        return kind, None
    if version == 3:
        count, start, wide = body[2], 11, 4
    else:
        count, wide, start = body[3], body[4], 5
    if count != rank + 1 or not 0 < wide <= 8 or len(body) < start + wide * rank:
        raise Unusual("chunks with other dims than their dataset")
    places = range(start, start + wide * rank, wide)
    return kind, tuple([int.from_bytes(body[at : at + wide], "little") for at in places])


@lru_cache(1024)
def _filters(body: bytes) -> dict[int, tuple[int, ...]]:
    """The numbers that each filter is given."""
    if not body:
        return {}
    version, count = body[:2]
    if version not in (1, 2):
        raise Unusual("filters of another version")
    at, found = 8 if version == 1 else 2, {}
    for _ in range(count):
        code = int.from_bytes(body[at : at + 2], "little")
        if version == 2 and code < 256:
            (_, numbers), size, at = _INTEGER.unpack_from(body, at + 2), 0, at + 6
        else:
            _, size, _, numbers = _FILTER.unpack_from(body, at)
            at += 8
        at += -(-size // 8) * 8 if version == 1 else size
        found[code] = struct.unpack_from(f"<{numbers}I", body, at)
        at += 4 * (numbers + (numbers % 2 if version == 1 else 0))
    return found


def _filled(body: bytes) -> bool:
    if body[0] == 3:
        return bool(body[1] & 0x20)
    if body[0] not in (1, 2):
        raise Unusual("a fill value of another version")
    return bool(body[3]) and 0 < int.from_bytes(body[4:8], "little") < 1 << 31


def packed(about: Dataset) -> dict[str, Any]:
    """The filters as the description of a variable has them."""
    deflated = about.filters.get(DEFLATE)
    return {
        "zlib": deflated is not None,
        "shuffle": SHUFFLE in about.filters,
        "complevel": deflated[0] if deflated else 0,
    }


# -- attributes -----------------------------------------------------------------------------------------


class Form(NamedTuple):
    """What an attribute holds: so many elements of a type, in an array of this shape; ``null`` without a shape."""

    type: Type
    shape: tuple[int, ...]
    elements: int
    null: bool = False


@lru_cache(4096)
def _form(kind: bytes, about: bytes) -> Form:
    if about[0] == 2 and about[3] == 2:
        return Form(type_of(kind), (0,), 0, True)
    shape, _ = space(about)
    if prod(shape) > _MOST:
        raise Unusual("an attribute of very many elements")
    return Form(type_of(kind), shape, prod(shape))


def form(attribute: Attribute) -> Form:
    """What an attribute holds.

    Raises:
        Unusual: when it is no plain number, text or list of references, or is cut short.
    """
    found = _form(attribute.type, attribute.space)
    if found.elements * found.type.size > len(attribute.data):
        raise Unusual("an attribute that is cut short")
    return found


def numbers(attribute: Attribute) -> Array:
    """The numbers of an attribute in the byte order of this machine.

    Raises:
        Unusual: when it holds none.
    """
    kind, shape, count, _ = form(attribute)
    if kind.dtype is None:
        raise Unusual("an attribute without numbers")
    found: Array = np.frombuffer(attribute.data, kind.dtype, count)
    return found.reshape(shape).astype(kind.dtype.newbyteorder("="))


def texts(attribute: Attribute, owner: Object) -> list[bytes]:
    """The words of an attribute; those of fixed length with the zeros that fill them up."""
    kind, _, count, _ = form(attribute)
    if not kind.text:
        raise Unusual("an attribute without text")
    words = [attribute.data[at : at + kind.size] for at in range(0, count * kind.size, kind.size)]
    if kind.text == "variable":
        return [owner.file.bytes.text(word).partition(b"\0")[0] for word in words]
    return words


def references(attribute: Attribute, owner: Object) -> list[list[int]]:
    """The addresses in each list of references.

    Raises:
        Unusual: when it holds something else.
    """
    kind, _, count, _ = form(attribute)
    if not kind.references:
        raise Unusual("an attribute without references")
    lists = []
    for at in range(0, count * kind.size, kind.size):
        size = int.from_bytes(attribute.data[at : at + 4], "little")
        data = owner.file.bytes.text(attribute.data[at : at + kind.size])
        if len(data) != 8 * size:
            raise Unusual("a list of references that is cut short")
        lists.append([*struct.unpack(f"<{size}Q", data)])
    return lists


def number(attribute: Attribute) -> Any:
    """The only number of an attribute."""
    return np.frombuffer(attribute.data, form(attribute).type.dtype, 1)[0]


def label(attribute: Attribute | None) -> bytes:
    """A word of fixed length, as those are by which dims are known; nothing where there is no attribute.

    Raises:
        Unusual: when it is anything else.
    """
    if attribute is None:
        return b""
    found = form(attribute)
    if found.type.text != "fixed" or found.shape:
        raise Unusual("the name of a dim in another form")
    return attribute.data.rstrip(b"\0")
