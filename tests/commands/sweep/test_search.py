"""The command `python -m leo_lightning sweep`: trials, resumption, failures, and what it leaves."""

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import optuna
import pytest
import yaml

from leo_lightning.commands import train as cli
from leo_lightning.commands.sweep.search import Search
from leo_lightning.commands.sweep.sweep_file import read_sweep
from leo_lightning.data.splits import save_splits
from tests.commands.sweep.sweeps import COMMAND, ROOT, tiny_sweep, write
from tests.data.banks import make_bank
from tests.tiny_run import files, main, rows

SPACE = {
    "model.learner.dropout": {"min": 0.0, "max": 0.5},
    "model.learning_rate": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2},
    "data.normalize": {"values": ["l2", "center_l2"]},
}
VALUES = list(SPACE)
pytestmark = pytest.mark.usefixtures("forked_runs")


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of feature files that are read in no time."""
    folder = tmp_path_factory.mktemp("features")
    splits = (("train", "abcd"), ("val", "efg"), ("test", "hij"))
    save_splits(((split, make_bank(list(names), 5, split=split)) for split, names in splits), folder)
    return folder


def sweep(folder: Path, features: Path, parameters: dict = SPACE, *more: str, method: str = "bayes") -> str:
    """A sweep file of tiny runs."""
    return str(tiny_sweep(folder, parameters, f"--data.root={features}", *more, method=method))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, features: Path, forked_runs: None) -> tuple[Path, Path]:
    """A sweep file, and the folder of its search of three trials."""
    folder = tmp_path_factory.mktemp("sweep")
    path, out = sweep(folder, features), folder / "out"
    assert main(["sweep", "--config", path, "--trials", "3", "--out", str(out)]) == 0
    return Path(path), out


def test_the_first_trial_is_the_base(done: tuple[Path, Path]):
    """Catches a search that cannot say whether it beat what it started from."""
    found = rows(done[1] / "trials.csv")
    assert [row["trial"] for row in found] == ["0", "1", "2"]
    assert [row["state"] for row in found] == ["complete"] * 3
    assert [found[0][name] for name in VALUES] == ["0.1", "0.001", "l2"]
    assert len({found[n]["model.learning_rate"] for n in range(3)}) == 3


def test_a_trial_is_a_run_with_its_values_and_its_score(done: tuple[Path, Path]):
    """Catches flags that do not reach the run, and a score or step of another validation."""
    for row in rows(done[1] / "trials.csv"):
        (folder,) = (done[1] / "runs" / f"trial-{int(row['trial']):04d}").glob("*/")
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert config["model"]["learner"]["init_args"]["dropout"] == float(row["model.learner.dropout"])
        assert config["model"]["learning_rate"] == float(row["model.learning_rate"])
        assert config["data"]["init_args"]["normalize"] == row["data.normalize"]
        assert config["run"]["wandb"] == "off"
        logged = [line for line in rows(folder / "metrics.csv") if line["val/accuracy"]]
        best = max(logged, key=lambda line: float(line["val/accuracy"]))
        assert float(row["val_accuracy"]) == float(best["val/accuracy"])
        assert int(row["step"]) == int(best["step"]) + 1 in (2, 4)


def test_only_the_best_trial_keeps_its_checkpoints(done: tuple[Path, Path]):
    """Catches a disk full of checkpoints, or the best one lost."""
    best = max(rows(done[1] / "trials.csv"), key=lambda row: (float(row["val_accuracy"]), -int(row["trial"])))
    kept = [path.parents[2].name for path in files(done[1]) if path.name == "best.ckpt"]
    assert kept == [f"trial-{int(best['trial']):04d}"]


def test_best_replays(done: tuple[Path, Path], capsys: pytest.CaptureFixture[str]):
    """Catches a best.yaml that train.py refuses, without the best values, or with the trials' budget."""
    path, out = done
    best = max(rows(out / "trials.csv"), key=lambda row: (float(row["val_accuracy"]), -int(row["trial"])))
    with pytest.raises(SystemExit):
        cli.main(["fit", "--config", str(out / "best.yaml"), "--print_config=skip_null"])
    config = yaml.safe_load(capsys.readouterr().out)
    assert config == yaml.safe_load((out / "best.yaml").read_text())
    assert config["model"]["learning_rate"] == float(best["model.learning_rate"])
    assert config["model"]["learner"]["init_args"]["dropout"] == float(best["model.learner.dropout"])
    assert config["data"]["init_args"]["normalize"] == best["data.normalize"]
    assert config["data"]["init_args"]["way"] == 2
    base = yaml.safe_load((ROOT / "configs" / "leo.yaml").read_text())
    assert config["trainer"]["max_steps"] == base["trainer"]["max_steps"]
    assert config["data"]["init_args"]["steps_per_epoch"] == base["data"]["steps_per_epoch"]
    assert config["run"]["name"] == base["run"]["name"]
    header = (out / "best.yaml").read_text().partition("\nseed_everything")[0]
    for said in (f"{float(best['val_accuracy']):.4f}", "3 completed, 0 failed", "of 4 steps", str(path)):
        assert said in header


