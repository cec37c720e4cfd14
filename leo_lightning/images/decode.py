"""One image from its file to numbers: upright, resized, in gray or color."""

import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from leo_lightning.common.errors import InputError, one_line

_MODES = {1: "L", 3: "RGB"}  # of Pillow, by number of channels
_MAX_ASPECT = 1000  # resized, a line would fill the memory


def open_image(path: Path, channels: int) -> Image.Image:
    """Read an image in any format that Pillow knows, upright, in gray (1 channel) or color (3).

    Transparency becomes white; 16-bit gray is scaled to 8 bits.

    Raises:
        InputError: it cannot be read, or is not an image.
    """
    try:
        with Image.open(path) as image:
            return _convert(ImageOps.exif_transpose(image), _MODES[channels])
    except Exception as error:  # struct.error, SyntaxError, EOFError, … for a damaged file
        reason = (isinstance(error, OSError) and error.strerror) or one_line(error)
        reason = reason.replace(f" {str(path)!r}", "")
        raise InputError(f"{path}: cannot be read as an image ({reason}); replace or remove it") from None


def read_image(
    path: Path, channels: int, shorter_side: int, interpolation: str = "bicubic"
) -> UInt8[Tensor, "channels height width"]:
    """Read an image and resize it, keeping its proportions, as torchvision's `Resize` does.

    Args:
        path: of the image.
        channels: 1 for gray, 3 for color.
        shorter_side: its length after resizing, in pixels.
        interpolation: bicubic or bilinear.

    Raises:
        InputError: it cannot be read, is not an image, or is so long that resizing would fill the memory.
    """
    from torchvision.transforms import InterpolationMode, Resize  # takes seconds
    from torchvision.transforms.functional import pil_to_tensor

    image = open_image(path, channels)
    if max(image.size) > _MAX_ASPECT * min(image.size):
        raise InputError(f"{path}: has {image.width} × {image.height} pixels; crop it, or remove it")
    return pil_to_tensor(Resize(shorter_side, InterpolationMode(interpolation))(image))


def quiet_pillow() -> None:
    """Silence Pillow's warnings about images that it can read, such as a malformed date."""
    warnings.filterwarnings("ignore", module=r"PIL\.")


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)
