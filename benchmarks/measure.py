"""Who is measured when: rounds in which everyone takes a turn, so that a slow minute hits all alike."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import bounds
from benchmarks.data import Case
from benchmarks.peers import LOADERS, ORDERS, Order, lacks
from benchmarks.processes import Failed, apart

Array = NDArray[Any]
DECODE, COPY = "decode bound", "copy bound"
SLOW = ("xbatcher", "torchgeo")  # measured in one order only
TIMEOUT = 180


@dataclass(frozen=True)
class Timing:
    """Patches in seconds; ``whole`` says that it was an epoch and not the first part of one."""

    patches: int
    seconds: float
    whole: bool = True

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
        limit: seconds after which an epoch is cut short.
        deadline: ``time.monotonic()`` behind which only what has not been measured at all is begun, and that only
            of streamgeo and the bounds.
    """

    threads: int
    rounds: int
    limit: float
    deadline: float


# -- in the processes -----------------------------------------------------------------------------------


def timed(batches: Iterator[Array], limit: float, began: float | None = None) -> Timing:
    """How long batches take, or those that come until ``limit`` seconds."""
    began = time.perf_counter() if began is None else began
    count, whole = 0, True
    for batch in batches:
        count += len(batch)
        if time.perf_counter() - began > limit:
            whole = False
            break
    return Timing(count, time.perf_counter() - began, whole)


def two_epochs(
    case: Case, name: str, order: Order, threads: int, limit: float
) -> tuple[Timing, Timing, Order]:
    """The first epoch, with everything that comes before it, and the second."""
    began = time.perf_counter()
    loader = LOADERS[name](case, order, threads)
    results = []
    for number in (0, 1):
        with closing(loader.epoch(number)) as batches:  # type: ignore[type-var]
            results.append(timed(batches, limit, began if number == 0 else None))
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
    seconds = bounds.decode_all(case, stored, bounds.fastest(case, stored), threads)
    copied = bounds.Copied(case)
    for _ in copied.batches(range(min(len(case), 4 * case.batch)), threads):
        pass  # touches the memory that batches come from
    copies = {
        kind: timed(copied.batches(order.of(1, len(case)), threads), 1e9) for kind, order in orders.items()
    }
    return Timing(len(case), seconds), copies


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
    """Everyone once. A loader that took long in the round before sits out from the third round on."""
    rows = []
    for kind in sorted(ORDERS, key="shuffled".__ne__):
        for name in LOADERS:
            reason = lacks(name, case.kind)
            if reason is None and time.monotonic() > plan.deadline and name != "streamgeo":
                reason = "no time was left"
            if reason is not None:
                rows += [Row(case.name, kind, name, number, lacks=reason)] * (number == 0)
                continue
            if (name in SLOW and kind != "shuffled") or (number > 1 and name in slow):
                continue
            row = _run(case, orders, kind, name, number, plan)
            if row.cold and row.warm and row.cold.seconds + row.warm.seconds > 3:
                slow.add(name)
            rows.append(row)
    return [*rows, *_bounds(case, orders, number, plan)]


def _run(case: Case, orders: dict[str, Order], kind: str, name: str, number: int, plan: Plan) -> Row:
    given = Order(kind) if name == "streamgeo" else orders[kind]
    limit = 1e9 if name == "streamgeo" else plan.limit
    cold, warm, used = apart(two_epochs, case, name, given, plan.threads, limit, timeout=TIMEOUT)
    if name == "streamgeo":
        for numbers in used.epochs:
            if sorted(numbers) != list(range(len(case))):
                raise Failed(f"streamgeo does not give every patch of {case.name} once, {kind}")
        orders[kind] = used
    return Row(case.name, kind, name, number, cold, warm)


def _bounds(case: Case, orders: dict[str, Order], number: int, plan: Plan) -> list[Row]:
    decode, copies = apart(both_bounds, case, orders, plan.threads, timeout=TIMEOUT)
    rows = [Row(case.name, kind, DECODE, number, cold=decode) for kind in orders]
    return rows + [Row(case.name, kind, COPY, number, warm=copies[kind]) for kind in orders]
