"""One image from its file to numbers: turned as the camera meant it, resized, in grey or colour."""

import warnings
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from leo_lightning.common.errors import InputError, printable

_LONGEST = 1000  # times the shorter side

MODES = {1: "L", 3: "RGB"}
"""What Pillow calls grey and colour, by number of channels."""


def open_image(path: Path, channels: int) -> Image.Image:
    """Read an image, turned as the camera meant it.

    What is transparent becomes white; 16-bit grey is scaled to 8 bits.

    Args:
        path: any format that Pillow knows.
        channels: 1 for grey, 3 for colour.

    Raises:
        InputError: it is damaged, or no image.
    """
    try:
        with Image.open(path) as image:
            return _in_mode(ImageOps.exif_transpose(image), MODES[channels])
    # A damaged file can fail in many ways: struct.error, SyntaxError, EOFError, …
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise InputError(f"{path}: cannot be read ({error.strerror}); mend that") from None
        reason = str(error).replace(f" {str(path)!r}", "") or type(error).__name__
        reason = printable(" ".join(reason.split()))
        raise InputError(
            f"{path}: is no whole image ({reason}); remove it, or put a good copy there"
        ) from None


def read_image(
    path: Path, channels: int, shorter_side: int, interpolation: str = "bicubic"
) -> UInt8[Tensor, "channels height width"]:
    """Read an image and resize it, its proportions kept, as torchvision's `Resize` does.

    Args:
        path: any format that Pillow knows.
        channels: 1 for grey, 3 for colour.
        shorter_side: pixels of the shorter side after that.
        interpolation: bicubic or bilinear.

    Raises:
        InputError: it is damaged, or no image, or a line that would become as long as to fill the memory.
    """
    image = open_image(path, channels)
    width, height = image.size
    shorter = min(width, height)
    if max(width, height) > _LONGEST * shorter:
        raise InputError(
            f"{path}: has {width} × {height} pixels, as a line has; remove it, or cut it to size"
        )
    size = int(shorter_side * width / shorter), int(shorter_side * height / shorter)
    return pixels(
        image if size == image.size else image.resize(size, Image.Resampling[interpolation.upper()])
    )


def pixels(image: Image.Image) -> UInt8[Tensor, "channels height width"]:
    """The numbers of an image in grey or colour."""
    values = torch.from_numpy(np.array(image))
    return values[None] if values.dim() == 2 else values.permute(2, 0, 1).contiguous()


def quiet_pillow() -> None:
    """Leave out what Pillow remarks on images that it can read, such as a date in disorder."""
    warnings.filterwarnings("ignore", module=r"PIL\.")


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def center_crop(images: UInt8[Tensor, "*n channels height width"], size: int) -> Tensor:
    """The middle square of images at least as large, as torchvision's `CenterCrop` has it."""
    height, width = images.shape[-2:]
    top, left = round((height - size) / 2), round((width - size) / 2)
    return images[..., top : top + size, left : left + size]
