"""Splits from arrays in memory, in place of a folder of feature files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from leo_lightning.common.errors import InputError
from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.labels import Labels
from leo_lightning.data.splits import check_splits, separated

Arrays: TypeAlias = tuple[Tensor | np.ndarray | Sequence[Sequence[float]], Labels]
"""Embeddings (n, E) and the class of every row."""
ROOT = "<arrays in Python>"
"""A checkpoint's root of features that were never in files."""


def check_root(root: Path) -> None:
    """Raise an InputError for the root of features that were arrays."""
    if str(root) == ROOT:
        raise InputError(
            "the features of this checkpoint were arrays in Python (EpisodeDataModule.from_arrays), which it "
            "does not hold; name a folder of features with --data.root"
        )


def array_splits(arrays: Mapping[str, Any], separate_labels: bool) -> dict[str, FeatureBank]:
    """Return the splits that are given.

    Args:
        arrays: pairs of embeddings and labels by split; None for one that is missing.
        separate_labels: equal labels in two splits are different classes.

    Raises:
        InputError: the arrays do not fit together, or two splits share a class.
    """
    banks = {}
    for split, pair in arrays.items():
        if pair is None:
            continue
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InputError(f"{split} is not a pair; give embeddings and labels as {split}=(x, y)")
        x, y = (part if isinstance(part, Tensor) else np.asarray(part) for part in pair)
        bank = FeatureBank.from_arrays(x, y, source=f"{split} (arrays)")
        banks[split] = separated(bank, split) if separate_labels else bank
    if not banks:
        raise InputError("there are no arrays; give train=(x, y), val=(x, y) and test=(x, y)")
    check_splits(banks)
    return banks
