"""NumPy files: an ``.npy`` array, memory-mapped, or one array of an ``.npz`` archive."""

from __future__ import annotations

import math
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import OpenError, StreamGeoError
from streamgeo.grid import Grid, plain_grid
from streamgeo.kernels import PLAIN
from streamgeo.scene import Scene
from streamgeo.sources.handles import identity
from streamgeo.sources.layouts import Identity, Mapped
from streamgeo.template import Template
from streamgeo.window import Window

Array = NDArray[Any]


def open_scene(path: str, *, key: str | None = None, raw: bool = False) -> Scene:
    """Open an ``.npy`` file, or an array of an ``.npz`` file, as a scene with dims ``dim_0``, ``dim_1``, ...

    An ``.npy`` file is memory-mapped, so that a window reads what it needs. An array of an ``.npz`` file is
    read whole on first use and kept. Nothing is known of where the pixels lie.

    Args:
        path: the file.
        key: name of the array in an ``.npz`` file; None takes the only one.
        raw: values in the dtype of the file, complex numbers included. By default float32.

    Raises:
        OpenError: when the file is missing, damaged or of another kind, the key is missing or unknown, or the
            array is a scalar or holds no numbers.
    """
    path, file = str(path), Path(path).name
    mark = identity(path)
    stored = _npy(path, mark, file)
    if stored is None:
        chosen, shape, dtype = _member(path, key, file)
        _check(shape, dtype, raw, f"array {chosen!r} of {file}")
        return NpzScene(path, shape, dtype, raw, chosen)
    if key is not None and Path(path).suffix.lower() != ".npz":
        raise OpenError(f"open_numpy: {file} is no .npz file, so it has no key {key!r}; leave key= out")
    _check(stored.shape, stored.dtype, raw, file)
    return NpyScene(stored, raw)


class _NumpyScene(Scene):
    """An array without a georeference."""

    def __init__(
        self, path: str, shape: tuple[int, ...], dtype: np.dtype[Any], raw: bool, key: str | None = None
    ) -> None:
        self._path, self._raw, self._key, self._stored_dtype = path, raw, key, dtype
        self.name = Path(path).name
        self.shape = tuple(shape)
        self.dims = plain_grid(shape).dims
        self.dtype = dtype.newbyteorder("=") if raw else np.dtype(np.float32)

    @property
    def grid(self) -> Grid:
        """Dims and sizes; no georeference."""
        return plain_grid(self.shape)

    @cached_property
    def template(self) -> Template:
        """What a file of the same kind takes over: the key, and the dtype of stored values."""
        carry = {"key": self._key, "dtype": self._stored_dtype.str}
        return Template("numpy", self.dims, raw=self._raw, name=self._key or "", carry=carry)

    @property
    def files(self) -> tuple[str, ...]:
        """The file that it comes from."""
        return (self._path,)


class NpyScene(_NumpyScene):
    """An ``.npy`` file."""

    def __init__(self, stored: Mapped, raw: bool) -> None:
        super().__init__(stored.path, stored.shape, stored.dtype, raw)
        self._stored = stored

    @property
    def reader(self) -> str:
        """How its pixels are read."""
        return "memory-mapped"

    def _read(self, window: Window) -> Array:
        out = np.empty(window.shape, self.dtype)
        self._read_into(window, out)
        return out

    def _read_into(self, window: Window, out: Array) -> None:
        if out.size:
            self._stored.read(window.slices(self.dims), out, PLAIN)


class NpzScene(_NumpyScene):
    """An array of an ``.npz`` file, read whole on first use."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._lock = threading.Lock()
        self._whole: Array | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_whole")}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock, self._whole = threading.Lock(), None

    @property
    def reader(self) -> str:
        """How its pixels are read."""
        return "numpy, whole and once, because it is packed in an archive"

    def _read(self, window: Window) -> Array:
        out = np.empty(window.shape, self.dtype)
        self._read_into(window, out)
        return out

    def _read_into(self, window: Window, out: Array) -> None:
        with self._lock:
            if self._whole is None:
                self._whole = self._load()
        out[...] = self._whole[window.slices(self.dims)]

    def _load(self) -> Array:
        with _readable(self._path), np.load(self._path, allow_pickle=False) as archive:
            return np.asarray(archive[str(self._key)], self.dtype, order="C")


# -- files ----------------------------------------------------------------------------------------------


@contextmanager
def _readable(path: str) -> Iterator[None]:
    try:
        yield
    except (StreamGeoError, MemoryError):
        raise
    except Exception as error:
        raise OpenError(
            f"open_numpy: {path} cannot be read ({error}); it is damaged, cut short, or no .npy or .npz of numbers"
        ) from error


def _npy(path: str, mark: Identity, file: str) -> Mapped | None:
    """The array of an ``.npy`` file, from its header alone; None for an archive."""
    with _readable(path), open(path, "rb") as stream:
        if not stream.peek(6).startswith(np.lib.format.MAGIC_PREFIX) and zipfile.is_zipfile(path):
            return None
        shape, fortran, dtype = _header(stream, file)
        offset, nbytes = stream.tell(), math.prod(shape) * dtype.itemsize
        if dtype.hasobject:
            raise ValueError("it holds Python objects")
        if offset + nbytes > mark[0]:
            raise ValueError(f"{nbytes} bytes from byte {offset} on are more than its {mark[0]} bytes")
    sizes = shape if fortran else shape[::-1]
    steps = tuple(dtype.itemsize * math.prod(sizes[:i]) for i in range(len(sizes)))
    return Mapped(path, mark, offset, shape, steps if fortran else steps[::-1], dtype)


def _header(stream: Any, what: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether the first dim varies fastest, and dtype."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version not in ((2, 0), (3, 0)):
        raise ValueError(f"{what} has version {version} of the format")
    return np.lib.format.read_array_header_2_0(
        stream
    )  # in version 3 the names of fields are UTF-8, nothing else


def _member(path: str, key: str | None, file: str) -> tuple[str, tuple[int, ...], np.dtype[Any]]:
    """Name, shape and dtype of an array of an archive, from its header alone."""
    with _readable(path), zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        listed = ", ".join(names) or "no arrays"
        if key is None and len(names) != 1:
            raise OpenError(f"open_numpy: choose key= among {listed} of {file}")
        chosen = names[0] if key is None else key
        if chosen not in names:
            raise OpenError(f"open_numpy: no key {chosen!r} in {file}; it has {listed}")
        with archive.open(f"{chosen}.npy") as stream:
            shape, _, dtype = _header(stream, f"array {chosen!r} of {file}")
    return chosen, tuple(shape), dtype


def _check(shape: tuple[int, ...], dtype: np.dtype[Any], raw: bool, what: str) -> None:
    if dtype.kind == "c" and not raw:
        raise OpenError(f"open_numpy: {what} holds complex numbers, which float32 cannot; open with raw=True")
    if dtype.kind not in "biufc":
        raise OpenError(f"open_numpy: {what} holds {dtype}, and only numbers can be opened")
    if not shape:
        raise OpenError(f"open_numpy: {what} is a scalar; a scene needs at least one dim")
