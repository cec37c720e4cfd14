"""Undivided folders of classes, as people have them."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from leo_lightning.common.errors import InputError
from leo_lightning.images.division import find_undivided, is_undivided, write_divided
from leo_lightning.images.folder import find_splits
from tests.images.pictures import save, tree
from tests.images.sources import tree as listing

SPLITS = {"train": ["a", "b"], "test": ["c"]}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three classes of two images."""
    for seed, name in enumerate("abc"):
        for image in range(2):
            save(tmp_path / "photos" / name / f"{image}.jpg", 2 * seed + image)
    return tmp_path / "photos"


def write(root: Path, dst: Path, copy: bool = False, depth: int | None = None, splits: dict = SPLITS) -> list:
    advanced: list[int] = []
    found = find_undivided(root, depth, pytest.fail)
    written = write_divided(found, splits, dst, copy, lambda: advanced.append(1))
    read = find_splits(dst)
    assert {split: images.names for split, images in written.items()} == {
        split: images.names for split, images in read.items()
    }
    return advanced


@pytest.mark.parametrize("copy", [False, True])
def test_files_are_linked_or_copied(copy: bool, photos: Path, tmp_path: Path):
    """Catches an image of another class, links that break when folders move, and --copy that links."""
    before = listing(photos)
    assert len(write(photos, tmp_path / "deep" / "out", copy)) == 6
    assert listing(photos) == before
    assert listing(tmp_path / "deep") == sorted(
        ["out", "out/test", "out/train", *(f"out/{s}/{n}" for s, names in SPLITS.items() for n in names)]
        + [f"out/{s}/{n}/{i}.jpg" for s, names in SPLITS.items() for n in names for i in range(2)]
    )
    for split, names in SPLITS.items():
        for name in names:
            image, original = tmp_path / "deep" / "out" / split / name / "1.jpg", photos / name / "1.jpg"
            assert image.samefile(original) != copy
            assert not image.is_symlink()
            assert image.read_bytes() == original.read_bytes()
    moved = (tmp_path / "deep" / "out").rename(tmp_path / "moved")
    shutil.rmtree(photos)
    assert (moved / "test" / "c" / "0.jpg").read_bytes()


def test_links_to_images_are_followed(photos: Path, tmp_path: Path):
    """Catches a link to a relative link, which breaks; and a broken one that ends the command."""
    (photos / "a" / "2.jpg").symlink_to("../b/0.jpg")
    (photos / "a" / "3.jpg").symlink_to("nowhere.jpg")
    notes: list[str] = []
    images = find_undivided(photos, None, notes.append)
    assert notes == [f"{photos}: skipped, links to nothing: 'a/3.jpg'"]
    write_divided(images, SPLITS, tmp_path / "out", False, lambda: None)
    assert (tmp_path / "out" / "train" / "a" / "2.jpg").samefile(photos / "b" / "0.jpg")
    assert not (tmp_path / "out" / "train" / "a" / "2.jpg").is_symlink()


def test_other_files_are_reported(photos: Path):
    """Catches a text file among photos that ends the command, or is left out without a word."""
    (photos / "notes.txt").write_text("x")
    notes: list[str] = []
    assert len(find_undivided(photos, None, notes.append)) == 6
    assert notes == [f"{photos}: skipped, not images: 'notes.txt'"]


