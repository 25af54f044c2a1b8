"""The header of a NetCDF-4 file as netCDF-C sees it, by the headers of HDF5 and without the library.

Only what almost all files are made of: groups, dims that have a scale, numbers and text. Source: NetCDF-4 format
specification (NetCDF Users Guide, appendix C): dims are dimension scales, hidden attributes say how they go together.
"""

from __future__ import annotations

import posixpath
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from streamgeo.sources import hdf5_messages as messages
from streamgeo.sources.cf import Header, Variable, groups_of
from streamgeo.sources.hdf5_headers import BARE_DIM, BOOKKEEPING
from streamgeo.sources.hdf5_objects import Attribute, Object, looked
from streamgeo.sources.hdf5_trees import Unusual
from streamgeo.sources.layouts import Identity

# With what the names of attributes begin that NetCDF keeps for itself.
_RESERVED = ("_Nc", "_nc", "_NC", "_Is", "_Format", "_Superblock", "_ARRAY", "_Codecs", "_zarr", "_Quantize")
_RENAMED = "_nc4_non_coord_"  # before the name of a variable that has the name of a dim which it is not about
_FILTERS = {messages.DEFLATE, messages.SHUFFLE, 3}  # and the checksum: of any other the library tells more
_LONGEST = 256  # bytes of a name
_KINDS = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")
_DTYPES = {np.dtype(order + kind) for order in "<>" for kind in _KINDS}
_TEXTS = {messages.Type(1, text="fixed"), messages.Type(16, text="variable")}


def look(path: str, stamp: Identity) -> Header | None:
    """The header of a file whose size and time of modification are ``stamp``; None where netCDF-C must read it."""
    return looked(path, stamp, _scan)


@dataclass(frozen=True)
class _Found:
    """A dataset, and what of it says how it goes together with others."""

    group: str
    leaf: str
    object: Object
    about: messages.Dataset
    attributes: dict[str, Attribute]
    scale: bool

    @property
    def path(self) -> str:
        """By which a dim is known."""
        return posixpath.join(self.group, self.leaf)

    @property
    def endless(self) -> bool:
        """Whether it is the scale of a dim that can grow."""
        return self.scale and self.about.most[0] is None

    @property
    def bare(self) -> bool:
        """Whether it is nothing but a dim."""
        return self.scale and messages.label(self.attributes.get("NAME")).startswith(BARE_DIM)

    def hidden(self, name: str) -> list[int]:
        """The numbers of a hidden attribute; none where it has no such attribute."""
        one = self.attributes.get(name)
        return [] if one is None else messages.numbers(one).ravel().tolist()


def _scan(root: Object) -> Header:
    groups: dict[str, Object] = {}
    found: dict[int, _Found] = {}
    _walk(root, "", groups, found, set())
    dims = _dims(found)
    sizes = _sizes(found, dims)
    variables = {}
    for address, one in found.items():
        if not one.bare:
            ids = tuple([found[scale].path for scale in dims[address]])
            shape = tuple([sizes[scale] for scale in dims[address]])
            path = posixpath.join(one.group, one.leaf.removeprefix(_RENAMED))
            variables[path] = _variable(one, path, ids, shape)
    named = {path: _named(groups[path]) for path in groups_of(variables.values())}
    attrs = {path: _values(attributes, groups[path]) for path, attributes in named.items()}
    unlimited = frozenset(one.path for one in found.values() if one.endless)
    return Header(variables, attrs, unlimited, "NETCDF4_CLASSIC" if "_nc3_strict" in named[""] else "NETCDF4")


# -- what there is --------------------------------------------------------------------------------------


def _walk(
    group: Object, path: str, groups: dict[str, Object], found: dict[int, _Found], seen: set[int]
) -> None:
    """Take each group by its path, and each dataset by its address in the order in which netCDF-C numbers them."""
    groups[path] = group
    below = []
    for link in group.links():
        if link.address is None or not link.name.isascii() or len(link.name) > _LONGEST:
            raise Unusual("a link that is soft, or a name that may be another one in NetCDF")
        if link.address in seen:
            raise Unusual("an object of several names")
        seen.add(link.address)
        member = group.file.object(link.address)
        if member.is_group:
            below.append((member, posixpath.join(path, link.name)))
        elif member.is_dataset:
            found[link.address] = _dataset(member, path, link.name)
    for member, name in below:
        _walk(member, name, groups, found, seen)


