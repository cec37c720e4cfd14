"""The features, the backbone and the drawings that come with the package."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leo_lightning.data.drawings import DRAWINGS, drawings_beside
from leo_lightning.data.roots import OMNIGLOT, SHIPPED
from leo_lightning.data.splits import SPLITS, check_splits, load_splits
from leo_lightning.images.backbones.recipe import BACKBONE_FILE
from tests.places import ROOT
from tests.tiny_run import folders, main, rows

FOLDER = SHIPPED[OMNIGLOT]
EXAMPLES = ROOT / "examples" / "drawings"


def test_the_splits_are_those_of_the_readme():
    """Catches a class in two splits, and alphabets that are divided."""
    banks = load_splits(FOLDER)
    check_splits(banks)
    assert {split: bank.num_classes for split, bank in banks.items()} == {"train": 153, "val": 39, "test": 50}
    alphabets = [{name.split("__")[0] for name in banks[split].class_names} for split in SPLITS]
    assert alphabets[1:] == [{"Early_Aramaic", "Tagalog"}, {"Greek", "Latin"}]
    assert all(set(bank.counts.tolist()) == {20} for bank in banks.values())


def test_the_package_stays_small_and_keeps_the_notice():
    """Catches data that make the package heavy, and drawings without their licence."""
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 4_000_000
    assert sum(path.stat().st_size for path in EXAMPLES.rglob("*.*")) < 100_000
    for folder in (FOLDER, EXAMPLES):
        assert "Copyright (c) 2015 Brenden Lake" in (folder / "LICENSE").read_text()


def test_the_backbone_makes_the_features_of_the_drawings(tmp_path: Path):
    """Catches a backbone, drawings or names that are not those of the features."""
    pytest.importorskip("learn2learn")
    from leo_lightning.images.backbones.weights import read_backbone
    from leo_lightning.images.extraction.embedder import Embedder

    bank = load_splits(FOLDER)["test"]
    assert bank.image_names is not None
    chosen = list(range(0, len(bank), 50))
    names = [bank.image_names[row] for row in chosen]
    images = drawings_beside(FOLDER, names)
    assert images is not None
    with np.load(FOLDER / DRAWINGS) as arrays:
        classes = [arrays["names"][arrays["labels"][int(Path(name).stem)]] for name in names]
    assert [bank.class_names[bank.labels[row]] for row in chosen] == [c.replace("/", "__") for c in classes]
    paths = [tmp_path / f"{number}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    made = Embedder(read_backbone(FOLDER / BACKBONE_FILE)).embed(paths)
    torch.testing.assert_close(made.half(), bank.embeddings[chosen], rtol=2e-3, atol=2e-3)


@pytest.mark.slow
def test_drawings_are_classified_without_naming_a_backbone(tmp_path: Path):
    """Catches a shipped backbone that `classify` does not find, and examples that it cannot tell apart."""
    sizes = ["--trainer.max_steps=150", "--data.val_tasks=20", "--run.pictures_every=0"]
    assert main(["fit", *sizes, f"--run.root={tmp_path}", "--run.name=tiny"]) == 0
    words = ["--support", str(EXAMPLES / "support"), "--query", str(EXAMPLES / "query")]
    assert (
        main(["classify", "--ckpt_path", str(folders(tmp_path)[0]), *words, "--out", str(tmp_path / "a")])
        == 0
    )
    answers = rows(tmp_path / "a")
    assert len(answers) == 30
    assert sum(row["class"] == row["predicted"] for row in answers) >= 24
