"""HDF5 files from scenes."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import StreamGeoError, WriteError
from streamgeo.grid import Grid
from streamgeo.sinks.grouped import Dim, Layout, arrange, level_of
from streamgeo.sinks.located import Out
from streamgeo.sinks.pixels import Pixels, Readable, Unread, blocks, chunks_for, in_turn
from streamgeo.template import Template

Array = NDArray[Any]
_BARE_DIM = "This is a netCDF dimension but not a netCDF variable.%10d"


def write(
    path: Path,
    values: Array | Readable,
    grid: Grid,
    template: Template,
    *,
    compress: int | None = None,
    chunks: Sequence[int] | None = None,
) -> None:
    """Write values as an HDF5 file with the same paths, attributes and dimension scales as the input.

    Coordinates are written as the grid has them, with dtype and attributes as stored. Data is compressed
    (shuffle, gzip) in chunks. Named dims are dimension scales, as NetCDF-4 has them, so that netCDF4 and
    xarray read the file too. Other datasets of the input are not copied. Values, fill and attributes are as in
    the NetCDF sink: physical in their own dtype, or with ``template.raw`` as stored.

    Args:
        path: the file.
        values: numbers of the shape of ``grid``.
        grid: where they lie.
        template: what to take over.
        compress: level of gzip, 0 (none) to 9; by default that of the input, else 4.
        chunks: size of the chunks in each dim of the grid; by default those of the input, else about 256 rows of
            1024 pixels.

    Raises:
        WriteError: for an option that does not fit, when HDF5 cannot hold the values, or with ``raw=True`` their
            dtype in the file cannot.
    """
    import h5py

    layout = arrange(values, grid, template, path.name, compress=compress, chunks=chunks)
    try:
        with path.open("w+b", buffering=0) as raw:
            disk = _Disk(raw)
            with h5py.File(disk, "w") as file:
                _fill_file(file, layout, disk)
        disk.check()
    except (StreamGeoError, MemoryError, Unread):
        raise
    except Exception as error:
        raise WriteError(f"save: {path.name} cannot be written as HDF5 ({error})") from error


class _Disk:
    """The file as HDF5 sees it: what fails, such as a full disk, is kept, and nothing is written any more.

    HDF5 cannot close a file that it cannot write: it reports that by the way, and crashes when the process ends.
    """

    def __init__(self, raw: FileIO) -> None:
        self._raw = raw
        self._failed: OSError | None = None
        self.read, self.readinto = raw.read, raw.readinto
        self.seek, self.tell, self.flush = raw.seek, raw.tell, raw.flush

    def write(self, data: Any) -> int:
        """Write all of it, or nothing more once that has failed."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view) and self._failed is None:  # a raw file may take a part
            done += self._try(self._raw.write, view[done:]) or 0
        return len(view)

    def truncate(self, size: int | None = None) -> None:
        """Give the file a size."""
        if self._failed is None:
            self._try(self._raw.truncate, size)

    def _try(self, act: Callable[[Any], int | None], given: Any) -> int | None:
        try:
            return act(given)
        except OSError as error:
            self._failed = error
            return None

    def check(self) -> None:
        """Raise what failed."""
        if self._failed is not None:
            raise self._failed


def _fill_file(file: Any, layout: Layout, disk: _Disk) -> None:
    for group, attrs in layout.groups.items():
        _attributes(file.require_group("/" + group), attrs)
    datasets = {out.path: _dataset(file, out, layout.dims) for out in layout.variables}
    scales = {name: _scale(file, dim, layout) for name, dim in layout.dims.items()}
    for out in layout.variables:
        for i, name in enumerate(out.dims):
            dataset, scale = datasets[out.path], scales[name]
            if scale is None:
                if not name.startswith("dim_"):
                    dataset.dims[i].label = name
            elif scale != dataset:
                dataset.dims[i].attach_scale(scale)
    in_turn(_put(datasets[out.path], out.values, disk) for out in layout.variables)


