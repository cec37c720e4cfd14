"""Writes images into folders: all of a data set, or nothing."""

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from leo_lightning.common.errors import InputError, printable
from leo_lightning.common.file_lock import file_lock
from leo_lightning.common.files import cannot_write
from leo_lightning.images.sources.picture import Picture

Counts = dict[str, Counter[str]]
"""Number of images by split and class."""


def check_vacant(dst: Path) -> None:
    """Refuse to write to a `dst` that exists, with an InputError."""
    if os.path.lexists(dst):
        raise InputError(f"{dst}: already exists; remove it, or name another folder")


def write_tree(pictures: Iterable[Picture], dst: Path) -> Counts:
    """Write `dst`/SPLIT/CLASS/IMAGE.png.

    The images go into a folder beside `dst`, which is renamed when it is complete; one that a killed process
    has left is removed. A `/` in a class name
    becomes `__`, because a class is one folder: `Greek/character01` goes to `Greek__character01`.

    Returns:
        The number of images by split and class.

    Raises:
        InputError: a class is in two splits, cannot be the name of a folder, or shares a folder with another
            class; an image comes twice; or `dst` exists, cannot be written, or is being written by another
            process.
    """
    with whole_tree(dst) as tree:
        return _write_all(pictures, tree, dst)


@contextmanager
def whole_tree(dst: Path) -> Iterator[Path]:
    """Give a folder beside `dst` to fill; at the end it is renamed to `dst`, or removed if anything failed.

    Raises:
        InputError: `dst` exists, cannot be written, or is being written by another process.
    """
    check_vacant(dst)
    parent = next(folder for folder in dst.absolute().parents if folder.exists())
    try:
        with file_lock(parent / f".{dst.name}.lock", f"{dst}: another process writes it; wait for its end"):
            tree = parent / f".{dst.name}.part"
            try:
                shutil.rmtree(tree, ignore_errors=True)
                yield tree
                dst.parent.mkdir(parents=True, exist_ok=True)
                os.rename(tree, dst)
            finally:
                shutil.rmtree(tree, ignore_errors=True)
    except OSError as error:
        raise cannot_write(dst, error) from None


def _write_all(pictures: Iterable[Picture], tree: Path, dst: Path) -> Counts:
    owners: dict[str, tuple[str, str]] = {}  # class and split, by folder name
    counts: Counts = {}
    for split, class_name, image, png in pictures:
        name = class_name.replace("/", "__")
        folder = tree / split / name
        if name not in owners:
            if not name.isprintable() or not 0 < len(name.encode()) < 256 or name.startswith("."):
                shown = printable(class_name)
                raise InputError(f"{dst}: '{shown}' cannot be the name of a folder; rename the class")
            owners[name] = class_name, split
            folder.mkdir(parents=True)
        owner, owner_split = owners[name]
        if owner != class_name:
            raise InputError(
                f"{dst}: classes '{owner}' and '{class_name}' would share the folder '{name}'; rename one"
            )
        if owner_split != split:
            raise InputError(
                f"{dst}: class '{class_name}' would be in both '{owner_split}' and '{split}'; splits may not "
                "share classes"
            )
        try:
            with (folder / f"{image}.png").open("xb") as file:
                file.write(png)
        except FileExistsError:
            raise InputError(f"{dst}: image '{image}' of class '{class_name}' comes twice") from None
        counts.setdefault(split, Counter())[class_name] += 1
    return counts
