"""Every image and grid among the real files, how it is opened, and what cannot take part and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamgeo as sg
from tests.conftest import SAMPLES


@dataclass(frozen=True)
class Case:
    """A file (below the sample folder), the opener's name, and its options."""

    file: str
    opener: str
    options: tuple[tuple[str, Any], ...] = ()

    def open(self, *, raw: bool = False) -> sg.Opener:
        return getattr(sg, self.opener)(**dict(self.options), raw=raw)

    @property
    def path(self) -> Path:
        return SAMPLES / self.file

    def __str__(self) -> str:
        return "-".join([Path(self.file).name[:40], *(str(v) for _, v in self.options)])


def _case(file: str, opener: str, **options: Any) -> Case:
    return Case(file, opener, tuple(options.items()))


# Files without an image or a grid, and the reason that their opener gives.
LEFT_OUT = {
    "helio/go1520110607.fits": ("open_fits", {}, "table"),
    "geoscience/OR_GLM-L2-LCFA_G16_s20181830433000_e20181830433200_c20181830433231.nc": (
        "open_netcdf", {}, "variable",
    ),
}  # fmt: skip

NETCDF = {
    "helio/sci_xrsf-l2-avg1m_g16_d20210101_truncated.nc": ["corrected_current_xrsb2"],
    "remote_sensing/L3B_S2B_00390821JXN0L2A_20210319_20220730_C01.nc": ["blue", ["blue", "green"]],
    "geoscience/nemo/nemo_1m_20150101-20150201_grid-T.nc": ["tos", "nav_lat"],
    "geoscience/nemo/nemo_1m_20150201-20150301_grid-T.nc": ["tos"],
    "geoscience/nemo/nemo_1m_20150301-20150401_grid-T.nc": ["tos"],
    "geoscience/eraint_uvz.nc": ["u", ["u", "v"], "z"],
    "geoscience/basin_mask.nc": ["basin"],
    "geoscience/A1B_north_america.nc": ["air_temperature"],
    "geoscience/ostia_monthly.nc": ["surface_temperature"],
    "geoscience/hybrid_height.nc": ["air_potential_temperature"],
    "geoscience/rotated_pole.nc": ["air_pressure_at_sea_level"],
    "geoscience/toa_brightness_stereographic.nc": ["data"],
    "geoscience/space_weather.nc": ["TEC", "Ne"],
    "geoscience/20171025_2056.Cloud_Top_Height.nc": ["HT", "DQF"],
    "geoscience/OR_GLM-L2-GLMC-M3_G16_s20181830433000_e20181830434000_c20191931535490.nc": [
        "flash_extent_density",
        "total_energy",
    ],
    "geoscience/ascat_20150702_084200_metopa_45145_eps_o_250_2300_ovw.l2.nc": ["model_speed", "wvc_index"],
    "geoscience/SS_MODIS_A-JPL-L2P-v2014.0.nc": ["sea_surface_temperature"],
    "geoscience/SS_VIIRS_NPP-NAVO-L2P-v3.0.nc": ["sea_surface_temperature", "wind_speed"],
    "geoscience/GPM_DPR_test_file.HDF5": ["FS/SLV/precipWater", "HS/SLV/precipWater"],
    "geoscience/S5P_OFFL_L2__CH4____20190311T101655_20190311T115825_07293_01_010202_20190317T121015.SUB.nc4": [
        "PRODUCT/methane_mixing_ratio",
        "PRODUCT/SUPPORT_DATA/GEOLOCATIONS/solar_zenith_angle",
    ],
    "geoscience/EMIT_L1B_OBS_001_20220827T060753_9999999_999.nc": ["obs", "location/elev"],
    "geoscience/tmmx_20190121.nc": ["air_temperature"],
    "geoscience/MODIS_ARRAY.nc": ["__xarray_dataarray_variable__"],
    "geoscience/PLANET_SCOPE_3D.nc": ["blue", ["blue", "green"]],
    "geoscience/uwnd_mean.nc": ["uwnd"],
    "geoscience/vwnd_mean.nc": ["vwnd"],
    "geoscience/example_cfradial_ppi.nc": ["reflectivity_horizontal"],
}
HDF5 = {
    "helio/eis_20210306_064444.head.h5": ["wavelength/wave_corr"],
    "helio/eis_20210306_064444.data.h5": ["level1/win00", "level1/win07"],
    "geoscience/GPM_DPR_test_file.HDF5": ["FS/SLV/precipWater"],
}


def cases() -> list[Case]:
    """One case for each image; empty where the sample folder is missing."""
    found: list[Case] = []
    for path in sorted(SAMPLES.rglob("*")):
        name, suffix = path.relative_to(SAMPLES).as_posix(), path.suffix.lower()
        if name in LEFT_OUT:
            continue
        if suffix in (".fits", ".fit", ".fts"):
            found.append(_case(name, "open_fits"))
        elif suffix == ".tif":
            found.append(_case(name, "open_geotiff"))
        elif suffix == ".npy":
            found.append(_case(name, "open_numpy"))
    if SAMPLES.is_dir():
        found += [_case(n, "open_netcdf", variable=v) for n, names in NETCDF.items() for v in names]
        found += [_case(n, "open_hdf5", dataset=v) for n, names in HDF5.items() for v in names]
    return found


CASES = cases()