@pytest.mark.parametrize("fails_at", [0, 3])
def test_all_or_nothing(fails_at: int, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches half a data set where links are impossible, or a disk is full."""
    real, calls = os.link, []

    def link(*arguments: Path) -> None:
        calls.append(arguments)
        if len(calls) > fails_at:
            raise OSError(18, "Invalid cross-device link")
        real(*arguments)

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(
        InputError, match=r"out: files of .*(a|b) cannot be linked there \(Invalid.*; add --copy"
    ):
        write(photos, tmp_path / "out")
    assert os.listdir(tmp_path) == ["photos"]


def test_inner_folders_as_classes(tmp_path: Path):
    """Catches alphabets that silently become the classes, and characters of two alphabets taken for one."""
    root = tmp_path / "omniglot"
    for number, name in enumerate(("Greek/c1", "Greek/c2", "Latin/c1")):
        save(root / name / "0.png", number)
    with pytest.raises(
        InputError,
        match=r"all images lie two folders deep, as Greek/c1/0.png does; add --class-depth 2 if the inner .* "
        r"or --class-depth 1 if the outer",
    ):
        find_undivided(root, None, pytest.fail)
    assert find_undivided(root, 1, pytest.fail).class_names == ("Greek", "Latin")
    images = find_undivided(root, 2, pytest.fail)
    assert images.class_names == ("Greek/c1", "Greek/c2", "Latin/c1")
    written = write_divided(
        images,
        {"train": ["Greek/c1", "Greek/c2"], "test": ["Latin/c1"]},
        tmp_path / "out",
        False,
        lambda: None,
    )
    assert written["train"].names == ("Greek__c1/0.png", "Greek__c2/0.png")
    assert (tmp_path / "out" / "test" / "Latin__c1" / "0.png").samefile(root / "Latin" / "c1" / "0.png")
    save(root / "Latin" / "1.png")
    with pytest.raises(InputError, match=r"Latin/1.png lies in no class folder of --class-depth 2"):
        find_undivided(root, 2, pytest.fail)


def test_deeper_images_belong_to_their_class(photos: Path, tmp_path: Path):
    """Catches two images of one name in folders of one class, of which one is lost."""
    for folder in "xy":
        save(photos / "a" / folder / "0.jpg")
    write(photos, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out" / "train" / "a").iterdir()) == [
        "0.jpg",
        "1.jpg",
        "x",
        "y",
    ]


def test_a_class_may_have_the_name_of_a_split(photos: Path, tmp_path: Path):
    """Catches CIFAR's class `train`, taken for a split."""
    save(photos / "train" / "0.jpg")
    assert is_undivided(photos)
    assert find_undivided(photos, None, pytest.fail).class_names == ("a", "b", "c", "train")


@pytest.mark.parametrize(
    ("arrange", "line"),
    [
        (lambda root: tree(root), "ROOT: is divided already (train, val, test); use this folder as it is"),
        (lambda root: tree(root, {"base": {"x": 1}}), "ROOT: is divided already (base)"),
        (lambda root: (root / "val.csv").touch(), "ROOT: is divided already (val.csv)"),
        (lambda root: shutil.rmtree(root), "ROOT: no such folder of images"),
        (
            lambda root: [save(root / "d" / "x" / "1.png"), *(shutil.rmtree(root / name) for name in "abc")],
            "ROOT: all images are in one folder; name it: ROOT/d",
        ),
    ],
)
def test_other_folders_are_refused(arrange: Callable[[Path], object], line: str, photos: Path):
    """Catches splits that become classes of another division."""
    arrange(photos)
    with pytest.raises(InputError) as caught:
        find_undivided(photos, None, lambda line: None)
    assert line in str(caught.value).replace(str(photos), "ROOT")


def test_destinations_that_are_refused(photos: Path, tmp_path: Path):
    """Catches a division that becomes a class of its own source, also by a link, or is overwritten."""
    (tmp_path / "link").symlink_to(photos)
    for dst in (photos / "out", tmp_path / "link" / "out"):
        with pytest.raises(InputError, match="lies inside"):
            write(photos, dst)
    with pytest.raises(InputError, match="already exists"):
        write(photos, photos)


def test_classes_that_would_share_a_folder(tmp_path: Path):
    """Catches images of two classes in one folder."""
    for name in ("a/b__c", "a__b/c", "d/e"):
        save(tmp_path / "photos" / name / "0.png")
    with pytest.raises(InputError, match=r"classes 'a/b__c' and 'a__b/c' would share a folder; rename one"):
        write(tmp_path / "photos", tmp_path / "out", depth=2, splits={"train": ["a/b__c", "a__b/c"]})
