"""What is said of new classes: predictions.csv; with labels an accuracy, printed and in results.json."""

import json
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from torch import Tensor

from leo_lightning.common.files import whole_file
from leo_lightning.data.bank import listed
from leo_lightning.data.new_classes import NewClasses, Queries
from leo_lightning.inference.adapted_classifier import Answer
from leo_lightning.runs.callbacks.predictions_csv import PredictionsCSV
from leo_lightning.runs.callbacks.results import circumstances
from leo_lightning.training.meta_learner import MetaLearner
from leo_lightning.training.task_scores import wilson_interval

MOST = 20
"""Classes whose probabilities are all written, each into a column."""


class NewClassesReport(PredictionsCSV):
    """A line for each query, in the order of its file: image, classes, how sure.

    Args:
        path: of predictions.csv.
        folder: the run folder.
        console: where an accuracy goes.
    """

    def __init__(self, path: Path, folder: Path, console: Console) -> None:
        super().__init__(path)
        self.folder = folder
        self.console = console
        self._started = 0.0

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def columns(self, trainer: pl.Trainer, outputs: Answer, batch: Queries) -> list[Tensor]:
        """See `PredictionsCSV`."""
        probability, predicted = outputs.probability.max(-1)
        numbers = [probability, outputs.entropy()]
        if outputs.probability.shape[1] <= MOST:
            numbers += outputs.probability.unbind(-1)
        if outputs.disagreement is not None:
            numbers.append(outputs.disagreement)
        return [column.cpu() for column in (batch.row, predicted, *(each.float() for each in numbers))]

    def head(self, trainer: pl.Trainer, columns: int) -> list[str]:
        """See `PredictionsCSV`."""
        data = _data(trainer)
        names = data.examples.class_names
        return [
            "image",
            *(["class"] if data.labels is not None else []),
            *("predicted", "probability", "entropy", "disagreement"),
            *(f"p({name})" for name in (names if len(names) <= MOST else ())),
        ]

    def row(self, trainer: pl.Trainer, numbers: list[Any]) -> list[Any]:
        """See `PredictionsCSV`."""
        data, (row, predicted, *rest) = _data(trainer), numbers
        (bank, names, classes), support = data.queries, data.examples.class_names
        probability, entropy, *others = (f"{number:.6f}" for number in rest)
        shown = len(support) if len(support) <= MOST else 0
        return [
            bank.image_names[row] if bank.image_names else row,
            *([] if classes is None else [names[classes[row]]]),
            *(support[predicted], probability, entropy, *(others[shown:] or [""])),
            *others[:shown],
        ]

    def write(self, trainer: pl.Trainer, columns: list[Tensor]) -> None:
        """See `PredictionsCSV`. With labels, say how many are right."""
        super().write(trainer, columns)
        data = _data(trainer)
        if data.labels is None:
            return
        labels = data.labels[columns[0]]
        known = labels >= 0
        others = int((~known).sum())
        if others:
            verb = "is" if others == 1 else "are"
            self._say(
                f"note    {others:,} of {len(known):,} queries {verb} of a class that is not in the support "
                f"({listed(data.others)}): predicted, and not counted"
            )
        if not known.any():
            return
        hits, count = int((columns[1] == labels)[known].sum()), int(known.sum())
        low, high = wilson_interval(hits, count)
        self._say(
            f"\naccuracy {100 * hits / count:.2f} % of {count:,} queries of one task, 95% interval "
            f"{100 * low:.2f} to {100 * high:.2f} %"
        )
        system = trainer.lightning_module
        assert isinstance(system, MetaLearner)
        found = {
            "learner": type(system.learner).__name__,
            "accuracy": hits / count,
            "wilson95": [low, high],
            "queries": count,
            "queries_of_other_classes": others,
            "tasks": 1,
            "protocol": data.protocol(),
            "shots": dict(zip(data.examples.class_names, data.examples.counts.tolist(), strict=True)),
            **circumstances(trainer, system, time.perf_counter() - self._started),
        }
        with whole_file(self.folder / "results.json") as part:
            part.write_text(json.dumps(found, indent=2))

    def _say(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)


def _data(trainer: pl.Trainer) -> NewClasses:
    data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(data, NewClasses)
    return data
