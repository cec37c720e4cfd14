"""Sources of npz, npy and torch files."""

import gc
import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from leo_lightning.common.errors import InputError
from leo_lightning.data.importers.importer import import_features
from leo_lightning.data.splits import SPLITS
from tests.data.importers.sources import (
    assert_imported,
    silent,
    write_npy,
    write_npy_with_text,
    write_npz,
    write_state,
    write_torch,
)
from tests.guard import outcome


@pytest.mark.parametrize("write", [write_npz, write_npy, write_npy_with_text, write_torch, write_state])
def test_arrays_per_split(write: Callable[[Path, str], None], tmp_path: Path):
    """Catches a format that is announced and not read, and labels read as bytes or with line ends."""
    (tmp_path / "src").mkdir()
    for split in SPLITS:
        write(tmp_path / "src", split)
    banks = import_features(tmp_path / "src", tmp_path / "out", report=silent)
    assert_imported(tmp_path / "out")
    assert len(banks["test"].provenance["source_sha256"]) == 64
    assert "/" not in banks["test"].provenance["source"]


@pytest.mark.parametrize("name", ["valid", "validation"])
def test_val_may_have_other_names(name: str, tmp_path: Path):
    """Catches a validation split that is left out because of its name."""
    for split in SPLITS:
        write_npz(tmp_path, split)
    (tmp_path / "val.npz").rename(tmp_path / f"{name}.npz")
    import_features(tmp_path, tmp_path / "out", report=silent)
    assert_imported(tmp_path / "out")
    write_npy_with_text(tmp_path, "val")
    with pytest.raises(InputError, match=rf"the val split more than once \(val_embeddings.npy, {name}.npz\)"):
        import_features(tmp_path, tmp_path / "again")


def test_numbers_in_a_text_file_are_numbers(tmp_path: Path):
    """Catches class 10 before class 9, which the same labels in an npy file would not give."""
    np.save(tmp_path / "train.npy", 1 + np.eye(3, 2, dtype=np.float32))
    (tmp_path / "train_labels.txt").write_text("10\n9\n0\n")
    banks = import_features(tmp_path, tmp_path / "out", report=lambda remark: None)
    assert banks["train"].class_names == ("0", "9", "10")


def npz_of(path: Path, header: str, data: bytes = b"") -> None:
    """Write an npz whose labels have the given header."""
    text = header.encode() + b" " * (117 - len(header)) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        stream = io.BytesIO()
        np.save(stream, np.ones((2, 2), np.float32))
        archive.writestr("embeddings.npy", stream.getvalue())
        archive.writestr("labels.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|S0', 'fortran_order': False, 'shape': (1000000000000,), }",
        "{'descr': '<U0', 'fortran_order': False, 'shape': (1000000000000,), }",
        "{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000,), }",
        "{'descr': '<i8', 'fortran_order': False, 'shape': (4611686018427387904, 4), }",
        "{'descr': '<i8', 'fortran_order': False, 'shape': (-1,), }",
        "{'descr': [('a', '<i8', (1000000000,))], 'fortran_order': False, 'shape': (2,), }",
        "{'descr': '<U500000000', 'fortran_order': False, 'shape': (2,), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (2,), }",
        "(" * 100,
        "{'descr': __import__('os').system('true'), 'fortran_order': False, 'shape': (2,), }",
    ],
)
def test_header_that_lies(header: str, tmp_path: Path):
    """Catches labels of no bytes that are 10¹² when listed, and sizes that are allocated and filled."""
    npz_of(tmp_path / "train.npz", header, bytes(16))
    refusal = outcome(
        lambda: import_features(tmp_path, tmp_path / "out", report=lambda remark: None), tmp_path
    )
    assert "train.npz" in str(refusal)
    assert isinstance(refusal, InputError)


def test_rows_that_are_no_table(tmp_path: Path):
    """Catches an error of numpy that escapes where lists are not a table of numbers."""
    for content, message in (
        ({"embeddings": [[1.0], [1.0, 2.0]], "labels": ["a", "b"]}, "not rows of numbers"),
        ({"embeddings": [[1.0], [2.0]], "labels": ["a"] * 3}, "2 embeddings but 3 labels"),
    ):
        (tmp_path / "train_embeddings.pkl").write_bytes(pickle.dumps(content, 2))
        refusal = outcome(
            lambda: import_features(tmp_path, tmp_path / "out", report=lambda remark: None), tmp_path
        )
        assert message in str(refusal) or "in several places" in str(refusal)


@pytest.mark.parametrize("name", ["labels", "names"])
def test_text_that_is_none(name: str, tmp_path: Path):
    """Catches numpy's SystemError for a character beyond Unicode."""
    damaged = np.frombuffer(b"\xff\xff\xff\x7f" * 2, "<U1")
    arrays = {"embeddings": np.ones((2, 2), np.float32), "labels": np.arange(2)} | {name: damaged}
    np.savez(tmp_path / "train.npz", **arrays)
    with pytest.raises(InputError, match=r"train\.npz: holds text that is damaged"):
        import_features(tmp_path, tmp_path / "out", report=lambda remark: None)


def test_file_that_looks_like_a_zip_is_closed(tmp_path: Path, recwarn: pytest.WarningsRecorder):
    """Catches a file that numpy leaves open."""
    np.save(tmp_path / "train_labels.npy", np.arange(2))
    (tmp_path / "train.npy").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(InputError, match=r"train\.npy: cannot be read by numpy"):
        import_features(tmp_path, tmp_path / "out", report=lambda remark: None)
    gc.collect()
    assert not [warning for warning in recwarn if warning.category is ResourceWarning]
