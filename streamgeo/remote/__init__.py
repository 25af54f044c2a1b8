"""Steps for remote sensing."""

from streamgeo.remote.indices import INDICES, index
from streamgeo.remote.landsat import landsat, read_mtl
from streamgeo.remote.masks import QA, SCL, class_mask, masked, nodata, qa_mask
from streamgeo.remote.pansharpen import pansharpen, pansharpened
from streamgeo.remote.radar import decibel
from streamgeo.remote.radiometry import brightness_temperature, radiance, sentinel2, toa_reflectance
from streamgeo.remote.reflectance import reflectance
from streamgeo.remote.resample import downsample, upsample

__all__ = [
    "INDICES",
    "QA",
    "SCL",
    "brightness_temperature",
    "class_mask",
    "decibel",
    "downsample",
    "index",
    "landsat",
    "masked",
    "nodata",
    "pansharpen",
    "pansharpened",
    "qa_mask",
    "radiance",
    "read_mtl",
    "reflectance",
    "sentinel2",
    "toa_reflectance",
    "upsample",
]
