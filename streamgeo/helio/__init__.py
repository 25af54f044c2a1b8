"""Steps for images of the Sun."""

from streamgeo.helio.exposure import exposure
from streamgeo.helio.limb_darkening import limb_darkening

__all__ = ["exposure", "limb_darkening"]
