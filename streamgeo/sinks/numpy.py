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
from streamgeo.sinks.flat import write_blocks
from streamgeo.sinks.numbers import exactly
from streamgeo.sinks.pixels import Pixels, Readable
from streamgeo.template import Template

Array = NDArray[Any]


def write(path: Path, values: Array | Readable, grid: Grid, template: Template) -> None:
    """Write values as ``.npy``, or as ``.npz`` (compressed, under the key of the input) when the path says so.

    Values keep their dtype; with ``template.raw`` from a NumPy file they get the dtype of that file, byte order
    included, unless a model gave them new dims. Dims come in the order of the input, new ones first. The format
    holds nothing but the array: a georeference is left behind, with a warning. Values of a scene are read by
    blocks of rows; for ``.npz``, which can only grow, in the order of the file, so bands one after the other.

    Args:
        path: the file.
        values: numbers of the shape of ``grid``.
        grid: where they lie.
        template: gives the order of the dims and the key.

    Raises:
        WriteError: when the shape does not fit, the values are objects, or the dtype of a file opened with
            ``raw=True`` does not hold them.
    """
    pixels = Pixels.of(values, grid, path.name)
    if pixels.dtype.hasobject:
        raise WriteError(f"save: the array for {path.name} holds Python objects; cast it to numbers first")
    order = [d for d in grid.dims if d not in template.dims] + [d for d in template.dims if d in grid.dims]
    pixels = pixels.transpose(*order)
    own = template.format == "numpy"
    stored = template.carry.get("dtype") if own and template.raw else None  # None: it came from no file
    if stored is not None and all(axis.located for axis in grid.axes):
        pixels = exactly(pixels, np.dtype(stored), path.name)
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
            _header(stream, pixels)
            for block in pixels.in_order():
                stream.write(np.ascontiguousarray(block).data)
        return
    with path.open("wb") as file:
        _header(file, pixels)
        for _ in write_blocks(file, pixels, file.tell()):
            pass


def _header(stream: Any, pixels: Pixels) -> None:
    described = {
        "descr": np.lib.format.dtype_to_descr(pixels.dtype), "fortran_order": False, "shape": pixels.shape
    }  # fmt: skip
    np.lib.format.write_array_header_1_0(stream, described)
