"""Images, sound, files, archives and text: mlx-data's own kernels, behind checks; random ones reproducible."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import tarfile
import threading
import wave
from pathlib import Path

import imagecodecs
import mlx.data as dx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamgeo as sg
from tests.mlx_twin import agree, ours, same, theirs

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
sizes = st.integers(1, 12)


def image(draw: st.DataObject, channels: tuple[int, ...] = (1, 2, 3, 4)) -> np.ndarray:
    shape = (draw.draw(sizes), draw.draw(sizes), draw.draw(st.sampled_from(channels)))
    if draw.draw(st.booleans()):
        shape = (draw.draw(st.integers(1, 3)), *shape)
    return np.random.default_rng(draw.draw(st.integers(0, 99))).integers(0, 256, shape, np.uint8)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), w=sizes, h=sizes, angle=st.floats(-400, 400), crop=st.booleans())
def test_kernels_give_what_mlx_data_gives(
    data: st.DataObject, w: int, h: int, angle: float, crop: bool
) -> None:
    sample = {"i": image(data)}
    height, width = sample["i"].shape[-3:-1]
    agree(sample, "image_resize", "i", w, h)
    agree(sample, "image_resize_smallest_side", "i", w, output_key="o")
    if min(height, width) > 1:  # a rotated line may have no pixels, which is an error in both
        agree(sample, "image_rotate", "i", angle, crop)
    agree(sample, "image_center_crop", "i", min(w, width), min(h, height))
    agree(sample, "image_random_h_flip", "i", 1.0)
    preset = data.draw(st.sampled_from(["default", "rec601", "rec709", "rec2020", "green"]))
    agree({"i": image(data, (3,))}, "image_channel_reduction", "i", preset)


@pytest.mark.parametrize("dtype", ["bool", "int16", "uint16", "float32", "float16", "complex64", ">i4"])
def test_crops_and_flips_of_every_dtype(dtype: str) -> None:
    x = np.random.default_rng(1).integers(0, 2, (6, 7, 9)).astype(dtype)
    sample = {"x": x}
    np.testing.assert_array_equal(ours(sample, "image_center_crop", "x", 3, 4)["x"], x[1:5, 2:5])
    np.testing.assert_array_equal(ours(sample, "image_random_h_flip", "x", 1)["x"], x[:, ::-1])
    made = ours(sample, "image_random_crop", "x", 3, 4)["x"]
    assert made.shape == (4, 3, 9) and made.dtype == np.dtype(dtype).newbyteorder("=")
    assert any(np.array_equal(made, x[r : r + 4, c : c + 3]) for r in range(3) for c in range(5))


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32", "float64"])
def test_channel_reduction_of_other_dtypes(dtype: str) -> None:
    x = (np.arange(24).reshape(2, 4, 3) * 10).astype(dtype)
    made = ours({"x": x}, "image_channel_reduction", "x", "rec709")["x"]
    expected = (x * [0.2126, 0.7152, 0.0722]).sum(-1, keepdims=True)
    assert made.dtype == x.dtype and made.shape == (2, 4, 1)
    np.testing.assert_allclose(made, np.rint(expected) if made.dtype.kind in "iu" else expected, rtol=1e-6)


@settings(max_examples=200, deadline=None)
@given(
    w=st.integers(1, 30), h=st.integers(1, 30), area=st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)),
    aspect=st.tuples(st.floats(0.3, 3), st.floats(0.3, 3)),
)  # fmt: skip
def test_area_crops_keep_their_ranges(w: int, h: int, area: tuple, aspect: tuple) -> None:
    area, aspect = tuple(sorted(area)), tuple(sorted(aspect))
    chain = sg.buffer_from_vector([{"x": np.arange(w * h).reshape(h, w, 1)}] * 5)
    if area[0] * aspect[0] > 1 or area[0] > aspect[1]:
        with pytest.raises(sg.ChainError, match="no part has area_range"):
            chain.image_random_area_crop("x", area, aspect)
        return
    for sample in chain.image_random_area_crop("x", area, aspect, num_trial=4):
        rows, columns, _ = sample["x"].shape
        if (rows, columns) != (h, w):
            assert area[0] * w * h - 1e-6 <= rows * columns <= area[1] * w * h + 1e-6
            assert aspect[0] - 1e-6 <= (columns / rows) / (w / h) <= aspect[1] + 1e-6
        corner = int(sample["x"][0, 0, 0])
        top, left = divmod(corner, w)
        np.testing.assert_array_equal(
            sample["x"][..., 0], np.arange(w * h).reshape(h, w)[top : top + rows, left : left + columns]
        )


def test_area_crops_are_spread_like_those_of_mlx_data() -> None:
    sample = {"x": np.zeros((40, 60, 3), np.uint8)}
    args = ("x", (0.2, 0.6), (0.5, 2.0))
    mine = [s["x"].shape[:2] for s in sg.buffer_from_vector([sample] * 600).image_random_area_crop(*args)]
    its = [s["x"].shape[:2] for s in dx.buffer_from_vector([sample] * 600).image_random_area_crop(*args)]
    for axis in (0, 1):
        a, b = (np.array([shape[axis] for shape in shapes]) for shapes in (mine, its))
        assert abs(a.mean() - b.mean()) < 2 and abs(a.std() - b.std()) < 2


def random_chain() -> sg.Buffer:
    base = sg.buffer_from_vector(
        [{"x": np.random.default_rng(i).integers(0, 99, (9, 11, 3))} for i in range(24)]
    )
    crops = base.image_random_crop("x", 7, 6).image_random_h_flip("x", 0.5)
    return crops.random_slice("x", [0, 1], [4, 3], "y").image_random_area_crop(
        "x", (0.3, 0.9), (0.7, 1.4), output_key="z"
    )


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_random_operations_do_not_depend_on_threads(threads: int) -> None:
    plain, stream = random_chain().to_stream(), random_chain().prefetch(5, threads)
    epochs = [list(plain), list(plain)]
    for epoch in epochs:
        for a, b in zip(stream, epoch, strict=True):
            same(a, b)
    assert any(not np.array_equal(a["y"], b["y"]) for a, b in zip(*epochs))
    assert len({sample["y"].tobytes() for sample in epochs[0]}) > 12


def test_kernels_from_many_threads_at_once() -> None:
    chain = sg.buffer_from_vector([{"x": np.full((5, 6, 3), i, np.uint8)} for i in range(100)])
    chain = chain.image_resize("x", 3, 2).image_resize_smallest_side("x", 4)
    again, wrong = pickle.loads(pickle.dumps(chain)), []

    def work() -> None:
        wrong.extend(i for i in range(100) if again[i]["x"][1, 1, 0] != i)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


BAD_IMAGES = [
    (
        "image_resize",
        (3, 2),
        np.zeros((4, 4, 3), np.float32),
        "works on uint8, and the image is float32; .*cast",
    ),
    ("image_resize", (3, 2), np.zeros((4, 4), np.uint8), r"shape \(4, 4\) is no image"),
    ("image_resize", (3, 2), np.zeros((4, 4, 5), np.uint8), "images of 1 to 4 channels"),
    ("image_resize", (3, 2), np.zeros((0, 4, 3), np.uint8), "not empty"),
    ("image_rotate", (3,), np.zeros((4, 4, 3), np.int8), "works on uint8"),
    ("image_center_crop", (9, 2), np.zeros((4, 4, 3)), "w=9, h=2 exceeds an image of width 4 and height 4"),
    ("image_random_crop", (2, 9), np.zeros((4, 4, 3)), "w=2, h=9 exceeds"),
    ("image_channel_reduction", (), np.zeros((4, 4, 4), np.uint8), "needs 3 channels"),
    ("image_random_h_flip", (0.5,), np.zeros(4), "is no image"),
]


@pytest.mark.parametrize(("operation", "args", "array", "says"), BAD_IMAGES)
def test_images_that_do_not_fit(operation: str, args: tuple, array: np.ndarray, says: str) -> None:
    with pytest.raises(sg.SampleError, match=rf"{operation}\('x'.*{says}"):
        ours({"x": array}, operation, "x", *args)
    with pytest.raises(sg.SampleError, match=f"{operation}: no key 'q'"):
        ours({"x": array}, operation, "q", *args)


BAD_ARGUMENTS = [
    ("image_resize", (0, 2), "image_resize: w=0"),
    ("image_center_crop", (2, -1), "image_center_crop: h=-1"),
    ("image_resize_smallest_side", (0,), "size=0"),
    ("image_random_h_flip", (2,), "prob=2 must be from 0 to 1"),
    ("image_random_area_crop", ((0.5, 0.2), (1, 1)), "area_range"),
    ("image_random_area_crop", ((0.2, 0.5), (0, 1)), "aspect_ratio_range"),
    ("image_random_area_crop", ((0.2, 0.5), (1, 1), 0), "num_trial=0"),
    ("image_channel_reduction", ("sepia",), "preset='sepia' must be one of"),
    ("image_rotate", (float("nan"),), "angle=nan"),
]


@pytest.mark.parametrize(("operation", "args", "says"), BAD_ARGUMENTS)
def test_image_arguments_that_cannot_be(operation: str, args: tuple, says: str) -> None:
    with pytest.raises(sg.ChainError, match=says):
        getattr(sg.buffer_from_vector([{"x": IMAGE}]), operation)("x", *args)


# -- files ------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(IMAGE))
    (tmp_path / "a.jpg").write_bytes(imagecodecs.jpeg8_encode(IMAGE))
    (tmp_path / "l.txt").write_bytes(b"one\ntwo\r\n\nthr\xffee")
    (tmp_path / "t.csv").write_bytes(b'a,b\n1,"2,""x"""\n3,4\n')
    with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
        sound.setnchannels(2), sound.setsampwidth(2), sound.setframerate(8000)
        sound.writeframes((np.sin(np.arange(1600) / 10) * 9999).astype("<i2").tobytes())
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(tmp_path / "l.txt", "d/l.txt")
        tar.add(tmp_path / "t.csv", "t.csv")
    return tmp_path


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_load_image(folder: Path, name: str) -> None:
    sample = {"f": name.encode()}
    agree(sample, "load_image", "f", str(folder), output_key="i")
    made = agree(sample, "load_image", "f", prefix=str(folder), info=True)
    assert made["f"].tolist() == [50, 40]
    for named in (name, str(folder / name), np.frombuffer(name.encode(), np.uint8)):
        same(ours({"f": named}, "load_image", "f", folder), theirs(sample, "load_image", "f", str(folder)))
    content = (folder / name).read_bytes()
    for held in (content, np.frombuffer(content, np.uint8)):
        same(
            ours({"f": held}, "load_image", "f", from_memory=True),
            theirs(sample, "load_image", "f", str(folder)),
        )
    chain = sg.buffer_from_vector([{"f": name}]).load_file("f", folder).load_image("f", from_memory=True)
    assert chain[0]["f"].shape == IMAGE.shape


