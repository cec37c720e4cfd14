"""The squares of an image that a backbone sees."""

import torch
from jaxtyping import UInt8
from torch import Tensor

from leo_lightning.images.backbones.recipe import Crop
from leo_lightning.images.decode import center_crop


def views(
    image: UInt8[Tensor, "channels height width"], size: int, crop: Crop
) -> UInt8[Tensor, "V channels S S"]:
    """Cut squares out of an image.

    Args:
        image: at least as large as they are.
        size: S, their side in pixels.
        crop: `center`, the middle (V = 1); or `multiview`, the four corners, the middle, and the same of the
            mirror image (V = 10), as torchvision's `TenCrop` orders them.
    """
    if crop == "center":
        return center_crop(image, size)[None]
    return torch.stack([*_five(image, size), *_five(image.flip(-1), size)])


def _five(image: Tensor, size: int) -> list[Tensor]:
    top, bottom, left, right = slice(size), slice(-size, None), slice(size), slice(-size, None)
    corners = [image[:, rows, columns] for rows in (top, bottom) for columns in (left, right)]
    return [*corners, center_crop(image, size)]
