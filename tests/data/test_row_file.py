"""Rows read from disk are those of the mapped file."""

import re
from pathlib import Path

import pytest
import torch

from leo_lightning.common.errors import InputError
from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.feature_file import load_bank, save_bank
from leo_lightning.data.row_file import RowFile


@pytest.fixture(params=[torch.float32, torch.float16, torch.bfloat16], ids=str)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    embeddings = torch.randn(40, 7, generator=torch.Generator().manual_seed(0)).to(request.param)
    bank = FeatureBank(embeddings, torch.arange(40) // 10, ("a", "b", "c", "d"), None, {"backbone": "x" * 9})
    save_bank(bank, tmp_path / "train.safetensors")
    return tmp_path / "train.safetensors"


@pytest.mark.parametrize("index", [[], [0], [39], [5, 5, 0, 39, 12], list(range(39, -1, -1))], ids=len)
def test_rows_are_those_of_the_bank(index: list[int], path: Path):
    """Catches a wrong offset or width, rows in another order, and numbers of another type."""
    embeddings = load_bank(path).embeddings
    rows = torch.tensor(index, dtype=torch.int64)
    found = RowFile(path, embeddings).read(rows)
    assert found.dtype == embeddings.dtype
    assert torch.equal(found, embeddings[rows])


def test_a_file_that_became_shorter_is_noticed(path: Path):
    """Catches rows of what happened to lie in memory."""
    embeddings = load_bank(path).embeddings.clone()
    file = RowFile(path, embeddings)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(InputError, match=f"{re.escape(str(path))}: is cut short; copy or import it again"):
        file.read(torch.tensor([39]))
