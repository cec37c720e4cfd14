"""miniImageNet and tieredImageNet: pickles of Python 2 and 3, mapped into memory and not executed."""

import importlib.util
import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leo_lightning.common.errors import InputError
from leo_lightning.images.sources import mini_imagenet, tiered_imagenet
from leo_lightning.images.sources.published import locate
from leo_lightning.images.sources.tree import write_tree
from tests.data.importers.test_pickles import Call
from tests.images import sources

PROTOCOLS = [-2, 0, 2, 4, 5]  # -2: 2, written by Python 2


def read(module: Any, folder: Path, dst: Path) -> None:
    total, pictures = module.read(locate(module.FILES, folder))
    counts = write_tree(pictures, dst)
    assert total == sum(sum(of_split.values()) for of_split in counts.values())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_mini_imagenet(protocol: int, tmp_path: Path):
    """Catches images under the wrong class or split, and a pickle protocol that is not understood."""
    read(mini_imagenet, sources.mini(tmp_path / "src", protocol), tmp_path / "out")
    assert sources.classes(tmp_path / "out") == {
        split: dict.fromkeys(names, sources.IMAGES) for split, names in sources.MINI.items()
    }
    for split, names in sources.MINI.items():
        content = sources.mini_split(split)
        for name in names:
            for row in content["class_dict"][name]:
                image = sources.pixels_of(tmp_path / "out" / split / name / f"{row:05d}.png")
                np.testing.assert_array_equal(image, content["image_data"][row])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tiered_imagenet(protocol: int, tmp_path: Path):
    """Catches PNG files that are changed or mixed up, and arrays (n, 1) that are not understood."""
    read(tiered_imagenet, sources.tiered(tmp_path / "src", protocol), tmp_path / "out")
    assert sources.classes(tmp_path / "out") == {
        split: dict.fromkeys(sorted(names), sources.IMAGES) for split, names in sources.TIERED.items()
    }
    for split in sources.TIERED:
        labels = sources.tiered_labels(split)
        for row, data in enumerate(sources.tiered_images(split)):
            name = labels["label_specific_str"][labels["label_specific"][row]]
            assert (tmp_path / "out" / split / name / f"{row:06d}.png").read_bytes() == data.tobytes()


def test_flat_arrays_of_newer_opencv(tmp_path: Path):
    """Catches arrays (n,) refused."""
    images = pickle.dumps([array.ravel() for array in sources.tiered_images("val")], 4)
    read(tiered_imagenet, sources.tiered(tmp_path / "src", val_images_png=images), tmp_path / "out")


def test_names_that_learn2learn_and_others_give_the_files(tmp_path: Path):
    """Catches files that are not found under the names that the authors or learn2learn give them."""
    read(tiered_imagenet, sources.tiered(tmp_path / "tiered", prefix=""), tmp_path / "a")
    src = sources.mini(tmp_path / "mini")
    (src / "mini-imagenet-cache-validation.pkl").rename(src / "mini-imagenet-cache-val.pkl")
    read(mini_imagenet, src, tmp_path / "b")


def test_addresses_are_those_of_learn2learn():
    """Catches a file that the record does not have."""
    names = [file.name for module in (mini_imagenet, tiered_imagenet) for file in module.FILES]
    assert len(set(names)) == 9
    spec = importlib.util.find_spec("learn2learn")
    if spec is None:
        pytest.skip("learn2learn is not installed")
    assert spec.origin is not None
    datasets = Path(spec.origin).parent / "vision" / "datasets"
    text = "".join((datasets / f"{name}.py").read_text() for name in ("mini_imagenet", "tiered_imagenet"))
    assert all(f"https://zenodo.org/record/7978538/files/{name}'" in text for name in names)


def mini_with(**changes: Any) -> bytes:
    return pickle.dumps(sources.mini_split("test") | changes, 4)


IMAGES = sources.mini_split("test")["image_data"]
NOT_ONCE = "'class_dict' does not list each image once, under its class"
BAD_MINI = {
    "a call": (
        pickle.dumps(Call(os.system, "touch evil"), 4),
        r"refused to load a pickle that calls '\w+\.system'",
    ),
    "a class": (
        pickle.dumps({"image_data": Path("x"), "class_dict": {}}, 4),
        r"refused to load a pickle that calls 'pathlib\.[\w.]+'",
    ),
    "nothing": (b"", "is cut short, damaged or not a pickle"),
    "half": (mini_with()[:-60_000], "is cut short, damaged or not a pickle"),
    "a list": (pickle.dumps([1], 4), "is not a pickle of miniImageNet"),
    "no classes": (pickle.dumps({"image_data": IMAGES}, 4), "is not a pickle of miniImageNet"),
    "images in a list": (mini_with(image_data=[1]), "the images are a list, not an array"),
    "images of two channels": (
        mini_with(image_data=IMAGES[..., :2]),
        r"the images are uint8 of shape \(6, 84, 84, 2\); they must be uint8 of shape",
    ),
    "an image of no class": (mini_with(class_dict={"n04": [0, 1, 2, 3, 5]}), NOT_ONCE),
    "an image of two classes": (mini_with(class_dict={"n04": [0, 1, 2, 3], "n05": [3, 4, 5]}), NOT_ONCE),
    "an image too many": (mini_with(class_dict={"n04": [0, 1, 2, 3, 4, 5, 6]}), NOT_ONCE),
    "an image from the end": (mini_with(class_dict={"n04": [0, 1, 2, 3, 4, -1]}), NOT_ONCE),
    "a number of images": (mini_with(class_dict={"n04": 6}), NOT_ONCE),
    "rows that are text": (mini_with(class_dict={"n04": ["a"]}), NOT_ONCE),
    "rows of different lengths": (mini_with(class_dict={"n04": [[0], [1, 2]]}), NOT_ONCE),
    "no class at all": (mini_with(class_dict={}), NOT_ONCE),
    "a class of the training split": (
        mini_with(class_dict={"n04": [0, 1, 2], "n01": [3, 4, 5]}),
        "class 'n01' would be in both 'train' and 'test'; splits may not share classes",
    ),
}


