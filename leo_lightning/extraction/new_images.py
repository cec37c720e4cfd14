"""Support and queries that are images: embedded as the features of the training were."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from leo_lightning.backbones.recipe import BACKBONE_FILE
from leo_lightning.backbones.weights import digest, read_backbone
from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.new_classes import Images, read_images
from leo_lightning.errors import InputError
from leo_lightning.extraction.embedder import Embedder
from leo_lightning.images.folder import find_classes, find_images, is_image


def reader(backbone: Path | None, sha256: str | None) -> Callable[[Path, bool], Images]:
    """What reads a file of embeddings, or images, as `read_images` does files.

    A folder of images in folders is labelled: their names are classes. One of images alone is not, nor is a
    single image.

    Args:
        backbone: the file that lies beside the features of the training; None if it is not known.
        sha256: of its weights, if that is recorded.
    """
    embedders: list[Embedder] = []

    def read(path: Path, labelled: bool) -> Images:
        if not path.is_dir() and not is_image(path):
            return read_images(path, labelled)
        if not path.exists():
            raise InputError(f"{path}: no such image or folder")
        if not embedders:
            embedders.append(_embedder(backbone, sha256, path))
        return _embedded(path, labelled, embedders[0])

    return read


def _embedder(backbone: Path | None, sha256: str | None, images: Path) -> Embedder:
    if backbone is None:
        raise InputError(
            f"{images}: holds images, and the backbone of the training is not known; name the "
            f"{BACKBONE_FILE} beside its features (predict: --data.backbone, export: --backbone)"
        )
    made = read_backbone(backbone)
    if sha256 is not None and digest(made) != sha256:
        raise InputError(
            f"{backbone}: is not the backbone that the model was trained with (its weights are others); name "
            f"the {BACKBONE_FILE} beside the features of the training"
        )
    return Embedder(made)


def _embedded(path: Path, labelled: bool, embedder: Embedder) -> Images:
    """The images as embeddings, with names and classes."""
    classes = None
    class_names: tuple[str, ...] = ()
    if path.is_file():
        folder, names = path.parent, (path.name,)
    elif labelled or not any(is_image(each) for each in path.iterdir()):
        found = find_classes(path, "refuse", print)
        folder, names, classes, class_names = found.folder, found.names, found.labels, found.class_names
    else:
        folder, names = path, find_images(path)
    embeddings = embedder.embed([folder / name for name in names])
    bank = FeatureBank(
        embeddings,
        torch.zeros(len(names), dtype=torch.int64),  # one class for all, so that no row moves
        ("unknown",),
        tuple(names),
        provenance={"backbone": embedder.recipe.backbone},
        source=str(path),
    )
    bank.check_finite()
    return Images(bank, class_names, None if classes is None else np.asarray(classes, np.int64))