@pytest.mark.parametrize("cut", [3, 30, 300, -200])
def test_jpeg_images_that_are_cut_off(folder: Path, cut: int) -> None:
    content = (folder / "a.jpg").read_bytes()[:cut]
    (folder / "b.jpg").write_bytes(content)
    with pytest.raises(sg.SampleError, match=r"b\.jpg: the JPEG image is cut off"):
        ours({"f": "b.jpg"}, "load_image", "f", folder)
    with pytest.raises(sg.SampleError, match="the bytes given: the JPEG image is cut off"):
        ours({"f": content}, "load_image", "f", from_memory=True)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), name=st.sampled_from(["jpg", "png"]))
def test_damaged_images_are_read_or_refused_and_never_hang(data: st.DataObject, name: str) -> None:
    encode = imagecodecs.jpeg8_encode if name == "jpg" else imagecodecs.png_encode
    content = bytearray(encode(IMAGE))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(2, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(2, len(content)))]
    try:
        made = ours({"f": bytes(content)}, "load_image", "f", from_memory=True)["f"]
    except sg.SampleError as error:
        assert isinstance(error.__cause__, sg.OpenError)
    else:
        assert made.dtype == np.uint8 and made.ndim == 3


def test_load_file_and_numpy(folder: Path) -> None:
    agree({"f": b"l.txt"}, "load_file", "f", str(folder))
    for array in (
        np.arange(6),
        np.arange(6, dtype=">u2"),
        np.asfortranarray(np.ones((2, 3))),
        np.array("text"),
    ):
        np.save(folder / "x.npy", array)
        made = ours({"f": "x.npy"}, "load_numpy", "f", prefix=folder)["f"]
        np.testing.assert_array_equal(made, array)
        held = ours({"f": (folder / "x.npy").read_bytes()}, "load_numpy", "f", from_memory=True)["f"]
        np.testing.assert_array_equal(held, array)
    np.save(folder / "x.npy", np.arange(6))
    agree({"f": b"x.npy"}, "load_numpy", "f", str(folder))


