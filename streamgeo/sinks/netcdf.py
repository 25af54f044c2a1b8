"""NetCDF-4 files from scenes."""

from __future__ import annotations

import posixpath
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.cf_packing import DEFAULT_FILLS, own_fill
from streamgeo.errors import StreamGeoError, WriteError
from streamgeo.grid import Grid
from streamgeo.netcdf_lock import lock
from streamgeo.sinks.grouped import Dim, Layout, arrange, declare_fills, level_of
from streamgeo.sinks.located import Out
from streamgeo.sinks.numbers import Unused
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
    """Write values as a NetCDF-4 file that netCDF4-python and xarray open as they open the input.

    Variables keep their names and groups; coordinates, bounds, scalar coordinates and the grid mapping are
    written as the grid has them, with dtype, packing and attributes as stored. Dims that can grow still do.
    Data is compressed (shuffle, zlib). Classic inputs are written as NetCDF-4 too. Other variables of the
    input are not copied.

    Physical values get their own dtype; NaN becomes the fill value of a file of floats, else stays NaN,
    declared as ``_FillValue``. Attributes that describe packed numbers are dropped. With ``template.raw``
    everything is as stored. Bools become bytes with the attribute ``dtype = "bool"``, as xarray writes them.
    Attributes that repeat the transform (``GeoTransform``, ``transform``, ``res``) follow the grid.

    A template of another format gives units and simple attributes; CRS + affine become coordinate vectors of
    the pixel centres and a grid mapping ``spatial_ref``, a WCS attributes with its cards.

    Args:
        path: the file.
        values: numbers of the shape of ``grid``.
        grid: where they lie.
        template: what to take over.
        compress: level of zlib, 0 (none) to 9; by default that of the input, else 4.
        chunks: size of the chunks in each dim of the grid; by default those of the input, else about 256 rows of
            1024 pixels.

    Raises:
        WriteError: for an option that does not fit, when NetCDF cannot hold the values, or with ``raw=True`` their
            dtype in the file cannot.
    """
    import netCDF4

    layout = arrange(values, grid, template, path.name, compress=compress, chunks=chunks)
    try:
        with lock():
            dataset = netCDF4.Dataset(path, "w", format="NETCDF4")
        try:
            with lock():
                variables = _define(dataset, layout, path.name)
            in_turn(_put(variable, out) for out, variable, _ in variables)
        finally:
            with lock():
                dataset.close()
    except (StreamGeoError, MemoryError, Unread):
        raise
    except Exception as error:
        raise WriteError(f"save: {path.name} cannot be written as NetCDF ({error})") from error
    declare_fills(path, {out.path: unused.found() for out, _, unused in variables if unused is not None})


def _define(dataset: Any, layout: Layout, file: str) -> list[tuple[Out, Any, Unused | None]]:
    for group, attrs in layout.groups.items():
        _attributes(_group(dataset, group), attrs)
    for dim in {(d.group, d.name): d for d in layout.dims.values()}.values():
        _group(dataset, dim.group).createDimension(dim.name, None if dim.unlimited else dim.size)
    return [_variable(dataset, out, layout.dims, file) for out in layout.variables]


def _put(variable: Any, out: Out) -> Iterator[None]:
    """Write a variable, a block for each step; the lock is free while the next block is read."""
    contiguous = variable.chunking() in (None, "contiguous")
    for box, block in blocks(out.values, None if contiguous else variable.chunking()):
        with lock():
            variable[box] = block.item() if block.dtype.kind in "OU" and not block.ndim else block
        yield


def _group(dataset: Any, path: str) -> Any:
    return dataset.createGroup("/" + path) if path else dataset


def _variable(dataset: Any, out: Out, dims: Mapping[str, Dim], file: str) -> tuple[Out, Any, Unused | None]:
    """The variable without its numbers, what to write to it, and what looks for a fill value meanwhile."""
    values, attrs = _numbers(out, file)
    text = values.dtype.kind in "OU"
    fill = out.fill if out.fill is not None else attrs.pop("_FillValue", None)
    unused = _unused(out, values) if fill is None else None
    variable = _group(dataset, posixpath.dirname(out.path)).createVariable(
        posixpath.basename(out.path),
        str if text else values.dtype.newbyteorder(">") if _big(out, values) else values.dtype,
        tuple(dims[name].name for name in out.dims),
        fill_value=_fill(out, values, fill),
        **_storage(out, values),
    )
    variable.set_auto_maskandscale(False)
    variable.set_auto_chartostring(False)
    _attributes(variable, attrs)
    if unused is not None:
        values = unused(values) if isinstance(values, np.ndarray) else values.map(unused)
    return replace(out, values=values), variable, unused


