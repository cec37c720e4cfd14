"""Regression as a user meets it, and what is measured of it."""

import csv
from pathlib import Path

import pytest
import torch

from leo_lightning.data.functions import sample_functions, sample_points
from leo_lightning.learners.maml_regression import MAMLRegression
from leo_lightning.training.regression import Regression
from tests.places import ROOT
from tests.tiny_run import folders, main, results, rows

TINY = [
    "--trainer.accelerator=cpu", "--trainer.max_steps=6", "--trainer.log_every_n_steps=1",
    "--data.steps_per_epoch=3", "--data.batch_size=2", "--data.val_tasks=8", "--data.test_tasks=40",
    "--data.predict_tasks=3", "--data.query=4", "--run.pictures_every=0",
]  # fmt: skip


def tiny(root: Path, *args: str, config: str = "regression", command: str = "fit_test") -> int:
    settings = [f"--config={ROOT / 'configs' / config}.yaml", *TINY, f"--run.root={root}", "--run.name=tiny"]
    return main([command, *settings, *args])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    root = tmp_path_factory.mktemp("regression")
    assert tiny(root, "--model.learner.predictive_samples=5") == 0
    return folders(root)[0]


def test_a_test_measures_what_it_promises(run: Path):
    """Catches a stage, a family or a measure that is missing."""
    found = results(run)
    assert {"mse", "ci95", "nll", "coverage_50", "coverage_90", "mse_sine", "mse_line_ci95"} <= found.keys()
    stages = ["before_adaptation", "after_latent_steps", "final", "predictive_mean", "family_oracle"]
    assert list(found["stages"]) == [*stages, "ideal_observer"]
    oracle = found["stages"]["family_oracle"]
    assert oracle["nll"] < found["nll"]
    assert 0.35 < oracle["coverage_50"] < 0.65
    assert 0.75 < oracle["coverage_90"] < 1
    assert found["protocol"] == {"shot": 5, "queries": 4, "noise": 0.3}
    per_task = rows(run / "per_task.csv")
    assert sum(float(row["final"]) for row in per_task) / 40 == pytest.approx(found["mse"], rel=1e-9)
    family = sample_functions(range(40), 0, "test").family
    mine = [float(row["final"]) for row, number in zip(per_task, family.tolist(), strict=True) if number == 0]
    assert sum(mine) / len(mine) == pytest.approx(found["mse_sine"], rel=1e-9)


def test_the_best_checkpoint_has_the_smallest_error(run: Path):
    """Catches a choice of the largest."""
    with (run / "metrics.csv").open() as file:
        errors = [float(row["val/mse"]) for row in csv.DictReader(file) if row["val/mse"]]
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    [kept] = [state["best_model_score"] for name, state in best["callbacks"].items() if "Best" in name]
    assert float(kept) == pytest.approx(min(errors), rel=1e-6)


def test_the_same_again_from_the_checkpoint(run: Path, tmp_path: Path):
    """Catches a base learner, a size or a sample that the checkpoint does not bring back."""
    flags = [f"--ckpt_path={run / 'checkpoints' / 'best.ckpt'}", "--model.learner.predictive_samples=5"]
    assert tiny(tmp_path, *flags, command="test") == 0
    assert results(folders(tmp_path)[0])["stages"] == results(run)["stages"]


def test_a_resumed_run_is_the_same(run: Path, tmp_path: Path):
    """Catches noise, tasks or a learning rate that begin anew."""
    first = folders(run.parents[1])[0] / "checkpoints" / "last.ckpt"
    assert tiny(tmp_path, "--trainer.max_steps=3", command="fit") == 0
    assert (
        main(["fit", f"--run.root={tmp_path}", "--run.name=tiny", "--resume=auto", "--trainer.max_steps=6"])
        == 0
    )
    weights = [
        torch.load(path, weights_only=True)["state_dict"]
        for path in (first, folders(tmp_path)[0] / "checkpoints" / "last.ckpt")
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(x, weights[1][name]) for name, x in weights[0].items())


def test_predictions(run: Path, tmp_path: Path):
    """Catches points, values or tasks that are not those of the data."""
    assert tiny(tmp_path, f"--ckpt_path={run / 'checkpoints' / 'best.ckpt'}", command="predict") == 0
    found = rows(folders(tmp_path)[0] / "predictions.csv")
    assert list(found[0]) == ["task", "x", "value", "predicted", "std"]
    query = sample_points(range(3), 0, "test", 5, 4, 0.3).query[:, 0].flatten(0, 1)
    assert [float(row["x"]) for row in found] == pytest.approx(query[:, 0].tolist(), abs=1e-5)
    assert [float(row["value"]) for row in found] == pytest.approx(query[:, 1].tolist(), abs=1e-5)
    assert [row["task"] for row in found] == [str(task) for task in range(3) for _ in range(4)]
    assert all(float(row["std"]) >= 0.3 - 1e-6 for row in found)


@pytest.mark.parametrize("config", ["regression_maml", "regression_gaussian_process"])
def test_baselines(config: str, tmp_path: Path):
    """Catches a method of the same tasks that cannot be trained or tested."""
    assert tiny(tmp_path, config=config) == 0
    found = results(folders(tmp_path)[0])
    assert found["stages"]["family_oracle"]["mse"] < found["mse"]
    assert 0 <= found["coverage_50"] <= found["coverage_90"] <= 1


def test_measures_of_what_is_sure_of_itself():
    """Catches an interval of another share, and a likelihood without its noise."""
    learner = MAMLRegression(2, steps=1, inner_lr=0.0).eval()
    with torch.no_grad():
        learner.theta.zero_()
    episode = sample_points(range(300), 0, "test", 5, 20, 1.0)
    truth = torch.randn(300, 1, 20, generator=torch.Generator().manual_seed(0))
    measured = Regression()
    measured.add(learner, episode._replace(query=torch.stack([episode.query[..., 0], truth], -1)), test=True)
    found = measured.compute()["final"]
    assert found.extra["coverage_50"] == pytest.approx(0.5, abs=0.02)
    assert found.extra["coverage_90"] == pytest.approx(0.9, abs=0.02)
    expected = -torch.distributions.Normal(0.0, 1.0).log_prob(truth).mean().item()
    assert found.extra["nll"] == pytest.approx(expected, rel=1e-5)
    assert found.mean == pytest.approx(truth.square().mean().item(), rel=1e-5)
