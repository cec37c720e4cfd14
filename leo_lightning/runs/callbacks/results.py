"""Results of a test: a table to read, results.json to keep, per_task.csv to compute with."""

import csv
import json
import math
import os
import platform
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from rich.console import Console
from rich.table import Column, Table

from leo_lightning.common.files import whole_file
from leo_lightning.common.program import called
from leo_lightning.common.version import __version__
from leo_lightning.data.task_data import TaskDataModule
from leo_lightning.runs.folder import git_commit
from leo_lightning.training.meta_learner import MetaLearner
from leo_lightning.training.task_scores import TaskScores

STAGE_NAMES = {
    "before_adaptation": "{} before adaptation",
    "after_latent_steps": "{} after the latent steps",
    "final": "{}",
    "nearest_centroid": "nearest centroid",
    "nearest_centroid_cl2n": "nearest centroid, centred (CL2N)",
    "predictive_mean": "{}, mean over its samples",
    "support_mean": "mean of the support",
    "linear_fit": "ridge regression on the support",
    "family_oracle": "oracle that knows the family",
    "ideal_observer": "ideal observer that does not",
}
UNKNOWN_NAMES = {
    "distance": "distance to the nearest example",
    "entropy": "entropy of the probabilities",
    "probability": "1 - largest probability",
}


class ResultsReport(Callback):
    """Prints the scores of a test, and writes them to the run folder."""

    def __init__(self, folder: Path, console: Console) -> None:
        self.folder = folder
        self.console = console
        self._started = 0.0

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write results.json and per_task.csv, and print the table."""
        seconds = time.perf_counter() - self._started
        data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        assert isinstance(pl_module, MetaLearner)
        assert isinstance(data, TaskDataModule)
        if not trainer.is_global_zero:
            return
        stages = pl_module.test_scores
        final = stages["final"]
        results = {
            "learner": type(pl_module.learner).__name__,
            **_numbers(final, pl_module),
            "tasks": len(final.task),
            "protocol": data.protocol(),
            "stages": {stage: _numbers(scores, pl_module) for stage, scores in stages.items()},
            **(
                {"unknown": {name: _auroc(scores) for name, scores in final.auroc.items()}}
                if final.auroc
                else {}
            ),
            "data": {"dataset": "unknown", **data.provenance("test")},
            "notes": data.other_features("test"),
            "eval_seed": data.eval_seed,
            **circumstances(trainer, pl_module, seconds),
        }
        with whole_file(self.folder / "results.json") as part:
            part.write_text(json.dumps(results, indent=2))
        with whole_file(self.folder / "per_task.csv") as part, part.open("w", newline="") as file:
            writer = csv.writer(file)
            columns = stages | {f"auroc_{name}": scores for name, scores in final.auroc.items()}
            writer.writerow(["task", *columns])
            values = (scores.values.tolist() for scores in columns.values())
            writer.writerows(zip(final.task.tolist(), *values, strict=True))
        step = f" at step {pl_module.steps_trained}" if pl_module.steps_trained else ""
        title = f"\n{len(final.task):,} test tasks{step}, {data.title()}"
        self.console.print(title, markup=False, highlight=False, soft_wrap=True)
        self.console.print(score_table(pl_module))
        if final.auroc:
            self.console.print(unknown_table(final))


def score_table(model: MetaLearner) -> Table:
    """Scores of the last test by stage of adaptation and by baseline, to print or to show in a notebook."""
    known = {name for scores in model.test_scores.values() for name in _numbers(scores, model)}
    columns = {heading: column for heading, column in model.evaluation.columns.items() if column[0] in known}
    table = Table("method", *(Column(heading, justify="right") for heading in columns))
    for stage, scores in model.test_scores.items():
        numbers = _numbers(scores, model)
        cells = (
            "" if (number := numbers[name]) is None else form.format(number * factor)
            for name, factor, form in columns.values()
        )
        method = STAGE_NAMES[stage].format(type(model.learner).__name__)
        table.add_row(method, *cells, style="bold" if stage == "final" else "")
    return table


def unknown_table(final: TaskScores) -> Table:
    """AUROC of telling queries of unknown classes from the others, by score."""
    table = Table("AUROC of unknown classes", Column("%", justify="right"), Column("± 95%", justify="right"))
    for name, scores in final.auroc.items():
        cells = (
            f"{100 * number:.2f}" if math.isfinite(number) else "" for number in (scores.mean, scores.ci95)
        )
        table.add_row(UNKNOWN_NAMES[name], *cells)
    return table


def circumstances(trainer: pl.Trainer, model: MetaLearner, seconds: float) -> dict[str, Any]:
    """Describe the evaluation that took so many seconds: checkpoint, seed, command, versions, device."""
    return {
        "checkpoint": None if trainer.ckpt_path is None else os.path.relpath(trainer.ckpt_path),
        "steps": model.steps_trained,
        "seed": model.seed,
        "seconds": round(seconds, 2),
        "commit": git_commit(),
        "command": f"{called()} {shlex.join(sys.argv[1:])}".rstrip(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "lightning": pl.__version__,
            "leo_lightning": __version__,
        },
        "device": str(trainer.strategy.root_device),
    }


def _numbers(scores: TaskScores, model: MetaLearner) -> dict[str, float | None]:
    """Mean, interval and all further numbers by name."""
    numbers = {model.evaluation.score: scores.mean, "ci95": scores.ci95, **scores.extra}
    return _finite(numbers)


def _auroc(scores: TaskScores) -> dict[str, float | None]:
    """Mean and interval of an AUROC."""
    return _finite({"auroc": scores.mean, "ci95": scores.ci95})


def _finite(numbers: dict[str, float]) -> dict[str, float | None]:
    """The numbers, None where one is not finite."""
    return {name: number if math.isfinite(number) else None for name, number in numbers.items()}
