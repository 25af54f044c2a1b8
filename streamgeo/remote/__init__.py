"""Steps for remote sensing."""

from streamgeo.remote.reflectance import reflectance

__all__ = ["reflectance"]
