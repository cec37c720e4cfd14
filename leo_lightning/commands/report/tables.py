"""Curves of a run, from its metrics.csv."""

from pathlib import Path

import numpy as np

from leo_lightning.common.csv_files import damaged, read_rows

Curve = tuple[np.ndarray, np.ndarray]  # steps taken, and the values measured then


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
