"""CIFAR-100's archive as CIFAR-FS and FC100: the lists, the pixels, and what is refused."""

import os
import pickle
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leo_lightning.common.errors import InputError
from leo_lightning.images.sources import cifar100, cifar_fs, fc100
from leo_lightning.images.sources.tree import write_tree
from tests.data.importers.test_pickles import Call
from tests.images import sources


def test_lists_of_cifar_fs_are_the_100_classes():
    """Catches a class that is missing, misspelt or in two splits."""
    lists = cifar_fs.SPLITS
    assert {split: len(names) for split, names in lists.items()} == {"train": 64, "val": 16, "test": 20}
    assert sorted(name for names in lists.values() for name in names) == sources.FINE


def test_lists_of_fc100_are_the_20_superclasses():
    """Catches a superclass that is missing, misspelt or in two splits."""
    lists = fc100.SUPERCLASSES
    assert {split: len(names) for split, names in lists.items()} == {"train": 12, "val": 4, "test": 4}
    assert sorted(name for names in lists.values() for name in names) == sources.COARSE
    numbers = {split: {sources.COARSE.index(name) for name in names} for split, names in lists.items()}
    # the numbers in the code of the paper's authors, and in its supplement
    assert numbers == {
        "train": {1, 2, 3, 4, 5, 6, 9, 10, 15, 17, 18, 19},
        "val": {8, 11, 13, 16},
        "test": {0, 7, 12, 14},
    }


def read(module: Any, folder: Path, dst: Path) -> None:
    total, pictures = module.read([folder / "cifar-100-python.tar.gz"])
    counts = write_tree(pictures, dst)
    assert total == sum(sum(of_split.values()) for of_split in counts.values())


def test_cifar_fs_is_divided_by_class(tmp_path: Path):
    """Catches images of one part only, and classes in another split than the paper's."""
    read(cifar_fs, sources.cifar(tmp_path / "src"), tmp_path / "out")
    assert sources.classes(tmp_path / "out") == {
        split: dict.fromkeys(sorted(names), 2 * sources.PER_PART) for split, names in cifar_fs.SPLITS.items()
    }


def test_fc100_is_divided_by_superclass(tmp_path: Path):
    """Catches superclasses as classes, and a class that is not where its superclass is."""
    read(fc100, sources.cifar(tmp_path / "src"), tmp_path / "out")
    classes = sources.classes(tmp_path / "out")
    assert {split: len(names) for split, names in classes.items()} == {"train": 60, "val": 20, "test": 20}
    for split, names in classes.items():
        expected = [sources.SUPERCLASSES[group].split() for group in fc100.SUPERCLASSES[split]]
        assert sorted(names) == sorted(name for group in expected for name in group)
        assert set(names.values()) == {2 * sources.PER_PART}


def test_pixels_are_those_of_the_archive(tmp_path: Path):
    """Catches rows taken for columns, and red for blue."""
    read(cifar_fs, sources.cifar(tmp_path / "src"), tmp_path / "out")
    split_of = {name: split for split, names in cifar_fs.SPLITS.items() for name in names}
    for part in ("train", "test"):
        content = sources.cifar_part(part)
        for row in (0, 57, 163):
            name = sources.FINE[content["fine_labels"][row]]
            image = sources.pixels_of(tmp_path / "out" / split_of[name] / name / f"{part}_{row:05d}.png")
            planes = content["data"][row].reshape(3, 32, 32)
            for channel in range(3):
                np.testing.assert_array_equal(image[:, :, channel], planes[channel])


def changed(part: str, **entries: Any) -> bytes:
    return sources.python2_pickle(sources.cifar_part(part) | entries)


