"""Which variables of a file are meant, and what is said where none is."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from streamgeo.errors import OpenError
from streamgeo.sources import cf
from streamgeo.sources.cf import Catalogue, Header, Variable

_LISTED = 12
Asked = str | Sequence[str] | None


@dataclass(frozen=True)
class Words:
    """How messages name things: the operation, its option, and what the format calls an array."""

    operation: str
    option: str
    kind: str


def chosen(
    header: Header | None,
    wanted: Asked,
    opened: Callable[[], AbstractContextManager[Any]],
    find: Callable[[Any, str], Variable | None],
    scan: Callable[[Any], Header],
    file: str,
    words: Words,
) -> tuple[list[Variable], Header | None]:
    """The variables that were asked for, and the whole header where it was read.

    Args:
        header: as it was read without the library; None where it was not.
        wanted: names, or None for the only variable that stands out as data.
        opened: the file, opened by the library.
        find, scan: one variable, and the whole header, by the library.
        file, words: for messages.

    Raises:
        OpenError: as :func:`choose` says.
    """
    names = [wanted] if isinstance(wanted, str) else list(wanted or ())
    if header is not None and all(name.strip("/") in header.variables for name in names):
        return choose(wanted, header.variables.get, lambda: header.variables, file, words), header
    scanned: list[Header] = []
    with opened() as handle:

        def catalogue() -> Catalogue:
            scanned[:] = scanned or [scan(handle)]
            return scanned[0].variables

        targets = choose(wanted, lambda name: find(handle, name), catalogue, file, words)
    return targets, scanned[0] if scanned else None


def choose(
    wanted: Asked,
    find: Callable[[str], Variable | None],
    catalogue: Callable[[], Catalogue],
    file: str,
    words: Words,
) -> list[Variable]:
    """The variables that were asked for, checked to be numbers that can be stacked.

    Raises:
        OpenError: for an unknown name, none or several to choose from, text or scalars, or different shapes.
    """
    if wanted is None:
        targets = [_only(catalogue(), file, words)]
    else:
        names = [wanted] if isinstance(wanted, str) else list(wanted)
        if not names:
            raise OpenError(
                f"{words.operation}: {words.option}= is empty; name at least one {words.kind} of {file}"
            )
        targets = [find(name.strip("/")) or _unknown(name, catalogue(), file, words) for name in names]
    for v in targets:
        what = f"{words.operation}: {words.kind} {v.path!r} of {file}"
        if not v.numeric:
            raise OpenError(f"{what} holds {_content(v)}, and only plain numbers can be opened")
        if not v.shape:
            raise OpenError(f"{what} is a scalar; a scene needs at least one dim")
    _same(targets, file, words)
    return targets


def _content(variable: Variable) -> str:
    if variable.dtype is not None and variable.dtype.kind in "SUO":
        return "text"
    return "complex numbers" if variable.dtype is not None and variable.dtype.kind == "c" else "records"


def _only(catalogue: Catalogue, file: str, words: Words) -> Variable:
    data = cf.data_variables(catalogue)
    if len(data) == 1:
        return catalogue[data[0]]
    listed = data or [path for path, v in catalogue.items() if v.numeric and v.shape]
    if not listed:
        raise OpenError(f"{words.operation}: {file} holds no numeric {words.kind}")
    reason = "" if data else f" (no {words.kind} of two or more dims stands out as data)"
    raise OpenError(f"{words.operation}: choose {words.option}= among {_names(listed)} of {file}{reason}")


def _names(names: Sequence[str], limit: int = 40) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _unknown(name: str, catalogue: Catalogue, file: str, words: Words) -> Variable:
    wanted, known = name.strip("/"), list(catalogue)
    leaf = posixpath.basename(wanted)
    near = [path for path in known if posixpath.basename(path) == leaf]
    near += get_close_matches(wanted, known, n=_LISTED, cutoff=0.5)
    near += [
        p for p in known if posixpath.basename(p) in get_close_matches(leaf, map(posixpath.basename, known))
    ]
    listed = list(dict.fromkeys(near if len(known) > _LISTED and near else [*near, *known]))
    raise OpenError(
        f"{words.operation}: no {words.kind} {name!r} in {file}; it has {_names(listed, _LISTED)}"
    )


def _same(targets: Sequence[Variable], file: str, words: Words) -> None:
    paths = [v.path for v in targets]
    if len(set(paths)) < len(paths):
        raise OpenError(f"{words.operation}: {words.option}={paths} names one {words.kind} of {file} twice")
    first = targets[0]
    for v in targets[1:]:
        unnamed = any("#" in i for i in (*v.ids, *first.ids))  # HDF5 without scales: only the shape can tell
        if v.dims != first.dims or v.shape != first.shape or not (unnamed or v.ids == first.ids):
            one, two = (f"{t.path} has {dict(zip(t.ids, t.shape))}" for t in (first, v))
            raise OpenError(
                f"{words.operation}: {words.kind}s of one stack must share dims and shape, but in {file} "
                f"{one} and {two}; open them apart"
            )


def same_dtype(targets: Sequence[Variable], file: str, words: Words) -> None:
    """Refuse to stack stored numbers of several dtypes.

    Raises:
        OpenError: when they differ.
    """
    kinds = {v.path: str(v.dtype.newbyteorder("=")) for v in targets if v.dtype is not None}
    if len(set(kinds.values())) > 1:
        raise OpenError(
            f"{words.operation}: with raw=True the {words.kind}s of one stack must share their dtype, but in "
            f"{file} they have {kinds}; open them apart, or with raw=False"
        )
