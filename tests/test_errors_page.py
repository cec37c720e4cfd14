"""docs/errors.md: each mistake that it lists is refused in one line that holds what the page quotes."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.feature_file import save_bank
from leo_lightning.data.splits import SPLITS
from tests.command_line import call
from tests.data.banks import make_bank
from tests.places import ROOT
from tests.tiny_run import files, folders, tiny

ROW = re.compile(r"^\| `(?:python train\.py|leo-lightning) ([^`]*)` \| (.*?) \|", re.MULTILINE)
COMMON = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8").partition("\n## Common mistakes\n")[2]
MISTAKES = {command: re.findall("`([^`]+)`", names) for command, names in ROW.findall(COMMON)}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the page speaks of: data/mine, data/nan, photos, arrays, points.csv, runs/leo/DATE."""
    root = tmp_path_factory.mktemp("world")
    assert tiny(root / "runs", name="leo") == 0
    folders(root / "runs", "leo")[0].rename(root / "runs" / "leo" / "DATE")
    for folder in ("data/mine", "data/nan", "arrays"):
        (root / folder).mkdir(parents=True)
    for split in SPLITS:
        bank = make_bank([f"{split}{i}" for i in range(8)], images=20, split=split)
        save_bank(bank, root / "data" / "mine" / f"{split}.safetensors")
        save_bank(with_nan(bank), root / "data" / "nan" / f"{split}.safetensors")
        np.savez(
            root / "arrays" / f"{split}.npz", embeddings=np.eye(2, 4, dtype=np.float32), labels=["a", "b"]
        )
        for name in ("cat", "dog"):
            photo = root / "photos" / split / f"{split}-{name}" / "1.png"
            photo.parent.mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(photo)
    (root / "points.csv").write_text("task,x,height\na,1,2\n")
    return root


def with_nan(bank: FeatureBank) -> FeatureBank:
    embeddings = bank.embeddings.clone()
    embeddings[7] = torch.nan
    return FeatureBank(embeddings, bank.labels, bank.class_names, bank.image_names, bank.provenance, "")


def test_the_page_has_the_mistakes():
    """Catches a table whose form this test no longer reads."""
    assert len(MISTAKES) >= 20
    assert all(MISTAKES.values())


@pytest.mark.parametrize("command", MISTAKES, ids=str)
def test_a_mistake_of_the_page_is_refused(
    command: str, world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Catches a command that works after all, a message without the quoted words, and files left behind."""
    monkeypatch.chdir(world)
    before = files(world)
    code = call(command)
    message = capsys.readouterr().err
    left = set(files(world)) - set(before)
    for path in left:
        shutil.rmtree(path, ignore_errors=True)
    assert code == 2
    assert not left
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert [word for word in MISTAKES[command] if word not in message] == []
