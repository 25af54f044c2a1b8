"""The laws that every registered step obeys, and one case or more for each of them."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from astropy.io.fits import Header
from astropy.units import Quantity
from astropy.wcs import WCS

import streamgeo as sg
import streamgeo.catalog  # registers every step
from streamgeo.errors import StepError
from streamgeo.grid import Grid
from streamgeo.locate import Coord, CoordLocator, GeoLocator, WcsLocator
from streamgeo.plan import Draw, Run, StepScene
from streamgeo.scene import ArrayScene
from streamgeo.step import REGISTRY, Context, Step, step_from_json
from streamgeo.template import Template
from streamgeo.window import Window

Array = np.ndarray[Any, np.dtype[Any]]

EXEMPT = {
    "patch": "makes many samples of one, so its laws are others: tests/test_patch.py",
    **dict.fromkeys(
        ("open", "open_fits", "open_geotiff", "open_netcdf", "open_hdf5", "open_numpy", "open_zarr"),
        "take paths, not arrays: tests of the formats",
    ),
}

AFFINE = GeoLocator((30.0, 0.0, 500000.0, 0.0, -30.0, 4100000.0), "EPSG:32633")
PLANE = Grid.of(("y", "x"), (12, 17), AFFINE)
SQUARE = Grid.of(("band", "y", "x"), (2, 9, 9), AFFINE)
BANDS = Grid.of(("band", "y", "x"), (3, 12, 17), AFFINE)
SUN_HEADER = {
    "NAXIS": 2, "NAXIS1": 17, "NAXIS2": 12, "CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN", "CUNIT1": "arcsec",
    "CUNIT2": "arcsec", "CRPIX1": 8.3, "CRPIX2": 6.1, "CRVAL1": 35.0, "CRVAL2": -12.0, "CDELT1": 150.0,
    "CDELT2": 160.0, "CROTA2": 12.0, "RSUN_OBS": 960.0, "EXPTIME": 2.9,
}  # fmt: skip
SUN = Grid.of(("y", "x"), (12, 17), WcsLocator(Header(SUN_HEADER).tostring(), ("y", "x"), ("y", "x")))
POINTED = Grid.of(("y", "x"), (12, 17), WcsLocator(Header(SUN_HEADER | {
    "X0_MP": 7.4, "Y0_MP": 5.2, "IMSCL_MP": 149.0, "INSTROT": 0.3, "SAT_ROT": 11.0, "WAVELNTH": 171,
    "T_OBS": "2012-03-04T05:06:07.00Z",
}).tostring(), ("y", "x"), ("y", "x")))  # fmt: skip
FINE_SUN = SUN.coarsen(y=0.25, x=0.25)
TILT = 6.5
SPINNING = Grid.of(("y", "x"), (12, 17), WcsLocator(Header(SUN_HEADER | {
    "HGLT_OBS": TILT, "DATE-OBS": "2012-03-04T05:06:07.00",
}).tostring(), ("y", "x"), ("y", "x"))).coarsen(y=0.25, x=0.25)  # fmt: skip
EARTH = Grid.of(
    ("time", "lat", "lon"),
    (3, 12, 17),
    CoordLocator(
        (
            Coord("lat", ("lat",), np.linspace(-55.0, 55.0, 12)),
            Coord("lon", ("lon",), np.linspace(0.0, 160.0, 17)),
        ),
        ("lat", "lon"),
    ),
)
DAYS = {"units": "days since 2001-01-10", "calendar": "360_day"}
GLOBE = Grid.of(
    ("time", "lat", "lon"),
    (5, 12, 18),
    CoordLocator(
        (
            Coord("time", ("time",), np.array([0.0, 30.0, 65.0, 90.0, 121.0]), DAYS),
            Coord("lat", ("lat",), np.linspace(66.0, -55.0, 12), {"units": "degrees_north"}),
            Coord("lon", ("lon",), np.arange(18) * 20.0, {"units": "degrees_east"}),
        ),
        ("lat", "lon"),
    ),
)
NORMALS = np.linspace(-8.0, 21.0, 12 * 17).reshape(12, 17)


@dataclass(frozen=True, eq=False)
class Case:
    """A step, where it is tried, and how exact its inverse is.

    Attributes:
        step: as its factory makes it.
        grid: of the arrays that it is tried on.
        low, high: range of the values that it is tried on.
        rtol, atol: how far inverse(forward(x)) may be from x, for float32.
        attrs: the header.
        restores: whether the inverse gives all values back (and not, say, only those inside a window).
        takes_nan: whether it takes NaN at all.
        keeps_dtype: whether floats keep their dtype.
        uncut: dims that a window must take whole, by the step's own docstring.
        whole: whether values are whole numbers.
        computes: whether it makes new values of the pixels that it moves, such as an index of bands, so that
            they do not tell where they came from.
        period: after how much a coordinate is the same again, by its name.
        margin: how far, in pixels, it carries what is at a pixel.
        resamples: how far, in pixels of the input, its values may be from the place that they stand for; it
            computes as well.
        gaps: where the output is NaN, for where the input is; by default in the same pixels.
        joint: whether a pixel is NaN in all bands or in none.
        field: the values that it is tried on, where random ones would not do.
        covers: share of the pixels that a resampling brings back at least.
        replaces: whether it puts another value in the place of some, for good; the others come back.
        relocates: whether it says that pixels lie elsewhere, or moves what is seen in them; its own tests say where.
    """

    step: Step
    grid: Grid = field(default_factory=lambda: PLANE)
    low: float = -1e4
    high: float = 1e4
    rtol: float = 0.0
    atol: float = 0.0
    attrs: Mapping[str, Any] = field(default_factory=dict)
    restores: bool = True
    takes_nan: bool = True
    keeps_dtype: bool = True
    uncut: tuple[str, ...] = ()
    whole: bool = False
    computes: bool = False
    margin: int = 0
    resamples: float | None = None
    period: Mapping[str, float] = field(default_factory=dict)
    gaps: Callable[[Array], Array] | None = None
    joint: bool = False
    field: Callable[[Grid], Array] | None = None
    covers: float = 0.5
    relocates: bool = False
    replaces: bool = False

    def context(self, grid: Grid | None = None, residual: Array | None = None) -> Context:
        """What the step may ask for, the same every time."""
        return Context(grid or self.grid, self.attrs, np.random.default_rng(7), residual)

    def forward(self, x: Array, grid: Grid | None = None) -> Array:
        """Forward value."""
        value: Array = self.step.apply(x, self.context(grid))[0]
        return value


PER_BAND: dict[str, Any] = {"grid": BANDS, "uncut": ("band",)}
FLAGS: dict[str, Any] = {"low": 0, "high": 65535, "whole": True}


def _any_band(missing: Array) -> Array:
    return missing.any(axis=0)


def _first_two(missing: Array) -> Array:
    return np.stack([missing[:2].any(axis=0)] * 2)


def _repeated(missing: Array) -> Array:
    return missing.repeat(3, axis=-2).repeat(3, axis=-1)


def _blocks(missing: Array) -> Array:
    """Where fewer than half of 4 x 4 pixels are there."""
    ny, nx = (size // 4 * 4 for size in missing.shape[-2:])
    cut = missing[..., :ny, :nx]
    return cut.reshape(*cut.shape[:-2], ny // 4, 4, nx // 4, 4).mean(axis=(-3, -1)) > 0.5


def _in_blocks(grid: Grid) -> Array:
    """Values that are one number in each block of 4 x 4."""
    y, x = np.ogrid[: grid.shape[-2], : grid.shape[-1]]
    return np.broadcast_to((y // 4) * 10.0 + x // 4, grid.shape).copy()


def _ramp(grid: Grid) -> Array:
    """Values that grow evenly along all dims."""
    return sum(
        np.arange(size).reshape([-1 if i == axis else 1 for i in range(len(grid.shape))]) * (axis + 1.0)
        for axis, size in enumerate(grid.shape)
    )


def _around(missing: Array) -> Array:
    """Where an interpolation to half pixels meets a pixel that is missing: a block and the edge around it."""
    out = missing.repeat(2, axis=-2).repeat(2, axis=-1)
    for axis in (-2, -1):
        size = out.shape[axis]
        padded = np.concatenate([out.take([0], axis), out, out.take([size - 1], axis)], axis)
        out = padded.take(range(size), axis) | out | padded.take(range(2, size + 2), axis)
    return out


def _none_before_or_after(missing: Array) -> Array:
    there = ~missing
    before = np.logical_or.accumulate(there, 0)
    after = np.logical_or.accumulate(there[::-1], 0)[::-1]
    return missing & ~(before & after)


def _none_at_all(missing: Array) -> Array:
    return np.broadcast_to(missing.all(0), missing.shape)


def _padded(missing: Array) -> Array:
    return np.pad(missing, ((0, 0), (0, 0), (3, 3)), mode="wrap")


def _padded_wide(missing: Array) -> Array:
    return np.concatenate([missing] * 3, 2)


def _same_gaps(missing: Array) -> Array:
    return missing


def _three_of_four(missing: Array) -> Array:
    """Where more than half of the four pixels around are missing."""
    pairs = missing[..., :-1].astype(int) + missing[..., 1:]
    return (pairs[:, :-1] + pairs[:, 1:])[..., :17] > 2


def _any_of_four(missing: Array) -> Array:
    return missing.reshape(5, 6, 2, 9, 2).any(axis=(2, 4))


def _turned(missing: Array) -> Array:
    return np.roll(missing[:, ::-1], 9, axis=2)


def _in_pairs(grid: Grid) -> Array:
    """Values that are one number in each block of 2 x 2."""
    y, x = np.ogrid[: grid.shape[-2], : grid.shape[-1]]
    return np.broadcast_to((y // 2) * 10.0 + x // 2, grid.shape).copy()


def _beside(missing: Array) -> Array:
    """Where a difference of neighbours in latitude, or in longitude around the globe, meets a gap; and the equator."""
    padded = np.pad(missing, ((0, 0), (1, 1), (0, 0)), constant_values=False)
    u = missing | padded[:, :-2] | padded[:, 2:]
    v = missing | np.roll(missing, 1, 2) | np.roll(missing, -1, 2)
    near = np.abs(np.linspace(66.0, -55.0, 12)) < 5.0
    return np.stack([u, v]) | near[:, None]


def _all_bands(missing: Array) -> Array:
    return np.broadcast_to(missing.any(axis=0), (len(missing) - 1, *missing.shape[1:]))


def _resampled(
    missing: Array, method: str, shape: tuple[int, int] = (6, 8), arcsec: float | None = None, fine: int = 1
) -> Array:
    """Where a frame of the Sun takes a pixel that is missing, or none; places by astropy."""
    arcsec = (
        np.tan(np.radians(960 / 3600)) / np.radians(5.0) * 3600 if method == "nearest" else arcsec or 192.0
    )
    ny, nx = shape
    frame = {"CRPIX1": (nx + 1) / 2, "CRPIX2": (ny + 1) / 2, "CRVAL1": 0.0, "CRVAL2": 0.0, "CROTA2": 0.0}
    there = WCS(Header(SUN_HEADER | frame | {"CDELT1": arcsec, "CDELT2": arcsec}))
    y, x = np.indices(shape)
    sky = there.all_pix2world(x, y, 0)
    col, row = ((v + 0.5) * fine - 0.5 for v in WCS(Header(SUN_HEADER)).all_world2pix(*sky, 0))
    taps = [0.5] if method == "nearest" else [0, 1]
    out = (row < -0.5) | (col < -0.5) | (row > missing.shape[0] - 0.5) | (col > missing.shape[1] - 0.5)
    for dy in taps:
        for dx in taps:
            i, j = (np.floor(v + d).astype(int) for v, d in ((row, dy), (col, dx)))
            out |= missing[i.clip(0, missing.shape[0] - 1), j.clip(0, missing.shape[1] - 1)]
    return np.asarray(out)


def _beyond(missing: Array, radius: float, invert: bool = False) -> Array:
    """Where a pixel is missing, or farther from disc centre than so many solar radii (nearer, if inverted)."""
    y, x = np.indices(missing.shape)
    lon, lat = np.radians(WCS(Header(SUN_HEADER)).all_pix2world(x, y, 0))
    away = np.sqrt(1 - (np.cos(lat) * np.cos(lon)) ** 2) / np.sin(np.radians(960 / 3600))
    return missing | ((away > radius) != invert)


def _spun(missing: Array, degrees: tuple[float, float, float], taps: tuple[float, ...]) -> Array:
    """Where a rotation by so many degrees (and the coefficients of sin(lat)**2 and **4) takes a missing pixel."""
    y, x = np.indices(missing.shape)
    wcs, sine = WCS(Header(SUN_HEADER)), np.sin(np.radians(960 / 3600))
    lon, lat = np.radians(wcs.all_pix2world((x + 0.5) / 4 - 0.5, (y + 0.5) / 4 - 0.5, 0))
    rho, position = np.arccos(np.cos(lat) * np.cos(lon)), np.arctan2(np.sin(lat), np.cos(lat) * np.sin(lon))
    with np.errstate(invalid="ignore"):
        centre = np.arcsin(np.sin(rho) / sine) - rho  # angle at Sun centre
    b0 = np.radians(TILT)
    height = np.sin(b0) * np.cos(centre) + np.cos(b0) * np.sin(centre) * np.sin(position)
    hgc = np.arctan2(
        np.sin(centre) * np.cos(position),
        np.cos(b0) * np.cos(centre) - np.sin(b0) * np.sin(centre) * np.sin(position),
    )
    hgc = hgc - np.radians(degrees[0] + degrees[1] * height**2 + degrees[2] * height**4)
    width = np.sqrt(1 - height**2)
    toward = np.sin(b0) * height + np.cos(b0) * width * np.cos(hgc)
    north = np.cos(b0) * height - np.sin(b0) * width * np.cos(hgc)
    west, away = width * np.sin(hgc), 1 / sine - toward
    sky = np.degrees([np.arctan2(west, away), np.arctan2(north, np.hypot(away, west))])
    col, row = ((v + 0.5) * 4 - 0.5 for v in wcs.all_world2pix(*np.nan_to_num(sky), 0))
    out = ~np.isfinite(hgc) | (toward <= sine)
    out |= (row < -0.5) | (col < -0.5) | (row > missing.shape[0] - 0.5) | (col > missing.shape[1] - 0.5)
    for dy in taps:
        for dx in taps:
            i, j = (np.floor(v + d).astype(int) for v, d in ((row, dy), (col, dx)))
            out |= missing[i.clip(0, missing.shape[0] - 1), j.clip(0, missing.shape[1] - 1)]
    return np.asarray(out)


def _earth_goes(days: float) -> float:
    """Degrees by which the Earth goes round in some days from that date on, by sunpy's Carrington longitude."""
    from astropy.time import Time, TimeDelta
    from sunpy.coordinates import sun

    start = Time("2012-03-04T05:06:07.00")
    turn = (
        sun.L0(start + TimeDelta(days, format="jd"), light_travel_time_correction=False)
        - sun.L0(start, light_travel_time_correction=False)
    ).to_value("deg") + 14.1844 * days
    return float((turn + 180) % 360 - 180)


