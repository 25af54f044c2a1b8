"""Windows put together from chunks: the same whatever the shapes, each chunk decoded once, by threads that share."""

from __future__ import annotations

import os
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import rasterio
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

import streamgeo as sg
from streamgeo import kernels
from streamgeo.chunked import At, Chunked
from streamgeo.chunks import CACHE, Busy, ByteCache, otherwise_busy
from streamgeo.kernels import PLAIN
from streamgeo.links.batch import _Slots
from streamgeo.slots import SLOTS, scratch
from streamgeo.sources.geotiff_chunks import TiffChunks
from streamgeo.sources.layouts import brought
from streamgeo.together import Copy, Together
from streamgeo.unread import Unread
from streamgeo.window import Window

Array = Any


class Made(Chunked):
    """An array in memory that is handed out chunk by chunk, in memory of its own or as part of something larger."""

    codec = "none"

    def __init__(self, array: Array, chunks: tuple[int, ...]) -> None:
        self.array, self.chunks = array, chunks
        self.shape, self.dtype = array.shape, array.dtype
        self.key = ("made", object())
        self.decoded: Counter[At] = Counter()

    def decode(self, at: At) -> Array:
        """One chunk, cut at the edge."""
        self.decoded[at] += 1
        part = self.array[tuple(slice(i * n, (i + 1) * n) for i, n in zip(at, self.chunks))]
        if sum(at) % 2:
            return np.concatenate([part, part])[: len(part)]
        out = SLOTS.empty(part.shape, self.dtype)
        out[...] = part
        return out


class Convert(kernels.Plain):
    """What a source hands to ``read``: another dtype, and NaN for a value."""

    def __call__(self, out: Array, stored: Array) -> None:
        super().__call__(out, stored)
        np.copyto(out, np.nan, where=stored == 7)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_box_of_any_chunks(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3))
    shape = data.draw(st.tuples(*[st.integers(1, 40)] * rank))
    chunks = data.draw(st.tuples(*[st.integers(1, 45)] * rank))
    array = np.random.default_rng(len(shape)).integers(0, 50, shape).astype(np.uint16)
    made = Made(array, chunks)
    for _ in range(3):
        lows = [data.draw(st.integers(0, size)) for size in shape]
        box = tuple((low, data.draw(st.integers(low, size))) for low, size in zip(lows, shape))
        part = array[tuple(slice(*pair) for pair in box)]
        stored, physical = np.empty(part.shape, np.uint16), np.full(part.shape, -1, np.float32)
        made.read(box, stored)
        made.read(box, physical[..., ::-1], Convert())  # of any strides
        assert np.array_equal(stored, part)
        assert np.array_equal(physical[..., ::-1], np.where(part == 7, np.nan, part), equal_nan=True)
    assert not made.decoded or max(made.decoded.values()) == 1


def test_two_threads_that_want_one_window_decode_different_chunks() -> None:
    """Each decode waits until the other thread is in one too, which would never be if one waited for the other."""

    class Met(Made):
        meeting = threading.Barrier(2)

        def decode(self, at: At) -> Array:
            self.meeting.wait(30)
            return super().decode(at)

    made = Met(np.arange(8 * 64 * 64).reshape(8, 64, 64), (1, 64, 64))
    outs = [np.empty((8, 10, 10), np.int64) for _ in range(2)]
    failed: list[BaseException] = []

    def work(out: Array) -> None:
        try:
            made.read(((0, 8), (3, 13), (5, 15)), out)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(out,)) for out in outs]
    [thread.start() for thread in threads], [thread.join(60) for thread in threads]
    assert not failed
    assert all(np.array_equal(out, made.array[:, 3:13, 5:15]) for out in outs)
    assert dict(made.decoded) == {(i, 0, 0): 1 for i in range(8)}


def test_what_is_kept_is_read_only_and_no_part_of_something_larger() -> None:
    made = Made(np.arange(100_000).reshape(100, 1000), (50, 1000))
    for at in ((0, 0), (1, 0)):
        kept = made.chunk(at)
        assert kept is not None and not kept.flags.writeable
        assert np.array_equal(kept, made.array[50 * at[0] : 50 * at[0] + 50])
        assert kept.base is None or kept.base.nbytes == kept.nbytes


