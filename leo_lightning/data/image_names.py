"""Images told by the names of their files, and folders that hold some."""

from contextlib import suppress
from pathlib import Path

from PIL import features

READS_AVIF: bool = features.check("avif") or False
"""Whether this Pillow was built with a reader of AVIF."""
SUFFIXES = frozenset(
    [".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"]
    + [".avif"] * READS_AVIF
)

OTHER_PHOTOS = {
    ".arw",
    ".avif",
    ".cr2",
    ".cr3",
    ".dng",
    ".heic",
    ".heif",
    ".jxl",
    ".nef",
    ".orf",
    ".raf",
    ".rw2",
} - SUFFIXES
"""Endings of photos that Pillow cannot read, or not everywhere."""


def is_image(path: Path) -> bool:
    """Tell by its name whether a file is an image."""
    return path.suffix.lower() in SUFFIXES


def is_other_photo(path: Path) -> bool:
    """Tell by its name whether a file is a photo that this Pillow cannot read."""
    return path.suffix.lower() in OTHER_PHOTOS


def class_folders(folder: Path) -> list[Path]:
    """Return the folders in a folder that hold an image, there or one folder deeper."""
    return [path for path in _folders(folder) if any(map(_holds_image, (path, *_folders(path))))]


def _folders(folder: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return []


def _holds_image(folder: Path) -> bool:
    with suppress(OSError):
        return any(is_image(path) for path in folder.iterdir())
    return False
