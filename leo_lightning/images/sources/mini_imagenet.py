"""miniImageNet: 100 classes of ImageNet × 600 images, 84 × 84: 64 to train, 16 to validate, 20 to test.

Vinyals et al., "Matching Networks for One Shot Learning", NeurIPS 2016; split of Ravi and Larochelle,
"Optimization as a Model for Few-Shot Learning", ICLR 2017. These are the files of learn2learn 0.2.0
(learn2learn/vision/datasets/mini_imagenet.py): one pickle per split, with `image_data` (n, 84, 84, 3) and
`class_dict`, the rows of each WordNet number. `load_pickle` executes nothing and leaves the images on disk.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from leo_lightning.common.errors import InputError
from leo_lightning.data.importers.pickles import load_pickle
from leo_lightning.data.splits import SPLITS
from leo_lightning.images.sources.picture import Picture, Pictures, check_images, png_of
from leo_lightning.images.sources.published import File

HOME = "https://zenodo.org"
FOLDER, RECORD = "records/7978538/files", "api/records/7978538"
FILES = tuple(
    File(f"{FOLDER}/mini-imagenet-cache-{name}.pkl", record=RECORD, aliases=aliases)
    for name, aliases in (("train", ()), ("validation", ("mini-imagenet-cache-val.pkl",)), ("test", ()))
)


def read(paths: Sequence[Path]) -> Pictures:
    """Read the images.

    Raises:
        InputError: a pickle is damaged, or holds something else.
    """
    contents = [_read(path) for path in paths]

    def pictures() -> Iterator[Picture]:
        for split, (images, class_names) in zip(SPLITS, contents, strict=True):
            for row, (pixels, class_name) in enumerate(zip(images, class_names, strict=True)):
                yield Picture(split, class_name, f"{row:05d}", png_of(pixels))

    return Pictures(sum(len(images) for images, _ in contents), pictures())


def _read(path: Path) -> tuple[np.ndarray, list[str]]:
    """Return the images of a split and the class name of each."""
    content = load_pickle(path)
    if not isinstance(content, dict) or not isinstance(content.get("class_dict"), dict):
        raise InputError(f"{path}: is not a pickle of miniImageNet ('image_data' and 'class_dict')")
    images = check_images(content.get("image_data"), str(path))
    try:
        pairs = [
            (int(row), str(name)) for name, rows in content["class_dict"].items() for row in np.ravel(rows)
        ]
    except (TypeError, ValueError):  # not rows
        pairs = []
    if sorted(row for row, _ in pairs) != list(range(len(images))):
        raise InputError(
            f"{path}: 'class_dict' does not list each image once, under its class; copy it again"
        )
    return images, [name for _, name in sorted(pairs)]