def test_what_is_not_trained_is_validated(tmp_path: Path, features: Path, capsys: pytest.CaptureFixture[str]):
    """Catches steps of a training that never was, in what is said and in the header of the best."""
    base = f"--config={ROOT / 'configs' / 'methods' / 'logistic_regression.yaml'}"
    sizes = [
        "--data.way=2",
        "--data.query=3",
        "--data.val_tasks=8",
        "--data.test_tasks=20",
        f"--data.root={features}",
    ]
    command = [*COMMAND[:3], "validate", base, *sizes, "${args}"]
    path = write(tmp_path, {"model.learner.C": {"values": [1.0, 10.0]}}, method="grid", command=command)
    assert main(["sweep", "--config", str(path), "--trials", "3", "--out", str(tmp_path / "out")]) == 0
    found, best = rows(tmp_path / "out" / "trials.csv"), (tmp_path / "out" / "best.yaml").read_text()
    assert {row["model.learner.C"] for row in found} == {"1.0", "10.0"}
    assert [row["step"] for row in found] == ["0", "0"]
    header = best.partition("seed_everything")[0]
    said = capsys.readouterr().out
    assert "3, each without training, validated on 8 tasks; grid" in said
    for text in (said, header):
        assert "at step" not in text
        assert "steps" not in text.lower()
    assert "Test      python -m leo_lightning --config" in header


def test_a_search_for_the_least_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches the largest error taken for the best, and a budget left in what the search found."""
    tiny = ["--trainer.max_steps=2", "--data.steps_per_epoch=2", "--data.val_tasks=8", "--data.batch_size=2"]
    tiny += ["--data.test_tasks=20", "--run.pictures_every=0"]
    base = [f"--config={ROOT / 'configs' / 'regression.yaml'}", "--trainer.accelerator=cpu", *tiny]
    cosine = "--model.lr_scheduler.init_args.T_max=2"
    path = write(
        tmp_path,
        {"model.learning_rate": {"values": [3e-3, 0.3]}},
        method="grid",
        metric={"name": "val/mse", "goal": "minimize"},
        command=[*COMMAND[:4], *base, cosine, "${args}"],
    )
    assert main(["sweep", "--config", str(path), "--trials", "3", "--out", str(tmp_path / "out")]) == 0
    best = min(rows(tmp_path / "out" / "trials.csv"), key=lambda row: float(row["val_mse"]))
    header, found, config = (tmp_path / "out" / "best.yaml").read_text().partition("seed_everything")
    assert f"val mse {float(best['val_mse']):.4f}" in header
    assert "sines and lines, 5-shot" in header
    config = yaml.safe_load(found + config)
    assert config["model"]["learning_rate"] == float(best["model.learning_rate"])
    assert config["model"]["lr_scheduler"]["init_args"]["T_max"] == config["trainer"]["max_steps"] == 12000
    assert f"trial {best['trial']}, val mse {float(best['val_mse']):.4f}" in capsys.readouterr().out


def test_search_goes_on_as_if_it_had_never_ended(
    done: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Against the same trials in one go. Catches trials run twice, or a sampler that begins anew."""
    path, whole = done
    out = ["--config", str(path), "--out", str(tmp_path / "out")]
    assert main(["sweep", *out, "--trials", "2"]) == 0
    before = [file for file in files(tmp_path / "out") if file.name == "metrics.csv"]
    written = [file.stat().st_mtime_ns for file in before]
    assert main(["sweep", *out, "--trials", "3"]) == 0
    assert [file.stat().st_mtime_ns for file in before] == written
    columns = ["trial", "state", "val_accuracy", "step", *VALUES]
    parts, at_once = rows(tmp_path / "out" / "trials.csv"), rows(whole / "trials.csv")
    assert [[row[name] for name in columns] for row in parts] == [
        [row[name] for name in columns] for row in at_once
    ]
    capsys.readouterr()
    start = time.monotonic()
    assert main(["sweep", *out, "--trials", "3"]) == 0
    assert "holds 3 of the trials already" in capsys.readouterr().out
    assert rows(tmp_path / "out" / "trials.csv") == parts
    assert time.monotonic() - start < 30


