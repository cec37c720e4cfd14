"""Arrays sorted by class already, and names of classes beside their numbers."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leo_lightning.common.errors import InputError, printable
from leo_lightning.data.importers.names import EMBEDDINGS, KNOWN, LABELS, SETS
from leo_lightning.data.labels import Labels, class_name, class_numbers


def rows_of(value: Any, where: str) -> Tensor | np.ndarray:
    """Return embeddings, or a list of them, as an array."""
    if isinstance(value, Tensor | np.ndarray):
        return value
    try:
        if value and all(isinstance(row, Tensor) for row in value):
            return torch.stack(list(value))
        return np.asarray(value, np.float32)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise InputError(f"{where}: the embeddings are not rows of numbers, all of one length") from None


def is_by_class(content: Mapping[Any, object]) -> bool:
    """Return whether a dict holds the rows of each class under its name or number."""
    return (
        bool(content)
        and not {*content} & {*EMBEDDINGS, *LABELS}
        and not all(key in KNOWN for key in content)
        and all(isinstance(key, str | int) for key in content)
        and all(isinstance(rows, Tensor | np.ndarray | list | tuple) for rows in content.values())
    )


def stacked(content: Mapping[Any, Any], where: str) -> dict[str, object]:
    """Put the rows of each class below each other, and label them with its name.

    Raises:
        InputError: the rows of a class are not a table of numbers, or not as long as those of another; or the
            names are not those of classes.
    """
    keys = [class_name(key) for key in content]
    if {*keys} <= {*SETS} or all(re.fullmatch(r"arr_\d+", key) for key in keys):
        raise InputError(
            f"{where}: holds {', '.join(map(repr, keys[:3]))}, which do not name embeddings, labels or "
            f"classes; save one split per file, as '{EMBEDDINGS[0]}' and '{LABELS[0]}'"
        )
    if len({*keys}) != len(keys):
        raise InputError(f"{where}: two classes have the same name; give each its own")
    tables: list[np.ndarray | Tensor] = []
    labels: list[str] = []
    for key, value in content.items():
        rows = rows_of(value, f"{where}: class {printable(str(key))!r}")
        if rows.ndim != 2 or 0 in rows.shape or (tables and rows.shape[1] != tables[0].shape[1]):
            raise InputError(
                f"{where}: has no '{EMBEDDINGS[0]}' (nor another name of them), and "
                f"'{printable(str(key))}' has shape {tuple(rows.shape)}; in a file of one array per class, "
                "each must be one row of numbers per image, all of one length"
            )
        tables.append(rows)
        labels += [class_name(key)] * len(rows)
    if all(isinstance(table, Tensor) for table in tables):
        return {"embeddings": torch.cat([torch.as_tensor(table) for table in tables]), "labels": labels}
    return {"embeddings": np.concatenate([np.asarray(table) for table in tables]), "labels": labels}


def is_numbered(labels: Labels, count: int, where: str) -> bool:
    """Return whether labels are numbers of this many classes."""
    numbered, _ = class_numbers(labels, where)
    return len(numbered) == count and all(name.isdecimal() for name in numbered)


def named_labels(
    labels: Labels, class_names: Sequence[object], where: str, report: Callable[[str], None]
) -> Labels:
    """Replace numbers of classes by their names; labels that are names stay.

    Raises:
        InputError: a number has no name, or two classes have one name.
    """
    numbered, rows = class_numbers(labels, where)
    if not all(name.isdecimal() for name in numbered):
        return labels
    numbers = [int(name) for name in numbered]
    names = [class_name(name) for name in class_names]
    if len({*names}) != len(names) or "" in names:
        raise InputError(f"{where}: two class names are equal or one is empty; give each class its own")
    first = int(min(numbers) >= 1 and max(numbers) == len(names))
    if max(numbers) - first >= len(names):
        raise InputError(
            f"{where}: labels run from {min(numbers)} to {max(numbers)}, and there are {len(names)} class "
            "names; give a name for every number from 0 on, or leave the names out"
        )
    if min(numbers) > 0:
        report(
            f"{where}: labels run from {min(numbers)} to {max(numbers)}; the first of {len(names)} class "
            f"names is taken for label {first}"
        )
    of_class = [names[number - first] for number in numbers]
    return [of_class[row] for row in rows.tolist()]
