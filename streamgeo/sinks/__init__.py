"""Sinks: one file a format, each with ``write(path, values, grid, template)``."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from streamgeo.errors import WriteError
from streamgeo.grid import Grid
from streamgeo.sinks.beside import beside
from streamgeo.template import Template

SUFFIXES = {
    ".fits": "fits", ".fit": "fits", ".fts": "fits",
    ".tif": "geotiff", ".tiff": "geotiff",
    ".nc": "netcdf", ".nc4": "netcdf", ".cdf": "netcdf",
    ".h5": "hdf5", ".hdf5": "hdf5", ".hdf": "hdf5", ".he5": "hdf5",
    ".npy": "numpy", ".npz": "numpy",
}  # fmt: skip
EXTENSION = {"fits": ".fits", "geotiff": ".tif", "netcdf": ".nc", "hdf5": ".h5", "numpy": ".npy"}


def save(
    values: NDArray[Any],
    grid: Grid,
    template: Template,
    where: str | Path,
    *,
    name: str,
    inputs: Sequence[str] = (),
    format: str | None = None,
) -> Path:
    """Write values with their grid; see :meth:`streamgeo.scene.Scene.save`."""
    path = _target(Path(where), str(where), name, template, format)
    kind = format or SUFFIXES.get(path.suffix.lower())
    if kind not in EXTENSION:
        known = ", ".join(sorted(EXTENSION))
        raise WriteError(f"save: no format is known for {path.name}; give format= one of {known}")
    if any(Path(used).resolve() == path.resolve() for used in inputs):
        raise WriteError(f"save: {path} is a file that this scene is read from; give another name or folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as partial:
        import_module(f"streamgeo.sinks.{kind}").write(partial, values, grid, template)
    return path


def _target(path: Path, given: str, name: str, template: Template, format: str | None) -> Path:
    """The file to write: ``where`` itself, or a file named after the scene in the folder ``where``."""
    if not (path.is_dir() or given.endswith("/") or not path.suffix):
        return path
    kind = format or template.format
    source = Path(name)
    keep = SUFFIXES.get(source.suffix.lower()) == kind
    return path / (source.name if keep else source.stem + EXTENSION.get(kind, ""))
