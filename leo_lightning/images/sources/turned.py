"""More training classes from drawings: rotated by 90, 180 and 270 degrees, each is another character.

Santoro, Bartunov, Botvinick, Wierstra and Lillicrap, "Meta-Learning with Memory-Augmented Neural Networks",
ICML 2016, Section 4.1; common for Omniglot since then.
"""

import io
from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image

from leo_lightning.images.sources.picture import Picture, png_of


def turned(pictures: Iterable[Picture]) -> Iterator[Picture]:
    """Yield the same images, and rotated training images as classes of their own."""
    for picture in pictures:
        yield picture
        if picture.split == "train":
            pixels = np.asarray(Image.open(io.BytesIO(picture.png), formats=["PNG"]))
            for quarters in (1, 2, 3):
                name = f"{picture.class_name}-turned{90 * quarters}"
                yield picture._replace(class_name=name, png=png_of(np.rot90(pixels, quarters)))
