"""Steps for images of the Sun."""

from streamgeo.helio.exposure import exposure
from streamgeo.helio.limb_darkening import limb_darkening
from streamgeo.helio.masks import mu_map, off_limb_mask, radial_field
from streamgeo.helio.registration import registration
from streamgeo.helio.stretches import aia_stretch

__all__ = [
    "aia_stretch",
    "exposure",
    "limb_darkening",
    "mu_map",
    "off_limb_mask",
    "radial_field",
    "registration",
]
