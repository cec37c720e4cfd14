"""Images on disk: their classes and their splits.

Two layouts are read. A tree has a folder per split and class; deeper folders belong to their class:

    ROOT/{train,val,test}/CLASS/IMAGE

Or tables name the images, by paths from ROOT or ROOT/images; `tables` describes them:

    ROOT/{train,val,test}.csv    ROOT/{base,val,novel}.json    ROOT/images/IMAGE
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int64

from leo_lightning.common.errors import InputError, check_utf8, printable
from leo_lightning.common.program import program
from leo_lightning.data.bank import listed
from leo_lightning.data.image_names import OTHER_PHOTOS, SUFFIXES, class_folders, is_image
from leo_lightning.data.splits import SPLIT_NAMES, check_disjoint
from leo_lightning.images.tables import located, table_rows

OnError = Literal["refuse", "skip"]
OnBadFiles = Callable[[Path, Sequence[Path], str], None]
"""Called with a folder or table, its files that cannot be used, and the reason: see `refuse_files`."""

_MISSING = "missing"


@dataclass(frozen=True, eq=False)
class ImageSplit:
    """The images of one split, sorted by class and then by name.

    Attributes:
        folder: where they are.
        names: path of each image from there, with `/`.
        labels: (n,), class of each image, 0 to C-1, in non-decreasing order.
        class_names: name of each class, sorted.
    """

    folder: Path
    names: tuple[str, ...]
    labels: Int64[np.ndarray, " n"]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def path(self, row: int) -> Path:
        """Path of an image."""
        return self.folder / self.names[row]

    @cached_property
    def counts(self) -> Int64[np.ndarray, " C"]:
        """Number of images of each class."""
        return np.bincount(self.labels, minlength=len(self.class_names)).astype(np.int64)

    @classmethod
    def of(cls, folder: Path, images: Mapping[str, Iterable[str]]) -> "ImageSplit":
        """Sort images in a folder, given as paths from there by class."""
        rows = [(name, label) for label, key in enumerate(sorted(images)) for name in sorted(images[key])]
        labels = np.array([label for _, label in rows], np.int64)
        return cls(folder, tuple(name for name, _ in rows), labels, tuple(sorted(images)))

    def without(self, rows: Sequence[int]) -> "ImageSplit":
        """Leave out some images; raise an InputError if a class would have none left."""
        kept = np.delete(np.arange(len(self)), rows)
        images = replace(self, names=tuple(self.names[row] for row in kept), labels=self.labels[kept])
        for name, count in zip(images.class_names, images.counts, strict=True):
            if count == 0:
                raise InputError(f"{self.folder}: no image of class {name!r} can be read; remove the class")
        return images


def refuse_files(where: Path, files: Sequence[Path], reason: str, flag: str | None = None) -> None:
    """Refuse files of a folder or table that cannot be used; `flag` would skip them.

    Raises:
        InputError: names them.
    """
    advice = "add them, or remove their lines" if reason == _MISSING else "remove them"
    advice += "" if flag is None else f", or leave them out: {flag} skip"
    raise InputError(f"{where}: {reason}: {printable(_listed(where, files))}; {advice}")


def skip_files(where: Path, files: Sequence[Path], reason: str, report: Callable[[str], None]) -> None:
    """Report that files of a folder or table are skipped."""
    report(f"{where}: skipped, {reason}: {_listed(where, files)}")


def ignore_files(where: Path, files: Sequence[Path], reason: str, report: Callable[[str], None]) -> None:
    """Report how many files of each kind are ignored, and which of them are photos all the same."""
    report(f"{where}: ignored, {reason}{_instead(files)}")


def _instead(files: Sequence[Path]) -> str:
    """Say what files there are by their endings, and which of these to convert."""
    endings = Counter(printable(path.suffix.lower() or "without an ending") for path in files)
    kinds = "".join(f", {count:,} {ending}" for ending, count in endings.most_common(10)).removeprefix(", ")
    photos = ", ".join(sorted(endings.keys() & OTHER_PHOTOS))
    return (f": {kinds}" if kinds else "") + (f"; save {photos} as JPEG to use them" if photos else "")


def _listed(where: Path, files: Sequence[Path]) -> str:
    return listed([os.path.relpath(path, where if where.is_dir() else where.parent) for path in files], 20)


def find_splits(root: Path, on_bad_files: OnBadFiles = refuse_files) -> dict[str, ImageSplit]:
    """Find the images of all splits that `root` has, in folders or by tables.

    `on_bad_files` is called with files that are not images, and files in a table that do not exist.

    Raises:
        InputError: there is no such folder, or no split in it, or one twice; a class has no images, or is in
            two splits.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of images")
    tables, folders = _splits(root, ".csv"), _splits(root, "")
    if not tables and not folders:  # beside folders, a JSON file may be anything
        tables = _splits(root, ".json")
    if not tables and not folders and class_folders(root):
        raise InputError(
            f"{root}: is not divided into train, val and test; divide its classes with "
            f"`{program()} images divide {root} DST`"
        )
    if bool(tables) == bool(folders):
        raise InputError(
            f"{root}: must have either folders train, val, test of class folders, or tables train.csv, "
            f"val.csv, test.csv; it has {'both' if tables else 'neither'}"
        )
    splits = {split: _read_table(path, root, on_bad_files) for split, path in tables.items()}
    splits |= {split: find_classes(path, on_bad_files) for split, path in folders.items()}
    paths = tables or folders
    check_disjoint({split: (str(paths[split]), images.class_names) for split, images in splits.items()})
    return splits


