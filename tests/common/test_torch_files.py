"""The reader of torch files: what others keep in theirs, and what would keep torch busy."""

import argparse
import io
import os
import pathlib
import pickle
import struct
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
    """Catches a list of allowed names too tight for weights, optimizers and labels."""
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


FOREIGN = {
    "argparse.Namespace": argparse.Namespace(lr=1),
    "numpy.core.multiarray.scalar": np.float64(1.5),
    "pathlib.PosixPath": pathlib.PosixPath("x"),
    "os.path.join": None,
    "torch.nn.modules.linear.Linear": nn.Linear(1, 1),
}


@pytest.mark.parametrize("name", list(FOREIGN))
def test_what_needs_code_is_named(name: str, tmp_path: Path):
    """Catches torch's page of advice, and a line that does not say what stands in the way."""
    content = os.path.join if name == "os.path.join" else FOREIGN[name]
    torch.save({"state_dict": {}, "hparams": content}, tmp_path / "x.ckpt")
    with pytest.raises(InputError) as caught:
        load_torch(tmp_path / "x.ckpt")
    name = "posixpath.join" if name == "os.path.join" else name
    assert f"x.ckpt: holds {name}, which would need code to be run; save weights" in str(caught.value)
    assert "\n" not in str(caught.value)


def repacked(content: object, program: bytes | None = None, method: int = zipfile.ZIP_STORED) -> bytes:
    """Return a file of torch with another pickle in it, or packed."""
    stream = io.BytesIO()
    torch.save(content, stream)
    result = io.BytesIO()
    with zipfile.ZipFile(stream) as old, zipfile.ZipFile(result, "w", method) as new:
        for name in old.namelist():
            own = program is not None and name.endswith("data.pkl")
            new.writestr(name, program if own else old.read(name))  # pyright: ignore
    return result.getvalue()


TUPLES = b")q\x000" + b"h\x00h\x00\x86q\x000" * 30 + b"h\x00"  # 2³⁰ empty tuples in one, each hashed
STORAGE = b"(X\x07\x00\x00\x00storagectorch\n%s\n%sX\x03\x00\x00\x00cpuK\x10tQ"
ZERO, ZERO_TOO = b"X\x01\x00\x00\x000", b"K\x00"
ATTRIBUTE = OrderedDict(a=1)
ATTRIBUTE.update_all = 1  # pyright: ignore
CYCLE: list[object] = []
CYCLE.append(CYCLE)
BOMBS = {
    "packed": (repacked({"x": torch.zeros(10**6)}, None, zipfile.ZIP_DEFLATED), "is packed"),
    "key": (b"\x80\x02}" + TUPLES + b"Ns.", "is far larger than its bytes"),
    "elements": (b"\x80\x02(" + TUPLES + b"lq\x01.", "is far larger than its bytes"),
    "bytearray": (b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.", "holds builtins.bytearray"),
    "tensor": (b"\x80\x02ctorch\nTensor\nJ\xff\xff\xff\x7f\x85R.", "holds torch.Tensor"),
    "codec": (
        b"\x80\x02c_codecs\nencode\nX\x02\x00\x00\x00\xc3\xa9X\x08\x00\x00\x00punycode\x86R.",
        "text in a strange code",
    ),
    "two types": (
        b"\x80\x02" + STORAGE % (b"FloatStorage", ZERO) + STORAGE % (b"LongStorage", ZERO) + b"\x86.",
        "one storage under two names or types",
    ),
    "two names": (b"\x80\x02" + STORAGE % (b"FloatStorage", ZERO_TOO) + b".", "refers to another file"),
    "expanded": (repacked(torch.ones(1).expand(10**6, 10**6)), "larger than its data"),
    "attribute": (repacked(ATTRIBUTE), "dictionary with attributes"),
    "cycle": (repacked(CYCLE), "nested too deeply"),
    "marks": (b"\x80\x02" + b"(" * 10**5 + b".", "no whole file of torch"),
    "stack": (b"\x80\x02\x86.", "no whole file of torch"),
    "memo": (b"\x80\x02]r\xff\xff\xff\xff.", ""),
    "legacy": (b"\x80\x02cos\nsystem\n.", "holds os.system"),
    "legacy sizes": (pickle.dumps(0x1950A86A20F9469CFC6C, 2) + b"\x80\x02M\xe9\x03." * 9, "no whole file"),
}


@pytest.mark.parametrize("name", list(BOMBS))
def test_bomb_is_refused_soon(name: str, tmp_path: Path):
    """Catches a short file that takes torch long to read, or fills the memory."""
    data, message = BOMBS[name]
    if not data.startswith(b"PK") and not name.startswith("legacy"):
        data = repacked({"x": torch.ones(16)}, data)
    (tmp_path / "x.pt").write_bytes(data)
    refusal = outcome(lambda: load_torch(tmp_path / "x.pt"), tmp_path)
    assert message in str(refusal)
    assert isinstance(refusal, InputError) == bool(message)


def test_damage_to_weights_is_seen(tmp_path: Path):
    """Catches a flipped bit in a tensor, for which torch does not look."""
    torch.save({"x": torch.zeros(1000)}, tmp_path / "x.pt")
    data = bytearray((tmp_path / "x.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "x.pt").write_bytes(data)
    with pytest.raises(InputError, match="is no whole file of torch"):
        load_torch(tmp_path / "x.pt")


def test_members_that_share_their_bytes(tmp_path: Path):
    """Catches an archive in which many members are the same bytes, and which so unpacks to far more."""
    data = bytearray(repacked({f"{n}": torch.zeros(10**4) for n in range(9)}))
    first = data.index(b"PK\x01\x02")
    starts = [i for i in range(first, len(data)) if data[i : i + 4] == b"PK\x01\x02"]
    for start in starts[-6:]:
        struct.pack_into("<I", data, start + 24, 10**9)
        struct.pack_into("<I", data, start + 20, 10**9)
    (tmp_path / "x.pt").write_bytes(data)
    assert isinstance(outcome(lambda: load_torch(tmp_path / "x.pt"), tmp_path), InputError)
