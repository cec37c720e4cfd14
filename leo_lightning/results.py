"""What a test found: a table to read, results.json to keep, per_task.csv to compute with."""

import csv
import json
import math
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from rich.console import Console
from rich.table import Column, Table

from leo_lightning.data.datamodule import EpisodeDataModule
from leo_lightning.data.episode import Episode
from leo_lightning.run import git_commit
from leo_lightning.system import MetaLearner

STAGE_NAMES = {
    "before_adaptation": "{} before adaptation",
    "after_latent_steps": "{} after the latent steps",
    "final": "{}",
    "nearest_centroid": "nearest centroid",
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
        _write_whole(self.folder / "results.json", lambda file: json.dump(results, file, indent=2))
        _write_whole(self.folder / "per_task.csv", lambda file: _write_per_task(file, pl_module))
        self._print(results)

    def _print(self, results: dict[str, Any]) -> None:
        protocol = results["protocol"]
        self.console.print(
            f"\n{results['tasks']:,} test tasks, {protocol['way']}-way {protocol['shot']}-shot, "
            f"queries per class: {protocol['queries']}, features: {results['data']['dataset']}",
            highlight=False,
            soft_wrap=True,
        )
        table = Table("method", *(Column(name, justify="right") for name in ("accuracy, %", "± 95%")))
        for stage, score in results["stages"].items():
            name = STAGE_NAMES[stage].format(results["learner"])
            interval = "" if score["ci95"] is None else f"{100 * score['ci95']:.2f}"
            cells = (f"{100 * score['accuracy']:.2f}", interval)
            table.add_row(name, *cells, style="bold" if stage == "final" else "")
        self.console.print(table)


def describe(trainer: pl.Trainer, system: MetaLearner, seconds: float) -> dict[str, Any]:
    """All that is needed to judge and to repeat a result."""
    data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(data, EpisodeDataModule)
    final = system.test_scores["final"]
    provenance = data.bank("test").provenance
    return {
        "learner": type(system.learner).__name__,
        "accuracy": final.mean,
        "ci95": _finite(final.ci95),
        "tasks": final.count,
        "protocol": {
            "way": data.way,
            "shot": data.shot,
            "queries": "all remaining" if data.test_query == "all" else data.test_query,
            "trained_on": "train + val" if data.train_on_val else "train",
            "normalize": data.normalize,
        },
        "stages": {
            stage: {"accuracy": scores.mean, "ci95": _finite(scores.ci95)}
            for stage, scores in system.test_scores.items()
        },
        "data": {"dataset": provenance.get("dataset", "unknown"), **provenance},
        "checkpoint": None if trainer.ckpt_path is None else os.path.relpath(trainer.ckpt_path),
        "steps": system.steps_trained,
        "seed": system.seed,
        "eval_seed": data.eval_seed,
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


def _finite(number: float) -> float | None:
    """None for the interval of a single task: JSON has no NaN."""
    return number if math.isfinite(number) else None


def _write_per_task(file: TextIO, system: MetaLearner) -> None:
    writer = csv.writer(file)
    writer.writerow(["task", *system.test_scores])
    columns = [scores.accuracy.tolist() for scores in system.test_scores.values()]
    writer.writerows(zip(system.test_scores["final"].task.tolist(), *columns, strict=True))


class PredictionsCSV(Callback):
    """Writes predictions.csv, a line per query: task, image, true and predicted class, probability."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "predictions.csv"

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the header."""
        self.path.write_text("task,image,class,predicted,probability\n")

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Episode,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Append the queries of a meta-batch."""
        data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        assert isinstance(data, EpisodeDataModule)
        assert batch.rows is not None
        bank = data.bank("test")
        probability, choice = outputs.max(-1)
        classes = bank.labels[batch.rows.support[:, :, 0].cpu()]
        B, N, Q = choice.shape
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file)
            for b in range(B):
                for n in range(N):
                    for q in range(Q):
                        if batch.valid is not None and not batch.valid[b, n, q]:
                            continue
                        row = int(batch.rows.query[b, n, q])
                        image = bank.image_names[row] if bank.image_names else row
                        names = [bank.class_names[classes[b, c]] for c in (n, int(choice[b, n, q]))]
                        writer.writerow(
                            [int(batch.rows.task[b]), image, *names, f"{probability[b, n, q]:.6f}"]
                        )


def _write_whole(path: Path, write: Callable[[TextIO], None]) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("w", newline="") as file:
        write(file)
    os.replace(part, path)
