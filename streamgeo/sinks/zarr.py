"""Zarr stores from scenes: version 3, in a folder, as xarray reads them."""

from __future__ import annotations

import base64
import posixpath
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import StreamGeoError, WriteError
from streamgeo.grid import Grid
from streamgeo.optional import optional
from streamgeo.sinks.grouped import Dim, arrange, level_of
from streamgeo.sinks.located import Out
from streamgeo.sinks.pixels import Pixels, Readable, Unread, blocks, chunks_for, in_turn
from streamgeo.template import Template

Array = NDArray[Any]


def write(
    path: Path,
    values: Array | Readable,
    grid: Grid,
    template: Template,
    *,
    compress: int | None = None,
    chunks: Sequence[int] | None = None,
) -> None:
    """Write values as a Zarr store (version 3) that ``xarray.open_zarr`` and :func:`streamgeo.open_zarr` open.

    Variables, coordinates, grid mapping and attributes are those of the NetCDF sink; dims are the
    ``dimension_names`` of the arrays. Values are physical in their own dtype, or with ``template.raw`` as stored.
    Chunks are compressed with Zstandard. Complex numbers and text coordinates are written as Zarr has them.

    Args:
        path: the folder of the store.
        values: numbers of the shape of ``grid``.
        grid: where they lie.
        template: what to take over.
        compress: level of Zstandard, 0 (not compressed) to 9; by default 4.
        chunks: size of the chunks in each dim of the grid; by default those of the input, else about 256 rows of
            1024 pixels.

    Raises:
        WriteError: for an option that does not fit, when zarr is not installed or cannot hold the values, or with
            ``raw=True`` their dtype in the file cannot.
    """
    zarr = optional("zarr", "zarr", "save", least=3, error=WriteError)
    layout = arrange(values, grid, template, path.name, compress=compress, chunks=chunks)
    try:
        with warnings.catch_warnings():
            # Of text, and of metadata in one place, which xarray asks for: Zarr 3 has both, its specification not yet.
            warnings.simplefilter("ignore", UserWarning)
            root = zarr.create_group(store=path, zarr_format=3)
            for group, attrs in layout.groups.items():
                (root.require_group(group) if group else root).attrs.update(_attributes(attrs))
            arrays = [_array(root, out, layout.dims) for out in layout.variables]
            zarr.consolidate_metadata(root.store)
        in_turn(_put(array, out.values) for array, out in zip(arrays, layout.variables))
    except (StreamGeoError, MemoryError, Unread):
        raise
    except Exception as error:
        raise WriteError(f"save: {path.name} cannot be written as Zarr ({error})") from error


def _array(root: Any, out: Out, dims: Mapping[str, Dim]) -> Any:
    from zarr.codecs import ZstdCodec

    text = out.values.dtype.kind in "OU"
    attrs = dict(out.attrs)
    if out.fill is not None:
        attrs["_FillValue"] = out.fill
    level = level_of(out) if isinstance(out.values, Pixels) else _COORDINATE
    return root.create_array(
        out.path,
        shape=out.values.shape,
        dtype=str if text else out.values.dtype.newbyteorder("="),
        chunks=chunks_for(out.values, out.storage.get("chunks")) if out.values.ndim else "auto",
        compressors=ZstdCodec(level=level) if level and out.values.ndim else None,
        dimension_names=[posixpath.basename(dims[name].name) for name in out.dims],
        attributes=_attributes(attrs),
    )


_COORDINATE = 4


def _put(array: Any, values: Array | Pixels) -> Iterator[None]:
    for box, block in blocks(values, array.chunks):
        array[box] = block.astype(str) if block.dtype.kind in "OU" else block
        yield


def _attributes(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as JSON has them; the fill value of floats as xarray writes it, in base64."""
    out = {name: _plain(value) for name, value in attrs.items()}
    fill = out.get("_FillValue")
    if isinstance(fill, float):
        out["_FillValue"] = base64.standard_b64encode(struct.pack("<d", fill)).decode()
    return out


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.item() if value.size == 1 else value.tolist()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, complex):
        return [value.real, value.imag]
    return value if value is None or isinstance(value, (str, bool, int, float)) else str(value)
