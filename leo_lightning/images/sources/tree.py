"""Writes images into folders: all of a data set, or nothing."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from leo_lightning.common.errors import InputError, printable
from leo_lightning.images.sources.picture import Picture

Counts = dict[str, dict[str, int]]
"""Images per class, per split."""


def check_vacant(dst: Path) -> None:
    """Check that a tree may be written to `dst`.

    Raises:
        InputError: there is something already.
    """
    if os.path.lexists(dst):
        raise InputError(f"{dst}: is there already; remove it, or name another folder")


def write_tree(pictures: Iterable[Picture], dst: Path) -> Counts:
    """Write `dst`/SPLIT/CLASS/IMAGE.png.

    The images are written into a folder beside `dst`, which takes its name when all of them are there. A `/`
    in the name of a class becomes `__`, because a class is one folder: `Greek/character01` lies in
    `Greek__character01`.

    Returns:
        The number of images of every class, by split.

    Raises:
        InputError: a class is in two splits, has no name that a folder can have, or shares it with another;
            an image is there twice; `dst` exists or cannot be written.
    """
    check_vacant(dst)
    there = next(folder for folder in (dst, *dst.absolute().parents) if folder.exists())
    try:
        work = TemporaryDirectory(prefix=f".{dst.name}.", suffix=".tmp", dir=there)
    except OSError as error:
        raise _cannot_write(dst, error) from None
    with work as name:
        tree = Path(name) / "tree"
        counts = _write_all(pictures, tree, dst)
        try:
            dst.parent.mkdir(parents=True, exist_ok=True)
            os.rename(tree, dst)
        except OSError as error:
            raise _cannot_write(dst, error) from None
    return counts


def _write_all(pictures: Iterable[Picture], tree: Path, dst: Path) -> Counts:
    folders: dict[str, Path] = {}  # by class
    owners: dict[str, str] = {}  # classes, by the name of the folder
    counts: dict[str, Counter[str]] = {}
    for split, class_name, image, png in pictures:
        try:
            if class_name not in folders:
                folders[class_name] = tree / split / _folder_name(class_name, owners, dst)
                folders[class_name].mkdir(parents=True)
            elif folders[class_name].parent.name != split:
                raise InputError(
                    f"{dst}: class '{printable(class_name)}' would be in both "
                    f"'{folders[class_name].parent.name}' and '{split}'; splits may not share classes"
                )
            with (folders[class_name] / f"{image}.png").open("xb") as file:
                file.write(png)
        except FileExistsError:
            raise InputError(
                f"{dst}: image '{printable(image)}' of class '{printable(class_name)}' is there twice"
            ) from None
        except OSError as error:
            raise _cannot_write(dst, error) from None
        counts.setdefault(split, Counter())[class_name] += 1
    return {split: dict(of_split) for split, of_split in counts.items()}


def _folder_name(class_name: str, owners: dict[str, str], dst: Path) -> str:
    """Return the name of the folder of a class, which no other may have."""
    name = class_name.replace("/", "__")
    if not name.isprintable() or not 0 < len(name.encode()) < 256 or name.startswith("."):
        raise InputError(f"{dst}: '{printable(class_name)}' cannot be the name of a folder; rename the class")
    owner = owners.setdefault(name, class_name)
    if owner != class_name:
        raise InputError(
            f"{dst}: classes '{printable(owner)}' and '{printable(class_name)}' would share the folder "
            f"'{printable(name)}'; rename one"
        )
    return name


def _cannot_write(dst: Path, error: OSError) -> InputError:
    return InputError(
        f"{dst}: cannot be written ({error.strerror or error}); make room, or name another folder"
    )
