"""Classes that nobody has divided yet, and their division into train, val and test."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from leo_lightning.common.errors import InputError, printable
from leo_lightning.data.bank import listed

LEAST_TRAIN = 2
"""Training classes that a division must leave."""
_SHARE, _NUMBER = re.compile(r"(\d+(?:\.\d+)?)%|(0?\.\d+|0\.0*)"), re.compile(r"\d+")


class Division(NamedTuple):
    """The classes of each split, and those that are left out."""

    splits: dict[str, list[str]]
    """Sorted names by split, in the order train, val, test; a split without classes is not there."""
    small: list[str]
    """Classes with too few images."""


def divide(counts: Mapping[str, int], val: str, test: str, seed: int, least: int, where: str) -> Division:
    """Divide classes: named ones first, then random ones, which depend on seed and names only.

    Args:
        counts: number of images of each class.
        val: share (20% or 0.2) or number (5) of the classes that validate, or their names or groups,
            separated by commas; the group of `Greek/alpha` is `Greek`.
        test: the same for the classes that test. All others train.
        seed: another seed, another division.
        least: classes with fewer images are left out.
        where: the source in messages.

    Raises:
        InputError: a value is none of these, a class is asked for twice, or too few classes train.
    """
    kept = sorted(name for name, count in counts.items() if count >= least)
    asked = {"val": val.strip(), "test": test.strip()}
    chosen = {split: _named(split, value, kept, where) for split, value in asked.items()}
    if both := sorted({*chosen["val"]} & {*chosen["test"]}):
        raise InputError(f"--val and --test: class {listed(both)} is in both; splits may not share classes")
    free = [name for name in kept if name not in {*chosen["val"], *chosen["test"]}]
    free.sort(key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    for split in ("test", "val"):
        if (size := _size(asked[split], len(kept))) is not None:
            chosen[split], free = free[:size], free[size:]
            if len(chosen[split]) < size:
                free = []
    if len(free) < LEAST_TRAIN:
        enough = len(kept) < len(counts)
        of = f"{len(kept)} classes" + (f" with {least} images or more" if enough else "")
        raise InputError(
            f"{where}: {of} leave {len(free)} to train on, which takes at least {LEAST_TRAIN}; add classes, "
            f"or lower --val or --test (0 leaves a split out){', or --min-images' if enough else ''}"
        )
    splits = {"train": sorted(free), **{split: sorted(names) for split, names in chosen.items() if names}}
    return Division(splits, sorted({*counts} - {*kept}))


def _size(value: str, classes: int) -> int | None:
    """Return the number of classes that a share or number asks for: at least 1, unless it is 0."""
    if match := _SHARE.fullmatch(value):
        share = float(match[1]) / 100 if match[1] else float(match[2])
        return max(1, round(share * classes)) if share else 0
    return int(value) if _NUMBER.fullmatch(value) else None


def _named(split: str, value: str, names: Sequence[str], where: str) -> list[str]:
    """Return the classes that are named; none for a share or number."""
    if _size(value, 1) is not None:
        return []
    found: list[str] = []
    for entry in [value] if value in names else value.split(","):
        matching = [name for name in names if entry.strip() in (name, name.partition("/")[0])]
        if not matching or not entry.strip():
            shown = listed(sorted({name.partition("/")[0] for name in names}), 20)
            raise InputError(
                f"--{split} {printable(value)!r}: is neither a share (20% or 0.2) nor a number of classes, "
                f"and {where} has no class {printable(entry.strip())!r} to divide; there are "
                f"{printable(shown)}"
            )
        found += matching
    return sorted(set(found))
