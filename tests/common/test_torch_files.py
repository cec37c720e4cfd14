"""The reader of torch files: other people's files, foreign ones, damaged ones."""

import argparse
import io
import os
import pathlib
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from leo_lightning.common.errors import InputError
from leo_lightning.common.torch_files import load_torch
from tests.guard import outcome


@pytest.mark.parametrize("legacy", [False, True])
def test_plain_content_is_read(legacy: bool, tmp_path: Path):
    """Catches a look at the content that is too strict for weights, optimizers and labels."""
    base = torch.arange(12.0)
    content = {
        "model": nn.Linear(2, 2).state_dict(),
        "optimizer": torch.optim.Adam(nn.Linear(2, 2).parameters()).state_dict(),
        "views": [base[:4], base[4:].view(2, 4)],
        "half": torch.ones(2, dtype=torch.bfloat16),
        "parameter": nn.Parameter(torch.ones(2)),
        "labels": ["a", "a", b"b", 1, 2.5, None, True, (1, (2, 3))],
        "size": torch.Size([2]),
        "dtype": torch.float16,
    }
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=not legacy)
    loaded: Any = load_torch(tmp_path / "x.pt")
    assert loaded["labels"] == content["labels"]
    assert torch.equal(loaded["views"][1], content["views"][1])
    assert list(loaded["model"]) == list(content["model"])


PATH, FLOAT = pathlib.PosixPath("x"), np.float64(1.5)
FOREIGN = {
    "argparse.Namespace": argparse.Namespace(lr=1),
    f"{FLOAT.__reduce__()[0].__module__}.scalar": FLOAT,  # its module is another in NumPy 2
    f"{type(PATH).__module__}.PosixPath": PATH,  # … and in Python 3.13
    "posixpath.join": os.path.join,
    "torch.nn.modules.linear.Linear": nn.Linear(1, 1),
}


@pytest.mark.parametrize("name", list(FOREIGN))
def test_code_is_refused_by_name(name: str, tmp_path: Path):
    """Catches torch's page of advice, and a line that does not say what stands in the way."""
    torch.save({"state_dict": {}, "hparams": FOREIGN[name]}, tmp_path / "x.ckpt")
    with pytest.raises(InputError, match=rf"x\.ckpt: holds {name}, which only code can load") as caught:
        load_torch(tmp_path / "x.ckpt")
    assert "\n" not in str(caught.value)


class Hostile:
    """Makes a file when an ordinary reader loads it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_runs(legacy: bool, tmp_path: Path):
    """Catches torch.load without weights_only, in either of its formats."""
    content = {"a": Hostile(tmp_path / "marker")}
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=not legacy)
    assert "holds posix.system" in str(outcome(lambda: load_torch(tmp_path / "x.pt"), tmp_path))
    torch.load(tmp_path / "x.pt", weights_only=False)  # the control
    assert (tmp_path / "marker").exists()


def saved(content: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def packed(data: bytes) -> bytes:
    """Compress the members of an archive."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(result, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return result.getvalue()


ZEROS = saved({"x": torch.zeros(1000)})
ATTRIBUTE = OrderedDict(a=1)
ATTRIBUTE.update_all = 1  # pyright: ignore
CYCLE: list[object] = []
CYCLE.append(CYCLE)
BAD = {
    "empty": (b"", "not a whole torch file"),
    "text": (b"hello", "not a whole torch file"),
    "cut": (ZEROS[:2000], "not a whole torch file"),
    "archive of something else": (packed(ZEROS)[:40] + b"PK\x05\x06" + bytes(18), "not a whole torch file"),
    "flipped bit": (ZEROS[:2000] + bytes([ZEROS[2000] ^ 1]) + ZEROS[2001:], "archive/data/0 is damaged"),
    "compressed": (packed(ZEROS), "it is compressed"),
    "legacy": (b"\x80\x02cos\nsystem\n.", "holds os.system"),
    "expanded": (saved(torch.ones(1).expand(10**6, 10**6)), "more than weights"),
    "sparse": (saved(torch.eye(3).to_sparse()), "more than weights"),
    "set": (saved({1, 2}), "more than weights"),
    "attribute that may hide a method": (saved(ATTRIBUTE), "more than weights"),
    "unknown opcode": (b"\x80\x02\xfe.", "(Unsupported operand 254); copy"),
    "cycle": (saved(CYCLE), "not a whole torch file"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_file_is_one_line(name: str, tmp_path: Path):
    """Catches an error of torch that escapes, and damage or content that torch lets through."""
    data, message = BAD[name]
    (tmp_path / "x.pt").write_bytes(data)
    refusal = outcome(lambda: load_torch(tmp_path / "x.pt"), tmp_path)
    assert isinstance(refusal, InputError)
    assert message in str(refusal)


def test_missing_file(tmp_path: Path):
    """Catches a missing file that is called damaged."""
    with pytest.raises(InputError, match=r"x\.pt: No such file"):
        load_torch(tmp_path / "x.pt")
