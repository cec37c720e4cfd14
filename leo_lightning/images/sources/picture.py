"""An image on its way from a source into a tree of folders, and what the formats share."""

import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

import numpy as np
from PIL import Image

from leo_lightning.common.errors import InputError, printable

_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


class Picture(NamedTuple):
    """One image: where it goes, and the bytes of its PNG file."""

    split: str
    class_name: str
    name: str
    """Of the file, without .png."""
    png: bytes


class Pictures(NamedTuple):
    """The images of a data set, read as they are asked for."""

    total: int | None
    """How many; None if that is not known before."""
    pictures: Iterable[Picture]


def png_of(pixels: np.ndarray) -> bytes:
    """Encode an image, (H, W) of greys or (H, W, 3) of red, green and blue, as PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def check_png(png: bytes, where: str) -> None:
    """Check that bytes begin and end as a PNG file; they are not decoded.

    Raises:
        InputError: they do not.
    """
    if not (png.startswith(_PNG_START) and png.endswith(_PNG_END)):
        raise InputError(f"{where}: is no whole PNG file; copy or download it again")


def check_images(images: object, where: str) -> np.ndarray:
    """Return images that are an array (n, H, W) or (n, H, W, 3) of bytes.

    Raises:
        InputError: they are something else.
    """
    if not isinstance(images, np.ndarray):
        raise InputError(f"{where}: the images are a {type(images).__name__}, not an array")
    good_shape = images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)
    if not good_shape or images.dtype != np.uint8 or 0 in images.shape:
        raise InputError(
            f"{where}: the images are {images.dtype} of shape {images.shape}; they must be uint8 of shape "
            "(n, H, W) or (n, H, W, 3)"
        )
    return images


def check_labels(labels: object, images: int, classes: int, where: str) -> list[int]:
    """Return labels that are one number per image, the place of its class in the list of names.

    Raises:
        InputError: they are something else.
    """
    if isinstance(labels, np.ndarray) and labels.ndim == 1:
        labels = labels.tolist()
    if not isinstance(labels, list) or len(labels) != images:
        raise InputError(f"{where}: there are {images} images, and not as many labels")
    wrong = [row for row, label in enumerate(labels) if type(label) is not int or not 0 <= label < classes]
    if wrong:
        raise InputError(
            f"{where}: the label of image {wrong[0]} is {printable(repr(labels[wrong[0]])[:60])}; with "
            f"{classes} class names it must be a whole number from 0 to {classes - 1}"
        )
    return cast(list[int], labels)


def check_names(names: object, where: str) -> list[str]:
    """Return names that are a list of different texts.

    Raises:
        InputError: they are something else.
    """
    if isinstance(names, np.ndarray) and names.ndim == 1:
        names = names.tolist()
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"{where}: the class names are not a list of names")
    texts = cast(Sequence[str], names)
    (most, times), *_ = Counter(texts).most_common(1)
    if times > 1:
        raise InputError(f"{where}: two classes are called '{printable(most)}'; give one another name")
    return list(texts)


def check_member(name: str, where: str) -> None:
    """Refuse an archive that has a file which would lie outside of the folder that it is unpacked in.

    Nothing is unpacked under its own name here; an archive with such a name was made to do harm.

    Raises:
        InputError: names the file.
    """
    if name.startswith(("/", "\\")) or re.match("[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name):
        raise InputError(
            f"{where}: holds '{printable(name)}', which would lie outside of the archive's folder; do not "
            "use this archive"
        )
