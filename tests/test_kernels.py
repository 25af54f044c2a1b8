"""The inner loops in C against numpy and astropy, over every shape, stride and width; and what they must refuse."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamgeo as sg
from streamgeo import kernels
from streamgeo.sources.fits_codecs import CODED, GUARD, Decoder, Stored

Array = Any
compiled = kernels.compiled
pytestmark = pytest.mark.skipif(compiled is None, reason="streamgeo was installed without a C compiler")
SMALL = ["u1", "i1", "u2", "i2", "<i2", ">i2", ">u2"]


def by_numpy(function: Callable[..., None], *arguments: Any) -> None:
    """The same without what is compiled."""
    kernels.compiled = None
    try:
        function(*arguments)
    finally:
        kernels.compiled = compiled


@st.composite
def spread(draw: st.DrawFn, dtype: str, shape: tuple[int, ...]) -> Array:
    """An array of this shape that lies in memory in any order, with gaps, backwards, or shifted by a byte."""
    kind = np.dtype(dtype)
    steps = [draw(st.sampled_from([1, 1, 2, 3, -1])) for _ in shape]
    room = [size * abs(step) for size, step in zip(shape, steps)]
    order = draw(st.permutations(range(len(shape))))
    shift = draw(st.sampled_from([0, 0, 1]))
    count = int(np.prod(room)) if room else 1
    bytes_ = np.random.default_rng(draw(st.integers(0, 99))).integers(
        0, 256, count * kind.itemsize + shift, np.uint8
    )
    whole = np.frombuffer(bytearray(bytes_), kind, count, shift).reshape([room[i] for i in order])
    return whole.transpose(np.argsort(order))[(*(slice(None, None, step) for step in steps), ...)]


shapes = st.lists(st.integers(0, 6), max_size=5).map(tuple)


@given(st.data(), st.sampled_from(SMALL), st.lists(shapes, max_size=4))
@settings(deadline=None, max_examples=200)
def test_look_up(data: st.DataObject, dtype: str, sizes: list[tuple[int, ...]]) -> None:
    stored = [data.draw(spread(dtype, shape)) for shape in sizes]
    first = [data.draw(spread("f4", shape)) for shape in sizes]
    second = [np.empty(shape, np.float32) for shape in sizes]
    table = np.random.default_rng(1).permutation(1 << 8 * np.dtype(dtype).itemsize).astype(np.float32)
    kernels.look_up(list(zip(first, stored)), table)
    by_numpy(kernels.look_up, list(zip(second, stored)), table)
    for one, other, bits in zip(first, second, stored):
        assert np.array_equal(one, other)
        assert np.array_equal(one, table[bits.view(f"=u{bits.itemsize}")])


numbers = st.floats(-1e6, 1e6) | st.sampled_from([1.0, -1.0, 0.0, -0.0, 1e300, -1e-40, 1 / 3])


@given(
    st.data(),
    st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4", ">i2"]),
    st.lists(shapes, max_size=4),
    st.none() | st.integers(-(2**33), 2**33),
    numbers,
    numbers,
    st.sampled_from([np.float32, np.float64]),
)
@settings(deadline=None, max_examples=300)
def test_line(
    data: st.DataObject,
    dtype: str,
    sizes: list[tuple[int, ...]],
    missing: int | None,
    scale: float,
    offset: float,
    real: Any,
) -> None:
    stored = [data.draw(spread(dtype, shape)) for shape in sizes]
    if stored and stored[0].size and data.draw(st.booleans()):
        missing = int(stored[0].flat[0])
    first = [data.draw(spread("f4", shape)) for shape in sizes]
    second = [np.empty(shape, np.float32) for shape in sizes]
    line = kernels.Line(missing, scale, offset, np.dtype(real))
    line.each(list(zip(first, stored)))
    by_numpy(line.each, list(zip(second, stored)))
    for one, other, values in zip(first, second, stored):
        assert one.tobytes() == other.tobytes()
        assert missing is None or np.isnan(one[values == missing]).all()
        with np.errstate(all="ignore"):
            expected = (values.astype(real) * real(scale) + real(offset)).astype(np.float32)
        other_values = values != missing
        assert one[other_values].tobytes() == expected[other_values].tobytes()


@given(
    st.data(),
    st.sampled_from(["?", "u1", "i2", ">i2", "f4", "<f8", ">f8", "c8", "c16", "f2", "M8[s]"]),
    st.lists(shapes, max_size=4),
)
@settings(deadline=None, max_examples=300)
def test_copies(data: st.DataObject, dtype: str, sizes: list[tuple[int, ...]]) -> None:
    stored = [data.draw(spread(dtype, shape)) for shape in sizes]
    first = [data.draw(spread(dtype, shape)) for shape in sizes]
    second = [np.empty(shape, dtype) for shape in sizes]
    if stored:
        kernels.PLAIN.each(list(zip(first, stored)))
        by_numpy(kernels.PLAIN.each, list(zip(second, stored)))
    for one, other, values in zip(first, second, stored):
        assert one.tobytes() == other.tobytes() == values.tobytes()


def test_what_is_copied_to_another_dtype_is_cast() -> None:
    out = [np.empty(3, np.float32), np.empty(2, np.float32)]
    kernels.PLAIN.each([(out[0], np.array([1, 2, 3], np.int16)), (out[1], np.array([-1, 9], np.int16))])
    assert [one.tolist() for one in out] == [[1, 2, 3], [-1, 9]]


@pytest.mark.parametrize("shape", [(3, 700), (40, 33), (5, 6, 7), (2, 3, 4, 5), (1, 5000), (900, 1)])
@pytest.mark.parametrize("dtype", ["u1", "i2", "i4"])
def test_rows_that_lie_apart(shape: tuple[int, ...], dtype: str) -> None:
    """Windows of larger arrays, which is what rows are asked for ahead in, up to the last row."""
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 99, [2 * size + 1 for size in shape]).astype(dtype)
    for start in (0, 1):
        ends = [2 * size + 1 if start else size for size in shape]
        part = whole[tuple(slice(end - size, end) for size, end in zip(shape, ends))]
        line, copied = np.empty(shape, np.float32), np.empty(shape, dtype)
        kernels.Line(7, 0.5, 3.0).each([(line, part)])
        kernels.PLAIN.each([(copied, part)])
        expected = np.where(part == 7, np.nan, part.astype(np.float32) * np.float32(0.5) + np.float32(3))
        assert line.tobytes() == expected.astype(np.float32).tobytes() and np.array_equal(copied, part)


@given(st.binary(max_size=600), st.integers(1, 17))
def test_unshuffle(data: bytes, width: int) -> None:
    numbers = np.frombuffer(data[: len(data) // width * width], np.uint8)
    shuffled = np.ascontiguousarray(numbers.reshape(-1, width).T).ravel()
    first, second = np.empty_like(numbers), np.empty_like(numbers)
    kernels.unshuffle(first, shuffled, width)
    by_numpy(kernels.unshuffle, second, shuffled, width)
    assert first.tobytes() == second.tobytes() == numbers.tobytes()


@given(
    st.sampled_from(["u1", "i2", "u4", "f4", "i8", "f8", "c16"]),
    st.tuples(st.integers(0, 5), st.integers(0, 40), st.integers(0, 9)),
    st.booleans(),
)
@settings(deadline=None)
def test_planes(dtype: str, shape: tuple[int, int, int], differences: bool) -> None:
    if np.dtype(dtype).itemsize > 8 and differences:
        return
    bits = np.random.default_rng(0).integers(0, 256, (*shape, np.dtype(dtype).itemsize), np.uint8)
    pixels = bits.view(dtype).reshape(shape)
    first, second = (np.empty((shape[2], *shape[:2]), dtype) for _ in range(2))
    kernels.planes(first, pixels.copy(), differences)
    by_numpy(kernels.planes, second, pixels.copy(), differences)
    assert first.tobytes() == second.tobytes()
    if differences and pixels.size:
        back = np.diff(first.view(f"u{pixels.itemsize}"), axis=2, prepend=np.zeros((), f"u{pixels.itemsize}"))
        assert back.transpose(1, 2, 0).tobytes() == pixels.tobytes()


def test_explain_says_when_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = sg.buffer_from_vector([{"x": 1}])
    assert "compiler" not in chain.explain()
    monkeypatch.setattr(kernels, "compiled", None)
    assert chain.explain().endswith(kernels.MISSING)


# -- Rice -----------------------------------------------------------------------------------------------


def coded(values: Array, block: int) -> bytes:
    from astropy.io.fits.hdu.compressed import _compression

    return bytes(_compression.compress_rice_1_c(values.tobytes(), block, values.itemsize))


@st.composite
def rows(draw: st.DrawFn) -> Array:
    """Numbers as images have them: flat, noisy, with jumps, and wild, in turns of any length."""
    dtype = draw(st.sampled_from(["u1", "i2", "i4"]))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    info = np.iinfo(dtype)
    parts = []
    for spread_bits, count in draw(
        st.lists(st.tuples(st.integers(0, 32), st.integers(1, 80)), min_size=1, max_size=6)
    ):
        most = min(1 << spread_bits, info.max)
        parts.append(
            rng.integers(-most if info.min else 0, most, count, endpoint=True).clip(info.min, info.max)
        )
    return np.concatenate(parts).astype(dtype)


def stored(values: Array, block: int) -> Stored:
    return Stored((len(values),), (len(values),), "RICE_1", values.dtype, block, values.itemsize)


def outcome(decoder: Decoder, raw: bytes, count: int) -> bytes | None:
    """What comes out of a tile, where anything does."""
    data = np.concatenate([np.frombuffer(raw, np.uint8), GUARD])
    try:
        return bytes(decoder(data[: len(raw)], CODED, (count,)).tobytes())
    except Exception:
        return None


@given(rows(), st.sampled_from([1, 7, 16, 32]))
@settings(deadline=None, max_examples=300)
def test_rice_gives_what_was_coded(values: Array, block: int) -> None:
    raw = coded(values, block)
    assert outcome(Decoder(stored(values, block)), raw, len(values)) == values.tobytes()


@given(rows(), st.sampled_from([1, 16, 32]), st.data())
@settings(deadline=None, max_examples=600)
def test_damaged_rice_is_what_astropy_makes_of_it_or_refused(
    values: Array, block: int, data: st.DataObject
) -> None:
    raw = bytearray(coded(values, block))
    for _ in range(data.draw(st.integers(0, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))]
    decoder = Decoder(stored(values, block))
    mine = outcome(decoder, bytes(raw), len(values))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "compiled", None)
        theirs = outcome(decoder, bytes(raw), len(values))
    assert mine is None or mine == theirs


@given(st.lists(rows(), min_size=1, max_size=5), st.sampled_from([1, 7, 32]), st.data())
@settings(deadline=None, max_examples=300)
def test_rice_of_several_tiles_is_that_of_each(tiles: list[Array], block: int, data: st.DataObject) -> None:
    """Also where some are damaged: the first of those stops it, and nothing else is taken for sound."""
    dtype, count = tiles[0].dtype, min(len(tile) for tile in tiles)
    parts = [bytearray(coded(tile[:count].astype(dtype), block)) for tile in tiles]
    for _ in range(data.draw(st.integers(0, 2))):
        part = parts[data.draw(st.integers(0, len(parts) - 1))]
        part[data.draw(st.integers(0, len(part) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(parts) - 1))
    parts[cut] = parts[cut][: len(parts[cut]) - data.draw(st.sampled_from([0, 0, 1, 9]))]
    sizes = np.array([len(part) for part in parts])
    starts, together = np.cumsum(sizes) - sizes, np.frombuffer(b"".join(parts), np.uint8)
    one_by_one, sound = np.zeros((len(parts), count), dtype), 0
    while sound < len(parts):
        at = slice(sound, sound + 1)
        if not compiled.rice(one_by_one[at], together, starts[at], sizes[at], block):
            break
        sound += 1
    out = np.zeros_like(one_by_one)
    assert compiled.rice(out, together, starts, sizes, block) == sound
    assert out[:sound].tobytes() == one_by_one[:sound].tobytes()


def test_rice_takes_all_tiles_and_names_the_first_that_is_damaged() -> None:
    values = np.random.default_rng(0).integers(0, 300, (5, 64)).astype(np.int16)
    parts = [coded(row, 32) for row in values]
    sizes = np.array([len(part) for part in parts])
    data = np.frombuffer(b"".join(parts), np.uint8)
    starts = np.cumsum(sizes) - sizes
    out = np.zeros_like(values)
    assert compiled.rice(out, data, starts, sizes, 32) == 5
    assert np.array_equal(out, values)
    for places, lengths in (
        (starts + 1000, sizes),
        (starts - 1000, sizes),
        (starts, sizes + 10**6),
        (starts, -sizes),
    ):
        assert compiled.rice(out, data, places, lengths, 32) == 0
    cut = sizes.copy()
    cut[3] = 4
    assert compiled.rice(out, data, starts, cut, 32) == 3
    cut[3] = 9  # enough for pixels that are all alike
    decoder = Decoder(Stored((5, 64), (1, 64), "RICE_1", np.dtype("i2"), 32, 2))
    with pytest.raises(Exception, match="end of compressed"):  # as astropy says it
        decoder.rice_tiles(data, starts, cut, out)


# -- LZW ------------------------------------------------------------------------------------------------

texts = st.one_of(
    st.binary(max_size=3000),
    st.lists(st.sampled_from([b"\0", b"\0\1", b"abcabc", b"\xff" * 300]), max_size=300).map(b"".join),
    st.integers(0, 99).map(
        lambda seed: np.random.default_rng(seed).integers(0, 4, 60_000, np.uint8).tobytes()
    ),
)


@given(texts)
@settings(deadline=None)
def test_lzw_gives_what_was_coded(text: bytes) -> None:
    raw = np.frombuffer(imagecodecs.lzw_encode(text), np.uint8)
    out = np.full(len(text), 7, np.uint8)
    assert kernels.lzw(out, raw)
    assert out.tobytes() == text
    part = np.full(len(text) // 2, 7, np.uint8)  # of a strip that is cut at the edge of the image
    assert kernels.lzw(part, raw)
    assert part.tobytes() == text[: len(part)]
    assert not kernels.lzw(np.empty(len(text) + 1, np.uint8), raw)


@given(texts, st.data())
@settings(deadline=None, max_examples=500)
def test_damaged_lzw_is_what_imagecodecs_makes_of_it_or_refused(text: bytes, data: st.DataObject) -> None:
    raw = bytearray(imagecodecs.lzw_encode(text))
    for _ in range(data.draw(st.integers(0, 3)) if raw else 0):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))]
    out = np.empty(data.draw(st.integers(1, 2 * len(text) + 5)), np.uint8)
    if kernels.lzw(out, np.frombuffer(raw, np.uint8)):
        assert bytes(imagecodecs.lzw_decode(bytes(raw), out=len(out))) == out.tobytes()


# -- what is refused ----------------------------------------------------------------------------------------

F4, U2 = np.empty((4, 3), np.float32), np.zeros((4, 3), np.uint16)
TABLE = np.zeros(65536, np.float32)
WRONG = [
    ("look_up", [(F4, U2)], np.zeros(256, np.float32)),
    ("look_up", [(F4, U2)], np.zeros(65537, np.float32)),
    ("look_up", [(F4, U2), (F4, U2[:3])], TABLE),
    ("look_up", [(F4, U2[0])], TABLE),
    ("look_up", [(F4.astype("f8"), U2)], TABLE),
    ("look_up", [(F4, U2.astype("u4"))], TABLE),
    ("look_up", [(F4, U2.astype("u8"))], TABLE),
    ("look_up", [(F4, U2, U2)], TABLE),
    ("look_up", [F4, U2], TABLE),
    ("look_up", ((F4, U2),), TABLE),
    ("copy", [(F4, U2)]),
    ("copy", [(F4, F4[:1])]),
    ("copy", [(F4, F4.ravel())]),
    ("copy", [F4]),
    ("copy", [(F4, None)]),
    ("copy", 5),
    ("linear", [(F4, U2.astype("u8"))], False, 0, 1.0, 0.0, True),
    ("linear", [(F4, U2), (F4.astype("f8"), U2)], False, 0, 1.0, 0.0, True),
    ("unshuffle", np.empty(6, np.uint8), np.empty(8, np.uint8), 2),
    ("unshuffle", np.empty(7, np.uint8), np.empty(7, np.uint8), 2),
    ("unshuffle", np.empty(8, np.uint8), np.empty(8, np.uint8), 0),
    ("planes", np.empty((3, 2, 2), np.uint8), np.empty((2, 2, 4), np.uint8), True),
    ("planes", np.empty((3, 2, 2), np.uint16), np.empty((2, 2, 3), np.uint8), True),
    ("planes", np.empty((1, 1, 1), "V0"), np.empty((1, 1, 1), "V0"), True),
    ("planes", np.empty((3, 2), np.uint8), np.empty((2, 3), np.uint8), True),
    (
        "rice",
        np.empty((2, 2), np.int64),
        np.empty(9, np.uint8),
        np.zeros(2, np.int64),
        np.zeros(2, np.int64),
        32,
    ),
    (
        "rice",
        np.empty((2, 2), np.int16),
        np.empty(9, np.uint8),
        np.zeros(1, np.int64),
        np.zeros(2, np.int64),
        32,
    ),
    (
        "rice",
        np.empty((2, 2), np.int16),
        np.empty(9, np.uint8),
        np.zeros(2, np.int64),
        np.zeros(2, np.int64),
        0,
    ),
    ("lzw", np.empty((4, 4), np.uint8)[:, ::2], np.empty(9, np.uint8)),
    ("rice", np.empty(4, np.int16), np.empty(9, np.uint8), np.zeros(4, np.int64), np.zeros(4, np.int64), 32),
]


@pytest.mark.parametrize("call", WRONG, ids=[f"{name}-{i}" for i, (name, *_) in enumerate(WRONG)])
def test_what_does_not_fit_is_refused(call: tuple[Any, ...]) -> None:
    name, *arguments = call
    with pytest.raises((ValueError, BufferError, TypeError)):
        getattr(compiled, name)(*arguments)


@pytest.mark.parametrize("name", ["look_up", "linear", "copy", "unshuffle", "planes", "rice"])
def test_read_only_memory_and_what_is_no_array_are_refused(name: str) -> None:
    arguments: dict[str, tuple[Any, ...]] = {
        "look_up": (TABLE,),
        "linear": (False, 0, 1.0, 0.0, True),
        "copy": (),
        "unshuffle": (np.empty(8, np.uint8), 2),
        "planes": (np.empty((2, 2, 1), np.uint8), True),
        "rice": (np.empty(9, np.uint8), np.zeros(2, np.int64), np.zeros(2, np.int64), 32),
    }
    locked = F4.copy()
    locked.flags.writeable = False
    for out in (locked, None, "text"):
        with pytest.raises((ValueError, TypeError, BufferError)):
            stored = F4 if name == "copy" else U2
            first = [(F4.copy(), stored), (out, stored)] if name in ("look_up", "linear", "copy") else out
            getattr(compiled, name)(first, *arguments[name])


def test_what_has_too_many_dims_is_left_to_numpy() -> None:
    shape = (1,) * 15 + (3, 2)
    stored = np.arange(12, dtype=np.uint16).reshape((*shape[:-1], 4))[..., ::2]
    for call in (lambda pairs: kernels.look_up(pairs, TABLE), kernels.Line(), kernels.PLAIN):
        out = np.zeros(shape, np.float32)
        call([(out, stored)]) if not hasattr(call, "each") else call.each([(out, stored)])
        expected = TABLE[stored] if not hasattr(call, "each") else stored
        assert np.array_equal(out, expected)
    same = np.zeros(shape, np.uint16)
    kernels.PLAIN.each([(same, stored)])
    assert np.array_equal(same, stored)


def test_each_pair_has_a_byte_order_of_its_own() -> None:
    out = [np.zeros(2, "<i2"), np.zeros(2, "<i2")]
    kernels.PLAIN.each([(out[0], np.array([1, 2], "<i2")), (out[1], np.array([1, 2], ">i2"))])
    assert out[0].tolist() == out[1].tolist() == [1, 2]


def test_a_missing_number_that_no_integer_is() -> None:
    out = np.zeros(2, np.float32)
    for number in (2**64 - 1, -(2**70)):
        kernels.Line(number)(out, np.array([1, -1], np.int32))
        assert out.tolist() == [1, -1]


def test_no_function_but_that_of_the_module_is_seen_by_other_libraries() -> None:
    import ctypes

    library = ctypes.CDLL(compiled.__file__)
    assert library.PyInit__kernels
    for name in ("lzw", "copy", "linear", "look_up", "rice_tiles"):
        assert not hasattr(library, name)


def test_what_is_not_aligned_is_left_alone() -> None:
    odd = np.frombuffer(bytearray(b"\1" * 49), np.float32, 12, 1).reshape(4, 3)
    sound, before = np.zeros((4, 3), np.float32), odd.copy()
    assert compiled.look_up([(sound, U2)], TABLE + 5) is True
    assert compiled.look_up([(sound, U2), (odd, U2)], TABLE) is False
    assert compiled.linear([(odd, U2)], False, 0, 1.0, 0.0, True) is False
    assert (sound == 5).all() and np.array_equal(odd, before)


def test_other_threads_run_meanwhile() -> None:
    """A thread that counts gets on while a long loop runs."""
    stored, table = np.zeros(30_000_000, np.uint16), np.zeros(65536, np.float32)
    out, counted, done = np.empty(stored.shape, np.float32), [0], threading.Event()

    def count() -> None:
        while not done.wait(0):
            counted[0] += 1

    thread = threading.Thread(target=count)
    thread.start()
    before = counted[0]
    compiled.look_up([(out, stored)], table)
    after = counted[0]
    done.set()
    thread.join()
    assert after > before
