"""Support sets whose classes have unequal numbers of images, for use after training.

Tasks stay a batch: each class has its images first in its row of the support, and zeros behind them. Zeros
already drop out of much by themselves, such as the inner gradients of linear classifiers.
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from leo_lightning.common.errors import InputError


def packed(
    support: Float[Tensor, "B N K E"], valid: Bool[Tensor, "B N K"] | None
) -> tuple[Float[Tensor, "B N most E"], Int64[Tensor, "B N"] | None]:
    """Move the images of each class to the front of its row, and put zeros behind them.

    Args:
        support: images and padding, in any order.
        valid: False where a row is padding; None: nowhere.

    Returns:
        The support, no longer than its largest class, and how many images each class has; None if all have
        as many.

    Raises:
        InputError: a class has no image.
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
    """Places of the images of each row in their order, then those of the padding."""
    return valid.int().argsort(dim=-1, descending=True, stable=True)


def present(images: Float[Tensor, "B N K D"], shots: Int64[Tensor, "B N"]) -> Bool[Tensor, "B N K"]:
    """False behind the images of a class."""
    return torch.arange(images.shape[2], device=images.device) < shots[..., None]


def class_sum(images: Float[Tensor, "B N K D"], shots: Int64[Tensor, "B N"] | None) -> Float[Tensor, "B N D"]:
    """Sum over the images of each class; shots None: K of them."""
    return images.sum(2) if shots is None else images.where(present(images, shots)[..., None], 0.0).sum(2)


def class_mean(
    images: Float[Tensor, "B N K D"], shots: Int64[Tensor, "B N"] | None
) -> Float[Tensor, "B N D"]:
    """Mean over the images of each class; shots None: K of them."""
    return images.mean(2) if shots is None else class_sum(images, shots) / shots[..., None]
