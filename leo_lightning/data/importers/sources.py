"""What a source of features is: the arrays of one split, under whatever names they go, read when asked."""

import hashlib
import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from torch import Tensor

from leo_lightning.common.errors import InputError, one_line, printable

EMBEDDINGS = ("embeddings", "features", "x")
LABELS = ("labels", "y", "targets")
NAMES = ("image_names", "names", "keys")

# What can go wrong while reading a zip: damage, a wrong password, offsets and names that make no sense.
# InputError is a ValueError too: catch it first.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, ValueError, EOFError, OSError)

_MAX_MEMBER = 64 * 2**30
_MAX_RATIO = 200  # features compress a few times, and zip a thousand times at most
_MIN_SUSPECT = 2**24  # a few repeated values compress well; only large members are worth refusing
# Python stops these two at the declared size; the others unpack a whole block first, however large it gets.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_MAX_NAMES = 90_000_000  # characters; what a feature file can hold of them


class Arrays(NamedTuple):
    """One split as it was read."""

    embeddings: Tensor | np.ndarray
    labels: Sequence[int] | Sequence[str] | np.ndarray | Tensor | None
    """None where they may be missing, and are."""
    image_names: Sequence[str] | None
    sha256: str


class Source(NamedTuple):
    """One split in somebody's file: `where` for messages, `name` for the record, `read` to read it."""

    where: str
    name: str
    read: Callable[[], Arrays]


def arrays_of(
    content: Mapping[object, object], where: str, sha256: str, prefix: str = "", labelled: bool = True
) -> Arrays:
    """Take the arrays out of a dict, under any names they go by; labels may be missing if not `labelled`."""
    embeddings = _entry(content, prefix, EMBEDDINGS, where)
    if isinstance(embeddings, list | tuple):
        embeddings = _matrix(embeddings, where)
    if not isinstance(embeddings, Tensor | np.ndarray):
        raise InputError(f"{where}: the embeddings are a {type(embeddings).__name__}, not an array")
    unlabelled = not labelled and not any(prefix + key in content for key in LABELS)
    labels = None if unlabelled else _entry(content, prefix, LABELS, where)
    if not isinstance(labels, Tensor | np.ndarray | list | tuple | None):
        raise InputError(f"{where}: the labels are a {type(labels).__name__}, not an array or list")
    names = next((content[prefix + key] for key in NAMES if prefix + key in content), None)
    if names is not None and not isinstance(names, np.ndarray | list | tuple):
        raise InputError(f"{where}: the image names are a {type(names).__name__}, not an array or list")
    for texts in (labels, names):
        if isinstance(texts, np.ndarray) and texts.dtype.kind == "U" and texts.dtype.itemsize > 0:
            _check_text(texts, where)
    image_names = None if names is None else _image_names(names, where)
    return Arrays(embeddings, cast(Sequence[str] | None, labels), image_names, sha256)


def _entry(content: Mapping[object, object], prefix: str, keys: Sequence[str], where: str) -> object:
    for key in keys:
        if prefix + key in content:
            return content[prefix + key]
    raise InputError(
        f"{where}: has no '{prefix}{keys[0]}' (nor {' nor '.join(repr(prefix + key) for key in keys[1:])})"
    )


def _matrix(rows: Sequence[object], where: str) -> np.ndarray:
    """Make an array of rows of numbers; of anything else, numpy would try to make sense."""
    widths = {len(row) if isinstance(row, list | tuple) else 0 for row in rows}
    if len(widths) != 1 or not all(
        isinstance(row, list | tuple) and all(isinstance(value, int | float) for value in row) for row in rows
    ):
        raise InputError(f"{where}: the embeddings are not rows of numbers, all of one length")
    try:
        return np.asarray(rows, dtype=np.float32)
    except (OverflowError, MemoryError) as error:
        raise InputError(f"{where}: the embeddings are not rows of numbers ({one_line(error)})") from None


def _check_text(texts: np.ndarray, where: str) -> None:
    """Check that an array of text is made of characters; numpy takes any number for one."""
    try:
        texts.tolist()
    except (SystemError, ValueError):
        raise InputError(f"{where}: holds text that is damaged; copy or make the file again") from None


def _image_names(names: np.ndarray | Sequence[object], where: str) -> list[str]:
    """Make text of the names; a name that many rows share is short to write and long to split."""
    if isinstance(names, np.ndarray) and (names.ndim != 1 or names.dtype.itemsize == 0):
        raise InputError(f"{where}: the image names have shape {names.shape}; give one name per row")
    if not all(isinstance(name, str | bytes | int | float | np.generic) for name in names):
        raise InputError(f"{where}: the image names are not text; give one name per row")
    texts = [str(name) for name in names]
    if sum(map(len, texts)) > _MAX_NAMES:
        raise InputError(f"{where}: the image names are too long; leave them out")
    return texts


def sha256_of(stream: io.BufferedIOBase) -> str:
    """Return the SHA-256 of all that is left in a stream."""
    digest = hashlib.sha256()
    while block := stream.read(2**20):
        digest.update(block)
    return digest.hexdigest()


def zip_members(path: Path) -> list[str]:
    """Return the names in an archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return list(dict.fromkeys(archive.namelist()))  # of two by one name, the last is read
    except ZIP_ERRORS as error:
        raise InputError(f"{path}: is a damaged archive ({one_line(error)}); download it again") from None


@contextmanager
def open_member(path: Path, member: str) -> Iterator[io.BufferedIOBase]:
    """Open a member of an archive, unless it declares an absurd size. It is never extracted."""
    with zipfile.ZipFile(path) as archive:
        check_inflation(archive.getinfo(member), path)
        with archive.open(member) as stream:  # yields no more than the declared size
            yield cast(io.BufferedIOBase, stream)


def check_inflation(info: zipfile.ZipInfo, path: Path) -> None:
    """Refuse a small member that unpacks to fill the memory."""
    where = f"{path}:{printable(info.filename)}"
    if info.compress_type not in _METHODS:
        raise InputError(f"{where}: is packed by a method other than deflate; pack the archive again")
    ratio = info.file_size / max(1, info.compress_size)
    if info.file_size > _MAX_MEMBER or (info.file_size > _MIN_SUSPECT and ratio > _MAX_RATIO):
        raise InputError(
            f"{where}: refused to unpack {info.file_size:,} bytes from "
            f"{info.compress_size:,}; no real data compress like that"
        )
