"""Training classes rotated by right angles."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from leo_lightning.images.sources.picture import Picture, png_of
from leo_lightning.images.sources.turned import turned
from tests.tiny_run import main

DRAWING = np.arange(12, dtype=np.uint8).reshape(3, 4)


def test_only_training_classes_are_rotated():
    """Catches rotated test classes, which make another test, and a wrong angle."""
    given = [Picture(split, "a", "0", png_of(DRAWING)) for split in ("train", "val", "test")]
    pictures = list(turned(given))
    assert [(picture.split, picture.class_name) for picture in pictures] == [
        ("train", "a"), ("train", "a-turned90"), ("train", "a-turned180"), ("train", "a-turned270"),
        ("val", "a"), ("test", "a"),
    ]  # fmt: skip
    for quarters, picture in enumerate(pictures[:4]):
        expected = Image.fromarray(DRAWING).rotate(90 * quarters, expand=True)
        np.testing.assert_array_equal(Image.open(io.BytesIO(picture.png)), np.asarray(expected))


def test_the_command(tmp_path: Path):
    """Catches a flag without effect."""
    arrays = {"images": np.stack([DRAWING] * 3), "labels": np.arange(3), "names": np.array(["a", "b", "c"])}
    np.savez(tmp_path / "a.npz", **arrays)
    places = [str(tmp_path / "a.npz"), str(tmp_path / "dst")]
    words = ["images", "import", *places, "--val", "b", "--test", "c", "--turned"]
    assert main(words) == 0
    assert len(list((tmp_path / "dst" / "train").iterdir())) == 4
    assert len(list((tmp_path / "dst" / "val").iterdir())) == 1
