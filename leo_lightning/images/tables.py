"""Tables that name the images of a split, as CSV or as the JSON lists of CloserLookFewShot.

Ravi and Larochelle (ICLR 2017) published the splits of miniImageNet as CSV with the columns `filename` and
`label` (github.com/twitter-research/meta-learning-lstm). Chen et al. (ICLR 2019,
github.com/wyharveychen/CloserLookFewShot) write base.json, val.json and novel.json: `label_names`, and for
each image a path in `image_names` and a number in `image_labels`.
"""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from leo_lightning.common.errors import InputError, one_line, printable
from leo_lightning.data.labels import class_name

_TRIED = 100
"""Absolute paths that are looked for, before all are said to be missing."""
_FILES = (
    "filename",
    "file_name",
    "file",
    "filepath",
    "file_path",
    "path",
    "image",
    "image_path",
    "image_name",
    "image_id",
)
_LABELS = ("label", "labels", "class", "class_name", "category", "species", "target")


def table_rows(table: Path) -> Iterable[tuple[int, str, str]]:
    """Yield line (in JSON: number of the image), path and class of each image of a table.

    Raises:
        InputError: the table is not one, or lacks a column, a path or a class.
    """
    return _json_rows(table) if table.suffix == ".json" else _csv_rows(table)


def _csv_rows(table: Path) -> Iterator[tuple[int, str, str]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.DictReader(file)
            columns = [(name or "").strip() for name in lines.fieldnames or []]
            lines.fieldnames = columns
            if not columns:
                return
            files, labels = _column(table, columns, _FILES), _column(table, columns, _LABELS)
            for row in lines:
                name, label = (row.get(files) or "").strip(), class_name(row.get(labels))
                if not name or not label:
                    missing = labels if name else files
                    raise InputError(
                        f"{table}, line {lines.line_num}: has no {printable(missing)}; a table begins "
                        "filename,label"
                    )
                yield lines.line_num, name, label
    except (UnicodeDecodeError, csv.Error):
        raise InputError(f"{table}: is not a table in UTF-8; save it as CSV") from None


def _column(table: Path, columns: Sequence[str], synonyms: Sequence[str]) -> str:
    """Return the one column that has one of the names, whatever its case."""
    fitting = [name for name in columns if name.lower().replace(" ", "_") in synonyms]
    exact = [name for name in fitting if name == synonyms[0]]
    if len(fitting) != 1 and len(exact) != 1:
        found = printable(", ".join(fitting) if fitting else ", ".join(columns))
        problem = "has more than one" if fitting else "has no"
        raise InputError(
            f"{table}: {problem} column {' or '.join(synonyms)} ({found}); a table begins filename,label"
        )
    return (exact or fitting)[0]


def _json_rows(table: Path) -> Iterator[tuple[int, str, str]]:
    try:
        content = json.loads(table.read_text(encoding="utf-8-sig"))
        names, paths, labels = (content[key] for key in ("label_names", "image_names", "image_labels"))
        if not all(isinstance(part, list) for part in (names, paths, labels)) or len(paths) != len(labels):
            raise ValueError(f"{len(paths)} image_names and {len(labels)} image_labels")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else one_line(error)
        raise InputError(
            f"{table}: is not a list of label_names, image_names and image_labels ({reason}); fix it, or "
            "remove it"
        ) from None
    for number, (path, label) in enumerate(zip(paths, labels, strict=True)):
        known = type(label) is int and 0 <= label < len(names) and class_name(names[label])
        if not known or not isinstance(path, str) or not path:
            raise InputError(
                f"{table}, image {number}: has no path, or no label of label_names; fix the list"
            )
        yield number, path, class_name(names[label])


def located(names: Sequence[str], root: Path, folder: Path) -> list[str]:
    """Return paths of a table as paths from `folder`, where images lie.

    Absolute paths of another machine lose their beginning, as much as it takes for the rest to exist in the
    folder or in the root; the same beginning for all.
    """
    if not any(name.startswith("/") for name in names):
        return list(names)
    for name in names[:_TRIED]:
        parts = PurePosixPath(name).parts
        for cut in range(1, len(parts)):
            for place in dict.fromkeys((folder, root)):
                if (place / Path(*parts[cut:])).is_file():
                    return [_below(entry, parts[:cut], place, folder) for entry in names]
    return list(names)


def _below(name: str, beginning: Sequence[str], place: Path, folder: Path) -> str:
    """Return a path without its beginning, from `folder` if it is there; another path stays as it is."""
    parts = PurePosixPath(name).parts
    if parts[: len(beginning)] != tuple(beginning):
        return name
    return Path(os.path.relpath(place, folder), *parts[len(beginning) :]).as_posix()
