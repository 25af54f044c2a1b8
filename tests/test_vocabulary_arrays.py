"""Operations on arrays: mlx-data's results on its six dtypes, numpy's on all others; clear errors for bad input."""

from __future__ import annotations

import pickle

import mlx.data as dx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamgeo as sg
from tests.mlx_twin import OTHERS, SIX, agree, arrays, ours, same, theirs

EVERY = arrays((*SIX, *OTHERS))


@settings(max_examples=150, deadline=None)
@given(x=arrays(), data=st.data(), lpad=st.integers(0, 3), rpad=st.integers(0, 3), value=st.integers(0, 100))
def test_pad_as_mlx_data(x: np.ndarray, data: st.DataObject, lpad: int, rpad: int, value: int) -> None:
    dim = data.draw(st.integers(-x.ndim, x.ndim - 1))
    native = {"x": x.astype(x.dtype.newbyteorder("="))}
    agree(native, "pad", "x", dim, lpad, rpad, value)
    agree(native, "pad_to_size", "x", dim, lpad + rpad + 1, value, output_key="y")
    agree(native, "pad_to_multiple", "x", dim, lpad + 1, value)


@settings(max_examples=150, deadline=None)
@given(x=EVERY, data=st.data(), lpad=st.integers(0, 3), rpad=st.integers(0, 3))
def test_pad_of_every_dtype_and_layout(x: np.ndarray, data: st.DataObject, lpad: int, rpad: int) -> None:
    dim = data.draw(st.integers(-x.ndim, x.ndim - 1))
    widths = [(0, 0)] * x.ndim
    widths[dim] = (lpad, rpad)
    made = ours({"x": x}, "pad", "x", dim, lpad, rpad, 1)["x"]
    np.testing.assert_array_equal(made, np.pad(x, widths, constant_values=1))
    assert made.dtype == x.dtype.newbyteorder("=")


@settings(max_examples=150, deadline=None)
@given(x=EVERY, data=st.data())
def test_slices(x: np.ndarray, data: st.DataObject) -> None:
    dims = data.draw(st.lists(st.integers(0, x.ndim - 1), unique=True))
    starts = [data.draw(st.integers(0, x.shape[d] - 1)) for d in dims]
    ends = [data.draw(st.integers(start + 1, 9)) for start in starts]
    turned = [d - x.ndim if d % 2 else d for d in dims]
    made = ours({"x": x}, "slice", "x", turned, starts, ends)["x"]
    expected = x[
        tuple(slice(*dict(zip(dims, zip(starts, ends))).get(d, (None, None))) for d in range(x.ndim))
    ]
    np.testing.assert_array_equal(made, expected)
    assert made.dtype == x.dtype.newbyteorder("=") and made.flags.c_contiguous
    if x.dtype.name in SIX:
        agree({"x": x.astype(x.dtype.newbyteorder("="))}, "slice", "x", turned, starts, ends)


@settings(max_examples=100, deadline=None)
@given(x=EVERY, data=st.data())
def test_random_slices_lie_inside(x: np.ndarray, data: st.DataObject) -> None:
    dims = data.draw(st.lists(st.integers(0, x.ndim - 1), unique=True, min_size=1))
    sizes = [data.draw(st.integers(1, 6)) for _ in dims]
    marked = np.arange(x.size).reshape(x.shape)
    made = ours({"x": x, "m": marked}, "random_slice", "m", dims, sizes)["m"]
    shape = list(x.shape)
    for d, size in zip(dims, sizes):
        shape[d] = min(shape[d], size)
    assert list(made.shape) == shape
    corner = np.unravel_index(made.flat[0], x.shape)
    box = tuple(slice(c, c + s) for c, s in zip(corner, shape))
    np.testing.assert_array_equal(made, marked[box])
    assert ours({"x": x}, "random_slice", "x", dims, sizes)["x"].shape == tuple(shape)


def test_random_slices_reach_every_place() -> None:
    chain = sg.buffer_from_vector([{"x": np.arange(5)}] * 400).random_slice("x", 0, 3)
    counts = np.bincount([int(s["x"][0]) for s in chain])
    assert len(counts) == 3 and counts.min() > 90


