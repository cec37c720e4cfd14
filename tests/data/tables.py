"""Tables of points, for tests."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

HEADER = ("task", "u", "v", "height")


def functions(count: int, points: int = 8, seed: int = 0) -> dict[str, list[tuple[float, float, float]]]:
    """Planes over two inputs, in units far from 0 and 1."""
    random = np.random.default_rng(seed)
    found = {}
    for number in range(count):
        u, v = random.uniform(100, 200, points), random.uniform(-3, 3, points)
        height = 1000 + random.normal(0, 1) * u + random.normal(0, 20) * v
        found[f"hill {number}"] = [
            tuple(round(float(x), 3) for x in point) for point in zip(u, v, height, strict=True)
        ]
    return found


def write_csv(path: Path, rows: Sequence[Sequence[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def write_table(
    path: Path, found: Mapping[str, Sequence[tuple[float, ...]]], splits: Mapping[str, str] | None = None
) -> Path:
    """One table of all tasks; its lines go through the tasks in turn."""
    lines = [[name, *point] for points in zip(*found.values(), strict=True) for name, point in
             zip(found, points, strict=True)]  # fmt: skip
    if splits is None:
        return write_csv(path, [HEADER, *lines])
    return write_csv(path, [(*HEADER, "split"), *([*line, splits[line[0]]] for line in lines)])