def _splits(root: Path, ending: str) -> dict[str, Path]:
    """Return the folders or tables of the splits that are there, under any of their names."""
    paths = {}
    for split, names in SPLIT_NAMES.items():
        present = [path for name in names if (path := root / f"{name}{ending}").exists()]
        if len(present) > 1:
            shown = ", ".join(path.name for path in present)
            raise InputError(f"{root}: holds the {split} split more than once ({shown}); leave one of them")
        if present:
            paths[split] = present[0]
    return paths


def find_classes(folder: Path, on_bad_files: OnBadFiles = refuse_files) -> ImageSplit:
    """Find the images in the class folders below a folder.

    Raises:
        InputError: there is no such folder, or no class folder in it, or a class has no images.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of images")
    visible = [path for path in folder.iterdir() if not path.name.startswith(".")]
    classes = sorted(path for path in visible if path.is_dir())
    if not classes:
        raise InputError(f"{folder}: has no class folders; put the images of each class into its own folder")
    strays = [path for path in visible if path.is_file()]
    images = {}
    for path in classes:
        files = _files(path)
        images[path.name] = [file.relative_to(folder).as_posix() for file in files if is_image(file)]
        strays += [file for file in files if not is_image(file)]
        if not images[path.name]:
            raise InputError(
                f"{path}: holds no images{_instead(files)} ({', '.join(sorted(SUFFIXES))}); remove the folder"
            )
    for reason, images_too in (("not images", False), ("in no class folder", True)):
        if files := [path for path in strays if is_image(path) == images_too]:
            on_bad_files(folder, files, reason)
    return ImageSplit.of(folder, images)


def find_images(folder: Path, on_bad_files: OnBadFiles = refuse_files) -> tuple[str, ...]:
    """Find all images below a folder, whatever their classes; return their paths from there.

    Raises:
        InputError: there are none.
    """
    files = _files(folder)
    names = sorted(path.relative_to(folder).as_posix() for path in files if is_image(path))
    others = [path for path in files if not is_image(path)]
    if not names:
        raise InputError(f"{folder}: holds no images{_instead(others)} ({', '.join(sorted(SUFFIXES))})")
    if others:
        on_bad_files(folder, others, "not images")
    return tuple(names)


def _files(folder: Path) -> list[Path]:
    """Return all files below a folder except hidden ones; links are followed, but no folder is read twice."""
    files, visited = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in visited:
            folders.clear()
            continue
        visited.add(real)
        for name in (place, *names):
            check_utf8(name)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [Path(place, name) for name in sorted(names) if not name.startswith(".")]
    return files


def _read_table(table: Path, root: Path, on_bad_files: OnBadFiles) -> ImageSplit:
    """Find the images that a table names."""
    folder = root / "images" if (root / "images").is_dir() else root
    images: dict[str, list[str]] = {}
    seen: set[str] = set()
    strays, missing = [], []
    rows = list(table_rows(table))
    names = located([name for _, name, _ in rows], root, folder)
    entry = "line" if table.suffix == ".csv" else "image"
    for (line, _, label), name in zip(rows, names, strict=True):
        path = folder / name
        inside = Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root))
        if not inside and (path.exists() or not name.startswith("/")):
            raise InputError(
                f"{table}, {entry} {line}: {printable(name)!r} is outside of {root}; fix the table"
            )
        if name in seen:
            raise InputError(f"{table}, {entry} {line}: {printable(name)!r} comes twice; fix the table")
        seen.add(name)
        if not is_image(path):
            strays.append(path)
        elif not path.is_file():
            missing.append(path)
        else:
            images.setdefault(label, []).append(name)
    if missing and not images:
        raise InputError(
            f"{table}: none of its images exists, such as {printable(str(missing[0]))}; put "
            "them there, or fix the table"
        )
    for files, reason in ((missing, _MISSING), (strays, "not images")):
        if files:
            on_bad_files(table, files, reason)
    if not images:
        raise InputError(f"{table}: names no images; its lines are filename,label")
    return ImageSplit.of(folder, images)
