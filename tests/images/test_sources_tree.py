"""The tree of images: all of it, or nothing."""

import builtins
import errno
import io
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leo_lightning.common.errors import InputError
from leo_lightning.images.sources.picture import Picture
from leo_lightning.images.sources.tree import write_tree
from tests.images.sources import classes, png, tree

GOOD = [
    Picture("train", "a", "1", png(1)),
    Picture("train", "a", "2", png(2)),
    Picture("val", "b", "1", png(3)),
    Picture("test", "c", "1", png(4)),
]


def test_images_lie_in_their_folders(tmp_path: Path):
    """Catches wrong places, folders that others cannot enter, and a temporary folder left behind."""
    counts = write_tree(iter(GOOD), tmp_path / "new" / "out")
    assert (
        counts == {"train": {"a": 2}, "val": {"b": 1}, "test": {"c": 1}} == classes(tmp_path / "new" / "out")
    )
    for split, name, image, content in GOOD:
        assert (tmp_path / "new" / "out" / split / name / f"{image}.png").read_bytes() == content
    (tmp_path / "ordinary").mkdir()
    assert (tmp_path / "new" / "out").stat().st_mode == (tmp_path / "ordinary").stat().st_mode
    assert os.listdir(tmp_path / "new") == ["out"]


def test_what_a_killed_import_left_is_removed(tmp_path: Path):
    """Catches thousands of images that stay for ever, and images of another data set among these."""
    old = tmp_path / ".out.part" / "train" / "old"
    old.mkdir(parents=True)
    (old / "1.png").touch()
    write_tree(iter(GOOD), tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]
    assert classes(tmp_path / "out")["train"] == {"a": 2}


def test_two_imports_into_one_folder_are_refused(tmp_path: Path):
    """Catches two processes that write into each other's images."""

    def pictures() -> Iterator[Picture]:
        yield GOOD[0]
        with pytest.raises(InputError, match=r"out: another process writes it; wait for its end \("):
            write_tree(iter(GOOD), tmp_path / "out")
        yield from GOOD[1:]

    assert write_tree(pictures(), tmp_path / "out")["train"] == {"a": 2}
    assert os.listdir(tmp_path) == ["out"]


def refuse(bad: Picture, message: str, folder: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        write_tree(iter([*GOOD, bad]), folder / "out")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{folder / 'out'}: ")
    assert tree(folder) == []


def test_class_in_two_splits_is_refused(tmp_path: Path):
    """Catches a test on a class that was trained on."""
    message = "class 'a' would be in both 'train' and 'test'; splits may not share classes"
    refuse(Picture("test", "a", "3", png(5)), message, tmp_path)


def test_an_image_that_comes_twice_is_refused(tmp_path: Path):
    """Catches an image that replaces another."""
    refuse(Picture("train", "a", "2", png(5)), "image '2' of class 'a' comes twice", tmp_path)


def test_classes_that_would_share_a_folder_are_refused(tmp_path: Path):
    """Catches two classes that become one, in one split or in two."""
    pictures = [Picture("train", "a/b", "1", png(1)), Picture("test", "a__b", "2", png(2))]
    with pytest.raises(
        InputError, match="classes 'a/b' and 'a__b' would share the folder 'a__b'; rename one"
    ):
        write_tree(pictures, tmp_path / "out")
    assert tree(tmp_path) == []


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a\nb", "a\0b", "\x1b[31m", "é" * 128, "\udc80"])
def test_names_that_no_folder_can_have_are_refused(name: str, tmp_path: Path):
    """Catches images outside of the tree or where no reader looks, and a traceback."""
    refuse(Picture("train", name, "1", png(5)), "cannot be the name of a folder; rename the class", tmp_path)


def test_slashes_do_not_lead_elsewhere(tmp_path: Path):
    """Catches a class whose name is a path out of the tree."""
    write_tree([Picture("train", "x/../../../evil", "1", png(5))], tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]
    assert classes(tmp_path / "out") == {"train": {"x__..__..__..__evil": 1}}


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_an_existing_destination_is_left_alone(kind: str, tmp_path: Path):
    """Catches images mixed with others, or in place of a file."""
    out = tmp_path / "out"
    if kind == "folder":
        out.mkdir()
    elif kind == "file":
        out.write_text("mine")
    else:
        out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="out: already exists; remove it, or name another folder"):
        write_tree(iter(GOOD), out)
    assert os.listdir(tmp_path) == ["out"]


def test_destination_below_a_file(tmp_path: Path):
    """Catches a traceback."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"file/out: cannot be written \(Not a directory\)"):
        write_tree(iter(GOOD), tmp_path / "file" / "out")


@pytest.mark.parametrize("stop", [KeyboardInterrupt, InputError("damaged"), RuntimeError()])
def test_a_source_that_stops_leaves_nothing(stop: BaseException, tmp_path: Path):
    """Catches half a data set after Ctrl-C, or after a damaged image."""

    def pictures() -> Iterator[Picture]:
        yield from GOOD
        raise stop

    with pytest.raises(type(stop) if isinstance(stop, BaseException) else stop):
        write_tree(pictures(), tmp_path / "out")
    assert tree(tmp_path) == []


def test_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a traceback, and half a data set that fills the disk."""
    written: list[str] = []
    true_open = io.open

    def full(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if mode == "xb":
            written.append(str(path))
            if len(written) == 3:
                raise OSError(errno.ENOSPC, "No space left on device")
        return true_open(path, mode, *args, **kwargs)

    monkeypatch.setattr(io, "open", full)
    monkeypatch.setattr(builtins, "open", full)
    with pytest.raises(InputError, match=r"out: cannot be written \(No space left on device\)"):
        write_tree(iter(GOOD), tmp_path / "out")
    assert len(written) == 3
    assert tree(tmp_path) == []


def test_file_too_large_for_the_disk_leaves_nothing(tmp_path: Path):
    """Catches a traceback where the system itself refuses to write."""
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))
    try:
        with pytest.raises(InputError, match=r"out: cannot be written \(File too large\)"):
            write_tree(iter(GOOD), tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert tree(tmp_path) == []