def test_scratch_is_of_one_thread_and_one_use() -> None:
    mine = scratch("a", 5000)
    found: list[Array] = []
    thread = threading.Thread(target=lambda: found.append(scratch("a", 5000)))
    thread.start(), thread.join()
    assert not np.shares_memory(mine, found[0])
    assert not np.shares_memory(mine, scratch("b", 5000))
    assert np.shares_memory(mine, scratch("a", 3000))
    large = scratch("a", 40 << 20)
    assert not np.shares_memory(large, scratch("a", 40 << 20))  # too much to hold on to
    assert np.shares_memory(mine, scratch("a", 8000))


@pytest.mark.parametrize("index", [np.s_[:, :, :], np.s_[:, 10:20, 5:7], np.s_[1, ::50], np.s_[:, 3:4, ::-1]])
def test_pages_that_a_map_brings_are_never_counted_too_low(index: Any) -> None:
    array = np.empty((3, 200, 70_000), np.uint8)
    part = array[index]
    places = np.arange(array.size, dtype=np.int64).reshape(array.shape)[index]
    blocks = len(np.unique(places // (64 << 10))) * (64 << 10)
    assert min(blocks, part.nbytes) <= brought(part) <= 3 * blocks + (128 << 10)


@pytest.mark.parametrize("kind", ["tiff", "netcdf", "fits"])
def test_a_batch_has_the_system_fetch_its_chunks_before_they_are_decoded(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In few requests, for chunks that lie close to one another; not for those that are decoded already."""
    path, size = written(kind, tmp_path)
    opener: Any = {"tiff": sg.open_geotiff, "netcdf": sg.open_netcdf, "fits": sg.open_fits}[kind]
    chain = sg.files([str(path)], key="image").key_transform("image", opener())
    stream = chain.key_transform("image", sg.patch(size=size)).batch(4)
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, offset, size, advice: asked.append((offset, size)))
    batches = iter(stream)
    for number in range(4):
        asked.clear()
        next(batches)
        if number:  # where the chunks lie is found when the first one is read
            assert 1 <= len(asked) <= 4
            assert all(0 < offset < offset + size <= path.stat().st_size for offset, size in asked)
    asked.clear()
    assert len(list(stream)) == 4
    assert not asked


def written(kind: str, folder: Path) -> tuple[Path, int]:
    """A file of 16 square chunks, and how large these are."""
    size = 512 if kind == "fits" else 64  # smaller tiles are decoded in groups
    pixels = np.random.default_rng(0).integers(0, 3000, (4 * size, 4 * size)).astype(np.int16)
    path = folder / f"a.{ {'tiff': 'tif', 'netcdf': 'nc', 'fits': 'fits'}[kind] }"
    if kind == "tiff":
        import rasterio

        profile = {"driver": "GTiff", "count": 1, "height": 256, "width": 256, "dtype": "int16"}
        with rasterio.open(
            path, "w", **profile, tiled=True, blockxsize=64, blockysize=64, compress="deflate"
        ) as file:
            file.write(pixels, 1)
    elif kind == "netcdf":
        import netCDF4

        with netCDF4.Dataset(path, "w") as file:
            file.createDimension("y", 256), file.createDimension("x", 256)
            file.createVariable("v", "i2", ("y", "x"), zlib=True, chunksizes=(64, 64))[:] = pixels
    else:
        fits.CompImageHDU(pixels, compression_type="RICE_1", tile_shape=(size, size)).writeto(path)
    return path, size


def test_a_thread_with_other_work_does_not_wait_for_a_chunk() -> None:
    begun, go = threading.Event(), threading.Event()

    class Slow(Made):
        def decode(self, at: At) -> Array:
            begun.set()
            assert go.wait(30)
            return super().decode(at)

    made, out = Slow(np.arange(8.0).reshape(2, 4), (2, 4)), np.empty((2, 4))
    thread = threading.Thread(target=made.chunk, args=((0, 0),))
    thread.start()
    assert begun.wait(30)
    with pytest.raises(Busy), otherwise_busy():
        made.read(((0, 2), (0, 4)), out)
    threading.Timer(0.05, go.set).start()
    made.read(((0, 2), (0, 4)), out)  # waits
    thread.join()
    assert np.array_equal(out, made.array) and dict(made.decoded) == {(0, 0): 1}


def test_a_computation_waits_for_what_it_needs() -> None:
    """Its thread would have other work, but what is half computed would be lost."""
    cache, begun, go = ByteCache(1000), threading.Event(), threading.Event()

    def slow() -> int:
        begun.set()
        assert go.wait(30)
        return 1

    thread = threading.Thread(target=cache.get, args=("part", slow, lambda _: 8))
    thread.start()
    assert begun.wait(30)
    threading.Timer(0.05, go.set).start()
    with otherwise_busy():
        assert cache.get("whole", lambda: cache.get("part", slow, lambda _: 8) + 1, lambda _: 8) == 2
    thread.join()


def test_patches_of_a_batch_whose_chunk_is_being_decoded_come_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.arange(64 * 128, dtype=np.uint16).reshape(64, 128)
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", width=128, height=64, count=1, dtype="uint16",
        tiled=True, blockxsize=64, blockysize=64, compress="deflate",
    ) as file:  # fmt: skip
        file.write(values, 1)
    decode, begun, second = TiffChunks.decode, threading.Event(), threading.Event()

    def met(self: TiffChunks, at: At) -> Array:
        if at[2] == 0:
            begun.set()
            assert second.wait(30), "the second chunk was not decoded meanwhile"
        else:
            second.set()
        return decode(self, at)

    monkeypatch.setattr(TiffChunks, "decode", met)
    scene = sg.open_geotiff()(str(tmp_path / "a.tif"))
    thread = threading.Thread(target=scene.read, args=(Window(y=(0, 8), x=(0, 8)),))
    thread.start()
    assert begun.wait(30)
    chain = sg.files([str(tmp_path / "a.tif")], key="image")
    chain = chain.key_transform("image", sg.open_geotiff()).key_transform("image", sg.patch(64))
    (batch,) = chain.batch(2).to_stream()
    thread.join()
    assert np.array_equal(np.concatenate(list(batch["image"]), axis=-1)[0], values)


def test_what_is_not_kept_is_not_decoded_again_for_another_thread() -> None:
    """A patch that has decoded something waits for the rest, where it could not find it again later."""
    begun, go = threading.Event(), threading.Event()

    class Slow(Made):
        def decode(self, at: At) -> Array:
            if at == (0, 1):
                begun.set()
                assert go.wait(30)
            return super().decode(at)

    made, out = Slow(np.arange(16.0).reshape(2, 8), (2, 4)), np.empty((2, 8))
    limit, CACHE.limit = CACHE.limit, 0
    try:
        thread = threading.Thread(target=made.chunk, args=((0, 1),))
        thread.start()
        assert begun.wait(30)
        threading.Timer(0.05, go.set).start()
        with otherwise_busy():
            made.read(((0, 2), (0, 8)), out)
        thread.join()
    finally:
        CACHE.limit = limit
    assert np.array_equal(out, made.array) and made.decoded[0, 0] == 1


def test_copies_are_put_off_until_too_much_would_be_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamgeo.together.HELD", 3 * 64)
    made, together = Made(np.arange(64.0).reshape(4, 16), (2, 4)), Together()
    limit, CACHE.limit = CACHE.limit, 0
    try:
        out = np.zeros((4, 16))
        assert together.take([Copy(made, ((0, 2), (0, 8)), out[:2, :8], PLAIN)])
        assert not together.full and not out.any()
        assert together.take([Copy(made, ((2, 4), (0, 8)), out[2:, :8], PLAIN)])
        assert together.full
        together.copy()
        assert not together.full
        assert np.array_equal(out[:, :8], made.array[:, :8]) and not out[:, 8:].any()
        CACHE.limit = 1 << 20  # what the cache has room for is held anyway
        for box in (((0, 2), (0, 8)), ((2, 4), (0, 8))):
            assert together.take([Copy(made, box, np.zeros((2, 8)), PLAIN)]) and not together.full
        together.copy()
        monkeypatch.setattr("streamgeo.together._MANY", 4)
        assert together.take([Copy(made, ((0, 4), (8, 16)), out[:, 8:], PLAIN)]) and together.full
        together.copy()
        assert np.array_equal(out, made.array) and not together.full
    finally:
        CACHE.limit = limit


def test_a_box_of_many_chunks_is_not_held() -> None:
    made, together = Made(np.arange(64.0).reshape(1, 64), (1, 2)), Together()
    out = np.zeros((1, 64))
    assert not together.take([Copy(made, ((0, 1), (0, 64)), out, PLAIN)])
    assert not made.decoded


def test_many_arrays_are_not_held_at_once() -> None:
    """More than the cache has room for: then they are read one after another, and nothing is decoded yet."""
    many, together = [Made(np.ones((1, 1 << 20)), (1, 1 << 20)) for _ in range(5)], Together()
    box, out = ((0, 1), (0, 4)), np.zeros((5, 1, 4))
    copies = [Copy(made, box, place, PLAIN) for made, place in zip(many, out)]
    limit, CACHE.limit = CACHE.limit, 0
    try:
        assert not together.take(copies) and not any(made.decoded for made in many)
        assert together.take(copies[:3])
    finally:
        CACHE.limit = limit


def test_where_a_copy_fails_each_patch_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["a"] = np.arange(64.0).reshape(8, 8)
        file.create_dataset("b", data=np.arange(64.0).reshape(8, 8), chunks=(4, 4))
    chain = sg.files([str(path)], key="image").key_transform("image", sg.open_hdf5("b", raw=True))
    stream = chain.key_transform("image", sg.patch(4)).batch(4).to_stream()
    (whole,) = stream  # where the chunks lie is known from now on
    real = kernels.Plain.each

    def fails(self: kernels.Plain, pairs: list[tuple[Array, Array]]) -> None:
        if len(pairs) > 1 or pairs[0][1][0, 0] == 4:
            raise MemoryError("no")
        real(self, pairs)

    monkeypatch.setattr(kernels.Plain, "each", fails)
    with pytest.raises(sg.SampleError, match=r"sample 1: patch failed on a.h5 .*MemoryError: no"):
        list(stream)
    (batch,) = stream.on_error("skip", limit=4)
    assert np.array_equal(batch["image"], whole["image"][[0, 2, 3]])


def test_a_cache_that_was_interrupted_can_be_made_smaller() -> None:
    cache = ByteCache(1000)
    cache.get("key", lambda: 1, lambda _: 8)
    cache.nbytes += 8  # as if a signal had come when another value had gone
    cache.limit = 0
    assert cache.nbytes == 0


def test_files_of_two_byte_orders_in_one_batch(tmp_path: Path) -> None:
    """Tiles come in the byte order of the machine, a packed file in that of FITS."""
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 999, (2, 64, 64)).astype(np.int16)
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(first)]).writeto(tmp_path / "a.fits")
    fits.PrimaryHDU(second).writeto(tmp_path / "b.fits.gz")
    for raw in (False, True):
        paths = [str(tmp_path / name) for name in ("a.fits", "b.fits.gz")]
        chain = sg.files(paths, key="image").key_transform("image", sg.open_fits(raw=raw))
        for order in (chain, chain[::-1]):
            expected = np.stack([first, second][:: 1 if order is chain else -1])
            batches = order.key_transform("image", sg.patch(32)).batch(8)
            for _ in range(2):
                (batch,) = batches.to_stream()
                seen = batch["image"].reshape(2, 2, 2, 32, 32).swapaxes(2, 3).reshape(2, 64, 64)
                assert np.array_equal(seen, expected)


def test_damage_in_one_of_two_arrays_leaves_nothing_noted() -> None:
    class Bad(Made):
        def decode(self, at: At) -> Array:
            raise sg.OpenError("no")

    good, together, out = Made(np.ones((2, 4)), (2, 4)), Together(), np.zeros((2, 2, 4))
    box = ((0, 2), (0, 4))
    with pytest.raises(sg.OpenError):
        together.take(
            [Copy(good, box, out[0], PLAIN), Copy(Bad(np.ones((2, 4)), (2, 4)), box, out[1], PLAIN)]
        )
    together.copy()
    assert not out.any()


def test_a_file_that_changes_between_patches_that_are_copied_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch is of one file, which is open: of the old one; the next batch says so."""
    path, noted = tmp_path / "s.tif", Unread.noted
    options = dict(width=64, height=64, count=1, dtype="uint8", tiled=True, blockxsize=16, blockysize=16)

    def write(value: int) -> None:
        with rasterio.open(tmp_path / "new.tif", "w", driver="GTiff", compress="deflate", **options) as file:
            file.write(np.full((1, 64, 64), value, "u1"))
        (tmp_path / "new.tif").replace(path)

    write(1)
    chain = sg.files([str(path)], key="image").key_transform("image", sg.open_geotiff())
    batches = chain.key_transform("image", sg.patch(size=16)).batch(8)
    assert (batches[0]["image"] == 1).all()  # where it lies is known from now on
    CACHE.clear()
    seen = [0]

    def then_another(self: Unread, out: Array, together: Together) -> bool:
        done = noted(self, out, together)
        seen[0] += done
        if seen[0] == 3:
            write(2)
            os.utime(path, (5, 5))
        return done

    monkeypatch.setattr(Unread, "noted", then_another)
    assert (batches[0]["image"] == 1).all() and seen[0] == 8
    with pytest.raises(sg.SampleError, match="changed"):
        batches[1]


def test_an_interrupt_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    cache = ByteCache(1000)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("streamgeo.chunks.count", interrupted)
        cache.get("key", lambda: 1, lambda _: 8)
    assert cache.get("key", lambda: 1, lambda _: 8, wait=False) == 1


def _gz(path: Path, value: int) -> None:
    fits.PrimaryHDU(np.full((64, 64), value, "f4")).writeto(path, overwrite=True)


def _png(path: Path, value: int) -> None:
    with rasterio.open(path, "w", driver="PNG", width=64, height=64, count=1, dtype="uint8") as file:
        file.write(np.full((1, 64, 64), value, "u1"))


def _scaleoffset(path: Path, value: int) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=np.full((64, 64), value, "i4"), chunks=(64, 64), scaleoffset=0)


@pytest.mark.parametrize(
    ("name", "write", "opener"),
    [
        ("s.fits.gz", _gz, sg.open_fits()),
        ("s.png", _png, sg.open_geotiff()),
        ("s.h5", _scaleoffset, sg.open_hdf5()),
    ],
)
def test_a_file_that_changes_within_a_batch(
    name: str, write: Any, opener: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only the library reads, and so opens by its name."""
    path, read, reads = tmp_path / name, Unread.read_into, [0]
    write(path, 1)
    os.utime(path, (5, 5))

    def read_into(self: Unread, out: Array) -> None:
        read(self, out)
        reads[0] += 1
        if reads[0] == 1:
            write(tmp_path / f"new_{name}", 2)
            (tmp_path / f"new_{name}").replace(path)

    monkeypatch.setattr(Unread, "read_into", read_into)
    limit, CACHE.limit = CACHE.limit, 0
    try:
        chain = sg.files([str(path)], key="image").key_transform("image", opener)
        with pytest.raises(sg.SampleError, match="changed"):
            chain.key_transform("image", sg.patch(size=32)).batch(4)[0]
    finally:
        CACHE.limit = limit


@pytest.mark.parametrize("skip", [True, False])
def test_behind_an_error_that_is_raised_nothing_is_read(skip: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Fails:
        shape, dtype = (100, 100), np.dtype("f4")

        def foresee(self) -> bool:
            return False

        def noted(self, out: Array, together: Together) -> bool:
            return False

        def read_into(self, out: Array) -> None:
            asked.append(1)
            raise ValueError("no")

    monkeypatch.setattr("streamgeo.links.batch.Unread", Fails)
    slots = _Slots(4, ())
    for _ in range(4):
        slots.take({"image": Fails()})  # type: ignore[dict-item]
    assert list(slots.read(skip)) == ([0, 1, 2, 3] if skip else [0])
    assert len(asked) == (4 if skip else 1)


@pytest.mark.parametrize("layers", [(1, 1, 1), (2, 1)])
def test_a_batch_of_scenes_that_lie_in_several_files(layers: tuple[int, ...], tmp_path: Path) -> None:
    """A file for each band, or for some of them: read straight to their place in the batch, in any subset."""
    rng, paths, whole = np.random.default_rng(0), [], []
    for number, count in enumerate(layers):
        values = rng.integers(0, 9, (count, 70, 50)).astype(np.uint16)
        paths.append(str(tmp_path / f"b{number}.tif"))
        options = dict(
            tiled=True, blockxsize=16, blockysize=16, compress="deflate", crs="EPSG:32633", nodata=7
        )
        transform = rasterio.Affine(10, 0, 0, 0, -10, 0)
        with rasterio.open(
            paths[-1], "w", driver="GTiff", width=50, height=70, count=count, dtype="uint16",
            transform=transform, **options,
        ) as file:  # fmt: skip
            file.write(values)
        whole.append(np.where(values == 7, np.nan, values).astype(np.float32))
    expected = np.concatenate(whole)
    chain = sg.buffer_from_vector([{"image": paths}]).key_transform("image", sg.open_geotiff())
    patches = chain.key_transform(
        "image", sg.patch({"band": 2, "y": 30, "x": 20}, stride={"band": 1, "y": 30, "x": 20})
    )
    seen = 0
    for batch in patches.batch(5).prefetch(2, 2):
        for image, window in zip(batch["image"], batch["image.window"]):
            part = expected[tuple(slice(low, high) for low, high in window)]
            assert image.tobytes() == part.tobytes()
            seen += 1
    assert seen == len(patches) == 2 * 3 * 3