def test_load_and_resample_audio(folder: Path) -> None:
    sample = {"f": b"a.wav"}
    agree(sample, "load_audio", "f", str(folder))
    agree(sample, "load_audio", "f", str(folder), info=True)
    agree(sample, "load_audio", "f", str(folder), info=True, info_type=dx.SampleRate)
    agree(sample, "load_audio", "f", str(folder), sample_rate=4000, resampling_quality="linear")
    loaded = agree(sample, "load_audio", "f", str(folder), info_key="i", output_key="a")
    assert loaded["i"].tolist() == [800, 2, 8000] and loaded["a"].shape == (800, 2)
    sound = {"a": loaded["a"], "i": loaded["i"], "r": np.array(8000)}
    agree(sound, "resample_audio", "a", 4000, 8000)
    agree(sound, "resample_audio", "a", 4000, info_key="i", output_key="b")
    agree(sound, "resample_audio", "a", 12000, info_key="r", resampling_quality="sinc-best")
    content = np.fromfile(folder / "a.wav", np.uint8)
    same(ours({"f": content}, "load_audio", "f", from_memory=True), {"f": loaded["a"]})


def test_save_image(folder: Path) -> None:
    chain = sg.buffer_from_vector([{"i": IMAGE, "n": f"{i}.png"} for i in range(3)])
    for sample in chain.save_image("i", "n", folder, "made_").prefetch(2, 2):
        np.testing.assert_array_equal(sample["i"], IMAGE)
    assert sorted(p.name for p in folder.glob("made_*")) == ["made_0.jpg", "made_1.jpg", "made_2.jpg"]
    assert not list(folder.glob(".*"))
    read = sg.buffer_from_vector([{"f": "made_1.jpg"}]).load_image("f", folder)[0]["f"]
    theirs({"i": IMAGE, "n": b"their.png"}, "save_image", "i", "n", str(folder))
    np.testing.assert_array_equal(read, theirs({"f": b"their.jpg"}, "load_image", "f", str(folder))["f"])


