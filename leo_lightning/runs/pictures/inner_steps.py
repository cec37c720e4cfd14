"""Accuracy and loss after each inner step, on queries and support, over tasks."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from leo_lightning.common.figure_style import COLOURS, WIDTH
from leo_lightning.common.intervals import half_width
from leo_lightning.data.episode import Episode
from leo_lightning.learners.learner import Learner
from leo_lightning.runs.pictures.inner_loop import every_step, measured
from leo_lightning.runs.pictures.view import Picture, View

HEADER: list[Any] = ["step", "kind", "measure", "mean", "ci95", "p25", "p75"]
Panels = Mapping[str, Mapping[str, str]]
"""By y label of a panel: its measures, each with the images that it is measured on."""
PANELS: dict[str, Panels] = {
    "classes": {
        "accuracy, %": {"accuracy": "queries", "support_accuracy": "support"},
        "cross-entropy per image": {"query_loss": "queries", "support_loss": "support"},
    },
    "values": {"mean squared error": {"query_error": "queries", "support_error": "support"}},
}
"""Panels by what a learner predicts."""
LOOKS = {"queries": (COLOURS[0], "o"), "support": (COLOURS[1], "s")}


def draw(view: View) -> Picture | None:
    """Draw all measures; None for a learner without inner steps."""
    if len(every_step(view.learner, view.episode(range(1)).support)) < 2:
        return None
    return draw_steps(view.learner, view.episodes(), PANELS[view.learner.predicts])


def draw_steps(learner: Learner, episodes: Iterable[Episode], panels: Panels) -> Picture:
    """Draw mean over tasks, its 95% interval, and the middle half of the tasks."""
    kinds: list[str] = []
    parts: list[dict[str, Float64[Tensor, "B steps"]]] = []
    for episode in episodes:
        steps = every_step(learner, episode.support)
        kinds = [step.kind for step in steps]
        with torch.autocast(episode.support.device.type, enabled=False):
            parts.append(measured(steps, episode, learner.predicts == "values"))
    figure = Figure(figsize=(WIDTH, 2.9))
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    table: list[list[Any]] = [HEADER]
    for ax, (label, measures) in zip(axes, panels.items(), strict=True):
        for measure, images in measures.items():
            rows = _summary(kinds, measure, torch.cat([part[measure] for part in parts]))
            _curve(ax, rows, images, 100.0 if label.endswith("%") else 1.0)
            table += rows
        _phases(ax, kinds)
        ax.set_ylabel(label)
        if not label.endswith("%"):
            ax.set_ylim(bottom=0)
    figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return Picture(table, figure)


def _summary(kinds: Sequence[str], measure: str, values: Float64[Tensor, "tasks steps"]) -> list[list[Any]]:
    """A row for each step: mean over tasks, half-width of its interval, and the quartiles."""
    values = values.cpu()
    quartiles = values.quantile(values.new_tensor([0.25, 0.75]), dim=0).T.tolist()
    return [
        [step, kind, measure, column.mean().item(), half_width(column), *ends]
        for step, (kind, column, ends) in enumerate(zip(kinds, values.T, quartiles, strict=True))
    ]


def _curve(ax: Axes, rows: Sequence[Sequence[Any]], images: str, factor: float) -> None:
    colour, marker = LOOKS[images]
    steps = [row[0] for row in rows]
    mean, half, low, high = ([factor * row[i] for row in rows] for i in range(3, 7))
    band = f"{images}: middle half of tasks"
    ax.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0, label=band)
    line = f"{images}: mean, 95% interval"
    ax.errorbar(steps, mean, half, color=colour, marker=marker, capsize=2, label=line)


def _phases(ax: Axes, kinds: Sequence[str]) -> None:
    """Number the steps and separate their kinds by lines; name the stages of a learner without steps."""
    last = len(kinds) - 1
    phases = [(kind, len(list(steps))) for kind, steps in groupby(kinds[1:])]
    if kinds[0] != "start":
        ax.set_xticks(range(last + 1), [kind.replace(" ", "\n", 1) for kind in kinds])
        ax.set_xlabel("stage of adaptation")
    else:
        ax.set_xticks(range(last + 1))
        ax.set_xlabel(f"inner step ({', then '.join(f'{count} {kind}' for kind, count in phases) or 'none'})")
        end = 0.5
        for _, count in phases[:-1]:
            end += count
            ax.axvline(end, color="#888888", linewidth=0.8, linestyle=(0, (4, 3)))
    ax.set_xlim(-0.3, last + 0.3)
