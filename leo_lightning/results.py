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
from torch import Tensor

from leo_lightning.data.datamodule import EpisodeDataModule
from leo_lightning.data.episode import Episode
from leo_lightning.run import git_commit
from leo_lightning.system import MetaLearner
from leo_lightning.whole_file import whole_file

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
        with whole_file(self.folder / "results.json") as part:
            part.write_text(json.dumps(results, indent=2))
        with whole_file(self.folder / "per_task.csv") as part, part.open("w", newline="") as file:
            _write_per_task(file, pl_module)
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
    data = _data(trainer)
    final = system.test_scores["final"]
    provenance = data.bank("test").provenance
    return {
        "learner": type(system.learner).__name__,
        "accuracy": final.mean,
        "ci95": _finite(final.ci95),
        "calibration_error": _finite(final.calibration_error),
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


def _finite(number: float | None) -> float | None:
    """None for the interval of a single task, or the confidence of weights that are no numbers."""
    return number if number is not None and math.isfinite(number) else None


class PredictionsCSV(Callback):
    """Writes predictions.csv, a line per query: task, image, true and predicted class, probability.

    With a learner that samples, its spread as well.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "predictions.csv"
        self._batches: list[tuple[Tensor, ...]] = []

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Episode,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the queries of a meta-batch: numbers of task, image and both classes, probability, spread."""
        assert batch.rows is not None
        labels = _data(trainer).bank("test").labels
        probability, choice = (part.cpu() for part in outputs.probability.max(-1))
        classes = labels[batch.rows.support[:, :, 0].cpu()]
        task = batch.rows.task[:, None, None].expand_as(choice)
        true = classes[:, :, None].expand_as(choice)
        predicted = classes.gather(1, choice.flatten(1)).view_as(choice)
        columns = [task, batch.rows.query.cpu(), true, predicted, probability]
        if outputs.spread is not None:
            columns.append(outputs.spread.cpu().gather(-1, choice[..., None]).squeeze(-1))
        valid = torch.ones_like(choice, dtype=torch.bool) if batch.valid is None else batch.valid.cpu()
        self._batches.append(tuple(column[valid] for column in columns))

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write all of them, those of other processes too, in the order of the tasks."""
        mine = [torch.cat(column) for column in zip(*self._batches, strict=True)]
        self._batches.clear()
        parts = [mine]
        if trainer.world_size > 1:
            parts *= trainer.world_size  # places for the others'
            torch.distributed.gather_object(mine, parts if trainer.is_global_zero else None)
        if not trainer.is_global_zero:
            return
        columns = [torch.cat(column) for column in zip(*parts, strict=True)]
        order = columns[0].argsort(stable=True)
        bank = _data(trainer).bank("test")
        with whole_file(self.path) as part, part.open("w", newline="") as file:
            writer = csv.writer(file)
            head = ["task", "image", "class", "predicted", "probability", "spread"]
            writer.writerow(head[: len(columns)])
            for task, row, *rest in zip(*(column[order].tolist() for column in columns), strict=True):
                image = bank.image_names[row] if bank.image_names else row
                names = [bank.class_names[label] for label in rest[:2]]
                writer.writerow([task, image, *names, *(f"{number:.6f}" for number in rest[2:])])


def _data(trainer: pl.Trainer) -> EpisodeDataModule:
    data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(data, EpisodeDataModule)
    return data


def _write_per_task(file: TextIO, system: MetaLearner) -> None:
    writer = csv.writer(file)
    writer.writerow(["task", *system.test_scores])
    columns = [scores.accuracy.tolist() for scores in system.test_scores.values()]
    writer.writerows(zip(system.test_scores["final"].task.tolist(), *columns, strict=True))
