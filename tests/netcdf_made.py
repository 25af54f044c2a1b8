"""What the tests of NetCDF and HDF5 share: sample files, made files, and what netCDF4-python reads."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import netCDF4
import numpy as np

from streamgeo.scene import ArrayScene
from streamgeo.sources.netcdf import open_scene

FILES = [
    "geoscience/20171025_2056.Cloud_Top_Height.nc",
    "geoscience/A1B_north_america.nc",
    "geoscience/EMIT_L1B_OBS_001_20220827T060753_9999999_999.nc",
    "geoscience/GPM_DPR_test_file.HDF5",
    "geoscience/MODIS_ARRAY.nc",
    "geoscience/OR_GLM-L2-GLMC-M3_G16_s20181830433000_e20181830434000_c20191931535490.nc",
    "geoscience/PLANET_SCOPE_3D.nc",
    "geoscience/S5P_OFFL_L2__CH4____20190311T101655_20190311T115825_07293_01_010202_20190317T121015.SUB.nc4",
    "geoscience/SS_MODIS_A-JPL-L2P-v2014.0.nc",
    "geoscience/SS_VIIRS_NPP-NAVO-L2P-v3.0.nc",
    "geoscience/ascat_20150702_084200_metopa_45145_eps_o_250_2300_ovw.l2.nc",
    "geoscience/basin_mask.nc",
    "geoscience/eraint_uvz.nc",
    "geoscience/example_cfradial_ppi.nc",
    "geoscience/hybrid_height.nc",
    "geoscience/nemo/nemo_1m_20150101-20150201_grid-T.nc",
    "geoscience/ostia_monthly.nc",
    "geoscience/rotated_pole.nc",
    "geoscience/space_weather.nc",
    "geoscience/tmmx_20190121.nc",
    "geoscience/toa_brightness_stereographic.nc",
    "geoscience/uwnd_mean.nc",
    "geoscience/vwnd_mean.nc",
    "helio/sci_xrsf-l2-avg1m_g16_d20210101_truncated.nc",
    "remote_sensing/L3B_S2B_00390821JXN0L2A_20210319_20220730_C01.nc",
]


def copy_of(path, folder):
    """A copy of a sample: two handles of one NetCDF file that holds text crash HDF5."""
    return Path(shutil.copy(path, folder / path.name))


def variables(group):
    for variable in group.variables.values():
        if variable.dtype is not str and np.dtype(variable.dtype).kind in "iuf" and variable.ndim >= 2:
            yield (variable.group().path + "/" + variable.name).lstrip("/")
    for child in group.groups.values():
        yield from variables(child)


def reference(path, name, raw=False):
    with netCDF4.Dataset(path) as dataset:
        return pixels(dataset[name], raw)


def pixels(variable, raw):
    """What netCDF4-python gives: stored values, or masked and scaled ones as float32 with NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        variable.set_auto_maskandscale(not raw)
        out = variable[...]
        return (
            out.astype(out.dtype.newbyteorder("=")) if raw else np.ma.filled(out.astype(np.float32), np.nan)
        )


def same(a, b):
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def quiet_open(path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return open_scene(str(path), **options)


def quiet_save(scene, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return scene.save(path)


def attributes(owner, without=()):
    return {k: owner.getncattr(k) for k in owner.ncattrs() if k not in without}


def assert_attributes(got, want):
    assert got.keys() == want.keys()
    for key, value in want.items():
        a, b = np.asarray(got[key]), np.asarray(value)
        assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f"), key
        assert a.dtype == b.dtype or key == "_FillValue", (
            key
        )  # NetCDF-4 wants that one in the variable's dtype


RAMP16 = np.arange(-30, 30, dtype=np.int16).reshape(6, 10)


def make(path, values, attrs=None, *, fill=None, fmt="NETCDF4", dims=None, dtype=None, **options):
    """A file with one variable ``v`` of the stored ``values``."""
    values = np.asarray(values)
    dims = dims or tuple("tyx"[-values.ndim :])
    with netCDF4.Dataset(path, "w", format=fmt) as dataset:
        for dim, size in dict(zip(dims, values.shape)).items():
            dataset.createDimension(dim, size)
        variable = dataset.createVariable("v", dtype or values.dtype, dims, fill_value=fill, **options)
        variable.set_auto_maskandscale(False)
        for key, value in (attrs or {}).items():
            variable.setncattr(key, value)
        variable[...] = values
    return str(path)


def make_field(tmp_path):
    """Temperature on time, descending latitude, longitude; time can grow and has bounds."""
    rng = np.random.default_rng(1)
    values = rng.random((3, 8, 12)).astype("f4")
    values[0, 0, 0] = -999
    with netCDF4.Dataset(tmp_path / "field.nc", "w") as d:
        d.Conventions = "CF-1.7"
        for name, size in (("time", None), ("lat", 8), ("lon", 12), ("nv", 2)):
            d.createDimension(name, size)
        for name, dims, data, attrs in [
            (
                "time",
                ("time",),
                [0.0, 1, 2],
                {"units": "days since 2000-01-01", "bounds": "time_bnds", "axis": "T"},
            ),
            ("time_bnds", ("time", "nv"), [[0.0, 1], [1, 2], [2, 3]], {}),
            ("lat", ("lat",), np.linspace(70, 0, 8), {"units": "degrees_north"}),
            ("lon", ("lon",), np.linspace(0, 55, 12), {"units": "degrees_east"}),
            ("height", (), 2.0, {"units": "m"}),
            ("label", ("time",), np.array(["a", "b", "c"], object), {}),
        ]:
            kind = str if name == "label" else "f8"
            variable = d.createVariable(name, kind, dims)
            variable.setncatts(attrs)
            variable[...] = np.asarray(data, object if name == "label" else float)
        v = d.createVariable("t2m", "f4", ("time", "lat", "lon"), fill_value=-999.0)
        v.setncatts({"units": "K", "coordinates": "height label", "missing_value": np.float32(-999)})
        v[:] = values
    return str(tmp_path / "field.nc")


def view(scene, values, grid):
    return ArrayScene(values, grid, scene.template, name="out.nc")
