"""A folder of splits."""

import itertools
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from leo_lightning.common.errors import InputError
from leo_lightning.data import splits
from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.feature_file import load_bank, save_bank
from leo_lightning.data.splits import (
    SPLITS,
    check_splits,
    claim,
    load_split,
    load_splits,
    save_splits,
    split_path,
    union,
)
from tests.data.banks import make_bank
from tests.killed import killed


def test_load_split_says_which_splits_are_there(tmp_path: Path):
    """Catches a message that leaves the user guessing what the folder holds."""
    with pytest.raises(InputError, match=r"none: no such folder .*features import SRC"):
        load_split(tmp_path / "none", "train")
    with pytest.raises(InputError, match=r"splits there: none\).*features import SRC"):
        load_split(tmp_path, "train")
    with pytest.raises(
        InputError, match=r"none: no such folder of features \(relative to the current folder\)"
    ):
        load_split(Path("none"), "train")
    save_bank(make_bank(["a"]), split_path(tmp_path, "train"))
    save_bank(make_bank(["b"]), split_path(tmp_path, "test"))
    with pytest.raises(InputError, match=r"no split 'val' \(splits there: train, test\)"):
        load_split(tmp_path, "val")
    assert load_split(tmp_path, "test").class_names == ("b",)


@pytest.mark.parametrize("name", ["train.npz", "test_embeddings.npy", "valid.pt", "novel.npz"])
def test_arrays_are_imported_from_where_they_lie(name: str, tmp_path: Path):
    """Catches a command that would import some unknown source into the folder of the arrays."""
    (tmp_path / name).touch()
    with pytest.raises(InputError, match=rf"holds arrays, not features; .*features import {tmp_path} DST`"):
        load_split(tmp_path, "train")


@pytest.mark.parametrize("name", ["valid", "base", "novel.csv"])
def test_images_are_extracted_from_where_they_lie(name: str, tmp_path: Path):
    """Catches images under another name of a split that are advised to be imported as features."""
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=rf"holds images, .*features extract --images {tmp_path} --out …`"):
        load_split(tmp_path, "train")


def test_undivided_images_are_divided_first(tmp_path: Path):
    """Catches a folder of photos that is advised to be imported as features."""
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.JPG").touch()
    with pytest.raises(
        InputError, match=rf"not divided .*images divide {tmp_path} DST` and .*extract --images DST --out …`"
    ):
        load_split(tmp_path, "train")


def test_splits_that_share_a_class_are_refused():
    """Catches a leak: test classes seen in training."""
    banks = {"train": make_bank(["a", "b", "c"]), "val": make_bank(["d"]), "test": make_bank(["c", "b", "e"])}
    with pytest.raises(InputError, match=r"classes 'b', 'c' in both 'train' and 'test'"):
        check_splits(banks)
    check_splits({"train": make_bank(["a"]), "val": make_bank(["b"])})


def test_a_split_whose_embeddings_are_all_equal_is_refused(monkeypatch: pytest.MonkeyPatch):
    """Catches training on images that were all read as black; also equal first and last rows refused."""
    monkeypatch.setattr("leo_lightning.data.bank._CHUNK", 8)
    good = make_bank(["a", "b"])
    equal = replace(good, embeddings=torch.ones(6, 4), source="val.safetensors")
    with pytest.raises(InputError, match=r"val\.safetensors: all 6 embeddings are equal"):
        check_splits({"train": make_bank(["c"]), "val": equal})
    good.embeddings[-1] = good.embeddings[0]
    check_splits({"val": good, "test": make_bank(["c"], images=1)})


def test_union_has_the_classes_of_both():
    """Catches labels of the second bank that are not shifted, and a result that does not say what it is."""
    a, b = make_bank(["a", "b"], split="train"), make_bank(["c"], split="val")
    both = union(a, b)
    assert both.class_names == ("a", "b", "c")
    assert both.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert torch.equal(both.embeddings, torch.cat([a.embeddings, b.embeddings]))
    assert both.provenance == {"split": "train+val", "dataset": "toy"}


def test_union_of_what_does_not_fit_is_refused():
    """Catches a torch error about sizes, and a class that is there twice."""
    with pytest.raises(InputError, match="val: embeddings have 5 numbers, those of 'train' have 4;"):
        union(make_bank(["a"]), make_bank(["b"], size=5, split="val"))
    with pytest.raises(InputError, match="class 'a' in both 'train' and 'val'"):
        union(make_bank(["a"]), make_bank(["a"], split="val"))


