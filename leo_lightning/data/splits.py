"""A folder of feature files: train, val and test, which share no class."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import torch

from leo_lightning.common.errors import InputError
from leo_lightning.common.file_lock import file_lock
from leo_lightning.common.files import part_of, whole_file
from leo_lightning.common.program import program
from leo_lightning.data.bank import FeatureBank, listed
from leo_lightning.data.feature_file import load_bank, save_bank
from leo_lightning.data.image_names import class_folders

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {"train": ("train", "base"), "val": ("val", "valid", "validation"), "test": ("test", "novel")}
"""Names of the splits in other people's files; base and novel as in `CloserLookFewShot` and its followers."""
ARRAY_ENDINGS = (
    ".npz", ".npy", "_embeddings.npy", "_features.npy", ".pt", ".pth", ".pkl", ".plk", ".pickle", ".h5",
    ".hdf5", ".mat", ".parquet", ".tsv", ".csv",
)  # fmt: skip
"""Endings of files of arrays, after the name of a split."""
DIFFERENT_NAMES = "give different classes different names"
UNFINISHED = ".extract"
"""Folder of an extraction that is not finished, among the features."""


def split_path(root: Path, split: str) -> Path:
    """Return where the feature file of `split` lies under `root`."""
    return root / f"{split}.safetensors"


def present_splits(root: Path) -> list[str]:
    """Return the splits that lie under `root`."""
    return [split for split in SPLITS if split_path(root, split).is_file()]


def load_splits(root: Path) -> dict[str, FeatureBank]:
    """Read the splits of a folder, which are of one data set even if another process replaces them meanwhile.

    Raises:
        InputError: there is no split, one cannot be read (see `load_split`), or they were replaced meanwhile.
    """
    with unchanged(root):
        return {split: load_split(root, split) for split in present_splits(root) or SPLITS[:1]}


@contextmanager
def unchanged(root: Path) -> Iterator[None]:
    """Raise an InputError in the end if the splits of a folder are not the files that they were before."""
    before = _identities(root)
    yield
    if _identities(root) != before:
        raise InputError(f"{root}: features were replaced while they were read; run the same command again")


def _identities(root: Path) -> list[tuple[int, int]]:
    paths = [split_path(root, split) for split in present_splits(root)]
    return [(status.st_ino, status.st_mtime_ns) for path in paths for status in [path.stat()]]


def load_split(root: Path, split: str) -> FeatureBank:
    """Read one split of a folder of feature files.

    Raises:
        InputError: the folder or the split is missing, or the file is not a good feature file.
    """
    present = present_splits(root)
    if split in present:
        return load_bank(split_path(root, split))
    problem = f"has no split '{split}' (splits there: {', '.join(present) or 'none'})"
    command = f"{program()} features import SRC {root}"
    if not root.is_dir():
        relative = "" if root.is_absolute() else " (relative to the current folder)"
        raise InputError(
            f"{root}: no such folder of features{relative}; name another with --data.root, "
            f"or make it with `{command}`"
        )
    if not present and _holds_arrays(root):
        problem, command = "holds arrays, not features", f"{program()} features import {root} DST"
    elif not present and _holds_images(root):
        problem = "holds images, not features"
        command = f"{program()} features extract --images {root} --out …"
    elif not present and class_folders(root):
        problem = "holds images that are not divided into train, val and test"
        command = (
            f"{program()} images divide {root} DST` and `{program()} features extract --images DST --out …"
        )
    elif not present and (root / UNFINISHED).is_dir():
        problem, command = "holds an unfinished extraction", f"{program()} features extract … --out {root}"
    raise InputError(f"{root}: {problem}; make features with `{command}`")


def _holds_images(root: Path) -> bool:
    """Return whether a folder holds a split of images that can be embedded."""
    names = [name for names in SPLIT_NAMES.values() for name in names]
    return any((root / f"{name}{ending}").exists() for name in names for ending in ("", ".csv", ".json"))


def _holds_arrays(root: Path) -> bool:
    """Return whether a folder holds a split that can be imported; a CSV file may list images as well."""
    names = [name for names in SPLIT_NAMES.values() for name in names]
    return any((root / f"{name}{ending}").is_file() for name in names for ending in ARRAY_ENDINGS[:-1])


def check_splits(banks: Mapping[str, FeatureBank]) -> None:
    """Raise an InputError if two splits differ in embedding size or share a class, or one is all equal."""
    for bank in banks.values():
        bank.check_varied()
    sizes = {split: bank.embedding_size for split, bank in banks.items()}
    for split, size in sizes.items():
        first = next(iter(sizes))
        if size != sizes[first]:
            raise InputError(
                f"{banks[split].source}: embeddings have {size} numbers, those of '{first}' have "
                f"{sizes[first]}; use one backbone for all splits"
            )
    classes = {split: (bank.source, bank.class_names) for split, bank in banks.items()}
    check_disjoint(
        classes,
        numbered="give different classes different numbers; if each split counts from 0, import with "
        "--separate-labels (separate_labels=True in Python)",
    )


