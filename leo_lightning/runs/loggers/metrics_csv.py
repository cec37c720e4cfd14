"""metrics.csv: everything that was logged, in one table that survives a restart."""

import csv
from argparse import Namespace
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from leo_lightning.common.csv_files import damaged, read_rows
from leo_lightning.common.files import cannot_write, whole_file


class MetricsCSV(Logger):
    """Writes one line per call of Lightning's logger, at once.

    Lightning's own CSVLogger deletes the lines of an earlier process of the same run; this one continues
    below them, from the resumed step.

    Args:
        folder: where metrics.csv goes.
        resumed_at: optimiser steps of the checkpoint; lines of later steps are dropped, since these steps are
            trained again. None for a new run.

    Raises:
        InputError: the file of the run to resume is damaged.
    """

    name = version = ""  # pyright: ignore[reportAssignmentType]  # unused, but required by Lightning

    def __init__(self, folder: Path, resumed_at: int | None = None) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self.resumed_at = resumed_at
        self.rows: list[dict[str, str]] = []  # the lines, as text by column
        self._columns: list[str] = ["step", "epoch"]
        self._in_file = False
        if resumed_at is not None:
            rows = read_rows(self.path)
            self._columns = list(rows[0]) if rows else self._columns
            with damaged(self.path):
                self.rows = [row for row in rows if int(row["step"]) < resumed_at]

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a line; a new column rewrites the file."""
        row = {name: _text(value) for name, value in metrics.items()} | {"step": str(step)}
        self.rows.append(row)
        new = [name for name in row if name not in self._columns]
        if new or not self._in_file:
            self._columns += new
            with whole_file(self.path) as part, part.open("w", newline="") as file:
                writer = csv.DictWriter(file, self._columns)
                writer.writeheader()
                writer.writerows(self.rows)
            self._in_file = True
            return
        try:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self._columns).writerow(row)
        except OSError as error:
            raise cannot_write(self.path, error) from None


def _text(value: int | float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))
