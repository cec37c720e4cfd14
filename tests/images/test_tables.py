"""Tables of images under other names, and JSON lists."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from leo_lightning.common.errors import InputError
from leo_lightning.images.folder import find_splits
from tests.images.pictures import save


def refusal(root: Path) -> str:
    with pytest.raises(InputError) as caught:
        find_splits(root)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(root), "ROOT")


@pytest.mark.parametrize(
    "header",
    [
        "path,class",
        "file,category",
        "Image,Species",
        "image_id,class_name",
        "file name,Label",
        "filename,label,class",
    ],
)
def test_columns_have_several_names(header: str, tmp_path: Path):
    """Catches a table of another tool that must be rewritten."""
    save(tmp_path / "images" / "1.png")
    (tmp_path / "train.csv").write_text(f"{header}\n1.png,cat,7\n")
    train = find_splits(tmp_path)["train"]
    assert (train.names, train.class_names) == (("1.png",), ("cat",))


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (
            "name,label",
            "has no column filename or file_name or file or filepath or file_path or path or image or ",
        ),
        ("filename", "has no column label or labels or class or"),
        ("path,image,label", "has more than one column filename or"),
        ("filename,class,species", "(class, species); a table begins filename,label"),
    ],
)
def test_columns_that_are_none_or_two(header: str, problem: str, tmp_path: Path):
    """Catches labels taken from a column that the user did not mean."""
    save(tmp_path / "1.png")
    (tmp_path / "train.csv").write_text(f"{header}\n1.png,1.png,cat\n")
    assert refusal(tmp_path).startswith("ROOT/train.csv: ")
    assert problem in refusal(tmp_path)


def closer_look(root: Path, prefix: str, **changes: Any) -> Path:
    """The lists that CloserLookFewShot's filelists/CUB/write_CUB_filelist.py writes, with its images."""
    classes = {"base": ["001.Auk", "002.Bee"], "val": ["003.Cat"], "novel": ["004.Dog"]}
    names = [name for split in classes.values() for name in split]
    for split, members in classes.items():
        for name in members:
            save(root / "CUB_200_2011" / "images" / name / "1.jpg")
        content = {
            "label_names": names,
            "image_names": [f"{prefix}/CUB_200_2011/images/{name}/1.jpg" for name in members],
            "image_labels": [names.index(name) for name in members],
        } | changes
        (root / f"{split}.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize("prefix", ["/home/somebody/CloserLookFewShot/filelists/CUB", ".", "HERE"])
def test_lists_of_closer_look(prefix: str, tmp_path: Path):
    """Catches lists with the paths of another machine, and labels counted within a split."""
    splits = find_splits(closer_look(tmp_path, str(tmp_path) if prefix == "HERE" else prefix))
    assert {split: images.class_names for split, images in splits.items()} == {
        "train": ("001.Auk", "002.Bee"),
        "val": ("003.Cat",),
        "test": ("004.Dog",),
    }
    for images in splits.values():
        for row in range(len(images)):
            assert images.path(row).is_file()
            assert images.class_names[images.labels[row]] in images.names[row]


def test_absolute_paths_below_images(tmp_path: Path):
    """Catches a beginning that is found for one image and another one for the next."""
    save(tmp_path / "images" / "a" / "1.png")
    save(tmp_path / "images" / "1.png")
    lines = "/data/x/a/1.png,cat\n/data/x/a/2.png,cat\n/other/a/1.png,dog\n"
    (tmp_path / "train.csv").write_text(f"path,class\n{lines}")
    assert refusal(tmp_path) == (
        "ROOT/train.csv: missing: 'images/a/2.png', '../../../../../other/a/1.png'; add them, "
        "or remove their lines"
    ).replace("../../../../../other", os.path.relpath("/other", tmp_path))


def test_absolute_paths_of_nothing(tmp_path: Path):
    """Catches paths of another machine that are called outside of the folder, as if it were an attack."""
    closer_look(tmp_path, "/nowhere/x", image_names=["/nowhere/y.jpg"], image_labels=[0])
    assert refusal(tmp_path) == (
        "ROOT/base.json: none of its images exists, such as /nowhere/y.jpg; put them there, or fix the table"
    )


def test_absolute_paths_outside(tmp_path: Path):
    """Catches an image that is read from outside of the data set."""
    outside = save(tmp_path / "secret.png")
    closer_look(tmp_path / "root", "x", image_names=[str(outside)], image_labels=[0])
    assert "is outside of" in refusal(tmp_path / "root")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"image_labels": [9]},
            "ROOT/base.json, image 0: has no path, or no label of label_names; fix the list",
        ),
        ({"image_labels": [True]}, "ROOT/base.json, image 0: has no path"),
        ({"image_names": [None]}, "ROOT/base.json, image 0: has no path"),
        (
            {"image_labels": [0, 1]},
            "label_names, image_names and image_labels (1 image_names and 2 image_labels)",
        ),
        ({"image_names": 7}, "ROOT/base.json: is not a list of label_names, image_names and image_labels ("),
    ],
)
def test_bad_lists(changes: dict[str, Any], line: str, tmp_path: Path):
    """Catches a traceback about somebody's JSON."""
    closer_look(tmp_path, ".", **({"image_names": ["1.jpg"], "image_labels": [0]} | changes))
    assert line in refusal(tmp_path)


@pytest.mark.parametrize("content", ["[" * 10**5, "{}", "[]", "x"])
def test_other_json(content: str, tmp_path: Path):
    """Catches a traceback about a file of something else."""
    (tmp_path / "train.json").write_text(content)
    assert refusal(tmp_path).startswith("ROOT/train.json: is not a list of label_names,")


def test_json_beside_folders_is_ignored(tmp_path: Path):
    """Catches annotations beside the images that are taken for a second division."""
    save(tmp_path / "train" / "cat" / "1.png")
    (tmp_path / "train.json").write_text("{}")
    assert find_splits(tmp_path)["train"].class_names == ("cat",)


def test_absolute_paths_beside_images(tmp_path: Path):
    """Catches images that are looked for in the folder `images` only, where paths lead beside it."""
    save(tmp_path / "images" / "0.png")
    save(tmp_path / "photos" / "1.png")
    (tmp_path / "train.csv").write_text("path,class\n/data/x/photos/1.png,cat\n")
    train = find_splits(tmp_path)["train"]
    assert train.path(0).samefile(tmp_path / "photos" / "1.png")
