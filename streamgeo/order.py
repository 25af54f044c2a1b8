"""Order and randomness as pure functions of (seed, epoch, position). Never reads a pixel, keeps no list."""

from __future__ import annotations

import numpy as np

_MASK = (1 << 64) - 1
_ROUNDS = 6


def _mix(value: int) -> int:
    """The finaliser of splitmix64 (Steele, Lea & Flood 2014, OOPSLA): one 64-bit number to another."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def permuted(position: int, size: int, seed: int, epoch: int) -> int:
    """Where ``position`` goes in the random permutation of ``range(size)`` that (seed, epoch) names.

    A Feistel network over the next even power of two, walked until it lands inside (Black & Rogaway 2002,
    CT-RSA): a permutation by construction, in constant memory.

    >>> sorted(permuted(i, 10, seed=0, epoch=0) for i in range(10)) == list(range(10))
    True
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    key = _mix(_mix(seed & _MASK) ^ epoch)
    value = position
    while True:
        left, right = value >> half, value & mask
        for number in range(_ROUNDS):
            left, right = right, left ^ (_mix(key ^ (right << 8) ^ number) & mask)
        value = (left << half) | right
        if value < size:
            return value


def generator(seed: int, epoch: int, index: int, step: int) -> np.random.Generator:
    """The generator of one random step for one sample: a function of its four numbers and nothing else."""
    return np.random.default_rng((seed & _MASK, epoch, index, step))