def test_another_search_is_refused(
    done: tuple[Path, Path], tmp_path: Path, features: Path, capsys: pytest.CaptureFixture[str]
):
    """Catches scores of other budgets, or of another space, that are compared with each other."""
    out = ["--trials", "4", "--out", str(done[1])]
    assert main(["sweep", "--config", str(done[0]), "--steps", "10", *out]) == 2
    assert "holds a search with other" in capsys.readouterr().err
    other = sweep(tmp_path, features, {**SPACE, "data.normalize": {"values": ["l2", "none"]}})
    assert main(["sweep", "--config", other, *out]) == 2
    assert "holds a search with other" in capsys.readouterr().err
    assert len(rows(done[1] / "trials.csv")) == 3


def test_failed_trials_are_recorded(tmp_path: Path, features: Path):
    """A grid, of which one point is refused. Catches a search that one bad trial ends, or that hides it."""
    path = sweep(tmp_path, features, {"model.learner.dropout": {"values": [2.0, 0.1, 0.2]}}, method="grid")
    assert main(["sweep", "--config", path, "--trials", "9", "--out", str(tmp_path / "out")]) == 0
    found = rows(tmp_path / "out" / "trials.csv")
    assert [row["model.learner.dropout"] for row in found] == ["0.1", "2.0", "0.2"]
    assert [row["state"] for row in found] == ["complete", "fail", "complete"]
    assert "dropout is 2.0" in found[1]["error"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_search_is_continued(number: int, tmp_path: Path, features: Path):
    """Catches a trial that is lost, counted though it never ended, or that goes on without its search."""
    path, out = sweep(tmp_path, features, SPACE, "--trainer.max_steps=500"), tmp_path / "out"
    arguments = ["--config", path, "--trials", "1", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "leo_lightning", "sweep", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # where the tests run in the background, Ctrl-C is ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not list(out.glob("runs/trial-0000/*/metrics.csv")) and time.monotonic() < deadline:
        time.sleep(0.05)
    # Ctrl-C reaches all processes of a terminal
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number
        assert errors.startswith("interrupted; continue with: ")
        assert " -m leo_lightning sweep --config" in errors
    study = optuna.load_study(study_name="sweep", storage=f"sqlite:///{out / 'study.db'}")
    assert [trial.state.name for trial in study.get_trials()] == ["RUNNING"]
    study._storage.remove_session()
    [metrics] = out.glob("runs/trial-0000/*/metrics.csv")
    time.sleep(0.5)
    size = metrics.stat().st_size
    time.sleep(1)
    assert metrics.stat().st_size == size
    assert main(["sweep", *arguments]) == 0
    [row] = rows(out / "trials.csv")
    assert (row["trial"], row["state"]) == ("0", "complete")
    assert len(list(out.glob("runs/trial-0000/*/"))) == 1


def test_a_trial_without_a_process_is_run_again(tmp_path: Path):
    """Catches a trial of another process that is run twice, a lost one, and other values after a kill."""
    path = write(tmp_path, {"a": {"min": 0.0, "max": 1.0}})

    def begun(folder: Path) -> Search:
        study = optuna.create_study(direction="maximize")
        study.enqueue_trial({"a": 0.5})
        return Search(read_sweep(path), folder, study, [], {}, {"a": 0.5}, 0)

    search, undisturbed = begun(tmp_path / "a"), begun(tmp_path / "b")
    with ExitStack() as left, ExitStack() as other:
        for one in (search, undisturbed):
            one.out.mkdir()
        first = left.enter_context(search._next_trial(3))
        second = other.enter_context(search._next_trial(3))
        assert first is not None
        assert second is not None
        left.close()
        with search._next_trial(3) as again, search._next_trial(3) as third, search._next_trial(3) as none:
            assert again is not None
            assert third is not None
            assert none is None
            assert (again.number, again.params) == (first.number, first.params)
            assert third.number == 2
    for _ in range(3):
        with undisturbed._next_trial(3) as trial:
            assert trial is not None
            undisturbed.study.tell(trial, state=optuna.trial.TrialState.FAIL)
    values = [[trial.params for trial in one.trials()] for one in (search, undisturbed)]
    assert values[0] == values[1]


def test_a_trial_that_was_killed_while_it_drew_gets_all_its_values(tmp_path: Path):
    """Catches a trial with the base configuration's values in place of its own."""
    path = write(tmp_path, {"a": {"min": 0.0, "max": 1.0}, "b": {"min": 0.0, "max": 1.0}})
    study = optuna.create_study(direction="maximize")
    search = Search(read_sweep(path), tmp_path, study, [], {}, {}, 0)
    study.ask({"a": search.sweep.space["a"]})
    with search._next_trial(1) as trial:
        assert trial is not None
        assert list(trial.params) == ["a", "b"]
