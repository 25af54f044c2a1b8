from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import streamgeo as sg
from streamgeo.errors import InverseError, StepError
from streamgeo.grid import Grid
from streamgeo.step import Step
from streamgeo.window import Window
from tests.laws import BANDS, EARTH, NORMALS, PLANE, SUN

CUBE = np.arange(np.prod(BANDS.shape), dtype=np.float32).reshape(BANDS.shape)

finite = st.floats(-1e6, 1e6, width=32)


# -- normalize, minmax, clip ---------------------------------------------------------------------------


@given(hnp.arrays(np.float32, (4, 5), elements=finite), st.floats(-1e4, 1e4), st.floats(1e-3, 1e4))
def test_normalize_is_the_formula(x: np.ndarray, mean: float, std: float) -> None:
    y = sg.normalize(mean, std)(x)
    expected = (x.astype(np.float64) - mean) / std
    scale = max(abs(mean), float(np.abs(x).max())) / std
    np.testing.assert_allclose(y, expected, rtol=3e-7, atol=3e-7 * scale + 1e-30)


def test_normalize_makes_zero_mean_and_unit_std() -> None:
    x = np.random.default_rng(0).normal(812, 340, 10000)
    y = sg.normalize(x.mean(), x.std())(x)
    assert abs(y.mean()) < 1e-12
    assert abs(y.std() - 1) < 1e-12


def test_per_band_numbers_apply_to_axis_minus_3() -> None:
    y = sg.normalize(mean=[0, 100, 200], std=[1, 2, 4])(np.stack([CUBE, CUBE]))
    for i, (mean, std) in enumerate(((0, 1), (100, 2), (200, 4))):
        np.testing.assert_array_equal(y[1, i], (CUBE[i] - mean) / std)


@pytest.mark.parametrize("shape", [(12, 17), (2, 12, 17), (12, 17, 3)])
def test_per_band_numbers_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(StepError, match=r"normalize: 3 numbers.*axis -3"):
        sg.normalize([0.0, 1.0, 2.0], 1.0)(np.zeros(shape))


def test_large_integers_are_not_rounded_before_the_mean_is_taken() -> None:
    x = np.array([2**24 + 1, 2**24 + 3], np.int32)
    assert sg.normalize(2**24, 1.0)(x).tolist() == [1.0, 3.0]


def test_float16_is_computed_in_float32() -> None:
    y = sg.normalize(60000.0, 0.5)(np.array([60000, 60032], np.float16))
    assert y.dtype == np.float16
    assert y.tolist() == [0.0, 64.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sg.normalize(0.0, 0.0), r"normalize: std=0.0 must be finite and above 0"),
        (lambda: sg.normalize(0.0, -1.0), r"std=-1.0"),
        (lambda: sg.normalize(math.nan, 1.0), r"mean=nan must be finite"),
        (lambda: sg.normalize([0.0, 1.0], [1.0, math.inf]), r"std=inf"),
        (lambda: sg.normalize("a", 1.0), r"mean='a' is not a number"),
        (lambda: sg.normalize(np.zeros((2, 2)), 1.0), r"shape \(2, 2\)"),
        (lambda: sg.normalize(mean=1.0), r"normalize: missing a required argument: 'std'"),
        (lambda: sg.minmax(1.0, 1.0), r"minmax: low=1.0 must be below high=1.0"),
        (lambda: sg.minmax([0, 5], [1, 4]), r"must be below"),
        (lambda: sg.minmax([0, 5], [1, 4, 9]), r"different numbers of bands"),
        (lambda: sg.clip(), r"clip: give low=, high=, or both"),
        (lambda: sg.clip(2, 1), r"clip: low=2 is above high=1"),
        (lambda: sg.clip(math.nan), r"clip: low: nan is not finite"),
        (lambda: sg.cast("complex64"), r"cast: complex64 is neither"),
        (lambda: sg.cast("bool"), r"cast: bool is neither"),
        (lambda: sg.cast("float17"), r"cast: 'float17' is not a dtype"),
        (lambda: sg.fill_nan(math.nan), r"fill_nan: value: nan is not finite"),
        (lambda: sg.stretch.asinh(0.0), r"stretch.asinh: vmax=0.0 must be above 0"),
        (lambda: sg.stretch.asinh(1.0, a=-1), r"stretch.asinh: a=-1.0 must be above 0"),
        (lambda: sg.stretch.log(0), r"stretch.log: scale=0.0"),
        (lambda: sg.stretch.signum_log(std=0), r"stretch.signum_log: std=0.0"),
        (lambda: sg.crop(), r"crop: give a Window"),
        (lambda: sg.crop(Window(y=(0, 1)), x=(0, 1)), r"crop: give a Window"),
        (lambda: sg.crop(y=(3, 3)), r"crop: y=3:3 must"),
        (lambda: sg.crop(y=(-1, 3)), r"crop: y=-1:3 must start at 0"),
        (lambda: sg.transpose(), r"transpose: name the dims"),
        (lambda: sg.transpose("y", "y"), r"'y' is named twice"),
        (lambda: sg.flip(), r"flip: name the dims"),
        (lambda: sg.flip(1.5), r"flip: 1.5 is neither"),
        (lambda: sg.flip("x", p=1.5), r"flip: p=1.5 must be a probability"),
        (lambda: sg.rot90(1.5), r"rot90: k=1.5 must be a whole number"),
        (lambda: sg.rot90(dims=("y", "x", "band")), r"rot90: give two dims"),
        (lambda: sg.remote.reflectance(0.0), r"remote.reflectance: scale=0.0 must not be 0"),
        (lambda: sg.remote.reflectance([1.0, 0.0]), r"must not be 0"),
        (lambda: sg.climate.anomaly("warm"), r"climate.anomaly: climatology holds no numbers"),
        (lambda: sg.climate.anomaly(1.0, std=0.0), r"climate.anomaly: std has the value 0"),
    ],
)
def test_parameters_are_checked(make: object, message: str) -> None:
    with pytest.raises(StepError, match=message):
        make()  # type: ignore[operator]


