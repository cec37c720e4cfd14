"""Flags of Lightning's Trainer do what its users know them to do."""

from pathlib import Path

import pytest
import torch

from benchmarks.crash import differences
from leo_lightning.data.datamodule import EpisodeDataModule
from tests.runs.long_run import steps_of
from tests.tiny_run import folders, results, rows, tiny
from tests.training.models import system, trainer

EARLY = [
    "--trainer.callbacks+=EarlyStopping",
    "--trainer.callbacks.monitor=val/accuracy",
    "--trainer.callbacks.mode=max",
    "--trainer.callbacks.patience=1",
]
AVERAGE = ["--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay=0.5"]
COSINE = ["--model.lr_scheduler=CosineAnnealingLR", "--model.lr_scheduler.T_max=9"]
MONITOR = ["--trainer.callbacks+=LearningRateMonitor", "--trainer.callbacks.logging_interval=step"]

# flags: log lines of training, steps after which it was validated; an epoch has 3 steps
RUNS = {
    "val_check_interval": (["--trainer.val_check_interval=2"], 6, [2, 5]),
    "val_check_interval as a share": (["--trainer.val_check_interval=0.34"], 6, [1, 2, 3, 4, 5, 6]),
    "val_check_interval over epochs": (
        ["--trainer.val_check_interval=4", "--trainer.check_val_every_n_epoch=null"],
        6,
        [4],
    ),
    "check_val_every_n_epoch": (["--trainer.check_val_every_n_epoch=2"], 6, [6]),
    "limit_train_batches": (["--trainer.limit_train_batches=2"], 6, [2, 4, 6]),
    "limit_val_batches": (["--trainer.limit_val_batches=0"], 6, []),
    "accumulate_grad_batches": (
        ["--trainer.accumulate_grad_batches=3", "--run.checkpoint_every=1"],
        6,
        [1, 2, 3, 4, 5, 6],
    ),
    "max_epochs": (["--trainer.max_epochs=3", "--trainer.max_steps=-1"], 9, [3, 6, 9]),
    "num_sanity_val_steps": (["--trainer.num_sanity_val_steps=1"], 6, [3, 6]),
    "detect_anomaly": (["--trainer.detect_anomaly=true"], 6, [3, 6]),
    "deterministic": (["--trainer.deterministic=true"], 6, [3, 6]),
    "enable_progress_bar": (["--trainer.enable_progress_bar=false"], 6, [3, 6]),
    "bf16-mixed": (["--trainer.precision=bf16-mixed"], 6, [3, 6]),
    "LearningRateFinder": (
        ["--trainer.callbacks+=LearningRateFinder", "--trainer.callbacks.num_training_steps=4"],
        6,
        [3, 6],
    ),
    "profiler": (["--trainer.profiler=simple"], 6, [3, 6]),
}


@pytest.mark.parametrize("name", list(RUNS))
def test_flag(name: str, tmp_path: Path):
    """Catches a flag without effect, and steps or validations that are not where it puts them."""
    flags, steps, validated = RUNS[name]
    assert tiny(tmp_path, *flags, command="fit") == 0
    (folder,) = folders(tmp_path)
    lines = rows(folder / "metrics.csv")
    assert [int(row["step"]) for row in lines if row["train/loss"]] == list(range(steps))
    assert [int(row["step"]) + 1 for row in lines if row.get("val/accuracy")] == validated
    assert steps_of(folder / "checkpoints" / "last.ckpt") == steps


def test_limited_test_says_how_many_tasks(tmp_path: Path):
    """Catches an accuracy over fewer tasks than it claims."""
    assert tiny(tmp_path, "--trainer.limit_test_batches=2") == 0
    assert results(folders(tmp_path)[0])["tasks"] == 2 * 16


def test_overfit_batches_trains_on_the_same_tasks(tmp_path: Path):
    """Catches a loader that goes on to new tasks: with these the loss would not fall so far."""
    still = ["--model.learner.dropout=0", "--model.learning_rate=0.01", "--trainer.max_steps=60"]
    assert tiny(tmp_path, "--trainer.overfit_batches=1", *still, command="fit") == 0
    losses = [
        float(row["train/loss"]) for row in rows(folders(tmp_path)[0] / "metrics.csv") if row["train/loss"]
    ]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_early_stopping_stops_and_saves(tmp_path: Path):
    """Catches a monitor that does not find its metric, and a last step without a checkpoint."""
    assert tiny(tmp_path, *EARLY, "--trainer.max_steps=300", "--model.learning_rate=0", command="fit") == 2
    assert tiny(tmp_path, *EARLY, "--trainer.max_steps=300", "--model.learning_rate=1e-9", command="fit") == 0
    (folder,) = folders(tmp_path)
    assert steps_of(folder / "checkpoints" / "last.ckpt") == 6  # the second validation was not better


@pytest.mark.parametrize("flags", [EARLY, AVERAGE, [*COSINE, *MONITOR]], ids=["early", "average", "cosine"])
def test_what_callbacks_and_schedules_know_survives(flags: list[str], tmp_path: Path):
    """Catches an averaged weight, a schedule or a patience that begins anew on resuming."""
    short, long = "--trainer.max_steps=5", "--trainer.max_steps=9"
    assert tiny(tmp_path, *flags, long, name="whole", command="fit") == 0
    assert tiny(tmp_path, *flags, short, name="parts", command="fit") == 0
    assert tiny(tmp_path, *flags, long, "--resume=auto", name="parts", command="fit") == 0
    assert list(differences(folders(tmp_path, "parts")[0], folders(tmp_path, "whole")[0])) == []
    if flags[0] == COSINE[0]:
        lines = rows(folders(tmp_path, "parts")[0] / "metrics.csv")
        rates = [float(row["lr-Adam"]) for row in lines if row["lr-Adam"]]
        assert len(rates) == 9
        assert rates == sorted(rates, reverse=True)
        assert rates[0] == pytest.approx(1e-3)


def test_learning_rate_can_be_searched_in_python(tmp_path: Path):
    """Catches a model or data module that Lightning's Tuner cannot handle."""
    from pytorch_lightning.tuner import Tuner

    model, data = system(), EpisodeDataModule("synthetic", batch_size=2, steps_per_epoch=50, val_tasks=4)
    run = trainer(tmp_path, max_steps=3, enable_checkpointing=True)
    found = Tuner(run).lr_find(model, data, num_training=30)
    assert found is not None
    assert len(found.results["lr"]) > 10
    run.fit(model, data)
    assert run.global_step == 3


def test_loading_leaves_the_global_random_state_alone(tmp_path: Path):
    """Catches a checkpoint whose loading changes what is drawn after it."""
    from leo_lightning.training.meta_learner import MetaLearner

    assert tiny(tmp_path, command="fit") == 0
    path = folders(tmp_path)[0] / "checkpoints" / "last.ckpt"
    before = torch.get_rng_state()
    MetaLearner.load_from_checkpoint(path)
    assert torch.equal(torch.get_rng_state(), before)