def _numbers(out: Out, file: str) -> tuple[Array | Pixels, dict[str, Any]]:
    """Values of a type that NetCDF has.

    Raises:
        WriteError: for complex numbers, long doubles and the like.
    """
    values, attrs = out.values, dict(out.attrs)
    kind, size = values.dtype.kind, values.dtype.itemsize
    if isinstance(values, np.ndarray) and kind == "S" and size > 1:
        return np.array([v.decode("utf-8", "replace") for v in values.flat], object).reshape(
            values.shape
        ), attrs
    if kind == "b":
        return values.astype(np.int8), {**attrs, "dtype": "bool"}
    if kind not in "iufOUS" or (kind in "iuf" and size not in (1, 2, 4, 8)) or values.dtype == np.float16:
        raise WriteError(
            f"save: NetCDF has no type for {values.dtype} in {file}; cast to float32 or an integer"
        )
    return values, attrs


def _fill(out: Out, values: Array | Pixels, fill: Any) -> Any:
    """The ``_FillValue`` to declare; None for the default one, False to write without.

    netCDF4-python masks pixels that equal the default fill value, in bytes only where the variable is
    pre-filled.
    """
    kind, own = values.dtype.kind, _as_stored(out, values) and out.storage.get("default_fill", True)
    if fill is not None:
        return _fitting(fill, values, out.path)
    if kind in "iu" and values.dtype.itemsize == 1:
        return False if not own or out.storage.get("no_fill") else None
    return None


def _unused(out: Out, values: Array | Pixels) -> Unused | None:
    """Integers that came from elsewhere get a fill value that no pixel has, for readers mask the default one."""
    if values.dtype.kind not in "iu" or values.dtype.itemsize == 1:
        return None
    if _as_stored(out, values) and out.storage.get("default_fill", True):
        return None
    return Unused(values.dtype, DEFAULT_FILLS[values.dtype.str[1:]])


def _fitting(fill: Any, values: Array | Pixels, path: str) -> Any:
    """The fill value in the dtype of the variable, as NetCDF-4 demands; None with a warning if none."""
    if values.dtype.kind in "OUS":
        return fill
    cast = own_fill({"_FillValue": fill}, values.dtype)
    if cast is None:
        warnings.warn(
            f"save: _FillValue={fill!r} of {path} does not fit {values.dtype}, as NetCDF-4 demands; left out",
            stacklevel=2,
        )
    return cast


def _as_stored(out: Out, values: Array | Pixels) -> bool:
    return "dtype" in out.storage and np.dtype(out.storage["dtype"]).newbyteorder("=") == values.dtype


def _big(out: Out, values: Array | Pixels) -> bool:
    return out.storage.get("endian") == "big" and _as_stored(out, values)


def _storage(out: Out, values: Array | Pixels) -> dict[str, Any]:
    """Options of createVariable: compression, chunks and byte order."""
    kept = out.storage
    options: dict[str, Any] = {"endian": "big"} if _big(out, values) else {}
    if (level := level_of(out)) and values.dtype.kind in "iuf":
        options |= {"compression": "zlib", "complevel": level, "shuffle": True}
    if values.ndim and (isinstance(values, Pixels) or kept.get("chunks")):
        options["chunksizes"] = chunks_for(values, kept.get("chunks"))
    return options


def _attributes(owner: Any, attrs: Mapping[str, Any]) -> None:
    for name, value in attrs.items():
        plain = _attribute(value)
        try:
            owner.setncattr(name, plain)
        except Exception as error:
            raise WriteError(
                f"save: attribute {name}={value!r} cannot be written as NetCDF ({error})"
            ) from error


def _attribute(value: Any) -> Any:
    """A value that NetCDF can hold as an attribute."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (bool, np.bool_)):
        return np.int8(value)
    if isinstance(value, (list, tuple)) and not all(isinstance(v, str) for v in value):
        value = np.asarray(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "OUS":
        return [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in value.ravel()]
    if isinstance(value, np.ndarray) and value.dtype.kind == "b":
        return value.astype(np.int8)
    return value
