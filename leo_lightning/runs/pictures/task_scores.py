"""Spread of the scores of a validation's tasks: a histogram of their accuracies or errors."""

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from leo_lightning.common.figure_style import COLOURS, REFERENCE, WIDTH
from leo_lightning.runs.pictures.view import Picture, View

BARS = 30  # most bars of a histogram
HEADER: list[Any] = ["from", "to", "tasks"]


def accuracies(view: View) -> Picture | None:
    """Accuracies with mean and chance; None without a validation, or for learners that predict values."""
    if view.scores is None or view.learner.predicts == "values":
        return None
    values = 100 * view.scores.values.double().numpy()
    _, N, Q, _ = view.episode(range(1)).query.shape
    marks = {f"mean {values.mean():.2f}%": values.mean(), f"chance {100 / N:.0f}%": 100 / N}
    title = f"{len(values):,} validation tasks, {N}-way"
    return _histogram(
        values, 100 * accuracy_edges(N * Q), marks, title, xlabel="accuracy of a task, %", xlim=(0, 101)
    )


def errors(view: View) -> Picture | None:
    """Errors with mean and median; None without a validation, or for learners that predict classes."""
    if view.scores is None or view.learner.predicts == "classes":
        return None
    values = view.scores.values.double().numpy()
    tiny = 1e-6 * max(float(values.max()), 1e-30)
    low, high = max(float(values.min()), tiny), max(float(values.max()), 2 * tiny)
    edges = np.geomspace(low * 0.99, high * 1.01, BARS + 1)
    middle = float(np.median(values))
    marks = {f"mean {values.mean():.3g}": values.mean(), f"median {middle:.3g}": middle}
    title = f"{len(values):,} validation tasks"
    return _histogram(
        values.clip(low, high), edges, marks, title, xlabel="mean squared error of a task", xscale="log"
    )


def accuracy_edges(queries: int) -> NDArray[np.float64]:
    """Edges of bars that contain equally many possible accuracies each; the last may contain fewer.

    The accuracy of a task is a multiple of 1 / queries: bars of another width would alternate between, say,
    one and two possible accuracies.
    """
    width = math.ceil((queries + 1) / BARS)
    last = math.ceil((queries + 1) / width)
    return (width * np.arange(last + 1) - 0.5) / queries


def _histogram(
    values: NDArray[np.float64], edges: NDArray[np.float64], marks: dict[str, float], title: str, **axes: Any
) -> Picture:
    """A histogram with two vertical lines."""
    figure = Figure(figsize=(WIDTH, 2.7))
    ax = figure.subplots()
    counts, _ = np.histogram(values, edges)
    look = {"align": "edge", "color": COLOURS[4], "edgecolor": "white", "linewidth": 0.4}
    ax.bar(edges[:-1], counts, np.diff(edges), **look)
    styles = ((REFERENCE, "-"), (COLOURS[1], (0, (5, 1.5))))
    for (label, at), (colour, dash) in zip(marks.items(), styles, strict=True):
        ax.axvline(at, color=colour, linestyle=dash, linewidth=1.4, label=label)
    ax.set(ylabel="tasks", title=title, **axes)
    ax.legend(loc="upper left")
    rows = zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True)
    return Picture([HEADER, *map(list, rows)], figure)
