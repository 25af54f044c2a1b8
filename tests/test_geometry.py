from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import streamgeo as sg
from streamgeo.errors import GridError, StepError
from streamgeo.grid import Grid
from streamgeo.step import Step
from streamgeo.window import Window
from tests.laws import BANDS, PLANE

CUBE = np.arange(np.prod(BANDS.shape), dtype=np.float32).reshape(BANDS.shape)
FRAME = np.arange(np.prod(PLANE.shape), dtype=np.float32).reshape(PLANE.shape)


def test_crop_and_back() -> None:
    step = sg.crop(y=slice(2, 5), x=slice(0, 4))
    y = step(CUBE, grid=BANDS)
    np.testing.assert_array_equal(y, CUBE[:, 2:5, :4])
    assert step.grid_after(BANDS) == BANDS.crop(Window(y=(2, 5), x=(0, 4)))
    back = step.undo(y, grid=BANDS)
    expected = np.full(BANDS.shape, np.nan, np.float32)
    expected[:, 2:5, :4] = CUBE[:, 2:5, :4]
    np.testing.assert_array_equal(back, expected)


def test_crop_without_a_grid_and_of_integers() -> None:
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    step = sg.crop(y=slice(1, 3), x=slice(2, 4))
    assert step(labels).tolist() == [[6, 7], [10, 11]]
    back = step.undo(step(labels), grid=Grid.of(("y", "x"), (3, 4)))
    assert back.dtype == np.uint8
    assert back.tolist() == [[0, 0, 0, 0], [0, 0, 6, 7], [0, 0, 10, 11]]


@pytest.mark.parametrize("factor", [3, 0.5])
def test_crop_inverse_of_another_resolution(factor: float) -> None:
    step = sg.crop(y=slice(2, 6), x=slice(4, 10))
    y = np.random.default_rng(0).random((int(4 * factor), int(6 * factor)))
    back = step.undo(y, grid=PLANE.coarsen(y=1 / factor, x=1 / factor))
    at = slice(int(2 * factor), int(6 * factor)), slice(int(4 * factor), int(10 * factor))
    np.testing.assert_array_equal(back[at], y)
    assert np.isfinite(back).sum() == y.size


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (sg.crop(y=slice(5, 13)), r"crop: y=5:13 reaches outside y=12; use a smaller window"),
        (sg.crop(lat=slice(0, 3)), r"crop: no dim 'lat'; the dims are \('y', 'x'\)"),
        (sg.transpose("x", "lat"), r"transpose: no dim 'lat'"),
        (sg.transpose("x"), r"transpose: \('x',\) is not an order of the dims \('y', 'x'\)"),
        (sg.transpose(0, 2), r"no dim at position 2"),
        (sg.flip("band"), r"flip: no dim 'band'"),
        (sg.rot90(dims=("y", "band")), r"rot90: no dim 'band'"),
    ],
)
def test_geometry_of_dims_that_are_not_there(step: Step, message: str) -> None:
    for call in (lambda: step(FRAME), lambda: step(FRAME, grid=PLANE), lambda: step.grid_after(PLANE)):
        with pytest.raises(StepError, match=message):
            call()


def test_crop_where_array_and_grid_differ() -> None:
    with pytest.raises(StepError, match=r"crop: the array has shape \(5, 5\), its grid"):
        sg.crop(y=(0, 2))(np.zeros((5, 5)), grid=PLANE)


@pytest.mark.parametrize("shape", [(3, 4, 4), (4, 3), (5, 4)])
def test_crop_inverse_of_a_prediction_that_does_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(StepError, match="inverse of crop"):
        sg.crop(y=slice(9, 12), x=slice(3, 7)).undo(np.zeros(shape), grid=PLANE)


def test_crop_inverse_needs_the_grid() -> None:
    with pytest.raises(StepError, match=r"inverse of crop: it asks for 'grid'"):
        sg.crop(y=slice(0, 2)).undo(np.zeros((2, 17)))


