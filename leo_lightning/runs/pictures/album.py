"""Album: writes pictures to the run folder and to every logger."""

import csv
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_warn

from leo_lightning.common.errors import one_line
from leo_lightning.common.files import whole_file
from leo_lightning.common.spreadsheet import csv_cell
from leo_lightning.runs.folder import PICTURES
from leo_lightning.runs.pictures.painter import Painter
from leo_lightning.runs.pictures.view import Picture


class Album:
    """Files `pictures/<name>/step-<step>.png` of a run, with .csv files beside them.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / PICTURES
        self._painter = Painter()
        self._unfinished: list[tuple[str, int, Path, Future[None]]] = []

    def add(self, trainer: pl.Trainer, name: str, picture: Picture, step: int) -> None:
        """Write the numbers of a picture, replacing any of the same step; log a table, or begin a figure."""
        path = self.folder / name / f"step-{step:08}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            whole_file(path.with_suffix(".csv")) as part,
            part.open("w", newline="", encoding="utf-8") as file,
        ):
            csv.writer(file).writerows(map(csv_cell, row) for row in picture.rows)
        if picture.figure is not None:
            self._unfinished.append((name, step, path, self._painter.paint(picture.figure, path)))
            return
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text(f"{PICTURES}/{name}", markdown(picture.rows), _last(step))
            elif isinstance(logger, WandbLogger):
                columns, *data = picture.rows
                logger.log_table(f"{PICTURES}/{name}", columns=columns, data=data, step=step)

    def no_more(self) -> None:
        """Say that no picture of this step follows."""
        self._painter.no_more()

    def finish(self, trainer: pl.Trainer) -> None:
        """Wait for the figures, and log them; one that failed is not worth a training."""
        for name, step, path, painted in self._unfinished:
            try:
                painted.result()
                _log(trainer, f"{PICTURES}/{name}", step, path)
            except Exception as error:  # a full disk, a logger
                rank_zero_warn(f"step {step}: no picture of {name} ({one_line(error)})")
        self._unfinished.clear()

    def forget_after(self, step: int) -> None:
        """Delete pictures of later steps: a run resumed at `step` draws them again."""
        for path in self.folder.glob("*/step-*.*"):
            number = path.stem.removeprefix("step-")
            if number.isdigit() and int(number) > step:
                path.unlink(missing_ok=True)


def _log(trainer: pl.Trainer, key: str, step: int, path: Path) -> None:
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            with Image.open(path, formats=["PNG"]) as image:
                pixels = np.asarray(image.convert("RGB"))
            logger.experiment.add_image(key, pixels, _last(step), dataformats="HWC")
        elif isinstance(logger, WandbLogger):
            logger.log_image(key, [str(path)], step=step)


def _last(step: int) -> int:
    """Where TensorBoard has the numbers of this step."""
    return max(step - 1, 0)


def markdown(rows: list[list[Any]]) -> str:
    """A table in Markdown."""
    header, *body = ([_cell(value) for value in row] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *body))


def _cell(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return " ".join(text.split()).replace("|", "\\|")  # a line break or a bar would end the cell
