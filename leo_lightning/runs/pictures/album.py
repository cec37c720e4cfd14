"""Album: where pictures go, the run folder and every logger."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger

from leo_lightning.common.files import whole_file
from leo_lightning.runs.folder import PICTURES
from leo_lightning.runs.pictures.view import Picture


class Album:
    """Files `pictures/<name>/step-<step>.png` of a run, and .csv beside them.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / PICTURES

    def add(self, trainer: pl.Trainer, name: str, picture: Picture, step: int) -> None:
        """Write a picture and its numbers, in place of those of the same step, and log it."""
        path = self.folder / name / f"step-{step:08}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            whole_file(path.with_suffix(".csv")) as part,
            part.open("w", newline="", encoding="utf-8") as file,
        ):
            csv.writer(file).writerows(picture.rows)
        if picture.figure is not None:
            from leo_lightning.common.figure_style import SCREEN_DPI, save_figure

            with whole_file(path) as part:
                save_figure(picture.figure, part, "png", SCREEN_DPI)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                _to_tensorboard(logger.experiment, f"{PICTURES}/{name}", picture, path, step)
            elif isinstance(logger, WandbLogger):
                _to_wandb(logger, f"{PICTURES}/{name}", picture, path, step)

    def forget_after(self, step: int) -> None:
        """Drop pictures of later steps: a run that goes on from `step` takes them again."""
        for path in self.folder.glob("*/step-*.*"):
            number = path.stem.removeprefix("step-")
            if number.isdigit() and int(number) > step:
                path.unlink(missing_ok=True)


def _to_tensorboard(writer: Any, tag: str, picture: Picture, path: Path, step: int) -> None:
    if picture.figure is None:
        writer.add_text(tag, markdown(picture.rows), step)
        return
    from PIL import Image

    with Image.open(path) as image:
        writer.add_image(tag, np.asarray(image.convert("RGB")), step, dataformats="HWC")


def _to_wandb(logger: WandbLogger, key: str, picture: Picture, path: Path, step: int) -> None:
    if picture.figure is None:
        logger.log_table(key, columns=picture.rows[0], data=picture.rows[1:], step=step)
    else:
        logger.log_image(key, [str(path)], step=step)


def markdown(rows: list[list[Any]]) -> str:
    """A table; a bar within a cell would end it."""
    header, *body = ([_cell(each) for each in row] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *body))


def _cell(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return " ".join(text.split()).replace("|", "\\|")