def test_values_that_are_no_numbers() -> None:
    with pytest.raises(StepError, match="are not numbers"):
        sg.normalize(0.0, 1.0)(np.array(["a"]))


def test_minmax_maps_the_bounds() -> None:
    assert sg.minmax(-3000.0, 3000.0)(np.array([-3000.0, 0.0, 3000.0, 6000.0])).tolist() == [0, 0.5, 1, 1.5]


def test_clip_limits_infinities_and_keeps_nan() -> None:
    y = sg.clip(-1, 1)(np.array([-np.inf, -1, 0.5, np.inf, np.nan], np.float32))
    np.testing.assert_array_equal(y, np.array([-1, -1, 0.5, 1, np.nan], np.float32))
    with pytest.raises(InverseError, match=r"clip has no inverse \(it loses values outside -1 to 1\)"):
        sg.clip(-1, 1).undo(y)


# -- cast and gaps -------------------------------------------------------------------------------------


def test_cast_rounds_to_the_nearest() -> None:
    y = sg.cast("int16")(np.array([-1.5, -0.6, 0.5, 1.5, 2.4]))
    assert y.dtype == np.int16
    assert y.tolist() == [-2, -1, 0, 2, 2]
    assert sg.cast("int16").undo(y).dtype == np.float32


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("uint8", 255.6), ("uint8", -0.6), ("int16", 32768.0), ("int64", 2.0**63), ("float16", 65520.0),
     ("float32", 1e39), ("uint8", np.int32(256)), ("int8", np.uint8(128))],
)  # fmt: skip
def test_cast_refuses_what_does_not_fit(dtype: str, value: float) -> None:
    with pytest.raises(StepError, match=rf"cast: the value .* is outside {dtype}.*clip"):
        sg.cast(dtype)(np.array([0, value]))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_cast_of_nan_to_integers_points_to_fill_nan(value: float) -> None:
    with pytest.raises(StepError, match=r"cast: 1 of 2 values are NaN or infinite.*fill_nan"):
        sg.cast("int16")(np.array([1.0, value]))
    assert sg.cast("float16")(np.array([value])).dtype == np.float16


@given(
    hnp.arrays(np.float64, 20, elements=st.floats(-(2.0**63), 2.0**63)),
    st.sampled_from(["int8", "uint16", "int64"]),
)
def test_cast_never_wraps_around(x: np.ndarray, dtype: str) -> None:
    try:
        y = sg.cast(dtype)(x)
    except StepError:
        info = np.iinfo(dtype)
        assert any(not info.min <= int(v) <= info.max for v in np.rint(x))
    else:
        assert [int(v) for v in np.rint(x)] == y.tolist()


def test_cast_by_name_and_by_type_is_one_step() -> None:
    assert sg.cast("float16") == sg.cast(np.float16) == sg.cast(np.dtype("float16"))
    assert sg.cast("float16") != sg.cast("float32")


def test_fill_nan_marks_what_it_fills() -> None:
    x = np.array([[np.nan, 1], [2, np.nan]], np.float32)
    filled, mask = sg.fill_nan(7).forward(x)
    assert filled.tolist() == [[7, 1], [2, 7]]
    assert mask.tolist() == [[True, False], [False, True]]
    assert sg.fill_nan(7)(x).tolist() == filled.tolist()


def test_fill_nan_inverse_of_finer_and_banded_predictions() -> None:
    x = np.array([[np.nan, 1], [2, 3]], np.float32)
    _, mask = sg.fill_nan().forward(x)
    fine = sg.fill_nan().undo(np.ones((5, 4, 6), np.float32), residual=mask)
    np.testing.assert_array_equal(
        np.isnan(fine), np.broadcast_to(np.kron(mask, np.ones((2, 3))) == 1, (5, 4, 6))
    )
    labels = sg.fill_nan().undo(np.array([[1, 1], [0, 2]], np.uint8), residual=mask)
    np.testing.assert_array_equal(labels, np.array([[np.nan, 1], [0, 2]], np.float32))