def test_splits_are_saved_together(tmp_path: Path):
    """Catches a split that is missing, and a temporary folder left behind."""
    banks = {split: make_bank([split], split=split) for split in SPLITS}
    saved = save_splits(banks.items(), tmp_path / "new" / "toy")
    assert list(saved) == list(SPLITS)
    assert saved["val"].class_names == ("val",)
    assert os.listdir(tmp_path / "new") == ["toy"]
    assert sorted(os.listdir(tmp_path / "new" / "toy")) == sorted(f"{split}.safetensors" for split in SPLITS)


@pytest.mark.parametrize("there", [False, True])
def test_splits_that_fail_leave_nothing(there: bool, tmp_path: Path):
    """Catches half a data set, or empty folders, left behind when the last split is bad."""
    root = tmp_path / "deep" / "toy"
    if there:
        root.mkdir(parents=True)
    banks = [("train", make_bank(["a"])), ("val", make_bank(["b"])), ("test", make_bank(["a"]))]
    with pytest.raises(InputError, match="class 'a' in both 'train' and 'test'"):
        save_splits(banks, root)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert root.exists() == there
    assert (tmp_path / "deep").exists() == there


def test_splits_in_place_are_replaced_only_on_request(tmp_path: Path):
    """Catches old and new splits mixed, other files lost, and features overwritten by accident."""
    (tmp_path / "notes.txt").write_text("mine")
    save_splits({"train": make_bank(["a"]), "test": make_bank(["b"])}.items(), tmp_path)
    with pytest.raises(InputError, match=r"already holds features \(train, test\)"):
        save_splits({"train": make_bank(["c"])}.items(), tmp_path)
    save_splits({"train": make_bank(["c"])}.items(), tmp_path, overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["notes.txt", "train.safetensors"]
    assert load_split(tmp_path, "train").class_names == ("c",)
    with pytest.raises(InputError, match="is a file"):
        save_splits({"train": make_bank(["c"])}.items(), tmp_path / "notes.txt")


def data_set(name: str, *names: str) -> dict[str, FeatureBank]:
    """Splits whose classes begin with the name of the data set."""
    return {split: make_bank([f"{name} {split}"], split=split) for split in names}


def sets_in(root: Path) -> set[str]:
    """Names of the data sets of which splits lie in a folder."""
    banks = [load_bank(path) for path in root.glob("*.safetensors")]
    return {name.split()[0] for bank in banks for name in bank.class_names}


@pytest.mark.slow
@pytest.mark.parametrize("new", [SPLITS, SPLITS[:1]])
def test_a_kill_never_mixes_two_data_sets(new: tuple[str, ...], tmp_path: Path):
    """Catches a new train beside an old test, and temporary files that stay for ever."""
    for moment in itertools.count(1):
        root = tmp_path / str(moment)
        save_splits(data_set("old", *SPLITS).items(), root)

        def again(*_: object) -> None:
            save_splits(data_set("new", *new).items(), root, overwrite=True)  # noqa: B023

        was_killed = killed(moment, again)
        assert len(sets_in(root)) <= 1
        (root / ".test.safetensors.part").touch()  # left by an import of other splits, killed as well
        again()
        assert sets_in(root) == {"new"}
        assert sorted(os.listdir(root)) == sorted(f"{split}.safetensors" for split in new)
        if not was_killed:
            break
    assert moment > 2 * len(new)  # renames, and removals of what they replace


def test_a_reader_never_mixes_two_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a reader that opens the train split just before an import, and the test split just after it."""
    save_splits(data_set("old", *SPLITS).items(), tmp_path)

    def load_slowly(path: Path) -> FeatureBank:
        bank = load_bank(path)
        monkeypatch.setattr(splits, "load_bank", load_bank)
        save_splits(data_set("new", *SPLITS).items(), tmp_path, overwrite=True)
        return bank

    monkeypatch.setattr(splits, "load_bank", load_slowly)
    with pytest.raises(InputError, match=r"features were replaced while they were read; run .* again"):
        load_splits(tmp_path)
    assert {bank.class_names[0].split()[0] for bank in load_splits(tmp_path).values()} == {"new"}


def test_two_writers_at_once_are_refused(tmp_path: Path):
    """Catches two imports that write their splits into the same temporary files."""
    with claim(tmp_path):
        with pytest.raises(InputError, match="another import or extraction is at work here"):
            save_splits(data_set("a", "train").items(), tmp_path)
        assert os.listdir(tmp_path) == [".lock"]
    save_splits(data_set("a", "train").items(), tmp_path)
