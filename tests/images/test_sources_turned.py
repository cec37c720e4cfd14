"""Training classes turned by right angles."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from leo_lightning.commands.images import main
from leo_lightning.images.sources.picture import Picture, Pictures, png_of
from leo_lightning.images.sources.turned import turned

DRAWING = np.arange(12, dtype=np.uint8).reshape(3, 4)


def test_only_training_classes_are_turned():
    """Catches turned test classes, of which a result is none of the data set any more, and a wrong angle."""
    given = [Picture(split, "a", "0", png_of(DRAWING)) for split in ("train", "val", "test")]
    found = list(turned(Pictures(3, given)).pictures)
    assert [(each.split, each.class_name) for each in found] == [
        ("train", "a"), ("train", "a-turned90"), ("train", "a-turned180"), ("train", "a-turned270"),
        ("val", "a"), ("test", "a"),
    ]  # fmt: skip
    for quarters, each in enumerate(found[:4]):
        expected = Image.fromarray(DRAWING).rotate(90 * quarters, expand=True)
        np.testing.assert_array_equal(Image.open(io.BytesIO(each.png)), np.asarray(expected))


def test_the_command(tmp_path: Path):
    """Catches a flag that is read and forgotten."""
    arrays = {"images": np.stack([DRAWING] * 3), "labels": np.arange(3), "names": np.array(["a", "b", "c"])}
    np.savez(tmp_path / "a.npz", **arrays)
    words = [
        "import",
        str(tmp_path / "a.npz"),
        str(tmp_path / "dst"),
        "--val",
        "b",
        "--test",
        "c",
        "--turned",
    ]
    assert main(words) == 0
    assert len(list((tmp_path / "dst" / "train").iterdir())) == 4
    assert len(list((tmp_path / "dst" / "val").iterdir())) == 1
