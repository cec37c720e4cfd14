"""The file of one feature bank."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from leo_lightning.common.errors import InputError
from leo_lightning.data import feature_file
from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.feature_file import FORMAT, load_bank, save_bank
from tests.data.banks import make_bank


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_precision_is_kept(dtype: torch.dtype, tmp_path: Path):
    """Catches features of half precision that double in size."""
    bank = FeatureBank.from_arrays(torch.ones(2, 2, dtype=dtype), [0, 1])
    save_bank(bank, tmp_path / "train.safetensors")
    assert load_bank(tmp_path / "train.safetensors").embeddings.dtype == dtype


def test_file_round_trip(tmp_path: Path):
    """Catches a field that is not saved, or comes back as another type."""
    bank = make_bank(["n1", 'quote"d', "ünï"])
    save_bank(bank, tmp_path / "train.safetensors")
    loaded = load_bank(tmp_path / "train.safetensors")
    assert torch.equal(loaded.embeddings, bank.embeddings)
    assert torch.equal(loaded.labels, bank.labels)
    assert loaded.class_names == bank.class_names
    assert loaded.image_names == bank.image_names
    assert loaded.provenance == bank.provenance
    assert loaded.source == str(tmp_path / "train.safetensors")
    assert os.listdir(tmp_path) == ["train.safetensors"]
    loaded.check_finite()


def test_names_have_no_control_characters(tmp_path: Path):
    """Catches names of somebody's file that a terminal obeys, or that end a line of a table."""
    bank = replace(
        make_bank(["a", "b"], images=1),
        class_names=("a\x1b[2J", "b\n\\input{x}"),
        image_names=("1\r.jpg", "2.jpg"),
        provenance={"data\x9bset": "\x1b]0;owned\x07"},
    )
    save_bank(bank, tmp_path / "train.safetensors")
    loaded = load_bank(tmp_path / "train.safetensors")
    assert loaded.class_names == ("a?[2J", "b?\\input{x}")
    assert loaded.image_names == ("1?.jpg", "2.jpg")
    assert loaded.provenance == {"data?set": "?]0;owned?"}


def test_same_content_is_the_same_file(tmp_path: Path):
    """Catches a header in an order of its own each time, and names that change when it is sorted."""
    bank = make_bank(["n1", 'quote"d\\', "ünï", "日本 😀"])
    for i in range(6):
        save_bank(bank, tmp_path / f"{i}.safetensors")
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    loaded = load_bank(tmp_path / "0.safetensors")
    assert (loaded.class_names, loaded.image_names) == (bank.class_names, bank.image_names)
    assert torch.equal(loaded.embeddings, bank.embeddings)