@settings(max_examples=100, deadline=None)
@given(x=EVERY, data=st.data())
def test_shape_squeeze_shard(x: np.ndarray, data: st.DataObject) -> None:
    sample = {"x": x}
    dim = data.draw(st.integers(-x.ndim, x.ndim - 1))
    shape, size = ours(sample, "shape", "x", "s")["s"], ours(sample, "shape", "x", "s", dim)["s"]
    assert shape.tolist() == list(x.shape) and size == x.shape[dim] and shape.dtype == size.dtype == np.int64
    np.testing.assert_array_equal(ours(sample, "squeeze", "x")["x"], x.squeeze())
    parts = data.draw(st.sampled_from([n for n in range(1, 6) if x.shape[0] % n == 0]))
    made = ours(sample, "shard", "x", parts, "y")["y"]
    np.testing.assert_array_equal(made, x.reshape(parts, -1, *x.shape[1:]))
    if x.dtype.name in SIX and x.dtype.isnative:
        agree(sample, "shape", "x", "s")
        agree(sample, "shape", "x", "s", dim)
        agree(sample, "squeeze", "x", output_key="y")
        agree(sample, "shard", "x", parts)
        if x.shape[dim] == 1:
            agree(sample, "squeeze", "x", dim)
            agree(sample, "squeeze", "x", [dim])


@settings(max_examples=100, deadline=None)
@given(x=arrays(max_dims=2), data=st.data(), value=st.integers(-2, 2))
def test_remove_value_as_mlx_data(x: np.ndarray, data: st.DataObject, value: int) -> None:
    x = x.astype(x.dtype.newbyteorder("="))
    dim = data.draw(st.integers(-x.ndim, x.ndim - 1))
    rows = x.size // x.shape[dim]
    sizes = np.array([data.draw(st.integers(0, x.shape[dim])) for _ in range(rows)], np.int64)
    agree({"x": x, "n": sizes}, "remove_value", "x", "n", dim, abs(value), 7)


def test_remove_value_along_a_middle_dim_and_of_other_dtypes() -> None:
    x = np.array([[[1, 5], [0, 5], [2, 0]], [[0, 0], [0, 3], [4, 0]]], np.uint16)  # (2, 3, 2): along 1
    made = ours({"x": x, "n": np.array([3, 3, 3, 2])}, "remove_value", "x", "n", 1, 0, 9)
    assert made["x"][:, :, 0].tolist() == [[1, 2, 9], [4, 9, 9]]
    assert made["x"][:, :, 1].tolist() == [[5, 5, 9], [3, 9, 9]]
    assert made["n"].tolist() == [2, 2, 1, 1] and made["x"].dtype == np.uint16


@settings(max_examples=60, deadline=None)
@given(x=arrays((*SIX, "float16", "uint16")), low=st.integers(-1, 5), high=st.integers(-1, 5))
def test_filter_by_shape(x: np.ndarray, low: int, high: int) -> None:
    passed = list(sg.buffer_from_vector([{"x": x}, {"x": x}]).filter_by_shape("x", -1, low, high))
    expected = (low < 0 or x.shape[-1] >= low) and (high < 0 or x.shape[-1] <= high)
    assert len(passed) == 2 * expected
    if x.dtype.name in SIX and x.dtype.isnative:
        stream = dx.buffer_from_vector([{"x": np.ascontiguousarray(x)}] * 2).to_stream()
        assert len(list(stream.filter_by_shape("x", -1, low, high))) == len(passed)


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=5), data=st.data()
)
def test_batches_of_many_shapes_are_padded_as_in_mlx_data(shapes: list, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(SIX))
    samples = [
        {"x": np.full(shape, i + 1, dtype), "v": np.full(shape[0], i, dtype), "n": np.int64(i)}
        for i, shape in enumerate(shapes)
    ]
    pads = [
        {"pad": {"x": 7}},
        {"dim": {"x": 1}, "pad": {"x": 0, "v": 2}},
        {"dim": {"x": -2, "v": 0}, "pad": {"x": 3}},
    ]
    options = data.draw(st.sampled_from(pads))
    made = sg.buffer_from_vector(samples).batch(len(samples), **options)[0]
    same(made, dx.buffer_from_vector(samples).batch(len(samples), **options)[0])


def test_only_vectors_are_padded_unasked() -> None:
    ragged = sg.buffer_from_vector(
        [{"x": np.ones((2, 3)), "v": np.ones(2)}, {"x": np.ones((2, 2)), "v": np.ones(1)}]
    )
    assert ragged.filter_key("v").batch(2)[0]["v"].tolist() == [[1, 1], [1, 0]]
    with pytest.raises(sg.SampleError, match=r"'x' has shape \(2, 2\) .* or give pad=\{'x': value\}"):
        ragged.batch(2)[0]
    with pytest.raises(sg.SampleError, match="pad of 'x'=300 does not fit uint8, which holds 0 to 255"):
        small = sg.buffer_from_vector([{"x": np.zeros(n, np.uint8)} for n in (1, 2)])
        small.batch(2, pad={"x": 300})[0]


