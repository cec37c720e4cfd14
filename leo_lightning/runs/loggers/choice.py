"""The loggers of a run: metrics.csv always, TensorBoard for training, W&B on request."""

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from unittest import mock

from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from leo_lightning.common.errors import InputError, disk_line, one_line, require
from leo_lightning.runs.folder import RunOptions
from leo_lightning.runs.loggers.metrics_csv import MetricsCSV
from leo_lightning.runs.loggers.wandb_run import WandbRun

DEFAULTS = {"dir": ".", "project": "lightning_logs", "resume": "allow", "anonymous": None}
"""Arguments of `wandb.init` that Lightning's WandbLogger passes unless told otherwise."""
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""Half a minute for MLflow's server to answer when a run begins; its own 8 tries of 120 s take far longer."""


def run_loggers(
    chosen: Logger | list[Logger] | bool | None,
    options: RunOptions,
    folder: Path,
    fitting: bool,
    resumed_at: int | None,
    judged_by: tuple[str, Literal["max", "min"]],
) -> tuple[list[Logger], list[str]]:
    """Make the loggers of a run; return them with notes to print.

    Args:
        chosen: value of `--trainer.logger`; a WandbLogger there is the same as `--run.wandb`.
        options: of the run.
        folder: of the run.
        fitting: whether the run trains.
        resumed_at: optimiser steps of its checkpoint; None for a new run.
        judged_by: name and mode of the score that chooses the best checkpoint.

    Raises:
        InputError: W&B is asked for and not installed.
    """
    notes: list[str] = []
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
        try:
            importlib.import_module("tensorboard")
            # hides what an earlier process logged of the steps that are taken again
            loggers.append(TensorBoardLogger(folder, name="", version="tensorboard", purge_step=resumed_at))
        except ImportError:
            notes.append("no log for TensorBoard, which is not installed: pip install tensorboard")
    if options.wandb != "off" and not any(isinstance(logger, WandbRun) for logger in loggers):
        require("wandb", f"--run.wandb {options.wandb}")
        owner = {"project": options.wandb_project, "entity": options.wandb_entity}
        loggers.append(WandbRun(history, *judged_by, offline=options.wandb == "offline", **owner))
    return loggers, notes


@contextmanager
def beginning(logger: Logger) -> Iterator[None]:
    """Around the first use of a logger, which makes its files or finds its server.

    Raises:
        InputError: it cannot, for a reason of any library.
    """
    try:
        with mock.patch.dict(os.environ, PATIENCE | os.environ):
            yield
    except Exception as error:
        cause = error.__cause__ or error  # Lightning's TensorBoardLogger complains of a value
        reason = disk_line(cause) if isinstance(cause, OSError) else one_line(cause)
        raise InputError(
            f"trainer.logger: {type(logger).__name__} cannot begin ({reason}); change its arguments, or "
            "leave it out (--trainer.logger false)"
        ) from None
