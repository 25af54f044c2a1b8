"""What this machine can do at most: decode every chunk once, and copy every patch from memory.

Nothing here goes through streamgeo's chains. The index of the chunks is made before the clock starts; each process
decodes into memory of its own that it uses again and again. Of several decoders, streamgeo's inner loops among them,
the fastest on this machine is taken.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import Case
from benchmarks.peers import Indices, in_threads
from benchmarks.processes import CONTEXT
from benchmarks.readers import convert, whole
from streamgeo.kernels import compiled

Array = NDArray[Any]
Decode = Callable[[bytes, Array, Sequence[int]], Any]  # stored bytes, where the values go, sizes of the parts
_TRIED = 12  # chunks on which decoders are compared
_TILES = 64  # rows of a FITS image that are decoded in one go, as far as a decoder can


@dataclass(frozen=True)
class Chunk:
    """Where a chunk lies in a file; ``parts`` are the bytes of each tile where it is several of them."""

    path: str
    offset: int
    size: int
    parts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Stored:
    """All chunks of a case, and what is in one."""

    chunks: list[Chunk]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


# -- where the chunks lie -------------------------------------------------------------------------------


def index(case: Case) -> Stored:
    """The chunks of all files of a case."""
    return {"tiff": _tiff, "netcdf": _netcdf, "fits": _fits, "npy": _npy}[case.kind](case)


def _tiff(case: Case) -> Stored:
    import tifffile

    chunks: list[Chunk] = []
    for path in case.paths:
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            chunks += [Chunk(path, o, n) for o, n in zip(page.dataoffsets, page.databytecounts)]
            shape = (page.tilelength, page.tilewidth, page.samplesperpixel)
    return Stored(chunks, shape, np.dtype(case.dtype))


def _netcdf(case: Case) -> Stored:
    import h5py

    chunks: list[Chunk] = []
    with h5py.File(case.paths[0]) as file:
        data = file["t2m"]
        data.id.chunk_iter(lambda info: chunks.append(Chunk(case.paths[0], info.byte_offset, info.size)))
        shape = data.chunks
    return Stored(chunks, shape, np.dtype(case.dtype))


def _fits(case: Case) -> Stored:
    from astropy.io import fits

    chunks: list[Chunk] = []
    for path in case.paths:
        with fits.open(path, disable_image_compression=True) as file:
            table = file[1]
            heap = table._data_offset + table._theap
            places = table.data.view(np.ndarray)["COMPRESSED_DATA"]  # length and place in the heap
            for first in range(0, len(places), _TILES):
                sizes, starts = zip(*places[first : first + _TILES].tolist())
                assert starts[-1] - starts[0] == sum(sizes[:-1])  # one behind another
                chunks.append(Chunk(path, int(heap) + starts[0], sum(sizes), sizes))
    return Stored(chunks, (_TILES, case.shape[1]), np.dtype(case.dtype))


def _npy(case: Case) -> Stored:
    chunks: list[Chunk] = []
    piece = 4 << 20
    for path in case.paths:
        whole = Path(path).stat().st_size
        chunks += [Chunk(path, at, min(piece, whole - at)) for at in range(0, whole, piece)]
    return Stored(chunks, (piece,), np.dtype("u1"))


# -- how they are decoded -------------------------------------------------------------------------------


def decoders(case: Case, stored: Stored) -> list[Decode]:
    """What can decode the chunks of a case."""
    if case.kind == "tiff":
        undo = [_differences(stored.shape), *([_planes(stored)] if compiled else [])]
        return [_both(decode, then) for decode in _installed(case.name.split("-")[1]) for then in undo]
    if case.kind == "netcdf":
        undo = [_numbers, *([_unshuffled(stored)] if compiled else [])]
        apart = np.empty(int(np.prod(stored.shape)) * stored.dtype.itemsize, np.uint8)
        return [_through(decode, apart, then) for decode in _installed("deflate") for then in undo]
    if case.kind == "fits":
        return _rice(stored)
    return [lambda data, out, parts: None]


def _installed(codec: str) -> list[Callable[..., Any]]:
    """The decoders of a codec; builds of imagecodecs differ in which they have."""
    import imagecodecs

    names = {"deflate": ("deflate", "isal", "zlibng")}.get(codec, (codec,))
    found = [getattr(imagecodecs, f"{name}_decode", None) for name in names]
    theirs = [
        decode
        for name, decode in zip(names, found)
        if decode and getattr(imagecodecs, name.upper()).available
    ]
    return [*theirs, lambda data, out: compiled.lzw(out, data)] if codec == "lzw" and compiled else theirs


def _both(decode: Callable[..., Any], then: Callable[[Array], Any]) -> Decode:
    def run(data: bytes, out: Array, parts: Sequence[int]) -> None:
        decode(data, out=out.view(np.uint8).reshape(-1))
        then(out)

    return run


def _differences(shape: tuple[int, ...]) -> Callable[[Array], Any]:
    import imagecodecs

    def undo(out: Array) -> None:
        values = out.reshape(shape)
        imagecodecs.delta_decode(values, axis=1, out=values)

    return undo


def _planes(stored: Stored) -> Callable[[Array], Any]:
    """Bands one behind another, too, which numpy takes longer for than for the differences."""
    rows, cols, bands = stored.shape
    planes = np.empty((bands, rows, cols), stored.dtype)
    return lambda out: compiled.planes(planes, out.reshape(stored.shape), True)


def _through(decode: Callable[..., Any], apart: Array, then: Callable[[Array, Array], Any]) -> Decode:
    def run(data: bytes, out: Array, parts: Sequence[int]) -> None:
        decode(data, out=apart)
        then(apart, out)

    return run


def _numbers(apart: Array, out: Array) -> None:
    """All low bytes come first, then all high ones: together they are numbers again by arithmetic."""
    low, high = apart.reshape(2, -1)
    numbers = out.view(np.uint16).reshape(-1)
    np.copyto(numbers, high)
    np.left_shift(numbers, 8, out=numbers)
    np.bitwise_or(numbers, low, out=numbers)


def _unshuffled(stored: Stored) -> Callable[[Array, Array], Any]:
    return lambda apart, out: compiled.unshuffle(out, apart, stored.dtype.itemsize)


def _rice(stored: Stored) -> list[Decode]:
    import imagecodecs

    pixels = stored.shape[1:]

    def theirs(data: bytes, out: Array) -> None:
        imagecodecs.rcomp_decode(data, shape=pixels, dtype=stored.dtype, nblock=32, out=out)

    found = [_row_by_row(theirs)]
    if compiled:

        def own(data: bytes, out: Array, parts: Sequence[int]) -> None:
            sizes = np.array(parts, np.int64)
            compiled.rice(out[: len(sizes)], data, np.cumsum(sizes) - sizes, sizes, 32)

        found.append(own)
    try:
        from astropy.io.fits.hdu.compressed._compression import decompress_rice_1_c as astropy_rice
    except ImportError:  # another astropy has it elsewhere
        return found
    count, width = pixels[0], stored.dtype.itemsize

    def astropy(data: bytes, out: Array) -> None:
        out[...] = np.frombuffer(astropy_rice(data, 32, width, count), stored.dtype)

    return [*found, _row_by_row(astropy)]


def _row_by_row(decode: Callable[[bytes, Array], Any]) -> Decode:
    def run(data: bytes, out: Array, parts: Sequence[int]) -> None:
        at = 0
        for row, size in zip(out, parts):
            decode(data[at : at + size], row)
            at += size

    return run


def fastest(case: Case, stored: Stored) -> int:
    """The number of the decoder that takes least on a few chunks."""
    some = stored.chunks[:: max(1, len(stored.chunks) // _TRIED)][:_TRIED]
    data = [next(_bytes([chunk])) for chunk in some]
    out = np.empty(stored.shape, stored.dtype)

    def cost(decode: Decode) -> float:
        times = []
        for _ in range(3):
            began = time.thread_time()  # other programs do not count
            for piece, parts in data:
                decode(piece, out, parts)
            times.append(time.thread_time() - began)
        return min(times)

    costs = [cost(decode) for decode in decoders(case, stored)]
    return costs.index(min(costs))


def _bytes(chunks: Sequence[Chunk]) -> Iterator[tuple[bytes, tuple[int, ...]]]:
    path, handle = "", -1
    try:
        for chunk in chunks:
            if chunk.path != path:
                if handle >= 0:
                    os.close(handle)
                path, handle = chunk.path, os.open(chunk.path, os.O_RDONLY)
            yield os.pread(handle, chunk.size, chunk.offset), chunk.parts
    finally:
        if handle >= 0:
            os.close(handle)


def decode_all(case: Case, stored: Stored, which: int, workers: int) -> tuple[float, float]:
    """Seconds for decoding every chunk once on so many cores, and doing nothing else; and of processor time.

    Processes do it, so that small chunks do not wait for the interpreter's lock.
    """
    step = max(1, min(64, len(stored.chunks) // (16 * workers)))
    groups = [stored.chunks[at : at + step] for at in range(0, len(stored.chunks), step)]
    gate, taken, ends = CONTEXT.Barrier(workers + 1), CONTEXT.Value("q", 0), CONTEXT.Queue()
    arguments = (case, stored, which, groups, gate, taken, ends)
    crew = [CONTEXT.Process(target=_work, args=arguments) for _ in range(workers)]
    for worker in crew:
        worker.start()
    gate.wait()
    began = time.perf_counter()
    cpu = sum(ends.get() for _ in crew)
    seconds = time.perf_counter() - began
    for worker in crew:
        worker.join()
    return seconds, cpu


def _work(
    case: Case, stored: Stored, which: int, groups: list[list[Chunk]], gate: Any, taken: Any, ends: Any
) -> None:
    decode = decoders(case, stored)[which]
    out = np.zeros(stored.shape, stored.dtype)
    for data, parts in _bytes(groups[0][:1]):
        decode(data, out, parts)
    gate.wait()
    began = time.process_time()
    while True:
        with taken.get_lock():
            number, taken.value = taken.value, taken.value + 1
        if number >= len(groups):
            break
        for data, parts in _bytes(groups[number]):
            decode(data, out, parts)
    ends.put(time.process_time() - began)


# -- copying --------------------------------------------------------------------------------------------


class Copied:
    """Patches copied and converted from arrays in memory, into new batches, by threads."""

    def __init__(self, case: Case, threads: int) -> None:
        self.case = case
        self.arrays = [whole(case, path) for path in case.paths]

        self.pool = ThreadPoolExecutor(threads)

    def _make(self, group: Indices) -> Array:
        out = np.empty((len(group), *self.case.patch), np.float32)
        for slot, number in zip(out, group):
            scene, slices = self.case.locate(int(number))
            convert(self.arrays[scene][slices], self.case.values, slot)
        return out

    def batches(self, indices: Indices) -> Iterator[Array]:
        return in_threads(self.pool, self._make, indices, self.case.batch)