def test_tar(folder: Path) -> None:
    names = sg.files_from_tar(folder / "x.tar")
    assert sorted(bytes(s["file"]) for s in names) == [b"d/l.txt", b"t.csv"]
    same(names[0], dx.files_from_tar(str(folder / "x.tar"))[0])
    chain = names.read_from_tar(folder / "x.tar", "file", "o")
    read = {bytes(s["file"]): bytes(s["o"]) for s in chain.prefetch(2, 4).repeat(20)}
    assert (
        read[b"d/l.txt"] == (folder / "l.txt").read_bytes()
        and read[b"t.csv"] == (folder / "t.csv").read_bytes()
    )
    agree({"f": b"l.txt"}, "read_from_tar", str(folder / "x.tar"), "f", "o", prefix="d")
    keyed = {"f": b"t.csv", "t": b"x.tar"}
    agree(keyed, "read_from_tar", "t", "f", "o", tar_prefix=str(folder), from_key=True)
    again = pickle.loads(pickle.dumps(chain))
    same(again[1], chain[1])
    rows = names[:1].to_stream().read_from_tar(folder / "x.tar", "file", "o")
    assert len(list(rows.line_reader_from_key("o", "line", from_memory=True))) in (3, 4)


BAD_FILES = [
    ("load_file", ("f", "{}"), r"load_file\('f'.*there is no file '.*nope'; the working directory is"),
    ("load_image", ("f", "{}"), "there is no file"),
    ("load_numpy", ("f", "{}"), "there is no file"),
    ("load_audio", ("f", "{}"), "there is no file"),
    ("load_video", ("f", "{}"), "there is no file"),
    ("load_image", ("t", "{}"), "l.txt: mlx-data cannot read it"),
    ("load_image", ("t", "{}", True), "l.txt: mlx-data finds nothing in it"),
    ("load_video", ("t", "{}"), "l.txt: mlx-data "),
    ("load_audio", ("t", "{}"), "l.txt: mlx-data cannot read it"),
    ("load_numpy", ("t", "{}"), "l.txt: not an array in .npy format"),
    ("load_file", ("n",), "an array of float64 is not text"),
    ("read_from_tar", ("{}/x.tar", "f", "o"), "x.tar: .*nope"),
    ("read_from_tar", ("{}/y.tar", "f", "o"), "there is no file"),
    ("save_image", ("n", "t", "{}"), r"'n' is float64 of shape \(2,\); it writes uint8"),
    ("save_image", ("i", "t", "{}/nowhere"), "there is no folder '.*nowhere'; make it first"),
    ("save_image", ("i", "p", "{}"), r"jpg: mlx-data cannot write it"),
    ("resample_audio", ("n", 8000, 4000), r"'n' is float64 of shape \(2,\); it works on float32"),
    ("resample_audio", ("a", 8000, 0, "n"), r"'n' is float64 of shape \(2,\); give a rate"),
    ("resample_audio", ("a", 8000, 0, "q"), "no key 'q'"),
]