# -- text -----------------------------------------------------------------------------------------------

WORDS = st.text(st.characters(max_codepoint=300, exclude_characters="\0"), max_size=12)


@settings(max_examples=100, deadline=None)
@given(text=WORDS, old=st.text("abé ", min_size=1, max_size=2), new=WORDS, count=st.integers(-2, 3))
def test_replace_as_mlx_data(text: str, old: str, new: str, count: int) -> None:
    expected = text.encode().replace(old.encode(), new.encode(), max(-1, count))
    made = ours({"t": text.encode()}, "replace", "t", old, new, count)["t"]
    assert bytes(made) == expected and made.dtype == np.int8
    assert bytes(ours({"t": text}, "replace", "t", old, new, count)["t"]) == expected
    if text and count:
        agree({"t": text.encode()}, "replace", "t", old, new, count)


@settings(max_examples=60, deadline=None)
@given(x=arrays(max_dims=2), size=st.integers(0, 256))
def test_replace_bytes_as_mlx_data(x: np.ndarray, size: int) -> None:
    table = [chr(65 + i % 300) * (i % 3) for i in range(size)]
    agree({"x": x.astype(x.dtype.newbyteorder("="))}, "replace_bytes", "x", table, "y")


# -- errors ---------------------------------------------------------------------------------------------

SAMPLE = {
    "x": np.arange(12, dtype=np.int32).reshape(3, 4),
    "n": np.array([3]),
    "t": b"abc",
    "s": np.float64(2),
}
WRONG_WHEN_BUILT = [
    ("pad", ("x", 0, -1, 0, 0), "pad: lpad=-1 must be a whole number, 0 or more"),
    ("pad", ("x", 0.5, 1, 0, 0), "pad: dim=0.5"),
    ("pad", ("", 0, 1, 0, 0), "pad: key="),
    ("pad_to_size", ("x", 0, -3, 0), "pad_to_size: size=-3"),
    ("pad_to_multiple", ("x", 0, 0, 0), "pad_to_multiple: pad_multiple=0 must be .* 1 or more"),
    ("slice", ("x", [0, 1], 2, 3), "slice: 2 dims, 1 starts and 1 ends"),
    ("slice", ("x", 0, 2, 1), "slice: start 2 and end 1"),
    ("slice", ("x", 0, -2, -1), "slice: start -2"),
    ("random_slice", ("x", 0, 0), "random_slice: sizes=0 must be .* 1 or more"),
    ("random_slice", ("x", [0, 1], 2), "random_slice: 2 dims and 1 sizes"),
    ("shape", ("x", ""), "shape: output_key is empty"),
    ("shard", ("x", 0), "shard: num_shards=0"),
    ("shard", (), "shard: give num_shards and index, or a key"),
    ("replace", ("t", "", "z"), "replace: old is empty"),
]
WRONG_WHEN_READ = [
    (
        "pad",
        ("x", 2, 1, 1, 0),
        r"pad\('x', 2, 1, 1, 0\) failed: .*dim 2 is out of range .*\(3, 4\); use -2 to 1",
    ),
    ("pad", ("x", -3, 1, 1, 0), "dim -3 is out of range"),
    ("pad", ("s", 0, 1, 1, 0), "dim 0 is out of range .* it has no dims"),
    ("pad", ("q", 0, 1, 1, 0), r"no key 'q' in the sample; it has \['n', 's', 't', 'x'\]"),
    ("pad", ("x", 0, 1, 1, float("nan")), "pad_value=nan does not fit int32"),
    ("pad", ("x", 0, 1, 1, 2**40), "does not fit int32, which holds"),
    ("slice", ("x", 0, 3, 8), r"start 3 is past dim 0 of shape \(3, 4\); use 0 to 2"),
    ("squeeze", ("x", 0), r"dim 0 of shape \(3, 4\) has size 3"),
    ("shard", ("x", 2), "does not go into 2 equal parts"),
    ("shard", ("s", 1), "dim 0 is out of range"),
    ("remove_value", ("x", "n", 0, 1), r"'n' has 1 sizes for 'x' of shape \(3, 4\)"),
    ("remove_value", ("x", "s", 0, 1), "'s' is float64; sizes are whole numbers"),
    ("remove_value", ("x", "q", 0, 1), "no key 'q'"),
    ("replace", ("x", "a", "b"), "an array of int32 is not text"),
]


@pytest.mark.parametrize(("operation", "args", "says"), WRONG_WHEN_BUILT)
def test_wrong_arguments_are_told_when_the_chain_is_built(operation: str, args: tuple, says: str) -> None:
    with pytest.raises(sg.ChainError, match=says):
        getattr(sg.buffer_from_vector([SAMPLE]), operation)(*args)


