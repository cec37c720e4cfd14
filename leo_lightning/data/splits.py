"""A folder of feature files: train, val and test, which share no class."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from leo_lightning.common.errors import InputError
from leo_lightning.data.bank import FeatureBank, listed
from leo_lightning.data.feature_file import IMPORT_COMMAND, load_bank, save_bank

SPLITS = ("train", "val", "test")
EXTRACT_COMMAND = "python -m leo_lightning features extract"
UNFINISHED = ".extract"
"""Folder of an extraction that is not finished, among the features."""


def split_path(root: Path, split: str) -> Path:
    """Return where the feature file of `split` lies under `root`."""
    return root / f"{split}.safetensors"


def present_splits(root: Path) -> list[str]:
    """Return the splits that lie under `root`."""
    return [split for split in SPLITS if split_path(root, split).is_file()]


def load_split(root: Path, split: str) -> FeatureBank:
    """Read one split of a folder of feature files.

    Raises:
        InputError: the folder or the split is missing (the message lists the splits that are there), or the
            file is not a good feature file.
    """
    if split not in SPLITS:
        raise InputError(f"'{split}' is not a split; choose one of {', '.join(SPLITS)}")
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of features; make it with `{IMPORT_COMMAND} {root}`")
    present = present_splits(root)
    if not present and any((root / name).exists() for one in SPLITS for name in (one, f"{one}.csv")):
        raise InputError(
            f"{root}: holds images, not features; make these with `{EXTRACT_COMMAND} --images {root} --out …`"
        )
    if not present and (root / UNFINISHED).is_dir():
        raise InputError(
            f"{root}: holds an unfinished extraction; go on with it by the same `{EXTRACT_COMMAND}` command"
        )
    if split not in present:
        raise InputError(
            f"{root}: has no split '{split}' (splits there: {', '.join(present) or 'none'}); "
            f"make it with `{IMPORT_COMMAND} {root}`"
        )
    return load_bank(split_path(root, split))


def check_splits(banks: Mapping[str, FeatureBank]) -> None:
    """Check that splits fit together: one embedding size, and no class in two.

    Few-shot learning is tested on classes never seen.

    Raises:
        InputError: names the sizes, or the classes, and the two splits.
    """
    first = next(iter(banks), "")
    for bank in banks.values():
        if bank.embedding_size != banks[first].embedding_size:
            raise InputError(
                f"{bank.source}: embeddings have {bank.embedding_size} numbers, those of '{first}' have "
                f"{banks[first].embedding_size}; use one backbone for all splits"
            )
    check_disjoint({split: (bank.source, bank.class_names) for split, bank in banks.items()})


def check_disjoint(classes: Mapping[str, tuple[str, Sequence[str]]]) -> None:
    """Check that no class is in two splits.

    Args:
        classes: by split, what messages call it, and the names of its classes.

    Raises:
        InputError: names the classes and the two splits.
    """
    seen: dict[str, str] = {}
    for split, (source, names) in classes.items():
        shared = [name for name in names if name in seen]
        if shared:
            other = seen[shared[0]]
            shared = [name for name in shared if seen[name] == other]
            what = "class" if len(shared) == 1 else "classes"
            raise InputError(
                f"{source}: {what} {listed(shared)} in both '{other}' and '{split}'; "
                "splits may not share classes, so give different classes different names"
            )
        seen.update(dict.fromkeys(names, split))


def union(train: FeatureBank, val: FeatureBank) -> FeatureBank:
    """Return the bank of the classes of both, those of `train` first. It lies in memory.

    Raises:
        InputError: the embeddings differ in size, or a class is in both.
    """
    check_splits({"train": train, "val": val})
    both_named = train.image_names is not None and val.image_names is not None
    return FeatureBank(
        embeddings=torch.cat([train.embeddings, val.embeddings]),
        labels=torch.cat([train.labels, val.labels + train.num_classes]),
        class_names=train.class_names + val.class_names,
        image_names=(train.image_names or ()) + (val.image_names or ()) if both_named else None,
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

    They are moved into `root` when all are complete. The splits are taken one at a time, so a generator needs
    memory for one only.

    Args:
        banks: pairs of split name and bank.
        root: the folder; made if missing. Other files in it are left alone.
        overwrite: replace the splits that are there. All of them go: old and new splits never mix.

    Returns:
        The splits, read back from their files.

    Raises:
        InputError: `root` holds splits already, or two splits share a class or differ in embedding size.
    """
    check_vacant(root, overwrite)
    there = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    try:
        with TemporaryDirectory(prefix=f".{root.name}.", suffix=".tmp", dir=there) as name:
            work = Path(name)
            saved = _save_all(banks, work, root)
            root.mkdir(parents=True, exist_ok=True)
            for split in SPLITS:
                if split in saved:
                    os.replace(split_path(work, split), split_path(root, split))
                else:
                    split_path(root, split).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{root}: cannot be written ({error.strerror or error})") from None
    return {split: load_split(root, split) for split in saved}


def check_vacant(root: Path, overwrite: bool = False) -> None:
    """Check that splits may be written into `root`.

    Raises:
        InputError: `root` is a file, or holds splits and `overwrite` is not set.
    """
    if root.exists() and not root.is_dir():
        raise InputError(f"{root}: is a file; name a folder to write the features into")
    present = present_splits(root)
    if present and not overwrite:
        raise InputError(
            f"{root}: already holds features ({', '.join(present)}); remove them, or name another folder "
            "(import and extract replace them with --overwrite)"
        )


def _save_all(banks: Iterable[tuple[str, FeatureBank]], work: Path, root: Path) -> list[str]:
    """Write every bank into `work`, on its way to `root`, checking each against those before it."""
    saved: dict[str, FeatureBank] = {}
    for split, bank in banks:
        check_splits(saved | {split: bank})
        save_bank(bank, split_path(work, split), split_path(root, split))
        # Read back, it lies on disk; the arrays it was made from can go before the next split is read.
        saved[split] = load_bank(split_path(work, split))
        del bank
    return list(saved)
