"""Curvature in z and θ, the decoder's expansion, and sizes of inner steps (Figure 4 of the paper)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from torch import Tensor

from leo_lightning.commands.figures import geometry
from leo_lightning.commands.figures.subject import Subject
from leo_lightning.common.errors import InputError
from leo_lightning.common.figure_style import COLOURS, DASHES, MARKERS, WIDTH
from leo_lightning.learners.leo import LEO
from leo_lightning.learners.parts.adapted_mlp import AdaptedMLP

LABEL = "LEO"
HOLLOW = DASHES[2]
POINTS = 40  # most points of a curve; a longer one is a line and a band, because its points would touch
HEADER = ["panel", "method", "of", "index", "median", "p5", "p95", "mean"]
PANELS = {
    "a": ("eigenvalues, by size", "|eigenvalue| of the Hessian"),
    "b": ("dimensions, by size", "singular value of the decoder"),
    "c": ("inner step", "length of the step in θ"),
}
"""Labels of the axes."""


class _Curve(NamedTuple):
    """One measure of one method."""

    panel: str
    of: str  # z, θ or the decoder
    index: list[int]
    levels: Any  # median, 5th and 95th percentile, and mean over tasks: (4, index)


def draw(
    subject: Subject, tasks: int = 1000, other: Sequence[tuple[str, Path]] = ()
) -> tuple[Figure, list[list[Any]]]:
    """Three panels; points are medians over tasks, whiskers the 5th and 95th percentile.

    (a) Absolute eigenvalues of the Hessian of the support loss where adaptation begins, in z and in θ,
    without eigenvalues that are 0 for every θ. (b) Singular values of the decoder's matrix from z to the mean
    of θ. (c) Distance that each inner step moves θ. Other methods are measured on the same tasks; a method
    other than LEO is in the last panel alone, where θ is the weights of its linear head. See `geometry`.
    """
    figure = Figure(figsize=(WIDTH, 3.2))
    axes = dict(zip(PANELS, figure.subplots(1, 3), strict=True))
    table: list[list[Any]] = [HEADER]
    handles = []
    for number, (label, compared) in enumerate(_subjects(subject, other).items()):
        print(f"{'measured':11} {label}", flush=True)
        look: dict[str, Any] = {
            "color": COLOURS[number % len(COLOURS)],
            "marker": MARKERS[number % len(MARKERS)],
        }
        handles.append(Line2D([], [], label=label, **look))
        for curve in _curves(compared, tasks):
            _plot(axes[curve.panel], curve, look, 0.1 * number)
            numbers = zip(curve.index, curve.levels.T.tolist(), strict=True)
            table += [[curve.panel, label, curve.of, index, *levels] for index, levels in numbers]
    for (panel, (x, y)), ax in zip(PANELS.items(), axes.values(), strict=True):
        ax.set(xlabel=x, ylabel=y, yscale="log")
        ax.set_title(f"({panel})", loc="left")
        ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes["b"].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes["b"].yaxis.set_minor_locator(NullLocator())
    axes["b"].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    grey: dict[str, Any] = {"color": "#666666", "marker": "o"}
    handles += [
        Line2D([], [], label="curvature in z, steps in z", **grey),
        Line2D([], [], label="curvature in θ, steps in θ", markerfacecolor="white", linestyle=HOLLOW, **grey),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure, table


def _subjects(subject: Subject, others: Sequence[tuple[str, Path]]) -> dict[str, Subject]:
    """The subjects to measure, by label."""
    subject.leo()
    subjects = {LABEL: subject}
    for label, path in others:
        if label in subjects:
            raise InputError(f"--other: two methods are called {label!r:.60}; give one another label")
        other = Subject.load(path, like=subject)
        if not isinstance(other.learner, LEO | AdaptedMLP):
            name = type(other.learner).__name__
            raise InputError(f"{path}: holds a {name}, which has no inner steps; leave --other {label} out")
        subjects[label] = other
    return subjects


def _curves(subject: Subject, tasks: int) -> list[_Curve]:
    """Measure a method on its test tasks."""
    learner = subject.learner
    assert isinstance(learner, LEO | AdaptedMLP)
    spectra, parts = [], []
    for episode in subject.episodes("test", range(tasks)):
        parts.append(geometry.theta_steps(learner, episode.support))
        if isinstance(learner, LEO):
            spectra.append(geometry.curvature(learner, episode.support))
    steps = torch.cat(parts)
    if not isinstance(learner, LEO):
        return [_curve("c", "θ", steps)]
    in_z, in_theta = (torch.cat(space) for space in zip(*spectra, strict=True))
    expansion = torch.linalg.svdvals(learner.decoder.weight[: learner.embedding_size])[None]
    T = learner.latent_steps
    return [
        _curve("a", "z", in_z),
        _curve("a", "θ", in_theta),
        _curve("b", "decoder", expansion),
        _curve("c", "z", steps[:, :T]),
        _curve("c", "θ", steps[:, T:], first=T + 1),
    ]


def _curve(panel: str, of: str, values: Tensor, first: int = 1) -> _Curve:
    """Summarise values of shape (tasks, index)."""
    numbers = values.numpy()
    levels = [*np.quantile(numbers, [0.5, 0.05, 0.95], axis=0), numbers.mean(0)]
    return _Curve(panel, of, list(range(first, first + numbers.shape[1])), np.stack(levels))


def _plot(ax: Axes, curve: _Curve, look: dict[str, Any], shift: float) -> None:
    """Draw singular values as a line and everything else as points; θ is hollow or dotted."""
    x, (median, low, high, _) = np.array(curve.index) + shift, curve.levels
    hollow = {"markerfacecolor": "white", "linestyle": HOLLOW} if curve.of == "θ" else {}
    if curve.of == "decoder":
        ax.plot(x, median, color=look["color"])
    elif len(x) > POINTS:
        ax.plot(x, median, color=look["color"], linestyle=hollow.get("linestyle", "-"))
        ax.fill_between(x, low, high, color=look["color"], alpha=0.12, linewidth=0)
    elif len(x):
        whiskers = abs(curve.levels[1:3] - median)
        ax.errorbar(x, median, whiskers, elinewidth=0.6, markersize=3, linewidth=0.8, **look | hollow)
