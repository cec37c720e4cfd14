"""python -m leo_lightning pretrain: runs, resuming, and validation."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from leo_lightning.data.sampler import sample_rows
from leo_lightning.images.backbones.networks import build_network, set_steps
from leo_lightning.images.backbones.weights import known_recipe, load_backbone
from leo_lightning.images.decode import read_image
from leo_lightning.images.folder import find_splits
from tests.child import start
from tests.commands.pretrain.pictures import SIZE, tree
from tests.commands.pretrain.tiny_pretraining import CONV4, arguments, main, run
from tests.places import ROOT
from tests.runs.long_run import wait_for
from tests.tiny_run import folders, rows


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree(tmp_path_factory.mktemp("images"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def assert_equal_weights(one: Path, other: Path) -> None:
    mine, theirs = weights(one), weights(other)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_run_learns_and_leaves_what_extraction_needs(
    images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    """Catches a backbone that does not train, a best.ckpt of another validation, and an end that repeats."""
    assert run(images, tmp_path, "--trainer.max_epochs=5") == 0
    (folder,) = folders(tmp_path)
    lines = rows(folder / "metrics.csv")
    losses = [float(line["train/loss"]) for line in lines if line["train/loss"]]
    accuracies = [float(line["val/accuracy"]) for line in lines if line["val/accuracy"]]
    assert len(losses) == 5 * (72 // 8)
    assert np.mean(losses[-9:]) < 0.8 * np.mean(losses[:9])
    assert len(accuracies) == 5
    capfd.readouterr()
    assert main(["fit", "--resume=auto", f"--run.root={tmp_path}", "--run.name=tiny"]) == 0
    assert "finished at step 45, nothing is left to do; raise --trainer.max_epochs" in capfd.readouterr().out
    best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["global_step"] == 9 * (1 + int(np.argmax(accuracies)))
    recipe = known_recipe(None, str(folder / "checkpoints" / "best.ckpt"))
    assert (recipe.backbone, recipe.image_size, recipe.channels) == ("conv-4", SIZE, 1)
    assert not any(
        "head" in name for name in load_backbone(recipe, str(folder / "checkpoints/best.ckpt")).state_dict()
    )


def test_validation_is_the_nearest_centroid_on_the_validation_classes(images: Path, tmp_path: Path):
    """Against NumPy, task by task. Catches tasks of training classes, and batch statistics in validation."""
    assert (
        run(images, tmp_path, "--trainer.max_epochs=1", "--model.val_way=3", "--data.eval_batch_size=7") == 0
    )
    (folder,) = folders(tmp_path)
    (logged,) = [float(line["val/accuracy"]) for line in rows(folder / "metrics.csv") if line["val/accuracy"]]
    path = str(folder / "checkpoints" / "last.ckpt")
    backbone, val = load_backbone(known_recipe(None, path), path), find_splits(images)["val"]
    with torch.inference_mode():
        pictures = torch.stack([read_image(val.path(row), 1, SIZE) for row in range(len(val))])
        x = F.normalize(backbone(pictures), dim=1).double().numpy()
    tasks = sample_rows(range(50), 0, "val", val.counts.cumsum() - val.counts, val.counts, 3, 1, 11)
    hits = []
    for support, query in zip(tasks.support.numpy(), tasks.query.numpy(), strict=True):
        distance = ((x[query][:, :, None] - x[support].mean(1)) ** 2).sum(-1)
        hits.append((distance.argmin(-1) == np.arange(3)[:, None]).mean())
    assert np.mean(hits) == pytest.approx(logged, abs=1e-6)


@pytest.mark.parametrize(
    "network",
    [CONV4, ["--model.backbone=resnet-12", "--model.options={wider: false, dropblock_size: 1}"]],
    ids=["conv-4", "resnet-12"],
)
def test_a_run_in_two_parts_is_the_run_in_one(images: Path, tmp_path: Path, network: list[str]):
    """Catches a lost position in the epoch, order, augmentation, dropout or DropBlock's count of steps."""
    steps = 14 if network is CONV4 else 4
    fixed = ["--model.schedule=constant", f"--data.batch_size={8 if network is CONV4 else 4}"]
    small = [*fixed, "--trainer.limit_val_batches=0"]
    assert run(images, tmp_path / "one", *small, f"--trainer.max_steps={steps}", network=network) == 0
    assert run(images, tmp_path / "two", *small, f"--trainer.max_steps={steps // 2}", network=network) == 0
    half = folders(tmp_path / "two")[0] / "checkpoints" / "last.ckpt"
    assert main(["fit", f"--ckpt_path={half}", f"--trainer.max_steps={steps}"]) == 0
    assert_equal_weights(folders(tmp_path / "one")[0], folders(tmp_path / "two")[0])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_stopped_continues_unchanged(
    images: Path, tmp_path: Path, capfd: pytest.CaptureFixture, number: signal.Signals
):
    """Catches a checkpoint that is missing after a kill, or in the middle of a step after Ctrl-C."""
    long = ["--trainer.max_epochs=6", "--run.checkpoint_every=5", "--data.num_workers=1"]
    assert run(images, tmp_path / "one", *long) == 0
    child = start("pretrain", *arguments(images, tmp_path / "two", *long))
    wait_for(child, tmp_path / "two", "tiny/*/metrics.csv", 20)
    child.send_signal(number)
    said, _ = child.communicate()
    if number == signal.SIGINT:
        assert re.search(r"continue with: .+ pretrain fit --ckpt_path", said)
    assert main(["fit", "--resume=auto", f"--run.root={tmp_path / 'two'}", "--run.name=tiny"]) == 0
    assert_equal_weights(folders(tmp_path / "one")[0], folders(tmp_path / "two")[0])
    whole, stopped = (
        [(line["step"], line["train/loss"]) for line in rows(folders(tmp_path / name)[0] / "metrics.csv")]
        for name in ("one", "two")
    )
    assert stopped == whole


