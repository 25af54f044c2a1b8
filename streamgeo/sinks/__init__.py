"""Sinks: one file a format, each with ``write(path, values, grid, template, **options)``.

``values`` is an array or whatever gives its pixels by window (:class:`streamgeo.sinks.pixels.Readable`): a sink reads
each pixel once, from the first row to the last, in blocks of a few tens of MB that end where chunks of the file end.
What it can be asked for are the keyword-only parameters of its ``write``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from streamgeo.errors import WriteError
from streamgeo.grid import Grid
from streamgeo.sinks.beside import beside
from streamgeo.sinks.pixels import Readable, Unread
from streamgeo.template import Template

SUFFIXES = {
    ".fits": "fits", ".fit": "fits", ".fts": "fits",
    ".tif": "geotiff", ".tiff": "geotiff",
    ".nc": "netcdf", ".nc4": "netcdf", ".cdf": "netcdf",
    ".h5": "hdf5", ".hdf5": "hdf5", ".hdf": "hdf5", ".he5": "hdf5",
    ".npy": "numpy", ".npz": "numpy",
    ".zarr": "zarr",
}  # fmt: skip
EXTENSION = {
    "fits": ".fits", "geotiff": ".tif", "netcdf": ".nc", "hdf5": ".h5", "numpy": ".npy", "zarr": ".zarr"
}  # fmt: skip
_STORE = ("zarr.json", ".zgroup", ".zarray")  # files of which a Zarr store has at least one


class Saveable(Readable, Protocol):
    """A scene, as far as it is written."""

    name: str

    @property
    def grid(self) -> Grid:
        """Where it lies."""

    @property
    def template(self) -> Template:
        """What the file takes over."""

    @property
    def files(self) -> tuple[str, ...]:
        """The files that it is read from."""

    @property
    def by_window(self) -> bool:
        """Whether a window costs no more than its share of the whole."""


def save(scene: Saveable, where: str | Path, *, format: str | None = None, **options: Any) -> Path:
    """Write a scene; see :meth:`streamgeo.scene.Scene.save`."""
    path = _target(Path(where), str(where), scene.name, scene.template, format)
    kind = format or SUFFIXES.get(path.suffix.lower())
    if kind not in EXTENSION:
        known = ", ".join(sorted(EXTENSION))
        raise WriteError(f"save: no format is known for {path.name}; give format= one of {known}")
    write = import_module(f"streamgeo.sinks.{kind}").write
    _check(options, write, kind)
    if any(Path(used).resolve() == path.resolve() for used in scene.files):
        raise WriteError(f"save: {path} is a file that this scene is read from; give another name or folder")
    if path.is_dir() and any(path.iterdir()) and not any((path / name).exists() for name in _STORE):
        raise WriteError(
            f"save: {path} is a folder that holds something else than a Zarr store; give another name"
        )
    values = scene if scene.by_window else scene.read()
    failed: BaseException | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside(path) as partial:
            write(partial, values, scene.grid, scene.template, **options)
    except Unread as error:
        failed = error.__cause__
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(
            f"save: {path} cannot be written: {error.strerror or error}; give a folder that you may write to and that "
            "has room for it"
        ) from error
    if failed is not None:  # raised here, it keeps its own cause
        raise failed
    return path


def _check(options: dict[str, Any], write: Callable[..., None], kind: str) -> None:
    known = [p.name for p in inspect.signature(write).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for name in options:
        if name not in known:
            raise WriteError(
                f"save: {kind} has no option {name!r}; it has {', '.join(known) if known else 'none'}"
            )


def _target(path: Path, given: str, name: str, template: Template, format: str | None) -> Path:
    """The file to write: ``where`` itself, or a file named after the scene in the folder ``where``.

    A folder whose name ends in ``.zarr`` is a store, which is written anew.
    """
    store = path.suffix.lower() == ".zarr" and format in (None, "zarr") and not given.endswith("/")
    if store or not (path.is_dir() or given.endswith("/") or not path.suffix):
        return path
    kind = format or template.format
    source = Path(name)
    keep = SUFFIXES.get(source.suffix.lower()) == kind
    return path / (source.name if keep else source.stem + EXTENSION.get(kind, ""))
