"""The command `python -m leo_lightning features`: what it prints, what it leaves, how it ends."""

import os
import re
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from leo_lightning import __main__ as program
from leo_lightning.commands import features
from leo_lightning.data import splits
from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.feature_file import save_bank
from leo_lightning.data.splits import SPLITS, load_split
from tests.common.server import Behaviour, serve
from tests.data.banks import make_bank
from tests.data.importers.sources import authors_archive, tree, write_npz


def main(arguments: list[str]) -> int:
    """Run the command in this process; its exit code."""
    return program.run("features", arguments)


@pytest.mark.slow
def test_help_is_quick():
    """Catches torch imported at the top, which makes `--help` take seconds."""
    program = (
        "import sys; from leo_lightning.commands import features; features._parser().format_help(); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_import_prints_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches options that do not reach the importer, and a line that is folded."""
    source = authors_archive(tmp_path / "a.zip", ("toy/center", "toy/multiview"))
    out = tmp_path / "out"
    arguments = [
        "import",
        str(source),
        str(out),
        "--dataset",
        "toy",
        "--crop",
        "multiview",
        "--backbone",
        "mine",
    ]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    for split, classes, images in (("train", 3, 12), ("val", 1, 4), ("test", 2, 8)):
        sizes = f"{classes} classes, {images} images, embeddings of size 5, torch.float32"
        assert f"{out / split}.safetensors: {sizes}\n" in printed
        provenance = load_split(out, split).provenance
        assert (provenance["crop"], provenance["backbone"]) == ("multiview", "mine")
    assert main(arguments) == 2
    assert main([*arguments, "--overwrite"]) == 0


def test_remarks_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches a missing split that nobody hears of, and brackets in a path taken for markup."""
    folder = tmp_path / "[bold]"
    folder.mkdir()
    write_npz(folder, "train")
    assert main(["import", str(folder), str(tmp_path / "out")]) == 0
    assert f"note: {folder}: has no val and no test split" in capsys.readouterr().out


def test_ctrl_c_ends_quietly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Catches a traceback when the user has had enough."""

    def interrupt(bank: FeatureBank, path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(splits, "save_bank", interrupt)
    assert main(["import", str(authors_archive(tmp_path / "a.zip")), str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert tree(tmp_path) == ["a.zip"]


def test_info_measures_the_features(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches norms of the wrong axis or that overflow in half precision, and NaN that is not reported."""
    embeddings = torch.tensor([[3.0, 4.0], [600.0, 800.0], [0.0, 1.0]], dtype=torch.float16)
    provenance = {"dataset": "toy", "split": "train"}
    good = FeatureBank.from_arrays(embeddings, ["a", "a", "b"], None, provenance)
    save_bank(good, tmp_path / "train.safetensors")
    nan = torch.tensor([[torch.nan, 1.0]])
    bad = FeatureBank(nan, torch.zeros(1, dtype=torch.int64), ("c",), None, provenance | {"split": "test"})
    save_bank(bad, tmp_path / "test.safetensors")
    assert main(["info", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    rows = {
        cells[1].strip(): [cell.strip() for cell in cells[2:4]]
        for cells in map(cut_row, printed.splitlines())
    }
    assert rows["classes"] == ["2", "1"]
    assert rows["images"] == ["3", "1"]
    assert rows["images per class"] == ["1 to 2", "1 to 1"]
    assert rows["dtype"] == ["float16", "float32"]
    assert rows["L2 norm"][0] == "335.3 (1 to 1000)"
    assert rows["finite"] == ["yes", "no"]
    assert "dataset: toy\nsplit (train): train\nsplit (test): test\n" in printed


def test_info_of_hostile_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches names of somebody's file that the terminal obeys, in the table or in a refusal."""
    bank = replace(make_bank(["a"]), class_names=("\x1b[2J",), provenance={"dataset\x1b[2J": "\x1b]0;x\x07"})
    for split in ("train", "test"):
        save_bank(bank, tmp_path / f"{split}.safetensors")
    assert main(["info", str(tmp_path)]) == 0
    assert main(["import", "\x1b[2J", str(tmp_path / "out")]) == 2
    assert not re.search(r"[\x00-\x09\x1b]", "".join(capsys.readouterr()))


def cut_row(line: str) -> list[str]:
    """Return the cells of a row; of a line that is none, enough empty ones."""
    return line.split("│") if line.count("│") > 3 else ["", "", "", ""]


def test_info_of_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches a command that knows folders only."""
    save_bank(make_bank(["a", "b"]), tmp_path / "odd name.safetensors")
    assert main(["info", str(tmp_path / "odd name.safetensors")]) == 0
    assert "odd name" in capsys.readouterr().out


def test_synthesize_saves_all_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a seed that is ignored, and features replaced without being asked."""
    stub = types.ModuleType("leo_lightning.data.synthetic")

    def synthesize(seed: int) -> dict[str, FeatureBank]:
        return {split: make_bank([f"{split}{seed}"], split=split) for split in SPLITS}

    monkeypatch.setattr(stub, "synthesize", synthesize, raising=False)
    monkeypatch.setitem(sys.modules, "leo_lightning.data.synthetic", stub)
    assert main(["synthesize", str(tmp_path / "toy"), "--seed", "7"]) == 0
    assert [load_split(tmp_path / "toy", split).class_names for split in SPLITS] == [
        ("train7",),
        ("val7",),
        ("test7",),
    ]
    assert tree(tmp_path) == ["toy", "toy/test.safetensors", "toy/train.safetensors", "toy/val.safetensors"]
    assert main(["synthesize", str(tmp_path / "toy")]) == 2


@pytest.mark.parametrize("keep", [False, True])
def test_download_imports_the_archive(keep: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches an archive left behind or lost, the wrong set, and a backbone claimed anywhere."""
    monkeypatch.setenv("no_proxy", "*")
    archive = authors_archive(tmp_path / "a.zip", ("miniImageNet/center", "miniImageNet/multiview"))
    with serve(Behaviour(archive.read_bytes())) as url:
        assert (
            main(["download", str(tmp_path / "mini"), "--url", url, *(["--keep-archive"] if keep else [])])
            == 0
        )
    assert sorted(os.listdir(tmp_path / "mini")) == sorted(
        [f"{split}.safetensors" for split in SPLITS] + ["embeddings.zip"] * keep
    )
    provenance = load_split(tmp_path / "mini", "train").provenance
    assert (provenance["crop"], provenance["backbone"]) == ("center", "unknown")


def test_authors_address_names_their_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches features of the paper's network recorded as features of an unknown one."""
    monkeypatch.setenv("no_proxy", "*")
    archive = authors_archive(tmp_path / "a.zip", ("miniImageNet/center",))
    with serve(Behaviour(archive.read_bytes())) as url:
        monkeypatch.setattr(features, "AUTHORS_URL", url)
        assert main(["download", str(tmp_path / "mini")]) == 0
    assert load_split(tmp_path / "mini", "test").provenance["backbone"] == "WRN-28-10"


def test_archive_with_a_wrong_choice_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a gigabyte thrown away because of a mistyped option."""
    monkeypatch.setenv("no_proxy", "*")
    archive = authors_archive(tmp_path / "a.zip")
    with serve(Behaviour(archive.read_bytes())) as url:
        assert main(["download", str(tmp_path / "mini"), "--url", url, "--crop", "corner"]) == 2
    assert os.listdir(tmp_path / "mini") == ["embeddings.zip"]
    assert np.array_equal(archive.stat().st_size, (tmp_path / "mini" / "embeddings.zip").stat().st_size)


def test_divide_prints_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches classes that are held out without their names, and a next command that cannot be copied."""
    save_bank(make_bank([f"c{i}" for i in range(9)], images=20), tmp_path / "all.safetensors")
    out = tmp_path / "my out"
    assert main(["divide", str(tmp_path / "all.safetensors"), str(out), "--val", "c1,c2", "--test", "0"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(
        f"{out}/train.safetensors: 7 classes, 140 images, embeddings of size 4, torch.float32\n"
        f"{out}/val.safetensors: 2 classes, 40 images, embeddings of size 4, torch.float32\n"
        f"note: {out}: has no test split\n"
        "val: c1, c2\n"
        "note: the smallest split has 2 classes; train with --data.way 2\n"
        "next: "
    )
    assert printed.endswith(f" fit_test --data.root '{out}'\n")
    assert main(["divide", str(tmp_path / "all.safetensors"), str(out)]) == 2
