"""The loggers of a run: metrics.csv always, TensorBoard for training, W&B on request."""

from pathlib import Path
from typing import Literal

from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from leo_lightning.common.errors import require
from leo_lightning.runs.folder import RunOptions
from leo_lightning.runs.loggers.metrics_csv import MetricsCSV
from leo_lightning.runs.loggers.wandb_run import WandbRun

DEFAULTS = {"dir": ".", "project": "lightning_logs", "resume": "allow", "anonymous": None}
"""Arguments of `wandb.init` that Lightning's WandbLogger passes unless told otherwise."""


def run_loggers(
    chosen: Logger | list[Logger] | bool | None,
    options: RunOptions,
    folder: Path,
    fitting: bool,
    resumed_at: int | None,
    judged_by: tuple[str, Literal["max", "min"]],
) -> list[Logger]:
    """Make the loggers of a run.

    Args:
        chosen: value of `--trainer.logger`; a WandbLogger there is the same as `--run.wandb`.
        options: of the run.
        folder: of the run.
        fitting: whether the run trains.
        resumed_at: optimiser steps of its checkpoint; None for a new run.
        judged_by: name and mode of the score that chooses the best checkpoint.

    Raises:
        InputError: a package is missing.
    """
    theirs = [chosen] if isinstance(chosen, Logger) else chosen if isinstance(chosen, list) else []
    history = MetricsCSV(folder, resumed_at)
    loggers: list[Logger] = [history]
    for logger in theirs:
        if type(logger) is WandbLogger:  # replace Lightning's defaults by ours
            given = {key: value for key, value in logger._wandb_init.items() if value != DEFAULTS.get(key)}
            given = {"project": options.wandb_project, "log_model": logger._log_model} | given
            logger = WandbRun(history, *judged_by, offline=logger._offline, prefix=logger._prefix, **given)
        loggers.append(logger)
    if not theirs and chosen is not False and fitting:
        require("tensorboard", "the log for TensorBoard (--trainer.logger false leaves it out)")
        # hides what an earlier process logged of the steps that are taken again
        loggers.append(TensorBoardLogger(folder, name="", version="tensorboard", purge_step=resumed_at))
    if options.wandb != "off" and not any(isinstance(logger, WandbRun) for logger in loggers):
        require("wandb", f"--run.wandb {options.wandb}")
        owner = {"project": options.wandb_project, "entity": options.wandb_entity}
        loggers.append(WandbRun(history, *judged_by, offline=options.wandb == "offline", **owner))
    return loggers
