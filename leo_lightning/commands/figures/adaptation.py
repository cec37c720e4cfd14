"""Accuracy and loss after each latent and each fine-tuning step, over test tasks."""

from typing import Any

from matplotlib.figure import Figure

from leo_lightning.commands.figures.subject import Subject
from leo_lightning.runs.pictures.inner_steps import draw_steps

PANELS = {
    "accuracy, %": {"accuracy": "queries"},
    "cross-entropy per image": {"query_loss": "queries", "support_loss": "support"},
}


def draw(subject: Subject, tasks: int = 1000) -> tuple[Figure | None, list[list[Any]]]:
    """Two panels, accuracy and loss: mean over tasks, its 95% interval, and the middle half of the tasks.

    Step 0 is the classifier decoded from z. Losses are means over the images; the inner loop has their sum.
    With `test_samples`, steps are those of the mean code and the mean weights.
    """
    leo, _ = subject.leo()
    rows, figure = draw_steps(leo, subject.episodes("test", range(tasks)), PANELS)
    return figure, rows
