"""ImageDataModule: images of training classes to learn from, those of validation classes to judge by."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import track

from leo_lightning.commands.pretrain.batches import TrainingImages, WholeSplit
from leo_lightning.common.errors import InputError, check_least
from leo_lightning.data.loader import StreamLoader
from leo_lightning.images.backbones.recipe import IMAGENET_MEAN, IMAGENET_STD, Preparation
from leo_lightning.images.decode import open_image
from leo_lightning.images.folder import REMOVE, ImageSplit, OnError, find_splits, judge

_GREY_MEAN, _GREY_STD = 0.5, 0.5
SKIP = f"{REMOVE}, or leave them out: --data.on_error skip"


class ImageDataModule(pl.LightningDataModule):
    """Images of a train and a val split that share no class.

    Args:
        root: folder of images: {train,val}/CLASS/IMAGE, or train.csv and val.csv (columns filename, label)
            beside images/.
        image_size: S, side of the square that the network sees, in pixels.
        resize: shorter side that images are resized to before the middle is cropped, as for validation and
            features; null: 8/7 of image_size.
        channels: 3 for colour, 1 for grey.
        mean: subtracted from each channel of values in [0, 1]; null: ImageNet's, or 0.5 for grey.
        std: which each channel is divided by; null: as mean.
        augment: transforms of training images, one after the other: classes of torchvision.transforms.v2, of
            timm or your own, that take a Pillow image; the last one crops to image_size. null: none.
        batch_size: images per step and process.
        eval_batch_size: images embedded at once in validation; changes no result.
        num_workers: processes that read and augment images; 0: the main one does.
        on_error: of damaged files and of files that are no images: refuse to begin, or name and skip them.
        seed: of order and augmentation; null: that of seed_everything.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 84,
        resize: int | None = None,
        channels: int = 3,
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
        try:
            self.preparation = Preparation(
                channels,
                image_size,
                round(image_size * 8 / 7) if resize is None else resize,
                tuple(mean) if mean else IMAGENET_MEAN if channels == 3 else (_GREY_MEAN,),
                tuple(std) if std else IMAGENET_STD if channels == 3 else (_GREY_STD,),
            )
        except InputError as error:
            raise InputError(f"data.{error}") from None
        self.augment = augment or []
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.num_workers = num_workers
        self.on_error: OnError = on_error
        self.seed = seed or 0
        self._splits: dict[str, ImageSplit] | None = None
        self._read: set[str] = set()

    @property
    def splits(self) -> dict[str, ImageSplit]:
        """The images of train and val.

        Raises:
            InputError: there are none.
        """
        if self._splits is None:
            found = find_splits(self.root, self.on_error, _say, SKIP)
            for split in ("train", "val"):
                if split not in found:
                    raise InputError(
                        f"{self.root}: has no split '{split}'; pre-training learns from train, judged by val"
                    )
            self._splits = {split: found[split] for split in ("train", "val")}
        return self._splits

    @property
    def classes(self) -> int:
        """Number of classes to learn."""
        return len(self.splits["train"].class_names)

    def setup(self, stage: str) -> None:
        """Read every image once, so that no damaged one ends the training after hours."""
        wanted = self.splits if stage == "fit" else {"val": self.splits["val"]}
        new = {split: self._whole(images) for split, images in wanted.items() if split not in self._read}
        self._splits = self.splits | new
        self._read |= set(new)

    def _whole(self, images: ImageSplit) -> ImageSplit:
        """The split without the images that cannot be read."""
        is_whole = partial(_is_whole, images, self.preparation.channels)
        with ThreadPoolExecutor() as threads:
            console = Console(stderr=True)
            bar = partial(track, description=f"reading {images.folder.name}", transient=True, console=console)
            whole = list(
                bar(
                    threads.map(is_whole, range(len(images))),
                    total=len(images),
                    disable=not console.is_terminal,
                )
            )
        bad = [row for row, good in enumerate(whole) if not good]
        judge(images.folder, [images.path(row) for row in bad], "not whole images", self.on_error, _say, SKIP)
        return images.without(bad) if bad else images

    # Lightning's hooks

    def train_dataloader(self) -> StreamLoader:
        """Batches without end; an epoch goes through the images once."""
        stream = TrainingImages(
            self.splits["train"],
            self.preparation,
            self.augment,
            self.batch_size,
            self.seed,
            **self._processes(),
        )
        return StreamLoader(stream, self.num_workers, self._batches_done)

    def val_dataloader(self) -> StreamLoader:
        """The validation images once."""
        stream = WholeSplit(self.splits["val"], self.preparation, self.eval_batch_size, **self._processes())
        return StreamLoader(stream, self.num_workers)

    def _processes(self) -> dict[str, int]:
        trainer = self.trainer
        return {} if trainer is None else {"rank": trainer.global_rank, "world": trainer.world_size}

    def _batches_done(self) -> int:
        trainer = self.trainer
        if trainer is None or trainer.overfit_batches:  # pyright: ignore[reportAttributeAccessIssue]
            return 0
        return trainer.fit_loop.epoch_loop.batch_progress.total.ready


def _is_whole(images: ImageSplit, channels: int, row: int) -> bool:
    try:
        open_image(images.path(row), channels)
    except InputError:
        return False
    return True


def _say(line: str) -> None:
    Console(stderr=True).print(f"note: {line}", markup=False, highlight=False, soft_wrap=True)
