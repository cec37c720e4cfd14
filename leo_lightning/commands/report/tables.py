"""CSV files of a run, which may still be writing them."""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from leo_lightning.common.errors import InputError, one_line

Curve = tuple[np.ndarray, np.ndarray]  # steps taken, and the values measured then


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a table by column name; empty if the file is missing.

    A last line without its end is left out: the run is writing it, or was killed while writing.

    Raises:
        InputError: the file is damaged.
    """
    if not path.is_file():
        return []
    with damaged(path):
        text = path.read_bytes().decode()
        reader = csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline=""), strict=True)
        names = next(reader, [])
        rows = []
        for cells in reader:
            if len(cells) != len(names):
                raise ValueError(f"line {reader.line_num} has {len(cells)} cells, the header {len(names)}")
            rows.append(dict(zip(names, cells, strict=True)))
        return rows


def read_curves(path: Path) -> dict[str, Curve]:
    """Columns of a metrics.csv by name. The file numbers steps from 0; a curve counts the steps taken.

    Raises:
        InputError: the file is damaged.
    """
    curves: dict[str, tuple[list[int], list[float]]] = {}
    rows = read_rows(path)
    with damaged(path):
        for row in rows:
            step = int(row.pop("step")) + 1
            row.pop("epoch", None)
            for name, cell in row.items():
                if cell:
                    steps, values = curves.setdefault(name, ([], []))
                    steps.append(step)
                    values.append(float(cell))
    return {name: (np.array(steps), np.array(values)) for name, (steps, values) in curves.items()}


@contextmanager
def damaged(path: Path) -> Iterator[None]:
    """Name the file in which a cell is missing or is not a number.

    Raises:
        InputError: the reason.
    """
    try:
        yield
    except (csv.Error, KeyError, ValueError, RecursionError) as error:
        reason = f"no column {error}" if isinstance(error, KeyError) else one_line(error)
        raise InputError(f"{path}: is damaged ({reason}); restore the file, or move it away") from None


def thinned(curve: Curve, limit: int) -> Curve:
    """At most `limit` points of a curve: the smallest and the largest of each stretch, so that peaks stay."""
    steps, values = curve
    if len(steps) <= limit:
        return curve
    kept = {0, len(steps) - 1}
    for stretch in np.array_split(np.arange(len(steps)), limit // 2 - 1):
        finite = stretch[np.isfinite(values[stretch])]
        if len(finite):
            kept |= {int(finite[values[finite].argmin()]), int(finite[values[finite].argmax()])}
    points = sorted(kept)
    return steps[points], values[points]
