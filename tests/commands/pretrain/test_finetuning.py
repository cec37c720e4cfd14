"""Fine-tuning: weights to start from, a frozen backbone, its own learning rate, and resuming."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from leo_lightning.images.backbones.recipe import Recipe
from leo_lightning.images.backbones.weights import known_recipe, save_backbone
from tests.commands.pretrain.pictures import SIZE, tree
from tests.commands.pretrain.tiny_pretraining import SMALL, arguments, main
from tests.images.backbones.networks import conv4
from tests.places import ROOT
from tests.tiny_run import folders, rows

BACKBONE = "backbone.network."
# without the fields that come from the weights
OPEN = [
    flag for flag in SMALL if not flag.startswith(("--data.image_size", "--data.resize", "--data.channels"))
]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone of gray images with its recipe."""
    path = tmp_path_factory.mktemp("weights") / "backbone.safetensors"
    gray = {"channels": 1, "mean": (0.3,), "std": (0.2,), "interpolation": "bilinear"}
    save_backbone(conv4(3, image_size=SIZE, resize=18, options={"hidden_size": 4}, **gray), path)
    return path


def fit(images: Path, root: Path, published: Path, *flags: str) -> int:
    words = [f"--data.root={images}", f"--run.root={root}", "--run.name=tiny", f"--model.weights={published}"]
    return main(["fit", *words, *OPEN, *flags])


