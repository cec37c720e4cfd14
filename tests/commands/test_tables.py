"""Regression on tables of one's own, as a user meets it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from leo_lightning.data.table_data import TableDataModule
from leo_lightning.learners.maml_regression import MAMLRegression
from leo_lightning.training.checkpoint import load_learner, read_checkpoint
from leo_lightning.training.regression import Regression
from tests.data.tables import functions, write_table
from tests.places import ROOT
from tests.tiny_run import folders, main, results, rows

TINY = [
    f"--config={ROOT / 'configs' / 'regression_table.yaml'}", "--run.name=tiny",
    "--trainer.accelerator=cpu", "--trainer.max_steps=6", "--trainer.log_every_n_steps=1",
    "--data.steps_per_epoch=3", "--data.batch_size=2", "--data.val_tasks=8", "--data.test_tasks=40",
    "--data.predict_tasks=6", "--data.query=3", "--data.shot=2", "--data.target=height", "--data.noise=5",
    "--model.learner.predictive_samples=3", "--run.pictures_every=3",
]  # fmt: skip
MAML = "--model.learner=leo_lightning.learners.maml_regression.MAMLRegression"


def tiny(root: Path, table: Path, *args: str, command: str = "fit_test") -> int:
    return main([command, *TINY, f"--data.root={table}", f"--run.root={root}", *args])


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table") / "hills.csv", functions(20))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, table: Path) -> Path:
    """The folder of a finished run."""
    root = tmp_path_factory.mktemp("regression")
    assert tiny(root, table) == 0
    return folders(root)[0]


def test_a_test_has_no_oracle_and_the_users_units(run: Path, table: Path):
    """Catches the oracle of sines and lines on other functions, and errors of normalised values."""
    found = results(run)
    stages = ["before_adaptation", "after_latent_steps", "final", "predictive_mean"]
    assert list(found["stages"]) == [*stages, "support_mean", "linear_fit"]
    assert not any("sine" in name or "line" in name.split("_") for name in found)
    assert found["rmse"] == pytest.approx(found["mse"] ** 0.5)
    assert found["protocol"] == {"shot": 2, "queries": 3, "noise": 5.0}
    data = TableDataModule(table, 2, 3, target="height")
    episode = data.sampler("test")(range(40))
    assert episode.rows is not None
    parts = [dict(functions(20))[name] for name in data.class_names("test")]
    points = np.concatenate([np.array(part) for part in parts])[:, 2]
    support, query = (points[rows.numpy()][:, 0] for rows in (episode.rows.support, episode.rows.query))
    error = ((support.mean(1, keepdims=True) - query) ** 2).mean()
    assert found["stages"]["support_mean"]["mse"] == pytest.approx(error, rel=1e-4)


def test_the_likelihood_is_of_the_users_units(table: Path):
    """Catches a density of normalised values, and a training error in other units than the validation's."""
    data = TableDataModule(table, 2, 3, target="height", noise=5.0)
    learner = MAMLRegression(3, steps=1, inner_lr=0.0).eval()
    with torch.no_grad():
        learner.theta.zero_()
    episode = data.sampler("test")(range(40))
    measured = Regression()
    loss = measured.add(learner, episode, test=True).mean()
    found = measured.compute()["final"]
    values = data.query_points(episode)[..., -1]
    mean = float(data.standard.mean[-1])
    expected = -torch.distributions.Normal(mean, 5.0).log_prob(values).mean().item()
    assert found.extra["nll"] == pytest.approx(expected, rel=1e-4)
    assert found.mean == pytest.approx((values - mean).square().mean().item(), rel=1e-4)
    outcome = learner(episode)
    assert loss.item() == pytest.approx(outcome.loss.item(), rel=1e-5)
    assert Regression.of_step(outcome, episode).item() == pytest.approx(found.mean, rel=1e-4)


