"""Drawing: a figure of a learner at hand, as a notebook shows it."""

import io
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

from leo_lightning.commands.figures.subject import Subject
from leo_lightning.common.figure_style import SCREEN_DPI, figure_style
from leo_lightning.data.task_data import TaskDataModule
from leo_lightning.learners.learner import Learner

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Drawing:
    """A figure, and the numbers behind it."""

    figure: "Figure"
    rows: list[list[Any]] = field(repr=False)
    """Names of columns first."""

    @classmethod
    def of(cls, module: ModuleType, learner: Learner, data: TaskDataModule, **options: Any) -> "Drawing":
        """Draw a figure of this package.

        Args:
            module: the figure, such as `leo_lightning.commands.figures.latents`.
            learner: trained.
            data: what it was trained on.
            options: those of the module's `draw`.

        Raises:
            InputError: the figure is not about such a learner.
        """
        with figure_style(), redirect_stdout(None):  # what takes long is said on a terminal only
            return cls(*module.draw(Subject.of(learner, data), **options))

    def _repr_png_(self) -> bytes:
        """What IPython asks for."""
        content = io.BytesIO()
        with figure_style():
            self.figure.savefig(content, format="png", dpi=SCREEN_DPI, metadata={"Software": None})
        return content.getvalue()
