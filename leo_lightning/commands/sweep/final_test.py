"""Whether the best trial is better than the base configuration on tasks that have chosen neither."""

import csv
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float64
from optuna.trial import FrozenTrial
from torch import Tensor

from leo_lightning.commands.sweep.search import Search
from leo_lightning.commands.sweep.trial import reason, run_command
from leo_lightning.common.intervals import half_width
from leo_lightning.runs.folder import CHECKPOINTS

TASKS = 2000
"""Tested on no more: differences task by task vary little, and some methods take long."""


def final_test(search: Search) -> str | None:
    """Test the best trial and the base configuration on the same tasks; what differs, task by task, in words.

    None if there is nothing to compare: no trial beat the base configuration, or this itself failed.
    """
    best, first = search.completed()[0], search.base_trial()
    if first is None or best.number == first.number:
        return None
    scores: list[Mapping[int, float]] = []
    for trial in (best, first):
        found = _test(search, trial)
        if isinstance(found, str):
            return f"failed: {found}"
        scores.append(found)
    tasks = sorted(scores[0].keys() & scores[1].keys())
    ours, base = (torch.tensor([each[task] for task in tasks], dtype=torch.float64) for each in scores)
    return difference(ours, base, search.sweep.goal)


def difference(ours: Float64[Tensor, " tasks"], base: Float64[Tensor, " tasks"], goal: str) -> str:
    """What differs, with the interval of its mean.

    Args:
        ours: the best trial's score of each task.
        base: the base configuration's.
        goal: maximize, where scores are accuracies, or minimize.
    """
    factor, unit, digits = (100, " points", 2) if goal == "maximize" else (1, "", 4)
    mean, half = factor * (ours - base).mean().item(), factor * half_width(ours - base)
    better = mean > half if goal == "maximize" else mean < -half
    worse = mean < -half if goal == "maximize" else mean > half
    verdict = "better than" if better else "worse than" if worse else "no different from"
    of = ", ".join(f"{factor * each.mean().item():.{digits}f}" for each in (ours, base))
    return (
        f"{verdict} the base configuration on {len(ours):,} test tasks: {mean:+.{digits}f} ± "
        f"{half:.{digits}f}{unit}, 95% interval over the tasks of both ({of})"
    )


def _test(search: Search, trial: FrozenTrial) -> dict[int, float] | str:
    """The score of each test task, which an earlier call may have left; or why there is none."""
    folder = search.out / "tests" / f"trial-{trial.number:04d}"
    tables = sorted(folder.glob("*/per_task.csv"))
    if not tables:
        folder.mkdir(parents=True, exist_ok=True)
        checkpoints = sorted(search.folder(trial).glob(f"*/{CHECKPOINTS}/best.ckpt"))
        code = run_command(
            [
                "test",
                *search.sweep.arguments(trial.params)[1:],
                *search.flags,
                *([f"--ckpt_path={checkpoints[-1]}"] if checkpoints else []),
                f"--data.test_tasks={min(TASKS, search.data['test_tasks'])}",
                f"--run.root={folder.parent}",
                f"--run.name={folder.name}",
                "--run.wandb=off",
                "--trainer.logger=false",
            ],
            folder / "output.txt",
            folder / "errors.txt",
        )
        if code:
            return reason(code, folder / "errors.txt")
        tables = sorted(folder.glob("*/per_task.csv"))
    return _read(tables[-1])


def _read(path: Path) -> dict[int, float]:
    with path.open(newline="", encoding="utf-8") as file:
        return {int(row["task"]): float(row["final"]) for row in csv.DictReader(file)}
