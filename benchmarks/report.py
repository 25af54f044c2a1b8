"""Tables in Markdown and a plot, made of what was measured."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.measure import COPY, DECODE, Row
from benchmarks.peers import LOADERS, ORDERS

PEERS = [name for name in LOADERS if name != "streamgeo"]
COLD_TARGET, WARM_TARGET = 0.85, 0.6
PACKAGES = ("numpy", "rasterio", "netCDF4", "h5py", "astropy", "imagecodecs", "torch", "xarray", "xbatcher",
            "torchgeo", "mlx-data")  # fmt: skip


def spread(values: Sequence[float]) -> str:
    """Median, and from least to most where there are several."""
    if not values:
        return "-"
    middle = _short(statistics.median(values))
    if len(values) == 1:
        return middle
    return f"{middle} ({_short(min(values))}-{_short(max(values))})"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value < 1 else f"{value:.1f}"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


class Results:
    """Rows by case, order and contender."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = list(rows)
        self.cases = list(dict.fromkeys(row.case for row in self.rows))

    def runs(self, case: str, order: str, contender: str) -> dict[int, Any]:
        """Its rounds."""
        return {
            row.round: row
            for row in self.rows
            if (row.case, row.order, row.contender) == (case, order, contender) and row.lacks is None
        }

    def rates(self, case: str, order: str, contender: str, phase: str) -> dict[int, float]:
        """Patches a second in each round, ``cold`` or ``warm``."""
        timings = {n: getattr(row, phase) for n, row in self.runs(case, order, contender).items()}
        return {n: timing.rate for n, timing in timings.items() if timing is not None}

    def ratios(self, case: str, order: str, phase: str, other: str) -> list[float]:
        """streamgeo's rate by that of another contender in the same round."""
        mine, theirs = (self.rates(case, order, name, phase) for name in ("streamgeo", other))
        return [mine[n] / theirs[n] for n in mine if n in theirs]

    def lacks(self, case: str, order: str, contender: str) -> str | None:
        """Why it was not measured."""
        found = [row for row in self.rows if (row.case, row.contender) == (case, contender)]
        reasons = [row.lacks for row in found if row.order == order and row.lacks]
        if reasons:
            return reasons[0]
        return None if any(row.order == order for row in found) else "not measured"

    def partly(self, case: str, order: str, contender: str, phase: str) -> bool:
        """Whether an epoch was cut short."""
        timings = [getattr(row, phase) for row in self.runs(case, order, contender).values()]
        return any(timing is not None and not timing.whole for timing in timings)


def against_bounds(results: Results) -> str:
    """streamgeo beside what the machine can do."""
    head = ["data", "order", "cold, patches/s", f"of decoding (target {COLD_TARGET})",
            "of decoding, then copying", "the same in processor time", "warm, patches/s",
            f"of copying (target {WARM_TARGET})", "the same in processor time"]  # fmt: skip
    rows = []
    for case in results.cases:
        for order in ORDERS:
            rates = [results.rates(case, order, "streamgeo", phase) for phase in ("cold", "warm")]
            rows.append([
                case, order, spread(list(rates[0].values())), spread(results.ratios(case, order, "cold", DECODE)),
                spread(_of_both(results, case, order)), spread(_of_work(results, case, order, "cold")),
                spread(list(rates[1].values())), spread(results.ratios(case, order, "warm", COPY)),
                spread(_of_work(results, case, order, "warm")),
            ])  # fmt: skip
    return markdown(head, rows)


def _of_both(results: Results, case: str, order: str) -> list[float]:
    """Against decoding everything and then copying everything: what a loader has to do in a first epoch."""
    mine = results.rates(case, order, "streamgeo", "cold")
    decode, copy = results.rates(case, order, DECODE, "cold"), results.rates(case, order, COPY, "warm")
    return [mine[n] * (1 / decode[n] + 1 / copy[n]) for n in mine if n in decode and n in copy]


