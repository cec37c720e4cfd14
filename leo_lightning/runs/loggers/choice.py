"""Which loggers a run has: metrics.csv always, TensorBoard's where it trains, W&B's where it is asked for."""

from pathlib import Path
from typing import Literal

from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from leo_lightning.common.errors import require
from leo_lightning.runs.folder import RunOptions
from leo_lightning.runs.loggers.metrics_csv import MetricsCSV
from leo_lightning.runs.loggers.wandb_run import WandbRun


def run_loggers(
    chosen: Logger | list[Logger] | bool | None,
    options: RunOptions,
    folder: Path,
    fitting: bool,
    resumed_at: int | None,
    judged_by: tuple[str, Literal["max", "min"]],
) -> list[Logger]:
    """The loggers of a run.

    Args:
        chosen: what `--trainer.logger` says; a WandbLogger there is the same as `--run.wandb`.
        options: those of the run.
        folder: of the run.
        fitting: whether it trains.
        resumed_at: optimiser steps that the checkpoint holds; None for a new run.
        judged_by: what of a validation chooses the best checkpoint, and whether more of it is better.

    Raises:
        InputError: a package is missing.
    """
    theirs = [chosen] if isinstance(chosen, Logger) else chosen if isinstance(chosen, list) else []
    history = MetricsCSV(folder, resumed_at)
    loggers: list[Logger] = [history]
    for each in theirs:
        loggers.append(WandbRun.like(each, history, *judged_by) if type(each) is WandbLogger else each)
    if not theirs and chosen is not False and fitting:
        require("tensorboard", "the log for TensorBoard (--trainer.logger false leaves it out)")
        loggers.append(TensorBoardLogger(folder, name="", version="tensorboard"))
    if options.wandb != "off" and not any(isinstance(each, WandbRun) for each in loggers):
        require("wandb", f"--run.wandb {options.wandb}")
        owner = {"project": options.wandb_project, "entity": options.wandb_entity}
        loggers.append(WandbRun(history, *judged_by, offline=options.wandb == "offline", **owner))
    return loggers
