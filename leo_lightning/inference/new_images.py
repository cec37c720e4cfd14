"""Support and queries that are images, embedded like the features of the training."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from leo_lightning.common.errors import InputError
from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.feature_record import RECORD
from leo_lightning.data.new_classes import Images, read_images
from leo_lightning.data.roots import SHIPPED, features_folder
from leo_lightning.data.splits import present_splits, split_path
from leo_lightning.images.backbones.recipe import BACKBONE_FILE
from leo_lightning.images.backbones.weights import digest, read_backbone
from leo_lightning.images.decode import quiet_pillow
from leo_lightning.images.extraction.embedder import Embedder
from leo_lightning.images.folder import ImageSplit, find_classes, find_images, is_image
from leo_lightning.inference.pretrained import read_model
from leo_lightning.runs.recorded_config import recorded_config


def backbone_beside(checkpoint: Path) -> Path | None:
    """The backbone beside the features that the run of a checkpoint was trained on, if it is there.

    A shared model names no folder, but its features may be those inside the package.
    """
    path, content = read_model(checkpoint)
    config = recorded_config(content, path)[1] or {}
    data = config.get("data")
    record = content.get(RECORD)
    dataset = str(record["provenance"].get("dataset")) if isinstance(record, dict) and not data else ""
    root = data.get("init_args", data).get("root") if isinstance(data, dict) else None
    folder = SHIPPED.get(dataset) or features_folder(root)
    return folder / BACKBONE_FILE if folder and (folder / BACKBONE_FILE).is_file() else None


def read_any(path: Path, labelled: bool, backbone: Path | None, provenance: Mapping[str, str]) -> Images:
    """Read embeddings, as `read_images` does, or images.

    A folder of images in folders is labelled: the folders' names are the classes. A folder of images alone is
    not, nor is a single image.

    Args:
        path: file of embeddings, folder of images, or an image.
        labelled: whether labels are required; otherwise they are optional.
        backbone: the backbone of the training; None if it is not known.
        provenance: provenance of the features of the training, which the backbone must have made.

    Raises:
        InputError: the images cannot be read, or the backbone is missing or another one.
    """
    if not path.is_dir() and not is_image(path):
        return read_images(path, labelled)
    if not path.exists():
        raise InputError(f"{path}: no such image or folder")
    if path.is_dir() and (splits := present_splits(path)):
        raise InputError(f"{path}: holds features; name one of its files, {split_path(path, splits[-1])}")
    return _embedded(path, _images(path, labelled), _embedder(backbone, provenance, path))


def _embedder(backbone: Path | None, provenance: Mapping[str, str], images: Path) -> Embedder:
    if backbone is None:
        raise InputError(
            f"{images}: holds images, and the backbone of the training is not known; name the "
            f"{BACKBONE_FILE} beside its features with --backbone"
        )
    network = read_backbone(backbone)
    for key, value in (("weights_sha256", digest(network)), ("recipe", network.recipe.dumps())):
        if provenance.get(key, value) != value:
            raise InputError(
                f"{backbone}: is not the backbone that the model was trained with (its {key.split('_')[0]} "
                f"differs); name the {BACKBONE_FILE} beside the features of the training"
            )
    return Embedder(network)


def _images(path: Path, labelled: bool) -> ImageSplit:
    """The images; without labels they have no class."""
    if path.is_dir() and (labelled or not any(is_image(file) for file in path.iterdir())):
        return find_classes(path)
    names = find_images(path) if path.is_dir() else (path.name,)
    return ImageSplit(path if path.is_dir() else path.parent, names, np.zeros(0, np.int64), ())


def _embedded(path: Path, images: ImageSplit, embedder: Embedder) -> Images:
    """The images as embeddings, with names and classes."""
    quiet_pillow()
    bank = FeatureBank(
        embedder.embed([images.path(row) for row in range(len(images))]),
        torch.zeros(len(images), dtype=torch.int64),  # one class for all, so that no row moves
        ("unknown",),
        images.names,
        provenance={"backbone": embedder.recipe.backbone},
        source=str(path),
    )
    bank.check_finite()
    return Images(bank, images.class_names, images.labels if images.class_names else None)