REGION: dict[str, Any] = {"grid": GLOBE, "restores": False, "period": {"lon": 360.0}}
SEASONS = np.linspace(-30, 30, 12 * 12 * 18).reshape(12, 12, 18)
INDEX: dict[str, Any] = {"grid": BANDS, "low": 0.01, "high": 1.0, "computes": True, "gaps": _any_band}
MOVED: dict[str, Any] = {"restores": False, "period": {"HPLN": 360.0}}
CASES: dict[str, tuple[Case, ...]] = {
    "normalize": (
        Case(sg.normalize(mean=812.0, std=340.0), atol=2e-3),
        Case(
            sg.normalize([1.0, -20.0, 300.0], np.array([2.0, 0.5, 1e3])), **PER_BAND, rtol=1e-6, atol=2e-3
        ),
    ),
    "minmax": (
        Case(sg.minmax(-100.0, 4095.0), atol=2e-3),
        Case(sg.minmax(low=(0, 1, 2), high=(10, 12, 14)), **PER_BAND, atol=2e-3),
    ),
    "clip": (Case(sg.clip(-5.0, 70.5)), Case(sg.clip(high=3))),
    "cast": (
        Case(sg.cast("int16"), atol=0.5, takes_nan=False, keeps_dtype=False),
        Case(sg.cast(np.float16), rtol=1e-3, atol=1e-6, keeps_dtype=False),
        Case(sg.cast("float64"), keeps_dtype=False),
    ),
    "crop": (
        Case(sg.crop(y=slice(2, 11), x=slice(3, 16)), restores=False),
        Case(sg.crop(Window(lon=(0, 9))), EARTH, restores=False),
    ),
    "transpose": (Case(sg.transpose("x", "band", "y"), BANDS), Case(sg.transpose(1, 0), PLANE)),
    "flip": (
        Case(sg.flip("y")),
        Case(sg.flip("lat", 2), EARTH),
        Case(sg.flip("y", "x", p=0.5)),
    ),
    "random_flip": (Case(sg.random_flip()), Case(sg.random_flip("lat", 2, p=0.9), EARTH)),
    "random_rot90": (Case(sg.random_rot90(), SQUARE),),
    "random_crop": (
        Case(sg.random_crop(7), BANDS, restores=False),
        Case(sg.random_crop({"lon": 5, "time": 2}), EARTH, restores=False),
    ),
    "add_noise": (
        Case(sg.add_noise(2.0), atol=12.0, gaps=_same_gaps),
        Case(sg.add_noise(std=[0.5, 1.0, 2.0]), **PER_BAND, atol=12.0, gaps=_same_gaps),
    ),
    "band_dropout": (
        Case(sg.band_dropout(0.5), BANDS, replaces=True, restores=False),
        Case(sg.band_dropout(p=0.4, fill=3.0, dim="time"), EARTH, replaces=True, restores=False),
    ),
    "rot90": (
        Case(sg.rot90()),
        Case(sg.rot90(2), EARTH),
        Case(sg.rot90(k=3, dims=("band", "x")), BANDS),
        Case(sg.rot90(-4)),
    ),
    "fill_nan": (Case(sg.fill_nan()), Case(sg.fill_nan(value=-3.5))),
    "stretch.asinh": (
        Case(sg.stretch.asinh(8600.0), rtol=4e-6, atol=2e-5),
        Case(sg.stretch.asinh(vmax=3000.0, a=0.01), rtol=4e-6, atol=2e-5),
    ),
    "stretch.log": (Case(sg.stretch.log(scale=2.5), low=-2.4, rtol=2e-6, atol=1e-5),),
    "stretch.sqrt": (Case(sg.stretch.sqrt(), low=0.0, rtol=4e-7),),
    "stretch.signum_log": (
        Case(sg.stretch.signum_log(), rtol=4e-6),
        Case(sg.stretch.signum_log(scale=0.1, mean=0.2, std=2.0), rtol=6e-6, atol=1e-5),
    ),
    "helio.limb_darkening": (
        Case(sg.helio.limb_darkening(wavelength=617.3), SUN, rtol=2e-7, attrs=SUN_HEADER),
        Case(sg.helio.limb_darkening(Quantity(525, "nm"), law="allen"), SUN, rtol=2e-7, attrs=SUN_HEADER),
        Case(sg.helio.limb_darkening(law="hmi", rsun=Quantity(16, "arcmin")), SUN, rtol=2e-7),
        Case(sg.helio.limb_darkening(coefficients=(0.4, 0.6)), SUN, rtol=2e-7, attrs=SUN_HEADER),
    ),
    "helio.registration": (
        Case(
            sg.helio.registration((6, 8), radius=5.0, method="nearest"), SUN, **MOVED, covers=0.2, field=_ramp,
            atol=2.0, resamples=0.71, gaps=partial(_resampled, method="nearest"), attrs=SUN_HEADER,
        ),
        Case(
            sg.helio.registration(shape=(24, 32), scale=48.0), FINE_SUN, **MOVED, covers=0.05, field=_ramp,
            atol=1.6, resamples=1e-3, gaps=partial(_resampled, method="linear", shape=(24, 32), arcsec=48.0, fine=4),
        ),
        Case(
            sg.helio.registration((24, 32), scale=Quantity(0.8, "arcmin"), method="cubic", rsun=970.0),
            FINE_SUN, **MOVED, covers=0.05, field=_ramp, atol=1.6, resamples=1e-3,
            gaps=partial(_resampled, method="linear", shape=(24, 32), arcsec=48.0, fine=4),
        ),
    ),
    "helio.differential_rotation": (
        Case(
            sg.helio.differential_rotation(0.8), SPINNING, field=_ramp, atol=0.8, resamples=0.5, relocates=True,
            covers=0.08, gaps=partial(_spun, degrees=tuple(
                np.degrees(v * 0.0864) * 0.8 - (_earth_goes(0.8) if not i else 0)
                for i, v in enumerate((2.894, -0.428, -0.370))
            ), taps=(0, 1)),
        ),
        Case(
            sg.helio.differential_rotation(Quantity(-30, "h"), model="rigid", method="nearest"), SPINNING, field=_ramp,
            atol=8.0, resamples=0.5, relocates=True, covers=0.08,
            gaps=partial(_spun, degrees=(-1.25 * 14.1844 - _earth_goes(-1.25), 0, 0), taps=(0.5,)),
        ),
        Case(
            sg.helio.differential_rotation(to="2012-03-05T12:00:00", model="allen", method="cubic", rsun=960),
            SPINNING, field=_ramp, atol=0.8, resamples=0.5, relocates=True, covers=0.08,
            gaps=partial(_spun, degrees=(
                14.44 * 111233 / 86400 - _earth_goes(111233 / 86400), -3.0 * 111233 / 86400, 0), taps=(0, 1)),
        ),
    ),
    "helio.off_limb_mask": (
        Case(sg.helio.off_limb_mask(), SUN, restores=False, attrs=SUN_HEADER, gaps=partial(_beyond, radius=1.0)),
        Case(
            sg.helio.off_limb_mask(0.9, invert=True, rsun=Quantity(16, "arcmin")), SUN, restores=False,
            gaps=partial(_beyond, radius=0.9, invert=True),
        ),
    ),
    "helio.mu_map": (Case(sg.helio.mu_map(), SUN, attrs=SUN_HEADER, gaps=np.zeros_like), Case(
        sg.helio.mu_map(rsun=950.0), SUN, gaps=np.zeros_like),
    ),
    "helio.radial_field": (
        Case(
            sg.helio.radial_field(), SUN, restores=False, rtol=4e-7, attrs=SUN_HEADER,
            gaps=partial(_beyond, radius=np.sqrt(1 - 0.2**2)),
        ),
        Case(
            sg.helio.radial_field(limit=0, rsun=960), SUN, restores=False, rtol=4e-7,
            gaps=partial(_beyond, radius=1.0),
        ),
    ),
    "helio.aia_stretch": (
        Case(sg.helio.aia_stretch(), rtol=4e-6, atol=2e-5, attrs={"WAVELNTH": 304}),
        Case(sg.helio.aia_stretch(Quantity(17.1, "nm")), rtol=4e-6, atol=2e-5),
    ),
    "helio.degradation": (
        Case(
            sg.helio.degradation({"2010-05-01": 1.0, "2014-02-03T12:00:00": 0.7, "2020-01-01": 0.42}), rtol=2e-7,
            attrs={"T_OBS": "2012-03-04T05:06:07"},
        ),
    ),
    "helio.pointing": (
        Case(sg.helio.pointing(), POINTED, relocates=True),
        Case(
            sg.helio.pointing({
                "T_START": ["2012-03-04T00:00:00Z", "2012-03-04T03:00:00Z"],
                "T_STOP": ["2012-03-04T03:00:00Z", "2012-03-04T06:00:00Z"],
                "A_171_X0": [8.0, 9.0], "A_171_Y0": [5.0, 5.5], "A_171_IMSCALE": [150.0, 151.0],
                "A_171_INSTROT": [0.1, 0.2],
            }),
            POINTED, relocates=True,
        ),
    ),
    "helio.limb_profile": (
        Case(sg.helio.limb_profile(), FINE_SUN, low=100.0, high=200.0, rtol=2e-7, attrs=SUN_HEADER),
        Case(sg.helio.limb_profile(degree=2, rsun=Quantity(16, "arcmin")), SUN, low=100.0, high=200.0, rtol=2e-7),
    ),
    "helio.exposure": (
        Case(sg.helio.exposure(), rtol=2e-7, attrs={"EXPTIME": 2.9, "BUNIT": "DN"}),
        Case(sg.helio.exposure(card="SHT_MDUR"), rtol=2e-7, attrs={"SHT_MDUR": 23.1719}),
    ),
    "remote.reflectance": (
        Case(sg.remote.reflectance(2.75e-5, -0.2), rtol=4e-7, atol=2e-3),
        Case(sg.remote.reflectance([1e-4, 2e-4, 3e-4], offset=-0.1), **PER_BAND, rtol=4e-7, atol=1e-3),
    ),
    "remote.radiance": (
        Case(sg.remote.radiance(1.2147e-2, -60.7), rtol=1e-6, atol=4e-3),
        Case(sg.remote.radiance([0.01, 0.02, 0.03], offset=[-60.0, -50.0, 0.1]), **PER_BAND, rtol=1e-6, atol=4e-3),
    ),
    "remote.toa_reflectance": (
        Case(sg.remote.toa_reflectance(2e-5, -0.1, 43.53), rtol=4e-7, atol=4e-3),
        Case(
            sg.remote.toa_reflectance([2e-5, 3e-5, 4e-5], -0.1, sun_elevation=Quantity(0.5, "rad")),
            **PER_BAND, rtol=4e-7, atol=4e-3,
        ),
    ),
    "remote.sentinel2": (
        Case(sg.remote.sentinel2("05.10"), rtol=4e-7, atol=2e-3),
        Case(sg.remote.sentinel2(baseline="N0301", quantification=1000.0), rtol=4e-7),
    ),
    "remote.brightness_temperature": (
        Case(
            sg.remote.brightness_temperature(774.8853, 1321.0789, 3.3420e-4, 0.1),
            low=1.0, high=65535.0, rtol=4e-6, atol=0.1,
        ),
        Case(sg.remote.brightness_temperature(k1=607.76, k2=1260.56), low=1.0, high=25.0, rtol=4e-6),
    ),
    "remote.decibel": (
        Case(sg.remote.decibel(), low=1e-5, high=40.0, rtol=2e-6),
        Case(sg.remote.decibel(amplitude=True), low=1e-3, rtol=2e-6),
        Case(sg.remote.decibel(floor=1e-3), low=-0.6, high=40.0, rtol=2e-6, atol=0.602),
    ),
    "remote.qa_mask": (
        Case(sg.remote.qa_mask(["cloud", "cloud_confidence"], levels={"cloud_confidence": 2}), **FLAGS),
        Case(sg.remote.qa_mask((0, 3)), **FLAGS),
        Case(sg.remote.qa_mask("snow", sensor="modis_state"), **FLAGS),
    ),
    "remote.class_mask": (
        Case(sg.remote.class_mask(["cirrus", 9]), low=0, high=11, whole=True),
        Case(sg.remote.class_mask("cloud_shadow", invert=True), low=0, high=11, whole=True),
    ),
    "remote.nodata": (
        Case(sg.remote.nodata(0), low=0, high=3, whole=True),
        Case(sg.remote.nodata(value=-9999.0), low=-9999.0, high=-9990.0, whole=True),
    ),
    "remote.index": (
        Case(sg.remote.index("EVI", bands=["blue", "red", "nir"]), **INDEX),
        Case(sg.remote.index(["NDVI", "MSAVI"], ("red", "nir", "coastal")), **{**INDEX, "gaps": _first_two}),
    ),
    "remote.upsample": (
        Case(sg.remote.upsample(3), BANDS, rtol=4e-7, resamples=0.34, gaps=_repeated),
        Case(
            sg.remote.upsample(factor=2, method="bilinear"), BANDS, field=_ramp, atol=1.3, resamples=0.26, gaps=_around,
        ),
    ),
    "remote.downsample": (
        Case(sg.remote.downsample(4), BANDS, restores=False, field=_in_blocks, rtol=1e-6, resamples=0.0, gaps=_blocks),
        Case(sg.remote.downsample(1, valid=0.0), restores=False, resamples=0.0),
    ),
    "remote.pansharpen": (
        Case(
            sg.remote.pansharpen(), BANDS, low=0.01, high=1.0, rtol=1e-6, joint=True, computes=True, gaps=_all_bands,
        ),
        Case(
            sg.remote.pansharpen(pan=0, method="ihs"), BANDS, low=0.01, high=1.0, atol=1e-6, joint=True,
            computes=True, gaps=_all_bands,
        ),
    ),
    "climate.anomaly": (
        Case(sg.climate.anomaly(15.25), EARTH, atol=1e-3),
        Case(sg.climate.anomaly(NORMALS, std=abs(NORMALS) + 1), EARTH, atol=1e-3),
        Case(sg.climate.anomaly(np.stack([NORMALS, -NORMALS, 2 * NORMALS])), EARTH, atol=1e-3),
        Case(sg.climate.anomaly(NORMALS[:, :1].astype(np.float32)), EARTH, atol=1e-3),
        Case(sg.climate.anomaly(SEASONS, abs(SEASONS) + 1, by="month"), GLOBE, atol=1e-3),
        Case(sg.climate.anomaly(np.arange(366.0).reshape(366, 1, 1), by="dayofyear"), GLOBE, atol=1e-3),
    ),
    "climate.subset": (
        Case(sg.climate.subset(lon=(-70, 45), lat=(-30, 60), time=("2001-02", "2001-04-15")), **REGION),
        Case(sg.climate.subset(lon=(-180, 180)), **REGION),
        Case(sg.climate.subset(x=(500100.0, 500400.0), y=(4099700.0, 4.1e6)), restores=False),
    ),
    "climate.cyclic": (
        Case(sg.climate.cyclic(3), GLOBE, period={"lon": 360.0}, gaps=_padded),
        Case(sg.climate.cyclic(width=18, dim="lon"), GLOBE, period={"lon": 360.0}, gaps=_padded_wide),
    ),
    "climate.detrend": (
        Case(sg.climate.detrend(), GLOBE, rtol=1e-6, atol=2e-3, computes=True, gaps=_same_gaps),
        Case(sg.climate.detrend(dim="y"), rtol=1e-6, atol=2e-3, computes=True, margin=12, gaps=_same_gaps),
    ),
    "climate.fill_gaps": (
        Case(sg.climate.fill_gaps(), GLOBE),
        Case(sg.climate.fill_gaps("inpaint", limit=2.5), BANDS),
        Case(sg.climate.fill_gaps(method="inpaint"), GLOBE),
    ),
    "climate.fill_time": (
        Case(sg.climate.fill_time(), GLOBE, computes=True, gaps=_none_before_or_after),
        Case(sg.climate.fill_time(dim="band", ends=True), BANDS, computes=True, gaps=_none_at_all),
    ),
    "climate.fft": (
        Case(sg.climate.fft(), GLOBE, takes_nan=False, computes=True, rtol=1e-6, atol=2e-3),
        Case(sg.climate.fft(["y", 2], shift=True), BANDS, takes_nan=False, computes=True, rtol=1e-6, atol=2e-3),
    ),
    "climate.regrid": (
        Case(
            sg.climate.regrid(np.linspace(60.5, -49.5, 11), np.arange(10.0, 350.0, 20.0), valid=0.5), GLOBE,
            field=_ramp, atol=6.0, resamples=0.0, gaps=_three_of_four,
        ),
        Case(
            sg.climate.regrid(lat=np.linspace(-55.0, 66.0, 12), lon=np.arange(-180, 180, 20), method="nearest"),
            GLOBE, restores=False, resamples=0.0, period={"lon": 360.0}, gaps=_turned,
        ),
        Case(
            sg.climate.regrid(np.arange(60.5, -60, -22), np.arange(10.0, 350.0, 40.0), "conservative", valid=0.9),
            GLOBE, field=_in_pairs, restores=False, rtol=1e-6, atol=1e-6, resamples=0.2, gaps=_any_of_four,
        ),
    ),
    "climate.geostrophic": (
        Case(sg.climate.geostrophic(), GLOBE, low=-2.0, high=2.0, computes=True, margin=1, gaps=_beside),
    ),
}  # fmt: skip