def _dataset(below: Object, group: str, leaf: str) -> _Found:
    about, attributes = messages.dataset(below), _named(below)
    scale = messages.label(attributes.get("CLASS")) == messages.SCALE
    if scale != ("CLASS" in attributes) or (scale and (not about.shape or "DIMENSION_LIST" in attributes)):
        raise Unusual("a dimension scale of another form")
    if about.compact or not _FILTERS.issuperset(about.filters):
        raise Unusual("numbers in the header, or a filter of which the library tells more")
    if "DIMENSION_LABELS" in attributes or (scale and leaf.startswith(_RENAMED)):
        raise Unusual("a name that NetCDF does not give")
    if not (about.type in _TEXTS or about.type.dtype in _DTYPES):
        raise Unusual("a type that NetCDF does not have, or has by another name")
    return _Found(group, leaf, below, about, attributes, scale)


def _named(owner: Object) -> dict[str, Attribute]:
    found = owner.attributes()
    for name in found:
        if name not in BOOKKEEPING and _reserved(name):
            raise Unusual("an attribute of a name that is another one in NetCDF, or that it keeps for itself")
    return found


@lru_cache(4096)
def _reserved(name: str) -> bool:
    return name.startswith(_RESERVED) or not name.isascii()


# -- dims -----------------------------------------------------------------------------------------------


def _dims(found: Mapping[int, _Found]) -> dict[int, list[int]]:
    """By the address of each dataset: the addresses of the scales of its dims."""
    numbered = [(n, at) for at, one in found.items() if one.scale for n in one.hidden("_Netcdf4Dimid")]
    numbers = dict(numbered)
    if len(numbers) < len(numbered):
        raise Unusual("dims that are not told apart")
    return {address: _own_dims(address, one, numbers) for address, one in found.items()}


def _own_dims(address: int, one: _Found, numbers: Mapping[int, int]) -> list[int]:
    told = [numbers.get(number) for number in one.hidden("_Netcdf4Coordinates")]
    dims = [scale for scale in told if scale is not None]
    if one.scale and len(one.about.shape) == 1:
        dims = [address]
    elif "DIMENSION_LIST" in one.attributes:
        lists = messages.references(one.attributes["DIMENSION_LIST"], one.object)
        dims = [scales[0] for scales in lists if len(scales) == 1]
    if len(dims) != len(one.about.shape) or (told and told != dims):
        raise Unusual("a dim without a scale, or with several")
    return dims


def _sizes(found: Mapping[int, _Found], dims: Mapping[int, Sequence[int]]) -> dict[int, int]:
    """Of each dim, by the address of its scale: one that grows is as long as the longest array along it."""
    sizes: dict[int, int] = {}
    for address, scales in dims.items():
        one = found[address]
        for scale, size in zip(scales, one.about.shape):
            if scale not in found or not found[scale].scale:
                raise Unusual("a dim that is not there")
            dim = found[scale]
            if dim.group and not f"{one.group}/".startswith(f"{dim.group}/"):
                raise Unusual("a dim of a group that is not above")
            if size != dim.about.shape[0] and not dim.endless:
                raise Unusual("a dim of another size than its scale")
            sizes[scale] = max(sizes.get(scale, 0), size)
    return sizes


# -- variables ------------------------------------------------------------------------------------------


def _variable(one: _Found, path: str, ids: tuple[str, ...], shape: tuple[int, ...]) -> Variable:
    about, kind = one.about, one.about.type
    dtype = kind.dtype or np.dtype(object if kind.text == "variable" else "S1")
    big = dtype.byteorder == ">" or (dtype.byteorder == "=" and sys.byteorder == "big")
    storage = {
        "chunks": about.chunks,
        "endian": "native" if kind.text else "big" if big else "little",
        **messages.packed(about),
        "no_fill": kind.text != "variable" and not about.filled,
        "enum": False,
    }
    dims = tuple([posixpath.basename(i) for i in ids])
    return Variable(path, dims, ids, shape, dtype, _values(one.attributes, one.object), storage)


def _values(attributes: Mapping[str, Attribute], owner: Object) -> dict[str, Any]:
    return {name: _value(one, owner) for name, one in attributes.items() if name not in BOOKKEEPING}


def _value(attribute: Attribute, owner: Object) -> Any:
    """As netCDF4-python gives it: a single number or text without its array."""
    kind, shape, count, null = messages.form(attribute)
    if kind.dtype in _DTYPES and len(shape) < 2:
        return messages.number(attribute) if count == 1 else messages.numbers(attribute)
    if kind.text == "fixed" and null:
        return ""
    if not kind.text or len(shape) > (kind.text == "variable") or not count:
        raise Unusual("an attribute that NetCDF does not have, or has in another form")
    words = messages.texts(attribute, owner)
    try:
        decoded = [word.decode() for word in words]
    except UnicodeDecodeError:
        decoded = [word.decode("latin-1") for word in words]
    decoded = [word.replace("\0", "") for word in decoded]
    return decoded[0] if len(decoded) == 1 else decoded
