"""A run that logs to metrics.csv and W&B; what is logged at a step is a function of the step's number.

W&B reads its variables once per process, so that each run has a process of its own (`tests.child`).
"""

import json
import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

from leo_lightning.runs.loggers.metrics_csv import MetricsCSV
from leo_lightning.runs.loggers.wandb_run import WandbRun


class Job(NamedTuple):
    """Log the steps from `first` to before `end` in a run folder."""

    folder: str
    resumed_at: int | None
    first: int
    end: int
    killed: bool = False


def main(arguments: list[str]) -> None:
    """Do the `Job` whose fields are the arguments, each in JSON."""
    job = Job(*map(json.loads, arguments))
    folder = Path(job.folder)
    history = MetricsCSV(folder, job.resumed_at)
    run = WandbRun(history, "accuracy", "max", project="few-shot", entity="a-team")
    lines = run.start("fit", ["synthetic", "5-way"], changed=bool(job.resumed_at))
    (folder / "said").write_text("\n".join(lines))
    run.log_hyperparams({"model": {"kl_weight": 0.1}})
    for step in range(job.first, job.end):
        for logger in (history, run):
            logger.log_metrics({"train/loss": 1 / (step + 1), "epoch": step // 5}, step)
            if step % 5 == 4:
                logger.log_metrics({"val/accuracy": 0.5 + step % 7 / 100, "epoch": step // 5}, step)
        if job.killed:
            time.sleep(0.1)
    if job.killed:
        os.kill(os.getpid(), signal.SIGKILL)
    run.log_metrics({"test/accuracy": 0.75, "epoch": 4}, job.end)
    run.finish()
