"""Trials that end early, several jobs, trials of some length, and the final test, on pretended trainings."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import FrozenTrial

from leo_lightning.commands import child_runs
from leo_lightning.commands.sweep import final_test, search
from leo_lightning.commands.sweep.search import Search, open_search
from leo_lightning.commands.sweep.sweep_file import read_sweep
from tests.commands.sweep.sweeps import COMMAND, ROOT, tiny_sweep, write
from tests.tiny_run import main, rows

DROPOUT = {"model.learner.dropout": {"values": [0.1, 0.2, 0.3, 0.4, 0.5]}}
CURVES = {
    0.1: [0.4, 0.5, 0.6, 0.7],
    0.2: [0.3, 0.9, 0.9, 0.9],  # worse than the first at the first comparison
    0.3: [0.5, 0.4, 0.9, 0.9],  # better there, and worse at the second
    0.4: [0.6, 0.6, 0.8, 0.8],
    0.5: [0.45, 0.9, 0.9, 0.9],  # third of five
}
"""Accuracies of the validations of a trial, by its dropout."""


def flag(arguments: list[str], name: str) -> str:
    """The value of the last flag of a name."""
    return [word.partition("=")[2] for word in arguments if word.startswith(f"--{name}=")][-1]


def pretended(words: list[str], output: Path, errors: Path, over: Callable[[], bool] = lambda: False) -> int:
    """Pretend a training, with the validations of `CURVES`."""
    if words[-1].startswith("--print_config"):
        return child_runs.run_child(words, output, errors)
    folder = Path(flag(words, "run.root"), flag(words, "run.name"), "2026")
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "best.ckpt").touch()
    lines = ["step,epoch,val/accuracy", "4,0,"]
    for number, value in enumerate(CURVES[float(flag(words, "model.learner.dropout"))], 1):
        lines.append(f"{10 * number - 1},0,{value}")
        (folder / "metrics.csv").write_text("\n".join([*lines, ""]))
        if over():
            return 143
    return 0


def grid(folder: Path) -> Path:
    """A sweep file of `CURVES`, whose trials end early after the first and second validation."""
    path = tiny_sweep(folder, DROPOUT, method="grid")
    early = "early_terminate: {type: hyperband, min_iter: 1, eta: 2}\n"
    path.write_text(path.read_text() + early)
    return path


def pretended_search(
    folder: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., int] = pretended, jobs: int = 1
) -> list[FrozenTrial]:
    """The trials of `grid`."""
    monkeypatch.setattr(search, "run_child", run)
    opened = open_search(read_sweep(grid(folder)), folder / "out", [], 0)
    opened.run(5, lambda trial: None, jobs)
    return opened.trials()


def test_worse_trials_end_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By hand, on curves that cross. Catches a good trial ended, a bad one let go on, and one not marked."""
    trials = pretended_search(tmp_path, monkeypatch)
    ends = {trial.params["model.learner.dropout"]: (trial.state.name, trial.last_step) for trial in trials}
    assert ends == {
        0.1: ("COMPLETE", 4),
        0.2: ("PRUNED", 1),
        0.3: ("PRUNED", 2),
        0.4: ("COMPLETE", 4),
        0.5: ("PRUNED", 1),
    }
    for trial in trials:
        folder = tmp_path / "out" / "runs" / f"trial-{trial.number:04d}"
        marks = [path.read_text() for path in folder.glob("ended-early.txt")]
        assert len(marks) == (trial.state.name == "PRUNED")
        assert all(
            f"after validation {trial.last_step}, step {10 * (trial.last_step or 0)}" in mark
            for mark in marks
        )
        kept = trial.params["model.learner.dropout"] in (0.1, 0.4)  # base, and best
        assert bool(list(folder.glob("*/checkpoints"))) == kept


def test_the_base_configuration_is_let_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a search that has ended what everything else is compared with."""
    monkeypatch.setitem(CURVES, 0.1, [0.1, 0.1, 0.1, 0.1])
    others = threading.Event()

    def base_last(words: list[str], output: Path, errors: Path, over: Callable[[], bool] = bool) -> int:
        if words[-1].startswith("--print_config"):
            return pretended(words, output, errors)
        if flag(words, "model.learner.dropout") == "0.1":
            assert others.wait(30)
        code = pretended(words, output, errors, over)
        others.set()
        return code

    first = pretended_search(tmp_path, monkeypatch, base_last, jobs=2)[0]
    assert (first.params["model.learner.dropout"], first.state.name) == (0.1, "COMPLETE")


def test_jobs_run_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches jobs that wait for each other, a trial that two of them run, and one too many."""
    together, running = threading.Barrier(2, timeout=30), []

    def meets(words: list[str], output: Path, errors: Path, over: Callable[[], bool] = bool) -> int:
        if not words[-1].startswith("--print_config"):
            running.append(flag(words, "run.name"))
            if len(running) <= 2:
                together.wait()
        return pretended(words, output, errors)

    trials = pretended_search(tmp_path, monkeypatch, meets, jobs=2)
    assert sorted(running) == [f"trial-{number:04d}" for number in range(5)]
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 5