def test_crop_takes_a_window_or_its_parts() -> None:
    with pytest.raises(GridError, match="must have a start, a stop"):
        sg.crop(y=slice(None, 3))
    assert sg.crop(Window(y=(0, 3)))(FRAME).tolist() == sg.crop(y=(0, 3))(FRAME).tolist()


@pytest.mark.parametrize("k", range(-5, 6))
@pytest.mark.parametrize("dims", [None, ("y", "x"), ("x", "y"), (0, -1)])
def test_rot90_turns_as_numpy_does(k: int, dims: tuple[str | int, str | int] | None) -> None:
    axes = (0, 1) if dims != ("x", "y") else (1, 0)
    step = sg.rot90(k, dims)
    np.testing.assert_array_equal(step(FRAME, grid=PLANE), np.rot90(FRAME, k, axes))
    np.testing.assert_array_equal(step(FRAME), np.rot90(FRAME, k, axes))
    assert step.grid_after(PLANE).dims == (("x", "y") if k % 2 else ("y", "x"))
    np.testing.assert_array_equal(step.undo(step(FRAME)), FRAME)


def test_rot90_turns_the_horizontal_dims() -> None:
    grid = BANDS.transpose("y", "x", "band")
    x = np.moveaxis(CUBE, 0, -1)
    np.testing.assert_array_equal(sg.rot90()(x, grid=grid), np.rot90(x))
    with pytest.raises(StepError, match="cannot be turned"):
        sg.rot90()(np.zeros(3))


def test_transpose_by_name_follows_the_grid() -> None:
    step = sg.transpose("y", "x", "band")
    assert step(CUBE, grid=BANDS).shape == (12, 17, 3)
    assert step.grid_after(BANDS).dims == ("y", "x", "band")
    np.testing.assert_array_equal(step.undo(step(CUBE, grid=BANDS), grid=BANDS), CUBE)


def test_flips_without_a_grid() -> None:
    np.testing.assert_array_equal(sg.flip("x")(CUBE), CUBE[..., ::-1])
    np.testing.assert_array_equal(sg.flip("dim_0", "y")(CUBE), CUBE[::-1, ::-1])
    np.testing.assert_array_equal(sg.flip(-3)(CUBE), CUBE[::-1])


def test_random_flip_draws_each_dim_and_undoes_it() -> None:
    step = sg.flip("y", "x", p=0.5)
    seen = set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        y, flipped = step.forward(FRAME, rng=rng)
        seen.add(tuple(flipped.tolist()))
        np.testing.assert_array_equal(y, FRAME[:: -1 if flipped[0] else 1, :: -1 if flipped[1] else 1])
        np.testing.assert_array_equal(step.undo(y, residual=flipped), FRAME)
    assert len(seen) == 4
    assert step.random
    np.testing.assert_array_equal(sg.flip("y", p=1)(FRAME, rng=np.random.default_rng(0)), sg.flip("y")(FRAME))
    with pytest.raises(StepError, match="it asks for 'rng'"):
        step(FRAME)


@given(st.permutations(["crop", "flip", "rot90", "transpose"]), st.integers(0, 3))
def test_chains_of_moves_keep_every_pixel_in_its_place(order: list[str], k: int) -> None:
    steps = {
        "crop": sg.crop(y=slice(1, 9), x=slice(4, 17)),
        "flip": sg.flip("x"),
        "rot90": sg.rot90(k, dims=("y", "x")),
        "transpose": sg.transpose("x", "y"),
    }
    grid, values = PLANE, FRAME
    for name in order:
        values, grid = steps[name](values, grid=grid), steps[name].grid_after(grid)
    assert values.shape == grid.shape
    rows, cols = np.unravel_index(values.astype(int), FRAME.shape)
    own = dict(zip(grid.dims, np.indices(grid.shape)))
    for key, place in PLANE.pixel_to_world(y=rows, x=cols).items():
        np.testing.assert_array_equal(grid.pixel_to_world(**own)[key], place)