def _of_work(results: Results, case: str, order: str, phase: str) -> list[float]:
    """Processor time of the bounds (decoding and copying, or copying) by streamgeo's, in the same round."""
    mine, decode, copy = (results.runs(case, order, name) for name in ("streamgeo", DECODE, COPY))
    found = []
    for number in mine.keys() & decode.keys() & copy.keys():
        timing, least = getattr(mine[number], phase), copy[number].warm.cpu
        least += decode[number].cold.cpu if phase == "cold" else 0
        found.append(least / timing.cpu)
    return found


def first_batches(results: Results) -> str:
    """Seconds until the first batch of a first epoch in shuffled order."""
    rows = []
    for case in results.cases:
        cells = []
        for name in LOADERS:
            runs = results.runs(case, "shuffled", name).values()
            seconds = [row.cold.first for row in runs if row.cold is not None]
            cells.append(spread(seconds) if seconds else results.lacks(case, "shuffled", name) or "-")
        rows.append([case, *cells])
    return markdown(["data", *LOADERS], rows)


def against_peers(results: Results) -> str:
    """How many times as fast as each of the others: cold / warm."""
    rows = []
    for case in results.cases:
        for order in ORDERS:
            rows.append([case, order, *(_cell(results, case, order, peer) for peer in PEERS)])
    return markdown(["data", "order", *PEERS], rows)


def _cell(results: Results, case: str, order: str, peer: str) -> str:
    reason = results.lacks(case, order, peer)
    if reason is not None:
        return reason
    parts = []
    for phase in ("cold", "warm"):
        mark = "†" if results.partly(case, order, peer, phase) else ""
        parts.append(spread(results.ratios(case, order, phase, peer)) + mark)
    return " / ".join(parts)


def rates_table(results: Results) -> str:
    """Patches a second of everyone, median of the rounds: cold / warm."""
    names = [*LOADERS, DECODE, COPY]
    rows = []
    for case in results.cases:
        for order in ORDERS:
            cells = []
            for name in names:
                found = [results.rates(case, order, name, phase) for phase in ("cold", "warm")]
                said = [_short(statistics.median(rates.values())) for rates in found if rates]
                cells.append(" / ".join(said) or results.lacks(case, order, name) or "-")
            rows.append([case, order, *cells])
    return markdown(["data", "order", *names], rows)


def machine(threads: int) -> str:
    """What it was measured on, and with."""
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} not installed")
    system = f"{platform.system()} on {platform.machine()}, Python {platform.python_version()}"
    return f"{system}, {threads} threads or worker processes for every contender. {', '.join(found)}."


def plot(results: Results, path: Path, order: str = "shuffled") -> None:
    """Patches a second of all contenders, cold and warm."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(14, 5), sharey=True)
    for panel, phase, bound in zip(panels, ("cold", "warm"), (DECODE, COPY)):
        names = [*LOADERS, bound]
        for number, name in enumerate(names):
            _bars(
                panel, results, order, phase, name, (number - len(names) / 2 + 0.5) * 0.8 / len(names), number
            )
        panel.set_xticks(range(len(results.cases)), results.cases, rotation=30, ha="right")
        panel.set_yscale("log")
        panel.grid(axis="y", alpha=0.3)
        panel.set_title(f"{'first' if phase == 'cold' else 'second'} epoch ({phase})")
    panels[1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    panels[0].set_ylabel(f"patches a second ({order})")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _bars(panel: Any, results: Results, order: str, phase: str, name: str, shift: float, color: int) -> None:
    rates = [list(results.rates(case, order, name, phase).values()) for case in results.cases]
    places = [at + shift for at, found in enumerate(rates) if found]
    heights = [statistics.median(found) for found in rates if found]
    lows = [h - min(found) for h, found in zip(heights, filter(None, rates))]
    highs = [max(found) - h for h, found in zip(heights, filter(None, rates))]
    shade = {DECODE: "0.3", COPY: "0.3"}.get(name, f"C{color}")
    panel.bar(
        places,
        heights,
        0.1,
        yerr=[lows, highs],
        label="bound: decoding, copying" if name in (DECODE, COPY) else name,
        color=shade,
        error_kw={"lw": 0.7},
    )
