"""Episodes drawn one task at a time from lists, in plain Python: what the package's sampler must equal.

SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
"""

from collections.abc import Sequence

GOLDEN = 0x9E3779B97F4A7C15
MASK = 2**64 - 1
SPLIT_NUMBERS = {"train": 1, "val": 2, "test": 3}


def mix(x: int) -> int:
    """SplitMix64's finalizer."""
    x &= MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def draws(key: int, sizes: Sequence[int]) -> list[int]:
    """One whole number below each size: counter j of `key` scaled from 53 bits."""
    return [
        int((mix(key + (j + 1) * GOLDEN) >> 11) / 2**53 * size)  # a product of floats, as anywhere
        for j, size in enumerate(sizes)
    ]


def without_replacement(key: int, size: int, count: int) -> list[int]:
    """Draw r takes the r-th item of those that remain, which close ranks."""
    remaining = list(range(size))
    return [remaining.pop(r) for r in draws(key, range(size, size - count, -1))]


def episode(
    task: int,
    seed: int,
    split: str,
    class_rows: Sequence[Sequence[int]],
    way: int,
    shot: int,
    queries: int | None,
) -> tuple[list[list[int]], list[list[int]]]:
    """Rows of the support (N, K) and of the query (N, Q) of one task.

    Args:
        task: number of the task.
        seed: seed of the sequence of tasks.
        split: train, val or test.
        class_rows: the rows of every class.
        way: N.
        shot: K.
        queries: Q, or None for all that remain, in order.
    """
    state = 0
    for word in (seed, SPLIT_NUMBERS[split]):
        state = mix(state + word * GOLDEN + GOLDEN)
    key = mix(state + task * GOLDEN)
    support, query = [], []
    for slot, label in enumerate(without_replacement(mix(key + mix(0)), len(class_rows), way)):
        rows = list(class_rows[label])
        count = shot + (queries or 0)
        images = without_replacement(mix(key + mix(slot + 1)), len(rows), count)
        support.append([rows[image] for image in images[:shot]])
        if queries is None:
            query.append([row for image, row in enumerate(rows) if image not in images])
        else:
            query.append([rows[image] for image in images[shot:]])
    return support, query
