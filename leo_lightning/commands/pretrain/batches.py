"""Batches of images that are functions of their number: order and augmentation have no state to lose."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor

from leo_lightning.common.errors import InputError
from leo_lightning.data.hashes import fold
from leo_lightning.data.loader import Stream
from leo_lightning.images.backbones.recipe import Preparation
from leo_lightning.images.decode import center_crop, open_image, pixels, read_image
from leo_lightning.images.folder import ImageSplit

_ORDER, _AUGMENTATION = 1, 2


class ImageBatch(NamedTuple):
    """Some images of a split."""

    images: UInt8[Tensor, "n channels S S"]
    labels: Int64[Tensor, " n"]
    rows: Int64[Tensor, " n"]
    """Number of each image in its split."""


class TrainingImages(Stream):
    """Epoch after epoch of augmented images, each in an order of its own; the last short batch is left out.

    Args:
        images: of the training classes.
        preparation: what the network sees.
        augment: transforms, one after the other, of a Pillow image; by torchvision.transforms.v2, timm or
            anybody else.
        batch_size: images per batch and process.
        seed: of order and augmentation.
        rank, world: this process among all.

    Raises:
        InputError: there are fewer images than a batch has.
    """

    def __init__(
        self,
        images: ImageSplit,
        preparation: Preparation,
        augment: Sequence[Callable[[Any], Any]],
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.images = images
        self.preparation = preparation
        self.augment = augment
        self.batch_size = batch_size
        self.seed = seed
        self.rank, self.world = rank, world
        if self.batches == 0:
            raise InputError(
                f"{images.folder}: {len(images)} images are fewer than a batch of {batch_size * world}; "
                "lower --data.batch_size"
            )

    @property
    def batches(self) -> int:
        """See `Stream`."""
        return len(self.images) // (self.batch_size * self.world)

    def batch(self, number: int) -> ImageBatch:
        """See `Stream`."""
        epoch, place = divmod(number, self.batches)
        start = (place * self.world + self.rank) * self.batch_size
        rows = _order(self.seed, epoch, len(self.images))[start : start + self.batch_size]
        return _collate(self.images, rows, lambda row: self._augmented(epoch, row))

    def _augmented(self, epoch: int, row: int) -> UInt8[Tensor, "channels S S"]:
        path, size = self.images.path(row), self.preparation.image_size
        if not self.augment:
            return _plain(self.images, row, self.preparation)
        image: Any = open_image(path, self.preparation.channels)
        with _seeded(fold(self.seed, _AUGMENTATION, epoch, row)):
            for transform in self.augment:
                image = transform(image)
        if isinstance(image, Image.Image):
            image = pixels(image)
        if isinstance(image, Tensor) and image.is_floating_point():
            image = (image * 255).round().clamp(0, 255).to(torch.uint8)
        wanted = (self.preparation.channels, size, size)
        if not isinstance(image, Tensor) or tuple(image.shape) != wanted:
            found = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
            raise InputError(
                f"data.augment makes {found} of an image where {wanted} is needed; end it with a crop to "
                f"{size} pixels"
            )
        return image


class WholeSplit(Stream):
    """All images of a split once, resized and cropped in the middle.

    Args:
        images: of the split.
        preparation: what the network sees.
        batch_size: images per batch.
        rank, world: this process among all.
    """

    def __init__(
        self, images: ImageSplit, preparation: Preparation, batch_size: int, rank: int = 0, world: int = 1
    ) -> None:
        self.images = images
        self.preparation = preparation
        self.batch_size = batch_size
        self.rank, self.world = rank, world

    @property
    def batches(self) -> int:
        """See `Stream`."""
        return len(range(self.rank, -(-len(self.images) // self.batch_size), self.world))

    def batch(self, number: int) -> ImageBatch | None:
        """See `Stream`."""
        start = (number * self.world + self.rank) * self.batch_size
        rows = np.arange(start, min(start + self.batch_size, len(self.images)))
        if not len(rows):
            return None
        return _collate(self.images, rows, lambda row: _plain(self.images, row, self.preparation))


def _collate(images: ImageSplit, rows: Int64[np.ndarray, " n"], load: Callable[[int], Tensor]) -> ImageBatch:
    return ImageBatch(
        torch.stack([load(int(row)) for row in rows]),
        torch.from_numpy(images.labels[rows]),
        torch.from_numpy(rows),
    )


def _plain(images: ImageSplit, row: int, preparation: Preparation) -> UInt8[Tensor, "channels S S"]:
    image = read_image(images.path(row), preparation.channels, preparation.resize)
    return center_crop(image, preparation.image_size)


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> Int64[np.ndarray, " count"]:
    """The order of an epoch's images."""
    return np.random.Generator(np.random.PCG64(fold(seed, _ORDER, epoch))).permutation(count)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Set the generators that transforms take their numbers from; leave them as they were."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
