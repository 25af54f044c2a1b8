"""Who is measured when: rounds in which everyone takes a turn, so that a slow minute hits all alike."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import bounds
from benchmarks.data import Case, part
from benchmarks.peers import LOADERS, ORDERS, Order, lacks
from benchmarks.processes import Failed, apart

Array = NDArray[Any]
DECODE, COPY = "decode bound", "copy bound"
AGAIN = ("streamgeo", "by hand", "by hand, whole scenes")  # in every round; the others in the first one
PARTLY = {
    ("by hand", "fits"),
    ("DataLoader", "fits"),
    ("xbatcher", "tiff"),
    ("torchgeo", "tiff"),
}  # first scene only
LARGE = 64 << 20  # bytes, decoded, from which on that holds
SMALL = 4 << 20  # bytes, decoded, below which everyone takes every order
# These take every order of some cases, and of the others the shuffled one.
ONE_ORDER = ("by hand, default caches", "xbatcher", "torchgeo")
EVERY_ORDER = ("tiff-deflate", "netcdf-frames", "netcdf-blocks", "npy")
GUARD = 60  # seconds after which an epoch is cut short
TIMEOUT = 200


@dataclass(frozen=True)
class Timing:
    """One epoch.

    Attributes:
        patches: how many came.
        seconds: how long it took.
        whole: whether it was an epoch of all scenes, and not of some, or cut short.
        first: seconds until the first batch.
        cpu: seconds of processor time in this process; they hardly change with what else the machine does.
    """

    patches: int
    seconds: float
    whole: bool = True
    first: float = 0
    cpu: float = 0

    @property
    def rate(self) -> float:
        return self.patches / self.seconds


@dataclass(frozen=True)
class Row:
    """One contender in one round."""

    case: str
    order: str
    contender: str
    round: int
    cold: Timing | None = None
    warm: Timing | None = None
    lacks: str | None = None  # why it was not measured


@dataclass
class Plan:
    """How much is measured.

    Attributes:
        threads: of every contender.
        rounds: at most.
        deadline: ``time.monotonic()`` behind which only streamgeo and the bounds are still measured, once.
    """

    threads: int
    rounds: int
    deadline: float


# -- in the processes -----------------------------------------------------------------------------------


def timed(batches: Iterator[Array], began: float | None = None, guard: float = GUARD) -> Timing:
    """How long batches take, or those that come before the guard does."""
    work = time.process_time()
    began = time.perf_counter() if began is None else began
    count, whole, first = 0, True, 0.0
    for batch in batches:
        first = first or time.perf_counter() - began
        count += len(batch)
        if time.perf_counter() - began > guard:
            whole = False
            break
    return Timing(count, time.perf_counter() - began, whole, first, time.process_time() - work)


def two_epochs(case: Case, name: str, order: Order, threads: int) -> tuple[Timing, Timing, Order]:
    """The first epoch, with everything that comes before it, and the second."""
    began = time.perf_counter()
    loader = LOADERS[name](case, order, threads)
    results = []
    for number in (0, 1):
        with closing(loader.epoch(number)) as batches:  # type: ignore[type-var]
            results.append(timed(batches, began if number == 0 else None, getattr(loader, "guard", GUARD)))
    loader.close()
    return results[0], results[1], order


def some_patches(case: Case, name: str, indices: Array, threads: int) -> Array:
    """These patches, as a loader gives them."""
    loader = LOADERS[name](case, Order("given", [indices]), threads)
    try:
        return np.concatenate([np.array(batch) for batch in loader.epoch(0)])
    finally:
        loader.close()


def both_bounds(case: Case, orders: dict[str, Order], threads: int) -> tuple[Timing, dict[str, Timing]]:
    """Decoding alone, and copying in each of the orders."""
    stored = bounds.index(case)
    seconds, cpu = bounds.decode_all(case, stored, bounds.fastest(case, stored), threads)
    copied = bounds.Copied(case, threads)
    for _ in copied.batches(range(min(len(case), 4 * case.batch))):
        pass  # touches the memory that batches come from
    copies = {kind: timed(copied.batches(order.of(1, len(case)))) for kind, order in orders.items()}
    return Timing(len(case), seconds, cpu=cpu), copies


# -- from outside ---------------------------------------------------------------------------------------


def compare(case: Case, threads: int) -> dict[str, str]:
    """What each loader says of the same patches: ``equal``, or why it takes no part.

    Raises:
        Failed: when a loader gives other patches than streamgeo.
    """
    rng = np.random.default_rng(0)
    indices = rng.choice(len(case), min(len(case), 2 * case.batch), replace=False)
    expected = apart(some_patches, case, "streamgeo", indices, threads)
    if expected.dtype != np.float32 or expected.shape != (len(indices), *case.patch):
        raise Failed(f"streamgeo gives {expected.dtype} {expected.shape} of {case.name}")
    found = {"streamgeo": "equal"}
    for name in list(LOADERS)[1:]:
        reason = lacks(name, case.kind)
        if reason is None:
            given = apart(some_patches, case, name, indices, threads)
            if given.dtype != np.float32 or not np.allclose(given, expected, 1e-6, 1e-5, equal_nan=True):
                raise Failed(f"{name} gives other patches of {case.name} than streamgeo")
        found[name] = reason or "equal"
    return found


def measure(case: Case, plan: Plan) -> list[Row]:
    """All rounds over one case."""
    rows: list[Row] = []
    orders = {kind: Order(kind) for kind in ORDERS}
    slow: set[str] = set()
    for number in range(plan.rounds):
        began = time.monotonic()
        rows += _round(case, orders, number, plan, slow)
        if time.monotonic() + 0.7 * (time.monotonic() - began) > plan.deadline:
            break
    return rows


def _round(case: Case, orders: dict[str, Order], number: int, plan: Plan, slow: set[str]) -> list[Row]:
    """Everyone once; who took long sits out from then on."""
    rows = []
    for kind in sorted(ORDERS, key="shuffled".__ne__):
        for name in LOADERS:
            reason = _out(case, kind, name, plan)
            if reason is not None:
                rows += [Row(case.name, kind, name, number, lacks=reason)] * (number == 0)
            elif number == 0 or (name in AGAIN and name not in slow):
                row = _run(case, orders, kind, name, number, plan.threads)
                if name != "streamgeo" and row.cold and row.warm and row.cold.seconds + row.warm.seconds > 5:
                    slow.add(name)
                rows.append(row)
    return [*rows, *_bounds(case, orders, number, plan.threads)]


def _out(case: Case, kind: str, name: str, plan: Plan) -> str | None:
    """Why a loader is not measured; None when it is."""
    if reason := lacks(name, case.kind):
        return reason
    if kind != "shuffled" and name in ONE_ORDER and case.name not in EVERY_ORDER and case.nbytes >= SMALL:
        return "shuffled only"
    return "no time was left" if time.monotonic() > plan.deadline and name != "streamgeo" else None


def _run(case: Case, orders: dict[str, Order], kind: str, name: str, number: int, threads: int) -> Row:
    if name == "streamgeo":
        cold, warm, used = apart(two_epochs, case, name, Order(kind), threads, timeout=TIMEOUT)
        for numbers in used.epochs:
            if sorted(numbers) != list(range(len(case))):
                raise Failed(f"streamgeo does not give every patch of {case.name} once, {kind}")
        orders[kind] = used
        return Row(case.name, kind, name, number, cold, warm)
    some = part(case, 1) if (name, case.kind) in PARTLY and case.nbytes >= LARGE else case
    chosen = Order(kind, [numbers[numbers < len(some)] for numbers in orders[kind].epochs])
    cold, warm, _ = apart(two_epochs, some, name, chosen, threads, timeout=TIMEOUT)
    if len(some) < len(case):
        cold, warm = replace(cold, whole=False), replace(warm, whole=False)
    return Row(case.name, kind, name, number, cold, warm)


def _bounds(case: Case, orders: dict[str, Order], number: int, threads: int) -> list[Row]:
    decode, copies = apart(both_bounds, case, orders, threads, timeout=TIMEOUT)
    rows = [Row(case.name, kind, DECODE, number, cold=decode) for kind in orders]
    return rows + [Row(case.name, kind, COPY, number, warm=copies[kind]) for kind in orders]
