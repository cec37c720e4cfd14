"""Tables of points: functions that somebody has measured, a task each, from CSV files."""

import csv
import hashlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from leo_lightning.common.errors import InputError, disk_line, one_line, printable
from leo_lightning.common.web_page import refuse_page
from leo_lightning.data.bank import listed
from leo_lightning.data.division import divide
from leo_lightning.data.hashes import SPLIT_KEYS

SPLIT = "split"
"""Name of the column that divides the tasks."""


class PointTasks(NamedTuple):
    """The points of all tasks, and the tasks of each split."""

    columns: tuple[str, ...]
    """Names of the inputs, then of the value."""
    points: dict[str, Float64[Tensor, "_points E"]]
    """Points of each task, in the order of the names."""
    splits: dict[str, list[str]]
    """Sorted names by split; a split without tasks is not there."""
    divided_by: str
    """Origin of the splits: folders, a column, or chance."""


def read_tasks(
    root: Path,
    task: str,
    inputs: Sequence[str] | None,
    target: str,
    val_share: float,
    test_share: float,
    seed: int,
) -> PointTasks:
    """Read one table of all tasks, or a folder with a table for each.

    Args:
        root: a CSV file; a folder of them; or a folder with folders train, val and test of them.
        task: column with the name of the task, of a table of all tasks.
        inputs: columns to predict from; None: all except task, split and value.
        target: column to predict.
        val_share: share of the tasks that validate, where neither folders nor a column tell.
        test_share: the same for the tasks that test.
        seed: another seed, another division.

    Raises:
        InputError: says which file, line and column.
    """
    columns = None if inputs is None else (*inputs, target)
    rows: dict[str, list[list[float]]] = {}
    splits: dict[str, str] = {}
    files: dict[str, Path] = {}
    folder = root.is_dir()
    for split, path in _files(root):
        header, lines = _table(path)
        if folder and task in header:
            raise InputError(
                f"{path}: has a column '{printable(task)}', and a file of a folder is one task; name "
                "the file itself with data.root, or remove the column"
            )
        if columns is None:
            columns = (*(name for name in header if name not in (task, SPLIT, target)), target)
            if len(columns) == 1:
                raise InputError(f"{path}: has no column to predict from; add one, such as 'x'")
        _check_columns(path, header, [*columns, *([] if folder else [task])])
        if inputs is None and (more := {*header} - {*columns, task, SPLIT}):
            raise InputError(
                f"{path}: has a column {listed(sorted(more))} that the first file lacks; give all files the "
                "same columns, or name those to use with data.inputs"
            )
        places = [header.index(name) for name in columns]
        if folder and files.setdefault(path.stem, path) != path:
            raise InputError(f"{path}: task '{path.stem}' is also in {files[path.stem]}; rename one of them")
        for line, cells in lines:
            where = f"{path}: line {line}"
            name = path.stem if folder else cells[header.index(task)].strip()
            if not name:
                raise InputError(f"{where}: the column '{printable(task)}' is empty; name the task")
            mine = split or (_split(cells[header.index(SPLIT)], where) if SPLIT in header else "")
            if splits.setdefault(name, mine) != mine:
                raise InputError(
                    f"{where}: task '{printable(name)}' is in two splits, {splits[name] or 'none'} and "
                    f"{mine or 'none'}; splits may not share tasks"
                )
            numbers = [_number(cells[place], where, header[place]) for place in places]
            rows.setdefault(name, []).append(numbers)
    assert columns is not None
    if "" in (given := {*splits.values()}) and len(given) > 1:
        raise InputError(f"{root}: only some files have a column '{SPLIT}'; give it to all or none")
    points = {name: torch.tensor(rows[name], dtype=torch.float64) for name in sorted(rows)}
    if "" not in given:
        by_split = {split: sorted(n for n in splits if splits[n] == split) for split in SPLIT_KEYS}
        how = "by folder" if folder and (root / next(iter(given))).is_dir() else f"by column '{SPLIT}'"
        return PointTasks(columns, points, {s: names for s, names in by_split.items() if names}, how)
    counts = {name: len(rows[name]) for name in points}
    try:
        division = divide(counts, f"{100 * val_share:.6f}%", f"{100 * test_share:.6f}%", seed, 0, str(root))
    except InputError:
        raise InputError(
            f"{root}: {len(points)} tasks are too few to divide into train, val and test; add tasks, or "
            "lower data.val_share and data.test_share"
        ) from None
    how = f"by chance, {val_share:g} and {test_share:g} of all for val and test, seed {seed}"
    return PointTasks(columns, points, division.splits, how)


def fingerprint(tasks: PointTasks, split: str) -> str:
    """Return a checksum of the tasks of a split: names, columns and points."""
    digest = hashlib.sha256(repr(tasks.columns).encode())
    for name in tasks.splits.get(split, []):
        digest.update(repr((name, len(tasks.points[name]))).encode())
        digest.update(tasks.points[name].numpy().tobytes())
    return digest.hexdigest()


def _files(root: Path) -> list[tuple[str, Path]]:
    """Return the tables and the split that their folder names, empty without such folders."""
    if root.is_file():
        return [("", root)]
    if not root.is_dir():
        raise InputError(f"{root}: no such file or folder; name a CSV file, or a folder of them")
    found = [(split, path) for split in SPLIT_KEYS for path in _tables(root / split)]
    loose = _tables(root)
    if found and loose:
        raise InputError(
            f"{loose[0]}: lies beside the folders {', '.join(dict(found))}; move it into one of them"
        )
    if not (found or loose):
        raise InputError(f"{root}: has no CSV file; name a CSV file, or a folder with one for each task")
    return found or [("", path) for path in loose]


def _tables(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    paths = sorted(folder.iterdir())
    return [path for path in paths if path.suffix.lower() == ".csv" and not path.name.startswith(".")]


def _table(path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Return the names of the columns, and the lines with their numbers."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, cells) for cells in reader if cells]
    except OSError as error:
        raise InputError(disk_line(error)) from None
    except (csv.Error, ValueError) as error:
        refuse_page(path, str(path))
        raise InputError(f"{path}: cannot be read as a table ({one_line(error)}); save it as CSV") from None
    if len(lines) < 2:
        raise InputError(f"{path}: has no points; it needs a line with the names of columns, then points")
    header = [name.strip() for name in lines[0][1]]
    for number, cells in lines[1:]:
        if len(cells) != len(header):
            refuse_page(path, str(path))
            raise InputError(
                f"{path}: line {number} has {len(cells)} cells, and the first line {len(header)}; repair it"
            )
    return header, iter(lines[1:])


def _check_columns(path: Path, header: list[str], needed: list[str]) -> None:
    if twice := [name for name in header if header.count(name) > 1]:
        raise InputError(f"{path}: two columns have the name '{printable(twice[0])}'; give each its own")
    for name in needed:
        if name not in header:
            raise InputError(
                f"{path}: has no column '{printable(name)}', only {printable(listed(header, 10))}; rename a "
                "column, or set data.task, data.inputs or data.target"
            )


def _split(cell: str, where: str) -> str:
    split = cell.strip()
    if split not in SPLIT_KEYS:
        raise InputError(f"{where}: {SPLIT} is '{printable(cell)}'; it must be train, val or test")
    return split


def _number(cell: str, where: str, column: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(
            f"{where}: column '{printable(column)}' is '{printable(cell)}', not a finite number; correct it, "
            "or remove the line"
        )
    return number
