"""A folder of class folders that nobody has divided yet → a folder of splits, by links or copies."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from leo_lightning.common.errors import InputError, printable
from leo_lightning.data.image_names import class_folders
from leo_lightning.data.splits import SPLIT_NAMES
from leo_lightning.images.folder import ImageSplit, find_classes, skip_files
from leo_lightning.images.sources.tree import check_vacant, whole_tree


def is_undivided(root: Path) -> bool:
    """Tell whether a folder holds class folders with images, and no splits."""
    return bool(class_folders(root)) and not _splits(root)


def find_undivided(root: Path, depth: int | None, report: Callable[[str], None]) -> ImageSplit:
    """Find the images of all classes of a folder without splits.

    Args:
        root: the folder, of CLASS/IMAGE or GROUP/CLASS/IMAGE.
        depth: 1 or 2, the level of the class folders; None: 1, unless no image lies there.
        report: called with a line about files that are left out.

    Raises:
        InputError: the folder is divided already, has no classes, or its classes may lie on either level.
    """
    if root.is_dir() and (splits := _splits(root)):
        raise InputError(f"{root}: is divided already ({', '.join(splits)}); use this folder as it is")
    images = find_classes(root, partial(skip_files, report=report))
    if missing := [row for row in range(len(images)) if not images.path(row).is_file()]:
        skip_files(root, [images.path(row) for row in missing], "links to nothing", report)
        images = images.without(missing)
    deep = [name for name in images.names if name.count("/") > 1]
    if depth is None and len(deep) == len(images):
        if len(images.class_names) == 1:
            raise InputError(f"{root}: all images are in one folder; name it: {root / images.class_names[0]}")
        raise InputError(
            f"{root}: all images lie two folders deep, as {printable(deep[0])} does; add --class-depth 2 if "
            "the inner folders are the classes, or --class-depth 1 if the outer ones are"
        )
    if depth != 2:
        return images
    if flat := [name for name in images.names if name.count("/") < 2]:
        raise InputError(
            f"{root}: {printable(flat[0])} lies in no class folder of --class-depth 2; move it, "
            "or leave the flag out"
        )
    grouped: dict[str, list[str]] = {}
    for name in images.names:
        grouped.setdefault("/".join(name.split("/")[:2]), []).append(name)
    return ImageSplit.of(root, grouped)


def write_divided(
    images: ImageSplit,
    splits: Mapping[str, Sequence[str]],
    dst: Path,
    copy: bool,
    advance: Callable[[], object],
) -> dict[str, ImageSplit]:
    """Write `dst`/SPLIT/CLASS/IMAGE as hard links, or as copies: all, or nothing.

    A `/` in the name of a class becomes `__`, as when a data set is imported.

    Args:
        images: of all classes.
        splits: the classes of each split.
        dst: the folder, not there yet.
        copy: copy the files.
        advance: called after each file.

    Returns:
        The images of each split.

    Raises:
        InputError: `dst` exists, lies in the folder of images or cannot be written, or files cannot
            be linked.
    """
    check_outside(images.folder, dst)
    split_of = {name: split for split, names in splits.items() for name in names}
    folders: dict[str, str] = {}
    for name in split_of:
        if (other := folders.setdefault(name.replace("/", "__"), name)) != name:
            raise InputError(f"{dst}: classes {other!r} and {name!r} would share a folder; rename one")
    written: dict[str, dict[str, list[str]]] = {split: {} for split in splits}
    with whole_tree(dst) as tree:
        for row, name in enumerate(images.names):
            class_name = images.class_names[images.labels[row]]
            if class_name not in split_of:
                continue
            folder = class_name.replace("/", "__")
            place = folder + name[len(class_name) :]
            target = tree / split_of[class_name] / place
            target.parent.mkdir(parents=True, exist_ok=True)
            _put(Path(os.path.realpath(images.path(row))), target, copy, dst)
            written[split_of[class_name]].setdefault(folder, []).append(place)
            advance()
    return {split: ImageSplit.of(dst / split, classes) for split, classes in written.items()}


def check_outside(root: Path, dst: Path) -> None:
    """Raise an InputError if `dst` exists, or lies in the folder of images, where it would be a class."""
    check_vacant(dst)
    if dst.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{dst}: lies inside {root}, whose folders are classes; name a folder outside")


def _put(source: Path, target: Path, copy: bool, dst: Path) -> None:
    if copy:
        shutil.copy2(source, target)
        return
    try:
        os.link(source, target)
    except OSError as error:
        raise InputError(
            f"{dst}: files of {source.parent} cannot be linked there ({error.strerror}); add --copy, or name "
            "a folder of yours on the same disk"
        ) from None


def _splits(root: Path) -> list[str]:
    """Return the folders and tables that are splits: a folder with the name of one may also be a class."""
    names = [name for names in SPLIT_NAMES.values() for name in names]
    tables = [f"{name}.csv" for name in names if (root / f"{name}.csv").is_file()]
    return tables + [name for name in names if class_folders(root / name)]
