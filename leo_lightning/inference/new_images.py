"""Support and queries of new classes: embeddings in files, or images that a backbone embeds."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from rich.console import Console
from torch import Tensor

from leo_lightning.common.errors import InputError, printable
from leo_lightning.data.bank import FeatureBank, listed
from leo_lightning.data.feature_record import RECORD
from leo_lightning.data.image_names import is_image, is_other_photo
from leo_lightning.data.labels import class_name
from leo_lightning.data.new_classes import Images, read_images
from leo_lightning.data.roots import SHIPPED, features_folder
from leo_lightning.data.splits import SPLIT_NAMES, present_splits, split_path
from leo_lightning.images.backbones.recipe import BACKBONE_FILE
from leo_lightning.images.backbones.weights import digest, known_recipe, load_backbone
from leo_lightning.images.decode import quiet_pillow
from leo_lightning.images.extraction.embedder import Embedder
from leo_lightning.images.extraction.extract import PACKAGES
from leo_lightning.images.extraction.progress import image_progress
from leo_lightning.images.folder import (
    ImageSplit,
    OnError,
    find_classes,
    find_images,
    ignore_files,
    refuse_files,
)
from leo_lightning.inference.embedding_cache import EmbeddingCache, content_digest
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


@dataclass
class NewImages:
    """Reads embeddings, as `read_images` does, or images.

    A folder of images in folders is labelled: the folders' names are the classes. A folder of images alone is
    not, nor is a single image.

    Args:
        weights: of the backbone: a file, or the name of published ones; None: not known.
        backbone: name of the network, where the weights do not say it.
        made: provenance of the features of a training, which the backbone must have made; empty without one.
        on_error: refuse images that cannot be read, all at once, or leave them out.
        cache: folder in which embeddings are kept; None: nowhere.
        report: called with each note.
        console: shows the progress.
    """

    weights: str | None = None
    backbone: str | None = None
    made: Mapping[str, str] = field(default_factory=dict)
    on_error: OnError = "refuse"
    cache: Path | None = None
    report: Callable[[str], None] = print
    console: Console = field(default_factory=lambda: Console(stderr=True))

    def read(self, path: Path, labelled: bool) -> Images:
        """Read a file of embeddings, a folder of images, or an image.

        Args:
            path: the file or folder.
            labelled: whether labels are required; otherwise they are optional.

        Raises:
            InputError: the images cannot be read, or the backbone is missing or not the training's.
        """
        if not self.check(path, labelled):
            return read_images(path, labelled, self.report)
        return self._embedded(path, self._found(path, labelled))

    def check(self, path: Path, labelled: bool) -> bool:
        """Tell whether `path` is of images, and refuse what needs no work to be seen as a mistake.

        Raises:
            InputError: says what it is, or that images need a network.
        """
        if not path.is_dir() and not is_image(path):
            if path.exists() and is_other_photo(path):
                raise InputError(f"{path}: is a photo that Pillow does not read; save it as JPEG")
            return False
        if not path.exists():
            raise InputError(f"{path}: no such image or folder")
        if not path.is_dir():
            if labelled:
                raise InputError(
                    f"{path}: is one image; name a folder with a folder of images for each class"
                )
        elif splits := present_splits(path):
            raise InputError(f"{path}: holds features; name one of its files, {split_path(path, splits[-1])}")
        elif not labelled and not any(file.is_dir() for file in path.iterdir()):
            find_images(path, _silent)
        elif labelled or not _has_images(path):
            _check_classes(path)
            find_classes(path, _silent)
        self._check_weights()
        return True

    def _check_weights(self) -> None:
        if self.weights is not None:
            return
        if self.made:
            raise InputError(
                "the backbone of the training is not known, or no longer there, and images need it; name the "
                f"{BACKBONE_FILE} beside its features with --weights"
            )
        if self.backbone is not None:
            raise InputError(
                f"--backbone {self.backbone} needs weights: --weights FILE, or --weights pretrained"
            )
        raise InputError(
            "images need a network that embeds them; name it: --weights FILE, or --backbone NAME --weights "
            "pretrained"
        )

    @cached_property
    def embedder(self) -> Embedder:
        """The embedder of the backbone.

        Raises:
            InputError: no backbone is named, it cannot be had, or it is not that of the training.
        """
        self._check_weights()
        assert self.weights is not None
        recipe = known_recipe(self.backbone, self.weights)
        network = load_backbone(recipe, self.weights, self.report)
        for key, value in (("weights_sha256", digest(network)), ("recipe", network.recipe.dumps())):
            if self.made.get(key, value) != value:
                raise InputError(
                    f"{self.weights}: is not the backbone that the model was trained with (other "
                    f"{key.split('_')[0]}); name the {BACKBONE_FILE} beside the features of the "
                    "training"
                )
        return Embedder(network)

    def _found(self, path: Path, labelled: bool) -> ImageSplit:
        """The images; without labels they have no class."""
        ignore = partial(ignore_files, report=self.report)
        if not path.is_dir():
            return ImageSplit(path.parent, (path.name,), np.zeros(0, np.int64), ())
        if not labelled and _has_images(path):
            if any(file.is_dir() for file in path.iterdir()):
                self.report(f"{path}: holds images beside folders, so its folders are not taken for classes")
            return ImageSplit(path, find_images(path, ignore), np.zeros(0, np.int64), ())
        return find_classes(path, ignore)

    def _embedded(self, path: Path, images: ImageSplit) -> Images:
        """The images as embeddings, with names and classes."""
        quiet_pillow()
        embeddings, errors = self._embeddings([images.path(row) for row in range(len(images))])
        if len(errors) == 1 and self.on_error == "refuse":  # there is room for the reason
            raise InputError(f"{next(iter(errors.values()))}, or leave it out: --on-error skip")
        if errors and self.on_error == "refuse":
            where = path if path.is_dir() else path.parent
            refuse_files(
                where, [images.path(row) for row in errors], "cannot be read as images", "--on-error"
            )
        read = [row for row in range(len(images)) if row not in errors]
        if not read:
            raise InputError(f"{path}: no image can be read; {next(iter(errors.values()))}")
        if errors:
            names = [images.names[row] for row in errors]
            self.report(f"{path}: cannot be read and left out: {printable(listed(names, 20))}")
        left = images.without(list(errors)) if images.class_names else images
        bank = FeatureBank(
            torch.stack([embeddings[row] for row in read]),
            torch.zeros(len(read), dtype=torch.int64),  # one class for all, so that no row moves
            ("unknown",),
            tuple(images.names[row] for row in read),
            provenance=self._provenance(),
            source=str(path),
        )
        bank.check_finite()
        unread = {row: (images.names[row], reason) for row, reason in errors.items()}
        return Images(bank, left.class_names, left.labels if left.class_names else None, unread)

    def _provenance(self) -> dict[str, str]:
        embedder = self.embedder
        return {
            "backbone": embedder.recipe.backbone,
            "recipe": embedder.recipe.dumps(),
            "weights_sha256": self._digest,
        }

    @cached_property
    def _digest(self) -> str:
        return digest(self.embedder.backbone)

    @cached_property
    def _kept(self) -> EmbeddingCache:
        """Embeddings of this backbone, recipe and software."""
        made = [self._digest, self.embedder.recipe.dumps(), *map(version, PACKAGES)]
        return EmbeddingCache(self.cache, " ".join(made), self.report)

    def _embeddings(self, paths: Sequence[Path]) -> tuple[dict[int, Float[Tensor, " E"]], dict[int, str]]:
        """Embeddings by row, and the reasons why others cannot be read."""
        digests = [content_digest(path) for path in paths] if self.cache else [""] * len(paths)
        kept = self._kept.find([digest for digest in digests if digest])
        rows = {row: kept[digest] for row, digest in enumerate(digests) if digest in kept}
        missing = [row for row in range(len(paths)) if row not in rows]
        errors: dict[int, str] = {}
        if not missing:
            return rows, errors
        with (
            image_progress(self.console, len(missing), 0) as advance,
            closing(self.embedder.batches([paths[row] for row in missing])) as batches,
        ):
            for batch in batches:
                some, missing = missing[: len(batch.paths)], missing[len(batch.paths) :]
                reasons = iter(batch.errors)
                errors |= {
                    row: str(next(reasons)) for row, bad in zip(some, batch.unread, strict=True) if bad
                }
                good = [place for place, row in enumerate(some) if row not in errors]
                embeddings = batch.embeddings[good]
                rows |= {some[place]: row for place, row in zip(good, embeddings, strict=True)}
                self._kept.add([digests[some[place]] for place in good], embeddings)
                advance("images", len(some))
        return rows, errors


def _silent(where: Path, files: Sequence[Path], reason: str) -> None:
    """Leave it to the second look to report these files."""


def _check_classes(folder: Path) -> None:
    """Question folders that look like splits, or that hold the folders of the classes.

    Raises:
        InputError: names the folder that is probably meant.
    """
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    splits = {name for names in SPLIT_NAMES.values() for name in names}
    if len(names) > 1 and splits.issuperset(names):
        raise InputError(
            f"{folder}: has the folders {', '.join(names)}, which are splits rather than classes; name one "
            f"of them, such as {folder / names[-1]}"
        )
    inside = {name: [path for path in (folder / name).iterdir() if path.is_dir()] for name in names}
    if names and all(len(folders) > 1 and not _has_images(folder / name) for name, folders in inside.items()):
        raise InputError(
            f"{folder}: holds folders of folders "
            f"({printable(class_name(names[0]))}/{printable(inside[names[0]][0].name)}); name the one whose "
            f"folders are the classes, such as {folder / names[-1]}"
        )


def _has_images(folder: Path) -> bool:
    return any(is_image(path) for path in folder.iterdir())
