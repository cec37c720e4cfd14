"""One file of features of all classes, divided."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from leo_lightning.common.errors import InputError
from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.feature_file import save_bank
from leo_lightning.data.splits import load_splits
from leo_lightning.data.undivided import divide_features, read_undivided
from tests.data.banks import make_bank

LABELS = [name for image in range(3) for name in ("cat", "dog", "owl", "fox", "ape")]  # not sorted
ROWS = np.random.default_rng(0).normal(size=(15, 4)).astype(np.float32)
NAMES = [f"{row}.jpg" for row in range(15)]


def write_npz(folder: Path) -> Path:
    np.savez(folder / "all.npz", embeddings=ROWS, labels=LABELS, image_names=NAMES)
    return folder / "all.npz"


def write_npy(folder: Path) -> Path:
    np.save(folder / "all.npy", ROWS)
    lines = (f"{name},{label}\n" for name, label in zip(NAMES, LABELS, strict=True))
    (folder / "all_labels.csv").write_text("".join(lines))
    return folder / "all.npy"


def write_torch(folder: Path) -> Path:
    content = {"embeddings": torch.from_numpy(ROWS), "labels": LABELS, "image_names": NAMES}
    torch.save(content, folder / "all.pt")
    return folder / "all.pt"


def write_features(folder: Path) -> Path:
    provenance = {"split": "all", "dataset": "mine", "backbone": "resnet18", "recipe": "{}"}
    save_bank(FeatureBank.from_arrays(ROWS, LABELS, NAMES, provenance), folder / "all.safetensors")
    return folder / "all.safetensors"


@pytest.mark.parametrize("write", [write_npz, write_npy, write_torch, write_features])
def test_rows_keep_their_classes_and_names(write: Callable[[Path], Path], tmp_path: Path):
    """Catches rows of another class or with another image's name, and rows that get lost."""
    src = write(tmp_path)
    division, _ = divide_features(read_undivided(src), tmp_path / "out", "dog", "1", 0, 1)
    banks = load_splits(tmp_path / "out")
    found = {
        bank.image_names[row]: (bank.class_names[bank.labels[row]], bank.embeddings[row].tolist())
        for bank in banks.values()
        if bank.image_names is not None
        for row in range(len(bank))
    }
    assert found == {
        name: (label, row.tolist()) for name, label, row in zip(NAMES, LABELS, ROWS, strict=True)
    }
    assert {split: list(bank.class_names) for split, bank in banks.items()} == division.splits
    assert division.splits["val"] == ["dog"]
    assert [len(bank) for bank in banks.values()] == [9, 3, 3]


def test_provenance_is_kept(tmp_path: Path):
    """Catches features that no longer know the backbone which embeds other images."""
    bank = read_undivided(write_features(tmp_path))
    divide_features(bank, tmp_path / "out", "1", "1", 3, 2)
    for split, found in load_splits(tmp_path / "out").items():
        assert found.provenance == {
            "split": split,
            "dataset": "mine",
            "backbone": "resnet18",
            "recipe": "{}",
            "divider": "leo-lightning divider 1",
            "division": "--val 1 --test 1 --seed 3 --min-images 2",
        }


def test_provenance_of_arrays(tmp_path: Path):
    """Catches features of an unknown source."""
    src = write_npz(tmp_path)
    divide_features(read_undivided(src), tmp_path / "out", "0", "1", 0, 1)
    banks = load_splits(tmp_path / "out")
    assert list(banks) == ["train", "test"]
    record = banks["test"].provenance
    assert (record["source"], record["split"]) == ("all.npz", "test")
    assert record["source_sha256"] == hashlib.sha256(src.read_bytes()).hexdigest()


def test_small_classes_are_left_out(tmp_path: Path):
    """Catches a class that is too small for tasks among the training classes."""
    src = tmp_path / "all.npz"
    np.savez(src, embeddings=ROWS, labels=[*LABELS[:-1], "elk"])
    division, banks = divide_features(read_undivided(src), tmp_path / "out", "1", "1", 0, 3)
    assert division.small == ["ape", "elk"]
    assert sum(map(len, banks.values())) == 12


def test_refusals_leave_nothing(tmp_path: Path):
    """Catches features replaced by a division, and a folder left behind by one that is impossible."""
    bank = read_undivided(write_npz(tmp_path))
    with pytest.raises(InputError, match=r"all.npz: 5 classes leave 1 to train on"):
        divide_features(bank, tmp_path / "out", "2", "2", 0, 1)
    assert not (tmp_path / "out").exists()
    divide_features(bank, tmp_path / "out", "1", "1", 0, 1)
    with pytest.raises(InputError, match="already holds features"):
        divide_features(bank, tmp_path / "out", "1", "1", 1, 1)
    with pytest.raises(InputError, match="is a folder; name one file of features"):
        read_undivided(tmp_path)


def test_only_some_classes_of_a_bank():
    """Catches labels of the classes that are gone."""
    bank = make_bank(["a", "b", "c"], images=2)
    part = bank.only({"a", "c"})
    assert part.class_names == ("a", "c")
    assert part.labels.tolist() == [0, 0, 1, 1]
    assert part.image_names == ("a_0.jpg", "a_1.jpg", "c_4.jpg", "c_5.jpg")
    assert torch.equal(part.embeddings, bank.embeddings[[0, 1, 4, 5]])
