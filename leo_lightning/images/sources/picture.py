"""An image on its way from a source into a tree of folders, and checks that several sources share."""

import io
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from PIL import Image

from leo_lightning.common.errors import InputError, printable
from leo_lightning.data.labels import class_name


class Picture(NamedTuple):
    """One image: where it goes, and the bytes of its PNG file."""

    split: str
    class_name: str
    name: str
    """File name, without .png."""
    png: bytes


class Pictures(NamedTuple):
    """The images of a data set, read one by one."""

    total: int | None
    """Number of images, if it is known."""
    pictures: Iterable[Picture]


def png_of(pixels: np.ndarray) -> bytes:
    """Encode an image, gray (H, W) or RGB (H, W, 3), as PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def check_images(images: object, where: str) -> np.ndarray:
    """Check that images are an array (n, H, W) or (n, H, W, 3) of bytes, and return it.

    Raises:
        InputError: they are anything else.
    """
    if not isinstance(images, np.ndarray):
        raise InputError(f"{where}: the images are a {type(images).__name__}, not an array")
    right_shape = images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)
    if not right_shape or images.dtype != np.uint8 or 0 in images.shape:
        raise InputError(
            f"{where}: the images are {images.dtype} of shape {images.shape}; they must be uint8 of shape "
            "(n, H, W) or (n, H, W, 3)"
        )
    return images


def class_names_of(labels: object, names: object, where: str) -> list[str]:
    """Return the class name of every image.

    Args:
        labels: (n,) whole numbers: positions in `names`.
        names: (C,) different names.
        where: file that they come from, for messages.

    Raises:
        InputError: labels or names are anything else.
    """
    labels, names = (value.tolist() if isinstance(value, np.ndarray) else value for value in (labels, names))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{where}: the class names are not a list of text")
    names = list(map(class_name, names))
    if len(set(names)) < len(names):
        duplicate = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{where}: two classes are called '{printable(duplicate)}'; rename one")
    if not isinstance(labels, list):
        raise InputError(f"{where}: the labels are not a list of whole numbers")
    name_of = {str(number): name for number, name in enumerate(names)}
    for row, label in enumerate(labels):
        if class_name(label) not in name_of:
            raise InputError(
                f"{where}: the label of image {row} is {printable(repr(label)[:60])}; with {len(names)} "
                f"class names it must be a whole number from 0 to {len(names) - 1}"
            )
    return [name_of[class_name(label)] for label in labels]
