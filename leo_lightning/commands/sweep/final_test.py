"""The final test: is the best trial better than the base configuration on tasks that have chosen neither?"""

from pathlib import Path

import torch
from jaxtyping import Float64
from optuna.trial import FrozenTrial
from torch import Tensor

from leo_lightning.commands.jobs.metrics import RunMetrics
from leo_lightning.commands.jobs.progress import Row
from leo_lightning.commands.jobs.runner import Job, Runner
from leo_lightning.commands.sweep.search import Search
from leo_lightning.common.csv_files import read_rows
from leo_lightning.common.intervals import half_width
from leo_lightning.runs.folder import tested_checkpoint

TASKS = 2000
"""Enough, since differences vary little from task to task; some methods are slow."""


def final_test(search: Search, runner: Runner) -> str | None:
    """Test the best trial and the base configuration on the same tasks; return the difference in words.

    None if there is nothing to compare: the base configuration failed, or no trial beat it.
    """
    best, first = search.completed()[0], search.base_trial()
    if first is None or best.number == first.number:
        return None
    trials = {f"test-{trial.number:04d}": trial for trial in (best, first)}
    folders = {name: search.out / "tests" / f"trial-{trial.number:04d}" for name, trial in trials.items()}
    missing = [name for name, folder in folders.items() if not list(folder.glob("*/per_task.csv"))]
    jobs = (_job(search, name, trials[name], folders[name], runner) for name in missing)
    with runner:
        failed = [end.reason for end in runner.run(lambda: next(jobs, None)) if end.reason]
    if failed:
        return f"failed: {failed[0]}"
    tables: list[dict[int, float]] = []
    for folder in folders.values():
        rows = read_rows(max(folder.glob("*/per_task.csv")))
        tables.append({int(row["task"]): float(row["final"]) for row in rows})
    tasks = sorted(tables[0].keys() & tables[1].keys())
    ours, base = (torch.tensor([table[task] for task in tasks], dtype=torch.float64) for table in tables)
    return difference(ours, base, search.sweep.goal)


def difference(ours: Float64[Tensor, " tasks"], base: Float64[Tensor, " tasks"], goal: str) -> str:
    """Say how the best trial differs from the base configuration on the same tasks.

    The goal is maximize, where scores are accuracies, or minimize.
    """
    factor, unit, digits = (100, " points", 2) if goal == "maximize" else (1, "", 4)
    mean, half = factor * (ours - base).mean().item(), factor * half_width(ours - base)
    gain = mean if goal == "maximize" else -mean
    verdict = "better than" if gain > half else "worse than" if gain < -half else "no different from"
    means = ", ".join(f"{factor * scores.mean().item():.{digits}f}" for scores in (ours, base))
    return (
        f"{verdict} the base configuration on {len(ours):,} test tasks: {mean:+.{digits}f} ± "
        f"{half:.{digits}f}{unit}, 95% interval over the tasks of both ({means})"
    )


def _job(search: Search, name: str, trial: FrozenTrial, folder: Path, runner: Runner) -> Job:
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints = [tested_checkpoint(run) for run in search.folder(trial).iterdir()]
    words = [
        "test",
        *search.words(trial, folder)[1:],
        *(f"--ckpt_path={path}" for path in checkpoints if path),
        f"--data.test_tasks={min(TASKS, search.data['test_tasks'])}",
    ]
    runner.progress.rows[name] = Row(f"{trial.number}, test", None, 0)
    metrics = RunMetrics(folder, search.sweep.metric)
    return Job(name, words, metrics, folder / "output.txt", folder / "errors.txt")