def test_file_is_readable_by_others(tmp_path: Path):
    """Catches a file that only its owner can read, whatever the umask."""
    save_bank(make_bank(["a"]), tmp_path / "train.safetensors")
    (tmp_path / "other").touch()
    assert (tmp_path / "train.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_names_that_do_not_fit_into_the_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a file that is written in full and can never be read."""
    monkeypatch.setattr(feature_file, "_MAX_HEADER", 400)
    save_bank(make_bank(["a"]), tmp_path / "train.safetensors")
    with pytest.raises(InputError, match="the image names are too long"):
        save_bank(make_bank(["a"], images=40), tmp_path / "test.safetensors")
    assert os.listdir(tmp_path) == ["train.safetensors"]


def test_loading_maps_the_file_into_memory(tmp_path: Path):
    """Catches a loader that copies: a bank larger than memory could not be read."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("needs /proc to measure memory")
    path = tmp_path / "train.safetensors"
    save_bank(FeatureBank.from_arrays(torch.ones(32768, 512), np.arange(32768) // 8), path)
    before = int(statm.read_text().split()[1])
    bank = load_bank(path)
    grown = (int(statm.read_text().split()[1]) - before) * os.sysconf("SC_PAGE_SIZE")
    assert grown < 20e6  # of 64 MiB
    assert bank.embeddings[-1, -1] == 1


HEADER = {
    "format": FORMAT,
    "format_version": "1",
    "class_names": '["a", "b"]',
    "image_names": '["1", "2", "3"]',
    "provenance": '{"dataset": "toy"}',
}
EMBEDDINGS, LABELS = torch.ones(3, 2), torch.tensor([0, 0, 1])
BAD_FILES = {
    "format": ({"format": "other"}, {}, "is not a feature file of version 1"),
    "version": ({"format_version": "2"}, {}, "is not a feature file of version 1"),
    "no class names": ({"class_names": None}, {}, "'class_names' in the header"),
    "no JSON": ({"class_names": "[a"}, {}, "'class_names' in the header"),
    "deep JSON": ({"class_names": "[" * 100000}, {}, "'class_names' in the header"),
    "no list": ({"class_names": '"ab"'}, {}, "'class_names' in the header"),
    "no names": ({"class_names": "[1, 2]"}, {}, "'class_names' in the header"),
    "image names": ({"image_names": '{"1": 2}'}, {}, "'image_names' in the header"),
    "image count": ({"image_names": '["1"]'}, {}, "3 embeddings but 1 image names"),
    "no provenance": ({"provenance": None}, {}, "'provenance' in the header"),
    "provenance": ({"provenance": "[]"}, {}, "'provenance' in the header"),
    "provenance of numbers": ({"provenance": '{"seed": 3}'}, {}, "'provenance' in the header"),
    "class count": ({"class_names": '["a", "b", "c"]'}, {}, "run from 0 to 2"),
    "same names": ({"class_names": '["a", "a"]'}, {}, "two classes have the same name"),
    "no embeddings": ({}, {"embeddings": None}, "embeddings"),
    "no labels": ({}, {"labels": None}, "labels"),
    "integers": ({}, {"embeddings": EMBEDDINGS.long()}, "embeddings are torch.int64; they must be float16"),
    "float64": (
        {},
        {"embeddings": EMBEDDINGS.double()},
        "embeddings are torch.float64; they must be float16",
    ),
    "label type": ({}, {"labels": LABELS.int()}, "labels must be int64"),
    "dimensions": ({}, {"embeddings": torch.ones(6)}, r"embeddings have shape \(6,\)"),
    "nothing": ({}, {"embeddings": torch.ones(0, 2)}, r"embeddings have shape \(0, 2\)"),
    "length": ({}, {"labels": torch.tensor([0, 1])}, "3 embeddings but 2 labels"),
    "unsorted": ({}, {"labels": torch.tensor([0, 1, 0])}, "run from 0 to 1"),
    "negative": ({}, {"labels": torch.tensor([-1, 0, 1])}, "run from 0 to 1"),
    "gap": ({"class_names": '["a", "b", "c"]'}, {"labels": torch.tensor([0, 0, 2])}, "run from 0 to 2"),
}


@pytest.mark.parametrize("case", list(BAD_FILES))
def test_bad_file_is_refused(case: str, tmp_path: Path):
    """Catches a check that is missing, and a message that fits another mistake."""
    header, tensors, message = BAD_FILES[case]
    path = tmp_path / "train.safetensors"
    save_file(
        {k: v for k, v in ({"embeddings": EMBEDDINGS, "labels": LABELS} | tensors).items() if v is not None},
        path,
        {k: v for k, v in (HEADER | header).items() if v is not None},
    )
    with pytest.raises(InputError, match=message) as caught:
        load_bank(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_good_file_made_by_hand_is_read(tmp_path: Path):
    """Catches a table of bad files above that is refused for some reason common to all."""
    save_file({"embeddings": EMBEDDINGS, "labels": LABELS}, tmp_path / "train.safetensors", HEADER)
    bank = load_bank(tmp_path / "train.safetensors")
    assert bank.image_names == ("1", "2", "3")
    assert bank.provenance == json.loads(HEADER["provenance"])


def test_truncated_or_foreign_file_is_refused(tmp_path: Path):
    """Catches SafetensorError or OSError that escape, wherever the file was cut."""
    path = tmp_path / "train.safetensors"
    save_bank(make_bank(["a", "b"]), path)
    data = path.read_bytes()
    for length in [*range(0, len(data), 7), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(InputError, match="is damaged, or not a safetensors file"):
            load_bank(path)
    path.write_bytes(b"PK\x03\x04 something else" * 10)
    with pytest.raises(InputError, match="is damaged, or not a safetensors file"):
        load_bank(path)


def test_missing_file_or_folder_for_a_file(tmp_path: Path):
    """Catches a traceback for a mistyped path."""
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(InputError, match="no such file; make it with"):
            load_bank(path)
