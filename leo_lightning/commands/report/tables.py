"""CSV files of a run, read while they may still be written, and by no means believed."""

import csv
import io
import re
from pathlib import Path

import numpy as np

from leo_lightning.common.errors import InputError, printable


def read_rows(path: Path, needed: str = "") -> list[dict[str, str]]:
    """The lines of a table by the names of its columns; none if there is no such file.

    A last line without its end is left out: a run may be writing it, or was killed at it.

    Args:
        path: the file.
        needed: a column that must be there.

    Raises:
        InputError: names the first line that is wrong.
    """
    if not path.is_file():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    try:
        reader = csv.reader(io.StringIO(whole.decode("utf-8"), newline=""), strict=True)
    except UnicodeDecodeError:
        raise _damaged(path, 1, "the file is no text") from None
    rows: list[dict[str, str]] = []
    try:
        names = next(reader, [])
        if content and needed not in ["", *names]:
            raise _damaged(path, 1, f"has no column {needed!r}")
        if len(set(names)) != len(names):
            raise _damaged(path, 1, "names a column twice")
        for cells in reader:
            if len(cells) != len(names):
                raise _damaged(path, reader.line_num, f"has {len(cells)} cells in place of {len(names)}")
            rows.append(dict(zip(names, cells, strict=True)))
    except csv.Error as error:
        raise _damaged(path, reader.line_num, str(error)) from None
    return rows


def number(path: Path, line: int, cell: str) -> float:
    """A cell that must be a number, maybe none that is finite.

    Raises:
        InputError: it is none.
    """
    try:
        return float(cell)
    except ValueError:
        raise _damaged(path, line, f"{cell!r} is no number") from None


def whole_number(path: Path, line: int, cell: str) -> int:
    """A cell that must count something.

    Raises:
        InputError: it does not.
    """
    if not re.fullmatch(r"[0-9]{1,15}", cell):
        raise _damaged(path, line, f"{cell!r} is no whole number")
    return int(cell)


def finite(value: object) -> float | None:
    """What JSON has, if it is a finite number; else None."""
    return float(value) if isinstance(value, int | float) and abs(value) < 1e300 else None


Curve = tuple[np.ndarray, np.ndarray]
"""Steps that were taken, and what was measured then."""


def read_curves(path: Path) -> dict[str, Curve]:
    """All columns of a metrics.csv by name. It counts steps from 0; here they are how many were taken.

    Raises:
        InputError: it is damaged.
    """
    rows = read_rows(path, "step")
    found: dict[str, tuple[list[int], list[float]]] = {}
    for line, row in enumerate(rows, start=2):
        step = whole_number(path, line, row["step"]) + 1
        for name, cell in row.items():
            if cell and name not in ("step", "epoch"):
                steps, values = found.setdefault(name, ([], []))
                steps.append(step)
                values.append(number(path, line, cell))
    return {name: (np.array(steps), np.array(values)) for name, (steps, values) in found.items()}


def thinned(curve: Curve, most: int) -> Curve:
    """At most so many points of a long curve: the least and the greatest of each stretch, so that peaks stay.

    Args:
        curve: sorted by step.
        most: points that may be left.
    """
    steps, values = curve
    if len(steps) <= most:
        return curve
    kept = {0, len(steps) - 1}
    for part in np.array_split(np.arange(len(steps)), most // 2 - 1):
        finite = part[np.isfinite(values[part])]
        if len(finite):
            kept |= {int(finite[values[finite].argmin()]), int(finite[values[finite].argmax()])}
    at = sorted(kept)
    return steps[at], values[at]


def _damaged(path: Path, line: int, what: str) -> InputError:
    return InputError(f"{path}: line {line}: {printable(what)}; restore the file, or move it away")
