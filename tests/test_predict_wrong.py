"""What users get wrong on the way back is told at once, and what looks right is not taken for something else."""

from __future__ import annotations

import logging
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import streamgeo as sg

from .test_predict_more import identity, write


@pytest.fixture
def image() -> np.ndarray:
    out = np.random.default_rng(0).normal(100, 10, (2, 48, 64)).astype(np.float32)
    out[:, :5, :5] = np.nan
    return out


@pytest.fixture
def opened(image: np.ndarray, tmp_path: Path) -> sg.Buffer:
    path = write(tmp_path / "scene.tif", image)
    return sg.files(path, key="image").key_transform("image", sg.open_geotiff())


@pytest.fixture
def chain(opened: sg.Buffer) -> sg.Buffer:
    return opened.key_transform("image", sg.patch(16)).batch(4)


# -- what a model returns ------------------------------------------------------------------------------------


class Untold:
    """Something like a tensor on another device."""

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise RuntimeError("use .cpu() first")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda x: (x, x), "returned a tuple; return one array of numbers, or a dict"),
        (np.ma.masked_invalid, "masked array, whose mask would be lost"),
        (lambda x: Untold(), r"returned Untold, of which numpy makes no array \(use .cpu\(\) first\)"),
        (lambda x: [x[0], x[1][:1], x[2], x[3]], "of which numpy makes no array"),
        (lambda x: np.zeros(x.shape, "M8[s]"), "datetime64"),
        (lambda x: {}, "an empty dict"),
        (lambda x: {"a": {"b": x}}, "the model, for 'a', returned dict"),
        (lambda x: {"a/b": x}, "names are parts of file names"),
    ],
)
def test_what_is_no_array_of_numbers(chain: sg.Buffer, model: Callable[..., Any], said: str) -> None:
    with pytest.raises(sg.StepError, match=said):
        list(chain.predict(model))


def test_values_come_in_native_byte_order(chain: sg.Buffer) -> None:
    (scene,) = chain.predict(lambda x: x.astype(">f4"))
    assert scene.dtype.isnative and scene.dtype == np.float32


def test_an_error_in_the_model_says_what_it_was_given(chain: sg.Buffer) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        list(chain.predict(lambda x: 1 / 0))
    (note,) = caught.value.__notes__
    assert "'image' (4, 2, 16, 16), from scene.tif Window(" in note


def test_pooled_to_one_pixel_is_one_value_a_patch(opened: sg.Buffer, image: np.ndarray) -> None:
    cut = opened.key_transform("image", sg.patch(20, 10, edge="pad")).batch(4)
    (kept,) = cut.predict(lambda x: x[..., 10:11, 10:11])
    (flat,) = cut.predict(lambda x: x[..., 10, 10])
    np.testing.assert_array_equal(kept.array, flat.array)
    assert kept.grid == flat.grid and kept.shape == (2, 4, 6)
    np.testing.assert_array_equal(kept.array[:, :3, :5], image[:, 10:40:10, 10:60:10])
    flipped = opened.key_transform("image", sg.patch(16)).key_transform("image", sg.flip("x")).batch(4)
    (scene,) = flipped.predict(lambda x: x.mean(axis=(2, 3), keepdims=True))
    assert scene.shape == (2, 3, 4)


def test_one_value_a_patch_has_no_pixels_to_restore(opened: sg.Buffer) -> None:
    filled = opened.key_transform("image", sg.patch(16)).key_transform("image", sg.fill_nan(0.0)).batch(4)
    with pytest.raises(sg.StepError, match=r"the inverse of fill_nan needs pixels; say with inverse="):
        list(filled.predict(lambda x: x.mean(axis=(1, 2, 3))))
    (scene,) = filled.predict(lambda x: x.mean(axis=(1, 2, 3)), inverse=[])
    assert scene.shape == (3, 4)


def test_a_cut_dim_that_is_summed_up_keeps_size_one() -> None:
    cube = np.random.default_rng(0).normal(size=(12, 16, 16)).astype(np.float32)
    chain = sg.buffer_from_vector([{"x": cube}])
    chain = chain.key_transform("x", sg.patch({"dim_0": 4, "dim_1": 8, "dim_2": 8})).batch(3)
    with pytest.raises(
        sg.StepError, match=r"shape \(8, 8\) for a patch .* keep those that it sums up with size 1"
    ):
        list(chain.predict(lambda x: x.mean(axis=1), "x"))
    (scene,) = chain.predict(lambda x: x.mean(axis=1, keepdims=True), "x")
    np.testing.assert_allclose(scene.array, cube.reshape(3, 4, 16, 16).mean(axis=1), rtol=1e-5, atol=1e-6)


