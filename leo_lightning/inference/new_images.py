"""Support and queries that are images: embedded as the features of the training were."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from leo_lightning.common.errors import InputError
from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.new_classes import Images, NewClasses, read_images
from leo_lightning.data.normalization import Normalize
from leo_lightning.data.splits import present_splits, split_path
from leo_lightning.images.backbones.recipe import BACKBONE_FILE
from leo_lightning.images.backbones.weights import digest, read_backbone
from leo_lightning.images.decode import quiet_pillow
from leo_lightning.images.extraction.embedder import Embedder
from leo_lightning.images.folder import ImageSplit, find_classes, find_images, is_image


class NewImages(NewClasses):
    """New classes by a few labelled examples of each, and what is to be classified: images, or embeddings.

    A folder of images in folders is labelled: their names are classes. One of images alone is not, nor is a
    single image.

    Args:
        support: a few labelled examples of each class: a folder with a folder of images for each class, or
            their embeddings: features.safetensors, npz, npy or pt.
        query: what is to be classified, of the same kinds; labels may be missing.
        backbone: for images, the backbone.safetensors that made the features of the training; null: the one
            beside those of the checkpoint's run.
        normalize: none, l2 or center_l2; null: what the checkpoint records, or l2 without a checkpoint.
        root: folder of features whose training split has the mean for center_l2, if there is no checkpoint.
        ckpt_path: checkpoint whose record of its features is followed; train.py sets it to its --ckpt_path.
    """

    def __init__(
        self,
        support: str | None = None,
        query: str | None = None,
        backbone: str | None = None,
        normalize: Normalize | None = None,
        root: str | None = None,
        ckpt_path: str | None = None,
    ) -> None:
        super().__init__(support, query, normalize, root, ckpt_path)
        self.backbone = None if backbone is None else Path(backbone)

    def read(self, path: Path, labelled: bool) -> Images:
        """See `read_any`."""
        return read_any(path, labelled, self.backbone, {} if self.record is None else self.record.provenance)


def read_any(path: Path, labelled: bool, backbone: Path | None, provenance: Mapping[str, str]) -> Images:
    """Read embeddings as `read_images` does, or images.

    Args:
        path: file of embeddings, folder of images, or an image.
        labelled: whether labels must be there, or may be.
        backbone: the file that lies beside the features of the training; None if it is not known.
        provenance: of the features of the training; weights and recipe must be those, if it has them.

    Raises:
        InputError: it cannot be read, or the backbone is missing or another.
    """
    if not path.is_dir() and not is_image(path):
        return read_images(path, labelled)
    if not path.exists():
        raise InputError(f"{path}: no such image or folder")
    if path.is_dir() and (there := present_splits(path)):
        raise InputError(f"{path}: holds features; name one of its files, {split_path(path, there[-1])}")
    found = _found(path, labelled)
    return _embedded(path, found, _embedder(backbone, provenance, path))


def _embedder(backbone: Path | None, provenance: Mapping[str, str], images: Path) -> Embedder:
    if backbone is None:
        raise InputError(
            f"{images}: holds images, and the backbone of the training is not known; name the "
            f"{BACKBONE_FILE} beside its features (predict: --data.backbone, export: --backbone)"
        )
    made = read_backbone(backbone)
    for what, found in (("weights_sha256", digest(made)), ("recipe", made.recipe.dumps())):
        if provenance.get(what, found) != found:
            raise InputError(
                f"{backbone}: is not the backbone that the model was trained with (its {what.split('_')[0]} "
                f"differs); name the {BACKBONE_FILE} beside the features of the training"
            )
    return Embedder(made)


def _found(path: Path, labelled: bool) -> ImageSplit:
    """The images; those without labels are of no class."""
    if path.is_dir() and (labelled or not any(is_image(each) for each in path.iterdir())):
        return find_classes(path, "refuse", print)
    names = find_images(path) if path.is_dir() else (path.name,)
    return ImageSplit(path if path.is_dir() else path.parent, names, np.zeros(0, np.int64), ())


def _embedded(path: Path, found: ImageSplit, embedder: Embedder) -> Images:
    """The images as embeddings, with names and classes."""
    quiet_pillow()
    bank = FeatureBank(
        embedder.embed([found.path(row) for row in range(len(found))]),
        torch.zeros(len(found), dtype=torch.int64),  # one class for all, so that no row moves
        ("unknown",),
        found.names,
        provenance={"backbone": embedder.recipe.backbone},
        source=str(path),
    )
    bank.check_finite()
    return Images(bank, found.class_names, found.labels if found.class_names else None)
