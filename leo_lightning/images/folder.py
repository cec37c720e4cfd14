"""Images on disk: which there are, of which class, in which split.

Two forms are read. A tree has a folder per split and class; deeper folders belong to their class:

    ROOT/{train,val,test}/CLASS/IMAGE

Or tables name the images, as Ravi and Larochelle (ICLR 2017) published the splits of miniImageNet
(github.com/twitter-research/meta-learning-lstm): columns `filename`, `label`, paths from ROOT or ROOT/images:

    ROOT/{train,val,test}.csv    ROOT/images/IMAGE
"""

import csv
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int64

from leo_lightning.common.errors import InputError, printable
from leo_lightning.data.bank import listed
from leo_lightning.data.splits import SPLITS, check_disjoint

OnError = Literal["refuse", "skip"]
Report = Callable[[str], None]

SUFFIXES = frozenset([".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"])
COLUMNS = ("filename", "label")
REMOVE = "remove them"


@dataclass(frozen=True, eq=False)
class ImageSplit:
    """The images of one split, sorted by class and then by name.

    Attributes:
        folder: where they lie.
        names: path of every image from there, with `/`.
        labels: (n,), class of every image, 0 to C-1, in non-decreasing order.
        class_names: name of every class, sorted.
    """

    folder: Path
    names: tuple[str, ...]
    labels: Int64[np.ndarray, " n"]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def path(self, row: int) -> Path:
        """Where an image lies."""
        return self.folder / self.names[row]

    @cached_property
    def counts(self) -> Int64[np.ndarray, " C"]:
        """Number of images of every class."""
        return np.bincount(self.labels, minlength=len(self.class_names)).astype(np.int64)

    @classmethod
    def of(cls, folder: Path, images: Mapping[str, Iterable[str]]) -> "ImageSplit":
        """Sort the images of each class.

        Args:
            folder: where they lie.
            images: paths from there, by class.
        """
        classes = sorted(images)
        sorted_names = [sorted(images[name]) for name in classes]
        return cls(
            folder,
            tuple(name for names in sorted_names for name in names),
            np.repeat(np.arange(len(classes)), [len(names) for names in sorted_names]).astype(np.int64),
            tuple(classes),
        )

    def without(self, rows: Iterable[int]) -> "ImageSplit":
        """The split less some images.

        Raises:
            InputError: a class would have none left.
        """
        dropped = set(rows)
        images: dict[str, list[str]] = {name: [] for name in self.class_names}
        for row, (name, label) in enumerate(zip(self.names, self.labels, strict=True)):
            if row not in dropped:
                images[self.class_names[label]].append(name)
        for name, left in images.items():
            if not left:
                raise InputError(f"{self.folder}: no image of class {name!r} can be read; remove the class")
        return ImageSplit.of(self.folder, images)


def find_splits(root: Path, on_error: OnError, report: Report, advice: str = REMOVE) -> dict[str, ImageSplit]:
    """Find the images of all splits there are, as a tree or by tables.

    Args:
        root: the folder.
        on_error: of files that are no images: refuse them, or skip and report them.
        report: takes a line about what was skipped.
        advice: what can be done about files that are refused.

    Raises:
        InputError: there is no such folder, or nothing in it that is a split; a class has no images, or is in
            two splits; a table names a file that is not there; or there are files that are no images.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of images")
    tables = {split: root / f"{split}.csv" for split in SPLITS if (root / f"{split}.csv").is_file()}
    folders = {split: root / split for split in SPLITS if (root / split).is_dir()}
    if tables and folders:
        raise InputError(
            f"{root}: has tables ({listed(list(tables))}) and folders ({listed(list(folders))}) of splits; "
            "keep the one or the other"
        )
    if tables:
        splits = {split: _by_table(path, root, on_error, report, advice) for split, path in tables.items()}
    elif folders:
        splits = {split: find_classes(path, on_error, report, advice) for split, path in folders.items()}
    else:
        raise InputError(
            f"{root}: has neither folders train, val, test nor tables train.csv, val.csv, test.csv; "
            "move the folders of the classes into these"
        )
    check_disjoint({split: (str(root / split), images.class_names) for split, images in splits.items()})
    return splits


def find_classes(folder: Path, on_error: OnError, report: Report, advice: str = REMOVE) -> ImageSplit:
    """Find the images below the folders of classes.

    Raises:
        InputError: see `find_splits`.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of images")
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise InputError(f"{folder}: has no folders; put the images of each class into a folder of its name")
    strays = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    images = {}
    for path in classes:
        found = _files(path)
        images[path.name] = [name.relative_to(folder).as_posix() for name in found if is_image(name)]
        strays += [name for name in found if not is_image(name)]
        if not images[path.name]:
            raise InputError(f"{path}: holds no images ({', '.join(sorted(SUFFIXES))}); remove the folder")
    judge(folder, strays, "not images", on_error, report, advice)
    return ImageSplit.of(folder, images)


