"""CIFAR-100's archive as CIFAR-FS and FC100: the lists, the pixels, and hostile contents."""

import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leo_lightning.common.errors import InputError
from leo_lightning.images.sources import cifar_fs, fc100
from leo_lightning.images.sources.tree import write_tree
from tests.data.importers.test_pickles import Call
from tests.images import sources


def test_lists_of_cifar_fs_are_the_100_classes():
    """Catches a class that is missing, misspelled or in two splits."""
    lists = cifar_fs.SPLITS
    assert {split: len(names) for split, names in lists.items()} == {"train": 64, "val": 16, "test": 20}
    assert sorted(name for names in lists.values() for name in names) == sources.FINE


def test_lists_of_fc100_are_the_20_superclasses():
    """Catches a superclass that is missing, misspelled or in two splits."""
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
    """Catches images of only one part, and classes in another split than the paper's."""
    read(cifar_fs, sources.cifar(tmp_path / "src"), tmp_path / "out")
    assert sources.classes(tmp_path / "out") == {
        split: dict.fromkeys(sorted(names), 2 * sources.PER_PART) for split, names in cifar_fs.SPLITS.items()
    }


def test_fc100_is_divided_by_superclass(tmp_path: Path):
    """Catches superclasses in place of classes, and a class in another split than its superclass."""
    read(fc100, sources.cifar(tmp_path / "src"), tmp_path / "out")
    classes = sources.classes(tmp_path / "out")
    assert {split: len(names) for split, names in classes.items()} == {"train": 60, "val": 20, "test": 20}
    for split, names in classes.items():
        expected = [sources.SUPERCLASSES[group].split() for group in fc100.SUPERCLASSES[split]]
        assert sorted(names) == sorted(name for group in expected for name in group)
        assert set(names.values()) == {2 * sources.PER_PART}


def test_pixels_are_those_of_the_archive(tmp_path: Path):
    """Catches rows and columns, or colors, that are swapped."""
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


def test_code_in_a_pickle_is_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches code that runs although the archive has the right checksum."""
    monkeypatch.chdir(tmp_path)
    src = sources.cifar(tmp_path / "src", train=pickle.dumps(Call(os.system, "touch evil"), 2))
    with pytest.raises(InputError, match=r"tar\.gz:train: refused to load a pickle that calls '\w+\.system'"):
        read(cifar_fs, src, tmp_path / "out")
    assert sources.tree(tmp_path) == ["src", "src/cifar-100-python.tar.gz"]


def link(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "member",
    [
        tarfile.TarInfo("../../evil"),
        tarfile.TarInfo("/evil"),
        link("evil", tarfile.SYMTYPE, "/etc/passwd"),
        link("cifar-100-python/evil", tarfile.LNKTYPE, "/etc/passwd"),
        link("cifar-100-python/evil", tarfile.CHRTYPE, ""),
    ],
    ids=["outside", "absolute", "symbolic link", "hard link", "device"],
)
def test_nothing_is_extracted(member: tarfile.TarInfo, tmp_path: Path):
    """Catches files that are written where the archive says."""
    archive = tmp_path / "a" / "b" / "cifar-100-python.tar.gz"
    archive.parent.mkdir(parents=True)
    sources.write_tar(archive, sources.cifar_members(), member)
    read(cifar_fs, archive.parent, tmp_path / "out")
    assert not any("evil" in path for path in sources.tree(tmp_path))
    assert not Path("/evil").exists()


def test_a_class_of_two_superclasses_is_refused(tmp_path: Path):
    """Catches images of one class in two splits of FC100."""
    content = sources.cifar_part("train")
    content["coarse_labels"][0] = sources.COARSE.index("people")  # an apple
    src = sources.cifar(tmp_path / "src", train=sources.python2_pickle(content))
    with pytest.raises(InputError, match="class 'apple' would be in both 'test' and 'train'; splits may not"):
        read(fc100, src, tmp_path / "out")
    assert not (tmp_path / "out").exists()
