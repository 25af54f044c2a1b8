"""Steps for images of the Sun."""

from streamgeo.helio import select
from streamgeo.helio.channels import match_channels
from streamgeo.helio.degradation import degradation
from streamgeo.helio.exposure import exposure
from streamgeo.helio.lift import on_map
from streamgeo.helio.limb_darkening import limb_darkening
from streamgeo.helio.limb_profile import limb_profile
from streamgeo.helio.masks import mu_map, off_limb_mask, radial_field
from streamgeo.helio.pointing import pointing, pointing_table
from streamgeo.helio.registration import registration
from streamgeo.helio.rotation import differential_rotation
from streamgeo.helio.select import validate
from streamgeo.helio.stretches import aia_stretch

__all__ = [
    "aia_stretch",
    "degradation",
    "differential_rotation",
    "exposure",
    "limb_darkening",
    "limb_profile",
    "match_channels",
    "mu_map",
    "off_limb_mask",
    "on_map",
    "pointing",
    "pointing_table",
    "radial_field",
    "registration",
    "select",
    "validate",
]
