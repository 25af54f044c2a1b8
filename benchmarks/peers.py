"""The loaders that are compared. Each gives float32 batches of the same patches in the same order.

Cold is a loader that is built, and its first epoch; warm is its second one.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks import readers
from benchmarks.data import PIXEL, Case

Array = NDArray[Any]
Indices = Sequence[int] | NDArray[np.int64]
SEED = 0
ORDERS = ("grid", "shuffled", "random")


@dataclass
class Order:
    """In which order patches come.

    Attributes:
        kind: ``grid`` (scene by scene), ``shuffled`` (streamgeo's ``shuffle``), ``random`` (a permutation of all),
            or ``given``.
        epochs: the numbers of the patches, for each epoch; what streamgeo did is what the others do.
    """

    kind: str
    epochs: list[NDArray[np.int64]] = field(default_factory=list)

    def of(self, epoch: int, count: int) -> Indices:
        return range(count) if self.kind == "grid" else self.epochs[epoch]


class Loader(Protocol):
    """What is measured."""

    needs: ClassVar[tuple[str, ...]]  # packages
    kinds: ClassVar[tuple[str, ...]]  # of files

    def __init__(self, case: Case, order: Order, threads: int) -> None: ...
    def epoch(self, number: int) -> Iterator[Array]: ...
    def close(self) -> None: ...


ALL = ("tiff", "netcdf", "fits", "npy")


class Streamgeo:
    """The chain that a user would write."""

    needs: ClassVar[tuple[str, ...]] = ()
    kinds: ClassVar[tuple[str, ...]] = ALL

    def __init__(self, case: Case, order: Order, threads: int) -> None:
        self.case, self.order = case, order
        self.stream = ordered(chain_of(case), order).batch(case.batch).prefetch(4, threads)

    def epoch(self, number: int) -> Iterator[Array]:
        places: list[tuple[Array, Array]] = []
        for sample in self.stream:
            places.append((sample["image.scene"], sample["image.window"]))
            yield sample["image"]
        if self.order.kind != "given":
            self.order.epochs.append(self._numbers(places))

    def _numbers(self, places: list[tuple[Array, Array]]) -> NDArray[np.int64]:
        scenes = np.concatenate([np.atleast_1d(scene) for scene, _ in places])
        starts = np.concatenate([window for _, window in places])[:, :, 0]
        numbers = [self.case.number(int(scene), start) for scene, start in zip(scenes, starts)]
        return np.array(numbers, np.int64)

    def close(self) -> None:
        self.stream.close()


def chain_of(case: Case) -> Any:
    """Files to patches."""
    import streamgeo as sg

    opener: Any = {
        "tiff": sg.open_geotiff, "fits": sg.open_fits, "npy": sg.open_numpy,
        "netcdf": partial(sg.open_netcdf, variable="t2m"),
    }[case.kind]  # fmt: skip
    size: Any = case.patch[-2:]
    stride: Any = case.steps[-2:]
    if case.kind == "netcdf":
        names = ("time", "lat", "lon")
        size, stride = dict(zip(names, case.patch)), dict(zip(names, case.steps))
    return (
        sg.files(list(case.paths), key="image")
        .key_transform("image", opener())
        .key_transform("image", sg.patch(size=size, stride=stride, edge="drop"))
    )


def ordered(chain: Any, order: Order) -> Any:
    """The chain in one of the orders."""
    if order.kind == "shuffled":
        return chain.shuffle(seed=SEED)
    if order.kind == "random":
        local = "locality" in inspect.signature(chain.shuffle).parameters
        return chain.shuffle(seed=SEED, locality=None) if local else chain.shuffle(seed=SEED)
    return chain.perm(list(order.epochs[0])) if order.kind == "given" else chain


# -- loops by hand --------------------------------------------------------------------------------------


def in_threads(
    pool: Executor, make: Callable[[Indices], Array], indices: Indices, batch: int, ahead: int = 4
) -> Iterator[Array]:
    """Batches made by threads, in order, a few ahead."""
    waiting: deque[Future[Array]] = deque()
    try:
        for at in range(0, len(indices), batch):
            waiting.append(pool.submit(make, indices[at : at + batch]))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for task in waiting:
            task.cancel()


class ByHand:
    """A loop with the format's own library: two threads, open handles, read straight into the batch."""

    needs: ClassVar[tuple[str, ...]] = ()
    kinds: ClassVar[tuple[str, ...]] = ALL

    def __init__(self, case: Case, order: Order, threads: int) -> None:
        self.case, self.order = case, order
        self.pool = ThreadPoolExecutor(
            threads
        )  # for all epochs: open handles, and their caches, are its threads'
        self.reader = self._reader()

    def _reader(self) -> readers.Reader:
        return readers.reader(self.case)

    def _make(self, group: Indices) -> Array:
        out = np.empty((len(group), *self.case.patch), np.float32)
        for slot, index in zip(out, group):
            scene, slices = self.case.locate(int(index))
            self.reader.read(scene, slices, slot)
        return out

    def epoch(self, number: int) -> Iterator[Array]:
        indices = self.order.of(number, len(self.case))
        yield from in_threads(self.pool, self._make, indices, self.case.batch)

    def close(self) -> None:
        self.pool.shutdown()


class WholeScenes(ByHand):
    """The same, but every scene is read whole when it is first wanted, and kept: memory for all of them."""

    def _reader(self) -> readers.Reader:
        return readers.WholeScenes(self.case)


class DefaultCaches(ByHand):
    """The same with the cache that netCDF-C has by default, 16 MiB: eight frames, of which a patch is cut, take 17."""

    kinds: ClassVar[tuple[str, ...]] = ("netcdf",)
    others = "as by hand"
    guard = 2.0

    def _reader(self) -> readers.Reader:
        return readers.NetCDF(self.case, cache=None)


class Xbatcher:
    """xbatcher over lazily opened xarray arrays, its patches put into batches by two threads."""

    needs: ClassVar[tuple[str, ...]] = ("xbatcher", "xarray", "rioxarray")
    kinds: ClassVar[tuple[str, ...]] = ("tiff", "netcdf", "npy")  # xarray reads no FITS

    def __init__(self, case: Case, order: Order, threads: int) -> None:
        import xbatcher

        self.case, self.order = case, order
        self.pool = ThreadPoolExecutor(threads)
        arrays = [readers.as_xarray(case, path) for path in case.paths]
        sizes = zip(arrays[0].dims, case.patch, case.steps)
        overlap = {dim: size - step for dim, size, step in sizes if step < size}
        self.parts = [
            xbatcher.BatchGenerator(a, dict(zip(a.dims, case.patch)), input_overlap=overlap) for a in arrays
        ]

    def _make(self, group: Indices) -> Array:
        out = np.empty((len(group), *self.case.patch), np.float32)
        for slot, index in zip(out, group):
            scene, number = divmod(int(index), self.case.per_scene)
            slot[...] = self.parts[scene][number].values
        return out

    def epoch(self, number: int) -> Iterator[Array]:
        indices = self.order.of(number, len(self.case))
        yield from in_threads(self.pool, self._make, indices, self.case.batch)

    def close(self) -> None:
        self.pool.shutdown()


# -- torch ----------------------------------------------------------------------------------------------


class Listed:
    """A sampler that goes through a list, another one for each epoch."""

    def __init__(self) -> None:
        self.items: Sequence[Any] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


class ByHandDataset:
    """The loop by hand as a torch dataset; its handles are opened in the worker."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.reader: Any = None

    def __len__(self) -> int:
        return len(self.case)

    def __getitem__(self, index: int) -> Array:
        if self.reader is None:
            self.reader = readers.reader(self.case)
        scene, slices = self.case.locate(int(index))
        out = np.empty(self.case.patch, np.float32)
        self.reader.read(scene, slices, out)
        return out


class TorchLoader:
    """torch's DataLoader over the loop by hand, with two worker processes that stay."""

    needs: ClassVar[tuple[str, ...]] = ("torch",)
    kinds: ClassVar[tuple[str, ...]] = ALL

    def __init__(self, case: Case, order: Order, threads: int) -> None:
        self.case, self.order = case, order
        self.sampler = Listed()
        self.loader = self._loader(self._dataset(), threads)

    def _dataset(self) -> Any:
        return ByHandDataset(self.case)

    def _loader(self, dataset: Any, workers: int, **options: Any) -> Any:
        from torch.utils.data import DataLoader

        return DataLoader(dataset, batch_size=self.case.batch, sampler=self.sampler, num_workers=workers,
                          persistent_workers=True, **options)  # fmt: skip

    def epoch(self, number: int) -> Iterator[Array]:
        self.sampler.items = [int(i) for i in self.order.of(number, len(self.case))]
        for batch in self.loader:
            yield batch.numpy()

    def close(self) -> None:
        del self.loader


class Torchgeo(TorchLoader):
    """torchgeo's RasterDataset in a DataLoader; queries stand where its own samplers would put them."""

    needs: ClassVar[tuple[str, ...]] = ("torchgeo", "torch")
    kinds: ClassVar[tuple[str, ...]] = ("tiff",)

    def __init__(self, case: Case, order: Order, threads: int) -> None:
        import rasterio
        from torchgeo.datasets import RasterDataset, stack_samples

        self.case, self.order = case, order
        self.sampler = Listed()
        missing = case.values.missing
        dataset = RasterDataset(list(case.paths), transforms=partial(_missing, value=missing))
        self.loader = self._loader(dataset, threads, collate_fn=stack_samples)
        self.corners = []
        for path in case.paths:
            with rasterio.open(path) as file:
                self.corners.append((file.transform.c, file.transform.f))

    def _query(self, index: int) -> tuple[slice, slice]:
        scene, (_, y, x) = self.case.locate(index)
        left, top = self.corners[scene]
        across = slice(left + x.start * PIXEL, left + x.stop * PIXEL)
        return across, slice(top - y.stop * PIXEL, top - y.start * PIXEL)

    def epoch(self, number: int) -> Iterator[Array]:
        self.sampler.items = [self._query(int(i)) for i in self.order.of(number, len(self.case))]
        for batch in self.loader:
            yield batch["image"].numpy()


def _missing(sample: dict[str, Any], value: float) -> dict[str, Any]:
    sample["image"][sample["image"] == value] = float("nan")
    return sample


LOADERS: dict[str, type[Loader]] = {
    "streamgeo": Streamgeo,
    "by hand": ByHand,
    "by hand, default caches": DefaultCaches,
    "by hand, whole scenes": WholeScenes,
    "DataLoader": TorchLoader,
    "xbatcher": Xbatcher,
    "torchgeo": Torchgeo,
}


def lacks(name: str, kind: str) -> str | None:
    """Why a loader cannot take part; None when it can."""
    loader = LOADERS[name]
    if kind not in loader.kinds:
        return getattr(loader, "others", f"does not read {kind}")
    missing = [package for package in loader.needs if importlib.util.find_spec(package) is None]
    return f"{missing[0]} is not installed" if missing else None
