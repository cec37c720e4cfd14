"""The feature bank."""

import numpy as np
import pytest
import torch

from leo_lightning.common.errors import InputError
from leo_lightning.data.bank import FeatureBank


def test_rows_are_sorted_by_class_and_keep_their_order():
    """Catches an unstable sort, and image names or embeddings that do not move with their labels."""
    embeddings = np.arange(12, dtype=np.float32).reshape(6, 2)
    labels = ["b", "a", "b", "c", "a", "b"]
    bank = FeatureBank.from_arrays(embeddings, labels, [f"image{row}" for row in range(6)])
    assert bank.class_names == ("a", "b", "c")
    assert bank.labels.tolist() == [0, 0, 1, 1, 1, 2]
    assert bank.embeddings[:, 0].tolist() == [2, 8, 0, 4, 10, 6]
    assert bank.image_names == ("image1", "image4", "image0", "image2", "image5", "image3")
    assert (len(bank), bank.num_classes, bank.embedding_size) == (6, 3, 2)
    assert bank.counts.tolist() == [2, 3, 1]
    assert bank.offsets.tolist() == [0, 2, 5]


@pytest.mark.parametrize(
    "labels",
    [
        [10, 9, 10],
        np.array([10, 9, 10], dtype=np.uint8),
        np.array([10, 9, 10], dtype=">i4"),
        torch.tensor([10, 9, 10]),
    ],
)
def test_numbered_classes_sort_as_numbers(labels: list[int] | np.ndarray | torch.Tensor):
    """Catches class 10 before class 9."""
    bank = FeatureBank.from_arrays(torch.ones(3, 2), labels)
    assert bank.class_names == ("9", "10")
    assert bank.labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    "labels", [np.array(["é", "a"]), np.array(["é".encode(), b"a"]), np.array(["é", "a"], object)]
)
def test_named_classes_of_any_array_type(labels: np.ndarray):
    """Catches class names like "b'a'"."""
    assert FeatureBank.from_arrays(torch.ones(2, 2), labels).class_names == ("a", "é")


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.ones((2, 2)), torch.float32),
        (np.ones((2, 2), ">f4"), torch.float32),
        (np.ones((2, 2), ">f2"), torch.float16),
        (np.ones((4, 2), np.float32)[::-2], torch.float32),
        (np.broadcast_to(np.float32(1), (2, 2)), torch.float32),
        (torch.ones(2, 2, dtype=torch.float64, requires_grad=True), torch.float32),
    ],
)
def test_awkward_arrays(array: np.ndarray | torch.Tensor, dtype: torch.dtype):
    """Catches arrays that torch refuses or warns of: float64, foreign byte order, strides, read-only."""
    bank = FeatureBank.from_arrays(array, [0, 1])
    assert bank.embeddings.dtype == dtype
    assert torch.equal(bank.embeddings, torch.ones(2, 2, dtype=dtype))
    assert not bank.embeddings.requires_grad


def test_bank_does_not_share_memory_with_its_source():
    """Catches a bank that changes when the user's array does."""
    array = np.zeros((2, 2), np.float32)
    bank = FeatureBank.from_arrays(array, [0, 1])
    array += 1
    assert bank.embeddings.sum() == 0


BAD_ARRAYS = {
    "lengths": (torch.ones(3, 2), [0, 1], None, "3 embeddings but 2 labels"),
    "names": (torch.ones(2, 2), [0, 1], ["a"], "2 embeddings but 1 image names"),
    "dimensions": (torch.ones(2, 2, 2), [0, 1], None, r"shape \(2, 2, 2\)"),
    "nothing": (torch.ones(0, 2), [], None, r"shape \(0, 2\)"),
    "no columns": (torch.ones(2, 0), [0, 1], None, r"shape \(2, 0\)"),
    "integers": (torch.ones(2, 2, dtype=torch.int64), [0, 1], None, "int64; they must be floating"),
    "numpy integers": (np.ones((2, 2), int), [0, 1], None, "int64; they must be floating"),
    "label shape": (torch.ones(2, 2), torch.zeros(2, 1), None, r"labels have shape \(2, 1\)"),
    "label type": (torch.ones(2, 2), np.array([0.5, 1]), None, "row 0 is 0.5"),
    "missing label": (torch.ones(3, 2), np.array(["a", "b", np.nan], object), None, "row 2 is nan"),
    "truth values": (torch.ones(2, 2), np.array([True, False]), None, "row 0 is True"),
    "empty label": (torch.ones(2, 2), ["a", ""], None, "row 1 is ''"),
    "float64 overflow": (np.array([[1.0], [1e300]]), [0, 1], None, r"not finite in 1 of 2 rows \(1\)"),
}


@pytest.mark.parametrize("case", list(BAD_ARRAYS))
def test_arrays_that_do_not_fit_are_refused(case: str):
    """Catches a bank of rows with the wrong labels, and messages that do not say what is wrong."""
    embeddings, labels, names, message = BAD_ARRAYS[case]
    with pytest.raises(InputError, match=message) as caught:
        FeatureBank.from_arrays(embeddings, labels, names, source="toy.npz")
    assert str(caught.value).startswith("toy.npz: ")
    assert "\n" not in str(caught.value)


def test_rows_that_are_not_finite_are_named_as_the_user_counts_them():
    """Catches row numbers after sorting, which the user cannot find in his file."""
    embeddings = np.ones((9, 2), np.float32)
    embeddings[[0, 1, 2, 4, 5, 7], [0, 1, 0, 1, 0, 1]] = [np.nan, np.inf, -np.inf, np.nan, np.nan, np.nan]
    with pytest.raises(InputError, match=r"not finite in 6 of 9 rows \(0, 1, 2, 4, 5 and 1 more\)"):
        FeatureBank.from_arrays(embeddings, list("ihgfedcba"))


def test_check_finite_names_file_and_rows(monkeypatch: pytest.MonkeyPatch):
    """Catches rows counted from the start of their chunk instead of the file."""
    embeddings = torch.ones(10, 2)
    embeddings[4, 1] = torch.nan
    embeddings[9, 0] = torch.inf
    monkeypatch.setattr("leo_lightning.data.bank._CHUNK", 6)
    bank = FeatureBank(embeddings, torch.zeros(10, dtype=torch.int64), ("a",), None, {}, "train.safetensors")
    with pytest.raises(InputError, match=r"train\.safetensors: .* not finite in 2 of 10 rows \(4, 9\)"):
        bank.check_finite()