def state(root: Path) -> dict[str, torch.Tensor]:
    (folder,) = folders(root)
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def of_file(published: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return {f"{BACKBONE}{name}": value for name, value in load_file(published).items()}


def test_a_frozen_backbone_stays_as_the_weights_are(
    images: Path, published: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    """Catches batch statistics or weight decay that change it, a head that rests, and another preparation."""
    flags = ["--trainer.max_epochs=4", "--model.freeze_epochs=4"]
    assert fit(images, tmp_path, published, *flags) == 0
    weights = state(tmp_path)
    assert all(torch.equal(weights[name], value) for name, value in of_file(published).items())
    (folder,) = folders(tmp_path)
    losses = [float(line["train/loss"]) for line in rows(folder / "metrics.csv") if line["train/loss"]]
    assert sum(losses[-9:]) < sum(losses[:9])
    recipe = known_recipe(None, str(folder / "checkpoints" / "last.ckpt"))
    assert recipe == replace(known_recipe(None, str(published)), pooling=recipe.pooling)
    said = capfd.readouterr().out
    assert "shorter side to 18 pixels (bilinear), center crop of 16 × 16, mean 0.3, std 0.2" in said
    assert "note" not in said


def test_then_all_of_it_learns(images: Path, published: Path, tmp_path: Path):
    """Catches a backbone that stays frozen, or whose batch statistics do."""
    assert fit(images, tmp_path, published, "--trainer.max_epochs=2", "--model.freeze_epochs=1") == 0
    weights, before = state(tmp_path), of_file(published)
    changed = {name for name in before if not torch.equal(weights[name], before[name])}
    assert changed == set(before)


def test_statistics_can_stay(images: Path, published: Path, tmp_path: Path):
    """Catches statistics that follow few images, and weights that stay with them."""
    flags = ["--trainer.max_epochs=1", "--model.keep_statistics=true"]
    assert fit(images, tmp_path, published, *flags) == 0
    weights, before = state(tmp_path), of_file(published)
    stayed = {name for name in before if torch.equal(weights[name], before[name])}
    assert stayed == {name for name in before if "running_" in name or "num_batches" in name}


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle", "constant"])
def test_the_backbone_learns_at_a_lower_rate(images: Path, published: Path, tmp_path: Path, schedule: str):
    """Catches a rate that a schedule sets to that of the head. A rate of nearly 0 moves nothing."""
    flags = ["--trainer.max_steps=4", f"--model.schedule={schedule}", "--model.weight_decay=0"]
    steps = []
    for rate in ("1.0", "0.1", "1e-30"):
        assert fit(images, tmp_path / rate, published, *flags, f"--model.backbone_rate={rate}") == 0
        name = f"{BACKBONE}1.conv.weight"
        steps.append((state(tmp_path / rate)[name] - of_file(published)[name]).norm().item())
    assert steps[2] == 0
    assert 0 < steps[1] < 0.5 * steps[0]


@pytest.mark.parametrize("split", [3, 9, 12])
def test_a_run_in_two_parts_needs_no_weights_again(images: Path, published: Path, tmp_path: Path, split: int):
    """Epochs have 9 steps. Catches frozen epochs that start anew, and a file that is needed again."""
    mine = tmp_path / "moved.safetensors"
    mine.write_bytes(published.read_bytes())
    flags = ["--model.schedule=constant", "--model.freeze_epochs=1", "--model.backbone_rate=0.2"]
    flags += ["--model.optimizer=adamw", "--model.learning_rate=0.01", "--trainer.limit_val_batches=0"]
    assert fit(images, tmp_path / "one", mine, *flags, "--trainer.max_steps=15") == 0
    assert fit(images, tmp_path / "two", mine, *flags, f"--trainer.max_steps={split}") == 0
    mine.unlink()
    last = folders(tmp_path / "two")[0] / "checkpoints" / "last.ckpt"
    assert main(["fit", f"--ckpt_path={last}", "--trainer.max_steps=15"]) == 0
    one, two = state(tmp_path / "one"), state(tmp_path / "two")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert main(["validate", f"--ckpt_path={last}", "--run.name=again"]) == 0


def test_what_differs_from_the_weights_is_said(
    images: Path, published: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    """Catches another mean than the weights', taken without a word."""
    flags = [
        "--data.mean=[0.5]",
        "--data.resize=16",
        "--trainer.max_steps=1",
        "--trainer.limit_val_batches=0",
    ]
    assert fit(images, tmp_path, published, *flags) == 0
    said = capfd.readouterr().out
    assert "note    data.mean is [0.5], but the weights were trained with [0.3]" in said
    assert "note    data.resize is 16, but the weights were trained with 18" in said
    (folder,) = folders(tmp_path)
    written = yaml.safe_load((folder / "config.yaml").read_text())
    assert (written["data"]["mean"], written["data"]["std"]) == ([0.5], [0.2])
    assert written["model"]["backbone"] == "conv-4"


def test_a_resumed_run_keeps_its_weights(
    images: Path, published: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    """Catches other weights that are named in vain."""
    small = ["--trainer.max_steps=1", "--trainer.limit_val_batches=0", "--model.schedule=constant"]
    assert fit(images, tmp_path, published, *small) == 0
    last = folders(tmp_path)[0] / "checkpoints" / "last.ckpt"
    assert main(["fit", f"--ckpt_path={last}", "--model.weights=other.pt", "--trainer.max_steps=2"]) == 2
    assert "start a new run" in capfd.readouterr().err


def test_gray_images_for_a_network_of_color(published: Path):
    """Catches a mean of three channels for one."""
    recipe = Recipe("", mean=(0.3, 0.6, 0.9), std=(0.1, 0.2, 0.3)).adapted(channels=1, image_size=42)
    assert recipe.mean == pytest.approx((0.6,))
    assert recipe.std == pytest.approx((0.2,))
    assert (recipe.image_size, recipe.resize) == (42, 48)


@pytest.mark.slow
def test_two_processes_freeze_and_learn_together(images: Path, published: Path, tmp_path: Path):
    """Catches a process that waits for the gradients of a frozen backbone, and weights that drift apart."""
    small = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.max_epochs=2", "--data.batch_size=4"]
    small.append("--data.eval_batch_size=5")
    words = arguments(
        images, tmp_path, *small, network=[f"--model.weights={published}", "--model.freeze_epochs=1"]
    )
    subprocess.run(
        [sys.executable, "-m", "leo_lightning", "pretrain", *words], check=True, capture_output=True, cwd=ROOT
    )
    weights, before = state(tmp_path), of_file(published)
    assert all(not torch.equal(weights[name], before[name]) for name in before)
