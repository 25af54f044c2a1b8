"""The way back: stitched, inverted, in the right place, whatever the model did to the shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import streamgeo as sg


def identity(x: np.ndarray) -> np.ndarray:
    return x


@pytest.fixture
def rgb(samples: Path) -> sg.Buffer:
    path = samples / "remote_sensing" / "RGB.byte.tif"
    return sg.files(path, key="image").key_transform("image", sg.open_geotiff())


@pytest.fixture
def chain(rgb: sg.Buffer) -> sg.Buffer:
    scaled = rgb.key_transform("image", sg.normalize(mean=100.0, std=50.0))
    return scaled.key_transform("image", sg.patch(64, 32))


@pytest.mark.parametrize("order", ["plain", "shuffled", "threads", "unbatched"])
def test_identity_gives_the_scene_back(chain: sg.Buffer, rgb: sg.Buffer, order: str) -> None:
    streams = {
        "plain": chain.batch(7),
        "shuffled": chain.shuffle(seed=1).batch(7),
        "threads": chain.shuffle(seed=2).batch(7).prefetch(4, 4),
        "unbatched": chain.prefetch(4, 2),
    }
    (scene,) = list(streams[order].predict(identity))
    np.testing.assert_allclose(scene.array, rgb[0]["image"], rtol=1e-6, atol=1e-4)
    assert scene.grid == rgb.scene("image").grid and scene.array.dtype == np.float32


def test_steps_after_patch_are_undone_patch_by_patch(rgb: sg.Buffer) -> None:
    chain = (
        rgb.key_transform("image", sg.patch(64, 48))
        .key_transform("image", sg.fill_nan(0.0))
        .key_transform("image", sg.flip("x"))
        .key_transform("image", sg.normalize(mean=100.0, std=50.0))
        .batch(5)
        .key_transform("image", sg.minmax(-3.0, 3.0))
    )
    (scene,) = list(chain.prefetch(2, 2).predict(identity))
    np.testing.assert_allclose(scene.array, rgb[0]["image"], rtol=1e-5, atol=1e-3)


def test_steps_before_patch_that_depend_on_the_data(rgb: sg.Buffer) -> None:
    chain = rgb.key_transform("image", sg.fill_nan(0.0)).key_transform("image", sg.patch(64, 48))
    assert np.isfinite(chain[0]["image"]).all()
    (scene,) = list(chain.batch(5).predict(identity))
    np.testing.assert_array_equal(scene.array, rgb[0]["image"])


def test_steps_that_move_pixels(rgb: sg.Buffer) -> None:
    whole = rgb[0]["image"]
    for step in (sg.flip("y"), sg.rot90(1), sg.rot90(3), sg.crop(y=slice(100, 400), x=slice(50, 700))):
        chain = rgb.key_transform("image", step).key_transform("image", sg.patch(64, 48))
        (scene,) = list(chain.batch(9).predict(identity))
        known = np.isfinite(scene.array)
        np.testing.assert_array_equal(scene.array[known], whole[known])
        assert scene.grid == rgb.scene("image").grid
        if "crop" not in step.label:
            np.testing.assert_array_equal(np.isnan(scene.array), np.isnan(whole))


def test_scenes_come_one_after_another(samples: Path) -> None:
    paths = sorted((samples / "helio" / "sharp_377").glob("*.fits"))
    chain = (
        sg.files(paths, key="image")
        .key_transform("image", sg.open_fits())
        .key_transform("image", sg.patch(128))
    )
    seen = []

    def model(x: np.ndarray) -> np.ndarray:
        seen.append(len(x))
        return x

    scenes = chain.batch(18).predict(model)
    assert next(scenes).files == (str(paths[0]),) and len(seen) == 1
    assert next(scenes).files == (str(paths[1]),) and len(seen) == 2


def test_more_bands_and_fewer(chain: sg.Buffer, tmp_path: Path) -> None:
    import rasterio

    (five,) = chain.batch(8).predict(lambda x: np.concatenate([x, x[:, :2]], axis=1), inverse=[])
    assert five.grid.dims == ("band", "y", "x") and five.shape[0] == 5
    (one,) = chain.batch(8).predict(lambda x: x.mean(axis=1), inverse=[])
    assert one.dims == ("y", "x")
    for scene, count in ((five, 5), (one, 1)):
        with (
            rasterio.open(scene.save(tmp_path / f"{count}.tif")) as file,
            rasterio.open(chain.scene("image").files[0]) as source,
        ):
            assert file.count == count and file.transform == source.transform and file.crs == source.crs


def test_labels_keep_their_dtype(chain: sg.Buffer) -> None:
    (mask,) = chain.batch(8).predict(lambda x: (x[:, 0] > 0).astype(np.uint8), inverse=[])
    assert mask.array.dtype == np.uint8 and set(np.unique(mask.array)) == {0, 1}


@pytest.mark.parametrize("factor", [2, 3])
def test_super_resolution(chain: sg.Buffer, rgb: sg.Buffer, tmp_path: Path, factor: int) -> None:
    import rasterio

    (scene,) = chain.batch(8).predict(lambda x: x.repeat(factor, axis=-1).repeat(factor, axis=-2))
    assert scene.shape == (3, 718 * factor, 791 * factor)
    np.testing.assert_allclose(scene.array[:, ::factor, ::factor], rgb[0]["image"], rtol=1e-6, atol=1e-4)
    with (
        rasterio.open(scene.save(tmp_path / "fine.tif")) as file,
        rasterio.open(chain.scene("image").files[0]) as source,
    ):
        assert file.bounds == pytest.approx(source.bounds) and file.res[0] == pytest.approx(
            source.res[0] / factor
        )


def test_lower_resolution(rgb: sg.Buffer) -> None:
    chain = rgb.key_transform("image", sg.crop(y=slice(0, 640), x=slice(0, 640))).key_transform(
        "image", sg.patch(64)
    )
    (scene,) = chain.batch(8).predict(lambda x: x[..., ::4, ::4], inverse=[])
    assert scene.shape == (3, 160, 160)
    assert scene.grid.affine[0] == pytest.approx(4 * rgb.scene("image").grid.affine[0])


def test_a_factor_that_does_not_fit_says_so(chain: sg.Buffer) -> None:
    with pytest.raises(
        sg.StepError,
        match="RGB.byte.tif: a patch starts at x=32, which the model's factor 63/64 does not divide",
    ):
        next(chain.batch(2).predict(lambda x: x[..., :63]))
    with pytest.raises(sg.StepError, match="does not divide"):
        list(chain.batch(8).predict(lambda x: x[..., ::4, ::4]))


def test_another_key_takes_the_output_back(samples: Path, tmp_path: Path) -> None:
    folder = samples / "helio" / "sharp_377"
    chain = (
        sg.buffer_from_vector(
            [
                {
                    "image": str(next(folder.glob("*continuum.fits"))),
                    "target": str(next(folder.glob("*Br.fits"))),
                }
            ]
        )
        .key_transform(("image", "target"), sg.open_fits())
        .key_transform("image", sg.normalize(mean=50000.0, std=5000.0))
        .key_transform("target", sg.minmax(-3000.0, 3000.0))
        .key_transform(("image", "target"), sg.patch(128, 64))
    )
    (scene,) = chain.batch(8).predict(lambda x: np.full_like(x, 0.75), key="image", output_key="target")
    assert np.allclose(scene.array, 1500.0) and "Br" in scene.name
    assert scene.attrs["BUNIT"] == sg.open_fits()(scene.files[0]).attrs["BUNIT"]
    (both,) = chain.batch(8).predict(lambda a, b: a + b, key=("image", "target"), inverse=[])
    assert both.shape == (377, 744)


def test_inverse_as_a_plain_function(chain: sg.Buffer, rgb: sg.Buffer) -> None:
    inverse = chain.inverse("image")
    assert "normalize" in repr(inverse)
    whole = rgb[0]["image"]
    patches = np.stack([sample["image"] for sample in chain])
    np.testing.assert_allclose(inverse(patches), whole, rtol=1e-6, atol=1e-4)
    order = np.random.default_rng(0).permutation(len(chain))
    batch = chain.perm(order.tolist()).batch(len(chain))[0]
    np.testing.assert_allclose(inverse(batch["image"], batch), whole, rtol=1e-6, atol=1e-4)
    scaled = (whole - 100) / 50
    np.testing.assert_allclose(inverse(scaled), whole, rtol=1e-5, atol=1e-3)
    with pytest.raises(sg.ChainError, match="got 20 of"):
        part = chain[:20].batch(20)[0]
        inverse(part["image"], part)


def test_inverse_of_plain_arrays() -> None:
    chain = sg.buffer_from_vector([{"x": np.arange(4.0)}]).key_transform("x", sg.normalize(mean=1.0, std=2.0))
    assert chain.inverse("x")(chain[0]["x"]).tolist() == [0, 1, 2, 3]
    patched = chain.key_transform("x", sg.patch(2))
    assert patched.inverse("x")(patched.batch(2)[0]["x"]).tolist() == [0, 1, 2, 3]


def test_a_missing_inverse_is_told_when_the_chain_is_built(rgb: sg.Buffer) -> None:
    clipped = rgb.key_transform("image", sg.clip(0.0, 10.0)).key_transform("image", sg.patch(64))
    with pytest.raises(sg.InverseError, match=r"clip has no inverse \(it loses"):
        clipped.batch(2).predict(identity)
    with pytest.raises(sg.InverseError, match="clip"):
        clipped.inverse("image")
    named = rgb.key_transform("image", np.sqrt).key_transform("image", sg.patch(64))
    with pytest.raises(sg.InverseError, match="sqrt has no inverse"):
        named.inverse("image")
    given = rgb.key_transform("image", np.sqrt, inverse=np.square).key_transform("image", sg.patch(64))
    (scene,) = given.batch(8).predict(identity)
    np.testing.assert_allclose(scene.array, rgb[0]["image"], rtol=1e-5)
    changed = rgb.key_transform("image", sg.patch(64)).sample_transform(dict)
    with pytest.raises(sg.InverseError, match="sample_transform"):
        changed.inverse("image")
    assert rgb.key_transform("image", sg.patch(64)).sample_transform(dict, keys=["other"]).inverse("image")


def test_patches_that_never_come_are_named(chain: sg.Buffer) -> None:
    with pytest.raises(sg.ChainError, match=r"RGB.byte.tif got \d+ of \d+ patches.*drop_last"):
        list(chain.batch(100, drop_last=True).predict(identity))


def test_a_model_that_returns_the_wrong_thing(chain: sg.Buffer) -> None:
    with pytest.raises(sg.StepError, match=r"returned shape \(7, 3, 64, 64\) for a batch of 8"):
        next(chain.batch(8).predict(lambda x: x[:7]))
    with pytest.raises(sg.StepError, match="must return one array of numbers"):
        next(chain.batch(8).predict(lambda x: None))
    with pytest.raises(sg.MissingKeyError, match="no key 'img' in the sample"):
        next(chain.batch(8).predict(identity, key="img"))


def test_scenes_of_one_name_do_not_overwrite_each_other(samples: Path, tmp_path: Path) -> None:
    import shutil

    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(samples / "remote_sensing" / "RGB.byte.tif", tmp_path / folder / "same.tif")
    chain = sg.files(str(tmp_path / "*" / "same.tif"), key="image").key_transform(
        "image", sg.open_geotiff(bands=1)
    )
    paths = [
        scene.save(tmp_path / "out")
        for scene in chain.key_transform("image", sg.patch(256)).batch(4).predict(identity)
    ]
    assert len({*paths}) == 2 and all(path.exists() for path in paths)


def test_saving_over_the_input_is_refused(rgb: sg.Buffer) -> None:
    scene = rgb.scene("image")
    with pytest.raises(sg.WriteError, match="is a file that this scene is read from"):
        scene.save(scene.files[0])


def test_a_write_that_fails_leaves_nothing(
    rgb: sg.Buffer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import rasterio.io

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(rasterio.io.DatasetWriter, "write", fail)
    with pytest.raises(OSError, match="disk full"):
        rgb.scene("image").save(tmp_path / "out" / "x.tif")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("blend", ["mean", "hann"])
def test_blends(chain: sg.Buffer, rgb: sg.Buffer, blend: str) -> None:
    (scene,) = chain.batch(8).predict(identity, blend=blend)
    np.testing.assert_allclose(scene.array, rgb[0]["image"], rtol=1e-6, atol=1e-4)
    with pytest.raises(sg.StepError, match="no blend 'x'; there are 'mean', 'hann'"):
        chain.batch(8).predict(identity, blend="x")