def test_bands_behind_the_pixels_may_go() -> None:
    array = np.random.default_rng(0).normal(size=(16, 24, 3)).astype(np.float32)
    chain = (
        sg.buffer_from_vector([{"x": array}])
        .key_transform("x", sg.patch(8, dims=("dim_0", "dim_1")))
        .batch(2)
    )
    (scene,) = chain.predict(lambda x: x[..., 1], "x")
    np.testing.assert_array_equal(scene.array, array[..., 1])


# -- what is asked for -----------------------------------------------------------------------------------------


def test_orientations_need_the_pixels_last(opened: sg.Buffer) -> None:
    cut = opened.key_transform("image", sg.patch(16)).key_transform("image", sg.transpose("y", "x", "band"))
    with pytest.raises(
        sg.StepError, match=r"orientations turn the last two dims, and 'image' has \('y', 'x', 'band"
    ):
        list(cut.batch(4).predict(identity, tta=sg.flips()))


def test_inverses_for_outputs_that_are_not_there(chain: sg.Buffer) -> None:
    given = {"std": sg.normalize(mean=0.0, std=2.0)}
    with pytest.raises(sg.ChainError, match=r"inverse= names \['std'\], and the model returned \['mean'\]"):
        list(chain.predict(lambda x: {"mean": x}, inverse=given))
    with pytest.raises(sg.ChainError, match=r"inverse= names \['std'\]"):
        list(chain.predict(identity, inverse=given))


def test_inverses_that_move_pixels_are_refused(chain: sg.Buffer) -> None:
    with pytest.raises(sg.ChainError, match="inverse= has flip, which moves pixels"):
        chain.predict(identity, inverse=[sg.flip("x")])


def test_a_key_that_stayed_whole(opened: sg.Buffer, tmp_path: Path) -> None:
    both = opened.key_transform("image", sg.normalize(mean=0.0, std=2.0), "other")
    chain = both.key_transform("image", sg.patch(16)).batch(4)
    with pytest.raises(sg.ChainError, match="patch cut other keys and left 'other' whole"):
        list(chain.predict(identity, output_key="other"))
    with pytest.raises(sg.ChainError, match="left 'other' whole"):
        chain.inverse("other").to(tmp_path / "out").put(chain[0])
    (scene,) = chain.predict(lambda x, whole: x + whole[:, :, :1, :1] * 0, ("image", "other"), inverse=[])
    assert scene.shape == (2, 48, 64)


# -- loops of one's own -----------------------------------------------------------------------------------------


def test_what_a_sink_does_not_take(chain: sg.Buffer, tmp_path: Path) -> None:
    sink, batch = chain.inverse("image").to(tmp_path / "out"), chain[0]
    with pytest.raises(sg.MissingKeyError, match="the batch has no 'image'"):
        sink.put({name: value for name, value in batch.items() if name != "image"})
    with pytest.raises(sg.ChainError, match="this is ndarray and no batch"):
        sink.put(batch["image"])
    with pytest.raises(sg.StepError, match="scene.tif: Window.* is none of the patches"):
        sink.put({**batch, "image.window": batch["image.window"] + 3})
    with pytest.raises(sg.StepError, match="returned a tuple"):
        sink.put(batch, (batch["image"], batch["image"]))


def test_patches_that_come_again(
    chain: sg.Buffer, image: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = chain.inverse("image").to(tmp_path / "out")
    batches = list(chain)
    for batch in (*batches, batches[0]):
        sink.put(batch)
        sink.put(batch)
    with caplog.at_level(logging.WARNING, logger="streamgeo"):
        sink.close()
    (scene,) = sink.finished()
    np.testing.assert_array_equal(scene.array, image)
    assert "left out 12 predictions that came again" in caplog.text


def test_the_number_of_a_scene_may_be_numpys(chain: sg.Buffer, image: np.ndarray) -> None:
    np.testing.assert_array_equal(chain.inverse("image")(image, np.int64(0)), image)
    plain = sg.buffer_from_vector([{"x": np.arange(4.0)}])
    with pytest.raises(sg.MissingKeyError, match="no key 'y'"):
        plain.inverse("y")(np.arange(4.0))


# -- many scenes ------------------------------------------------------------------------------------------------


@pytest.fixture
def few_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(Path("/dev/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 60, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("few_files")
def test_scenes_that_are_kept_need_no_open_files(tmp_path: Path) -> None:
    arrays = [np.full((12, 12), number, np.float32) for number in range(150)]
    chain = sg.buffer_from_vector([{"x": array} for array in arrays]).key_transform("x", sg.patch(4))
    for number, order in enumerate((chain, chain.shuffle(seed=1, locality=None))):
        scenes = list(order.batch(9).predict(identity, "x", to=tmp_path / str(number)))
        assert sorted(float(scene.array.mean()) for scene in scenes) == list(range(150))
