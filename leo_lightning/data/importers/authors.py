"""The LEO authors' features: pickles in `embeddings/{data set}/{crop}/`, zipped or unzipped."""

import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
from torch import Tensor

from leo_lightning.common.errors import InputError, one_line, printable
from leo_lightning.common.files import checksum_of
from leo_lightning.data.bank import UNKNOWN
from leo_lightning.data.importers.pickles import load_pickle
from leo_lightning.data.importers.sources import ZIP_ERRORS, Arrays, Source, arrays_of, check_inflation
from leo_lightning.data.labels import Labels

_CROPS = ("center", "multiview")
_PICKLE = re.compile(r"(train|val|test)_embeddings\.pkl")
_DEPTH = 4  # folders looked into: embeddings/miniImageNet/center/*.pkl, and one around them


def authors_sets(src: Path) -> dict[tuple[str, str], dict[str, Source]]:
    """Return the authors' pickles in a folder or archive by data set and crop, then by split.

    Data set and crop are the names of the folders that hold the pickles.
    """
    # Given .../miniImageNet/center itself, its own name and its parent's tell what the paths in it do not.
    above = src.resolve().parts[-2:] if src.is_dir() else ()
    sets: dict[tuple[str, str], dict[str, Source]] = {}
    for path in _paths(src):
        *folders, name = (*above, *path.split("/"))
        if match := _PICKLE.fullmatch(name):
            crop = folders[-1] if folders and folders[-1] in _CROPS else UNKNOWN
            dataset = folders[-2] if crop != UNKNOWN and len(folders) > 1 else UNKNOWN
            splits = sets.setdefault((dataset, crop), {})
            if match[1] in splits:
                raise InputError(
                    f"{src}: holds the {match[1]} split of {printable(dataset)}/{crop} twice; remove one, or "
                    "name its folder"
                )
            splits[match[1]] = _source(src, path)
    return sets


def choose_set(
    sets: dict[tuple[str, str], dict[str, Source]], src: Path, dataset: str | None, crop: str | None
) -> tuple[str, str, dict[str, Source]]:
    """Return the data set, crop and splits of the one set that the options leave."""
    matching = [
        key
        for key in sets
        if (dataset is None or key[0] in (dataset, UNKNOWN)) and (crop is None or key[1] in (crop, UNKNOWN))
    ]
    if len(matching) != 1:
        present = printable(", ".join("/".join(key) for key in sorted(sets)))
        problem = "holds several sets of features" if matching else "does not hold the requested set"
        raise InputError(f"{src}: {problem}; choose with --dataset and --crop from: {present}")
    [key] = matching
    return dataset or key[0], crop or key[1], sets[key]


def _paths(src: Path) -> list[str]:
    """Return the paths of the files in a folder or archive."""
    if src.is_dir():
        paths = [path for depth in range(_DEPTH + 1) for path in sorted(src.glob("*/" * depth + "*.pkl"))]
        return [path.relative_to(src).as_posix() for path in paths]
    try:
        with zipfile.ZipFile(src) as archive:
            return list(dict.fromkeys(archive.namelist()))  # of two members of one name, the last is read
    except ZIP_ERRORS as error:
        raise InputError(f"{src}: is a damaged archive ({one_line(error)}); download it again") from None


def _source(src: Path, path: str) -> Source:
    if src.is_dir():
        return Source(str(src / path), Path(path).name, partial(_read, src, path, str(src / path)))
    where = f"{src}:{printable(path)}"
    return Source(where, f"{src.name}:{printable(path)}", partial(_read, src, path, where))


@contextmanager
def _opened(src: Path, path: str) -> Iterator[io.BufferedIOBase]:
    """Open a file in a folder, or a member of an archive, which is never extracted."""
    if src.is_dir():
        with (src / path).open("rb") as stream:
            yield stream
    else:
        with zipfile.ZipFile(src) as archive:
            check_inflation(archive.getinfo(path), src)
            with archive.open(path) as stream:  # yields no more than the declared size
                yield cast(io.BufferedIOBase, stream)


def _read(src: Path, path: str, where: str) -> Arrays:
    """Read one pickle: a dict of keys, labels and embeddings."""
    try:
        with _opened(src, path) as stream:
            sha256 = checksum_of(stream)  # reads to the end, where a zip member has its checksum
            stream.seek(0)
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


def split_keys(labels: Labels, keys: Sequence[str], where: str) -> tuple[Labels, Sequence[str], str | None]:
    """Take the image names out of the authors' keys, `train-n01532829-n01532829_00000005.jpg`.

    The class is the label. The authors' code takes it from the key, so where labels put several of the keys'
    classes together the keys win; where they contradict each other the file is damaged.

    Returns:
        Labels, image names, and a remark if the labels are taken from the keys. Other names come back as they
        are.
    """
    parts = [key.split("-", 2) for key in keys]
    if not all(len(part) == 3 and part[2].split("_")[0] == part[1] for part in parts):
        return labels, keys, None
    names = [part[2] for part in parts]
    label_of: dict[str, object] = {}
    values = labels.tolist() if isinstance(labels, Tensor | np.ndarray) else labels
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
