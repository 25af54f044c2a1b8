"""What is saved, opened by the reference library of its format: it lies where the input lay, to 1e-9."""

from __future__ import annotations

import itertools
import posixpath
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import streamgeo as sg
from tests.conftest import SAMPLES
from tests.real import CASES, Case

xr = pytest.importorskip("xarray", reason="streamgeo[xarray] is not installed")
pytestmark = [
    pytest.mark.skipif(not SAMPLES.is_dir(), reason="no sample files: set STREAMGEO_SAMPLES to their folder"),
    pytest.mark.filterwarnings("ignore"),
]

# One for each kind of grid: north up, rotated, south up without a CRS, with a WCS (two and three axes), coordinate
# vectors of latitude and longitude, of a projection in radians, of a rotated pole, curvilinear, in groups, none.
CHOSEN = (
    "LE07_L2SP", "au-3577-rotated", "float_nan", "efz20040301", "tmmx",
    "hybrid_height", "rotated_pole", "toa_brightness", "Cloud_Top_Height.nc-HT", "grid-T.nc-tos",
    "uwnd.ref", "win00", "iris_l2_20130801",
)  # fmt: skip
SOME = [case for case in CASES if any(name in str(case) for name in CHOSEN)]
LONG = [case for case in CASES if case not in SOME]
REST = [pytest.param(case, marks=pytest.mark.long, id=str(case)) for case in LONG]
every = pytest.mark.parametrize("case", [*(pytest.param(c, id=str(c)) for c in SOME), *REST])
GEOTIFF: list[dict[str, Any]] = [
    {}, {"compress": "zstd", "blocksize": 64, "overviews": True}, {"cog": True, "blocksize": 128},
    {"cog": True, "overviews": False, "compress": "none"}, {"sparse": True},
]  # fmt: skip
LAYOUTS: list[dict[str, Any]] = [{}, {"compress": 1, "chunks": 50}]


def identity(x: np.ndarray) -> np.ndarray:
    return x


@lru_cache(maxsize=2)
def predicted(case: Case) -> sg.Scene:
    chain = (
        sg.files([case.path], key="image")
        .key_transform("image", case.open())
        .key_transform("image", sg.patch(64, edge="pad"))
    )
    (scene,) = chain.batch(8).predict(identity)
    return scene


def near(got: Any, want: Any, rtol: float = 1e-9) -> None:
    got, want = np.asarray(got), np.asarray(want)
    if want.dtype.kind not in "iuf":  # dates and labels
        np.testing.assert_array_equal(got, want)
        return
    scale = np.nanmax(np.abs(want), initial=0.0)
    np.testing.assert_allclose(got.astype(float), want.astype(float), rtol=rtol, atol=rtol * float(scale))


def same_values(got: Any, scene: sg.Scene) -> None:
    got = np.asarray(got, np.float64)
    np.testing.assert_array_equal(got.reshape(scene.shape), scene.array.astype(np.float64))


def corners(*shape: int) -> np.ndarray:
    """Pixel positions of all outer corners and of the centre, the centre of the first pixel being 0."""
    ends = itertools.product(*((-0.5, size - 0.5) for size in shape))
    return np.array([*ends, [(size - 1) / 2 for size in shape]])


# -- where the input lies, as its own library says ----------------------------------------------------------


def on_a_map(case: Case) -> Any:
    """Transform, CRS and size by rasterio."""
    import rasterio

    with rasterio.open(case.path) as file:
        return file.transform, file.crs, file.shape, file.nodata


def image_of(path: Path) -> Any:
    """Header of the first image, checked by astropy, and where its corners and its centre lie."""
    from astropy.io import fits
    from astropy.wcs import WCS

    with fits.open(path) as file:
        hdu = next(hdu for hdu in file if hdu.is_image and hdu.shape and 0 not in hdu.shape)
        return hdu.header, WCS(even(hdu.header)).wcs_pix2world(corners(*hdu.shape[::-1]), 0)


