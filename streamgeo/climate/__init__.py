"""Steps for climate and ocean fields."""

from streamgeo.climate.anomaly import anomaly

__all__ = ["anomaly"]
