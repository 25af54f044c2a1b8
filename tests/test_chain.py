"""Buffer and Stream: what each operation does, on arrays in memory and on files."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import streamgeo as sg


def numbers(count: int = 10) -> sg.Buffer:
    return sg.buffer_from_vector([{"x": np.arange(3) + 10 * i, "n": i} for i in range(count)])


def xs(chain) -> list:
    return [int(sample["n"]) if np.ndim(sample["n"]) == 0 else sample["n"].tolist() for sample in chain]


def double(x: np.ndarray) -> np.ndarray:
    return x * 2


def halve(x: np.ndarray) -> np.ndarray:
    return x / 2


def test_index_slice_and_iteration() -> None:
    b = numbers()
    assert len(b) == b.size() == 10
    assert b[3]["n"] == b[-7]["n"] == 3
    assert xs(b[2:9:3]) == [2, 5, 8] and xs(b[::-1]) == list(range(9, -1, -1)) and xs(b[5:2]) == []
    assert xs(b) == xs(b) == list(range(10))
    with pytest.raises(IndexError, match="sample 10 of a Buffer of 10"):
        b[10]


def test_samples_do_not_alias_their_source() -> None:
    source = np.arange(3.0)
    sample = sg.buffer_from_vector([{"x": source}])[0]
    sample["x"][0] = 99
    assert source[0] == 0


def test_a_step_cannot_write_into_the_source() -> None:
    source = np.arange(3.0)

    def spoil(x: np.ndarray) -> np.ndarray:
        x += 1
        return x

    with pytest.raises(sg.SampleError, match="read-only"):
        sg.buffer_from_vector([{"x": source}]).key_transform("x", spoil)[0]
    assert source.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "dtype", ["?", "u1", "i2", "u2", "f2", "u4", "u8", "c8", ">f4", ">i8", "U3", "M8[s]"]
)
def test_any_dtype_through_threads(dtype: str) -> None:
    array = np.array([0, 1, 2]).astype(dtype)
    (batch,) = list(sg.buffer_from_vector([{"x": array}]).batch(1).prefetch(1, 1))
    assert batch["x"].dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(batch["x"][0], array)


def test_key_transform_and_output_key() -> None:
    sample = numbers().key_transform("x", double, "y")[1]
    assert sample["x"].tolist() == [10, 11, 12] and sample["y"].tolist() == [20, 22, 24]


def test_sample_transform_rename_and_filter() -> None:
    b = numbers().sample_transform(lambda s: {**s, "z": s["x"] + s["n"]})
    assert b[2]["z"].tolist() == [22, 23, 24]
    assert set(b.rename_key("z", "w")[0]) == {"x", "n", "w"}
    assert set(b.filter_key("z")[0]) == {"z"} and set(b.filter_key("z", remove=True)[0]) == {"x", "n"}


def test_a_stream_skips_empty_samples() -> None:
    stream = numbers().to_stream().sample_transform(lambda s: s if s["n"] % 2 else {})
    assert xs(stream) == [1, 3, 5, 7, 9]


def test_remove_value_as_mlx_data_does() -> None:
    import mlx.data as dx

    data = [{"x": np.array([1, 0, 2, 0, 3, 0], np.int32), "size": np.array([5], np.int64)}]
    ours = sg.buffer_from_vector(data).remove_value("x", "size", 0, 0, -1)[0]
    theirs = dx.buffer_from_vector(data).remove_value("x", "size", 0, 0, -1)[0]
    assert ours["size"].tolist() == theirs["size"].tolist() == [3]
    np.testing.assert_array_equal(ours["x"][:3], theirs["x"][:3])


def test_order_operations() -> None:
    assert xs(numbers().perm([3, 3, 0])) == [3, 3, 0]
    assert xs(numbers().partition(3, 1)) == [1, 4, 7]
    assert xs(numbers(3).repeat(2)) == [0, 1, 2, 0, 1, 2]
    assert xs(numbers(3).to_stream().repeat(2)) == [0, 1, 2, 0, 1, 2]
    assert sorted(xs(numbers().shuffle(seed=4))) == list(range(10)) != xs(numbers().shuffle(seed=4))
    assert sorted(xs(numbers().to_stream().shuffle(4, seed=1))) == list(range(10))


def test_shards_are_equal_and_cover_everything() -> None:
    shards = [xs(numbers().shard(4, i)) for i in range(4)]
    assert {len(s) for s in shards} == {3} and set(sum(shards, [])) == set(range(10))
    streams = [xs(numbers().to_stream().shard(4, i)) for i in range(4)]
    assert {len(s) for s in streams} == {2} and len(set(sum(streams, []))) == 8


def test_batch_sizes_last_and_lists() -> None:
    assert xs(numbers().batch(4)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert xs(numbers().batch(4, drop_last=True)) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert xs(numbers().batch([1, 3, 2])) == [[0], [1, 2, 3], [4, 5]]
    assert xs(numbers().batch(2).batch(2))[0] == [[0, 1], [2, 3]]
    assert [
        len(numbers().batch(4)),
        len(numbers().batch(4, drop_last=True)),
        len(numbers().batch(4).to_stream()),
    ] == [3, 2, 3]


def test_batch_pads_and_concatenates_when_asked() -> None:
    b = sg.buffer_from_vector([{"x": np.ones(i + 1)} for i in range(3)])
    np.testing.assert_array_equal(b.batch(3, pad={"x": -1})[0]["x"], [[1, -1, -1], [1, 1, -1], [1, 1, 1]])
    assert b.batch(3, dim={"x": 0})[0]["x"].shape == (6,)


def test_to_buffer_and_a_stream_of_an_iterable() -> None:
    stream = sg.stream_python_iterable(lambda: ({"n": i} for i in range(5)))
    assert xs(stream) == xs(stream) == [0, 1, 2, 3, 4]
    assert xs(stream.batch(2).prefetch(2, 2)) == [[0, 1], [2, 3], [4]]
    assert xs(stream.to_buffer()[1:3]) == [1, 2]
    with pytest.raises(TypeError, match="has no length"):
        len(stream)


def test_a_stream_can_be_patched() -> None:
    stream = sg.stream_python_iterable(lambda: ({"x": np.full((4, 4), i, np.float32)} for i in range(3)))
    samples = list(stream.key_transform("x", sg.patch(2)).prefetch(2, 2))
    assert len(samples) == 12 and samples[-1]["x.scene"] == 2
    scenes = list(stream.key_transform("x", sg.patch(2)).batch(5).predict(double, key="x"))
    assert [float(s.array.mean()) for s in scenes] == [0, 2, 4]


def test_from_mlx_and_to_mlx() -> None:
    import mlx.data as dx

    data = [{"x": np.arange(3, dtype=np.float32) + i} for i in range(4)]
    theirs = dx.buffer_from_vector(data)
    ours = sg.from_mlx(theirs).key_transform("x", double)
    assert [s["x"].tolist() for s in ours] == [(d["x"] * 2).tolist() for d in data]
    back = ours.to_mlx()
    assert isinstance(back, dx.Buffer) and back[3]["x"].tolist() == [6, 8, 10]
    stream = sg.from_mlx(theirs.to_stream())
    assert len(list(stream)) == len(list(stream)) == 4
    out = ours.to_stream().to_mlx()
    assert isinstance(out, dx.Stream) and sum(1 for _ in out) == 4
    with pytest.raises(Exception, match="'x' is uint16, and mlx-data carries"):
        sg.buffer_from_vector([{"x": np.zeros(1, np.uint16)}]).to_mlx()[0]


def test_chains_pickle_and_are_never_changed() -> None:
    chain = numbers().key_transform("x", double).shuffle(seed=1)
    text = repr(chain)
    chain.batch(2).prefetch(1, 1)
    assert repr(chain) == text
    again = pickle.loads(pickle.dumps(chain))
    assert xs(again) == xs(chain) and repr(again) == text


def test_repr_rebuilds_the_chain(samples) -> None:
    path = samples / "remote_sensing" / "RGB.byte.tif"
    chain = (
        sg.files(str(path), key="image")
        .key_transform("image", sg.open_geotiff(bands=[1, 2]))
        .key_transform("image", sg.normalize(mean=1.0, std=2.0))
        .key_transform("image", sg.patch(64, 32))
        .rename_key("image", "x")
        .shuffle(seed=2)
        .batch(4, drop_last=True)
    )
    again = eval(f"({chain!r})")
    assert repr(again) == repr(chain)
    for a, b in zip(again[:2], chain[:2], strict=True):
        assert a.keys() == b.keys() and all(np.array_equal(a[k], b[k], equal_nan=True) for k in a)


def test_a_patched_sample_says_where_it_comes_from(samples) -> None:
    paths = sorted((samples / "helio" / "sharp_377").glob("*.fits"))
    chain = (
        sg.files(paths, key="image")
        .key_transform("image", sg.open_fits())
        .key_transform("image", sg.patch(128))
    )
    assert len(chain) == 4 * 3 * 6
    sample = chain[40]
    assert sample["image.scene"] == 2 and sample["image.scene"].dtype == np.int64
    assert sample["image.window"].shape == (2, 2) and sample["image.window"].dtype == np.int64
    (y0, y1), (x0, x1) = sample["image.window"]
    np.testing.assert_array_equal(sg.open_fits()(paths[2]).array[y0:y1, x0:x1], sample["image"])
    grid = chain.grid("image", sample)
    whole = chain.scene("image", 2).grid
    assert grid == whole.crop(sg.Window(y=(y0, y1), x=(x0, x1)))


def test_several_keys_get_the_same_windows(samples) -> None:
    folder = samples / "helio" / "sharp_377"
    chain = (
        sg.buffer_from_vector(
            [{"a": str(next(folder.glob("*Br.fits"))), "b": str(next(folder.glob("*Bp.fits")))}]
        )
        .key_transform("a", sg.open_fits())
        .key_transform("b", sg.open_fits())
        .key_transform(("a", "b"), sg.patch(100, 50))
    )
    for sample in chain[:5]:
        np.testing.assert_array_equal(sample["a.window"], sample["b.window"])


def test_keys_on_different_grids_are_refused(samples) -> None:
    folder = samples / "remote_sensing"
    chain = (
        sg.buffer_from_vector(
            [{"image": str(folder / "scene_band1.tif"), "mask": str(folder / "cog_nodata_nan.tif")}]
        )
        .key_transform(("image", "mask"), sg.open_geotiff())
        .key_transform(("image", "mask"), sg.patch(64))
    )
    with pytest.raises(sg.SampleError, match=r"'mask' .*does not lie on the grid of 'image'"):
        chain[0]


def test_a_mask_with_other_bands_is_fine(samples) -> None:
    path = str(samples / "remote_sensing" / "RGB.byte.tif")
    chain = (
        sg.buffer_from_vector([{"image": path, "mask": path}])
        .key_transform("image", sg.open_geotiff())
        .key_transform("mask", sg.open_geotiff(bands=1, raw=True))
        .key_transform(("image", "mask"), sg.patch(64))
    )
    sample = chain[30]
    assert sample["image"].shape == (3, 64, 64) and sample["mask"].shape == (64, 64)
    np.testing.assert_array_equal(sample["image.window"][1:], sample["mask.window"])


def mean_filter(x: np.ndarray) -> np.ndarray:
    padded = np.pad(x, 1, mode="edge")
    return sum(padded[i : i + x.shape[0], j : j + x.shape[1]] for i in range(3) for j in range(3)) / 9


@pytest.mark.parametrize("reach", [sg.SCENE, sg.halo(1), None])
def test_windows_and_whole_scene_give_the_same(samples, reach) -> None:
    path = samples / "helio" / "HinodeXRT.fits"
    base = sg.files([path], key="image").key_transform("image", sg.open_fits())
    whole = mean_filter(base[0]["image"])
    chain = base.key_transform("image", mean_filter, reach=reach).key_transform("image", sg.patch(100, 50))
    for sample in chain[::7]:
        (y0, y1), (x0, x1) = sample["image.window"]
        np.testing.assert_allclose(sample["image"], whole[y0:y1, x0:x1], rtol=1e-6)
    assert ("not pushed down" in chain.explain()) == (reach in (sg.SCENE, None))


def test_a_scene_that_must_be_whole_is_computed_once(samples) -> None:
    calls = []

    def count(x: np.ndarray) -> np.ndarray:
        calls.append(x.shape)
        return x + 1

    chain = sg.files([samples / "helio" / "HinodeXRT.fits"], key="image").key_transform(
        "image", sg.open_fits()
    )
    patches = chain.key_transform("image", count).key_transform("image", sg.patch(64))
    assert len(patches) == 64 and calls == []
    assert len(list(patches.batch(4).prefetch(4, 4))) == 16
    assert calls == [(512, 512)]


def test_explain_tells_each_step(samples) -> None:
    chain = (
        sg.files(samples / "remote_sensing" / "RGB.byte.tif", key="image")
        .key_transform("image", sg.open_geotiff())
        .key_transform("image", lambda x: x)
        .key_transform("image", sg.patch(64))
        .batch(4)
    )
    text = chain.explain()
    for part in (
        "band=3, y=718, x=791",
        "band=3, y=64, x=64",
        "float32",
        "SCENE",
        "image (4, 3, 64, 64)",
        "reach=sg.POINT",
    ):
        assert part in text
    assert (
        "pushed down; only the windows" in chain[0:1].explain().replace("not pushed down", "")
        or "not pushed" in text
    )


def test_length_comes_from_headers_alone(tmp_path, monkeypatch) -> None:
    from astropy.io import fits

    from streamgeo.sources.fits import FitsScene

    for i in range(5):
        fits.writeto(tmp_path / f"{i}.fits", np.zeros((100 + i, 100), np.float32))
    monkeypatch.setattr(FitsScene, "_read", None)
    chain = (
        sg.files(str(tmp_path / "*.fits"), key="i")
        .key_transform("i", sg.open_fits())
        .key_transform("i", sg.patch(50))
    )
    assert len(chain) == 4 + 4 * 6
