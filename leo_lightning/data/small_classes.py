"""Classes with too few images for the tasks, left out where a user asks for it."""

from collections.abc import Mapping
from dataclasses import replace

from leo_lightning.data.bank import FeatureBank, listed


def without_small(
    banks: Mapping[str, FeatureBank], needed: Mapping[str, int]
) -> tuple[dict[str, FeatureBank], dict[str, list[str]]]:
    """Leave out the classes from which no task can be drawn.

    Args:
        banks: the splits.
        needed: images that a task takes of a class, by split.

    Returns:
        The splits, and the names of the classes that are left out of each. A split without a large enough
        class is as it was, and is refused when tasks are drawn from it.
    """
    kept, left_out = dict(banks), {}
    for split, bank in banks.items():
        large = {
            name for name, count in zip(bank.class_names, bank.counts, strict=True) if count >= needed[split]
        }
        small = [name for name in bank.class_names if name not in large]
        if not large:
            kept[split] = replace(bank, source=f"{bank.source} (no class is large enough)")
        elif small:
            left_out[split] = small
            source = f"{bank.source} without {len(small)} small classes"
            kept[split] = replace(bank.only(large), source=source)
    return kept, left_out


def described(split: str, small: list[str], needed: int) -> str:
    """Name the classes that are left out of a split, in a line."""
    noun = "class" if len(small) == 1 else "classes"
    return f"{split}: left out {len(small)} {noun} of fewer than {needed} images: {listed(small, 20)}"
