"""tieredImageNet: 608 classes of ImageNet, 779,165 images, 84 × 84, divided by category (351, 97 and 160).

Ren et al., "Meta-Learning for Semi-Supervised Few-Shot Classification", ICLR 2018. These are the files of
learn2learn 0.2.0 (learn2learn/vision/datasets/tiered_imagenet.py), which are the authors', 12 GB. Each split
has one pickle of PNG files, arrays of bytes, and one of `label_specific` and the class names
`label_specific_str`.

`load_pickle` executes nothing and leaves the PNG files on disk; they are copied one by one, unchanged. Memory
holds 1.6 KB per image, 0.7 GB for the 448,695 training images. (A pickle that Python 3 wrote in protocol 0 to
2 would take nearly three times its size.)
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from leo_lightning.common.errors import InputError
from leo_lightning.data.importers.pickles import load_pickle
from leo_lightning.data.splits import SPLITS
from leo_lightning.images.sources.mini_imagenet import FOLDER, HOME, RECORD
from leo_lightning.images.sources.picture import Picture, Pictures, class_names_of
from leo_lightning.images.sources.published import File

__all__ = ["FILES", "HOME", "read"]

FILES = tuple(
    File(f"{FOLDER}/tiered-imagenet-{name}.pkl", record=RECORD, aliases=(f"{name}.pkl",))
    for split in SPLITS
    for name in (f"{split}_images_png", f"{split}_labels")
)
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


def read(paths: Sequence[Path]) -> Pictures:
    """Read the images.

    Raises:
        InputError: a pickle is damaged, or holds something else.
    """
    labels = [_class_names(path) for path in paths[1::2]]

    def pictures() -> Iterator[Picture]:
        for split, path, class_names in zip(SPLITS, paths[::2], labels, strict=True):
            images = load_pickle(path)
            if not isinstance(images, list) or len(images) != len(class_names):
                raise InputError(
                    f"{path}: does not hold a list of {len(class_names):,} images, one per label"
                )
            for row, (image, class_name) in enumerate(zip(images, class_names, strict=True)):
                png = image.tobytes() if isinstance(image, np.ndarray) else b""
                if not (png.startswith(_PNG_START) and png.endswith(_PNG_END)):
                    raise InputError(f"{path}: image {row} is not a whole PNG file; download it again")
                yield Picture(split, class_name, f"{row:06d}", png)

    return Pictures(sum(map(len, labels)), pictures())


def _class_names(path: Path) -> list[str]:
    """Return the class name of each image."""
    content = load_pickle(path)
    if not isinstance(content, dict) or "label_specific" not in content:
        raise InputError(f"{path}: is not a pickle of tieredImageNet's labels ('label_specific')")
    return class_names_of(content["label_specific"], content.get("label_specific_str"), str(path))
