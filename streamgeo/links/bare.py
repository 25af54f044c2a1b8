"""Samples that are nothing but arrays in memory, made in one loop.

A step costs a few microseconds beside its function: for what it may ask for, where its array lies, how long it
takes, what to say if it fails. Where arrays come from a list and no step asks for more than the array, this is
known beforehand for all samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, overload

import numpy as np

from streamgeo.errors import SampleError
from streamgeo.links.values import as_value, need
from streamgeo.meter import STEP, Work, present
from streamgeo.naming import naming
from streamgeo.openers import Opener
from streamgeo.plan import Item, Run
from streamgeo.step import Step

Sample = dict[str, Any]
Pick = Callable[[int, Run], int]


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


class Bare:
    """Where samples come from, in which order (the last pick is made first), and the steps that they go through."""

    def __init__(
        self, data: Sequence[Mapping[str, Any]], picks: Sequence[Pick] = (), stages: Sequence[_Stage] = ()
    ) -> None:
        self._data, self._picks, self._stages = data, tuple(picks), tuple(stages)
        self._calls = [stage.call() for stage in stages]
        self._names = [STEP + stage.step.label for stage in stages]

    def picked(self, pick: Pick) -> Bare:
        """In another order; behind a step it is the same, for none of these asks for a sample's number."""
        return Bare(self._data, (pick, *self._picks), self._stages)

    def then(self, step: Step, keys: Sequence[str], outputs: Sequence[str]) -> Bare | None:
        """With one more step, if that asks for nothing but the array."""
        if isinstance(step, Opener) or step.asks - {"out"} or step.keeps_residual:
            return None
        more = [_Stage(step, key, output) for key, output in zip(keys, outputs)]
        return Bare(self._data, self._picks, (*self._stages, *more))

    def item(self, position: int, run: Run) -> Item:
        """The sample at one position."""
        number = self._number(position, run) if self._picks else position
        spent, work = [0.0] * len(self._calls), present()
        made = self._made(number, spent, work)
        self._book(spent, work)
        if isinstance(made, Exception):
            raise made
        return Item(number, made)

    def items(self, positions: range, run: Run) -> Iterator[tuple[int, int, Sample | Exception]]:
        """Position, number in the source, and values of each sample, or what making it raised."""
        spent, work = [0.0] * len(self._calls), present()
        for position in positions:
            number = self._number(position, run) if self._picks else position
            yield position, number, self._made(number, spent, work)
        self._book(spent, work)

    def _made(self, number: int, spent: list[float], work: Work) -> Sample | Exception:
        at = -1
        values: Sample = {}
        try:
            for key, value in self._data[number].items():
                values[key] = as_value(value)
            began = perf_counter() - work.inner
            for key, output, forward, checked in self._calls:
                at += 1
                value = forward(values[key])
                if type(value) is not np.ndarray or value.dtype.kind in "OV":
                    value = checked(value)
                values[output] = value
                now = perf_counter() - work.inner
                spent[at] += now - began
                began = now
        except Exception as error:
            return error if at < 0 else self._stages[at].named(error, values)
        return values

    def _number(self, position: int, run: Run) -> int:
        for pick in self._picks:
            position = pick(position, run)
        return position

    def _book(self, spent: list[float], work: Work) -> None:
        sums = work.sums
        if sums is not None:
            for name, took in zip(self._names, spent):
                sums[name] = sums.get(name, 0.0) + took
        work.inner += sum(spent)


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
