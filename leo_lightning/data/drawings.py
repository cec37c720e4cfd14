"""The images that features were made of, if they lie beside them: pictures show them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

DRAWINGS = "drawings.npz"
"""File among the features, as `images import` reads it."""


def drawings_beside(features: Path | None, names: Sequence[str] | None) -> UInt8[np.ndarray, "n H W"] | None:
    """Return the images with these names; None if the folder of features does not hold them.

    `images import` named each image by its row in the file.
    """
    if features is None or names is None or not (features / DRAWINGS).is_file():
        return None
    with np.load(features / DRAWINGS, allow_pickle=False) as arrays:
        return arrays["images"][[int(Path(name).stem) for name in names]]
