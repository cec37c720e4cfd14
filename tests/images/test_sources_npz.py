"""An npz file of images, labels and names, divided by name."""

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leo_lightning.common.errors import InputError
from leo_lightning.images.sources.npz import read_npz
from leo_lightning.images.sources.tree import write_tree
from tests.images.sources import classes, pixels_of, tree
from tests.places import SHARED

REAL = SHARED / "images" / "omniglot_small.npz"
NAMES = ("Greek/a", "Greek/b", "Latin/a", "Latin, late/a", "Korean")
LABELS = np.array([4, 0, 1, 2, 3, 0, 4], np.int16)


def write(folder: Path, **changes: Any) -> Path:
    arrays = {
        "images": np.arange(7 * 6 * 5, dtype=np.uint8).reshape(7, 6, 5),
        "labels": LABELS,
        "names": np.array(NAMES),
    } | changes
    np.savez(folder / "a.npz", **{name: array for name, array in arrays.items() if array is not None})
    return folder / "a.npz"


def divide(src: Path, dst: Path, val: list[str], test: list[str]) -> dict[str, set[str]]:
    total, pictures = read_npz(src, val, test)
    counts = write_tree(pictures, dst)
    assert total == sum(sum(of_split.values()) for of_split in counts.values())
    return {split: set(names) for split, names in classes(dst).items()}


def test_classes_and_groups_are_divided(tmp_path: Path):
    """Catches a group matched by its beginning, names with a comma, and lost classes."""
    src = write(tmp_path)
    assert divide(src, tmp_path / "a", ["Greek"], ["Korean,Latin"]) == {
        "train": {"Latin, late__a"},
        "val": {"Greek__a", "Greek__b"},
        "test": {"Korean", "Latin__a"},
    }
    assert divide(src, tmp_path / "b", ["Greek/b", "Korean"], ["Latin, late"]) == {
        "train": {"Greek__a", "Latin__a"},
        "val": {"Greek__b", "Korean"},
        "test": {"Latin, late__a"},
    }
    assert divide(src, tmp_path / "c", [], ["Greek"]) == {
        "train": {"Latin, late__a", "Korean", "Latin__a"},
        "test": {"Greek__a", "Greek__b"},
    }


@pytest.mark.parametrize("shape", [(7, 6, 5), (7, 6, 5, 3)])
def test_pixels_and_labels(shape: tuple[int, ...], tmp_path: Path):
    """Catches an image of another class, a transposed one, and lost colors."""
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    divide(write(tmp_path, images=images), tmp_path / "out", ["Greek"], [])
    for row, label in enumerate(LABELS):
        split = "val" if label < 2 else "train"
        path = tmp_path / "out" / split / NAMES[label].replace("/", "__") / f"{row:06d}.png"
        np.testing.assert_array_equal(pixels_of(path), images[row])


CHOICE = "there are Greek, Korean, Latin, Latin, late"
BAD_SPLITS = {
    "none": ([], [], f"a.npz: name the classes to keep out of training with --val and --test; {CHOICE}"),
    "unknown": (["Greek,Latn"], [], f"--val: no class or group is called 'Latn'; {CHOICE}"),
    "spaces": ([], ["Greek, Latin"], f"--test: no class or group is called ' Latin'; {CHOICE}"),
    "both": (
        ["Greek"],
        ["Greek/b"],
        "--test: class 'Greek/b' is in --val, too; splits may not share classes",
    ),
    "nothing left": (
        ["Greek,Latin"],
        ["Korean", "Latin, late"],
        "a.npz: --val and --test leave no class to train on; name fewer",
    ),
}


@pytest.mark.parametrize("name", list(BAD_SPLITS))
def test_bad_division_is_refused(name: str, tmp_path: Path):
    """Catches a class in two splits, or in the wrong one."""
    val, test, message = BAD_SPLITS[name]
    with pytest.raises(InputError, match=re.escape(message)):
        read_npz(write(tmp_path), val, test)


BAD_ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "no names": ({"names": None}, "is not an npz file of images, labels, names ("),
    "objects": (
        {"names": np.array(NAMES, dtype=object)},
        "is not an npz file of images, labels, names (Object arrays cannot be loaded",
    ),
    "floats": (
        {"images": np.zeros((7, 6, 5))},
        "the images are float64 of shape (7, 6, 5); they must be uint8",
    ),
    "channels first": (
        {"images": np.zeros((7, 3, 6, 5), np.uint8)},
        "the images are uint8 of shape (7, 3, 6, 5)",
    ),
    "no image": ({"images": np.zeros((0, 6, 5), np.uint8)}, "the images are uint8 of shape (0, 6, 5)"),
    "labels too few": ({"labels": LABELS[1:]}, "there are 7 images but 6 labels"),
    "labels of two dimensions": ({"labels": LABELS[:, None]}, "the label of image 0 is [4]"),
    "labels of fractions": (
        {"labels": LABELS / 2},
        "the label of image 2 is 0.5; with 5 class names it must be",
    ),
    "labels below 0": ({"labels": LABELS - 1}, "the label of image 1 is -1; with 5 class names it must be"),
    "names twice": ({"names": np.array(["a", "b", "c", "a", "d"])}, "two classes are called 'a'"),
    "numbers for names": ({"names": np.arange(5)}, "the class names are not a list of text"),
}


@pytest.mark.parametrize("name", list(BAD_ARRAYS))
def test_bad_arrays_are_refused(name: str, tmp_path: Path):
    """Catches images under the wrong class, and a traceback."""
    changes, message = BAD_ARRAYS[name]
    src = write(tmp_path, **changes)
    with pytest.raises(InputError, match=re.escape(f"{src}: {message}")) as caught:
        read_npz(src, ["Greek"], [])
    assert "\n" not in str(caught.value)


def cut(src: Path) -> None:
    src.write_bytes(src.read_bytes()[:-100])


def replaced_by_a_folder(src: Path) -> None:
    src.unlink()
    src.mkdir()


def bomb(src: Path) -> None:
    with zipfile.ZipFile(src, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("more.npy", bytes(2**25))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, r": is not an npz file of images, labels, names \("),
        (lambda src: src.write_bytes(b"images"), r": is not an npz file of images, labels, names \("),
        (replaced_by_a_folder, ": is a folder, not an npz file; name its data set with --dataset"),
        (bomb, ":more.npy: refused to unpack 33,554,432 bytes from"),
    ],
    ids=["cut", "text", "folder", "bomb"],
)
def test_bad_files_are_refused(damage: Callable[[Path], object], message: str, tmp_path: Path):
    """Catches a traceback, and memory filled."""
    src = write(tmp_path)
    damage(src)
    with pytest.raises(InputError, match=re.escape(str(src)) + message) as caught:
        read_npz(src, ["Greek"], [])
    assert "\n" not in str(caught.value)
    assert "Errno" not in str(caught.value)


@pytest.mark.skipif(not REAL.is_file(), reason=f"{REAL.name} is not here")
def test_real_drawings(tmp_path: Path):
    """Catches an existing data set that cannot be read."""
    divided = divide(REAL, tmp_path / "out", ["Greek"], ["Latin,Korean"])
    assert {split: len(names) for split, names in divided.items()} == {"train": 152, "val": 24, "test": 66}
    assert len(tree(tmp_path / "out")) == 3 + 242 + 4840
    with np.load(REAL) as arrays:
        row = int(np.flatnonzero(arrays["labels"] == list(arrays["names"]).index("Latin/character07"))[3])
        image = pixels_of(tmp_path / "out" / "test" / "Latin__character07" / f"{row:06d}.png")
        np.testing.assert_array_equal(image, arrays["images"][row])
