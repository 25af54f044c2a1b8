"""Patches and stitching: every pixel covered, exact on overlaps, NaN-aware; errors that say what to do."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamgeo as sg
from streamgeo.grid import plain_grid
from streamgeo.steps.stitch import Canvas

shapes = st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40))


@st.composite
def cuts(draw: st.DrawFn) -> tuple[tuple[int, ...], int, int, str]:
    edge = draw(st.sampled_from(["shift", "pad"]))
    shape = draw(shapes)
    size = draw(st.integers(1, min(shape[1:]) if edge == "shift" else 50))
    return shape, size, draw(st.integers(1, size)), edge


@given(cuts(), st.integers(0, 2**32 - 1), st.sampled_from(["f4", "f8", "c16", "u1", "i8", "?"]))
@settings(max_examples=150, deadline=None)
def test_what_is_cut_is_stitched_exactly(cut: tuple, seed: int, dtype: str) -> None:
    shape, size, stride, edge = cut
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal(shape) * 1e3).astype(dtype)
    if dtype in ("f4", "f8"):
        x[rng.random(shape) < 0.1] = np.nan
        x[rng.random(shape) < 0.05] = np.inf
    step = sg.patch(size, stride, edge=edge)
    patches, residual = step.forward(x)
    back = step.undo(patches, residual=residual)
    assert back.dtype == x.dtype
    np.testing.assert_array_equal(back, x)


def test_shift_starts_are_those_of_the_published_tiler(samples) -> None:
    tiles = np.load(samples / "remote_sensing/spacenet_tiles_16x250x250x1.npy")[..., 0]
    chain = (
        sg.files(samples / "remote_sensing/spacenet_atlanta.tif", key="image")
        .key_transform("image", sg.open_geotiff(bands=1, raw=True))
        .key_transform("image", sg.patch(250))
    )
    assert len(chain) == 16
    np.testing.assert_array_equal(chain.batch(16)[0]["image"], tiles)


def test_drop_leaves_out_and_comes_back_as_nan() -> None:
    step = sg.patch(16, edge="drop")
    layout = step.layout(plain_grid((40, 35)))
    assert len(layout) == 4 and layout.dropped == 40 * 35 - 32 * 32
    patches, residual = step.forward(np.ones((40, 35), np.float32))
    back = step.undo(patches, residual=residual)
    assert np.isnan(back).sum() == layout.dropped and np.all(back[:32, :32] == 1)


def test_explain_tells_what_is_dropped() -> None:
    chain = sg.buffer_from_vector([{"x": np.ones((40, 35))}]).key_transform("x", sg.patch(16, edge="drop"))
    assert "376 of 1400 pixels" in chain.explain()


def test_gaps_between_patches_need_drop() -> None:
    chain = sg.buffer_from_vector([{"x": np.arange(100.0)}])
    with pytest.raises(sg.SampleError, match=r'stride 20 exceeds size 10 in dim_0.*edge="drop"'):
        len(chain.key_transform("x", sg.patch(10, 20)))
    assert len(chain.key_transform("x", sg.patch(10, 20, edge="drop"))) == 5


@pytest.mark.parametrize("blend", ["mean", "hann"])
def test_overlaps_are_a_weighted_mean(blend: str) -> None:
    canvas = Canvas((6,), np.float64, [0], blend)
    canvas.put(np.full(4, 1.0), [0])
    canvas.put(np.full(4, 3.0), [2])
    out = canvas.result()
    assert out[0] == 1 and out[-1] == 3
    assert out[2] + out[3] == pytest.approx(4) and 1 < out[2] <= out[3] < 3


def test_nan_has_no_weight() -> None:
    canvas = Canvas((3,), np.float32, [0])
    canvas.put(np.array([1, np.nan, np.nan], np.float32), [0])
    canvas.put(np.array([np.nan, 5, np.nan], np.float32), [0])
    np.testing.assert_array_equal(canvas.result(), [1, 5, np.nan])


def test_labels_are_never_averaged() -> None:
    canvas = Canvas((8,), np.uint8, [0])
    canvas.put(np.full(6, 1, np.uint8), [0])
    canvas.put(np.full(6, 9, np.uint8), [2])
    assert canvas.result().tolist() == [1, 1, 1, 1, 9, 9, 9, 9]


def test_sizes_by_dim_and_dims_by_name(samples) -> None:
    chain = sg.files(samples / "geoscience/eraint_uvz.nc", key="u").key_transform(
        "u", sg.open_netcdf(variable="u")
    )
    cut = chain.key_transform("u", sg.patch({"latitude": 64, "longitude": 100, "level": 1}))
    assert cut[0]["u"].shape == (2, 1, 64, 100)
    assert chain.key_transform("u", sg.patch((50, 60)))[0]["u"].shape == (2, 3, 50, 60)
    with pytest.raises(sg.SampleError, match=r"no dim 'lat'; its dims are \('month', 'level', 'latitude'"):
        len(chain.key_transform("u", sg.patch(8, dims=("lat",))))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((0,), "size=0 must be 1 or more"),
        ((-3,), "size=-3 must be 1 or more"),
        ((8, 0), "stride=0 must be 1 or more"),
        ((2.5,), "size=2.5 must be whole numbers"),
        ((True,), "size=True must be whole numbers"),
    ],
)
def test_bad_sizes(arguments: tuple, says: str) -> None:
    with pytest.raises(sg.StepError, match=says):
        sg.patch(*arguments)


def test_bad_edge() -> None:
    with pytest.raises(sg.StepError, match='edge=\'wrap\' must be "shift", "pad" or "drop"'):
        sg.patch(8, edge="wrap")  # type: ignore[arg-type]


def test_a_scene_smaller_than_the_patch(samples) -> None:
    path = samples / "remote_sensing/float_nan.tif"
    chain = sg.files([path], key="image").key_transform("image", sg.open_geotiff())
    with pytest.raises(
        sg.SampleError, match=r'size 64 exceeds y=2 of .*float_nan.tif; use a smaller size or edge="pad"'
    ):
        chain.key_transform("image", sg.patch(64))[0]
    assert chain.key_transform("image", sg.patch(64, edge="pad"))[0]["image"].shape == (1, 64, 64)


def test_pickle_json_and_repr() -> None:
    step = sg.patch(size=(8, 16), stride=4, dims=("y", "x"), edge="pad", fill=0.0)
    assert pickle.loads(pickle.dumps(step)) == step == sg.step_from_json(step.to_json()) == eval(repr(step))
    assert step != sg.patch(8)


def test_padding_takes_the_fill() -> None:
    chain = sg.buffer_from_vector([{"x": np.ones((3, 3), np.float32), "m": np.ones((3, 3), np.uint8)}])
    cut = chain.key_transform(("x", "m"), sg.patch(4, edge="pad"))[0]
    assert np.isnan(cut["x"]).sum() == 7 and (cut["m"] == 0).sum() == 7
    cut = chain.key_transform(("x", "m"), sg.patch(4, edge="pad", fill=5))[0]
    assert (cut["x"] == 5).sum() == 7 and (cut["m"] == 5).sum() == 7


def _windows(chain: sg.Buffer) -> list[tuple[int, ...]]:
    return [(int(s["x.scene"]), *s["x.window"][:, 0].tolist()) for s in chain]


def test_scenes_that_were_shuffled_come_in_another_order_each_epoch() -> None:
    scenes = sg.buffer_from_vector([{"x": np.full((2 + 2 * (i % 3), 4), float(i))} for i in range(9)])
    stream = scenes.shuffle(seed=1).key_transform("x", sg.patch(2)).batch(3).prefetch(2, 2)
    epochs = [[int(v) for b in stream for v in b["x"][:, 0, 0]] for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(epochs[2])
    again = scenes.shuffle(seed=1).key_transform("x", sg.patch(2)).batch(3).to_stream()
    assert [[int(v) for b in again for v in b["x"][:, 0, 0]] for _ in range(3)] == epochs


def test_a_stream_of_scenes_has_no_length() -> None:
    stream = sg.buffer_from_vector([{"x": np.zeros((4, 4))}] * 2).to_stream().key_transform("x", sg.patch(2))
    with pytest.raises(TypeError, match="known at its end"):
        len(stream)
    assert len(list(stream)) == 8


def test_bad_headers_do_not_hide_the_others(tmp_path: Path) -> None:
    for number in range(40):
        np.save(tmp_path / f"a_{number:02}.npy", np.full((4, 4), number, np.float32))
    for number in (3, 17, 38):
        (tmp_path / f"a_{number:02}.npy").write_bytes(b"no array")
    chain = (
        sg.files(str(tmp_path / "*.npy"), key="x")
        .key_transform("x", sg.open_numpy())
        .key_transform("x", sg.patch(2))
    )
    with pytest.raises(
        sg.SampleError, match=r"3 of 40 scenes cannot be opened: sample 3: .*a_03.*a_17.*a_38"
    ) as told:
        len(chain)
    assert isinstance(told.value.__cause__, sg.OpenError)
    for shuffled in (False, True):
        buffer = chain.shuffle(seed=1) if shuffled else chain
        with pytest.raises(sg.SampleError, match="a_(03|17|38)"):
            list(buffer.to_stream())
        for stream in (
            buffer.to_stream().on_error("skip", limit=5),
            buffer.prefetch(4, 2).on_error("skip", limit=5),
        ):
            values = sorted({int(s["x"][0, 0]) for s in stream})
            assert values == [n for n in range(40) if n not in (3, 17, 38)]
            assert len(stream.skipped) == 3
    late = sg.files(str(tmp_path / "*.npy"), key="x").to_stream().key_transform("x", sg.open_numpy())
    stream = late.key_transform("x", sg.patch(2)).prefetch(4, 2).on_error("skip", limit=3)
    assert len(list(stream)) == 37 * 4
    assert len(stream.skipped) == 3
