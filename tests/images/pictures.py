"""Image files to test with."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int = 0, width: int = 40, height: int = 32, mode: str = "RGB") -> Image.Image:
    """An image of smooth noise: resizing and cropping it wrongly shows."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def save(path: Path, seed: int = 0, width: int = 40, height: int = 32) -> Path:
    """Write an image file, and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, width, height).save(path)
    return path


TREE = {"train": {"cat": 4, "dog": 3}, "val": {"owl": 2}, "test": {"fox": 3}}


def tree(root: Path, splits: Mapping[str, Mapping[str, int]] = TREE) -> Path:
    """Write splits of classes, each with a number of images."""
    seed = 0
    for split, classes in splits.items():
        for name, number in classes.items():
            for i in range(number):
                save(root / split / name / f"{i}.png", seed := seed + 1)
    return root


def broken_exif(path: Path) -> Path:
    """An image whose EXIF orientation is cut short."""
    picture(3).save(path, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12\0\x03\0\0\0\x01\0\x06")
    return path


def damaged(folder: Path) -> dict[str, Path]:
    """Damaged files named like images, by the kind of damage."""
    folder.mkdir(parents=True, exist_ok=True)
    good = {suffix: save(folder / f"good.{suffix}", 1, 200, 160).read_bytes() for suffix in ("png", "jpg")}
    for suffix in good:
        (folder / f"good.{suffix}").unlink()
    contents = {
        "truncated.png": good["png"][: len(good["png"]) // 2],
        "truncated.jpg": good["jpg"][: len(good["jpg"]) // 2],
        "header_only.jpg": good["jpg"][:20],
        "text.png": b"no image\n",
        "empty.jpg": b"",
        "broken_checksum.png": good["png"][:20] + b"\xff\xff" + good["png"][22:],
        "web_page.gif": b"<!DOCTYPE html><html></html>",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {Path(name).stem: folder / name for name in contents}
