"""predictions.csv: a line for each query of the predicted tasks."""

import csv
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from leo_lightning.common.files import whole_file
from leo_lightning.common.spreadsheet import csv_cell
from leo_lightning.data.datamodule import EpisodeDataModule
from leo_lightning.data.episode import Episode
from leo_lightning.data.table_data import TableDataModule
from leo_lightning.data.task_data import TaskDataModule
from leo_lightning.learners.learner import check_predictions
from leo_lightning.learners.parts.normal_mixture import Predictive

ROWS = 4096
"""Queries to write at once; as Python numbers they take much memory."""


class PredictionsCSV(Callback, ABC):
    """Writes predictions.csv when all tasks are predicted, in the order of the tasks.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._batches: list[list[Tensor]] = []

    @abstractmethod
    def columns(self, trainer: pl.Trainer, outputs: Any, batch: Any) -> list[Tensor]:
        """Numbers of a meta-batch's queries, column by column; the first is the number of the task."""

    @abstractmethod
    def names(self, trainer: pl.Trainer) -> tuple[str, ...]:
        """Names of the columns; the last may be absent."""

    @abstractmethod
    def row(self, trainer: pl.Trainer, numbers: list[Any]) -> list[Any]:
        """Cells of a query, given its numbers."""

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the queries of a meta-batch.

        Raises:
            InputError: their predictions are NaN.
        """
        columns = self.columns(trainer, outputs, batch)
        check_predictions(*columns)
        self._batches.append(columns)

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the queries of all processes."""
        mine = [torch.cat(column) for column in zip(*self._batches, strict=True)]
        self._batches.clear()
        parts = [mine] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.gather_object(mine, parts if trainer.is_global_zero else None)
        if not trainer.is_global_zero:
            return
        columns = [torch.cat(column) for column in zip(*parts, strict=True)]
        order = columns[0].argsort(stable=True)
        with whole_file(self.path) as path, path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(map(csv_cell, self.names(trainer)[: len(columns)]))
            for part in zip(*(column[order].split(ROWS) for column in columns), strict=True):
                for numbers in zip(*(column.tolist() for column in part), strict=True):
                    writer.writerow(map(csv_cell, self.row(trainer, list(numbers))))


class ClassesCSV(PredictionsCSV):
    """Task, image, true and predicted class, probability; if the learner samples, its spread as well."""

    def names(self, trainer: pl.Trainer) -> tuple[str, ...]:
        """Names of the columns."""
        return ("task", "image", "class", "predicted", "probability", "spread")

    def columns(self, trainer: pl.Trainer, outputs: Any, batch: Episode) -> list[Tensor]:
        """Task, row of the image, number of the true and predicted class, probability, spread."""
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
        return [column[valid] for column in columns]

    def row(self, trainer: pl.Trainer, numbers: list[Any]) -> list[Any]:
        """Names in place of the numbers of image and classes."""
        bank, (task, row, *rest) = _data(trainer).bank("test"), numbers
        image = bank.image_names[row] if bank.image_names else row
        names = [bank.class_names[label] for label in rest[:2]]
        return [task, image, *names, *(f"{number:.6f}" for number in rest[2:])]


class ValuesCSV(PredictionsCSV):
    """Task, inputs, value, its predicted mean and standard deviation, in the user's units."""

    def names(self, trainer: pl.Trainer) -> tuple[str, ...]:
        """Names of the columns; the name of a function comes after the number of the task drawn from it."""
        data = _tasks(trainer)
        function = ("function",) if _named(data) else ()
        return ("task", *function, *data.columns, "predicted", "std")

    def columns(self, trainer: pl.Trainer, outputs: Predictive, batch: Episode) -> list[Tensor]:
        """Task, number of the function, inputs, value, mean, standard deviation."""
        assert batch.rows is not None
        data = _tasks(trainer)
        points = data.query_points(batch)
        mean = outputs.average().double().cpu() * batch.scale + batch.offset
        std = outputs.spread().double().cpu() * batch.scale
        numbers = [batch.rows.task[:, None]]
        if _named(data):
            assert batch.rows.classes is not None
            numbers.append(batch.rows.classes)
        numbers = [part.cpu().expand_as(mean) for part in numbers]
        return [column.flatten() for column in (*numbers, *points.unbind(-1), mean, std)]

    def row(self, trainer: pl.Trainer, numbers: list[Any]) -> list[Any]:
        """Points as they were given, predictions to seven digits, and the name of the function."""
        data, (task, *rest) = _tasks(trainer), numbers
        function = [data.class_names("test")[rest.pop(0)]] if _named(data) else []
        points, predictions = rest[:-2], rest[-2:]
        cells = [*(f"{number:.10g}" for number in points), *(f"{number:.7g}" for number in predictions)]
        return [task, *function, *cells]


def _named(data: TaskDataModule) -> bool:
    """Whether the functions have names: those of sines and lines are their families, which is no answer."""
    return isinstance(data, TableDataModule)


def _tasks(trainer: pl.Trainer) -> TaskDataModule:
    return trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]


def _data(trainer: pl.Trainer) -> EpisodeDataModule:
    data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(data, EpisodeDataModule)
    return data
