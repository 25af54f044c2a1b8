"""Weights of regridding along one axis: which old pixels a new one is made of, and by what shares."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_NOTHING = 1e-12  # a share that is rounding, and no share


@dataclass(frozen=True, eq=False)
class Weights:
    """For each new pixel the old ones that it takes, in their order; a share of 0 stands for none.

    Attributes:
        pixels, shares: of shape (taken at most, new).
        size: how many old pixels there are.
    """

    pixels: Ints
    shares: Floats
    size: int

    @staticmethod
    def of(count: int, size: int, parts: Iterable[tuple[Ints, Ints, Floats]]) -> Weights:
        """From (new, old, share); shares of the same two pixels are added."""
        new, old, share = (np.concatenate(part) for part in zip(*parts))
        pairs, at = np.unique(new * size + old, return_inverse=True)
        total = np.bincount(at, share, pairs.size)
        pairs, total = pairs[total > _NOTHING], total[total > _NOTHING]
        new, old = np.divmod(pairs, size)
        taken = np.bincount(new, minlength=count)
        place = np.arange(new.size) - np.repeat(np.cumsum(taken) - taken, taken)
        pixels = np.zeros((int(taken.max(initial=0)), count), np.int64)
        shares = np.zeros(pixels.shape)
        pixels[place, new], shares[place, new] = old, total
        return Weights(pixels, shares, size)

    def used(self, part: slice) -> tuple[int, int]:
        """The first and last old pixel that a part of the new ones needs; the first pixel where it needs none."""
        found = self.pixels[:, part][self.shares[:, part] > 0]
        return (int(found.min()), int(found.max()) + 1) if found.size else (0, 1)

    def cut(self, part: slice) -> Weights:
        """The weights of a part of the new pixels, for the old ones that it uses."""
        low, high = self.used(part)
        return Weights(np.clip(self.pixels[:, part] - low, 0, None), self.shares[:, part], high - low)

    def summed(self, x: Floats, axis: int) -> Floats:
        """The sums of shares and values along an axis, counted from the end.

        Always added in the order of the pixels, so that a window gives the same digits as the whole.
        """
        shape = [-1 if i == x.ndim + axis else 1 for i in range(x.ndim)]
        count = self.pixels.shape[1]
        out = np.zeros([count if i == x.ndim + axis else size for i, size in enumerate(x.shape)])
        for pixels, share in zip(self.pixels, self.shares):
            out += np.take(x, pixels, axis) * share.reshape(shape)
        return out


def _around(old: Floats, new: Floats, period: float | None) -> tuple[Floats, Floats, Ints]:
    """The new places (brought to the old turn), and the old ones rising, with their numbers."""
    order = np.argsort(old)
    places, numbers = old[order], order
    if period is not None:
        new = places[0] + np.mod(new - places[0], period)
        places, numbers = np.append(places, places[0] + period), np.append(numbers, numbers[0])
    return new, places, numbers


def linear(old: Floats, new: Floats, period: float | None) -> Weights:
    """Of interpolation between centres; none outside of them."""
    new, places, numbers = _around(old, new, period)
    at = np.clip(np.searchsorted(places, new, side="right") - 1, 0, places.size - 2)
    share = (new - places[at]) / (places[at + 1] - places[at])
    share[np.abs(share) < _NOTHING], share[np.abs(share - 1) < _NOTHING] = 0.0, 1.0
    rows = np.flatnonzero((share >= 0) & (share <= 1))
    at, share = at[rows], share[rows]
    return Weights.of(new.size, old.size, [(rows, numbers[at], 1 - share), (rows, numbers[at + 1], share)])


def closest(old: Floats, new: Floats, period: float | None) -> Weights:
    """One for the nearest centre (the first of two), of those whose cell the new one is in."""
    new, places, numbers = _around(old, new, period)
    at = np.clip(np.searchsorted(places, new, side="right") - 1, 0, places.size - 2)
    below, above = np.abs(new - places[at]), np.abs(places[at + 1] - new)
    second = (above < below) | ((above == below) & (numbers[at + 1] < numbers[at]))
    nearest, apart = numbers[at + second], np.minimum(below, above)
    bounds = edges(old)
    inside = apart <= np.abs(np.diff(bounds))[nearest] / 2 + 1e-9
    inside |= (new > bounds.min()) & (new < bounds.max())
    rows = np.flatnonzero(inside)
    return Weights.of(new.size, old.size, [(rows, nearest[rows], np.ones(rows.size))])


def overlaps(old: Floats, new: Floats, period: float | None) -> Weights:
    """The share of each new cell that lies in each old one; ``old`` and ``new`` are edges."""
    (low, numbers), (bounds, cells) = _rising(old), _rising(new)
    turns = [0.0]
    if period is not None:
        first, last = (bounds[0] - low[-1]) / period, (bounds[-1] - low[0]) / period
        turns = (period * np.arange(np.floor(first), np.ceil(last) + 1)).tolist()
    parts = []
    for turn in turns:  # cut at all edges: each piece is in one cell of either kind, or in none
        cuts = np.unique(np.concatenate([low + turn, bounds]))
        middle, width = (cuts[1:] + cuts[:-1]) / 2, np.diff(cuts)
        i, j = np.searchsorted(bounds, middle) - 1, np.searchsorted(low + turn, middle) - 1
        both = (i >= 0) & (i < cells.size) & (j >= 0) & (j < numbers.size)
        i, j = i[both], j[both]
        parts.append((cells[i], numbers[j], width[both] / np.diff(bounds)[i]))
    return Weights.of(cells.size, numbers.size, parts)


def _rising(bounds: Floats) -> tuple[Floats, Ints]:
    """Edges that rise, and the numbers of the cells between them."""
    numbers = np.arange(bounds.size - 1)
    return (bounds, numbers) if bounds[-1] > bounds[0] else (bounds[::-1], numbers[::-1])


def edges(centres: Floats) -> Floats:
    """Edges of cells half way between centres, the outer ones as far out as in."""
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])
