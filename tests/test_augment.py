"""Augmentation in chains: one draw for all keys of a sample, grids that follow, predictions that come back in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin

import streamgeo as sg
from streamgeo.errors import ChainError, StepError
from streamgeo.plan import Draw, Run, StepScene
from streamgeo.window import Window

SHAPE = (48, 80)
NUMBERS = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)


@pytest.fixture
def files(tmp_path: Path) -> list[dict[str, str]]:
    """Two scenes of three bands with masks; each pixel of the first band has its own number."""
    profile: dict[str, Any] = {
        "driver": "GTiff", "dtype": "float32", "height": SHAPE[0], "width": SHAPE[1], "crs": "EPSG:32633",
        "transform": from_origin(5e5, 4.1e6, 30, 30), "tiled": True, "blockxsize": 16, "blockysize": 16,
    }  # fmt: skip
    out = []
    for number in range(2):
        sample = {key: str(tmp_path / f"{key}_{number}.tif") for key in ("image", "mask")}
        with rasterio.open(sample["image"], "w", count=3, **profile) as file:
            file.write(np.stack([NUMBERS, -NUMBERS, NUMBERS + 0.5]))
        with rasterio.open(sample["mask"], "w", count=1, **profile) as file:
            file.write(NUMBERS, 1)
        out.append(sample)
    return out


def opened(files: list[dict[str, str]]) -> sg.Buffer:
    return (
        sg.buffer_from_vector(files)
        .key_transform("image", sg.open_geotiff())
        .key_transform("mask", sg.open_geotiff(bands=1))
    )


BOTH = ("image", "mask")
PATCH = sg.patch(size=16, stride=8)


def augmented(files: list[dict[str, str]], *, before: bool = False) -> sg.Buffer:
    """Patches with all that moves pixels, before or behind patch."""
    chain = opened(files)
    moves = [sg.random_crop(32), sg.random_flip(), sg.random_rot90()]
    for step in [*moves, PATCH] if before else [PATCH, *moves[1:]]:
        chain = chain.key_transform(BOTH, step)
    return chain


@pytest.mark.parametrize("before", [True, False])
def test_keys_get_the_same_draw_and_samples_differ(files: Any, before: bool) -> None:
    seen = set()
    for seed in range(8 if before else 1):
        for sample in augmented(files, before=before).shuffle(seed=seed):
            mask = sample["mask"]
            np.testing.assert_array_equal(sample["image"][0], mask)
            np.testing.assert_array_equal(sample["image"][1], -mask)
            seen.add((mask[1, 0] - mask[0, 0], mask[0, 1] - mask[0, 0]))
    assert len(seen) > 4  # of eight positions


@pytest.mark.parametrize("before", [True, False])
def test_order_and_threads_do_not_matter_and_epochs_differ(files: Any, before: bool) -> None:
    chain = augmented(files, before=before).shuffle(seed=3).batch(4)
    one, many = chain.prefetch(1, 1), chain.prefetch(8, 3)
    epochs = []
    for _ in range(2):
        left, right = (np.concatenate([batch["image"] for batch in stream]) for stream in (one, many))
        np.testing.assert_array_equal(left, right)
        epochs.append(left)
    assert not np.array_equal(*epochs)


@pytest.mark.parametrize("before", [True, False])
def test_a_pixel_says_where_it_lies(files: Any, before: bool) -> None:
    """The number of a pixel is its place in the file, and the grid of its patch tells that place on the map."""
    chain = augmented(files, before=before)
    for index in range(0, len(chain), 5):
        values, grid = chain[index]["mask"], chain.grid("mask", index)
        assert values.shape == grid.shape
        row, col = np.unravel_index(values.astype(int), SHAPE)
        own = dict(zip(grid.dims, np.indices(grid.shape)))
        world = grid.pixel_to_world(**own)
        if not before:
            assert chain.grid("mask", chain[index]) == grid
        np.testing.assert_allclose(world["x"], 5e5 + 30 * (col + 0.5))
        np.testing.assert_allclose(world["y"], 4.1e6 - 30 * (row + 0.5))


def test_a_sample_does_not_tell_the_epoch_of_a_crop(files: Any) -> None:
    chain = augmented(files, before=True)
    with pytest.raises(ChainError, match="random_crop moves the pixels of 'mask' anew each epoch"):
        chain.grid("mask", chain[0])
    batch = next(iter(chain.batch(2)))
    with pytest.raises(ChainError, match="inverse: random_crop moves the pixels of 'mask' anew.*use predict"):
        chain.inverse("mask")(batch["mask"], batch)


@pytest.mark.parametrize("threads", [0, 2])
def test_predictions_come_back_in_place(files: Any, threads: int, tmp_path: Path) -> None:
    chain: Any = augmented(files).batch(8)
    chain = chain.prefetch(4, threads) if threads else chain
    scenes = list(chain.predict(lambda x: x, key="image"))
    assert len(scenes) == 2
    for scene in scenes:
        np.testing.assert_allclose(scene.array[0], NUMBERS)
        assert scene.grid.bounds == opened(files).scene("image").grid.bounds
    one_band = list(chain.predict(lambda x: x[:, 0], key="image"))  # another number of dims
    np.testing.assert_allclose(one_band[1].array, NUMBERS)
    finer = list(chain.predict(lambda x: x.repeat(2, -1).repeat(2, -2), key="image"))
    np.testing.assert_allclose(finer[0].array[0], NUMBERS.repeat(2, 0).repeat(2, 1))


def test_a_crop_comes_back_where_it_was(files: Any) -> None:
    chain = augmented(files, before=True)
    seen = set()
    for scene in chain.batch(4).predict(lambda x: x, key="image"):
        kept = np.isfinite(scene.array[0])
        assert kept.sum() == 32 * 32
        np.testing.assert_array_equal(scene.array[0][kept], NUMBERS[kept])
        seen.add(tuple(np.argwhere(kept)[0]))
    assert len(seen) == 2


def test_steps_behind_get_the_grid_that_was_drawn(files: Any) -> None:
    """A step that depends on the place is undone with the place, whatever was drawn before it."""

    def plus_place(x: Any, *, grid: Any) -> Any:
        return x + grid.pixel_to_world(**dict(zip(grid.dims[-2:], np.indices(grid.shape[-2:]))))["x"].astype(
            "f4"
        )

    def minus_place(y: Any, *, grid: Any) -> Any:
        return 2 * y - plus_place(y, grid=grid)

    chain = augmented(files).key_transform("mask", sg.Step(plus_place, minus_place))
    for scene in chain.batch(8).predict(lambda x: x, key="mask"):
        np.testing.assert_allclose(scene.array, NUMBERS, atol=0.1)


def test_a_batch_is_augmented_as_one(files: Any) -> None:
    """Behind batch there is one draw for all its samples, and it is undone as well."""
    patched = opened(files).key_transform(BOTH, PATCH)
    chain = (
        patched.batch(8).key_transform("image", sg.random_flip()).key_transform("image", sg.random_rot90())
    )
    for scene in chain.predict(lambda x: x, key="image"):
        np.testing.assert_allclose(scene.array[0], NUMBERS)
    dropped = patched.batch(8).key_transform("image", sg.band_dropout(0.5))
    bands = np.concatenate([(batch["image"] != 0).any(axis=(2, 3)) for batch in dropped])
    assert bands.shape[1] == 3 and bands.any(axis=1).all() and not bands.all()


def test_a_stream_goes_on_with_the_same_draws(files: Any) -> None:
    def stream() -> sg.Stream:
        moved = augmented(files, before=True).key_transform("image", sg.add_noise(1.0))
        return moved.key_transform("image", sg.band_dropout(0.5)).shuffle(seed=5).batch(2).prefetch(4, 2)

    whole = stream()
    expected = [batch["image"] for _ in range(2) for batch in whole]
    begun = stream()
    list(begun)
    second = iter(begun)
    next(second)
    state, rest = begun.state_dict(), stream()
    rest.load_state_dict(state)
    left = [batch["image"] for batch in rest]
    assert len(left) == len(expected) // 2 - 1
    for found, wanted in zip(left, expected[-len(left) :]):
        np.testing.assert_array_equal(found, wanted)


def test_only_the_crop_is_read(files: Any) -> None:
    scene = opened(files).scene("image")
    step = sg.random_crop(16)
    cut = StepScene(scene, step, Draw(Run(1), 0, 2))
    assert cut.shape == (3, 16, 16)
    assert cut.pushes_down and cut.why_whole() is None
    assert "windows" in opened(files).key_transform(BOTH, step).key_transform(BOTH, PATCH).explain()


def test_all_places_of_a_crop_and_all_positions_of_a_square_are_drawn() -> None:
    x = np.arange(16.0).reshape(4, 4)
    crops, turns = set(), set()
    square = [sg.random_flip(), sg.random_rot90()]
    for seed in range(300):
        rng = np.random.default_rng(seed)
        crops.add(float(sg.random_crop({"y": 2, "x": 3})(x, rng=rng)[0, 0]))
        y = x
        for step in square:
            y = step(y, rng=rng)
        turns.add(y.tobytes())
    assert crops == {0.0, 1.0, 4.0, 5.0, 8.0, 9.0}
    assert len(turns) == 8


def test_noise_has_the_spread_that_was_asked_for() -> None:
    x = np.zeros((2, 400, 500), np.float32)
    y = sg.add_noise([0.5, 3.0])(x, rng=np.random.default_rng(0))
    np.testing.assert_allclose(y.std(axis=(1, 2)), [0.5, 3.0], rtol=0.01)
    np.testing.assert_allclose(y.mean(axis=(1, 2)), 0, atol=0.03)
    assert abs(np.corrcoef(y[0].ravel(), y[1].ravel())[0, 1]) < 0.01


@settings(max_examples=50, deadline=None)
@given(p=st.floats(0, 1), seed=st.integers(0, 2**32 - 1), bands=st.integers(1, 6))
def test_one_band_stays(p: float, seed: int, bands: int) -> None:
    x = np.ones((bands, 2, 3), np.int16)
    y = sg.band_dropout(p, fill=7)(x, rng=np.random.default_rng(seed))
    left = [int(band[0, 0]) for band in y]
    assert 1 in left and set(left) <= {1, 7}
    assert y.dtype == x.dtype


def test_share_of_bands_that_go() -> None:
    gone = [
        (sg.band_dropout(0.3)(np.ones((4, 1, 1)), rng=np.random.default_rng(n)) == 0).mean()
        for n in range(3000)
    ]
    assert np.mean(gone) == pytest.approx(0.3, abs=0.01)


WRONG: list[tuple[Any, str]] = [
    (lambda: sg.random_flip("y", p=1.5), r"random_flip: p=1.5 must be a probability"),
    (lambda: sg.random_crop(0), r"random_crop: size=0 must be whole numbers"),
    (lambda: sg.random_crop({}), r"random_crop: size=\{\} must be"),
    (lambda: sg.random_crop({"y": 2.5}), r"must be whole numbers of pixels"),
    (lambda: sg.add_noise(0.0), r"add_noise: std=0.0 must be finite and above 0"),
    (lambda: sg.band_dropout(-0.1), r"band_dropout: p=-0.1"),
]


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_wrong_parameters(make: Any, message: str) -> None:
    with pytest.raises(StepError, match=message):
        make()


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (sg.random_crop(7), r"random_crop: size 7 exceeds y=5; use a smaller size"),
        (sg.random_crop({"z": 1}), r"random_crop: no dim 'z'; the dims are \('dim_0', 'y', 'x'\)"),
        (sg.random_rot90(), r"random_rot90: y=5, x=6 is not square"),
        (sg.random_flip("z"), r"flip: no dim 'z'"),
        (sg.band_dropout(dim="z"), r"band_dropout: no dim 'z'"),
        (sg.band_dropout(fill=0.5), r"band_dropout: int64 cannot hold fill=0.5"),
    ],
)
def test_arrays_that_do_not_fit(step: sg.Step, message: str) -> None:
    with pytest.raises(StepError, match=message):
        for seed in range(9):
            step(np.ones((2, 5, 6), np.int64), rng=np.random.default_rng(seed))


def test_an_image_has_no_bands_to_drop() -> None:
    with pytest.raises(StepError, match="no dim beside the horizontal ones"):
        sg.band_dropout()(np.ones((5, 6)), rng=np.random.default_rng(0))


def test_a_window_of_what_was_drawn() -> None:
    assert sg.random_crop(3).grid_after(sg.Grid.of(("band", "y", "x"), (2, 9, 9))).shape == (2, 3, 3)
    step, rng = sg.random_crop(3), np.random.default_rng(1)
    x = np.arange(81.0).reshape(9, 9)
    y, start = step.forward(x, rng=rng)
    np.testing.assert_array_equal(
        y, x[Window(y=(start[0], start[0] + 3), x=(start[1], start[1] + 3)).slices(("y", "x"))]
    )
