"""One image from its file to numbers: upright, resized, in gray or color."""

import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFile, ImageOps
from torch import Tensor

from leo_lightning.common.errors import InputError, one_line
from leo_lightning.data.image_names import READS_AVIF

_MODES = {1: "L", 3: "RGB"}  # of Pillow, by number of channels
_MAX_ASPECT = 1000  # resized, a line would fill the memory
# for EPS, say, Pillow starts a program
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP", *(["AVIF"] if READS_AVIF else []))


def open_image(path: Path, channels: int) -> Image.Image:
    """Read an image, upright, in gray (1 channel) or color (3).

    Transparency becomes white. 16 bits are scaled from 0 to 65,535, floats from 0 to 1.

    Raises:
        InputError: it cannot be read, is not an image, or its brightness has no defined range.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            top = _brightest(image)  # not known any more once the pixels are read
            return _convert(ImageOps.exif_transpose(image), _MODES[channels], top)
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


def _brightest(image: ImageFile.ImageFile) -> int:
    """Return the number that stands for white in the file of an image; raise a ValueError if none does."""
    if image.mode == "F":
        return 1
    if image.mode == "I" and image.format == "TIFF":
        raise ValueError("its numbers have 32 bits or a sign, so none stands for white; save it with 8 bits")
    if image.mode.startswith("I"):
        bits: int = getattr(image, "tag_v2", {}).get(258, (16,))[0]  # of a TIFF; Pillow scales PGM to 16
        return 2**bits - 1
    return 65535 if any(";16" in str(tile.args) for tile in image.tile) else 255


def _convert(image: Image.Image, mode: str, top: int) -> Image.Image:
    if image.mode[0] in "FI":
        values = np.asarray(image, np.float32)
        if not (values.min() >= 0 and values.max() <= top):  # or NaN
            raise ValueError(f"its numbers are not between 0 and {top}; scale them, or save it with 8 bits")
        image = Image.fromarray((values * (255 / top)).round().astype(np.uint8))
    if top != 255 and np.asarray(image.convert("L")).max() <= 16:  # 12 bits of 16 reach 15.9
        raise ValueError(
            f"it would become black: its numbers stay below {top} / 16; scale them, or save it with 8 bits"
        )
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)
