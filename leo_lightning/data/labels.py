"""Labels: from what people write for a class to its name, in the same way for every source."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from torch import Tensor

from leo_lightning.common.errors import InputError, one_line, without_controls

Labels = Sequence[int] | Sequence[str] | np.ndarray | Tensor
"""The class of every row: whole numbers, which sort as numbers, or names, which sort as text."""

_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,19}")
_FLOAT = re.compile(r"-?[0-9]{1,15}\.[0-9]*([eE][+-]?[0-9]{1,2})?")


def class_name(label: object) -> str:
    """Return the name of the class that a label means; empty if it means none.

    Text loses a byte-order mark and the blanks around it. A whole number has one name, however it is written:
    0.0 and numpy.savetxt's 0.000000000000000000e+00 are 0.
    """
    if isinstance(label, bytes):
        label = label.decode(errors="backslashreplace")  # so that different bytes stay different classes
    if isinstance(label, str):
        text = without_controls(label.replace("\ufeff", "").strip())
        if not _FLOAT.fullmatch(text) or not float(text).is_integer():
            return text
        label = float(text)
    if type(label) is int or (isinstance(label, float) and label.is_integer()):
        return str(int(label))
    return ""


def class_numbers(labels: Labels, source: str) -> tuple[tuple[str, ...], Int64[np.ndarray, " n"]]:
    """Return the class names in order, and the class of every row.

    Raises:
        InputError: a label is neither a whole number nor a name.
    """
    values = labels.tolist() if isinstance(labels, Tensor | np.ndarray) else labels
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    names = list(map(class_name, values))
    if "" in names:
        row = names.index("")
        raise InputError(
            f"{source}: the label of row {row} is {values[row]!r:.60}; labels must be whole numbers or names"
        )
    classes = set(names)
    ordered = sorted(classes, key=int if all(map(_WHOLE.fullmatch, classes)) else None)
    number = {name: i for i, name in enumerate(ordered)}
    return tuple(ordered), np.array([number[name] for name in names], np.int64)


def read_label_lines(path: Path) -> tuple[list[str], list[str] | None]:
    """Read a text file with a label per line, or with an image name, a comma and a label.

    Returns:
        The labels, and the image names if the file has them.

    Raises:
        InputError: the file is not text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
        rows = [row for line in lines for row in csv.reader([line])]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as text ({one_line(error)})") from None
    names = [row[0] for row in rows if len(row) == 2 and not row[1].startswith(" ")]
    # Names of classes may hold a comma, too, but then they repeat, or have a blank behind it.
    if not 0 < len(rows) == len(set(names)):
        return lines, None
    labels = [row[1] for row in rows]
    header = labels[0].lower() in ("class", "label")
    return labels[header:], names[header:]
