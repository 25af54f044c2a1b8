"""Steps for climate and ocean fields."""

from streamgeo.climate.anomaly import anomaly
from streamgeo.climate.axes import times
from streamgeo.climate.climatology import Climatology, fit_climatology, load_climatology
from streamgeo.climate.cyclic import cyclic
from streamgeo.climate.gaps import fill_gaps, fill_time
from streamgeo.climate.lift import on_dataarray
from streamgeo.climate.ocean import geostrophic
from streamgeo.climate.regrid import regrid
from streamgeo.climate.spectral import fft
from streamgeo.climate.subset import subset
from streamgeo.climate.trend import detrend

__all__ = [
    "Climatology",
    "anomaly",
    "cyclic",
    "detrend",
    "fft",
    "fill_gaps",
    "fill_time",
    "fit_climatology",
    "geostrophic",
    "load_climatology",
    "on_dataarray",
    "regrid",
    "subset",
    "times",
]
