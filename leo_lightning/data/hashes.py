"""Random numbers without a state: hashes of counters (SplitMix64; Steele, Lea and Flood, OOPSLA 2014)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, UInt64
from numpy import ndarray

SPLIT_KEYS = {"train": 1, "val": 2, "test": 3}
_GOLDEN = 0x9E3779B97F4A7C15
_WORD = 0xFFFFFFFFFFFFFFFF


def mix(x: UInt64[ndarray, "*s"]) -> UInt64[ndarray, "*s"]:
    """Apply SplitMix64's output function, a bijection on 64-bit words whose output bits look independent."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def fold(*words: int) -> int:
    """Mix several integers into one 64-bit word; their order matters."""
    state = 0
    for word in words:  # `mix` on Python's integers: an array of one number would take ten times as long
        state = (state + word * _GOLDEN + _GOLDEN) & _WORD
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & _WORD
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & _WORD
        state ^= state >> 31
    return state


def fold_tasks(tasks: Sequence[int] | ndarray, *words: int) -> UInt64[ndarray, " B"]:
    """Mix each task number with the words that all tasks have in common into one word."""
    return mix(np.uint64(fold(*words)) + np.asarray(tasks, np.uint64) * np.uint64(_GOLDEN))


def uniform(key: UInt64[ndarray, "*s"], count: int) -> Float64[ndarray, "*s count"]:
    """Return `count` numbers in [0, 1) per key; a longer run begins with the shorter one."""
    counters = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    return (mix(key[..., None] + counters) >> np.uint64(11)) * 2.0**-53
