"""Make a folder of photos to try things on: `python -m examples.photos DST`.

Each of the 26 classes is one sample picture of scikit-image, scikit-learn or matplotlib: DST/CLASS/N.ENDING.
An image is a random part of it, turned, mirrored and lit at random, in one of six formats. With --damaged,
some files are not what they seem, as in real folders.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

SCIKIT_IMAGE = (
    "astronaut", "brick", "camera", "cell", "chelsea", "clock_motion", "coffee", "coins", "color", "grass",
    "gravel", "horse", "hubble_deep_field", "ihc", "logo", "microaneurysms", "moon", "motorcycle_left",
    "page", "retina", "rocket", "text",
)  # fmt: skip
FORMATS = ("jpg", "png", "webp", "bmp", "gif", "tiff")


def pictures() -> dict[str, Path]:
    """Paths of the sample pictures by class."""
    import matplotlib
    import skimage
    import sklearn

    places = {
        Path(skimage.__file__).parent / "data": SCIKIT_IMAGE,
        Path(sklearn.__file__).parent / "datasets" / "images": ("china", "flower"),
        Path(matplotlib.get_data_path(), "sample_data"): ("grace_hopper", "Minduka_Present_Blue_Pack"),
    }
    return {
        name: next(path for path in folder.glob(f"{name}.*") if path.suffix in (".png", ".jpg"))
        for folder, names in places.items()
        for name in names
    }


def views(path: Path, count: int, generator: np.random.Generator) -> list[Image.Image]:
    """Random parts of a picture, between 20 and 50% of its shorter side; half of them gray."""
    with Image.open(path) as picture:
        whole = picture.convert("RGB")
    parts = []
    for _ in range(count):
        side = round(min(whole.size) * generator.uniform(0.2, 0.5))
        left, top = (int(generator.integers(length - side + 1)) for length in whole.size)
        part = whole.crop((left, top, left + side, top + side)).resize((180, 150))
        part = part.rotate(generator.uniform(-30, 30), Image.Resampling.BILINEAR)
        if generator.random() < 0.5:
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if generator.random() < 0.5:
            part = part.convert("L").convert("RGB")
        parts.append(ImageEnhance.Brightness(part).enhance(generator.uniform(0.5, 1.5)))
    return parts


def make(dst: Path, images: int = 24, seed: int = 0) -> None:
    """Write the photos of all classes."""
    for number, (name, path) in enumerate(pictures().items()):
        generator = np.random.default_rng([seed, number])
        (dst / name).mkdir(parents=True)
        for place, view in enumerate(views(path, images, generator)):
            view.save(dst / name / f"{place:02d}.{FORMATS[place % len(FORMATS)]}")


def damage(dst: Path) -> None:
    """Add files that are cut short, empty, of another kind, or that Pillow cannot read."""
    whole = (dst / "astronaut" / "00.jpg").read_bytes()
    (dst / "astronaut" / "cut.jpg").write_bytes(whole[: len(whole) // 3])
    (dst / "coffee" / "empty.png").touch()
    (dst / "coins" / "page.jpg").write_text("<!DOCTYPE html><title>404</title>")
    (dst / "rocket" / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    (dst / "rocket" / "camera.cr2").write_bytes(b"II*\0")
    (dst / "notes.txt").write_text("where the photos are from")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dst", type=Path)
    parser.add_argument("--images", type=int, default=24, help="of each class")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--damaged", action="store_true", help="add files that cannot be used")
    typed = parser.parse_args()
    make(typed.dst, typed.images, typed.seed)
    if typed.damaged:
        damage(typed.dst)
