"""The laws that every registered step obeys, and one case or more for each of them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from astropy.io.fits import Header
from astropy.units import Quantity

import streamgeo as sg
import streamgeo.catalog  # registers every step
from streamgeo.grid import Grid
from streamgeo.locate import Coord, CoordLocator, GeoLocator, WcsLocator
from streamgeo.step import REGISTRY, Context, Step, step_from_json
from streamgeo.window import Window

Array = np.ndarray[Any, np.dtype[Any]]

EXEMPT = {
    "patch": "makes many samples of one, so its laws are others: tests/test_patch.py",
    **dict.fromkeys(
        ("open", "open_fits", "open_geotiff", "open_netcdf", "open_hdf5", "open_numpy"),
        "take paths, not arrays: tests of the formats",
    ),
}

AFFINE = GeoLocator((30.0, 0.0, 500000.0, 0.0, -30.0, 4100000.0), "EPSG:32633")
PLANE = Grid.of(("y", "x"), (12, 17), AFFINE)
BANDS = Grid.of(("band", "y", "x"), (3, 12, 17), AFFINE)
SUN_HEADER = {
    "NAXIS": 2, "NAXIS1": 17, "NAXIS2": 12, "CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN", "CUNIT1": "arcsec",
    "CUNIT2": "arcsec", "CRPIX1": 8.3, "CRPIX2": 6.1, "CRVAL1": 35.0, "CRVAL2": -12.0, "CDELT1": 150.0,
    "CDELT2": 160.0, "CROTA2": 12.0, "RSUN_OBS": 960.0, "EXPTIME": 2.9,
}  # fmt: skip
SUN = Grid.of(("y", "x"), (12, 17), WcsLocator(Header(SUN_HEADER).tostring(), ("y", "x"), ("y", "x")))
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

    def context(self, grid: Grid | None = None, residual: Array | None = None) -> Context:
        """What the step may ask for, the same every time."""
        return Context(grid or self.grid, self.attrs, np.random.default_rng(7), residual)

    def forward(self, x: Array, grid: Grid | None = None) -> Array:
        """Forward value."""
        value: Array = self.step.apply(x, self.context(grid))[0]
        return value


PER_BAND: dict[str, Any] = {"grid": BANDS, "uncut": ("band",)}
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
    "helio.exposure": (
        Case(sg.helio.exposure(), rtol=2e-7, attrs={"EXPTIME": 2.9, "BUNIT": "DN"}),
        Case(sg.helio.exposure(card="SHT_MDUR"), rtol=2e-7, attrs={"SHT_MDUR": 23.1719}),
    ),
    "remote.reflectance": (
        Case(sg.remote.reflectance(2.75e-5, -0.2), rtol=4e-7, atol=2e-3),
        Case(sg.remote.reflectance([1e-4, 2e-4, 3e-4], offset=-0.1), **PER_BAND, rtol=4e-7, atol=1e-3),
    ),
    "climate.anomaly": (
        Case(sg.climate.anomaly(15.25), EARTH, atol=1e-3),
        Case(sg.climate.anomaly(NORMALS, std=abs(NORMALS) + 1), EARTH, atol=1e-3),
        Case(sg.climate.anomaly(np.stack([NORMALS, -NORMALS, 2 * NORMALS])), EARTH, atol=1e-3),
        Case(sg.climate.anomaly(NORMALS[:, :1].astype(np.float32)), EARTH, atol=1e-3),
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
    values = rng.uniform(case.low, case.high, case.grid.shape).astype(dtype)
    if gaps and case.takes_nan and np.dtype(dtype).kind == "f":
        values[rng.random(values.shape) < 0.1] = np.nan
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
    if not case.restores:
        kept = np.isfinite(back)
        assert kept.any()
        assert kept.sum() == np.isfinite(y).sum()
        expected = np.where(kept, x, np.nan)
    np.testing.assert_allclose(back, expected, rtol=case.rtol, atol=case.atol, equal_nan=True)


def window_commutes(case: Case, x: Array, window: Window) -> None:
    """Forward on a window is the window of forward on the scene, bit for bit: what ``reach`` promises."""
    step, grid = case.step, case.grid
    whole = case.forward(x)
    after = step.grid_after(grid)
    assert whole.shape == after.shape
    expected = whole[window.slices(after.dims)]
    if step.moves is not None:
        assert step.moves.source is not None
        source = step.moves.source(window, grid).complete(grid.dims, grid.shape)
        assert source.within(grid.dims, grid.shape)
        part = x[source.slices(grid.dims)]
        cut = step if step.moves.cut is None else Step(step.moves.cut)
        found = cut.apply(part, case.context(grid.crop(source)))[0]
        part_grid = grid.crop(source) if step.moves.cut is not None else step.moves.grid(grid.crop(source))
        assert part_grid == after.crop(window)
    else:
        assert step.reach.margin is not None
        around = window.expand(step.reach.margin).clip(grid.dims, grid.shape)
        wider = case.forward(x[around.slices(grid.dims)], grid.crop(around))
        found = wider[window.relative_to(around).slices(grid.dims)]
    np.testing.assert_array_equal(found, expected)


def grid_follows(case: Case, x: Array) -> None:
    """A pixel keeps its place in the world: the step moves the pixel numbers as its grid says."""
    step, grid = case.step, case.grid
    numbers = np.arange(float(np.prod(grid.shape))).reshape(grid.shape)
    moved, after = case.forward(numbers), step.grid_after(grid)
    spatial = [dim for dim in grid.dims if grid.locator is not None and dim in grid.locator.dims]
    index = {d: np.unravel_index(moved.astype(int), grid.shape)[grid.dims.index(d)] for d in spatial}
    own = dict(zip(after.dims, np.indices(after.shape)))
    before = grid.pixel_to_world(**index)
    for name, values in after.pixel_to_world(**{dim: own[dim] for dim in spatial}).items():
        np.testing.assert_allclose(values, before[name], rtol=1e-12, atol=1e-12)


def dtype_as_declared(case: Case) -> None:
    """Floats keep their dtype, integers become float32 or stay, and ``dtype_after`` tells which."""
    for dtype in (np.float32, np.float64, np.int16, np.int32, np.uint8):
        x = np.ones(case.grid.shape, dtype)
        y = case.forward(x)
        assert y.dtype == case.step.dtype_after(x.dtype)
        assert y.dtype.isnative
        if case.keeps_dtype and np.dtype(dtype).kind == "f":
            assert y.dtype == dtype
    swapped = np.ones(case.grid.shape, np.float32)
    np.testing.assert_array_equal(case.forward(swapped.astype(">f4")), case.forward(swapped))


def nan_stays(case: Case, x: Array) -> None:
    """Where the input is NaN the output is NaN, and nowhere else; what fills NaN brings it back."""
    y, residual = case.step.apply(x, case.context())
    if case.step.keeps_residual and case.step.moves is None and not case.step.random:
        y = case.step.invert(y, case.context(residual=residual))
    missing = np.isnan(x)
    if case.step.moves is not None or case.step.random:
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
