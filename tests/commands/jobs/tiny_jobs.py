"""Tiny trainings for the tests of the runner."""

import io
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from leo_lightning.commands.jobs.launcher import Launcher
from leo_lightning.commands.jobs.metrics import RunMetrics
from leo_lightning.commands.jobs.progress import Progress, Row
from leo_lightning.commands.jobs.runner import Ended, Job, Runner
from tests.places import ROOT

STEPS = 60


def words(folder: Path, name: str, *more: str) -> list[str]:
    """A training of `STEPS` steps that continues what was begun."""
    return [
        "fit", f"--config={ROOT / 'configs' / 'leo.yaml'}", "--trainer.accelerator=cpu",
        f"--trainer.max_steps={STEPS}", "--trainer.log_every_n_steps=1", "--data.root=synthetic",
        "--data.steps_per_epoch=20", "--data.batch_size=2", "--data.val_tasks=8",
        "--model.learner.num_latents=4", "--run.pictures_every=0", f"--run.root={folder / 'runs'}",
        f"--run.name={name}", "--resume=auto", *more,
    ]  # fmt: skip


def job(folder: Path, name: str, *more: str, over: Callable[[], bool] = lambda: False) -> Job:
    """A tiny training."""
    metrics = RunMetrics(folder / "runs" / name, "val/accuracy")
    log = folder / f"{name}.log"
    return Job(name, words(folder, name, *more), metrics, log, log, over)


def run(
    folder: Path,
    launcher: Launcher,
    jobs: list[Job],
    at_a_time: int = 1,
    look: Callable[[Progress], None] = lambda progress: None,
) -> tuple[list[Ended], str]:
    """Run jobs; what has ended, and what was printed. `look` is called when each is looked at."""
    said = io.StringIO()
    progress = Progress(folder / "progress.log", Console(file=said, width=200), "method", "val")
    for one in jobs:
        progress.rows[one.name] = Row(one.name, 0, STEPS)
    waiting = iter(jobs)

    def looked_at(one: Job) -> Job:
        def over() -> bool:
            look(progress)
            return one.over()

        return Job(one.name, one.words, one.metrics, one.output, one.errors, over)

    with progress, Runner(launcher, at_a_time, folder, progress) as runner:
        ended = list(runner.run(lambda: (one := next(waiting, None)) and looked_at(one)))
    return ended, said.getvalue()
