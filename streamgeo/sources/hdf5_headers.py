"""The header of an HDF5 file as h5py describes it, without the library; only what almost all files are made of."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

import numpy as np

from streamgeo.sources import hdf5_messages as messages
from streamgeo.sources.cf import Header, Variable, groups_of
from streamgeo.sources.hdf5_messages import Dataset
from streamgeo.sources.hdf5_objects import Attribute, Object, looked
from streamgeo.sources.hdf5_trees import Unusual
from streamgeo.sources.layouts import Identity

# What the libraries keep for themselves; it is made anew when a file is written.
BOOKKEEPING = {"DIMENSION_LIST", "REFERENCE_LIST", "DIMENSION_LABELS", "CLASS", "NAME", "_Netcdf4Dimid",
                "_Netcdf4Coordinates", "_NCProperties", "_nc3_strict"}  # fmt: skip
BARE_DIM = b"This is a netCDF dimension but not a netCDF variable"


def look(path: str, stamp: Identity) -> Header | None:
    """The header of a file whose size and time of modification are ``stamp``; None where h5py must read it."""
    return looked(path, stamp, _scan)


def _scan(root: Object) -> Header:
    groups: dict[str, Object] = {}
    found: dict[int, tuple[str, Object]] = {}
    _walk(root, "", groups, found, set())
    variables: dict[str, Variable] = {}
    unlimited: set[str] = set()
    for path, one in found.values():
        about, attributes = messages.dataset(one), one.attributes()
        if messages.label(attributes.get("NAME")).startswith(BARE_DIM):
            unlimited |= {path} if None in about.most else set()
            continue
        ids = _ids(path, one, len(about.shape), attributes, found)
        variables[path] = _variable(path, one, about, ids, attributes)
        unlimited.update(i for i, most in zip(ids, about.most) if most is None)
    attrs = {path: _values(groups[path].attributes(), groups[path]) for path in groups_of(variables.values())}
    return Header(variables, attrs, frozenset(unlimited), "HDF5")


def _walk(
    group: Object,
    path: str,
    groups: dict[str, Object],
    found: dict[int, tuple[str, Object]],
    seen: set[int],
) -> None:
    """Take each group by its path, and each dataset by its address, in the order of their names."""
    groups[path] = group
    for link in sorted(group.links(), key=lambda one: one.name.encode()):
        if link.address is None:  # h5py does not follow it either
            continue
        if link.address in seen:
            raise Unusual("an object of several names")
        seen.add(link.address)
        member, name = group.file.object(link.address), posixpath.join(path, link.name)
        if member.is_group:
            _walk(member, name, groups, found, seen)
        elif member.is_dataset:
            found[link.address] = name, member


def _ids(
    path: str,
    one: Object,
    rank: int,
    attributes: Mapping[str, Attribute],
    found: Mapping[int, tuple[str, Object]],
) -> tuple[str, ...]:
    """Ids of the dims: the path of the scale, or one of its own where there is no scale."""
    if rank == 1 and messages.label(attributes.get("CLASS")) == messages.SCALE:
        return (path,)
    if "DIMENSION_LABELS" in attributes:
        raise Unusual("labels of dims")
    if "DIMENSION_LIST" not in attributes:
        return tuple([f"{path}#{i}" for i in range(rank)])
    lists = messages.references(attributes["DIMENSION_LIST"], one)
    if len(lists) != rank or any(scales and scales[0] not in found for scales in lists):
        raise Unusual("dims that are not there")
    return tuple([found[scales[0]][0] if scales else f"{path}#{i}" for i, scales in enumerate(lists)])


def _variable(
    path: str, one: Object, about: Dataset, ids: tuple[str, ...], attributes: Mapping[str, Attribute]
) -> Variable:
    kind = about.type
    if kind.dtype is None and not kind.text:
        raise Unusual("references")
    dtype = kind.dtype or np.dtype(f"S{kind.size}" if kind.text == "fixed" else object)
    storage = {
        "chunks": about.chunks,
        "endian": {"<": "little", ">": "big"}.get(dtype.byteorder, "native"),
        **messages.packed(about),
        "enum": False,
        "default_fill": False,
    }
    dims = tuple([f"dim_{i}" if "#" in one else posixpath.basename(one) for i, one in enumerate(ids)])
    return Variable(path, dims, ids, about.shape, dtype, _values(attributes, one), storage)


def _values(attributes: Mapping[str, Attribute], owner: Object) -> dict[str, Any]:
    names = attributes if owner.tracked else sorted(attributes, key=str.encode)
    return {name: _value(attributes[name], owner) for name in names if name not in BOOKKEEPING}


def _value(attribute: Attribute, owner: Object) -> Any:
    """As NetCDF has it: text as str, a single element without its array."""
    kind, _, count, null = messages.form(attribute)
    if null:
        return "" if kind.text else np.array([], kind.dtype)
    if kind.dtype is not None:
        return messages.number(attribute) if count == 1 else messages.numbers(attribute)
    words = messages.texts(attribute, owner)
    if kind.text == "fixed":
        decoded = [plain_text(_whole(word)) for word in words]
    else:
        decoded = [word.decode("utf-8", "surrogateescape") for word in words]
    return decoded[0] if count == 1 else decoded


def _whole(word: bytes) -> bytes:
    word = word.rstrip(b"\0")
    if b"\0" in word:
        raise Unusual("text that goes on behind its end")
    return word


def plain_text(value: bytes) -> str:
    """Text as it was meant: UTF-8, or Latin-1 where it is not."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")
