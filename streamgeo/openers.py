"""Openers: steps that turn a path into a scene, and whose inverse writes a scene to a path."""

from __future__ import annotations

import builtins
import gzip
import zlib
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from streamgeo.errors import InverseError, OpenError
from streamgeo.scene import Scene
from streamgeo.sources.handles import identity
from streamgeo.sources.hdf5_objects import SIGNATURE, looked
from streamgeo.sources.stack import StackedScene
from streamgeo.sources.zarr import is_store
from streamgeo.step import SCENE, Step, register

_MADE = "_NCProperties"  # an attribute of files that netCDF-C made

Paths = str | Path | Sequence[str | Path]


class Opener(Step):
    """A step from a path (or several) to a lazy :class:`~streamgeo.scene.Scene`."""

    def __call__(self, x: Paths, **context: Any) -> Scene:
        """The scene in a file, or in several files that make up one scene."""
        scene = self.forward(x)
        assert isinstance(scene, Scene)
        return scene

    def undo(self, y: Scene, where: str | Path | None = None, **context: Any) -> Path:
        """Write a scene to a file or a folder, in this opener's format.

        Raises:
            InverseError: when no path is given.
        """
        if where is None:
            raise InverseError(f"inverse of {self.label}: give the path to write to")
        return y.save(where, format=_FORMAT.get(self.label))


_FORMAT = {"open_fits": "fits", "open_geotiff": "geotiff", "open_netcdf": "netcdf", "open_hdf5": "hdf5",
           "open_numpy": "numpy", "open_zarr": "netcdf"}  # fmt: skip


def _opener(kind: str, **options: Any) -> Opener:
    return Opener(partial(_open, kind=kind, **options), _write, reach=SCENE, dtype=np.dtype)


def _open(paths: Any, *, kind: str, **options: Any) -> Scene:
    names = as_paths(paths)
    scenes = [_open_one(name, kind, options) for name in names]
    return scenes[0] if len(scenes) == 1 else StackedScene(scenes)


def _write(scene: Scene, where: str | Path) -> Path:
    return scene.save(where)


def _open_one(path: str, kind: str, options: dict[str, Any]) -> Scene:
    if kind == "any":
        kind = detect(path)
        name = options["variable"] if options["variable"] is not None else options["dataset"]
        options = {**options, "variable": name, "dataset": name}  # NetCDF-4 is HDF5: either word will do
        options = {
            key: value for key, value in options.items() if key in _OPTIONS[kind] and value is not None
        }
    elif kind != "zarr":
        identity(path)
    scene = import_module(f"streamgeo.sources.{kind}").open_scene(path, **options)
    assert isinstance(scene, Scene)
    if 0 in scene.shape:
        raise OpenError(f"open: {path} has no pixels: {dict(zip(scene.dims, scene.shape))}")
    return scene


_OPTIONS = {
    "fits": ("hdu", "raw"),
    "geotiff": ("bands", "overview", "raw"),
    "netcdf": ("variable", "raw"),
    "hdf5": ("dataset", "raw"),
    "numpy": ("key", "raw"),
    "zarr": ("variable", "raw"),
}


def as_paths(value: Any) -> list[str]:
    """Paths as text, from a path, text, bytes (or the int8 array that mlx-data makes of bytes), or several."""
    if isinstance(value, (str, Path)):
        return [str(value)]
    if isinstance(value, bytes):
        return [value.decode()]
    if isinstance(value, np.ndarray):
        if value.dtype == np.int8:
            return [value.tobytes().decode()]
        if value.dtype.kind in "US":
            return [name if isinstance(name, str) else name.decode() for name in np.ravel(value).tolist()]
    if isinstance(value, Sequence) and value:
        return [name for part in value for name in as_paths(part)]
    raise OpenError(f"open: {value!r} is not a path; give text, a pathlib.Path, or a list of these")


def detect(path: str) -> str:
    """The kind of a file by its first bytes: ``fits``, ``geotiff``, ``netcdf``, ``hdf5``, ``numpy``; or ``zarr``."""
    if is_store(path):
        return "zarr"
    identity(path)
    with builtins.open(path, "rb") as handle:
        head = handle.read(512)
    if _unpacked(path, head).startswith(b"SIMPLE  ="):
        return "fits"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "geotiff"
    if head[:4] in (b"CDF\x01", b"CDF\x02", b"CDF\x05"):
        return "netcdf"
    if head.startswith((b"\x93NUMPY", b"PK\x03\x04")):
        return "numpy"
    if not head.startswith(SIGNATURE):
        import h5py

        if not h5py.is_hdf5(path):  # which may begin after a block of the user's
            raise OpenError(
                f"open: {path} is none of FITS, GeoTIFF, NetCDF, HDF5, Zarr, npy and npz "
                f"(it begins with {head[:8]!r}); for another raster that GDAL reads, use open_geotiff"
            )
    if Path(path).suffix.lower() in (".nc", ".nc4"):
        return "netcdf"
    return "netcdf" if _made_by_netcdf(path) else "hdf5"


