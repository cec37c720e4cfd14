"""predictions.csv: a line for each query of the tasks that are predicted."""

import csv
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from leo_lightning.common.files import whole_file
from leo_lightning.data.datamodule import EpisodeDataModule
from leo_lightning.data.episode import Episode
from leo_lightning.learners.parts.normal_mixture import Predictive

ROWS = 4096
"""Queries that are written at once; as numbers of Python's they take much memory."""


class PredictionsCSV(Callback, ABC):
    """Writes predictions.csv when all tasks are answered, in the order of the tasks.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._batches: list[list[Tensor]] = []

    @abstractmethod
    def columns(self, trainer: pl.Trainer, outputs: Any, batch: Any) -> list[Tensor]:
        """Numbers of each query of a meta-batch, first what they are sorted by: that of its task."""

    @abstractmethod
    def head(self, trainer: pl.Trainer, columns: int) -> list[str]:
        """Names of what is written of so many columns."""

    @abstractmethod
    def row(self, trainer: pl.Trainer, numbers: list[Any]) -> list[Any]:
        """What is written of a query."""

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the queries of a meta-batch."""
        self._batches.append(self.columns(trainer, outputs, batch))

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write all of them, those of other processes too."""
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
        self.write(trainer, [column[order] for column in columns])

    def write(self, trainer: pl.Trainer, columns: list[Tensor]) -> None:
        """Write all queries, which are in order."""
        with whole_file(self.path) as path, path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(self.head(trainer, len(columns)))
            for part in zip(*(column.split(ROWS) for column in columns), strict=True):
                for numbers in zip(*(column.tolist() for column in part), strict=True):
                    writer.writerow(self.row(trainer, list(numbers)))


class ClassesCSV(PredictionsCSV):
    """Task, image, true and predicted class, probability; with a learner that samples, its spread as well."""

    def columns(self, trainer: pl.Trainer, outputs: Any, batch: Episode) -> list[Tensor]:
        """See `PredictionsCSV`."""
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

    def head(self, trainer: pl.Trainer, columns: int) -> list[str]:
        """See `PredictionsCSV`."""
        return ["task", "image", "class", "predicted", "probability", "spread"][:columns]

    def row(self, trainer: pl.Trainer, numbers: list[Any]) -> list[Any]:
        """See `PredictionsCSV`."""
        bank, (task, row, *rest) = _data(trainer).bank("test"), numbers
        image = bank.image_names[row] if bank.image_names else row
        names = [bank.class_names[label] for label in rest[:2]]
        return [task, image, *names, *(f"{number:.6f}" for number in rest[2:])]


class ValuesCSV(PredictionsCSV):
    """Task, x, the value there, the mean that is predicted, and its standard deviation."""

    def columns(self, trainer: pl.Trainer, outputs: Predictive, batch: Episode) -> list[Tensor]:
        """See `PredictionsCSV`."""
        assert batch.rows is not None
        x, value = batch.query[:, 0].cpu().unbind(-1)
        mean = outputs.average()
        columns = [batch.rows.task[:, None].expand_as(x), x, value, mean.cpu(), outputs.spread().cpu()]
        return [column.flatten() for column in columns]

    def head(self, trainer: pl.Trainer, columns: int) -> list[str]:
        """See `PredictionsCSV`."""
        return ["task", "x", "value", "predicted", "std"]

    def row(self, trainer: pl.Trainer, numbers: list[Any]) -> list[Any]:
        """See `PredictionsCSV`."""
        return [numbers[0], *(f"{number:.6f}" for number in numbers[1:])]


def _data(trainer: pl.Trainer) -> EpisodeDataModule:
    data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(data, EpisodeDataModule)
    return data
