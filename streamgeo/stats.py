"""What a stream did so far, as numbers and as one sentence that says what limits its speed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from streamgeo import meter as m

_LITTLE = 0.2  # a consumer that waits for less than this share of the time is not held up by the workers


@dataclass(frozen=True)
class Stats:
    """What a stream did, summed over its epochs and over its threads; all times are in seconds.

    Attributes:
        samples, batches: handed out; a batch counts as one batch and as many samples as it stacks.
        seconds: from the first sample asked for to the last one handed out.
        samples_per_s, bytes_per_s: over these seconds, bytes of the arrays that were handed out.
        read_s: inside the readers. They read and decode in one call of their library, so this is both.
        steps_s: by label of a step (opening files is one, and so is a ``sample_transform``).
        source_s: inside the iterator that the stream was made from, if any.
        batch_s: stacking samples to batches.
        other_s: the rest of the time in tasks: copies, bookkeeping.
        consumer_wait_s: that the consumer waited for the threads of ``prefetch``.
        worker_wait_s: that these threads had nothing to do.
        consumer_s: that passed between two samples, outside the stream.
        threads: of all ``prefetch`` links; without one, the consumer makes the samples itself.
        queue_fill: finished results waiting when the consumer asked for one, on average.
        cache_hits, cache_misses: of opened scenes, and of scenes that had to be computed whole.
        limit: what limits the speed, in one sentence.
    """

    samples: int = 0
    batches: int = 0
    seconds: float = 0.0
    samples_per_s: float = 0.0
    bytes_per_s: float = 0.0
    read_s: float = 0.0
    steps_s: Mapping[str, float] = field(default_factory=dict)
    source_s: float = 0.0
    batch_s: float = 0.0
    other_s: float = 0.0
    consumer_wait_s: float = 0.0
    worker_wait_s: float = 0.0
    consumer_s: float = 0.0
    threads: int = 0
    queue_fill: float = 0.0
    cache_hits: int = 0
    cache_misses: int = 0
    limit: str = ""

    @property
    def work_s(self) -> float:
        """All the time in which samples were made, by workers and consumer."""
        named = self.read_s + self.source_s + self.batch_s + self.other_s
        return named + sum(self.steps_s.values())

    def __str__(self) -> str:
        return _table(self)


def stats_of(meter: m.Meter, threads: int) -> Stats:
    """The sums of a meter, read as those of a stream with so many threads."""
    sums = meter.sums()
    wall = float(sums[m.WALL])
    busy = sums[m.BUSY] - sums[m.IDLE]
    here = sums[m.NEXT] - sums[m.WAIT]
    steps = {name[len(m.STEP) :]: sums[name] for name in sums if name.startswith(m.STEP)}
    named = sums[m.READ] + sums[m.SOURCE] + sums[m.BATCH] + sum(steps.values())
    stats = Stats(
        samples=int(sums[m.SAMPLES]),
        batches=int(sums[m.BATCHES]),
        seconds=wall,
        samples_per_s=sums[m.SAMPLES] / wall if wall else 0.0,
        bytes_per_s=sums[m.BYTES] / wall if wall else 0.0,
        read_s=float(sums[m.READ]),
        steps_s=dict(sorted(steps.items(), key=lambda part: -part[1])),
        source_s=float(sums[m.SOURCE]),
        batch_s=float(sums[m.BATCH]),
        other_s=max(0.0, busy + here - named),
        consumer_wait_s=float(sums[m.WAIT]),
        worker_wait_s=max(0.0, threads * wall - busy),
        consumer_s=max(0.0, wall - sums[m.NEXT]),
        threads=threads,
        queue_fill=sums[m.QUEUE] / sums[m.ASKED] if sums[m.ASKED] else 0.0,
        cache_hits=int(sums[m.HITS]),
        cache_misses=int(sums[m.MISSES]),
    )
    alone = sums[m.HERE] > sums[m.ASKED]
    return Stats(**{**stats.__dict__, "limit": _limit(stats, here, alone)})


# -- what limits the speed ------------------------------------------------------------------------------


def _limit(stats: Stats, here: float, alone: bool) -> str:
    """One sentence.

    Args:
        here: the time in which the consumer's own thread made samples.
        alone: whether it made most of them in place of the threads of a prefetch.
    """
    if not stats.seconds or not stats.work_s:
        return "nothing was measured yet: read some samples first"
    outside = stats.consumer_s / stats.seconds
    if alone or not stats.threads:
        if outside > 0.5:
            return f"the consumer limits: {_percent(outside)} of the time passes outside the stream"
        tried = "threads were tried, and with them it takes longer"
        return _part(stats, "time", tried if alone else ".prefetch(8, 4) at the end lets threads do it ahead")
    if stats.consumer_wait_s < _LITTLE * stats.seconds:
        if outside * stats.seconds >= here:
            idle = stats.worker_wait_s / (stats.threads * stats.seconds)
            return f"the consumer limits: the workers waited {_percent(idle)} of the time"
        return (
            f"the consumer's own thread limits: {_percent(here / stats.seconds)} of the time it makes samples "
            "itself; put .prefetch at the end of the chain"
        )
    return _part(stats, "workers' time", "")


def _part(stats: Stats, whose: str, remedy: str) -> str:
    """Which part of making samples takes the most time."""
    parts = {
        "reading": (stats.read_s, "more threads or a faster disk help"),
        "the source": (stats.source_s, "its iterator is asked by one thread at a time; a Buffer is not"),
        "batching": (stats.batch_s, "more threads or smaller samples help"),
        "handling of samples": (stats.other_s, "larger patches or fewer keys help"),
    }
    steps = {f"step {label}": (took, "more threads help") for label, took in stats.steps_s.items()}
    name, (took, help) = max({**parts, **steps}.items(), key=lambda part: part[1][0])
    share = _percent(took / stats.work_s)
    return f"{name} limits: {share} of the {whose} is spent in it; {remedy or help}"


def _percent(share: float) -> str:
    return f"{100 * min(max(share, 0.0), 1.0):.0f} %"


# -- as text --------------------------------------------------------------------------------------------


def _table(stats: Stats) -> str:
    work = stats.work_s or 1.0
    rows = [
        ("samples", f"{stats.samples}", f"{stats.samples_per_s:.4g} per s"),
        ("batches", f"{stats.batches}", ""),
        ("bytes", _bytes(stats.bytes_per_s * stats.seconds), f"{_bytes(stats.bytes_per_s)} per s"),
        ("seconds", f"{stats.seconds:.3f}", ""),
    ]
    times = {
        "read": stats.read_s,
        "source": stats.source_s,
        **stats.steps_s,
        "batch": stats.batch_s,
        "other": stats.other_s,
    }
    rows += [
        (f"  {name}", f"{took:.3f}", _percent(took / work))
        for name, took in times.items()
        if took or name == "read"
    ]
    rows += [
        ("consumer waited", f"{stats.consumer_wait_s:.3f}", ""),
        ("workers waited", f"{stats.worker_wait_s:.3f}", f"{stats.threads} threads"),
        ("queue fill", f"{stats.queue_fill:.1f}", ""),
        ("cache hits", f"{stats.cache_hits}", f"{stats.cache_misses} misses"),
    ]
    wide, right = max(len(row[0]) for row in rows), max(len(row[1]) for row in rows)
    lines = [f"{name:<{wide}}  {value:>{right}}  {note}".rstrip() for name, value, note in rows]
    return "\n".join([*lines, stats.limit])


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.4g} {unit}"
        number /= 1000
    return f"{number:.4g} GB"