def _unpacked(path: str, head: bytes) -> bytes:
    """The first bytes of a file, also of one that is packed by gzip, as FITS files often are."""
    if not head.startswith(b"\x1f\x8b"):
        return head
    try:
        with gzip.open(path) as file:
            return file.read(16)
    except (OSError, EOFError, zlib.error):
        return head


def _made_by_netcdf(path: str) -> bool:
    told = looked(path, identity(path), lambda root: _MADE in root.attributes())
    if told is not None:
        return told
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return _MADE in file.attrs
    except (OSError, RuntimeError) as error:
        raise OpenError(f"open: {path} is HDF5, but truncated or corrupt ({error})") from error


@register("open_fits")
def open_fits(hdu: int | str | Sequence[int | str] | None = None, *, raw: bool = False) -> Opener:
    """Open an image of a FITS file.

    Args:
        hdu: number or name of the HDU; by default the first one that holds an image (AIA keeps it in HDU 1).
            Several stack in a leading dim ``hdu``.
        raw: values as stored, without BSCALE, BZERO and BLANK. By default physical float32, NaN for BLANK.

    The inverse writes FITS with the header carried over and CRPIX, CDELT, PC following the grid.
    """
    return _opener("fits", hdu=hdu, raw=raw)


@register("open_geotiff")
def open_geotiff(
    bands: int | Sequence[int] | None = None, overview: int | None = None, *, raw: bool = False
) -> Opener:
    """Open bands of a GeoTIFF, or of any raster that GDAL reads.

    Args:
        bands: as in rasterio, counted from 1: None (all) and a list give dims ``(band, y, x)``, also for one
            band; a number gives ``(y, x)``.
        overview: level of the overview, 0 the largest; by default the full resolution.
        raw: values as stored. By default physical float32 (scale and offset applied), NaN where nodata, the
            mask or an alpha band says so.

    The inverse writes a GeoTIFF with CRS, transform, nodata, descriptions and tags carried over.
    """
    return _opener("geotiff", bands=bands, overview=overview, raw=raw)


@register("open_netcdf")
def open_netcdf(variable: str | Sequence[str] | None = None, *, raw: bool = False) -> Opener:
    """Open a variable of a NetCDF file.

    Args:
        variable: name, or path through groups such as ``"PRODUCT/methane_mixing_ratio"``. Several of one
            shape stack in a leading dim ``variable``. May be left out where the file has one data variable.
        raw: values as stored. By default physical float32 (scale, offset and ``_Unsigned`` applied), NaN for
            fill, missing values and what lies outside the valid range.

    The inverse writes NetCDF-4 with coordinates, grid mapping, units and attributes carried over.
    """
    return _opener("netcdf", variable=variable, raw=raw)


@register("open_hdf5")
def open_hdf5(dataset: str | Sequence[str] | None = None, *, raw: bool = False) -> Opener:
    """Open a dataset of an HDF5 file by its path, such as ``"level1/win00"``.

    Several stack in a leading dim; it may be left out where the file has one array. ``raw`` as in
    :func:`open_netcdf`: scale, offset and fill attributes are honoured unless it is set.
    """
    return _opener("hdf5", dataset=dataset, raw=raw)


@register("open_numpy")
def open_numpy(key: str | None = None, *, raw: bool = False) -> Opener:
    """Open an ``.npy`` file (memory-mapped), or one array of an ``.npz`` file by its ``key``.

    Values come as float32, or in their own dtype with ``raw=True``. Dims are ``dim_0``, ``dim_1``, ...
    """
    return _opener("numpy", key=key, raw=raw)


@register("open_zarr")
def open_zarr(variable: str | Sequence[str] | None = None, *, raw: bool = False) -> Opener:
    """Open an array of a Zarr store (version 2 or 3) in a folder; needs ``pip install 'streamgeo[zarr]'``.

    Args:
        variable: name, or path through groups. Several of one shape stack in a leading dim ``variable``. May be left
            out where the store has one data array.
        raw: values as stored. By default physical float32 by the CF attributes, as in :func:`open_netcdf`; in
            version 2 the fill value of the array means missing, as xarray has it.

    Dims and coordinates are those that xarray finds. The inverse writes NetCDF-4.
    """
    return _opener("zarr", variable=variable, raw=raw)


@register("open")
def open(
    *,
    variable: str | Sequence[str] | None = None,
    dataset: str | Sequence[str] | None = None,
    bands: int | Sequence[int] | None = None,
    overview: int | None = None,
    hdu: int | str | Sequence[int | str] | None = None,
    key: str | None = None,
    raw: bool = False,
) -> Opener:
    """Open a file of any supported format, told by its content; options of other formats are ignored.

    ``variable`` and ``dataset`` mean the same here, since a NetCDF-4 file is an HDF5 file.

    See :func:`open_fits`, :func:`open_geotiff`, :func:`open_netcdf`, :func:`open_hdf5`, :func:`open_numpy`,
    :func:`open_zarr`.
    """
    return _opener(
        "any", variable=variable, dataset=dataset, bands=bands, overview=overview, hdu=hdu, key=key, raw=raw
    )
