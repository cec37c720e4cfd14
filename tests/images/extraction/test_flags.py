"""The command line of `features extract`."""

import shlex
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from leo_lightning.commands import features
from leo_lightning.data.splits import load_split
from leo_lightning.images.backbones.recipe import BACKBONE_FILE, Recipe
from leo_lightning.images.backbones.weights import read_backbone, save_backbone
from leo_lightning.images.extraction.embedder import Embedder
from leo_lightning.images.extraction.flags import recipe_of
from tests.images.backbones.networks import conv4
from tests.images.pictures import broken_exif
from tests.tiny_run import main

STORED = conv4(1, resize=35, crop="multiview", layer="2").recipe


@pytest.fixture
def here(image_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images and a backbone, in the folder where the commands run."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(image_tree, tmp_path / "images")
    save_backbone(conv4(1, resize=35, crop="multiview", layer="2"), tmp_path / BACKBONE_FILE)
    return tmp_path


def recipe(flags: str) -> Recipe:
    arguments = shlex.split(f"extract --images images --out out --weights {BACKBONE_FILE} {flags}")
    return recipe_of(features._parser().parse_args(arguments))


@pytest.mark.parametrize(
    ("flags", "changes"),
    [
        ("", {}),
        ("--layer final --crop center", {"layer": "final", "crop": "center"}),
        ("--image-size 56", {"image_size": 56, "resize": 70}),
        ("--image-size 20 --resize 21", {"image_size": 20, "resize": 21}),
        ("--interpolation bilinear --pooling flatten", {"interpolation": "bilinear", "pooling": "flatten"}),
        ("--mean 0 0.5 1 --std 1 2 3", {"mean": (0.0, 0.5, 1.0), "std": (1.0, 2.0, 3.0)}),
        (
            "--channels 1",
            {"channels": 1, "mean": (pytest.approx(0.449),), "std": (pytest.approx(0.226),)},
        ),
        ("--channels 1 --mean 0.5 --std 0.25", {"channels": 1, "mean": (0.5,), "std": (0.25,)}),
        ("--option layers=3 --option max_pool=false", {"options": {"layers": 3, "max_pool": False}}),
        ("--option hidden_size=16 --option act=relu", {"options": {"hidden_size": 16, "act": "relu"}}),
        ("--option a=1e-3 --option b=[1,2]", {"options": {"a": 0.001, "b": [1, 2]}}),
    ],
)
@pytest.mark.usefixtures("here")
def test_flags_change_the_stored_recipe(flags: str, changes: dict[str, Any]):
    """Catches a flag that is ignored, forgets the stored recipe, or crops in another proportion."""
    options = STORED.options | changes.pop("options", {})
    assert asdict(recipe(flags)) == asdict(STORED) | {"options": options} | changes


def test_checkpoint_to_features(here: Path, capsys: pytest.CaptureFixture[str]):
    """Catches ignored flags, output without the files, and a run whose network must be named."""
    backbone = conv4(3)
    weights = {f"backbone.network.{name}": value for name, value in backbone.network.state_dict().items()}
    settings = {"recipe": asdict(backbone.recipe)}
    torch.save({"state_dict": weights, "hyper_parameters": settings}, here / "best.ckpt")
    command = (
        "extract --images images --out a/out --weights best.ckpt --layer 1 --dtype float16 --batch-size 3"
    )
    assert main(shlex.split(f"features {command} --workers 1 --device cpu")) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.startswith(
        "images: shorter side to 32 pixels (bicubic), center crop of 28 × 28, mean 0.485 0.456 0.406, "
        "std 0.229 0.224 0.225\n"
    )
    for split, classes, images in (("train", 2, 7), ("val", 1, 2), ("test", 1, 3)):
        line = next(line for line in printed.out.splitlines() if f"a/out/{split}.safetensors: " in line)
        assert all(word in line for word in (f"{classes} class", f"{images} images", "8", "float16")), line
    bank = load_split(here / "a" / "out", "test")
    assert (bank.provenance["weights"], bank.provenance["dataset"]) == ("best.ckpt", "images")
    paths = [here / "images" / "test" / name for name in bank.image_names or ()]
    embedder = Embedder(read_backbone(here / "a" / "out" / BACKBONE_FILE), device="cpu")
    torch.testing.assert_close(bank.embeddings, embedder.embed(paths).half())
    assert main(["features", "info", "a/out"]) == 0
    assert "weights: best.ckpt" in capsys.readouterr().out


def test_skipped_files_are_reported(here: Path, capsys: pytest.CaptureFixture[str]):
    """Catches files skipped without a note, for their names or for their contents."""
    (here / "images" / "train" / "notes.txt").write_text("x")
    (here / "images" / "train" / "dog" / "2.png").write_bytes(b"")
    broken_exif(here / "images" / "train" / "cat" / "9.jpg")  # neither skipped nor warned about
    command = f"extract --images images --out out --weights {BACKBONE_FILE} --on-error skip"
    assert main(shlex.split(f"features {command}")) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert notes == [
        "note: images/train: skipped, not images: 'notes.txt'",
        "note: train: 1 of 8 images cannot be read and are left out: 'dog/2.png'",
    ]


def test_ctrl_c_is_one_line(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Catches a traceback, and a user who does not know that the work is kept."""
    embed, calls = Embedder.embed_views, []

    def stop(self: Embedder, images: torch.Tensor) -> torch.Tensor:
        calls.append(len(images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return embed(self, images)

    monkeypatch.setattr(Embedder, "embed_views", stop)
    command = shlex.split(f"extract --images images --out out --weights {BACKBONE_FILE} --batch-size 2")
    assert main(["features", *command]) == 130
    assert capsys.readouterr().err == (
        "interrupted: 4 of 12 images are done; run the same command again to continue\n"
    )
    assert main(["features", *command]) == 0
    assert "train: 4 of 7 images were done before\n" in capsys.readouterr().out
