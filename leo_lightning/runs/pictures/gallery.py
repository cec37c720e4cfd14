"""All pictures of a training."""

from collections.abc import Callable

from leo_lightning.runs.pictures import (
    codes,
    confusion,
    hardest_tasks,
    inner_steps,
    learning_rates,
    task_scores,
)
from leo_lightning.runs.pictures.view import Picture, View

PICTURES: dict[str, Callable[[View], Picture | None]] = {
    "codes": codes.draw,
    "inner_steps": inner_steps.draw,
    "task_accuracies": task_scores.accuracies,
    "task_errors": task_scores.errors,
    "confusion": confusion.draw,
    "learning_rates": learning_rates.draw,
    "hardest_tasks": hardest_tasks.draw,
}
"""Pictures by the name of their folder. They return None for a learner that they do not apply to."""
