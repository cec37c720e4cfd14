"""miniImageNet: 100 classes of ImageNet × 600 images, 84 × 84: 64 to train, 16 to validate, 20 to test.

Vinyals et al., "Matching Networks for One Shot Learning", NeurIPS 2016; split of Ravi and Larochelle,
"Optimization as a Model for Few-Shot Learning", ICLR 2017. These are the files of learn2learn 0.2.0
(learn2learn/vision/datasets/mini_imagenet.py): one pickle per split, of `image_data` (n, 84, 84, 3) and
`class_dict`, rows by WordNet number. They are read by our own reader, which executes nothing, and stay on the
disk, so that this needs little memory.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from leo_lightning.common.errors import InputError, printable
from leo_lightning.data.importers.pickles import map_pickle
from leo_lightning.data.splits import SPLITS
from leo_lightning.images.sources.picture import Picture, Pictures, check_images, check_names, png_of
from leo_lightning.images.sources.published import File

HOME = "https://zenodo.org"
FILES_ADDRESS, RECORD = "records/7978538/files", "api/records/7978538"


class _Split(NamedTuple):
    images: np.ndarray
    class_names: list[str]
    """Of each image."""


def files() -> list[File]:
    """Return the pickles, in the order of the splits."""
    return [
        File(f"{FILES_ADDRESS}/mini-imagenet-cache-{name}.pkl", record=RECORD, others=others)
        for name, others in (("train", ()), ("validation", ("mini-imagenet-cache-val.pkl",)), ("test", ()))
    ]


def read(paths: Sequence[Path]) -> Pictures:
    """Read the images.

    Raises:
        InputError: a pickle is damaged, or holds something else.
    """
    loaded = {split: _read(path) for split, path in zip(SPLITS, paths, strict=True)}

    def pictures() -> Iterator[Picture]:
        for split, (images, class_names) in loaded.items():
            for row, (pixels, class_name) in enumerate(zip(images, class_names, strict=True)):
                yield Picture(split, class_name, f"{row:05d}", png_of(pixels))

    return Pictures(sum(len(split.images) for split in loaded.values()), pictures())


def _read(path: Path) -> _Split:
    content = map_pickle(path)
    if not isinstance(content, dict) or not isinstance(content.get("class_dict"), dict):
        raise InputError(f"{path}: is no pickle of miniImageNet ('image_data' and 'class_dict')")
    images = check_images(content.get("image_data"), str(path))
    rows_of = content["class_dict"]
    class_names: list[str | None] = [None] * len(images)
    for name in check_names(list(rows_of), str(path)):
        rows = rows_of[name]
        if isinstance(rows, np.ndarray) and rows.ndim == 1:
            rows = rows.tolist()
        if not isinstance(rows, list):
            raise InputError(
                f"{path}: class '{printable(name)}' has a {type(rows).__name__}, not a list of rows"
            )
        for row in rows:
            if type(row) is not int or not 0 <= row < len(images) or class_names[row] is not None:
                raise InputError(
                    f"{path}: class '{printable(name)}' lists an image that is not there, or another's"
                )
            class_names[row] = name
    named = [name for name in class_names if name is not None]
    if len(named) < len(images):
        raise InputError(f"{path}: image {class_names.index(None)} has no class")
    return _Split(images, named)
