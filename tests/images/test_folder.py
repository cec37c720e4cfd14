"""Trees and tables of images."""

import csv
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import ImageFolder

from leo_lightning.common.errors import InputError
from leo_lightning.common.program import program
from leo_lightning.data.image_names import SUFFIXES
from leo_lightning.images.folder import ImageSplit, find_classes, find_images, find_splits, skip_files
from tests.images.pictures import save, tree


def find_and_skip(root: Path) -> tuple[dict[str, ImageSplit], list[str]]:
    """The splits without files that cannot be used, and the lines about these files."""
    notes: list[str] = []
    return find_splits(root, partial(skip_files, report=notes.append)), notes


def refusal(root: Path) -> str:
    with pytest.raises(InputError) as caught:
        find_splits(root)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(root), "ROOT")


def ravi(root: Path, rows: dict[str, list[tuple[str, str]]]) -> Path:
    """Tables as github.com/twitter-research/meta-learning-lstm has them in data/miniImagenet."""
    for split, lines in rows.items():
        with (root / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([("filename", "label"), *lines])
        for name, _ in lines:
            save(root / "images" / name)
    return root


MINI = {
    "train": [(f"n0153282900000{i:03d}.jpg", "n01532829") for i in (5, 6, 3)]
    + [("n0155899300000012.jpg", "n01558993")],
    "val": [("n0185567200000003.jpg", "n01855672")],
    "test": [("n0193011200000007.jpg", "n01930112"), ("n0193011200000001.jpg", "n01930112")],
}


def test_tree_is_what_torchvision_sees(tmp_path: Path):
    """Catches images in another order than their labels, and images of deeper folders left out."""
    tree(tmp_path)
    save(tmp_path / "train" / "cat" / "deep" / "er" / "9.PNG")
    splits, notes = find_and_skip(tmp_path)
    assert list(splits) == ["train", "val", "test"]
    for split, images in splits.items():
        reference = ImageFolder(str(tmp_path / split))
        assert list(images.class_names) == reference.classes
        by_path = dict(reference.samples)
        assert {str(images.path(row)): int(images.labels[row]) for row in range(len(images))} == by_path
        assert list(images.labels) == sorted(images.labels)
        assert images.counts.tolist() == np.bincount(reference.targets).tolist()
    assert splits["train"].names[4] == "cat/deep/er/9.PNG"
    assert notes == []


def test_hidden_files_do_not_count(tmp_path: Path):
    """Catches leftovers of file managers taken for classes or for damaged images."""
    tree(tmp_path)
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    for name in (".DS_Store", "cat/.DS_Store", "cat/._0.png"):
        (tmp_path / "train" / name).write_bytes(b"")
    save(tmp_path / "train" / "cat" / ".hidden" / "1.png")
    splits = find_splits(tmp_path)
    assert splits["train"].counts.tolist() == [4, 3]


def test_links_are_followed_once(tmp_path: Path):
    """Catches classes that are links, left out; and a link to its own parent, followed forty times."""
    tree(tmp_path / "real")
    root = tmp_path / "root"
    (root / "train").mkdir(parents=True)
    (root / "train" / "cat").symlink_to(tmp_path / "real" / "train" / "cat")
    (tmp_path / "real" / "train" / "cat" / "again").symlink_to(tmp_path / "real" / "train" / "cat")
    splits = find_splits(root)
    assert splits["train"].names == ("cat/0.png", "cat/1.png", "cat/2.png", "cat/3.png")


def test_ravi_and_larochelles_tables(tmp_path: Path):
    """Catches names of another folder, rows of another class, and a file order that is not by class."""
    splits = find_splits(ravi(tmp_path, MINI))
    train = splits["train"]
    assert train.class_names == ("n01532829", "n01558993")
    assert train.names == tuple(sorted(name for name, _ in MINI["train"]))
    assert train.labels.tolist() == [0, 0, 0, 1]
    assert train.path(0) == tmp_path / "images" / "n0153282900000003.jpg"
    assert splits["test"].names == ("n0193011200000001.jpg", "n0193011200000007.jpg")


@pytest.mark.parametrize(
    ("name", "split"), [("base", "train"), ("valid", "val"), ("validation", "val"), ("novel", "test")]
)
def test_splits_may_have_other_names(name: str, split: str, tmp_path: Path):
    """Catches a split that is left out, or taken for another, because of its name."""
    tree(tmp_path / "a", {name: {"owl": 2}})
    assert {key: found.folder for key, found in find_splits(tmp_path / "a").items()} == {
        split: tmp_path / "a" / name
    }
    save(tmp_path / "b" / "1.png")
    (tmp_path / "b" / f"{name}.csv").write_text("filename,label\n1.png,cat\n")
    assert find_splits(tmp_path / "b")[split].class_names == ("cat",)


def test_tables_with_paths_from_the_root(tmp_path: Path):
    """Catches tables that need a folder `images`; and other columns, a byte order mark, spaces."""
    save(tmp_path / "cats" / "1.png")
    (tmp_path / "train.csv").write_text("\ufeffid,label,filename\n7, cat , cats/1.png\n", encoding="utf-8")
    splits = find_splits(tmp_path)
    assert list(splits) == ["train"]
    assert (splits["train"].names, splits["train"].class_names) == (("cats/1.png",), ("cat",))


@pytest.mark.parametrize("relative", [False, True])
def test_tables_may_not_lead_outside(relative: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches ../ that reads a file beside the data set, also if the root is a relative path."""
    save(tmp_path / "secret.png")
    root = tmp_path / "root"
    save(root / "images" / "1.png")
    (root / "train.csv").write_text("filename,label\n../../secret.png,a\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"line 2: '../../secret.png' is outside of"):
        find_splits(Path("root") if relative else root)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (
            "filename,label\n,a\n",
            "ROOT/train.csv, line 2: has no filename; a table begins filename,label",
        ),
        ("", "ROOT/train.csv: names no images; its lines are filename,label"),
        ("filename,label\n", "ROOT/train.csv: names no images; its lines are filename,label"),
        (
            "filename,label\n1.png\n",
            "ROOT/train.csv, line 2: has no label; a table begins filename,label",
        ),
        (
            "filename,label\n1.png,a\n1.png,b\n",
            "ROOT/train.csv, line 3: '1.png' comes twice; fix the table",
        ),
        (
            "filename,label\n1.png,a\n2.png,a\n",
            "ROOT/train.csv: missing: 'images/2.png'; add them, or remove their lines",
        ),
        (
            "filename,label\n1.png,a\n1.txt,a\n",
            "ROOT/train.csv: not images: 'images/1.txt'; remove them",
        ),
        (
            "filename,label\n2.png,a\n3.png,a\n",
            "ROOT/train.csv: none of its images exists, such as ROOT/images/2.png; put them "
            "there, or fix the table",
        ),
        ("filename,label\n\xe9.png,a\n", "ROOT/train.csv: is not a table in UTF-8; save it as CSV"),
    ],
)
def test_bad_tables(content: str, line: str, tmp_path: Path):
    """Catches tables that are misread."""
    save(tmp_path / "images" / "1.png")
    (tmp_path / "train.csv").write_bytes(content.encode("latin-1"))
    assert refusal(tmp_path) == line


def test_missing_files_of_a_table_can_be_skipped(tmp_path: Path):
    """Catches a file that is skipped without a note, or not skipped."""
    ravi(tmp_path, MINI)
    os.unlink(tmp_path / "images" / "n0153282900000005.jpg")
    splits, notes = find_and_skip(tmp_path)
    assert splits["train"].counts.tolist() == [2, 1]
    assert notes == [f"{tmp_path}/train.csv: skipped, missing: 'images/n0153282900000005.jpg'"]


def test_files_that_are_not_images(tmp_path: Path):
    """Catches text files that are read as images, or left out without a note."""
    tree(tmp_path)
    for name in ("train/notes.txt", "train/dog/labels.json"):
        (tmp_path / name).write_text("x")
    assert refusal(tmp_path) == "ROOT/train: not images: 'notes.txt', 'dog/labels.json'; remove them"
    splits, notes = find_and_skip(tmp_path)
    assert splits["train"].counts.tolist() == [4, 3]
    assert notes == [f"{tmp_path}/train: skipped, not images: 'notes.txt', 'dog/labels.json'"]


EITHER = (
    "ROOT: must have either folders train, val, test of class folders, or tables train.csv, val.csv, "
    "test.csv; it has "
)


@pytest.mark.parametrize(
    ("arrange", "line"),
    [
        (lambda root: root.rmdir(), "ROOT: no such folder of images"),
        (lambda root: None, EITHER + "neither"),
        (lambda root: (root / "cat" / "deep").mkdir(parents=True), EITHER + "neither"),
        (
            lambda root: save(root / "cat" / "1.png"),
            "ROOT: is not divided into train, val and test; divide its classes with "
            f"`{program()} images divide ROOT DST`",
        ),
        (
            lambda root: (root / "train").mkdir(),
            "ROOT/train: has no class folders; put the images of each class into its own folder",
        ),
        (
            lambda root: (root / "train" / "cat").mkdir(parents=True),
            f"ROOT/train/cat: holds no images ({', '.join(sorted(SUFFIXES))}); remove the folder",
        ),
        (
            lambda root: (tree(root), (root / "val.csv").write_text("filename,label\n")),
            EITHER + "both",
        ),
        (
            lambda root: tree(root, {"val": {"cat": 1}, "valid": {"dog": 1}}),
            "ROOT: holds the val split more than once (val, valid); leave one of them",
        ),
        (
            lambda root: tree(root, {"train": {"cat": 1, "dog": 1}, "test": {"dog": 1, "cat": 1}}),
            "ROOT/test: classes 'cat', 'dog' in both 'train' and 'test'; splits may not share classes, so "
            "give different classes different names",
        ),
        (
            lambda root: ravi(root, {"train": [("1.png", "a")], "val": [("2.png", "a")]}),
            "ROOT/val.csv: class 'a' in both 'train' and 'val'; splits may not share classes, so give "
            "different classes different names",
        ),
    ],
)
def test_refusals(arrange: Callable[[Path], object], line: str, tmp_path: Path):
    """Catches a leak between splits, empty classes, and half a data set taken for a whole one."""
    arrange(tmp_path)
    assert refusal(tmp_path) == line


def test_without_some_images(tmp_path: Path):
    """Catches labels of other images, and a class that vanishes without a note."""
    tree(tmp_path)
    images = find_classes(tmp_path / "train")
    left = images.without([0, 5])
    assert left.names == ("cat/1.png", "cat/2.png", "cat/3.png", "dog/0.png", "dog/2.png")
    assert left.labels.tolist() == [0, 0, 0, 1, 1]
    with pytest.raises(InputError, match="no image of class 'dog' can be read; remove the class"):
        images.without([4, 5, 6])


def test_images_without_classes(tmp_path: Path):
    """Catches images to predict that need class folders, or come in the order of the disk."""
    for name in ("b/2.png", "a.jpg"):
        save(tmp_path / name)
    (tmp_path / "c.txt").write_text("x")
    others: list[Path] = []
    assert find_images(tmp_path, lambda where, files, reason: others.extend(files)) == ("a.jpg", "b/2.png")
    assert others == [tmp_path / "c.txt"]
    with pytest.raises(InputError, match="holds no images"):
        find_images(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["a/\udcff.png", "\udcff/a.png"])
def test_names_that_are_not_utf8_are_refused(name: str, tmp_path: Path):
    """Catches a feature file, a table or a page that fails on a name after hours of work."""
    path = tmp_path / name
    path.parent.mkdir()
    path.touch()
    for find in (find_classes, find_images):
        with pytest.raises(InputError, match=r"\?.*: the name is not UTF-8; rename"):
            find(tmp_path)
