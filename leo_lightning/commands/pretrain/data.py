"""ImageDataModule: images of training classes to learn, and of validation classes to validate on."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from leo_lightning.commands.pretrain.batches import TrainingImages, WholeSplit
from leo_lightning.common.errors import InputError, check_least
from leo_lightning.data.loader import StreamDataModule, StreamLoader
from leo_lightning.images.backbones.recipe import IMAGENET_MEAN, IMAGENET_STD, Interpolation, Recipe
from leo_lightning.images.decode import open_image
from leo_lightning.images.folder import ImageSplit, OnBadFiles, OnError, find_splits, refuse_files, skip_files

_GRAY_MEAN, _GRAY_STD = 0.5, 0.5


class ImageDataModule(StreamDataModule):
    """Images of a train and a val split that share no class.

    Args:
        root: folder of images: {train,val}/CLASS/IMAGE, or train.csv and val.csv (columns filename, label)
            beside images/.
        image_size: S, side of the square that the network sees, in pixels; null: as model.weights were
            trained, or 84.
        resize: shorter side of images before the center is cropped, for validation and features; null: as the
            weights, or 8/7 of image_size.
        channels: 3 for color, 1 for gray; null: as the weights, or 3.
        interpolation: filter for resizing; null: as the weights, or bicubic.
        mean: subtracted from each channel of values in [0, 1]; null: as the weights, or ImageNet's, or
            0.5 for gray.
        std: divisor of each channel after that; null: as mean.
        augment: transforms of training images, in turn: classes of torchvision.transforms.v2, of timm or your
            own that take a Pillow image; the last one crops to image_size. null: none.
        batch_size: images per step and process.
        eval_batch_size: images per forward pass in validation; results do not depend on it.
        num_workers: processes that read and augment images; 0: the main process does.
        on_error: refuse to start if a file is not an image or is damaged, or skip and report such files.
        seed: of order and augmentation; null: seed_everything.
    """

    def __init__(
        self,
        root: str,
        image_size: int | None = None,
        resize: int | None = None,
        channels: int | None = None,
        interpolation: Interpolation | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        augment: list[Callable[[Any], Any]] | None = None,
        batch_size: int = 128,
        eval_batch_size: int = 128,
        num_workers: int = 2,
        on_error: OnError = "refuse",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_least(1, {"data.batch_size": batch_size, "data.eval_batch_size": eval_batch_size})
        check_least(0, {"data.num_workers": num_workers})
        self.root = Path(root)
        image_size = 84 if image_size is None else image_size
        channels = 3 if channels is None else channels
        try:
            self.preparation = Recipe(
                "",
                channels=channels,
                image_size=image_size,
                resize=round(image_size * 8 / 7) if resize is None else resize,
                interpolation=interpolation or "bicubic",
                mean=tuple(mean) if mean else IMAGENET_MEAN if channels == 3 else (_GRAY_MEAN,),
                std=tuple(std) if std else IMAGENET_STD if channels == 3 else (_GRAY_STD,),
            )
        except InputError as error:
            raise InputError(f"data.{error}") from None
        self.augment = augment or []
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.num_workers = num_workers
        self._on_bad_files: OnBadFiles = partial(refuse_files, flag="--data.on_error")
        if on_error == "skip":
            self._on_bad_files = partial(skip_files, report=partial(print, "note:", file=sys.stderr))
        self.seed = seed or 0
        self._checked: set[str] = set()

    @cached_property
    def splits(self) -> dict[str, ImageSplit]:
        """The images of train and val."""
        splits = find_splits(self.root, self._on_bad_files)
        for split in ("train", "val"):
            if split not in splits:
                raise InputError(f"{self.root}: has no split '{split}'; pre-training needs train and val")
        return splits

    @property
    def classes(self) -> int:
        """Number of training classes."""
        return len(self.splits["train"].class_names)

    def setup(self, stage: str) -> None:
        """Read every image once, so that a damaged one does not end the training after hours."""
        for split in ("train", "val") if stage == "fit" else ("val",):
            if split not in self._checked:
                self.splits[split] = self._readable(self.splits[split])
                self._checked.add(split)

    def _readable(self, images: ImageSplit) -> ImageSplit:
        """Return the split without the images that cannot be read."""

        def is_readable(row: int) -> bool:
            try:
                open_image(images.path(row), self.preparation.channels)
            except InputError:
                return False
            return True

        console = Console(stderr=True)
        with ThreadPoolExecutor() as threads:
            readable = track(
                threads.map(is_readable, range(len(images))),
                description=f"reading {images.folder.name}",
                total=len(images),
                console=console,
                transient=True,
                disable=not console.is_terminal,
            )
            damaged = [row for row, good in enumerate(readable) if not good]
        if damaged:
            self._on_bad_files(images.folder, [images.path(row) for row in damaged], "damaged images")
        return images.without(damaged)

    # Lightning's hooks

    def train_dataloader(self) -> StreamLoader:
        """Load batches without end; an epoch is one pass through the images."""
        stream = TrainingImages(
            self.splits["train"],
            self.preparation,
            self.batch_size,
            augment=self.augment,
            seed=self.seed,
            **self.processes,
        )
        return StreamLoader(stream, self.num_workers, self.batches_done)

    def val_dataloader(self) -> StreamLoader:
        """Load the validation images once."""
        stream = WholeSplit(self.splits["val"], self.preparation, self.eval_batch_size, **self.processes)
        return StreamLoader(stream, self.num_workers)
