"""Training: a run for each method and seed, which resumes what was begun and repeats nothing."""

import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from leo_lightning.commands.compare.entrants import Entrant
from leo_lightning.commands.compare.plan import Plan
from leo_lightning.commands.jobs.metrics import RunMetrics
from leo_lightning.commands.jobs.runner import Ended, Job
from leo_lightning.common.files import checksum_of
from leo_lightning.common.program import called
from leo_lightning.runs.callbacks.checkpoints import STOPPED_BY
from leo_lightning.runs.folder import newest_checkpoint, tested_checkpoint
from leo_lightning.training.checkpoint import read_checkpoint


@dataclass(frozen=True)
class Run:
    """A finished training run."""

    tested: Path
    """The checkpoint that train.py would test."""
    steps: int
    seconds: float | None
    """Time of the steps up to here, with their validation but no start-up; None if its Timer is missing."""

    @cached_property
    def sha256(self) -> str:
        """Digest of `tested`."""
        with self.tested.open("rb") as file:
            return checksum_of(file)


def finished_run(entrant: Entrant, plan: Plan) -> Run | None:
    """Return the run of a method that has reached the plan's last step, or has stopped improving.

    None if there is none.
    """
    name = _run_name(entrant, plan)
    last = newest_checkpoint(plan.runs, name, "last")
    content = {} if last is None else read_checkpoint(last)
    if last is None or not (content["global_step"] == plan.steps or content.get(STOPPED_BY)):
        return None
    seconds = content["callbacks"].get("Timer", {}).get("time_elapsed", {}).get("train")
    return Run(tested_checkpoint(last.parents[1]) or last, content["global_step"], seconds)


def replaces(entrant: Entrant, plan: Plan) -> bool:
    """Whether this method was trained before, but only with another configuration or other features."""
    names = [folder.name for folder in plan.runs.glob(f"{entrant.method.slug}.*")]
    return bool(names) and not any(name.startswith(entrant.recipe) for name in names)


def job(entrant: Entrant, plan: Plan) -> Job:
    """Return the training of a method up to the plan's last step, or until it stops improving.

    It goes on from where it stands.
    """
    name = _run_name(entrant, plan)
    log = plan.out / "logs" / f"{entrant.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    words = ["fit", *entrant.flags, f"--run.root={plan.runs}", f"--run.name={name}", "--resume=auto"]
    # the time is in the checkpoints then
    words += ["--trainer.callbacks+=pytorch_lightning.callbacks.Timer", "--trainer.callbacks.interval=step"]
    return Job(entrant.name, words, RunMetrics(plan.runs / name, "val/accuracy"), log, log)


def note_start(job: Job) -> None:
    """Write the command line of a training that is about to start above what it will print."""
    with job.output.open("a", encoding="utf-8") as file:
        file.write(f"$ {called()} {shlex.join(job.words)}\n")


def trained(entrant: Entrant, plan: Plan, end: Ended) -> Run:
    """Return the run of a training that is over.

    Raises:
        RuntimeError: it failed.
    """
    run = None if end.reason else finished_run(entrant, plan)
    if run is None:
        reason = end.reason or f"ended before step {plan.steps}"
        raise RuntimeError(f"{end.job.output.relative_to(plan.out)}: {reason}")
    return run


def _run_name(entrant: Entrant, plan: Plan) -> str:
    """Name of the run; its length is part of it if the usual one has gone further than the plan does."""
    last = newest_checkpoint(plan.runs, entrant.run_name, "last")
    return f"{entrant.run_name}.{plan.steps}" if last and step_of(last) > plan.steps else entrant.run_name


def step_of(checkpoint: Path) -> int:
    """Return the training steps of a checkpoint."""
    return read_checkpoint(checkpoint)["global_step"]
