"""Batches of images that are functions of their number: order and augmentation have no state to lose."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor

from leo_lightning.common.errors import InputError
from leo_lightning.data.hashes import fold
from leo_lightning.data.loader import Stream
from leo_lightning.images.backbones.recipe import Recipe
from leo_lightning.images.decode import open_image, read_image
from leo_lightning.images.folder import ImageSplit

_ORDER, _AUGMENTATION = 1, 2


class ImageBatch(NamedTuple):
    """Some images of a split."""

    images: UInt8[Tensor, "n channels S S"]
    labels: Int64[Tensor, " n"]
    rows: Int64[Tensor, " n"]
    """Number of each image in its split."""


@dataclass(eq=False)
class WholeSplit(Stream):
    """All images of a split once, resized and cropped in the center.

    Args:
        images: of the split.
        preparation: recipe of which the network's part does not matter.
        batch_size: images per batch and process.
        rank, world: number of this process, and of all processes.
    """

    images: ImageSplit
    preparation: Recipe
    batch_size: int
    rank: int = 0
    world: int = 1

    @property
    def batches(self) -> int:
        """Number of batches of this process."""
        return len(range(self.rank, -(-len(self.images) // self.batch_size), self.world))

    def batch(self, number: int) -> ImageBatch | None:
        """Read the images of a batch; None after the last one."""
        rows = np.arange(len(self.images))[self._place(number)]
        return self._collate(rows, self._prepared) if len(rows) else None

    def _place(self, number: int) -> slice:
        """Return the place of a batch of this process among all images."""
        start = (number * self.world + self.rank) * self.batch_size
        return slice(start, start + self.batch_size)

    def _prepared(self, row: int) -> UInt8[Tensor, "channels S S"]:
        from torchvision.transforms.functional import center_crop  # takes seconds

        recipe = self.preparation
        image = read_image(self.images.path(row), recipe.channels, recipe.resize, recipe.interpolation)
        return center_crop(image, [recipe.image_size] * 2)

    def _collate(self, rows: Int64[np.ndarray, " n"], load: Callable[[int], Tensor]) -> ImageBatch:
        images = torch.stack([load(int(row)) for row in rows])
        return ImageBatch(images, torch.from_numpy(self.images.labels[rows]), torch.from_numpy(rows))


@dataclass(eq=False)
class TrainingImages(WholeSplit):
    """Epoch after epoch of augmented images, each in its own order; an epoch's last short batch is left out.

    Args:
        augment: transforms of a Pillow image, in turn; from torchvision.transforms.v2, timm or others. None:
            resize and crop.
        seed: of order and augmentation.

    Raises:
        InputError: there are fewer images than a batch has.
    """

    augment: Sequence[Callable[[Any], Any]] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batches == 0:
            raise InputError(
                f"{self.images.folder}: {len(self.images)} images are fewer than a batch of "
                f"{self.batch_size * self.world}; lower --data.batch_size"
            )

    @property
    def batches(self) -> int:
        """Number of batches of this process in an epoch."""
        return len(self.images) // (self.batch_size * self.world)

    def batch(self, number: int) -> ImageBatch:
        """Read and augment the images of a batch."""
        epoch, place = divmod(number, self.batches)
        rows = _order(self.seed, epoch, len(self.images))[self._place(place)]
        return self._collate(rows, partial(self._augmented, epoch) if self.augment else self._prepared)

    def _augmented(self, epoch: int, row: int) -> UInt8[Tensor, "channels S S"]:
        from torchvision.transforms.functional import pil_to_tensor

        image: Any = open_image(self.images.path(row), self.preparation.channels)
        with _seeded(fold(self.seed, _AUGMENTATION, epoch, row)):
            for transform in self.augment:
                image = transform(image)
        if isinstance(image, Image.Image):
            image = pil_to_tensor(image)
        if isinstance(image, Tensor) and image.is_floating_point():
            image = (image * 255).round().clamp(0, 255).to(torch.uint8)
        size = self.preparation.image_size
        expected = (self.preparation.channels, size, size)
        actual = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        if actual != expected:
            raise InputError(
                f"data.augment turns an image into {actual}, but {expected} is needed; end it with a crop to "
                f"{size} pixels"
            )
        return image


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> Int64[np.ndarray, " count"]:
    """Return the order of the images in an epoch."""
    return np.random.Generator(np.random.PCG64(fold(seed, _ORDER, epoch))).permutation(count)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the generators that transforms use; restore them afterwards."""
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
