"""Trials that end early, several jobs, trials of some length, and the final test, on pretended trainings."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import FrozenTrial
from rich.console import Console

from leo_lightning.commands.jobs import runner
from leo_lightning.commands.jobs.progress import Progress
from leo_lightning.commands.jobs.runner import Runner
from leo_lightning.commands.sweep import command, final_test
from leo_lightning.commands.sweep.search import Search
from leo_lightning.commands.sweep.study import open_search
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


def flag(arguments: Sequence[str], name: str) -> str:
    """The value of the last flag of a name."""
    return [word.partition("=")[2] for word in arguments if word.startswith(f"--{name}=")][-1]


class PretendedRun:
    """A training with the validations of `CURVES`, one for each look at it, or a test."""

    def __init__(self, words: Sequence[str], launcher: "Pretended") -> None:
        self.launcher = launcher
        self.folder = Path(flag(words, "run.root"), flag(words, "run.name"), "2026")
        self.dropout = float(flag(words, "model.learner.dropout"))
        self.curve = iter(CURVES[self.dropout] if words[0] == "fit" else [])
        self.lines = ["step,epoch,val/accuracy", "4,0,"]
        (self.folder / "checkpoints").mkdir(parents=True)
        if words[0] == "fit":
            (self.folder / "checkpoints" / "best.ckpt").touch()
        else:
            rows = ["task,before_adaptation,final", *(f"{n},0.9,{self.dropout + 0.1 * n}" for n in range(5))]
            (self.folder / "per_task.csv").write_text("\n".join([*rows, ""]))

    def state(self) -> str:
        if self.launcher.waits(self):
            return "running"
        value = next(self.curve, None)
        if value is None:
            self.launcher.over.append(self)
            return "over"
        self.lines.append(f"{10 * (len(self.lines) - 1) - 1},0,{value}")
        (self.folder / "metrics.csv").write_text("\n".join([*self.lines, ""]))
        return "running"

    def code(self) -> int | None:
        return 0

    def end(self) -> str:
        return ""

    def stop(self) -> None:
        self.curve = iter([])

    def kill(self) -> None:
        raise AssertionError("killed without patience")

    def close(self) -> None:
        pass


class Pretended:
    """Starts trainings that are pretended."""

    def __init__(self, waits: Callable[[PretendedRun, "Pretended"], bool] = lambda run, all: False) -> None:
        self.runs: list[PretendedRun] = []
        self.over: list[PretendedRun] = []
        self.words: list[Sequence[str]] = []
        self.most = 0
        self._waits = waits

    def start(
        self, folder: Path, name: str, words: Sequence[str], output: Path, errors: Path
    ) -> PretendedRun:
        self.words.append(words)
        self.runs.append(PretendedRun(words, self))
        self.most = max(self.most, len(self.runs) - len(self.over))
        return self.runs[-1]

    def waits(self, run: PretendedRun) -> bool:
        return self._waits(run, self)

    def continues(self, folder: Path, name: str) -> bool:
        return False


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks often."""
    monkeypatch.setattr(runner, "LOOK", 0.0)


def grid(folder: Path) -> Path:
    """A sweep file of `CURVES`, whose trials end early after the first and second validation."""
    path = tiny_sweep(folder, DROPOUT, method="grid")
    early = "early_terminate: {type: hyperband, min_iter: 1, eta: 2}\n"
    path.write_text(path.read_text() + early)
    return path


def pretended_search(folder: Path, launcher: Pretended, jobs: int = 1) -> list[FrozenTrial]:
    """The trials of `grid`."""
    opened = open_search(read_sweep(grid(folder)), folder / "out", [], 0)
    progress = Progress(folder / "progress.log", Console(file=io.StringIO()), "trial", "val")
    opened.run(5, lambda trial: None, Runner(launcher, jobs, folder / "out", progress))
    return opened.trials()


def test_worse_trials_end_early(tmp_path: Path):
    """By hand, on curves that cross. Catches a good trial ended, a bad one let go on, and one not marked."""
    trials = pretended_search(tmp_path, Pretended())
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

    def base_last(run: PretendedRun, launcher: Pretended) -> bool:
        return run.dropout == 0.1 and not launcher.over

    first = pretended_search(tmp_path, Pretended(base_last), jobs=2)[0]
    assert (first.params["model.learner.dropout"], first.state.name) == (0.1, "COMPLETE")


def test_jobs_run_at_a_time(tmp_path: Path):
    """Catches jobs that wait for each other, a trial that two of them run, and one too many."""

    def meet(run: PretendedRun, launcher: Pretended) -> bool:
        return len(launcher.runs) < 2

    launcher = Pretended(meet)
    trials = pretended_search(tmp_path, launcher, jobs=2)
    names = sorted(flag(words, "run.name") for words in launcher.words)
    assert names == [f"trial-{number:04d}" for number in range(5)]
    assert launcher.most == 2
    assert all(trial.state.is_finished() for trial in trials)


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
    launcher = Pretended()
    monkeypatch.setattr(command, "launcher_of", lambda arguments: launcher)
    out = tmp_path / "out"
    arguments = ["--config", str(grid(tmp_path)), "--trials", "5", "--out", str(out)]
    assert main(["sweep", *arguments]) == 0
    numbers = {float(row["model.learner.dropout"]): int(row["trial"]) for row in rows(out / "trials.csv")}
    places = {name: out / "runs" / f"trial-{number:04d}" / "2026" for name, number in numbers.items()}

    def tested() -> list[tuple[str, float, str, str]]:
        return [
            (
                words[0],
                float(flag(words, "model.learner.dropout")),
                flag(words, "ckpt_path"),
                flag(words, "data.test_tasks"),
            )
            for words in launcher.words
            if words[0] != "fit"
        ]

    assert tested() == [
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
    assert len(tested()) == 2


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