@pytest.mark.parametrize(("operation", "args", "says"), BAD_FILES)
def test_files_that_cannot_be_read(folder: Path, operation: str, args: tuple, says: str, capfd) -> None:
    sample = {
        "f": "nope", "t": "l.txt", "p": "n" * 300, "n": np.zeros(2), "i": IMAGE, "a": np.zeros((9, 2), np.float32),
    }  # fmt: skip
    given = [a.format(folder) if isinstance(a, str) else a for a in args]
    before = sorted(folder.iterdir())
    with pytest.raises(sg.SampleError, match=says):
        ours(sample, operation, *given)
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("operation", "args", "says"),
    [
        ("load_audio", ("f", "", False, False, None, -1), "sample_rate=-1"),
        ("load_audio", ("f", "", False, False, None, 0, "best"), "resampling_quality='best' must be one of"),
        ("resample_audio", ("f", 0, 1), "sample_rate=0"),
        ("resample_audio", ("f", 8000), "give input_sample_rate, or info_key"),
        ("read_from_tar", ("a.tar", "f", "o", "", "", False, None, False, 0), "num_threads=0"),
        ("tokenize", ("f", "abc"), "trie is a str; give an mlx.data.core.CharTrie"),
        ("tokenize_bpe", ("f", None, None), "symbols is a NoneType"),
    ],
)
def test_file_arguments_that_cannot_be(operation: str, args: tuple, says: str) -> None:
    with pytest.raises(sg.ChainError, match=says):
        getattr(sg.buffer_from_vector([{"f": "a"}]), operation)(*args)


