"""tieredImageNet: 608 classes of ImageNet, 779,165 images, 84 × 84, divided by category (351, 97 and 160).

Ren et al., "Meta-Learning for Semi-Supervised Few-Shot Classification", ICLR 2018. These are the files of
learn2learn 0.2.0 (learn2learn/vision/datasets/tiered_imagenet.py), which are the authors', 12 GB: per split a
pickle of PNG files, each an array of its bytes, and one of labels, `label_specific`, and of the names of the
classes, `label_specific_str`.

They are read by our own reader, which executes nothing. The PNG files stay on the disk and are copied as they
are, one by one. In memory is where each of them lies, 1.6 KB: 0.7 GB for the 448,695 images to train on. (A
pickle that Python 3 wrote in protocol 0 to 2 would take nearly three times its size instead.)
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from leo_lightning.common.errors import InputError
from leo_lightning.data.importers.pickles import load_pickle, map_pickle
from leo_lightning.data.splits import SPLITS
from leo_lightning.images.sources.mini_imagenet import FILES_ADDRESS, HOME, RECORD
from leo_lightning.images.sources.picture import Picture, Pictures, check_labels, check_names, check_png
from leo_lightning.images.sources.published import File

__all__ = ["HOME", "files", "read"]


def files() -> list[File]:
    """Return images and labels of each split."""
    return [
        File(
            f"{FILES_ADDRESS}/tiered-imagenet-{split}_{kind}.pkl",
            record=RECORD,
            others=(f"{split}_{kind}.pkl",),
        )
        for split in SPLITS
        for kind in ("images_png", "labels")
    ]


def read(paths: Sequence[Path]) -> Pictures:
    """Read the images.

    Raises:
        InputError: a pickle is damaged, or holds something else.
    """
    images, labels = paths[::2], [_class_names(path) for path in paths[1::2]]

    def pictures() -> Iterator[Picture]:
        for split, path, class_names in zip(SPLITS, images, labels, strict=True):
            for row, (data, class_name) in enumerate(
                zip(_images(path, len(class_names)), class_names, strict=True)
            ):
                png = data.tobytes()
                check_png(png, f"{path}: image {row}")
                yield Picture(split, class_name, f"{row:06d}", png)

    return Pictures(sum(map(len, labels)), pictures())


def _class_names(path: Path) -> list[str]:
    """Return the class of each image."""
    content = load_pickle(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a dict")
    names = check_names(content.get("label_specific_str"), str(path))
    labels = content.get("label_specific")
    if isinstance(labels, np.ndarray):
        labels = labels.tolist()
    if not isinstance(labels, list) or not labels:
        raise InputError(f"{path}: is no pickle of tieredImageNet's labels ('label_specific')")
    return [names[label] for label in check_labels(labels, len(labels), len(names), str(path))]


def _images(path: Path, count: int) -> list[np.ndarray]:
    """Return the bytes of each PNG file, an array (n,) or (n, 1)."""
    content = map_pickle(path)
    if not isinstance(content, list) or len(content) != count:
        raise InputError(f"{path}: holds no list of {count:,} images, as many as there are labels")
    for row, data in enumerate(content):
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8:
            raise InputError(f"{path}: image {row} is no array of bytes")
    return cast(list[np.ndarray], content)