@pytest.mark.slow
def test_two_processes_measure_what_one_does(images: Path, tmp_path: Path):
    """Catches validation images of a second process that are not counted."""
    assert run(images, tmp_path, "--trainer.max_epochs=1") == 0
    (folder,) = folders(tmp_path)
    best = folder / "checkpoints" / "best.ckpt"
    assert main(["validate", f"--ckpt_path={best}", "--run.name=one"]) == 0
    command = [sys.executable, "-m", "leo_lightning", "pretrain", "validate", f"--ckpt_path={best}"]
    two = ["--run.name=two", "--trainer.devices=2", "--trainer.strategy=ddp", "--data.eval_batch_size=5"]
    subprocess.run([*command, *two], check=True, capture_output=True, cwd=ROOT)
    accuracies = {
        rows(folders(tmp_path, name)[0] / "metrics.csv")[-1]["val/accuracy"] for name in ("one", "two")
    }
    assert len(accuracies) == 1


@pytest.mark.parametrize("path", sorted(Path("configs/pretrain").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_configuration_runs(tmp_path: Path, path: Path):
    """Catches a field that was renamed, and augmentation that does not end at the size of the network."""
    images = tree(tmp_path / "images", train=2, val=2, images=4, size=84)
    network = [
        "--model.backbone=conv-4",
        "--model.options=null",
        "--model.weights=null",
        "--model.freeze_epochs=0",
        "--model.keep_statistics=false",
        "--trainer.precision=32",
        "--trainer.max_steps=1",
    ]
    small = [
        "--trainer.log_every_n_steps=1",
        "--data.batch_size=4",
        "--data.num_workers=0",
        "--model.val_tasks=2",
        "--trainer.logger=false",
    ]
    places = [f"--data.root={images}", f"--run.root={tmp_path / 'runs'}", "--run.name=tiny"]
    assert main(["fit", f"--config={path}", *network, *small, *places]) == 0
    assert f"--config {path}" in path.read_text()


def test_a_diverging_run_says_so(images: Path, tmp_path: Path, capfd: pytest.CaptureFixture):
    """Catches hours of training on NaN."""
    assert run(images, tmp_path, "--trainer.max_epochs=2", "--model.learning_rate=1e30") == 1
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: training diverged: the loss of step")
    assert error.endswith("is not finite; try a lower --model.learning_rate")


@pytest.mark.parametrize("where", ["train", "val"])
def test_damaged_files(tmp_path: Path, capfd: pytest.CaptureFixture, where: str):
    """Catches a training that ends after hours at a damaged image, or uses one."""
    root = tree(tmp_path / "images")
    bad = root / where / f"{where}1" / "03.png"
    bad.write_bytes(bad.read_bytes()[:60])
    (root / where / f"{where}1" / "notes.txt").write_text("hello")
    assert run(root, tmp_path / "runs", "--trainer.max_epochs=1") == 2
    assert "not images: '" + f"{where}1/notes.txt" in capfd.readouterr().err
    (root / where / f"{where}1" / "notes.txt").unlink()
    assert run(root, tmp_path / "runs", "--trainer.max_epochs=1") == 2
    assert f"damaged images: '{where}1/03.png'; remove" in capfd.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert run(root, tmp_path / "runs", "--trainer.max_epochs=1", "--data.on_error=skip") == 0
    said = capfd.readouterr()
    assert "skipped, damaged images: '" + f"{where}1/03.png" in said.err
    assert ("71 images of 6" if where == "train" else "72 images of 6") in said.out


def test_a_checkpoint_of_another_network_or_of_other_classes(
    images: Path, tmp_path: Path, capfd: pytest.CaptureFixture
):
    """Catches torch's list of tensors that do not fit, and a head of other classes."""
    endless = ["--trainer.max_epochs=-1", "--model.schedule=constant"]
    assert run(images, tmp_path, "--trainer.max_steps=1", *endless) == 0
    last = folders(tmp_path)[0] / "checkpoints" / "last.ckpt"
    more = ["fit", f"--ckpt_path={last}", "--trainer.max_steps=2"]
    assert main([*more, "--model.options={hidden_size: 5}"]) == 2
    assert "was trained with other options; use the config.yaml of its run" in capfd.readouterr().err
    assert main([*more, f"--data.root={tree(tmp_path / 'other', train=7)}"]) == 2
    assert "was trained on other classes; name the images of its run" in capfd.readouterr().err
    assert main(["fit", "--ckpt_path=README.md", *arguments(images, tmp_path)[1:]]) == 2
    assert "README.md: is n" in capfd.readouterr().err


def test_dropblock_counts_training_steps():
    """Catches learn2learn's own count, which evaluation raises and no checkpoint keeps."""
    network = build_network("resnet-12", 1, {"wider": False})
    for _ in range(3):
        network.eval()(torch.zeros(1, 1, 80, 80))
    set_steps(network, 5)
    counts = {module.num_batches_tracked for module in network.modules() if hasattr(module, "drop_block")}
    assert counts == {5}


def test_quiet_prints_nothing(images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    """Catches a banner, a line or Lightning's validation table in a quiet run."""
    assert run(images, tmp_path, "--trainer.max_epochs=1", "--run.quiet=true") == 0
    best = folders(tmp_path)[0] / "checkpoints" / "best.ckpt"
    assert main(["validate", f"--ckpt_path={best}", "--run.quiet=true", f"--run.root={tmp_path}"]) == 0
    assert capfd.readouterr() == ("", "")
