"""What the operations of a chain stand on, and the checks of their arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import update_wrapper
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import numpy as np

from streamgeo import links
from streamgeo.errors import ChainError

S = TypeVar("S")
P = ParamSpec("P")
Key = str | Sequence[str]


@dataclass(frozen=True, eq=False, repr=False)
class Described:
    """A chain as its last link; each operation gives a new chain with one link more."""

    node: links.Node

    def _with(self, node: links.Node) -> Self:
        return type(self)(node)

    def __repr__(self) -> str:
        first, *rest = (link.text() for link in links.called(self.node))
        return "\n".join([first, *(f"    {text}" for text in rest)])

    def _buffer(self, node: links.Node) -> Any:
        raise NotImplementedError

    def _share(self, num_shards: int, index: int) -> Self:
        raise NotImplementedError

    def _apply(
        self, name: str, key: str, output_key: str, f: Callable[..., Any], *shown: Any, draws: bool = False
    ) -> Self:
        """A link that puts ``f(array)`` under ``output_key``, or under ``key`` where that is empty."""
        (key,) = names(name, "key", (key,))
        told = [
            *(repr(value) for value in (key, *shown)),
            *([f"output_key={output_key!r}"] if output_key else []),
        ]
        text = f".{name}({', '.join(told)})"
        return self._with(links.applied(self.node, f, key, output_key, name, text, draws))


def conditional(operation: Callable[Concatenate[S, P], S]) -> Callable[Concatenate[S, bool, P], S]:
    """The ``*_if`` form of an operation: it comes with ``cond`` as first argument, and is left out when false."""

    def applied(self: S, /, cond: bool, *args: P.args, **kwargs: P.kwargs) -> S:
        return operation(self, *args, **kwargs) if cond else self

    own, *rest = inspect.signature(operation).parameters.values()
    given = inspect.Parameter("cond", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation="bool")
    update_wrapper(applied, operation, ("__module__",), ())
    applied.__name__ = f"{operation.__name__}_if"
    applied.__qualname__ = f"{operation.__qualname__}_if"
    applied.__doc__ = f"The same as :meth:`{operation.__name__}` when ``cond`` is true, else nothing."
    applied.__signature__ = inspect.Signature([own, given, *rest])  # type: ignore[attr-defined]
    return applied  # type: ignore[return-value]  # cond may be given by name, which Callable cannot say


def whole(operation: str, what: str, value: Any, least: int | None = None, most: int | None = None) -> int:
    """An argument that must be a whole number, from ``least`` to ``most``."""
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, np.integer))
        or (least is not None and value < least)
        or (most is not None and value > most)
    ):
        limits = "" if least is None else f", {least} or more" if most is None else f" from {least} to {most}"
        raise ChainError(f"{operation}: {what}={value!r} must be a whole number{limits}")
    return int(value)


def by_key(
    operation: str, what: str, value: Mapping[str, Any] | None, kind: type, named: str
) -> dict[str, Any]:
    """An argument that gives a number for some keys."""
    if not isinstance(value, Mapping | None):
        raise ChainError(f"{operation}: {what}={value!r} must be a dict, with {named} for each key")
    for key, number in (value or {}).items():
        if isinstance(number, bool | str) or not isinstance(number, kind):
            raise ChainError(f"{operation}: {what}[{key!r}]={number!r} must be {named}")
    return dict(value or {})


def names(operation: str, what: str, value: Key) -> tuple[str, ...]:
    """One key or several, as a tuple."""
    found = (value,) if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)
    if not found or not all(isinstance(name, str) and name for name in found):
        raise ChainError(f"{operation}: {what}={value!r} must be a name, or a sequence of names")
    return found


def part_of(operation: str, parts: int, part: int) -> tuple[int, int]:
    """A part by its number."""
    if isinstance(parts, bool) or not isinstance(parts, (int, np.integer)) or parts < 1:
        raise ChainError(f"{operation}: {parts!r} parts; give a whole number, 1 or more")
    if isinstance(part, bool) or not isinstance(part, (int, np.integer)) or not 0 <= part < parts:
        raise ChainError(f"{operation}: part {part} of {parts} must be from 0 to {parts - 1}")
    return int(parts), int(part)


def times_of(times: int) -> int:
    """How often something is repeated."""
    if isinstance(times, bool) or not isinstance(times, (int, np.integer)) or times < 1:
        raise ChainError(f"repeat: {times!r} times; give a whole number, 1 or more")
    return int(times)


def count_of(operation: str, count: int) -> int:
    """A number of samples."""
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 0:
        raise ChainError(f"{operation}: {count!r} samples; give a whole number, 0 or more")
    return int(count)


def one_char(operation: str, what: str, value: str) -> str:
    """An argument that must be one character of one byte."""
    if not isinstance(value, str) or len(value.encode()) != 1:
        raise ChainError(f"{operation}: {what}={value!r} must be one character (of ASCII)")
    return value
