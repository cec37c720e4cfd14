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
from leo_lightning.data.labels import Labels

EMBEDDINGS = ("embeddings", "features", "x", "X")
LABELS = ("labels", "y", "targets")
NAMES = ("image_names", "names", "keys")

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


def arrays_of(content: Mapping[Any, object], where: str, sha256: str, labelled: bool = True) -> Arrays:
    """Take the arrays out of a dict, under any names they go by; labels are optional unless `labelled`."""
    embeddings = _entry(content, EMBEDDINGS, where)
    labels = _entry(content, LABELS, where, labelled)
    names = _entry(content, NAMES, where, False)
    if not isinstance(embeddings, Tensor | np.ndarray):
        try:
            embeddings = np.asarray(embeddings, np.float32)
        except (TypeError, ValueError, OverflowError):
            raise InputError(f"{where}: the embeddings are not rows of numbers, all of one length") from None
    check_lengths(embeddings, labels, names, where)
    try:  # numpy finds only here that a text is damaged
        labels = labels.tolist() if isinstance(labels, np.ndarray) and labels.dtype.kind == "U" else labels
        names = names.tolist() if isinstance(names, Tensor | np.ndarray) else names
    except (SystemError, ValueError):
        raise InputError(f"{where}: holds text that is damaged; copy or make the file again") from None
    if names is not None:
        names = [name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in names]
        names = list(map(without_controls, names))
    return Arrays(embeddings, labels, names, sha256)


def _entry(content: Mapping[Any, object], keys: Sequence[str], where: str, needed: bool = True) -> Any:
    """Return the array or list under one of the keys; None without one that is not needed."""
    value = next((content[key] for key in keys if key in content), None)
    if value is None and needed:
        raise InputError(f"{where}: has no '{keys[0]}' (nor {' nor '.join(map(repr, keys[1:]))})")
    if not isinstance(value, Tensor | np.ndarray | list | tuple | None):
        raise InputError(f"{where}: '{keys[0]}' is neither an array nor a list")
    return value


def check_inflation(info: zipfile.ZipInfo, path: Path) -> None:
    """Refuse a small member that unpacks to fill the memory."""
    if info.file_size > max(_MIN_SUSPECT, _MAX_RATIO * info.compress_size):
        raise InputError(
            f"{path}:{printable(info.filename)}: refused to unpack {info.file_size:,} bytes from "
            f"{info.compress_size:,}; no real data compress like that"
        )