def even(header: Any) -> Any:
    """The header as astropy takes it: an axis whose step is 0 (times that are listed elsewhere) gets one of 1."""
    out = header.copy()
    for key in [key for key in out if key.startswith("CDELT") and out[key] == 0]:
        out[key] = 1.0
    return out


def names_of(case: Case) -> list[str]:
    options = dict(case.options)
    given = options.get("variable", options.get("dataset"))
    return [given] if isinstance(given, str) else list(given)


def variable(path: Path, name: str) -> Any:
    """A variable with its coordinates, decoded by xarray, and its CRS."""
    from pyproj import CRS

    engine = {"engine": "zarr"} if path.suffix == ".zarr" else {}
    group = posixpath.dirname(name) or None
    with xr.open_dataset(path, group=group, decode_cf=True, decode_coords="all", **engine) as data:
        array = data[posixpath.basename(name)].load()
        mapping = array.encoding.get("grid_mapping")
        attrs = data[mapping.split(":")[0]].attrs if mapping else {}
        return array, CRS.from_cf(attrs) if {"grid_mapping_name", "crs_wkt"} & set(attrs) else None


def own_coords(array: Any) -> set[str]:
    """The coordinates that the variable itself refers to; xarray adds any scalar that another one has."""
    named = str(array.encoding.get("coordinates", array.attrs.get("coordinates", ""))).split()
    return {n for n in array.coords if n in array.dims or n in named} - {array.name}


# -- GeoTIFF ------------------------------------------------------------------------------------------------


def saved_geotiffs(case: Case, folder: Path) -> Any:
    import rasterio

    for options in GEOTIFF:
        path = predicted(case).save(folder / "out.tif", **options)
        assert [one.name for one in folder.iterdir()] == ["out.tif"]
        with rasterio.open(path) as file:
            same_values(file.read(masked=True).astype(float).filled(np.nan), predicted(case))
            if options.get("overviews"):
                assert bool(file.overviews(1)) == (max(file.shape) > options["blocksize"])
            yield file
        if options.get("cog"):
            cogeo = pytest.importorskip("rio_cogeo", reason="rio-cogeo is not installed")
            valid, errors, _ = cogeo.cog_validate(path, quiet=True)
            assert valid and not errors


def why_not_geotiff(case: Case) -> str:
    scene = predicted(case)
    if case.opener == "open_fits":
        return r"no place for the FITS WCS.*save as FITS" if scene.grid.locator is not None else ""
    if len(scene.dims) not in (2, 3):
        return r"holds \(y, x\) or \(band, y, x\).*as NetCDF"
    crs = scene.grid.crs
    if crs is not None:
        turned = crs.to_cf().get("grid_mapping_name") == "rotated_latitude_longitude"
        return "cannot hold the CRS.*save as NetCDF or Zarr, or reproject" if turned else ""
    planes = (
        [c for c in scene.grid.coords if set(scene.grid.spatial) <= set(c.dims)] if scene.grid.locator else []
    )
    return "curvilinear.*save as NetCDF, or reproject" if planes else ""


@every
def test_geotiff(case: Case, tmp_path: Path) -> None:
    if reason := why_not_geotiff(case):
        with pytest.raises(sg.WriteError, match=f"(?s){reason}"):
            predicted(case).save(tmp_path / "out.tif")
        assert not list(tmp_path.iterdir())
        return
    if case.opener == "open_geotiff":
        transform, crs, (height, width), nodata = on_a_map(case)
        for file in saved_geotiffs(case, tmp_path):
            for corner in corners(width, height) + 0.5:
                near(file.transform * corner, transform * corner)
            assert file.crs == crs and file.shape == (height, width)
            assert nodata is None or file.nodata is not None
    elif case.opener == "open_netcdf":
        array, crs = variable(case.path, names_of(case)[0])
        ydim, xdim = predicted(case).grid.spatial
        for file in saved_geotiffs(case, tmp_path):
            if xdim in array.coords and ydim in array.coords:
                x, y = array[xdim], array[ydim]
                factor = crs.to_cf()["perspective_point_height"] if x.attrs.get("units") == "rad" else 1.0
                rtol = 1e-9 if factor == 1 else 2e-7  # packed: xarray unpacks to float32
                near(file.transform * (0.5, 0.5), (x[0] * factor, y[0] * factor), rtol)
                last = file.transform * (file.width - 0.5, file.height - 0.5)
                near(last, (x[-1] * factor, y[-1] * factor), rtol)
            assert crs is None or file.crs is not None
    else:
        for file in saved_geotiffs(case, tmp_path):
            assert file.crs is None and file.transform.is_identity


