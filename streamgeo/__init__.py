"""streamgeo: a streaming data loader for FITS, GeoTIFF, NetCDF and HDF5 whose pipeline also runs backwards."""

from importlib import import_module
from typing import Any

from streamgeo import climate, engine, helio, remote
from streamgeo.begin import (
    buffer_from_vector,
    concatenate,
    files,
    files_from_tar,
    from_mlx,
    mix,
    stream_csv_reader,
    stream_csv_reader_from_string,
    stream_line_reader,
    stream_python_iterable,
    zip,
)
from streamgeo.chain import Buffer, Stream
from streamgeo.chunks import config
from streamgeo.convert_maps import from_maps
from streamgeo.convert_xarray import from_xarray
from streamgeo.errors import (
    BatchError,
    ChainError,
    GridError,
    InverseError,
    MissingKeyError,
    OpenError,
    SampleError,
    StepError,
    StreamGeoError,
    WaitError,
    WriteError,
)
from streamgeo.grid import Axis, Bounds, Grid
from streamgeo.indexing import index
from streamgeo.inverse import Inverse, Sink
from streamgeo.locate import Coord, CoordLocator, GeoLocator, WcsLocator
from streamgeo.openers import (
    Opener,
    open,
    open_fits,
    open_geotiff,
    open_hdf5,
    open_netcdf,
    open_numpy,
    open_zarr,
)
from streamgeo.predict import Scenes
from streamgeo.scene import Scene
from streamgeo.spill import cache
from streamgeo.step import POINT, SCENE, Moves, Reach, Step, halo, register, step_from_json
from streamgeo.steps import stretch
from streamgeo.steps.augment import add_noise, band_dropout, random_crop, random_flip, random_rot90
from streamgeo.steps.cast import cast
from streamgeo.steps.gaps import fill_nan
from streamgeo.steps.geometry import crop, flip, rot90, transpose
from streamgeo.steps.normalize import clip, minmax, normalize
from streamgeo.steps.patch import patch
from streamgeo.tta import d4, flips
from streamgeo.window import Window

__version__ = "0.1.0"

__all__ = [
    "POINT",
    "SCENE",
    "Axis",
    "BatchError",
    "Bounds",
    "Buffer",
    "ChainError",
    "Coord",
    "CoordLocator",
    "GeoLocator",
    "Grid",
    "GridError",
    "Inverse",
    "InverseError",
    "MissingKeyError",
    "Moves",
    "OpenError",
    "Opener",
    "Reach",
    "SampleError",
    "Scene",
    "Scenes",
    "Sink",
    "Step",
    "StepError",
    "Stream",
    "StreamGeoError",
    "WaitError",
    "WcsLocator",
    "Window",
    "WriteError",
    "add_noise",
    "band_dropout",
    "buffer_from_vector",
    "cache",
    "cast",
    "climate",
    "clip",
    "concatenate",
    "config",
    "crop",
    "d4",
    "files",
    "files_from_tar",
    "fill_nan",
    "flip",
    "flips",
    "from_maps",
    "from_mlx",
    "from_xarray",
    "halo",
    "helio",
    "index",
    "minmax",
    "mix",
    "normalize",
    "open",
    "open_fits",
    "open_geotiff",
    "open_hdf5",
    "open_netcdf",
    "open_numpy",
    "open_zarr",
    "patch",
    "random_crop",
    "random_flip",
    "random_rot90",
    "register",
    "remote",
    "rot90",
    "step_from_json",
    "stream_csv_reader",
    "stream_csv_reader_from_string",
    "stream_line_reader",
    "stream_python_iterable",
    "stretch",
    "transpose",
    "zip",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """mlx-data's enums and modules that its operations take arguments from; loaded when they are asked for."""
    if name in ("core", "features", "tokenizer_helpers"):
        return import_module(f"streamgeo.{name}")
    if name in engine.OWN:
        return engine.own(name)
    raise AttributeError(f"module 'streamgeo' has no attribute {name!r}")
