"""Order as a pure function: permutations in constant memory, the same for any number of threads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import streamgeo as sg
from streamgeo.order import WINDOW, generator, localized, permuted, position_of


@given(st.integers(1, 400), st.integers(-(2**70), 2**70), st.integers(0, 10**6))
def test_it_is_a_permutation(size: int, seed: int, epoch: int) -> None:
    assert sorted(permuted(i, size, seed, epoch) for i in range(size)) == list(range(size))


@given(st.integers(1, 3000), st.integers(-(2**70), 2**70), st.integers(0, 10**6), st.integers(0, 10**6))
def test_it_runs_backwards(size: int, seed: int, epoch: int, index: int) -> None:
    index %= size
    assert permuted(position_of(index, size, seed, epoch), size, seed, epoch) == index


@given(st.integers(1, 700), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 50))
def test_a_local_order_is_a_permutation(size: int, seed: int, epoch: int, block: int) -> None:
    assert sorted(localized(i, size, seed, epoch, block) for i in range(size)) == list(range(size))


def test_a_local_order_keeps_neighbours_near_and_mixes_scenes() -> None:
    size, block = 4096, 32  # 16 scenes of 256 patches
    order = np.array([localized(i, size, 5, 1, block) for i in range(size)])
    place = np.argsort(order)
    spread = np.ptp(place.reshape(-1, block), axis=1)
    assert spread.max() < WINDOW * block
    scenes = [len(set(batch)) for batch in (order // 256).reshape(-1, 32)]
    assert np.mean(scenes) > 7
    full = np.array([permuted(i, size, 5, 1) for i in range(size)])
    assert np.ptp(np.argsort(full).reshape(-1, block), axis=1).mean() > 3500


def test_which_order_shuffle_takes() -> None:
    patches = sg.buffer_from_vector([{"x": np.arange(4096.0).reshape(64, 64)}] * 4).key_transform(
        "x", sg.patch(2)
    )
    first = [tuple(s["x.window"][:, 0].tolist()) for s in patches.shuffle(seed=1).take(16)]
    local = [tuple(s["x.window"][:, 0].tolist()) for s in patches.shuffle(seed=1, locality=32).take(16)]
    full = [tuple(s["x.window"][:, 0].tolist()) for s in patches.shuffle(seed=1, locality=None).take(16)]
    assert first == local != full
    plain = sg.buffer_from_vector([{"n": i} for i in range(64)])
    order = [int(s["n"]) for s in plain.shuffle(seed=1)]
    assert order == [permuted(i, 64, 1, 0) for i in range(64)]
    assert repr(plain.shuffle(seed=1, locality=None)).endswith(".shuffle(seed=1, locality=None)")
    for wrong in (0, -1, 1.5, True, "near"):
        with pytest.raises(sg.ChainError, match="locality="):
            plain.shuffle(seed=1, locality=wrong)


@pytest.mark.parametrize(("size", "stride", "block"), [(16, 16, 64), (64, 64, 32), (32, 16, 60), (1, 1, 32)])
def test_the_patches_of_a_chunk_stay_in_one_window_of_blocks(
    tmp_path: Path, size: int, stride: int, block: int
) -> None:
    """64 tiles of 64 x 64 pixels in four files: a block is whole rows of them, unless that is too much."""
    import rasterio

    profile = {"driver": "GTiff", "count": 1, "height": 256, "width": 256, "dtype": "uint8"}
    for number in range(4):
        with rasterio.open(
            tmp_path / f"{number}.tif",
            "w",
            **profile,
            tiled=True,
            blockxsize=64,
            blockysize=64,
            compress="deflate",
        ) as file:
            file.write(np.zeros((256, 256), np.uint8), 1)
    chain = sg.files(str(tmp_path / "*.tif"), key="x").key_transform("x", sg.open_geotiff())
    chain = chain.key_transform("x", sg.patch(size=size, stride=stride))
    count = len(chain)
    expected = [localized(i, count, 3, 0, block) for i in range(min(count, 500))]
    across = (256 - size) // stride + 1
    numbers = []
    for sample in chain.shuffle(seed=3).take(len(expected)):
        (top, _), (left, _) = sample["x.window"][-2:]
        numbers.append(int(sample["x.scene"]) * across**2 + top // stride * across + left // stride)
    assert numbers == expected


def test_it_mixes_well() -> None:
    size = 10000
    order = np.array([permuted(i, size, 0, 0) for i in range(size)])
    assert abs(np.corrcoef(order, np.arange(size))[0, 1]) < 0.05
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.05
    counts = np.histogram2d(order, np.arange(size), bins=10)[0]
    assert abs(counts - size / 100).max() < 5 * np.sqrt(size / 100)


def test_seed_and_epoch_change_it() -> None:
    orders = {
        tuple(permuted(i, 50, seed, epoch) for i in range(50)) for seed in range(5) for epoch in range(5)
    }
    assert len(orders) == 25


def test_a_hundred_million_samples_cost_nothing() -> None:
    chain = sg.buffer_from_vector([{"x": np.zeros((10_000, 10_000), np.uint8)}]).key_transform(
        "x", sg.patch(1)
    )
    shuffled = chain.shuffle(seed=1).batch(4)
    assert len(shuffled) == 25_000_000
    assert next(iter(shuffled))["x"].shape == (4, 1, 1)


def test_generators_depend_on_their_four_numbers() -> None:
    assert generator(1, 2, 3, 4).random() == generator(1, 2, 3, 4).random()
    draws = {
        generator(*numbers).random()
        for numbers in [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    }
    assert len(draws) == 5


def noisy(x: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    return x + rng.random(x.shape)


def numbers(count: int = 100) -> sg.Buffer:
    return sg.buffer_from_vector([{"x": np.array([float(i)])} for i in range(count)]).key_transform(
        "x", noisy
    )


def epoch(stream: sg.Stream) -> np.ndarray:
    return np.concatenate([batch["x"] for batch in stream])


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("ahead", [1, 64])
def test_threads_do_not_change_it(threads: int, ahead: int) -> None:
    plain = epoch(numbers().shuffle(seed=3).batch(7).to_stream())
    np.testing.assert_array_equal(epoch(numbers().shuffle(seed=3).batch(7).prefetch(ahead, threads)), plain)
    np.testing.assert_array_equal(epoch(numbers().shuffle(seed=3).prefetch(ahead, threads).batch(7)), plain)


def test_each_epoch_draws_anew_and_a_new_chain_repeats_it() -> None:
    stream = numbers().shuffle(seed=3).batch(7).prefetch(2, 2)
    first, second = epoch(stream), epoch(stream)
    assert not np.array_equal(first, second)
    assert sorted(np.floor(first)[:, 0]) == sorted(np.floor(second)[:, 0])
    again = numbers().shuffle(seed=3).batch(7).prefetch(2, 2)
    np.testing.assert_array_equal(first, epoch(again))
    np.testing.assert_array_equal(second, epoch(again))


def test_several_keys_get_the_same_draws() -> None:
    data = [{"a": np.zeros(3), "b": np.zeros(3)} for _ in range(5)]
    for sample in sg.buffer_from_vector(data).key_transform(("a", "b"), noisy):
        np.testing.assert_array_equal(sample["a"], sample["b"])
        assert sample["a"].any()
