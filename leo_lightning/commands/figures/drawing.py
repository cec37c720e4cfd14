"""Drawing: a figure of a learner in memory, as a notebook shows it."""

import io
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from matplotlib.figure import Figure

from leo_lightning.commands.figures.subject import Subject
from leo_lightning.common.figure_style import SCREEN_DPI, figure_style
from leo_lightning.data.task_data import TaskDataModule
from leo_lightning.learners.learner import Learner


@dataclass(frozen=True)
class Drawing:
    """A figure, and the numbers behind it."""

    figure: Figure
    rows: list[list[Any]] = field(repr=False)  # the first row holds the column names

    @classmethod
    def of(cls, module: ModuleType, learner: Learner, data: TaskDataModule, **options: Any) -> "Drawing":
        """Draw a figure of this package.

        Args:
            module: the figure, such as `leo_lightning.commands.figures.latents`.
            learner: a trained learner, which is not changed.
            data: the data it was trained on.
            options: options of the module's `draw`.

        Raises:
            InputError: the figure does not apply to this learner.
        """
        with figure_style(), torch.inference_mode(), redirect_stdout(None):  # progress is for terminals
            return cls(*module.draw(Subject.of(learner, data), **options))

    def _repr_png_(self) -> bytes:
        """The image that IPython asks for."""
        content = io.BytesIO()
        with figure_style():
            self.figure.savefig(content, format="png", dpi=SCREEN_DPI, metadata={"Software": None})
        return content.getvalue()