# -- tokens -------------------------------------------------------------------------------------------------


def trie(*tokens: str) -> object:
    made = sg.core.CharTrie()
    for token in tokens:
        made.insert(token)
    return made


def test_tokenize() -> None:
    letters = trie(*"abcdefghijklmnopqrstuvwxyz", "he", "ll")
    agree({"t": b"hello"}, "tokenize", "t", letters)
    agree({"t": b"hello!"}, "tokenize", "t", letters, ignore_unk=True, output_key="n")
    agree({"t": b"hello"}, "tokenize", "t", letters, trie_key_scores=[float(i % 5) for i in range(28)])
    assert ours({"t": "hello"}, "tokenize", "t", letters)["t"].tolist() == [26, 27, 14]
    with pytest.raises(sg.SampleError, match="tokenize.*position 5; add what is missing .* ignore_unk=True"):
        ours({"t": b"hello!"}, "tokenize", "t", letters)
    chain = sg.buffer_from_vector([{"t": b"hello"}]).tokenize("t", letters)
    same(pickle.loads(pickle.dumps(chain))[0], chain[0])


def test_tokenize_in_random_ways_that_can_be_repeated() -> None:
    ways = trie("a", "b", "ab", "ba", "aba")
    chain = sg.buffer_from_vector([{"t": b"abababa"}] * 40).tokenize("t", ways, mode=sg.TokenizeMode.Rand)
    stream = chain.to_stream()
    first, second = ([tuple(s["t"].tolist()) for s in stream] for _ in range(2))
    assert len(set(first)) > 5 and first != second
    assert [tuple(s["t"].tolist()) for s in chain.prefetch(4, 4)] == first


def test_tokenize_bpe() -> None:
    symbols, merges = trie(*" abcd"), sg.core.BPEMerges()
    for left, right, number in (("a", "b", 5), ("c", "d", 6), ("b", "cd", 7)):
        merges.add(left, right, number)
    made = agree({"t": b"abcd"}, "tokenize_bpe", "t", symbols, merges)
    assert made["t"].tolist() == [5, 6]
    with pytest.raises(sg.ChainError, match="BPEMerges cannot be pickled; build the chain in each process"):
        pickle.dumps(sg.buffer_from_vector([{"t": b"abcd"}]).tokenize_bpe("t", symbols, merges))
    with pytest.raises(sg.ChainError, match="merges is a dict"):
        sg.buffer_from_vector([{"t": b"abcd"}]).tokenize_bpe("t", symbols, {})


def test_a_trie_with_numbers_of_its_own_pickles() -> None:
    made = sg.core.CharTrie()
    for token, number in (("a", 700), ("b", 3), (b"\xff\xfe", 90)):
        made.insert(token, number)
    chain = sg.buffer_from_vector([{"t": b"ab\xff\xfe"}]).tokenize("t", made)
    assert pickle.loads(pickle.dumps(chain))[0]["t"].tolist() == [700, 3, 90]


def test_kernels_leave_nothing_behind_at_exit() -> None:
    code = (
        "import numpy as np, streamgeo as sg\n"
        "c = sg.buffer_from_vector([{'x': np.zeros((9, 9, 3), np.uint8)}] * 50).image_resize('x', 4, 4)\n"
        "it = iter(c.prefetch(4, 4)); next(it); keep = (c, it, c[0])\n"
    )
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
        assert done.returncode == 0 and done.stderr == b""


def test_bytes_io_is_not_needed_for_files_in_memory() -> None:
    out = io.BytesIO()
    np.save(out, np.arange(3, dtype=np.uint16))
    assert ours({"f": out.getvalue()}, "load_numpy", "f", from_memory=True)["f"].tolist() == [0, 1, 2]
    with pytest.raises(sg.SampleError, match="the bytes: not an array in .npy format"):
        ours({"f": b"nonsense"}, "load_numpy", "f", from_memory=True)