def registered() -> set[str]:
    """Names of the steps that streamgeo itself registers (tests and doctests register more)."""
    return {
        name
        for name, factory in REGISTRY.items()
        if factory.__module__.startswith("streamgeo.") and factory.__module__ != "streamgeo.step"
    }


def pixels(case: Case, seed: int, *, gaps: bool = True, dtype: Any = np.float32) -> Array:
    """Values for a case, a tenth of them NaN where it takes NaN."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(case.low, case.high, case.grid.shape)
    values = values if case.field is None else case.field(case.grid)
    if np.dtype(dtype).kind in "iu":
        limits = np.iinfo(dtype)
        values = values.clip(max(limits.min, np.ceil(case.low)), min(limits.max, case.high))
        values = np.maximum(values, 1) if 0 < case.low < 1 else values  # such as powers, for decibels
    values = (np.rint(values) if case.whole else values).astype(dtype)
    if gaps and case.takes_nan and np.dtype(dtype).kind == "f":
        missing = rng.random(values.shape) < 0.1
        values[np.broadcast_to(missing[:1], values.shape) if case.joint else missing] = np.nan
    return values


def frozen(x: Array) -> Array:
    """The same values, not to be written to."""
    x = x.copy()
    x.flags.writeable = False
    return x


def some_window(grid: Grid, rng: np.random.Generator, uncut: tuple[str, ...] = ()) -> Window:
    """A window inside a grid."""
    box: dict[str, tuple[int, int]] = {}
    for dim, size in grid.sizes.items():
        start = int(rng.integers(0, size))
        box[dim] = (0, size) if dim in uncut else (start, int(rng.integers(start + 1, size + 1)))
    return Window(box)


# -- the laws -----------------------------------------------------------------------------------------------


def inverse_restores(case: Case, x: Array) -> None:
    """inverse(forward(x)) = x, within the tolerance that the case declares."""
    y, residual = case.step.apply(x, case.context())
    back = case.step.invert(y, case.context(residual=residual))
    assert back.shape == x.shape
    expected = x
    if case.replaces:
        kept = (y == x) | (np.isnan(y) & np.isnan(x))
        assert kept.any()
        expected = np.where(kept, x, y)
    elif case.resamples is not None and case.step.lossy is not None:  # means over gaps fill them
        both = np.isfinite(back) & np.isfinite(x)
        assert both.sum() > case.covers * np.isfinite(x).sum()
        back, expected = back[both], x[both]
    elif not case.restores:
        kept = np.isfinite(back)
        assert kept.any()
        assert kept.sum() == np.isfinite(y).sum()
        expected = np.where(kept, x, np.nan)
    np.testing.assert_allclose(back, expected, rtol=case.rtol, atol=case.atol, equal_nan=True)


def window_commutes(case: Case, x: Array, window: Window) -> None:
    """Forward on a window is the window of forward on the scene, bit for bit: what ``reach`` promises."""
    grid = case.grid
    step = case.step.settled(lambda: np.random.default_rng(7), lambda: grid)  # what it has drawn, if it draws
    whole = case.forward(x)
    after = step.grid_after(grid)
    assert whole.shape == after.shape == case.step.grid_after(grid).shape
    expected = whole[window.slices(after.dims)]
    if step.moves is not None:
        assert step.moves.source is not None
        source = step.moves.source(window, grid).complete(grid.dims, grid.shape)
        assert source.within(grid.dims, grid.shape)
        part = x[source.slices(grid.dims)]
        given = step.moves.cut_for(window, grid)
        cut = step if given is None else Step(given)
        found = cut.apply(part, case.context(grid.crop(source)))[0]
        if not step.moves.windowed:
            part_grid = grid.crop(source) if given is not None else step.moves.grid(grid.crop(source))
            assert part_grid == after.crop(window)
    else:
        assert step.reach.margin is not None
        around = window.expand(step.reach.margin).clip(grid.dims, grid.shape)
        wider = case.forward(x[around.slices(grid.dims)], grid.crop(around))
        found = wider[window.relative_to(around).slices(grid.dims)]
    np.testing.assert_array_equal(found, expected)


def plan_commutes(case: Case, x: Array, window: Window) -> None:
    """What a chain reads for a window is the window of what it computes for the scene, bit for bit."""
    parent = ArrayScene(x, case.grid, Template("numpy", case.grid.dims, attrs=case.attrs), name="x")
    scene = StepScene(parent, case.step, Draw(Run(), 0, 0))
    assert scene.pushes_down
    whole = case.forward(x)
    assert (scene.dims, scene.shape, scene.dtype) == (scene.grid.dims, whole.shape, whole.dtype)
    np.testing.assert_array_equal(scene.read(window), whole[window.slices(scene.dims)])


def grid_follows(case: Case, x: Array) -> None:
    """A pixel keeps its place in the world: the step moves the pixel numbers as its grid says."""
    step, grid = case.step, case.grid
    if case.relocates:
        assert step.grid_after(grid).sizes == grid.sizes
        return
    if case.resamples is not None:
        _place_follows(case, case.resamples)
        return
    if case.computes:
        _change_follows(case, x)
        return
    numbers = np.arange(float(np.prod(grid.shape))).reshape(grid.shape)
    moved, residual = step.apply(numbers, case.context())
    after = step.grid_after(grid, residual)
    spatial = [dim for dim in grid.dims if grid.locator is not None and dim in grid.locator.dims]
    index = {d: np.unravel_index(moved.astype(int), grid.shape)[grid.dims.index(d)] for d in spatial}
    own = dict(zip(after.dims, np.indices(after.shape)))
    before = grid.pixel_to_world(**index)
    for name, values in after.pixel_to_world(**{dim: own[dim] for dim in spatial}).items():
        if name in case.period:
            turns = np.round((values - before[name]) / case.period[name])
            values = values - turns * case.period[name]
        np.testing.assert_allclose(values, before[name], rtol=1e-12, atol=1e-12)


def _place_follows(case: Case, near: float) -> None:
    """What it makes of the coordinates of the pixels are the coordinates of its own pixels."""
    grid, after = case.grid, case.step.grid_after(case.grid)
    places = [dict(zip(g.dims, np.indices(g.shape))) for g in (grid, after)]
    before, here = (
        g.pixel_to_world(**{dim: index[dim] for dim in g.dims if dim in g.spatial or g.axis(dim).located})
        for g, index in zip((grid, after), places)
    )
    for name, values in here.items():
        for axis in range(before[name].ndim if name in case.period else 0):
            before[name] = np.unwrap(before[name], axis=axis, period=case.period[name])
        steps = [np.abs(np.diff(before[name], axis=axis)).max(initial=0) for axis in range(before[name].ndim)]
        found = case.forward(np.broadcast_to(before[name], grid.shape).copy())
        if name in case.period:
            values = values + np.round((found - values) / case.period[name]) * case.period[name]
        np.testing.assert_allclose(
            found, np.broadcast_to(values, after.shape), rtol=1e-9, atol=near * max(steps) + 1e-9
        )


def _change_follows(case: Case, x: Array) -> None:
    """A single pixel that is changed in all bands changes the output at its place in the world, and only there."""
    grid, after = case.grid, case.step.grid_after(case.grid)
    x = np.nan_to_num(x, nan=case.low)
    spatial = [dim for dim in grid.spatial if after.axis(dim).located]
    place = tuple(3 if dim in grid.spatial else slice(None) for dim in grid.dims)
    changed = x.copy()
    changed[place] = np.nan if case.takes_nan else x[place] + 1
    a, b = case.forward(x), case.forward(changed)
    found = np.argwhere(~((a == b) | (np.isnan(a) & np.isnan(b))))
    assert len(found)
    if len(spatial) < len(grid.spatial):  # frequencies lie nowhere
        assert not any(after.axis(dim).located for dim in grid.spatial)
        return
    here = after.pixel_to_world(**{dim: found[:, after.dims.index(dim)] for dim in spatial})
    there = grid.pixel_to_world(**dict.fromkeys(spatial, 3))
    beside = grid.pixel_to_world(**dict.fromkeys(spatial, 3 + case.margin))
    for name, value in there.items():
        distance = np.abs(here[name] - value)
        assert distance.min() <= 1e-9
        assert distance.max() <= np.abs(beside[name] - value) + 1e-9


def dtype_as_declared(case: Case) -> None:
    """Floats keep their dtype, integers become float32 or stay, and ``dtype_after`` tells which."""
    for dtype in (np.float32, np.float64, np.int16, np.int32, np.uint8):
        x = np.ones(case.grid.shape, dtype)
        y = case.forward(x)
        assert y.dtype == case.step.dtype_after(x.dtype)
        assert y.dtype.isnative
        if case.keeps_dtype and np.dtype(dtype).kind == "f":
            assert y.dtype == dtype


def layouts_do_not_matter(case: Case, x: Array) -> None:
    """Views with gaps or with a negative stride, Fortran order and the other byte order give the same values."""
    wide = np.full([2 * size for size in x.shape], 7, x.dtype)
    apart = wide[(slice(None, None, 2),) * x.ndim]
    apart[...] = x
    swapped = x.dtype.newbyteorder("S")
    given = {
        "gaps": apart,
        "backwards": np.ascontiguousarray(x[..., ::-1])[..., ::-1],
        "fortran": np.asfortranarray(x),
        "byte order": x.astype(swapped),
    }
    expected, residual = case.step.apply(x, case.context())
    back = None
    if case.step.inverse is not None:
        back = case.step.invert(expected, case.context(residual=residual))
    for name, view in given.items():
        found = case.forward(view)
        assert found.dtype == expected.dtype, name
        np.testing.assert_array_equal(found, expected, err_msg=name)
    np.testing.assert_array_equal(x, apart)
    if back is not None:
        prediction = np.asfortranarray(expected).astype(expected.dtype.newbyteorder("S"))
        found = case.step.invert(prediction, case.context(residual=residual))
        assert found.dtype == back.dtype
        np.testing.assert_array_equal(found, back)


def nothing_is_nothing(case: Case, x: Array) -> None:
    """A window without pixels gives none, of the shape and dtype that were told."""
    grid = case.grid
    step = case.step.settled(lambda: np.random.default_rng(7), lambda: grid)
    after = step.grid_after(grid)
    for empty in (dim for dim in after.dims if dim not in case.uncut):
        window = Window({dim: (0, 0 if dim == empty else size) for dim, size in after.sizes.items()})
        source, cut = window, step
        if step.moves is not None:
            assert step.moves.source is not None
            source = step.moves.source(window, grid).complete(grid.dims, grid.shape)
            given = step.moves.cut_for(window, grid)
            cut = step if given is None else Step(given)
        found = cut.apply(x[source.slices(grid.dims)], case.context(grid.crop(source)))[0]
        assert found.shape == window.shape
        assert found.dtype == step.dtype_after(x.dtype)


def all_missing_stays_missing(case: Case) -> None:
    """Where nothing is known nothing becomes known, in both directions; or the step says that it needs values."""
    x = np.full(case.grid.shape, np.nan, np.float32)
    try:
        y, residual = case.step.apply(x, case.context())
    except StepError as error:
        assert any(word in str(error) for word in ("NaN", "too few")), error
        return
    if case.step.inverse is not None:
        y = case.step.invert(y, case.context(residual=residual))
    assert np.isnan(y).all() or case.gaps is np.zeros_like


def nan_stays(case: Case, x: Array) -> None:
    """Where the input is NaN the output is NaN, and nowhere else; what fills NaN brings it back."""
    y, residual = case.step.apply(x, case.context())
    if case.step.keeps_residual and case.gaps is None and case.step.moves is None and not case.step.random:
        y = case.step.invert(y, case.context(residual=residual))
    missing = np.isnan(x)
    if case.gaps is not None:
        missing = case.gaps(missing)
    elif case.step.moves is not None or case.step.random:
        missing = case.forward(missing.astype(np.float32)) == 1
    np.testing.assert_array_equal(np.isnan(y), missing)


def input_untouched(case: Case, x: Array) -> None:
    """Neither forward nor inverse writes to what it is given; both take read-only arrays."""
    given = frozen(x)
    y, residual = case.step.apply(given, case.context())
    np.testing.assert_array_equal(given, x)
    if case.step.inverse is None:
        return
    prediction = frozen(y)
    case.step.invert(prediction, case.context(residual=None if residual is None else frozen(residual)))
    np.testing.assert_array_equal(prediction, y)


def same_step(case: Case, other: Step, x: Array) -> None:
    """Another step that equals this one and gives the same values."""
    assert other == case.step
    assert hash(other) == hash(case.step)
    np.testing.assert_array_equal(other.apply(x, case.context())[0], case.forward(x))


def survives_pickle(case: Case, x: Array) -> None:
    """A pickled step is the same step."""
    other = pickle.loads(pickle.dumps(case.step))
    same_step(case, other, x)
    assert repr(other) == repr(case.step)


def survives_json(case: Case, x: Array) -> None:
    """A step saved by name and parameters is the same step."""
    same_step(case, step_from_json(case.step.to_json()), x)


def repr_builds(case: Case, x: Array) -> None:
    """The repr is the call that makes the step."""
    same_step(case, eval(repr(case.step), {"sg": sg, "np": np, "Quantity": Quantity}), x)
