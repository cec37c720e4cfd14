"""Support sets whose classes have unequal numbers of images, for use after training.

Tasks stay a batch: each class has its images first in its row of the support, and zeros behind them.
"""

from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from leo_lightning.common.errors import InputError

Shots: TypeAlias = Int64[Tensor, "B N"] | None
"""Number of images of each class, the first in its row of the support; None: all have K."""


def packed(
    support: Float[Tensor, "B N K E"], valid: Bool[Tensor, "B N K"] | None
) -> tuple[Float[Tensor, "B N most E"], Shots]:
    """Move the images of each class to the front of its row, and put zeros behind them.

    The result is no longer than the largest class. A class without an image is an InputError.
    """
    if valid is None or valid.all():
        return support, None
    shots = valid.sum(2)
    if not shots.all():
        task, row = (shots == 0).nonzero()[0].tolist()
        of_task = f" of task {task}" if len(shots) > 1 else ""
        raise InputError(f"class {row}{of_task} has no example: give every class at least one")
    most = int(shots.max())
    order = images_first(valid)[:, :, :most]
    images = support.where(valid[..., None], 0.0).take_along_dim(order[..., None], dim=2)
    return images, None if (shots == most).all() else shots


def images_first(valid: Bool[Tensor, "*rows images"]) -> Int64[Tensor, "*rows images"]:
    """Places of the images of each row in their order, then the places of the padding."""
    return valid.int().argsort(dim=-1, descending=True, stable=True)


def present(images: Float[Tensor, "B N K D"], shots: Int64[Tensor, "B N"]) -> Bool[Tensor, "B N K"]:
    """True for the images of a class, False for the padding behind them."""
    return torch.arange(images.shape[2], device=images.device) < shots[..., None]


def present_images(images: Float[Tensor, "B N K D"], shots: Shots) -> Bool[Tensor, "B M"] | None:
    """`present` for the M = N·K rows of each task; None without padding."""
    return None if shots is None else present(images, shots).flatten(1)


def class_sum(images: Float[Tensor, "B N K D"], shots: Shots) -> Float[Tensor, "B N D"]:
    """Sum over the images of each class."""
    return images.sum(2) if shots is None else images.where(present(images, shots)[..., None], 0.0).sum(2)


def class_mean(images: Float[Tensor, "B N K D"], shots: Shots) -> Float[Tensor, "B N D"]:
    """Mean over the images of each class."""
    return images.mean(2) if shots is None else class_sum(images, shots) / shots[..., None]


def balanced(images: Float[Tensor, "B N K D"], shots: Int64[Tensor, "B N"]) -> Float[Tensor, "B M"]:
    """Weights of the M = N·K images with which all classes weigh the same: n / (N nᵢ), and 0 for padding.

    nᵢ of all n images of the task are of the image's class. The weights add up to n.
    """
    counts = shots.to(images.dtype)[..., None]
    return (present(images, shots) * (counts.mean(1, keepdim=True) / counts)).flatten(1)


class ShotWeights(NamedTuple):
    """Weights of images, and of copies of a class's code, in the inner loop of LEO.

    The paper has equal shots only: K copies of a class's code, whose classifiers are averaged, and a loss
    that is a sum over images. Where shots differ, a class has as many copies as images. With C images per
    class on average, rates are α / C and η / C, and an image of a class that has k weighs C / k: all classes
    weigh the same. If all images weighed 1, adaptation would take their numbers for class frequencies.
    """

    copies: int | Float[Tensor, "B 1 1"]
    """C. Each copy enters the logits through the mean over the copies: 1 / C of the gradient is its own."""
    copy_weights: Float[Tensor, "B N C 1"] | None = None
    """Weight of each copy in the mean over its class; None: 1 / C."""
    image_weights: Float[Tensor, "B 1 M"] | None = None
    """Weight of each image in the support loss; None: 1."""

    @classmethod
    def of(cls, support: Float[Tensor, "B N K E"], shots: Shots) -> "ShotWeights":
        """Weights for a support set."""
        K = support.shape[2]
        if shots is None:
            return cls(K)
        counts = shots.to(support.dtype)[..., None]
        average = counts.mean(1, keepdim=True)
        image_weights = (average / counts).expand(-1, -1, K).flatten(1)[:, None]
        return cls(average, (present(support, shots) / counts)[..., None], image_weights)
