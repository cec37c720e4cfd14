"""More training classes out of drawings: each turned by 90, 180 and 270 degrees is another character.

Santoro, Bartunov, Botvinick, Wierstra, Lillicrap: Meta-Learning with Memory-Augmented Neural Networks. ICML
2016, Section 4.1; usual for Omniglot since then.
"""

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

from leo_lightning.images.sources.picture import Picture, Pictures, png_of

_QUARTERS = (1, 2, 3)


def turned(pictures: Pictures) -> Pictures:
    """The same images, and those of the training classes turned, as classes of their own."""
    return Pictures(None, _with_turned(pictures))


def _with_turned(pictures: Pictures) -> Iterator[Picture]:
    for picture in pictures.pictures:
        yield picture
        if picture.split == "train":
            pixels = np.asarray(Image.open(io.BytesIO(picture.png)))
            for quarters in _QUARTERS:
                name = f"{picture.class_name}-turned{90 * quarters}"
                yield picture._replace(class_name=name, png=png_of(np.rot90(pixels, quarters)))
