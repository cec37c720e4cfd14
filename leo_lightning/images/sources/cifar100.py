"""The archive of CIFAR-100, which CIFAR-FS and FC100 divide: 100 classes × 600 images, 32 × 32, in colour.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. Few-shot learning takes the images
of its training and of its test part. Its pickles are read by our own reader (`load_pickle`), which executes
nothing. Needs about 0.4 GB of memory.
"""

import gzip
import io
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from torchvision.datasets import CIFAR100

from leo_lightning.common.errors import InputError, one_line, printable
from leo_lightning.data.importers.pickles import load_pickle
from leo_lightning.images.sources.picture import (
    Picture,
    Pictures,
    check_images,
    check_labels,
    check_member,
    check_names,
    png_of,
)
from leo_lightning.images.sources.published import File

HOME = CIFAR100.url.rpartition("/")[0]
_PARTS = ("train", "test")
_MAX_UNPACKED = 2**28  # bytes; the archive has 186,000,000
_PIXELS = (3, 32, 32)


class Part(NamedTuple):
    """The training or the test part: images (n, 32, 32, 3), and the names of each one's classes."""

    images: np.ndarray
    fine: list[str]
    coarse: list[str]


def files() -> list[File]:
    """Return the archive."""
    return [File(CIFAR100.filename, CIFAR100.tgz_md5)]


def pictures_of(path: Path, splits: Mapping[str, Sequence[str]], coarse: bool = False) -> Pictures:
    """Divide the images of the archive by class.

    Args:
        path: the archive.
        splits: names of classes, by split.
        coarse: the names are those of superclasses.

    Raises:
        InputError: the archive is damaged, was made to do harm, or has other classes.
    """
    parts = _read(path)
    split_of = {name: split for split, names in splits.items() for name in names}
    present = {name for part in parts.values() for name in (part.coarse if coarse else part.fine)}
    if present != set(split_of):
        odd = printable(min(present ^ set(split_of)))
        raise InputError(f"{path}: is not CIFAR-100: its classes are others ('{odd}' is only in one of both)")

    def pictures() -> Iterator[Picture]:
        for name, part in parts.items():
            for row, (pixels, fine, group) in enumerate(zip(*part, strict=True)):
                yield Picture(split_of[group if coarse else fine], fine, f"{name}_{row:05d}", png_of(pixels))

    return Pictures(sum(len(part.images) for part in parts.values()), pictures())


def _read(path: Path) -> dict[str, Part]:
    contents = _pickles(path)
    meta = contents["meta"]
    fine = check_names(meta.get("fine_label_names"), f"{path}:meta")
    coarse = check_names(meta.get("coarse_label_names"), f"{path}:meta")
    parts = {}
    for name in _PARTS:
        where, content = f"{path}:{name}", contents[name]
        data = content.get("data")
        if isinstance(data, np.ndarray) and data.ndim == 2 and data.shape[1] == np.prod(_PIXELS):
            data = np.moveaxis(data.reshape(-1, *_PIXELS), 1, 3)
        images = check_images(data, where)
        parts[name] = Part(
            images,
            [
                fine[label]
                for label in check_labels(content.get("fine_labels"), len(images), len(fine), where)
            ],
            [
                coarse[label]
                for label in check_labels(content.get("coarse_labels"), len(images), len(coarse), where)
            ],
        )
    return parts


def _pickles(path: Path) -> dict[str, dict[str, object]]:
    """Return what the pickles in the archive hold; nothing is extracted."""
    found: dict[str, dict[str, object]] = {}
    try:
        with (
            gzip.open(path) as stream,
            tarfile.open(fileobj=cast(Any, _Bounded(stream, path)), mode="r|") as archive,
        ):
            for member in archive:
                check_member(member.name, str(path))
                match = re.fullmatch(r"cifar-100-python/(train|test|meta)", member.name)
                if match is None or not member.isfile():
                    continue
                where = f"{path}:{match[1]}"
                content = load_pickle(cast(io.BufferedIOBase, archive.extractfile(member)), where)
                if not isinstance(content, dict):
                    raise InputError(f"{where}: holds a {type(content).__name__}, not a dict")
                found[match[1]] = content
    except InputError:
        raise
    except Exception as error:  # a damaged archive can fail in many ways
        raise InputError(f"{path}: is a damaged archive ({one_line(error)}); download it again") from None
    missing = {*_PARTS, "meta"} - found.keys()
    if missing:
        raise InputError(
            f"{path}: has no file 'cifar-100-python/{min(missing)}'; is it CIFAR-100 for Python?"
        )
    return found


class _Bounded:
    """What a gzip file holds; it refuses to unpack without end."""

    def __init__(self, stream: gzip.GzipFile, path: Path) -> None:
        self._stream = stream
        self._path = path
        self._left = _MAX_UNPACKED

    def read(self, size: int) -> bytes:
        block = self._stream.read(size)
        self._left -= len(block)
        if self._left < 0:
            raise InputError(
                f"{self._path}: refused to unpack more than {_MAX_UNPACKED:,} bytes; CIFAR-100 has less"
            )
        return block
