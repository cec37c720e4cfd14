"""Labels from every source that has them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from leo_lightning.common.errors import InputError
from leo_lightning.data.importers.importer import import_features
from leo_lightning.data.labels import class_name, class_numbers, read_label_lines
from leo_lightning.data.new_classes import read_images
from leo_lightning.images.folder import find_splits
from leo_lightning.images.sources.npz import read_npz
from tests.images.pictures import save

ROWS = np.eye(4, 3, dtype=np.float32)
WRITTEN = ("\ufeffcat", "10", "2.000000000000000000e+00", "cat ")
NAMES = ("10", "2", "cat")


@pytest.mark.parametrize(
    ("label", "name"),
    [
        (3, "3"), (3.0, "3"), ("3", "3"), ("3.0", "3"), ("3.", "3"), (b"3.000e+00", "3"), ("1.2E+01", "12"),
        (-0.0, "0"), ("-0.0", "0"), ("\ufeff3", "3"), (" 3\t", "3"), ("1.5", "1.5"), ("1e3", "1e3"),
        ("007", "007"), ("n01.0", "n01.0"), ("v2.0", "v2.0"), ("tench, Tinca tinca ", "tench, Tinca tinca"),
        (b"\xe9t\xe9", "\\xe9t\\xe9"), ("été", "été"), (0.5, ""), (float("nan"), ""), (True, ""),
        (None, ""), (" ", ""), ("1.0e99", str(int(1e99))),
    ],
)  # fmt: skip
def test_a_class_has_one_name(label: object, name: str):
    """Catches a class that becomes two by the way its label is written, and names taken for numbers."""
    assert class_name(label) == name


def npz(folder: Path) -> None:
    np.savez(folder / "train.npz", x=ROWS, y=np.array(WRITTEN))


def npz_of_bytes(folder: Path) -> None:
    np.savez(folder / "train.npz", x=ROWS, y=np.array([label.encode() for label in WRITTEN]))


def npy(folder: Path) -> None:
    np.save(folder / "train.npy", ROWS)
    np.save(folder / "train_labels.npy", np.array(WRITTEN))


def txt(folder: Path) -> None:
    np.save(folder / "train.npy", ROWS)
    (folder / "train_labels.txt").write_text("\n".join(WRITTEN) + "\n", encoding="utf-8")


def named_txt(folder: Path) -> None:
    np.save(folder / "train.npy", ROWS)
    lines = [f"{row}.jpg,{label}" for row, label in enumerate(WRITTEN)]
    (folder / "train_labels.txt").write_text("\n".join(lines), encoding="utf-8-sig")


def named_csv(folder: Path) -> None:
    np.save(folder / "train.npy", ROWS)
    lines = ["filename,label", *(f'"{row}, 1.jpg",{label}' for row, label in enumerate(WRITTEN))]
    (folder / "train_labels.csv").write_text("\r\n".join(lines), encoding="utf-8")


def torch_file(folder: Path) -> None:
    torch.save({"x": torch.from_numpy(ROWS), "y": list(WRITTEN)}, folder / "train.pt")


@pytest.mark.parametrize("write", [npz, npz_of_bytes, npy, txt, named_txt, named_csv, torch_file])
def test_arrays_have_the_same_classes_in_every_format(write: Callable[[Path], None], tmp_path: Path):
    """Catches a format whose labels are read in another way, by `import` or by `classify`."""
    write(tmp_path)
    bank = import_features(tmp_path, tmp_path / "out", report=lambda remark: None)["train"]
    assert (bank.class_names, bank.labels.tolist()) == (NAMES, [0, 1, 2, 2])
    if write in (named_txt, named_csv):
        ending = ".jpg" if write is named_txt else ", 1.jpg"
        assert bank.image_names == tuple(f"{row}{ending}" for row in (1, 2, 0, 3))
    (file,) = (path for path in tmp_path.glob("train.*"))
    images = read_images(file, labelled=True)
    assert images.classes is not None
    assert (images.class_names, images.classes.tolist()) == (NAMES, [2, 0, 1, 2])


def test_images_have_the_same_classes_in_every_format(tmp_path: Path):
    """Catches tables or arrays of images whose labels are read in another way."""
    for row in range(4):
        save(tmp_path / "tables" / "images" / f"{row}.png", row)
    lines = ["filename,label", *(f"{row}.png,{label}" for row, label in enumerate(WRITTEN))]
    (tmp_path / "tables" / "train.csv").write_text("\n".join(lines), encoding="utf-8")
    assert find_splits(tmp_path / "tables")["train"].class_names == NAMES
    arrays = {"images": np.zeros((4, 2, 2), np.uint8), "names": np.array(["10", "2.0", " cat"])}
    np.savez(tmp_path / "a.npz", labels=np.array([2.0, 0, 1, 2]), **arrays)
    pictures = read_npz(tmp_path / "a.npz", ["cat"], []).pictures
    assert [picture.class_name for picture in pictures] == ["cat", "10", "2", "cat"]


def test_a_class_in_two_splits_is_found_however_it_is_written(tmp_path: Path):
    """Catches a leak: test class 0 of an integer array, and training class 0.0 of a text file."""
    np.save(tmp_path / "train.npy", ROWS)
    np.savetxt(tmp_path / "train_labels.txt", np.array([0, 0, 1, 1]))
    np.savez(tmp_path / "test.npz", x=ROWS, y=[0, 0, 2, 2])
    with pytest.raises(InputError, match="class '0' in both 'train' and 'test'"):
        import_features(tmp_path, tmp_path / "out", report=lambda remark: None)


@pytest.mark.parametrize(
    "lines",
    [["tench, Tinca tinca", "hen, Gallus"], ["a,b", "a,b", "c,d"], ["a", "b,c"], ["a,b,c", "d,e,f"], ["x"]],
)
def test_class_names_may_hold_commas(lines: list[str], tmp_path: Path):
    """Catches a class name cut at its comma."""
    (tmp_path / "a.txt").write_text("\n".join(lines))
    assert read_label_lines(tmp_path / "a.txt") == (lines, None)


def test_numbers_sort_as_numbers_unless_some_are_names():
    """Catches class 10 before class 9, and an error where numbers and names are mixed."""
    assert class_numbers(["10", "9", "9.0"], "a")[0] == ("9", "10")
    assert class_numbers(["10", "9", "a"], "a")[0] == ("10", "9", "a")
