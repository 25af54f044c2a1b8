"""NumPy files from scenes."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import WriteError
from streamgeo.grid import Grid
from streamgeo.sinks.numbers import exactly
from streamgeo.template import Template

Array = NDArray[Any]


def write(path: Path, values: Array, grid: Grid, template: Template) -> None:
    """Write values as ``.npy``, or as ``.npz`` (compressed, under the key of the input) when the path says so.

    Values keep their dtype; with ``template.raw`` from a NumPy file they get the dtype of that file, byte order
    included, unless a model gave them new dims. Dims come in the order of the input, new ones first. The format
    holds nothing but the array: a georeference is left behind, with a warning.

    Args:
        path: the file.
        values: numbers of the shape of ``grid``.
        grid: where they lie.
        template: gives the order of the dims and the key.

    Raises:
        WriteError: when the shape does not fit, the values are objects, or the dtype of a file opened with
            ``raw=True`` does not hold them.
    """
    if tuple(values.shape) != grid.shape:
        raise WriteError(f"save: the array for {path.name} has shape {values.shape}, its grid {grid.shape}")
    if values.dtype.hasobject:
        raise WriteError(f"save: the array for {path.name} holds Python objects; cast it to numbers first")
    order = [d for d in grid.dims if d not in template.dims] + [d for d in template.dims if d in grid.dims]
    values = np.ascontiguousarray(values.transpose([grid.dims.index(dim) for dim in order]))
    own = template.format == "numpy"
    if own and template.raw and all(axis.located for axis in grid.axes):
        values = exactly(values, np.dtype(template.carry["dtype"]), path.name)
    if grid.locator is not None:
        warnings.warn(
            f"save: a NumPy file holds no georeference; {path.name} is written without", stacklevel=2
        )
    if path.suffix.lower() == ".npz":
        key = template.carry.get("key") if own else None
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open(f"{key or 'array'}.npy", "w", force_zip64=True) as stream,
        ):
            np.lib.format.write_array(stream, values, allow_pickle=False)
    else:
        np.save(path, values, allow_pickle=False)
