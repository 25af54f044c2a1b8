"""Filters that the HDF5 library need not have, and chunks that leave filters out, against what was written."""

from __future__ import annotations

import itertools

import h5py
import imagecodecs
import numpy as np
import pytest

from streamgeo.sources.hdf5_filters import BITSHUFFLE, BLOSC, BZIP2, LZ4, ZSTD, Damaged, Filter, Pipeline
from tests.test_hdf5_chunks import DTYPES, GRIDS, equal_everywhere, no_library, nothing_kept, numbers

__all__ = ["no_library", "nothing_kept"]  # fixtures


def with_filter(path, values, chunks, filters, encode, mask=0):
    """A file whose chunks were written as they are, so that the HDF5 library need not know the filters."""
    while h5py.h5pl.size():  # netCDF4 names its plugins to all, and they are for another HDF5 library
        h5py.h5pl.remove(0)
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    chunks = tuple(map(min, chunks, values.shape))
    plist.set_chunk(chunks)
    for code, data in filters:
        plist.set_filter(code, h5py.h5z.FLAG_OPTIONAL, data)
    with h5py.File(path, "w") as file:
        space, kind = h5py.h5s.create_simple(values.shape), h5py.h5t.py_create(values.dtype)
        dataset = h5py.h5d.create(file.id, b"a", kind, space, plist)
        for start in itertools.product(*(range(0, n, c) for n, c in zip(values.shape, chunks))):
            chunk = np.zeros(chunks, values.dtype)
            part = values[tuple(slice(s, s + c) for s, c in zip(start, chunks))]
            chunk[tuple(slice(0, n) for n in part.shape)] = part
            dataset.write_direct_chunk(start, bytes(encode(chunk)), mask)
    return str(path)


def bitshuffled(chunk, kind):
    """As the bitshuffle filter stores it, in blocks of 64 numbers: big-endian sizes, then each block."""
    data, width, block = chunk.tobytes(), chunk.dtype.itemsize, 64 * chunk.dtype.itemsize
    body, tail = len(data) // (8 * width) * 8 * width, len(data) % (8 * width)
    out = len(data).to_bytes(8, "big") + block.to_bytes(4, "big")
    encode = {"lz4": lambda b: imagecodecs.lz4_encode(b, header=False), "zstd": imagecodecs.zstd_encode}[kind]
    for start in range(0, body, block):
        part = data[start : min(start + block, body)]
        packed = bytes(encode(bytes(imagecodecs.bitshuffle_encode(part, itemsize=width, blocksize=64))))
        out += len(packed).to_bytes(4, "big") + packed
    return out + (data[-tail:] if tail else b"")


def checked(data):
    return bytes(data) + int(imagecodecs.h5checksum_fletcher32(data)).to_bytes(4, "little")


CODECS = {
    "zstd": (ZSTD, (3,), lambda c: imagecodecs.zstd_encode(c.tobytes())),
    "lz4": (LZ4, (0,), lambda c: imagecodecs.lz4h5_encode(c.tobytes())),
    "bzip2": (BZIP2, (9,), lambda c: imagecodecs.bz2_encode(c.tobytes())),
    "blosc": (BLOSC, (2, 2, 4, 0, 5, 1, 0), lambda c: imagecodecs.blosc_encode(c.tobytes(), typesize=c.itemsize)),
    "bitshuffle, fletcher32": (BITSHUFFLE, (0, 4, 0, 0, 0), lambda c: checked(imagecodecs.bitshuffle_encode(
        c.tobytes(), itemsize=c.itemsize, blocksize=max(8192 // c.itemsize // 8 * 8, 128)))),
    "bitshuffle, lz4": (BITSHUFFLE, (0, 4, 0, 64, 2), lambda c: bitshuffled(c, "lz4")),
    "bitshuffle, zstd": (BITSHUFFLE, (0, 4, 0, 64, 3), lambda c: bitshuffled(c, "zstd")),
}  # fmt: skip


@pytest.mark.parametrize("codec", CODECS)
def test_codecs_that_the_library_need_not_have(codec, tmp_path, no_library):
    code, data, encode = CODECS[codec]
    for n, (dtype, (shape, chunks)) in enumerate(itertools.product(DTYPES, GRIDS)):
        values = numbers(shape, dtype, n)
        own = (*data[:2], values.itemsize, *data[3:]) if code == BITSHUFFLE else data
        filters = [(code, own), (3, ())] if "fletcher32" in codec else [(code, own)]
        try:
            path = with_filter(tmp_path / f"{n}.h5", values, chunks, filters, encode)
        except ValueError as error:  # another library has brought the filter along, and it checks its numbers
            pytest.skip(f"a plugin of {codec} is loaded here and refuses the header: {error}")
        assert codec.split(",")[0] in equal_everywhere(path, values, 2).reader


@pytest.mark.filterwarnings("error")
def test_files_of_the_filters_themselves(tmp_path):
    plugins = pytest.importorskip("hdf5plugin")
    made = {
        "blosc": plugins.Blosc("zstd", 5, plugins.Blosc.BITSHUFFLE), "bitshuffle": plugins.Bitshuffle(nelems=64),
        "lz4": plugins.LZ4(nbytes=512), "zstd": plugins.Zstd(), "bzip2": plugins.BZip2(),
        "filter 32026": plugins.Blosc2(),
    }  # fmt: skip
    for (name, options), (n, dtype) in itertools.product(made.items(), enumerate(DTYPES)):
        values = numbers((37, 53), dtype)
        with h5py.File(tmp_path / f"{name}{n}.h5", "w") as file:
            file.create_dataset("a", data=values, chunks=(8, 16), **options)
        assert name in equal_everywhere(tmp_path / f"{name}{n}.h5", values).reader


def test_a_chunk_may_leave_out_filters(tmp_path, no_library):
    values = numbers((8, 16), "<i4")
    shuffled = np.frombuffer(values.tobytes(), "u1").reshape(-1, 4).T.tobytes()
    filters = [(2, (4,)), (1, (4,))]
    for mask, stored in ((0b10, shuffled), (0b11, values.tobytes())):
        path = with_filter(tmp_path / f"{mask}.h5", values, (8, 16), filters, lambda _, s=stored: s, mask)
        equal_everywhere(path, values)
    only = imagecodecs.deflate_encode(values.tobytes())
    equal_everywhere(with_filter(tmp_path / "1.h5", values, (8, 16), filters, lambda _: only, mask=1), values)


def test_a_fletcher32_of_old_files_is_taken(tmp_path):
    data = numbers((100,), "<i4").tobytes()
    right = int(imagecodecs.h5checksum_fletcher32(data))
    swapped = (right & 0x00FF00FF) << 8 | (right >> 8) & 0x00FF00FF
    pipeline = Pipeline([Filter(3, ())])
    for checksum in (right, swapped):
        stored = np.frombuffer(data + checksum.to_bytes(4, "little"), np.uint8)
        assert pipeline.decode(stored, 0, 400).tobytes() == data
    with pytest.raises(Damaged, match="the checksum is"):
        pipeline.decode(np.frombuffer(data + (right ^ 1).to_bytes(4, "little"), np.uint8), 0, 400)