def find_images(folder: Path) -> tuple[str, ...]:
    """Paths of all images below a folder, from there, without classes.

    Raises:
        InputError: there are none.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in _files(folder) if is_image(path))
    if not names:
        raise InputError(f"{folder}: holds no images ({', '.join(sorted(SUFFIXES))})")
    return tuple(names)


def is_image(path: Path) -> bool:
    """Whether a file is an image by its name."""
    return path.suffix.lower() in SUFFIXES


def _files(folder: Path) -> list[Path]:
    """All files below a folder but hidden ones, whose names begin with a dot; links are followed, once."""
    found, seen = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(place, name) for name in sorted(names) if not name.startswith(".")]
    return found


def _by_table(table: Path, root: Path, on_error: OnError, report: Report, advice: str) -> ImageSplit:
    """The images that a table names."""
    folder = root / "images" if (root / "images").is_dir() else root
    images: dict[str, list[str]] = {}
    seen: set[str] = set()
    strays, missing = [], []
    for line, name, label in _rows(table):
        path = folder / name
        if not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root)):
            raise InputError(
                f"{table}, line {line}: {printable(name)!r} lies outside of {root}; mend the table"
            )
        if name in seen:
            raise InputError(f"{table}, line {line}: {printable(name)!r} for the second time; mend the table")
        seen.add(name)
        if not is_image(path):
            strays.append(path)
        elif not path.is_file():
            missing.append(path)
        else:
            images.setdefault(label, []).append(name)
    judge(table, missing, "not there", on_error, report, advice)
    judge(table, strays, "not images", on_error, report, advice)
    if not images:
        raise InputError(f"{table}: names no images; a line is FILENAME,LABEL")
    return ImageSplit.of(folder, images)


def _rows(table: Path) -> Iterable[tuple[int, str, str]]:
    """Line number, file name and label of each line of a table."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (lines.fieldnames or ())]
            if missing:
                raise InputError(
                    f"{table}: has no column {missing[0]!r}; the first line is {','.join(COLUMNS)}"
                )
            for row in lines:
                name, label = ((row[column] or "").strip() for column in COLUMNS)
                if not name or not label:
                    raise InputError(
                        f"{table}, line {lines.line_num}: lacks a {COLUMNS[bool(name)]}; mend it"
                    )
                yield lines.line_num, name, label
    except (UnicodeDecodeError, csv.Error):
        raise InputError(f"{table}: is no table in UTF-8; save it as CSV") from None


def judge(
    where: Path, bad: Sequence[Path], what: str, on_error: OnError, report: Report, advice: str
) -> None:
    """Refuse files, or report that they are skipped.

    Args:
        where: folder or table that they belong to.
        bad: the files.
        what: what they are: `not images`.
        on_error: refuse or skip.
        report: takes a line.
        advice: what can be done about them.

    Raises:
        InputError: there are some, and they are refused.
    """
    if not bad:
        return
    names = listed([os.path.relpath(path, where if where.is_dir() else where.parent) for path in bad], 20)
    if on_error == "refuse":
        raise InputError(f"{where}: {what}: {printable(names)}; {advice}")
    report(f"{where}: skipped, {what}: {names}")
