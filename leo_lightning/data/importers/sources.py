"""A source of features: the arrays of one split, under any names they go by, read on demand."""

import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from leo_lightning.common.errors import InputError, printable, without_controls
from leo_lightning.data.bank import check_lengths
from leo_lightning.data.importers.classes import is_by_class, is_numbered, named_labels, rows_of, stacked
from leo_lightning.data.importers.names import CLASS_NAMES, EMBEDDINGS, LABELS, NAMES
from leo_lightning.data.labels import Labels

# Errors of reading a zip: damage, a wrong password, offsets and names that make no sense.
# InputError is a ValueError too: catch it first.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, ValueError, EOFError, OSError)

_MAX_RATIO = 200  # features compress a few times, and zip a thousand times at most
_MIN_SUSPECT = 2**24  # a few repeated values compress well; only large members are worth refusing


class Arrays(NamedTuple):
    """One split as it was read."""

    embeddings: Tensor | np.ndarray
    labels: Labels | None
    """None without labels, where these are optional."""
    image_names: Sequence[str] | None
    sha256: str


class Source(NamedTuple):
    """One split in somebody's file: its name in messages, its name in the record, and its reader."""

    where: str
    name: str
    read: Callable[[], Arrays]


def arrays_of(
    content: Mapping[Any, object],
    where: str,
    sha256: str,
    labelled: bool = True,
    report: Callable[[str], None] = print,
) -> Arrays:
    """Take the arrays out of a dict, under any names they go by.

    Args:
        content: embeddings and labels, or the rows of each class under its name.
        where: name of the source in messages.
        sha256: checksum of the source.
        labelled: whether labels are required; otherwise they are optional.
        report: called with each remark for the user.
    """
    if is_by_class(content):
        content = stacked(content, where)
    embeddings = _entry(content, EMBEDDINGS, where)
    labels = _entry(content, LABELS, where, labelled)
    names = _entry(content, NAMES, where, False)
    class_names = _entry(content, CLASS_NAMES, where, False)
    embeddings = rows_of(embeddings, where)
    either = labels is not None and class_names is None and content.get("names") is not None
    if either and len(names) != len(embeddings):
        class_names, names = names, None
    check_lengths(embeddings, labels, names, where)
    try:  # numpy finds only here that a text is damaged
        labels = labels.tolist() if isinstance(labels, np.ndarray) and labels.dtype.kind == "U" else labels
        names = names.tolist() if isinstance(names, Tensor | np.ndarray) else names
        if isinstance(class_names, Tensor | np.ndarray):
            class_names = class_names.tolist()
    except (SystemError, ValueError):
        raise InputError(f"{where}: holds text that is damaged; copy or make the file again") from None
    if either and labels is not None and names is not None and is_numbered(labels, len(names), where):
        raise InputError(
            f"{where}: 'names' may name the images or the classes, of which there are {len(names)} each; "
            f"call it '{NAMES[0]}' or '{CLASS_NAMES[0]}'"
        )
    if labels is not None and class_names is not None:
        labels = named_labels(labels, class_names, where, report)
    if names is not None:
        names = [name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in names]
        names = list(map(without_controls, names))
    return Arrays(embeddings, labels, names, sha256)


def _entry(content: Mapping[Any, object], keys: Sequence[str], where: str, needed: bool = True) -> Any:
    """Return the array or list under one of the keys; None without one that is not needed."""
    present = [key for key in keys if content.get(key) is not None]
    if len(present) > 1:
        raise InputError(f"{where}: holds both '{present[0]}' and '{present[1]}'; leave one of them")
    if not present:
        if needed:
            raise InputError(f"{where}: has no '{keys[0]}' (nor {' nor '.join(map(repr, keys[1:4]))})")
        return None
    value = content[present[0]]
    if not isinstance(value, Tensor | np.ndarray | list | tuple):
        raise InputError(f"{where}: '{present[0]}' is neither an array nor a list")
    return value


def check_inflation(info: zipfile.ZipInfo, path: Path) -> None:
    """Refuse a small member that unpacks to fill the memory."""
    check_unpacked(info.file_size, info.compress_size, f"{path}:{printable(info.filename)}")


def check_unpacked(size: int, packed: int, where: str) -> None:
    """Refuse bytes that would fill the memory, unpacked from a few."""
    if size > max(_MIN_SUSPECT, _MAX_RATIO * packed):
        raise InputError(
            f"{where}: refused to unpack {size:,} bytes from {packed:,}; no real data compress like that"
        )