LABELS = sources.cifar_part("train")["fine_labels"]
META = {"fine_label_names": sources.FINE, "coarse_label_names": sources.COARSE}
BAD: dict[str, tuple[dict[str, bytes], str]] = {
    "a call": (
        {"train": pickle.dumps(Call(os.system, "touch evil"), 2)},
        r"tar\.gz:train: refused to load a pickle that calls '(posix|nt)\.system'",
    ),
    "half a pickle": (
        {"test": changed("test")[:-1000]},
        r"tar\.gz:test: is cut short, damaged or not a pickle",
    ),
    "a list": ({"meta": sources.python2_pickle(["a"])}, r"tar\.gz:meta: holds a list, not a dict"),
    "no images": (
        {"train": sources.python2_pickle({"a": 1})},
        "train: the images are a NoneType, not an array",
    ),
    "rows of another length": (
        {"train": changed("train", data=np.zeros((200, 3071), np.uint8))},
        r"the images are uint8 of shape \(200, 3071\)",
    ),
    "images of floats": (
        {"train": changed("train", data=np.zeros((200, 3072), np.float32))},
        "the images are float32",
    ),
    "a label too few": (
        {"train": changed("train", fine_labels=LABELS[1:])},
        "there are 200 images, and not as many labels",
    ),
    "a label too large": (
        {"train": changed("train", fine_labels=[*LABELS[:-1], 100])},
        "the label of image 199 is 100; with 100 class names it must be a whole number from 0 to 99",
    ),
    "a label that is text": (
        {"train": changed("train", coarse_labels=["fish"] * 200)},
        "the label of image 0 is 'fish'; with 20 class names",
    ),
    "a class of another name": (
        {"meta": sources.python2_pickle(META | {"fine_label_names": ["pear tree", *sources.FINE[1:]]})},
        r"is not CIFAR-100: its classes are others \('apple' is only in one of both\)",
    ),
    "two classes of one name": (
        {"meta": sources.python2_pickle(META | {"fine_label_names": ["bear", *sources.FINE[1:]]})},
        "two classes are called 'bear'",
    ),
    "names that are numbers": (
        {"meta": sources.python2_pickle(META | {"fine_label_names": list(range(100))})},
        "the class names are not a list of names",
    ),
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_content_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches code that is run, a traceback, and images under the wrong class."""
    monkeypatch.chdir(tmp_path)
    changes, message = BAD[name]
    src = sources.cifar(tmp_path / "src", **changes)
    with pytest.raises(InputError, match=message) as caught:
        read(cifar_fs, src, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert sources.tree(tmp_path) == ["src", "src/cifar-100-python.tar.gz"]


def test_a_class_of_two_superclasses_is_refused(tmp_path: Path):
    """Catches images of one class in two splits of FC100."""
    content = sources.cifar_part("train")
    labels = content["coarse_labels"]
    labels[0] = sources.COARSE.index("people")  # an apple
    src = sources.cifar(tmp_path / "src", train=changed("train", coarse_labels=labels))
    with pytest.raises(InputError, match="class 'apple' would be in both 'test' and 'train'; splits may not"):
        read(fc100, src, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def link(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


HOSTILE = {
    "outside": (tarfile.TarInfo("../../evil"), r"holds '\.\./\.\./evil', which would lie outside"),
    "absolute": (tarfile.TarInfo("/evil"), "holds '/evil', which would lie outside"),
    "a link": (
        link("cifar-100-python/meta", tarfile.SYMTYPE, "/etc/passwd"),
        "has no file 'cifar-100-python/meta'",
    ),
    "a hard link": (
        link("cifar-100-python/meta", tarfile.LNKTYPE, "/etc/passwd"),
        "has no file 'cifar-100-python/meta'",
    ),
    "a device": (link("cifar-100-python/meta", tarfile.CHRTYPE, ""), "has no file 'cifar-100-python/meta'"),
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_hostile_archive_is_refused(name: str, tmp_path: Path):
    """Catches files written or read where the archive says."""
    member, message = HOSTILE[name]
    members = sources.cifar_members()
    if name not in ("outside", "absolute"):
        del members["meta"]
    (tmp_path / "src").mkdir()
    sources.write_tar(tmp_path / "src" / "cifar-100-python.tar.gz", members, member)
    with pytest.raises(InputError, match=message):
        read(cifar_fs, tmp_path / "src", tmp_path / "out")
    assert sources.tree(tmp_path) == ["src", "src/cifar-100-python.tar.gz"]


def test_archive_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches hours of unpacking, or a full memory, from a small file."""
    monkeypatch.setattr(cifar100, "_MAX_UNPACKED", 2**22)
    (tmp_path / "src").mkdir()
    sources.zeros(tmp_path / "src" / "cifar-100-python.tar.gz", 2**24)
    with pytest.raises(InputError, match="refused to unpack more than 4,194,304 bytes; CIFAR-100 has less"):
        read(cifar_fs, tmp_path / "src", tmp_path / "out")


@pytest.mark.parametrize("keep", [0, 5, 2000, -3000])
def test_truncated_archive_is_one_line(keep: int, tmp_path: Path):
    """Catches what gzip, tarfile and zlib raise."""
    src = sources.cifar(tmp_path / "src")
    path = src / "cifar-100-python.tar.gz"
    path.write_bytes(path.read_bytes()[:keep])
    said = re.escape(str(path)) + "(: is a damaged archive|: has no file|:(train|test|meta): is cut short)"
    with pytest.raises(InputError, match=said) as caught:
        read(cifar_fs, src, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_something_else_is_one_line(tmp_path: Path):
    """Catches a traceback for a file that is no archive."""
    (tmp_path / "cifar-100-python.tar.gz").write_bytes(b"<html>Not found</html>" * 100)
    with pytest.raises(InputError, match="is a damaged archive"):
        read(cifar_fs, tmp_path, tmp_path / "out")
