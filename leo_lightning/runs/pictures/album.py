"""Album: writes pictures to the run folder and to every logger."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger

from leo_lightning.common.figure_style import SCREEN_DPI, save_figure
from leo_lightning.common.files import whole_file
from leo_lightning.common.spreadsheet import csv_cell
from leo_lightning.runs.folder import PICTURES
from leo_lightning.runs.pictures.view import Picture


class Album:
    """Files `pictures/<name>/step-<step>.png` of a run, with .csv files beside them.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / PICTURES

    def add(self, trainer: pl.Trainer, name: str, picture: Picture, step: int) -> None:
        """Write a picture and its numbers, replacing any of the same step, and log it."""
        path = self.folder / name / f"step-{step:08}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            whole_file(path.with_suffix(".csv")) as part,
            part.open("w", newline="", encoding="utf-8") as file,
        ):
            csv.writer(file).writerows(map(csv_cell, row) for row in picture.rows)
        if picture.figure is not None:
            save_figure(picture.figure, path, SCREEN_DPI)
        key = f"{PICTURES}/{name}"
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                last = max(step - 1, 0)  # where the numbers of this step are
                if picture.figure is None:
                    logger.experiment.add_text(key, markdown(picture.rows), last)
                else:
                    with Image.open(path, formats=["PNG"]) as image:
                        pixels = np.asarray(image.convert("RGB"))
                    logger.experiment.add_image(key, pixels, last, dataformats="HWC")
            elif isinstance(logger, WandbLogger):
                if picture.figure is None:
                    logger.log_table(key, columns=picture.rows[0], data=picture.rows[1:], step=step)
                else:
                    logger.log_image(key, [str(path)], step=step)

    def forget_after(self, step: int) -> None:
        """Delete pictures of later steps: a run resumed at `step` draws them again."""
        for path in self.folder.glob("*/step-*.*"):
            number = path.stem.removeprefix("step-")
            if number.isdigit() and int(number) > step:
                path.unlink(missing_ok=True)


def markdown(rows: list[list[Any]]) -> str:
    """A table in Markdown."""
    header, *body = ([_cell(value) for value in row] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *body))


def _cell(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return " ".join(text.split()).replace("|", "\\|")  # a line break or a bar would end the cell