# -- NetCDF, HDF5 and Zarr ----------------------------------------------------------------------------------


def saved_layouts(case: Case, folder: Path, kind: str) -> Any:
    scene = predicted(case)
    for options in LAYOUTS:
        chunks = {"chunks": tuple(min(size, options["chunks"]) for size in scene.shape)} if options else {}
        yield scene.save(folder / f"out.{kind}", **{**options, **chunks})
        assert [one.name for one in folder.iterdir()] == [f"out.{kind}"]


@every
@pytest.mark.parametrize("kind", ["nc", "h5", "zarr"])
def test_netcdf_hdf5_and_zarr(case: Case, kind: str, tmp_path: Path) -> None:
    if kind == "zarr":
        pytest.importorskip("zarr", minversion="3", reason="streamgeo[zarr] is not installed")
    check = {"open_netcdf": as_it_was, "open_geotiff": from_a_map, "open_fits": from_an_image}.get(
        case.opener
    )
    for path in saved_layouts(case, tmp_path, kind):
        if check is not None:
            check(path, case)
        elif kind == "h5":
            import h5py

            name = names_of(case)[0] if case.opener == "open_hdf5" else "data"
            with h5py.File(path) as file:
                same_values(file[name][()], predicted(case))


def as_it_was(path: Path, case: Case) -> None:
    for name in names_of(case):
        (got, got_crs), (want, want_crs) = variable(path, name), variable(case.path, name)
        assert (
            got.dims == want.dims
            and got.attrs.get("units") == want.attrs.get("units")
            and got_crs == want_crs
        )
        for coord in own_coords(want):
            packed = path.suffix == ".zarr" and "scale_factor" in want[coord].encoding  # JSON has no float32
            near(got[coord].values, want[coord].values, 2e-7 if packed else 1e-9)
            for key in ("units", "standard_name", "axis", "positive", "calendar"):
                assert got[coord].attrs.get(key) == want[coord].attrs.get(key)
                assert got[coord].encoding.get(key) == want[coord].encoding.get(key)


def data_of(path: Path) -> tuple[Any, Any]:
    engine = {"engine": "zarr"} if path.suffix == ".zarr" else {}
    with xr.open_dataset(path, decode_coords="all", **engine) as data:
        (name,) = data.data_vars
    return variable(path, name)


def from_a_map(path: Path, case: Case) -> None:
    import rioxarray  # noqa: F401
    from pyproj import CRS

    transform, crs, (height, width), _ = on_a_map(case)
    array, mapped = data_of(path)
    same_values(array.values, predicted(case))
    if predicted(case).grid.locator is None:
        return
    col, row = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    x, y = transform * (col, row)
    straight = transform.b == transform.d == 0
    near(array["x"] if straight else array["xc"], x[0] if straight else x)
    near(array["y"] if straight else array["yc"], y[:, 0] if straight else y)
    near(list(array.rio.transform()), list(transform))
    if crs is not None:
        assert mapped == CRS(crs.to_wkt()) and array.rio.crs == crs


def from_an_image(path: Path, case: Case) -> None:
    from astropy.io import fits
    from astropy.wcs import WCS

    array, _ = data_of(path)
    same_values(array.values, predicted(case))
    header, want = image_of(case.path)
    cards = fits.Header({k: v for k, v in array.attrs.items() if len(k) <= 8 and is_card(v)})
    got = WCS(even(cards), naxis=header["NAXIS"]).wcs_pix2world(corners(*array.shape[::-1]), 0)
    stepped = [axis for axis in range(want.shape[1]) if header.get(f"CDELT{axis + 1}", 1.0) != 0]
    near(got[:, stepped], want[:, stepped])


