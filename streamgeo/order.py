"""Order and randomness as pure functions of (seed, epoch, position). Never reads a pixel, keeps no list.

What neighbouring positions share is worked out for a run of them at once and remembered: a run is short, whatever
the length of the epoch.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_MASK = (1 << 64) - 1
_ROUNDS = 6
_RUN = 1024  # positions that are permuted at once
WINDOW = 16  # blocks that a local order mixes at a time


def _mix(value: int) -> int:
    """The finaliser of splitmix64 (Steele, Lea & Flood 2014, OOPSLA): one 64-bit number to another."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The same for many numbers."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def permuted(position: int, size: int, seed: int, epoch: int) -> int:
    """Where ``position`` goes in the random permutation of ``range(size)`` that (seed, epoch) names.

    A Feistel network over the next even power of two, walked until it lands inside (Black & Rogaway 2002,
    CT-RSA): a permutation by construction, in constant memory.

    >>> sorted(permuted(i, 10, seed=0, epoch=0) for i in range(10)) == list(range(10))
    True
    """
    run, at = divmod(position, _RUN)
    return _permuted_run(run, size, seed, epoch)[at]


@lru_cache(maxsize=64)
def _permuted_run(run: int, size: int, seed: int, epoch: int) -> list[int]:
    values = np.arange(run * _RUN, min((run + 1) * _RUN, size), dtype=np.uint64)
    half, key = _network(size, seed, epoch)
    outside = np.ones(values.shape, bool)
    while outside.any():
        values[outside] = _rounds(values[outside], half, key, range(_ROUNDS))
        outside = values >= np.uint64(size)
    numbers: list[int] = values.tolist()
    return numbers


def _network(size: int, seed: int, epoch: int) -> tuple[int, int]:
    """Bits of a half, and the key."""
    return max(1, ((size - 1).bit_length() + 1) // 2), _mix(_mix(seed & _MASK) ^ epoch)


def _rounds(values: NDArray[np.uint64], half: int, key: int, rounds: range) -> NDArray[np.uint64]:
    mask, bits = np.uint64((1 << half) - 1), np.uint64(half)
    left, right = values >> bits, values & mask
    for number in rounds:
        mixed = _mixed(np.uint64(key) ^ (right << np.uint64(8)) ^ np.uint64(number))
        left, right = right, left ^ (mixed & mask)
    return (left << bits) | right


def position_of(index: int, size: int, seed: int, epoch: int) -> int:
    """The position that :func:`permuted` sends to ``index``: the network run backwards."""
    half, key = _network(size, seed, epoch)
    mask, value = (1 << half) - 1, index
    while True:
        left, right = value >> half, value & mask
        for number in reversed(range(_ROUNDS)):
            left, right = right ^ (_mix(key ^ (left << 8) ^ number) & mask), left
        value = (left << half) | right
        if value < size:
            return value


def localized(position: int, size: int, seed: int, epoch: int, block: int) -> int:
    """Where ``position`` goes in a random order that keeps neighbours near one another.

    Blocks of ``block`` consecutive indices are permuted, and their samples are mixed within windows of
    ``WINDOW`` blocks. What a block shares (the chunks of its patches) is so wanted in one stretch of the epoch.

    >>> sorted(localized(i, 100, seed=0, epoch=0, block=8) for i in range(100)) == list(range(100))
    True
    """
    blocks = -(-size // block)
    full = WINDOW * block
    missing = blocks * block - size  # of the last block, which stands anywhere
    short = _short_window(blocks, seed, epoch) if missing else blocks
    after = position >= (short + 1) * full - missing
    window, at = divmod(position + missing if after else position, full)
    return _window(window, size, seed, epoch, block)[at]


@lru_cache(maxsize=64)
def _short_window(blocks: int, seed: int, epoch: int) -> int:
    return position_of(blocks - 1, blocks, seed, epoch) // WINDOW


@lru_cache(maxsize=16)
def _window(window: int, size: int, seed: int, epoch: int, block: int) -> list[int]:
    blocks = -(-size // block)
    slots = range(window * WINDOW, min((window + 1) * WINDOW, blocks))
    starts = [permuted(slot, blocks, seed, epoch) * block for slot in slots]
    indices = np.concatenate([np.arange(start, min(start + block, size)) for start in starts])
    numbers: list[int] = generator(seed, epoch, window, -1).permutation(indices).tolist()
    return numbers


def generator(seed: int, epoch: int, index: int, step: int) -> np.random.Generator:
    """The generator of one random step for one sample: a function of its four numbers and nothing else."""
    return np.random.default_rng((seed & _MASK, epoch, index, step & _MASK))