def separated(bank: FeatureBank, split: str) -> FeatureBank:
    """Return a bank whose class names begin with its split: other splits may have the same labels."""
    return replace(bank, class_names=tuple(f"{split}/{name}" for name in bank.class_names))


def check_disjoint(classes: Mapping[str, tuple[str, Sequence[str]]], numbered: str = DIFFERENT_NAMES) -> None:
    """Check that no class is in two splits: few-shot learning is tested on classes never seen in training.

    Args:
        classes: by split, its name in messages and the names of its classes.
        numbered: the remedy where the names of all shared classes are numbers.

    Raises:
        InputError: names the classes and the two splits.
    """
    for (first, (_, names)), (second, (source, others)) in combinations(classes.items(), 2):
        if shared := sorted({*names} & {*others}):
            noun = "class" if len(shared) == 1 else "classes"
            remedy = numbered if all(name.isdecimal() for name in shared) else DIFFERENT_NAMES
            raise InputError(
                f"{source}: {noun} {listed(shared)} in both '{first}' and '{second}'; "
                f"splits may not share classes, so {remedy}"
            )


def union(train: FeatureBank, val: FeatureBank) -> FeatureBank:
    """Return the classes of both splits, `train` first, as one bank in memory.

    Raises:
        InputError: the embeddings differ in size, or a class is in both.
    """
    check_splits({"train": train, "val": val})
    return FeatureBank(
        embeddings=torch.cat([train.embeddings, val.embeddings]),
        labels=torch.cat([train.labels, val.labels + train.num_classes]),
        class_names=train.class_names + val.class_names,
        image_names=None,
        provenance={
            key: "+".join(dict.fromkeys(bank.provenance.get(key, "unknown") for bank in (train, val)))
            for key in train.provenance | val.provenance
        },
        source=f"{train.source} + {val.source}",
    )


def save_splits(
    banks: Iterable[tuple[str, FeatureBank]], root: Path, overwrite: bool = False
) -> dict[str, FeatureBank]:
    """Write the splits of a data set into `root`: all of them, or nothing.

    When all are on the disk the old splits are removed, and only then the new ones get their names: a kill
    may leave some of a data set, but never splits of two. The splits are taken one at a time, so a generator
    needs memory for one only.

    Args:
        banks: pairs of split name and bank.
        root: the folder; made if missing. Other files in it are left alone.
        overwrite: replace all splits in `root`.

    Returns:
        The splits, read back from their files.

    Raises:
        InputError: `root` holds splits already, cannot be written, or is being written by another process; a
            split's embeddings are all equal, or two splits share a class or differ in embedding size.
    """
    check_vacant(root, overwrite)
    created = [folder for folder in (root, *root.absolute().parents) if not folder.exists()]
    saved: dict[str, FeatureBank] = {}
    with ExitStack() as stack:
        for folder in reversed(created):
            stack.callback(_remove_if_empty, folder)
        root.mkdir(parents=True, exist_ok=True)
        stack.enter_context(claim(root))
        check_vacant(root, overwrite)  # once more: another process may just have finished
        for split in SPLITS:  # left by a killed process
            part_of(split_path(root, split)).unlink(missing_ok=True)
        for split, bank in banks:
            check_splits(saved | {split: bank})
            part = stack.enter_context(whole_file(split_path(root, split)))
            save_bank(bank, part)
            # Read back, it lies on disk; its arrays can be freed before the next split is read.
            saved[split] = load_bank(part)
            del bank
        remove_splits(root)
    return {split: load_split(root, split) for split in saved}


def claim(root: Path) -> AbstractContextManager[None]:
    """Keep other processes from writing features into `root`; for these it raises an InputError."""
    held = f"{root}: another import or extraction is at work here; wait for its end, or name another folder"
    return file_lock(root / ".lock", held)


def remove_splits(root: Path) -> None:
    """Remove the splits in `root`, to put those of another data set in their place."""
    for split in SPLITS:
        split_path(root, split).unlink(missing_ok=True)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def check_vacant(root: Path, overwrite: bool = False) -> None:
    """Raise an InputError if `root` is a file, or holds splits that may not be overwritten."""
    if root.is_file():
        raise InputError(f"{root}: is a file; name a folder to write the features into")
    present = present_splits(root)
    if present and not overwrite:
        raise InputError(
            f"{root}: already holds features ({', '.join(present)}); remove them, or name another folder "
            "(import and extract replace them with --overwrite)"
        )
