"""How the tasks of a validation differ: a histogram of their accuracies, or of their errors."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from leo_lightning.common.figure_style import COLOURS, REFERENCE, WIDTH
from leo_lightning.runs.pictures.view import Picture, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BARS = 30
"""About as many, of accuracies."""
HEADER = ["from", "to", "tasks"]


def accuracies(view: View) -> Picture | None:
    """Of each task; mean and chance beside them. None without a validation, or of values."""
    if view.scores is None or view.learner.predicts == "values":
        return None
    from matplotlib.figure import Figure

    values = view.scores.values.double().numpy()
    _, N, Q, _ = view.episode(range(1)).query.shape
    figure = Figure(figsize=(WIDTH, 2.7))
    ax = figure.subplots()
    rows = _bars(ax, 100 * values, 100 * accuracy_edges(N * Q))
    _mark(ax, 100 * values.mean(), f"mean {100 * values.mean():.2f}%", REFERENCE, "-")
    _mark(ax, 100 / N, f"chance {100 / N:.0f}%", COLOURS[1], (0, (5, 1.5)))
    ax.set(xlabel="accuracy of a task, %", ylabel="tasks", xlim=(0, 101))
    ax.set_title(f"{len(values):,} validation tasks, {N}-way")
    ax.legend(loc="upper left")
    return Picture([HEADER, *rows], figure)


def errors(view: View) -> Picture | None:
    """Of each task, by logarithms; mean and median beside them. None without a validation, or of classes."""
    if view.scores is None or view.learner.predicts == "classes":
        return None
    from matplotlib.figure import Figure

    values = view.scores.values.double().numpy()
    tiny = 1e-6 * max(float(values.max()), 1e-30)
    low, high = max(float(values.min()), tiny), max(float(values.max()), 2 * tiny)
    figure = Figure(figsize=(WIDTH, 2.7))
    ax = figure.subplots()
    rows = _bars(ax, values.clip(low, high), np.geomspace(low * 0.99, high * 1.01, BARS + 1))
    _mark(ax, values.mean(), f"mean {values.mean():.3g}", REFERENCE, "-")
    _mark(ax, float(np.median(values)), f"median {np.median(values):.3g}", COLOURS[1], (0, (5, 1.5)))
    ax.set(xlabel="mean squared error of a task", ylabel="tasks", xscale="log")
    ax.set_title(f"{len(values):,} validation tasks")
    ax.legend(loc="upper left")
    return Picture([HEADER, *rows], figure)


def accuracy_edges(queries: int) -> Any:
    """Edges of bars that hold as many possible accuracies each, the highest maybe fewer.

    A task's accuracy is a multiple of 1 / queries: bars of another width would hold now one, now two.

    Args:
        queries: of a task.
    """
    width = math.ceil((queries + 1) / BARS)
    last = math.ceil((queries + 1) / width)
    return (width * np.arange(last + 1) - 0.5) / queries


def _bars(ax: "Axes", values: Any, edges: Any) -> list[list[Any]]:
    counts, _ = np.histogram(values, edges)
    ax.bar(
        edges[:-1], counts, np.diff(edges), align="edge", color=COLOURS[4], edgecolor="white", linewidth=0.4
    )
    return [
        [*ends, count]
        for *ends, count in zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True)
    ]


def _mark(ax: "Axes", at: float, label: str, colour: str, dash: Any) -> None:
    ax.axvline(at, color=colour, linestyle=dash, linewidth=1.4, label=label)
