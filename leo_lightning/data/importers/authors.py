"""The LEO authors' features: pickles in `embeddings/{data set}/{crop}/`, zipped or unzipped."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from leo_lightning.common.errors import InputError, one_line, printable
from leo_lightning.data.importers.pickles import load_pickle
from leo_lightning.data.importers.sources import (
    ZIP_ERRORS,
    Arrays,
    Source,
    arrays_of,
    open_member,
    sha256_of,
    zip_members,
)

UNKNOWN = "unknown"

_CROPS = ("center", "multiview")
_PICKLE = re.compile(r"(train|val|test)_embeddings\.pkl")
_DEPTH = 4  # folders looked into: embeddings/miniImageNet/center/*.pkl, and one around them

_Set = dict[str, Source]
"""The splits of one data set and crop."""


def folder_pickles(src: Path) -> dict[str, Source]:
    """Return the authors' pickles under `src`, by path relative to it."""
    return {
        path.relative_to(src).as_posix(): Source(
            str(path), path.name, partial(_read, partial(path.open, "rb"), str(path))
        )
        for depth in range(_DEPTH + 1)
        for path in sorted(src.glob("*/" * depth + "*_embeddings.pkl"))
        if _PICKLE.fullmatch(path.name)
    }


def zip_pickles(src: Path) -> dict[str, Source]:
    """Return the authors' pickles in an archive, by member name."""
    return {
        member: Source(
            f"{src}:{printable(member)}",
            f"{src.name}:{printable(member)}",
            partial(_read, partial(open_member, src, member), f"{src}:{printable(member)}"),
        )
        for member in zip_members(src)
        if _PICKLE.fullmatch(member.split("/")[-1])
    }


def choose_set(
    pickles: Mapping[str, Source], src: Path, dataset: str | None, crop: str | None
) -> tuple[str, str, _Set]:
    """Return the data set, crop and splits of the one set that the options leave."""
    sets = _sets(pickles, src)
    matching = [
        key
        for key in sets
        if (dataset is None or key[0] in (dataset, UNKNOWN)) and (crop is None or key[1] in (crop, UNKNOWN))
    ]
    if len(matching) != 1:
        present = printable(", ".join("/".join(key) for key in sorted(sets)))
        problem = "holds several sets of features" if matching else "does not hold what was asked for"
        raise InputError(f"{src}: {problem}; choose with --dataset and --crop from: {present}")
    found = matching[0]
    return dataset or found[0], crop or found[1], sets[found]


def _sets(pickles: Mapping[str, Source], src: Path) -> dict[tuple[str, str], _Set]:
    """Group pickles by data set and crop, which are the names of the folders they lie in."""
    sets: dict[tuple[str, str], _Set] = {}
    # Given .../miniImageNet/center itself, its own name and its parent's tell what the relative paths do not.
    above = src.resolve().parts[-2:] if src.is_dir() else ()
    for path, source in pickles.items():
        *folders, name = (*above, *path.split("/"))
        crop = folders[-1] if folders and folders[-1] in _CROPS else UNKNOWN
        dataset = folders[-2] if crop != UNKNOWN and len(folders) > 1 else UNKNOWN
        splits = sets.setdefault((dataset, crop), {})
        split = name.split("_")[0]
        if split in splits:
            raise InputError(
                f"{src}: holds the {split} split of {printable(dataset)}/{crop} twice; remove one, or name "
                "its folder"
            )
        splits[split] = source
    return sets


def _read(open_stream: Callable[[], AbstractContextManager[io.BufferedIOBase]], where: str) -> Arrays:
    """Read one pickle: a dict of keys, labels and embeddings."""
    try:
        with open_stream() as stream:
            sha256 = sha256_of(stream)  # reads to the end, where a zip member has its checksum
        with open_stream() as stream:
            content = load_pickle(stream, where)
    except InputError:
        raise
    except ZIP_ERRORS as error:
        raise InputError(f"{where}: cannot be read ({one_line(error)}); copy or download it again") from None
    if not isinstance(content, dict):
        raise InputError(
            f"{where}: holds a {type(content).__name__}, not a dict of keys, labels and embeddings"
        )
    return arrays_of(content, where, sha256)


def split_keys(
    labels: Sequence[int] | Sequence[str] | np.ndarray | Tensor, keys: Sequence[str], where: str
) -> tuple[Sequence[int] | Sequence[str] | np.ndarray | Tensor, Sequence[str], str | None]:
    """Take the image names out of the authors' keys, `train-n01532829-n01532829_00000005.jpg`.

    The class is what the labels say. The authors' code takes it from the key, so where labels put several of
    the keys' classes together the keys win; where they contradict each other the file is damaged.

    Returns:
        Labels, image names, and a remark if the labels are not those of the file. Names that are no such keys
        come back as they are.
    """
    parts = [key.split("-", 2) for key in keys]
    if len(keys) != len(labels) or not all(
        len(part) == 3 and part[2].split("_")[0] == part[1] for part in parts
    ):
        return labels, keys, None
    names = [part[2] for part in parts]
    values = labels.tolist() if isinstance(labels, Tensor | np.ndarray) else labels
    label_of: dict[str, object] = {}
    for row, (part, label) in enumerate(zip(parts, values, strict=True)):
        if label_of.setdefault(part[1], label) != label:
            raise InputError(
                f"{where}: row {row} is labelled {label!r:.99}, but its key is {keys[row]!r:.99} and other "
                f"images of {part[1]!r:.99} are labelled {label_of[part[1]]!r:.99}; the file is damaged"
            )
    if len(set(label_of.values())) == len(label_of):
        return labels, names, None
    remark = f"{where}: labels are coarser than the classes in the keys; taking the classes from the keys"
    return [part[1] for part in parts], names, remark