@pytest.mark.parametrize("name", list(BAD_MINI))
def test_bad_mini_imagenet_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches executed code, a traceback, an image under the wrong class, and half a data set."""
    monkeypatch.chdir(tmp_path)
    data, message = BAD_MINI[name]
    src = sources.mini(tmp_path / "src", test=data)
    before = sources.tree(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        read(mini_imagenet, src, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert sources.tree(tmp_path) == before


def labels_with(**changes: Any) -> bytes:
    return pickle.dumps(sources.tiered_labels("val") | changes, 4)


PNGS = sources.tiered_images("val")
BAD_TIERED = {
    "a call": (
        {"val_images_png": pickle.dumps([Call(os.system, "touch evil")], 4)},
        r"val_images_png\.pkl: refused to load a pickle that calls '\w+\.system'",
    ),
    "a call among the labels": (
        {"val_labels": pickle.dumps(Call(os.system, "touch evil"), 4)},
        r"val_labels\.pkl: refused to load a pickle that calls '\w+\.system'",
    ),
    "labels in a list": ({"val_labels": pickle.dumps([0], 4)}, "is not a pickle of tieredImageNet's labels"),
    "no labels": (
        {"val_labels": labels_with(label_specific=None)},
        "the labels are not a list of whole numbers",
    ),
    "one label": (
        {"val_labels": labels_with(label_specific=np.array(0))},
        "the labels are not a list of whole numbers",
    ),
    "labels of nothing": (
        {"val_labels": labels_with(label_specific=np.zeros(0, np.int32))},
        "does not hold a list of 0 images",
    ),
    "labels that are fractions": (
        {"val_labels": labels_with(label_specific=np.full(3, 0.5))},
        r"the label of image 0 is 0\.5; with 1 class names",
    ),
    "labels of nobody": (
        {"val_labels": labels_with(label_specific=np.array([0, 0, 1]))},
        "the label of image 2 is 1; with 1 class names it must be a whole number from 0 to 0",
    ),
    "too many labels": (
        {"val_labels": labels_with(label_specific=np.zeros(4, np.int32))},
        "does not hold a list of 4 images, one per label",
    ),
    "half the images": (
        {"val_images_png": pickle.dumps(PNGS, 4)[:-200]},
        r"val_images_png\.pkl: is cut short, damaged or not a pickle",
    ),
    "images that are text": (
        {"val_images_png": pickle.dumps(["a", "b", "c"], 4)},
        "image 0 is not a whole PNG file",
    ),
    "images that are numbers": (
        {"val_images_png": pickle.dumps([*PNGS[:2], np.zeros((8, 8))], 4)},
        "image 2 is not a whole PNG file",
    ),
    "bytes that are not an image": (
        {"val_images_png": pickle.dumps([*PNGS[:2], np.zeros((84, 1), np.uint8)], 4)},
        r"val_images_png\.pkl: image 2 is not a whole PNG file",
    ),
    "half an image": (
        {"val_images_png": pickle.dumps([*PNGS[:2], PNGS[2][:-9]], 4)},
        "image 2 is not a whole PNG file",
    ),
    "a class of the training split": (
        {"val_labels": labels_with(label_specific_str=["judge's robe"])},
        "class 'judge's robe' would be in both 'train' and 'val'",
    ),
}


@pytest.mark.parametrize("name", list(BAD_TIERED))
def test_bad_tiered_imagenet_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches executed code, a traceback, an image under the wrong class, and half a data set."""
    monkeypatch.chdir(tmp_path)
    changes, message = BAD_TIERED[name]
    src = sources.tiered(tmp_path / "src", **changes)
    before = sources.tree(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        read(tiered_imagenet, src, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert sources.tree(tmp_path) == before


def test_missing_files_are_named(tmp_path: Path):
    """Catches a message that does not name the files to bring along."""
    src = sources.mini(tmp_path / "src")
    (src / "mini-imagenet-cache-validation.pkl").unlink()
    said = (
        f"{src}: has no file mini-imagenet-cache-validation.pkl or mini-imagenet-cache-val.pkl; put it there"
    )
    with pytest.raises(InputError, match=re.escape(said)):
        locate(mini_imagenet.FILES, src)
    with pytest.raises(InputError, match=r"is a file; name the folder of mini-imagenet-cache-train\.pkl, "):
        locate(mini_imagenet.FILES, src / "mini-imagenet-cache-train.pkl")