def _put(dataset: Any, values: Array | Pixels, disk: _Disk) -> Iterator[None]:
    for box, block in blocks(values, dataset.chunks):
        dataset[box] = block.astype(object) if block.dtype.kind in "OU" else block
        disk.check()
        yield


def _dataset(file: Any, out: Out, dims: Mapping[str, Dim]) -> Any:
    import h5py

    values, attrs = out.values, dict(out.attrs)
    text = values.dtype.kind in "OU"
    if values.dtype.kind not in "iufbcSOU":
        raise WriteError(
            f"save: HDF5 has no type for {values.dtype} of {out.path}; cast to float32 or an integer"
        )
    if out.fill is not None and not (
        isinstance(out.fill, np.floating) and np.isnan(out.fill) and _plain(out)
    ):
        attrs["_FillValue"] = out.fill
    dataset = file.create_dataset(
        "/" + out.path,
        shape=values.shape,
        dtype=h5py.string_dtype() if text else _byte_order(out, values),
        maxshape=tuple(None if dims[name].unlimited else size for name, size in zip(out.dims, values.shape)),
        **_storage(out, values, any(dims[name].unlimited for name in out.dims)),
    )
    _attributes(dataset, attrs)
    return dataset


def _plain(out: Out) -> bool:
    """Whether NaN needs no declaration: nothing was declared missing in the file that gave the template."""
    return not out.storage.get("default_fill", True) and out.storage.get("fill") is None


def _byte_order(out: Out, values: Array | Pixels) -> np.dtype[Any]:
    kept = out.storage
    own = "dtype" in kept and np.dtype(kept["dtype"]).newbyteorder("=") == values.dtype
    return values.dtype.newbyteorder(">") if own and kept.get("endian") == "big" else values.dtype


def _storage(out: Out, values: Array | Pixels, growing: bool) -> dict[str, Any]:
    """Options of create_dataset: compression and chunks."""
    kept = out.storage
    options: dict[str, Any] = {}
    if (level := level_of(out)) and values.dtype.kind in "iufbc":
        options = {"compression": "gzip", "compression_opts": level, "shuffle": True}
    if values.ndim and (isinstance(values, Pixels) or kept.get("chunks")):
        options["chunks"] = chunks_for(values, kept.get("chunks"))
    elif options or growing:
        options["chunks"] = True
    return options


def _scale(file: Any, dim: Dim, layout: Layout) -> Any:
    """The dimension scale of a dim: its coordinate, or a bare one as netCDF makes; None for an unnamed dim."""
    path = posixpath.join(dim.group, dim.name)
    own = next((out for out in layout.variables if out.path == path), None)
    if own is not None:
        if len(own.dims) != 1 or layout.dims[own.dims[0]] != dim:
            return None
        file["/" + path].make_scale(dim.name)
        return file["/" + path]
    if not dim.shared:
        return None
    growing = {"maxshape": (None,), "chunks": True} if dim.unlimited else {}
    bare = file.create_dataset("/" + path, shape=(dim.size,), dtype=">f4", **growing)
    bare.make_scale(_BARE_DIM % dim.size)
    return bare


def _attributes(owner: Any, attrs: Mapping[str, Any]) -> None:
    for name, value in attrs.items():
        try:
            owner.attrs[name] = _attribute(value)
        except Exception as error:
            raise WriteError(
                f"save: attribute {name}={value!r} cannot be written as HDF5 ({error})"
            ) from error


def _attribute(value: Any) -> Any:
    """A value that HDF5 can hold as an attribute."""
    import h5py

    if isinstance(value, bytes) or (isinstance(value, str) and "\0" in value):  # text may not hold NUL
        data = value.encode() if isinstance(value, str) else value
        return np.array(data, f"S{max(1, len(data))}")
    if not isinstance(value, (list, tuple, np.ndarray)):
        return value
    array = np.asarray(value)
    if array.dtype.kind in "OU":
        return np.array([str(v) for v in array.ravel()], h5py.string_dtype())
    return array