def test_it_says_what_it_reads(run: Path, table: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    """Catches a division, a normalisation or a noise that nobody is told."""
    assert tiny(tmp_path, table, f"--ckpt_path={run / 'checkpoints' / 'best.ckpt'}", command="test") == 0
    printed = "".join(capfd.readouterr())
    assert f"{table}: 20 tasks of 8 to 8 points, divided by chance, 0.2 and 0.2 of all" in printed
    assert "seed 0: train 12, val 4, test 4; normalised by u " in printed
    assert "noise 5" in printed
    assert "errors in units of height squared" in printed
    assert "ridge regression on the support" in printed
    assert "sines" not in printed
    assert results(folders(tmp_path)[0])["stages"] == results(run)["stages"]


def test_predictions_have_the_users_names_and_units(run: Path, table: Path, tmp_path: Path):
    """Catches normalised numbers, inputs that are missing, and numbers in place of names."""
    assert tiny(tmp_path, table, f"--ckpt_path={run / 'checkpoints' / 'best.ckpt'}", command="predict") == 0
    found = rows(folders(tmp_path)[0] / "predictions.csv")
    assert list(found[0]) == ["task", "function", "u", "v", "height", "predicted", "std"]
    assert [row["task"] for row in found] == [str(task) for task in range(6) for _ in range(3)]
    given = functions(20)
    for row in found:
        assert tuple(float(row[name]) for name in ("u", "v", "height")) in given[row["function"]]
        assert float(row["std"]) >= 5 - 1e-4
    path = run / "checkpoints" / "best.ckpt"
    learner = load_learner(read_checkpoint(path), path)
    data = TableDataModule(table, 2, 3, target="height", noise=5.0)
    episode = data.sampler("predict")(range(6))
    predictive = learner.predictive(episode, learner.adapt(episode.support))  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    mean, std = (float(part[-1]) for part in data.standard[1:3])
    np.testing.assert_allclose(
        [float(row["predicted"]) for row in found],
        predictive.average().detach().double().flatten().numpy() * std + mean,
        rtol=1e-5,
    )


def same(one: Path, other: Path) -> bool:
    weights = [
        torch.load(path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for path in (one, other)
    ]
    assert weights[0].keys() == weights[1].keys()
    return all(torch.equal(x, weights[1][name]) for name, x in weights[0].items())


def test_a_resumed_run_is_the_same(run: Path, table: Path, tmp_path: Path):
    """Catches tasks, a normalisation or a number of inputs that begin anew."""
    assert tiny(tmp_path, table, "--trainer.max_steps=3", command="fit") == 0
    more = [f"--run.root={tmp_path}", "--run.name=tiny", "--resume=auto", "--trainer.max_steps=6"]
    assert main(["fit", *more]) == 0
    [resumed] = folders(tmp_path)
    assert same(run, resumed)


def test_maml_and_gaussian_processes_take_the_same_tables(table: Path, tmp_path: Path):
    """Catches a method for one input only."""
    learner = [argument for argument in TINY if not argument.startswith("--model")]
    process = "--model.learner=leo_lightning.learners.gaussian_process.GaussianProcess"
    for number, method in enumerate((MAML, process)):
        flags = [f"--data.root={table}", f"--run.root={tmp_path / str(number)}", method]
        assert main(["fit_test", *learner, *flags]) == 0
        assert "linear_fit" in results(folders(tmp_path / str(number))[0])["stages"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.write_text(path.read_text().replace("height", "depth")), "has no column 'height'"),
        (lambda path: path.unlink(), "no such file or folder"),
    ],
)
def test_a_bad_table_leaves_no_run(
    change: Callable[[Path], object],
    said: str,
    table: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    """Catches a traceback, and a folder of a run that did not start."""
    path = tmp_path / "a.csv"
    path.write_text(table.read_text())
    change(path)
    assert tiny(tmp_path / "runs", path) == 2
    message = capsys.readouterr().err
    assert said in message
    assert message.count("\n") == 1
    assert not folders(tmp_path / "runs")


def test_the_figure_of_sines_and_lines_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Catches a figure about families that these functions do not have."""
    flags = [f"--ckpt_path={run / 'checkpoints' / 'best.ckpt'}", f"--out={tmp_path / 'out'}"]
    assert main(["figures", "regression", *flags]) == 2
    message = capsys.readouterr().err
    assert "sines and lines" in message
    assert message.count("\n") == 1