def is_card(value: Any) -> bool:
    return (isinstance(value, str) and value.isprintable()) or (
        isinstance(value, (int, float)) and np.isfinite(value)
    )


# -- FITS and NumPy -----------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("rice", [False, True], ids=["plain", "rice"])
def test_fits(case: Case, rice: bool, tmp_path: Path) -> None:
    from astropy.io import fits

    scene = predicted(case)
    top = float(np.nanmax(np.abs(scene.array[np.isfinite(scene.array)]), initial=1.0))
    options = {"rice": True, "quantize": top / 1e6} if rice else {}
    path = scene.save(tmp_path / "out.fits", **options)
    with fits.open(path) as file:
        file.verify("exception")
        images = [hdu for hdu in file if hdu.is_image and hdu.shape]
        assert all(isinstance(hdu, fits.CompImageHDU) == rice for hdu in images)
        if len(images) == 1:
            got = images[0].data.reshape(scene.shape)
            np.testing.assert_allclose(got, scene.array, rtol=1e-6, atol=0.6 * options.get("quantize", 0.0))
    if case.opener == "open_fits":
        near(image_of(path)[1], image_of(case.path)[1])
        same_maps(case.path, path)
    elif case.opener == "open_geotiff" and scene.grid.locator is not None:
        transform, crs, (height, width), _ = on_a_map(case)
        header, world = image_of(path)
        want = [transform * point for point in corners(width, height) + 0.5]
        near(world[np.isin(np.arange(len(world)), picked(len(world)))][:, :2], want)
        assert crs is None or header["CRS_WKT"]
    elif case.opener == "open_netcdf":
        vectors_in(path, case)


def picked(count: int) -> list[int]:
    """Of the corners of a cube those of its first plane, and its centre."""
    return [*range(0, count - 1, (count - 1) // 4), count - 1]


def vectors_in(path: Path, case: Case) -> None:
    """First and last value of each even coordinate vector, at the first and last pixel of its FITS axis."""
    header, _ = image_of(path)
    coords = {c.name: c for c in predicted(case).grid.coords}
    with xr.open_dataset(
        case.path, group=posixpath.dirname(names_of(case)[0]) or None, decode_times=False
    ) as data:
        for axis in range(1, header["NAXIS"] + 1):
            name = header.get(f"CTYPE{axis}")
            if name is None or name not in data.coords:
                continue
            want, packed = data[name], "scale_factor" in coords[name].attrs
            last = header[f"CRVAL{axis}"] + header.get(f"CDELT{axis}", 1.0) * (header[f"NAXIS{axis}"] - 1)
            near([header[f"CRVAL{axis}"], last], [want[0], want[-1]], 2e-7 if packed else 1e-9)


def same_maps(one: Path, other: Path) -> None:
    """What sunpy makes of both, where it takes the input."""
    maps = pytest.importorskip("sunpy.map", reason="streamgeo[sun] is not installed")
    try:
        before = maps.Map(one)
    except Exception:  # a spectrogram, or a header that sunpy does not take
        return
    after = maps.Map(other)
    for a, b in zip(np.atleast_1d(before), np.atleast_1d(after), strict=True):
        assert type(a) is type(b) and a.date == b.date and a.unit == b.unit
        for corner in ("bottom_left_coord", "top_right_coord", "center"):
            p, q = (getattr(m, corner).spherical for m in (a, b))
            near([q.lon.deg, q.lat.deg], [p.lon.deg, p.lat.deg])
        near([v.value for v in b.scale], [v.value for v in a.scale])
        p, q = a.observer_coordinate, b.observer_coordinate
        near([q.lon.deg, q.lat.deg, q.radius.m], [p.lon.deg, p.lat.deg, p.radius.m])


@every
def test_numpy(case: Case, tmp_path: Path) -> None:
    got = np.load(predicted(case).save(tmp_path / "out.npy"))
    assert got.shape == predicted(case).shape
    same_values(got, predicted(case))
