"""What a test found: a table to read, results.json to keep, per_task.csv to compute with."""

import csv
import json
import math
import os
import platform
import shlex
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from rich.console import Console
from rich.table import Column, Table

from leo_lightning.common.files import whole_file
from leo_lightning.data.task_data import TaskDataModule
from leo_lightning.runs.folder import git_commit
from leo_lightning.training.meta_learner import MetaLearner
from leo_lightning.training.task_scores import TaskScores

STAGE_NAMES = {
    "before_adaptation": "{} before adaptation",
    "after_latent_steps": "{} after the latent steps",
    "final": "{}",
    "nearest_centroid": "nearest centroid",
    "predictive_mean": "{}, mean over its samples",
    "family_oracle": "oracle that knows the family",
    "ideal_observer": "ideal observer that does not",
}


class ResultsReport(Callback):
    """Prints and writes the scores of a test.

    Args:
        folder: the run folder.
        console: where the table goes.
    """

    def __init__(self, folder: Path, console: Console) -> None:
        self.folder = folder
        self.console = console
        self._started = 0.0

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write everything, on one process."""
        seconds = time.perf_counter() - self._started
        assert isinstance(pl_module, MetaLearner)
        if not trainer.is_global_zero:
            return
        results = describe(trainer, pl_module, seconds)
        with whole_file(self.folder / "results.json") as part:
            part.write_text(json.dumps(results, indent=2))
        with whole_file(self.folder / "per_task.csv") as part, part.open("w", newline="") as file:
            _write_per_task(file, pl_module)
        title = f"\n{results['tasks']:,} test tasks, {_data(trainer).title()}"
        self.console.print(title, highlight=False, soft_wrap=True)
        self.console.print(score_table(pl_module))


def score_table(system: MetaLearner) -> Table:
    """What the last test found, by stage of adaptation and by baseline; a notebook shows it, too."""
    columns = system.evaluation.columns
    table = Table("method", *(Column(head, justify="right") for head in columns))
    for stage, scores in system.test_scores.items():
        found = _numbers(scores, system)
        cells = (
            "" if (number := found[key]) is None else shown.format(number * factor)
            for key, factor, shown in columns.values()
        )
        name = STAGE_NAMES[stage].format(type(system.learner).__name__)
        table.add_row(name, *cells, style="bold" if stage == "final" else "")
    return table


def describe(trainer: pl.Trainer, system: MetaLearner, seconds: float) -> dict[str, Any]:
    """All that is needed to judge and to repeat a result."""
    data = _data(trainer)
    final = system.test_scores["final"]
    return {
        "learner": type(system.learner).__name__,
        **_numbers(final, system),
        "tasks": final.count,
        "protocol": data.protocol(),
        "stages": {stage: _numbers(scores, system) for stage, scores in system.test_scores.items()},
        "data": {"dataset": "unknown", **data.provenance("test")},
        "eval_seed": data.eval_seed,
        **circumstances(trainer, system, seconds),
    }


def circumstances(trainer: pl.Trainer, system: MetaLearner, seconds: float) -> dict[str, Any]:
    """What was run, and where."""
    return {
        "checkpoint": None if trainer.ckpt_path is None else os.path.relpath(trainer.ckpt_path),
        "steps": system.steps_trained,
        "seed": system.seed,
        "seconds": round(seconds, 2),
        "commit": git_commit(),
        "command": shlex.join(["python", *sys.argv]),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "lightning": pl.__version__,
        },
        "device": str(trainer.strategy.root_device),
    }


def _numbers(scores: TaskScores, system: MetaLearner) -> dict[str, float | None]:
    """By name; None where there is none."""
    found = {system.evaluation.score: scores.mean, "ci95": scores.ci95, **scores.extra}
    return {name: number if math.isfinite(number) else None for name, number in found.items()}


def _data(trainer: pl.Trainer) -> TaskDataModule:
    data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(data, TaskDataModule)
    return data


def _write_per_task(file: TextIO, system: MetaLearner) -> None:
    writer = csv.writer(file)
    writer.writerow(["task", *system.test_scores])
    columns = [scores.values.tolist() for scores in system.test_scores.values()]
    writer.writerows(zip(system.test_scores["final"].task.tolist(), *columns, strict=True))