@pytest.mark.parametrize(("operation", "args", "says"), WRONG_WHEN_READ)
def test_what_does_not_fit_the_array_is_told_when_it_is_read(operation: str, args: tuple, says: str) -> None:
    with pytest.raises(sg.SampleError, match=says) as caught:
        getattr(sg.buffer_from_vector([SAMPLE]), operation)(*args)[0]
    assert isinstance(caught.value.__cause__, sg.StreamGeoError)


# -- what they are as links -------------------------------------------------------------------------------


def test_the_source_is_never_written_to_and_chains_pickle() -> None:
    x = np.arange(12.0).reshape(3, 4)
    chain = sg.buffer_from_vector([{"x": x}]).slice("x", 0, 0, 2).pad("x", 1, 0, 1, 9, "y").squeeze("x")
    again = pickle.loads(pickle.dumps(chain))
    assert repr(again) == repr(chain)
    sample = again[0]
    same(sample, chain[0])
    sample["x"][...] = -1
    assert x.tolist() == np.arange(12.0).reshape(3, 4).tolist() and chain[0]["x"][0, 0] == 0


def test_repr_builds_the_chain_again() -> None:
    data = [{"x": np.arange(12).reshape(3, 4), "t": b"abc"}]
    chain = (
        sg.buffer_from_vector(data).pad("x", 0, 1, 1, 5).slice("x", [0, 1], [0, 1], [2, 3], output_key="y")
        .shape("x", "s", 0).shard("x", 5).squeeze("x").random_slice("x", 0, 2).replace("t", "a", "b")
        .replace_bytes("t", ["x"] * 256).pad_to_size("y", 0, 9, 1).pad_to_multiple("y", 0, 4, 1)
    )  # fmt: skip
    again = eval(repr(chain).replace("\n", "").replace("[...]", repr(data).replace("array", "np.array")))
    assert repr(again) == repr(chain)
    same(again[0], chain[0])


def test_shard_is_told_apart_by_its_first_argument() -> None:
    buffer = sg.buffer_from_vector([{"x": np.arange(4)} for _ in range(10)])
    assert len(buffer.shard(4, 1)) == len(buffer.shard(num_shards=4, index=1)) == 3
    assert buffer.shard("x", 2)[0]["x"].shape == buffer.shard(key="x", num_shards=2)[0]["x"].shape == (2, 2)
    assert len(list(buffer.to_stream().shard(4, 1))) == 2


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda c: c.pad("image", 0, 1, 1, 0), "pad"),
        (lambda c: c.slice("image", 0, 0, 2), "slice"),
        (lambda c: c.random_slice("image", 0, 2), "random_slice"),
        (lambda c: c.squeeze("image"), "squeeze"),
        (lambda c: c.to_stream().sliding_window("image", 2, 2), "sliding_window"),
        (lambda c: c.to_stream().buffered(4), "buffered"),
        (lambda c: c.dynamic_batch("image"), "dynamic_batch"),
    ],
)
def test_what_cannot_be_undone_is_named(build, name: str, tmp_path) -> None:
    np.save(tmp_path / "a.npy", np.arange(64.0).reshape(8, 8))
    opened = sg.files(str(tmp_path / "*.npy"), key="image").key_transform("image", sg.open_numpy())
    chain = build(opened.key_transform("image", sg.patch(4)))
    with pytest.raises(sg.InverseError, match=rf"{name}\(.*has no inverse for 'image'"):
        chain.predict(lambda x: x)
    other = opened.key_transform("image", sg.patch(4)).pad("image", 0, 1, 1, 0, output_key="wide")
    assert "wide.scene" not in other[0] and "image.scene" in other[0]
    (scene,) = other.predict(lambda x: x)
    np.testing.assert_array_equal(scene.array, np.arange(64.0).reshape(8, 8))


def test_arrays_that_were_changed_lie_on_no_grid(tmp_path) -> None:
    np.save(tmp_path / "a.npy", np.arange(64.0).reshape(8, 8))
    chain = sg.files(str(tmp_path / "*.npy"), key="x").key_transform("x", sg.open_numpy())
    sample = chain.slice("x", 0, 2, 4)[0]
    assert set(sample) == {"x"} and sample["x"].tolist() == np.arange(64.0).reshape(8, 8)[2:4].tolist()


def test_theirs_is_really_mlx_data() -> None:
    assert theirs({"x": np.arange(3)}, "pad", "x", 0, 1, 0, 5)["x"].tolist() == [5, 0, 1, 2]
