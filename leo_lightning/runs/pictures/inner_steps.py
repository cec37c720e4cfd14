"""What each inner step is worth: accuracy and loss on queries and support, over tasks."""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch

from leo_lightning.common.figure_style import COLOURS, WIDTH
from leo_lightning.runs.pictures.inner_loop import every_step, measured
from leo_lightning.runs.pictures.view import Picture, View
from leo_lightning.training.task_scores import half_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEADER = ["step", "kind", "measure", "mean", "ci95", "p25", "p75"]
PANELS = {
    "classes": {
        "accuracy, %": (100.0, {"accuracy": "queries", "support_accuracy": "support"}),
        "cross-entropy per image": (1.0, {"query_loss": "queries", "support_loss": "support"}),
    },
    "values": {"mean squared error": (1.0, {"query_error": "queries", "support_error": "support"})},
}
"""By what a learner predicts: labels, and what is drawn there by which factor."""
LOOKS = {"queries": (COLOURS[0], "o"), "support": (COLOURS[1], "s")}


def draw(view: View) -> Picture | None:
    """Mean over tasks, its 95% interval, and the middle half of the tasks; None where there are no steps."""
    from matplotlib.figure import Figure

    found: list[dict[str, torch.Tensor]] = []
    kinds: list[str] = []
    for episode in view.episodes():
        steps = every_step(view.learner, episode.support)
        kinds = [step.kind for step in steps]
        if len(kinds) < 2:
            return None
        with torch.autocast(view.device.type, enabled=False):
            found.append(measured(steps, episode, view.learner.predicts == "values"))
    panels = PANELS[view.learner.predicts]
    rows = {name: summary(kinds, name, torch.cat([each[name] for each in found])) for name in found[0]}
    figure = Figure(figsize=(WIDTH, 2.9))
    for ax, (label, (factor, measures)) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        for name, what in measures.items():
            curve(ax, rows[name], what, factor)
        phases(ax, kinds)
        ax.set_ylabel(label)
        if not label.startswith("accuracy"):
            ax.set_ylim(bottom=0)
    figure.legend(*figure.axes[-1].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return Picture([HEADER, *(row for each in rows.values() for row in each)], figure)


def summary(kinds: Sequence[str], name: str, values: torch.Tensor) -> list[list[Any]]:
    """Of each step: mean over tasks, half width of its interval, and the quartiles.

    Args:
        kinds: of the steps.
        name: of what is measured.
        values: of each task (row) and step (column).
    """
    values = values.double().cpu()
    quartiles = values.quantile(values.new_tensor([0.25, 0.75]), dim=0).T.tolist()
    return [
        [step, kind, name, column.mean().item(), half_width(column), *ends]
        for step, (kind, column, ends) in enumerate(zip(kinds, values.T, quartiles, strict=True))
    ]


def curve(ax: "Axes", rows: Sequence[Sequence[Any]], what: str, factor: float) -> None:
    """Draw one measure.

    Args:
        ax: where.
        rows: its `summary`.
        what: queries or support.
        factor: from the numbers to what is shown.
    """
    colour, marker = LOOKS[what]
    steps = [row[0] for row in rows]
    mean, half, low, high = ([factor * row[i] for row in rows] for i in range(3, 7))
    ax.fill_between(
        steps, low, high, color=colour, alpha=0.15, linewidth=0, label=f"{what}: middle half of tasks"
    )
    ax.errorbar(
        steps, mean, half, color=colour, marker=marker, capsize=2, label=f"{what}: mean, 95% interval"
    )


def phases(ax: "Axes", kinds: Sequence[str]) -> None:
    """Steps on the axis, and where those of one kind end; stages by their names."""
    last = len(kinds) - 1
    parts = [(kind, len(list(each))) for kind, each in groupby(kinds[1:])]
    if kinds[0] != "start":
        ax.set_xticks(range(last + 1), [kind.replace(" ", "\n", 1) for kind in kinds])
        ax.set_xlabel("stage of adaptation")
    else:
        ax.set_xticks(range(last + 1))
        ax.set_xlabel(f"inner step ({', then '.join(f'{count} {kind}' for kind, count in parts) or 'none'})")
        end = 0.5
        for _, count in parts[:-1]:
            end += count
            ax.axvline(end, color="#888888", linewidth=0.8, linestyle=(0, (4, 3)))
    ax.set_xlim(-0.3, last + 0.3)
