"""Small images of made-up classes, which a small network can learn."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 16


def draw(folder: Path, count: int, seed: int, size: int = SIZE) -> None:
    """Noisy copies of one random pattern."""
    random = np.random.default_rng(seed)
    pattern = random.uniform(0, 255, (4, 4)).repeat(size // 4, 0).repeat(size // 4, 1)
    folder.mkdir(parents=True)
    for number in range(count):
        noisy = pattern + random.normal(0, 60, (size, size))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number:02d}.png")


def tree(root: Path, train: int = 6, val: int = 4, images: int = 12, size: int = SIZE) -> Path:
    """A train and a val split."""
    for split, classes in (("train", train), ("val", val)):
        for number in range(classes):
            draw(root / split / f"{split}{number}", images, 100 * len(split) + number, size)
    return root