@pytest.mark.parametrize("shape", [(3, 2), (2,), (1, 2)])
def test_fill_nan_inverse_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(StepError, match=r"inverse of fill_nan: NaN was marked in shape \(2, 2\)"):
        sg.fill_nan().undo(np.ones(shape), residual=np.ones((2, 2), bool))


# -- stretches -----------------------------------------------------------------------------------------


def test_asinh_is_the_formula() -> None:
    x, vmax, a = np.linspace(-100, 2e4, 50), 8600.0, 0.005
    expected = [2 * math.asinh(v / (a * vmax)) / math.asinh(1 / a) - 1 for v in x]
    np.testing.assert_allclose(sg.stretch.asinh(vmax, a)(x), expected, rtol=1e-13)


def test_signum_log_is_the_formula_and_odd() -> None:
    x = np.array([-3000.0, -1.0, 0.0, 1.0, 3000.0])
    y = sg.stretch.signum_log(scale=0.1, mean=0.5, std=2.0)(x)
    np.testing.assert_allclose(
        y, [(math.copysign(math.log1p(abs(0.1 * v)), v) - 0.5) / 2 for v in x], rtol=1e-14
    )
    np.testing.assert_array_equal(sg.stretch.signum_log()(x), -sg.stretch.signum_log()(-x))


def test_log_and_sqrt() -> None:
    x = np.array([0.0, 3.0, 99.0])
    np.testing.assert_allclose(sg.stretch.log(scale=2.0)(x), [math.log(1 + v / 2) for v in x], rtol=1e-14)
    np.testing.assert_allclose(sg.stretch.sqrt()(x), [math.sqrt(v) for v in x], rtol=1e-14)


@pytest.mark.parametrize(
    ("step", "count", "limit"),
    [(sg.stretch.log(2.0), 2, "at or below -2"), (sg.stretch.sqrt(), 3, "below 0")],
)
def test_stretches_refuse_what_they_would_lose(step: Step, count: int, limit: str) -> None:
    with pytest.raises(
        StepError, match=rf"{count} of 5 values lie {limit} \(lowest -9\); use stretch.signum_log"
    ):
        step(np.array([-9.0, -2.0, -1.0, 0.0, np.nan]))


def test_sqrt_inverse_keeps_the_sign_of_a_prediction() -> None:
    assert sg.stretch.sqrt().undo(np.array([-0.5, 0.5])).tolist() == [-0.25, 0.25]


# -- remote, climate -----------------------------------------------------------------------------------


def test_reflectance_of_landsat_collection_2() -> None:
    y = sg.remote.reflectance(scale=2.75e-5, offset=-0.2)(np.array([7273, 43636], np.uint16))
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, [0.0, 1.0], atol=1e-5)


def test_anomaly_takes_the_part_under_the_window() -> None:
    x = np.random.default_rng(0).random(EARTH.shape)
    step = sg.climate.anomaly(NORMALS, std=np.full((12, 1), 2.0))
    np.testing.assert_allclose(step(x, grid=EARTH), (x - NORMALS) / 2)
    flipped = EARTH.flip("lat").transpose("lon", "time", "lat")
    np.testing.assert_allclose(
        step(x[:, ::-1].transpose(2, 0, 1), grid=flipped), ((x - NORMALS) / 2)[:, ::-1].transpose(2, 0, 1)
    )
    np.testing.assert_allclose(step(x), step(x, grid=EARTH))


def test_anomaly_keeps_its_own_copy() -> None:
    normals = np.zeros((12, 17))
    step = sg.climate.anomaly(normals)
    normals += 5
    assert step(np.ones(EARTH.shape), grid=EARTH).max() == 1


@pytest.mark.parametrize(
    ("climatology", "grid", "message"),
    [
        (
            NORMALS,
            EARTH.coarsen(lat=2, lon=2),
            r"lat was resampled by a factor of 2; put climate.anomaly before",
        ),
        (NORMALS, EARTH.crop(Window(lat=(-1, 4))), r"12 pixels in lat, and the array reaches from -1 to 3"),
        (NORMALS[:11], EARTH, r"climatology has 11 pixels in lat, and the file has 12"),
        (
            NORMALS[:5],
            EARTH.crop(Window(lat=(0, 3))),
            r"climatology has 5 pixels in lat, and the file has 12",
        ),
        (NORMALS[0], EARTH, r"shape \(17,\) has neither the dims"),
        (NORMALS[:11], PLANE, r"11 pixels in y, and the array reaches from 0 to 11"),
    ],
)
def test_anomaly_of_another_grid(climatology: np.ndarray, grid: Grid, message: str) -> None:
    with pytest.raises(StepError, match=message):
        sg.climate.anomaly(climatology)(np.zeros(grid.shape), grid=grid)


def test_anomaly_without_a_grid_must_fit() -> None:
    with pytest.raises(StepError, match=r"does not fit an array of shape \(5, 17\); give grid="):
        sg.climate.anomaly(NORMALS)(np.zeros((5, 17)))
    with pytest.raises(StepError, match="the array has shape"):
        sg.climate.anomaly(NORMALS)(np.zeros((5, 17)), grid=SUN)
