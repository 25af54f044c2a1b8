"""Samples that are nothing but arrays in memory, made in one loop.

A step costs a few microseconds beside its function: for what it may ask for, where its array lies, how long it
takes, what to say if it fails. Where arrays come from a list and no step asks for more than the array, this is
known beforehand for all samples of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, overload

import numpy as np

from streamgeo.errors import SampleError
from streamgeo.links.base import Node, as_value, need
from streamgeo.links.order import AsStream, Select
from streamgeo.links.sources import Vector
from streamgeo.links.steps import Map
from streamgeo.meter import STEP, present
from streamgeo.openers import Opener
from streamgeo.plan import Item, Run, naming
from streamgeo.step import Step

Sample = dict[str, Any]


@dataclass(frozen=True, eq=False)
class _Stage:
    """A step on one key."""

    step: Step
    key: str
    output: str

    def call(self) -> tuple[str, str, Callable[[Any], Any], Callable[[Any], Any]]:
        """What the loop needs of it."""
        forward = partial(self.step.forward, out=None) if self.step.asks else self.step.forward
        return self.key, self.output, forward, self.step.checked

    def named(self, error: Exception, values: Sample) -> Exception:
        """An error of it, as the sample tells it."""
        try:
            need(Item(0, values), self.key, self.step.label)
        except Exception as missing:
            return missing
        if isinstance(error, SampleError):
            return error
        told = naming(self.step.label).named(error)
        told.__cause__ = error
        return told


@dataclass(frozen=True, eq=False)
class Bare:
    """Where samples come from, in which order, and the steps that they go through."""

    source: Vector
    picks: tuple[Select, ...]  # the last one first
    stages: tuple[_Stage, ...]

    def made(self, positions: range, run: Run) -> Iterator[tuple[int, int, Sample | Exception]]:
        """Position, number in the source, and values of each sample, or what making it raised."""
        data, calls = self.source.data, [stage.call() for stage in self.stages]
        spent, work = [0.0] * len(calls), present()
        for position in positions:
            number = self._number(position, run) if self.picks else position
            at = -1
            values: Sample = {}
            try:
                for key, value in data[number].items():
                    values[key] = as_value(value)
                began = perf_counter() - work.inner
                for at, (key, output, forward, checked) in enumerate(calls):
                    value = forward(values[key])
                    if type(value) is not np.ndarray or value.dtype.kind in "OV":
                        value = checked(value)
                    values[output] = value
                    now = perf_counter() - work.inner
                    spent[at] += now - began
                    began = now
            except Exception as error:
                yield position, number, error if at < 0 else self.stages[at].named(error, values)
            else:
                yield position, number, values
        for stage, took in zip(self.stages, spent):
            work.book(STEP + stage.step.label, took)

    def _number(self, position: int, run: Run) -> int:
        for select in self.picks:
            position = select.pick(position, select.before.length(run), run)
        return position


def bare_of(node: Node) -> Bare | None:
    """How the samples of a chain are made, if they are arrays in memory and its steps ask for nothing else."""
    picks: list[Select] = []
    stages: list[_Stage] = []
    while not isinstance(node, Vector):
        if type(node) is Map and _asks_nothing(node.step):
            stages[:0] = [_Stage(node.step, key, output) for key, output in zip(node.keys, node.outputs)]
        elif type(node) is Select:
            picks.append(node)
        elif type(node) is not AsStream:
            return None
        node = node.before
    return Bare(node, tuple(picks), tuple(stages))


def _asks_nothing(step: Step) -> bool:
    return not (isinstance(step, Opener) or step.asks - {"out"} or step.keeps_residual)


class Parts(Sequence[Item]):
    """The samples of a batch of which nothing is known but their numbers, made when they are asked for."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, at: int) -> Item: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Item]: ...
    def __getitem__(self, at: int | slice) -> Item | Sequence[Item]:
        """One, or some."""
        return Parts(self._numbers[at]) if isinstance(at, slice) else Item(self._numbers[at], {})
