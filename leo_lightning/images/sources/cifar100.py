"""The archive of CIFAR-100, which CIFAR-FS and FC100 divide: 100 classes × 600 images, 32 × 32, in color.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. Few-shot learning uses both its
training and its test part. `published` compares the archive's checksum before it is opened here, and
`load_pickle` executes nothing. Needs about 0.4 GB of memory.
"""

import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from torchvision.datasets import CIFAR100

from leo_lightning.data.importers.pickles import load_pickle
from leo_lightning.images.sources.picture import Picture, Pictures, png_of
from leo_lightning.images.sources.published import File

HOME = CIFAR100.url.rpartition("/")[0]
FILES = (File(CIFAR100.filename, CIFAR100.tgz_md5),)
_FOLDER = "cifar-100-python"
_PARTS = ("train", "test")


def divide(
    archive: Path, splits: Mapping[str, Sequence[str]], level: Literal["fine", "coarse"] = "fine"
) -> Pictures:
    """Divide the images by class.

    Args:
        archive: CIFAR-100 for Python.
        splits: class names by split.
        level: whether these are names of classes, or of superclasses.

    Raises:
        InputError: a pickle in the archive asks for code to be run.
    """
    content = _unpickled(archive)
    class_names, group_names = (content["meta"][f"{prefix}_label_names"] for prefix in ("fine", level))
    split_of = {name: split for split, names in splits.items() for name in names}

    def pictures() -> Iterator[Picture]:
        for part in _PARTS:
            columns = (content[part][key] for key in ("data", "fine_labels", f"{level}_labels"))
            for row, (values, label, group) in enumerate(zip(*columns, strict=True)):
                pixels = values.reshape(3, 32, 32).transpose(1, 2, 0)
                split = split_of[group_names[group]]
                yield Picture(split, class_names[label], f"{part}_{row:05d}", png_of(pixels))

    return Pictures(sum(len(content[part]["data"]) for part in _PARTS), pictures())


def _unpickled(path: Path) -> dict[str, Any]:
    """Return the content of the pickles in the archive, by name; nothing is extracted."""
    content = {}
    with tarfile.open(path, "r|gz") as archive:
        for member in archive:
            folder, _, name = member.name.partition("/")
            if folder == _FOLDER and name in (*_PARTS, "meta"):
                file = cast(io.BufferedIOBase, archive.extractfile(member))
                content[name] = load_pickle(file, f"{path}:{name}")
    return content