def test_a_trial_that_completes_just_now_keeps_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Catches the best checkpoint deleted by another job, which looked for the best before it was there."""
    study = optuna.create_study(direction="maximize")
    opened = Search(read_sweep(grid(tmp_path)), tmp_path, study, [], {}, {}, 0)
    worse, best = study.ask(), study.ask()
    for trial in (worse, best):
        (opened.folder(trial) / "2026" / "checkpoints").mkdir(parents=True)
    study.tell(worse, 0.1)
    look = Search.completed

    def late(self: Search) -> list[FrozenTrial]:
        completed = look(self)
        if len(completed) == 1:
            study.tell(best, 0.9)
        return completed

    monkeypatch.setattr(Search, "completed", late)
    opened._drop_checkpoints()
    assert (opened.folder(best) / "2026" / "checkpoints").exists()


@pytest.mark.parametrize(("end", "expected"), [(12000, 30), (500, 500)])
def test_a_schedule_ends_with_the_trial(end: int, expected: int, tmp_path: Path):
    """Catches a learning rate that --steps leaves high to the end, and a change of any other schedule."""
    base = ["--config", str(ROOT / "configs" / "regression.yaml")]
    path = write(
        tmp_path,
        {"model.learning_rate": {"min": 1e-3, "max": 1e-2}},
        metric={"name": "val/mse", "goal": "minimize"},
        command=[*COMMAND[:4], *base, f"--model.lr_scheduler.init_args.T_max={end}", "${args}"],
    )
    opened = open_search(read_sweep(path), tmp_path / "out", [], 0, steps=30)
    assert opened.base["trainer"]["max_steps"] == 30
    assert opened.data["steps_per_epoch"] == 3
    assert opened.base["model"]["lr_scheduler"]["init_args"]["T_max"] == expected


def test_the_best_is_tested_against_the_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """By hand. Catches a test of other weights, settings or tasks, and one that is made again."""
    tested = []

    def tests(arguments: list[str], *paths: Path) -> int:
        folder = Path(flag(arguments, "run.root"), flag(arguments, "run.name"), "2026")
        folder.mkdir(parents=True)
        dropout = float(flag(arguments, "model.learner.dropout"))
        lines = ["task,before_adaptation,final", *(f"{task},0.9,{dropout + 0.1 * task}" for task in range(5))]
        (folder / "per_task.csv").write_text("\n".join([*lines, ""]))
        tested.append(
            (arguments[0], dropout, flag(arguments, "ckpt_path"), flag(arguments, "data.test_tasks"))
        )
        return 0

    monkeypatch.setattr(search, "run_child", pretended)
    monkeypatch.setattr(final_test, "run_child", tests)
    out = tmp_path / "out"
    arguments = ["--config", str(grid(tmp_path)), "--trials", "5", "--out", str(out)]
    assert main(["sweep", *arguments]) == 0
    numbers = {float(row["model.learner.dropout"]): int(row["trial"]) for row in rows(out / "trials.csv")}
    places = {name: out / "runs" / f"trial-{number:04d}" / "2026" for name, number in numbers.items()}
    assert tested == [
        ("test", dropout, str(places[dropout] / "checkpoints" / "best.ckpt"), "20") for dropout in (0.4, 0.1)
    ]
    line = "better than the base configuration on 5 test tasks: +30.00 ± 0.00 points"
    said = capsys.readouterr().out
    assert line in said
    assert "ended early after validation 1" in said
    header = (out / "best.yaml").read_text()
    assert line in header
    assert "2 completed, 0 failed, 3 ended early" in header
    assert main(["sweep", *arguments]) == 0
    assert line in capsys.readouterr().out
    assert len(tested) == 2


def test_a_difference_is_judged_by_its_interval():
    """By hand. Catches intervals of two means in place of that of the differences, and a goal mistaken."""
    base = torch.linspace(0, 1, 100, dtype=torch.float64)  # tasks differ far more than the two
    ours = base + 0.01 + 0.01 * torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(50)
    half = 100 * 1.96 * 0.01 * np.sqrt(100 / 99) / 10
    said = final_test.difference(ours, base, "maximize")
    assert said.startswith(f"better than the base configuration on 100 test tasks: +1.00 ± {half:.2f} points")
    assert said.endswith("(51.00, 50.00)")
    assert final_test.difference(ours, base, "minimize").startswith("worse than")
    assert final_test.difference(base, ours, "minimize").startswith("better than")
    assert final_test.difference(base, base.flip(0), "maximize").startswith("no different from")
