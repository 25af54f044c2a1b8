"""Windows: laws of the arithmetic, against numpy's slicing."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgeo.errors import GridError
from streamgeo.window import Window

DIMS = ("band", "y", "x")
SIDE = st.tuples(st.integers(-30, 30), st.integers(0, 40)).map(lambda v: (v[0], v[0] + v[1]))
WINDOWS = st.builds(lambda *sides: Window(dict(zip(DIMS, sides))), SIDE, SIDE, SIDE)
INSIDE = st.tuples(st.integers(0, 20), st.integers(0, 20)).map(lambda v: (min(v), max(v)))
INNER = st.builds(lambda y, x: Window(y=y, x=x), INSIDE, INSIDE)
LITTLE = st.tuples(st.integers(-4, 4), st.integers(0, 5)).map(lambda v: (v[0], v[0] + v[1]))
SMALL = st.builds(lambda y, x: Window(y=y, x=x), LITTLE, LITTLE)
PIXELS = np.arange(400).reshape(20, 20)


def points(window: Window) -> set[tuple[int, ...]]:
    """The pixels of a window, one by one."""
    return set(np.ndindex(window.shape)) if 0 in window.shape else {
        tuple(int(i) + side.start for i, side in zip(index, window.values()))
        for index in np.ndindex(window.shape)
    }  # fmt: skip


@given(WINDOWS, st.tuples(*[st.integers(-50, 50)] * 3))
def test_shift_there_and_back(window: Window, by: tuple[int, int, int]) -> None:
    moved = window.shift(**dict(zip(DIMS, by)))
    assert moved.shape == window.shape
    assert moved.shift(**{dim: -step for dim, step in zip(DIMS, by)}) == window
    assert moved["y"].start - window["y"].start == by[1]


@given(WINDOWS, st.integers(0, 20))
def test_expand_and_shrink_again(window: Window, margin: int) -> None:
    grown = window.expand(margin, ("y", "x"))
    assert grown["band"] == window["band"] and grown.shape[1] == window.shape[1] + 2 * margin
    assert grown.expand(-margin, ("y", "x")) == window
    assert window.expand(margin).relative_to(window)["x"].start == -margin


@given(SMALL, SMALL)
def test_intersection_is_the_common_pixels(a: Window, b: Window) -> None:
    both = a.intersect(b)
    assert points(both) == points(a) & points(b) or (0 in both.shape and not points(a) & points(b))
    assert all(size >= 0 for size in both.shape)
    assert both.intersect(b) == both and a.intersect(a) == a


@given(WINDOWS)
def test_clip_lies_within(window: Window) -> None:
    cut = window.clip(DIMS, (5, 12, 9))
    assert cut.within(DIMS, (5, 12, 9)) and cut.clip(DIMS, (5, 12, 9)) == cut
    assert (cut == window) == window.within(DIMS, (5, 12, 9))


@given(INNER, st.data())
def test_a_window_of_a_window_cuts_the_same_pixels(outer: Window, data: st.DataObject) -> None:
    sides = {
        d: data.draw(st.tuples(*[st.integers(s.start, s.stop)] * 2).map(sorted)) for d, s in outer.items()
    }
    inner = Window({dim: tuple(side) for dim, side in sides.items()})
    part = PIXELS[outer.slices(("y", "x"))]
    cut = part[inner.relative_to(outer).slices(("y", "x"))]
    assert np.array_equal(cut, PIXELS[inner.slices(("y", "x"))])
    assert inner.relative_to(outer).shift(y=outer["y"].start, x=outer["x"].start) == inner


@given(WINDOWS)
def test_array_repr_pickle_and_copy(window: Window) -> None:
    array = window.to_array()
    assert array.shape == (3, 2) and array.dtype == np.int64
    for other in (
        Window.from_array(DIMS, array), pickle.loads(pickle.dumps(window)), copy.deepcopy(window),
        eval(repr(window)), Window(window), Window({dim: window[dim] for dim in reversed(DIMS)}),
    ):  # fmt: skip
        assert other == window and hash(other) == hash(window)
    assert np.array_equal(window.to_array(("x", "y")), array[[2, 1]])
    assert window != window.shift(x=1) and window != dict(window)


def test_mapping_and_order() -> None:
    window = Window(y=slice(0, 256), x=(512, 768))
    assert list(window) == ["y", "x"] and len(window) == 2 and "z" not in window
    assert window["x"] == slice(512, 768) and window.get("z") is None
    assert window.dims == ("y", "x") and window.shape == (256, 256)
    assert window.slices(("x", "time", "y")) == (slice(512, 768), slice(None), slice(0, 256))
    assert Window(y=(np.int32(1), np.uint8(3)), x=(1.0, 2.0))["x"] == slice(1, 2)
    with pytest.raises(KeyError):
        window["z"]


def test_complete_takes_what_is_not_named_whole() -> None:
    assert Window(x=(1, 2)).complete(("y", "x"), (5, 6)) == Window(y=(0, 5), x=(1, 2))
    assert Window(x=(1, 2)).complete(("y", "x"), (5, 6)).dims == ("y", "x")
    assert Window().complete(("y",), (5,)) == Window.whole(("y",), (5,))
    with pytest.raises(GridError, match=r"window: no dim 'lat'; the dims are \('y', 'x'\)"):
        Window(lat=(0, 1)).complete(("y", "x"), (5, 6))


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        (slice(0, 10, 2), "a step of 1"), (slice(None, 5), "must have a start"), (slice(3, None), "a stop"),
        ((5, 3), "y stops at 3, before its start 5"), ((0.5, 3), "must be whole pixels"),
        ((0, float("3.2")), r"y=\(0, 3.2\) must be whole pixels"),
    ],
)  # fmt: skip
def test_what_is_no_window(box: slice | tuple[int, int], reason: str) -> None:
    with pytest.raises(GridError, match=reason):
        Window(y=box)
    with pytest.raises(ValueError):  # a GridError is one
        Window({"y": box})
