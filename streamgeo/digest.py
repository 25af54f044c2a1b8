"""A digest of what a function or a parameter is, the same in every process, and another one when it changes."""

from __future__ import annotations

import dis
import hashlib
import pickle
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from streamgeo.errors import ChainError

_CONSTANTS = (bool, int, float, complex, str, bytes, tuple, list, dict, set, np.ndarray, np.generic)


def digest(*values: Any) -> str:
    """Sixteen hexadecimal digits that tell the values.

    A function of the user is told by its code, its defaults, what it closes over and the globals that it names,
    so an edited function is another one. A function of an installed package, and one of streamgeo, is told by
    its name and the package's version.

    Raises:
        ChainError: for an object that cannot be told from another one of its type.
    """
    state = hashlib.sha256()
    walk = _Walk(state.update)
    for value in values:
        walk.add(value)
    return state.hexdigest()[:16]


class _Walk:
    """Feeds values to a hash, each with its type and its length, so that no two feed the same bytes."""

    def __init__(self, update: Any) -> None:
        self._update = update
        self._inside: list[Any] = []  # what is being fed now, from the outermost on
        self._fed: set[int] = set()  # functions and classes, which live as long as the walk

    def add(self, value: Any) -> None:
        """Feed one value."""
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes, Path, slice, range)):
            self._put(type(value).__name__, repr(value).encode())
            return
        if (type(value) is np.ndarray or isinstance(value, np.generic)) and value.dtype.kind not in "OV":
            self._put(f"{value.dtype.str}{value.shape}", np.ascontiguousarray(value).tobytes())
            return
        if isinstance(value, (FunctionType, type)):
            if id(value) in self._fed:
                self._put("again", f"{value.__module__}.{value.__qualname__}".encode())
                return
            self._fed.add(id(value))
        if any(value is outer for outer in self._inside):  # it holds itself
            self._put("inside", b"")
            return
        self._inside.append(value)
        self._compound(value)
        self._inside.pop()

    def _put(self, kind: str, content: bytes) -> None:
        self._update(f"{kind} {len(content)} ".encode())
        self._update(content)

    def _all(self, kind: str, values: Iterable[Any]) -> None:
        parts = list(values)
        self._put(kind, str(len(parts)).encode())
        for part in parts:
            self.add(part)

    def _compound(self, value: Any) -> None:
        if isinstance(value, (list, tuple)):
            self._all(type(value).__name__, value)
        elif isinstance(value, (set, frozenset)):
            self._all("set", sorted(value, key=repr))
        elif isinstance(value, Mapping):
            self._all("map", (part for pair in value.items() for part in pair))
        elif isinstance(value, partial):
            self._all("partial", (value.func, value.args, dict(sorted(value.keywords.items()))))
        elif isinstance(value, MethodType):
            self._all("method", (value.__func__, value.__self__))
        elif isinstance(value, FunctionType):
            self._function(value)
        elif isinstance(value, CodeType):
            self._all(
                "code", (value.co_code, value.co_names, value.co_varnames, value.co_freevars, value.co_consts)
            )
        else:
            self._named(value)

    def _named(self, value: Any) -> None:
        if isinstance(value, ModuleType):
            self._all("module", (value.__name__, version(value.__name__)))
        elif isinstance(value, np.dtype):
            self._put("dtype", repr(value).encode())
        elif isinstance(value, type) and not _installed(value.__module__):
            self._all("class", (value.__module__, value.__qualname__, value.__bases__, _methods(value)))
        elif isinstance(value, (type, BuiltinFunctionType, np.ufunc)):
            module = getattr(value, "__module__", None) or "builtins"
            self._all("name", (module, getattr(value, "__qualname__", value.__name__), version(module)))
        elif is_dataclass(value) and not isinstance(value, type):
            inner = {f.name: getattr(value, f.name, None) for f in fields(value)}
            self._all("fields", (type(value).__qualname__, inner))
        else:
            self._object(value)

    def _function(self, f: FunctionType) -> None:
        if _installed(f.__module__):
            self._all("name", (f.__module__, f.__qualname__, version(f.__module__), f.__defaults__))
            return
        closed = [_content(cell) for cell in f.__closure__ or ()]
        used = {name: f.__globals__[name] for name in sorted(_globals(f.__code__)) if name in f.__globals__}
        self._all("function", (f.__code__, f.__defaults__, f.__kwdefaults__, closed, used))

    def _object(self, value: Any) -> None:
        """An object by its class and what it holds; where that does not show, it cannot be told."""
        kind = type(value)
        held = getattr(value, "__dict__", None)
        if held is not None and not _installed(kind.__module__):
            self._all("object", (kind, held))
            return
        try:
            content = pickle.dumps(value)
        except Exception as error:
            raise ChainError(
                f"cache: a {kind.__module__}.{kind.__qualname__} in the chain cannot be told from another one "
                f"({error}), so a folder could give stale samples; use .cache() without a folder"
            ) from None
        functions = [
            part for part in (held or {}).values() if callable(part)
        ]  # pickle tells them by name only
        self._all("pickled", (kind, content, functions))


def _methods(kind: type) -> dict[str, Any]:
    """The functions of a class, in whatever they are wrapped, and its constants."""
    found: dict[str, Any] = {}
    for name, part in vars(kind).items():
        if isinstance(part, property):
            found[name] = part.fget
        elif isinstance(inner := getattr(part, "__func__", part), (FunctionType, *_CONSTANTS)):
            found[name] = inner
    return {name: part for name, part in found.items() if name not in ("__module__", "__doc__")}


def _globals(code: CodeType) -> set[str]:
    """The globals that a function looks up, in its inner functions too."""
    inner = (_globals(const) for const in code.co_consts if isinstance(const, CodeType))
    own = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return own.union(*inner)


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


_PATHS = ("stdlib", "platstdlib", "purelib", "platlib")
_PLACES = tuple(str(Path(sysconfig.get_path(name)).resolve()) for name in _PATHS)


def _installed(module: str | None) -> bool:
    """Whether a module is told by its version: the standard library, an installed package, or streamgeo."""
    if module is None:
        return False
    top = module.split(".")[0]
    if top == "streamgeo" or top in sys.builtin_module_names or top in sys.stdlib_module_names:
        return True
    found = sys.modules.get(top)
    file = getattr(found, "__file__", None)
    return file is not None and str(Path(file).resolve()).startswith(_PLACES)


def version(module: str) -> str:
    """The version of the package that a module belongs to; where it states none, size and time of its file."""
    top = sys.modules.get(module.split(".")[0])
    file = getattr(top, "__file__", None)
    stated = getattr(top, "__version__", None)
    if stated is not None or file is None:
        return str(stated or sys.version_info[:2])
    stat = Path(file).stat()
    return f"{stat.st_size} {stat.st_mtime_ns}"
