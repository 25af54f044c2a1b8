"""Blends, outputs by name, orientations, values without pixels, missing patches: on made scenes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin

import streamgeo as sg
from streamgeo.stitcher import Stitcher

BLENDS = ("mean", "hann", "cosine", "gaussian", "crop")


def identity(x: np.ndarray) -> np.ndarray:
    return x


def write(path: Path, array: np.ndarray) -> Path:
    profile = dict(
        driver="GTiff", count=len(array), height=array.shape[1], width=array.shape[2], dtype=array.dtype
    )
    with rasterio.open(
        path,
        "w",
        crs="EPSG:32633",
        transform=from_origin(400000.0, 5000000.0, 10.0, 10.0),
        nodata=np.nan,
        **profile,
    ) as file:
        file.write(array)
    return path


@pytest.fixture
def image() -> np.ndarray:
    rng = np.random.default_rng(0)
    out = rng.normal(100, 10, (2, 50, 70)).astype(np.float32)
    out[:, :7, :9] = np.nan
    out[0, 30, 40] = np.nan
    return out


@pytest.fixture
def opened(image: np.ndarray, tmp_path: Path) -> sg.Buffer:
    path = write(tmp_path / "scene.tif", image)
    return sg.files(path, key="image").key_transform("image", sg.open_geotiff())


def cut(opened: sg.Buffer, *size: Any, **more: Any) -> sg.Buffer:
    scaled = opened.key_transform("image", sg.normalize(mean=100.0, std=10.0))
    return scaled.key_transform("image", sg.patch(*size, **more))


# -- blends --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("edge", ["shift", "pad"])
def test_identity_with_every_blend(opened: sg.Buffer, image: np.ndarray, blend: str, edge: str) -> None:
    for order in (cut(opened, 16, 12, edge=edge), cut(opened, 16, 8, edge=edge).shuffle(seed=3)):
        (scene,) = order.batch(5).predict(identity, blend=blend)
        np.testing.assert_allclose(scene.array, image, rtol=1e-6)


def test_weights_are_those_that_the_blend_says(opened: sg.Buffer) -> None:
    chain = cut(opened, {"x": 40}, {"x": 30}, dims=["x"])
    made = iter([1.0, 2.0])

    def model(x: np.ndarray) -> np.ndarray:
        return np.full(x.shape[1:], next(made), np.float64)

    def line(blend: Any) -> np.ndarray:
        nonlocal made
        made = iter([1.0, 2.0])
        (scene,) = chain.predict(lambda x: model(x[np.newaxis]), inverse=[], blend=blend)
        return scene.array[0, 0, 30:40]

    at = np.arange(40)
    weights = {
        "mean": np.ones(40),
        "hann": np.sin(np.pi * (at + 0.5) / 40) ** 2,
        "cosine": np.sin(np.pi * (at + 0.5) / 40),
        "gaussian": np.exp(-0.5 * ((at - 19.5) / 5) ** 2),
    }
    for blend, weight in weights.items():
        first, second = weight[30:], weight[:10]
        np.testing.assert_allclose(line(blend), (first + 2 * second) / (first + second), rtol=1e-6)
    assert line("crop").tolist() == [1.0] * 5 + [2.0] * 5
    np.testing.assert_allclose(line(weights["hann"]), line("hann"), rtol=1e-6)


def test_nan_has_no_weight(opened: sg.Buffer) -> None:
    chain = cut(opened, {"x": 40}, {"x": 30}, dims=["x"])
    values = iter([np.nan, 2.0])
    (scene,) = chain.predict(lambda x: np.full(x.shape, next(values), np.float32), inverse=[])
    assert np.isnan(scene.array[:, :, :30]).all() and (scene.array[:, :, 30:] == 2).all()


def test_weights_that_do_not_fit(opened: sg.Buffer) -> None:
    chain = cut(opened, 16)
    ones = np.ones((16, 16))
    for wrong, said in ((ones[:3, :3], r"shape \(3, 3\)"), (-ones, "0 or more"), (ones * 0, "all 0")):
        with pytest.raises(sg.StepError, match=said):
            list(chain.batch(4).predict(identity, blend=wrong))
    hole = np.ones((16, 16))
    hole[3, 4] = 0
    with pytest.raises(sg.ChainError, match=r"pixels of scene.tif, in rows 0 to 16 of 'y', lie in no patch"):
        list(chain.batch(4).predict(identity, blend=hole))
    (scene,) = cut(opened, 16, 8).batch(4).predict(identity, blend=hole, fill=-1.0)
    assert np.isfinite(scene.array).any()


def test_pixels_of_no_patch_are_an_error_unless_filled(opened: sg.Buffer, image: np.ndarray) -> None:
    chain = cut(opened, 16, edge="drop")
    with pytest.raises(sg.ChainError, match="lie in no patch"):
        list(chain.batch(4).predict(identity))
    (scene,) = chain.batch(4).predict(identity, fill=np.nan)
    np.testing.assert_allclose(scene.array[:, :48, :64], image[:, :48, :64], rtol=1e-6)
    assert np.isnan(scene.array[:, 48:]).all() and np.isnan(scene.array[:, :, 64:]).all()
    labels = chain.batch(4).predict(lambda x: (x[:, 0] > 0).astype(np.uint8), inverse=[], fill=300)
    with pytest.raises(sg.StepError, match="fill=300 is no uint8 number"):
        list(labels)
    flipped = opened.key_transform("image", sg.flip("x")).key_transform("image", sg.patch(16, edge="drop"))
    with pytest.raises(sg.ChainError, match="fill=0 would have to go through inverses"):
        list(flipped.batch(4).predict(identity, fill=0))
    (scene,) = flipped.batch(4).predict(identity, fill=np.nan)
    np.testing.assert_allclose(scene.array[:, :48, 6:], image[:, :48, 6:])
    with pytest.raises(sg.ChainError, match="fill='x' must be a number"):
        chain.batch(4).predict(identity, fill="x")  # type: ignore[arg-type]


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_no_seams_whatever_the_layout(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    size = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    stride = tuple(data.draw(st.integers(1, one)) for one in size)
    image = (
        np.random.default_rng(0)
        .normal(size=shape)
        .astype(data.draw(st.sampled_from(["f2", "f4", "f8", "i2", "c8"])))
    )
    chain = sg.buffer_from_vector([{"x": image}]).key_transform("x", sg.patch(size, stride, edge="pad"))
    if data.draw(st.booleans()):
        chain = chain.shuffle(seed=1)
    (scene,) = chain.batch(3).predict(identity, "x", blend=data.draw(st.sampled_from(BLENDS)))
    np.testing.assert_array_equal(scene.array, image)


# -- memory ----------------------------------------------------------------------------------------------------


def test_no_more_than_the_open_rows_are_kept(opened: sg.Buffer, monkeypatch: pytest.MonkeyPatch) -> None:
    most = 0
    put = Stitcher.put

    def watched(self: Stitcher, *args: Any) -> Any:
        nonlocal most
        scene = put(self, *args)
        most = max([most, *(len(entry.open) for entry in self.pending.values())])
        return scene

    monkeypatch.setattr(Stitcher, "put", watched)
    list(cut(opened, 8, 4).batch(3).predict(identity))
    assert most <= 3  # of twelve: a patch reaches over two strips, one that was moved inwards over three


def test_a_scene_that_goes_to_a_file(
    opened: sg.Buffer, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamgeo.rows.IN_MEMORY", 100)
    (scene,) = cut(opened, 16, 12).batch(5).predict(identity)
    np.testing.assert_allclose(scene.array, image, rtol=1e-6)
    window = sg.Window(y=slice(13, 31), x=slice(5, 66))
    np.testing.assert_allclose(scene.read(window), image[:, 13:31, 5:66], rtol=1e-6)


def test_steps_that_need_the_whole_scene_on_the_way_back(opened: sg.Buffer, image: np.ndarray) -> None:
    chain = opened.key_transform("image", sg.flip("y")).key_transform("image", sg.patch(16, 12))
    (scene,) = chain.batch(5).predict(identity)
    np.testing.assert_allclose(scene.array, image)
    assert "the way back needs each scene as a whole: flip moves pixels" in chain.explain()
    assert "the way back is taken row by row" in cut(opened, 16).explain()


# -- what a model may return -------------------------------------------------------------------------------------


def test_several_outputs(opened: sg.Buffer, image: np.ndarray, tmp_path: Path) -> None:
    (scenes,) = (
        cut(opened, 16, 12)
        .batch(5)
        .predict(
            lambda x: {"mean": x, "std": np.full_like(x, 0.5)},
            inverse={"std": sg.normalize(mean=0.0, std=10.0)},
        )
    )
    np.testing.assert_allclose(scenes["mean"].array, image, rtol=1e-6)
    assert (scenes["std"].array == 5).all()
    paths = scenes.save(tmp_path / "out/")
    assert {name: path.name for name, path in paths.items()} == {
        "mean": "scene_mean.tif",
        "std": "scene_std.tif",
    }
    names = iter([{"a": 1}, {"b": 1}])
    with pytest.raises(sg.StepError, match=r"returned \['b'\], and \['a'\] for an earlier batch"):
        list(cut(opened, 16).batch(5).predict(lambda x: dict.fromkeys(next(names), x)))


def test_rational_factors(opened: sg.Buffer, tmp_path: Path) -> None:
    chain = opened.key_transform("image", sg.crop(y=slice(0, 48), x=slice(0, 64))).key_transform(
        "image", sg.patch(16)
    )

    def model(x: np.ndarray) -> np.ndarray:
        return x.repeat(3, axis=-1).repeat(3, axis=-2)[..., ::2, ::2]

    (scene,) = chain.batch(4).predict(model, inverse=[])
    assert scene.shape == (2, 72, 96)
    before = chain.scene("image").grid
    assert scene.grid.affine[0] == pytest.approx(10 * 2 / 3)
    assert scene.grid.bounds == before.bounds


def test_a_classifier_gives_a_coarse_map(opened: sg.Buffer, image: np.ndarray, tmp_path: Path) -> None:
    chain = opened.key_transform("image", sg.crop(y=slice(0, 48), x=slice(0, 64)))
    chain = chain.key_transform("image", sg.patch(16)).key_transform("image", sg.flip("x"))
    (scene,) = chain.batch(4).predict(lambda x: np.nanmean(x, axis=(1, 2, 3)), inverse=[])
    assert scene.shape == (3, 4)
    expected = image[:, :48, :64].reshape(2, 3, 16, 4, 16)
    np.testing.assert_allclose(scene.array, np.nanmean(expected, axis=(0, 2, 4)), rtol=1e-5)
    with rasterio.open(scene.save(tmp_path / "coarse.tif")) as file:
        assert file.transform == from_origin(400000.0, 5000000.0, 160.0, 160.0)
        assert file.crs.to_epsg() == 32633
    (vector,) = chain.batch(4).predict(lambda x: x.mean(axis=(2, 3)), inverse=[])
    assert vector.dims == ("band", "y", "x") and vector.shape == (2, 3, 4)


def test_a_coarse_map_of_overlapping_patches(opened: sg.Buffer, image: np.ndarray) -> None:
    chain = opened.key_transform(
        "image", sg.patch(20, 10)
    )  # 50 rows, 70 columns: the last patch ends with both
    (scene,) = chain.batch(4).predict(lambda x: x[:, 0, 10, 10], inverse=[])
    assert scene.shape == (4, 6)
    np.testing.assert_array_equal(scene.array, image[0, 10:50:10, 10:70:10])
    # the middle of the first patch is 100 m from the corner; a pixel is as large as the stride
    x, y = (float(scene.grid.pixel_to_world(y=0, x=0)[name]) for name in ("x", "y"))
    assert (x, y) == (400100.0, 4999900.0) and scene.grid.affine[0] == 100.0
    with pytest.raises(sg.StepError, match='the last patches were moved inwards in y.*edge="pad"'):
        list(
            opened.key_transform("image", sg.patch(16)).batch(4).predict(lambda x: x[:, 0, 0, 0], inverse=[])
        )


def test_probabilities_are_blended_before_the_class_is_chosen(opened: sg.Buffer, tmp_path: Path) -> None:
    chain = cut(opened, {"x": 40}, {"x": 30}, dims=["x"])
    answers = iter([[0.6, 0.4], [0.1, 0.9]])

    def model(x: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.reshape(next(answers), (2, 1, 1)), (2, *x.shape[1:])).astype(np.float32)

    (scene,) = chain.predict(model, inverse=[], decide="argmax")
    assert scene.array.dtype == np.uint8 and scene.dims == ("y", "x")
    assert (scene.array[:, :30] == 0).all() and (scene.array[:, 30:] == 1).all()
    with rasterio.open(scene.save(tmp_path / "labels.tif")) as file:
        assert file.read(1).tolist() == scene.array.tolist()
    with pytest.raises(sg.ChainError, match="decide='max' must be"):
        chain.predict(model, decide="max")
    with pytest.raises(sg.StepError, match="decide needs probabilities"):
        list(cut(opened, 16).batch(4).predict(lambda x: x[:, 0], inverse=[], decide="argmax"))


def test_inverse_given_stands_for_all_steps(opened: sg.Buffer, image: np.ndarray) -> None:
    chain = opened.key_transform("image", sg.patch(16, 12))
    chain = chain.key_transform("image", sg.flip("x")).key_transform(
        "image", sg.normalize(mean=100.0, std=10.0)
    )
    (scene,) = chain.batch(5).predict(identity, inverse=[])
    np.testing.assert_allclose(scene.array, (image - 100) / 10, rtol=1e-5, atol=1e-6)


# -- orientations ------------------------------------------------------------------------------------------------


def test_orientations_are_turned_back_and_averaged(opened: sg.Buffer, image: np.ndarray) -> None:
    seen = []

    def model(x: np.ndarray) -> np.ndarray:
        seen.append(x)
        return x

    (scene,) = cut(opened, 16, 12).batch(99).predict(model, tta=sg.d4())
    np.testing.assert_allclose(scene.array, image, rtol=1e-6)
    assert len(seen) == 8 and len({np.nan_to_num(x).tobytes() for x in seen}) == 8


def test_orientations_of_a_model_that_has_a_direction(opened: sg.Buffer) -> None:
    ramp = np.linspace(0, 1, 16, dtype=np.float32)
    (scene,) = (
        cut(opened, 16)
        .batch(4)
        .predict(lambda x: np.broadcast_to(ramp, x[:, 0].shape), inverse=[], tta=sg.flips())
    )
    np.testing.assert_allclose(scene.array, 0.5, rtol=1e-6)
    (values,) = cut(opened, 10).batch(4).predict(lambda x: x[:, 0, 0, 0], inverse=[], tta=sg.d4())
    assert values.shape == (5, 7)


def test_orientations_that_cannot_be(opened: sg.Buffer) -> None:
    with pytest.raises(sg.StepError, match="quarter turn needs square patches"):
        list(cut(opened, (16, 8)).batch(4).predict(identity, tta=sg.d4()))
    with pytest.raises(sg.StepError, match="answers are averaged, and the model returned uint8"):
        list(cut(opened, 16).batch(4).predict(lambda x: (x > 0).astype(np.uint8), tta=sg.flips()))
    with pytest.raises(sg.ChainError, match=r"must be sg.d4\(\), sg.flips\(\)"):
        cut(opened, 16).batch(4).predict(identity, tta=["x"])  # type: ignore[list-item]


# -- patches that do not come -------------------------------------------------------------------------------------


def test_missing_patches_are_named_or_filled(
    opened: sg.Buffer, image: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    chain = cut(opened, 16)
    some = chain.perm([0, 1, 2, *range(5, 20)])
    with pytest.raises(
        sg.ChainError, match=r"scene.tif got 18 of 20 patches; it misses Window\(y=slice\(0, 16\)"
    ):
        list(some.batch(4).predict(identity))
    with caplog.at_level(logging.WARNING, logger="streamgeo"):
        (scene,) = some.batch(4).predict(identity, fill=-5.0)
    assert "got 18 of 20 patches" in caplog.text
    assert (scene.array[:, :16, 48:54] == -5).all()
    np.testing.assert_allclose(scene.array[:, 32:], image[:, 32:], rtol=1e-6)


def test_patches_that_fail_are_skipped_when_asked(opened: sg.Buffer) -> None:
    calls = []

    def fails_once(x: np.ndarray) -> np.ndarray:
        calls.append(1)
        if len(calls) == 2:
            raise ValueError("broken")
        return x

    chain = cut(opened, 16).key_transform("image", fails_once, inverse=identity)
    stream = chain.batch(4).to_stream().on_error("skip", limit=1)
    (scene,) = stream.predict(identity, fill=-5.0)
    assert (scene.array[:, :16, 16:32] == -5).all() and len(stream.skipped) == 1
    with pytest.raises(sg.SampleError, match="broken"):
        calls.clear()
        list(chain.batch(4).predict(identity, fill=-5.0))


# -- loops of one's own --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batched", [True, False])
def test_a_sink_for_a_loop_of_ones_own(
    opened: sg.Buffer, image: np.ndarray, tmp_path: Path, batched: bool
) -> None:
    chain = cut(opened, 16, 12)
    chain = chain.batch(5) if batched else chain
    sink = chain.inverse("image").to(tmp_path / "out", compress="none")
    finished = []
    for batch in chain.shuffle(seed=2).prefetch(2, 2):
        sink.put({**batch, "image": batch["image"] * 2})
        finished += list(sink.finished())
    sink.close()
    sink.close()
    (scene,) = finished
    np.testing.assert_allclose(scene.array, image * 2 - 100, rtol=1e-5)
    with rasterio.open(tmp_path / "out" / "scene.tif") as file:
        np.testing.assert_array_equal(file.read(), scene.array)
    with pytest.raises(sg.ChainError, match="put after close"):
        sink.put(batch)


def test_a_sink_names_what_is_incomplete(opened: sg.Buffer, tmp_path: Path) -> None:
    chain = cut(opened, 16).batch(5)
    sink = chain.inverse("image").to(tmp_path / "out")
    sink.put(chain[0], chain[0]["image"])
    with pytest.raises(sg.ChainError, match="got 5 of 20 patches"):
        sink.close()
    assert not (tmp_path / "out").exists()
    with pytest.raises(sg.MissingKeyError, match="no 'image.scene'"):
        chain.inverse("image").to(tmp_path / "out").put({"image": chain[0]["image"]})
    with pytest.raises(sg.ChainError, match="3 predictions for a batch of 5"):
        chain.inverse("image").to(tmp_path / "out").put(chain[0], chain[0]["image"][:3])
    with chain.inverse("image", fill=0.0).to(tmp_path / "out") as filled:
        filled.put(chain[0])
    assert [scene.name for scene in filled.finished()] == ["scene.tif"]
