"""Curvature in z and θ, the decoder's expansion, and sizes of inner steps (Figure 4 of the paper)."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leo_lightning.common.errors import InputError
from leo_lightning.common.figure_style import COLOURS, DASHES, MARKERS, WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from leo_lightning.commands.figures.subject import Subject

LABEL = "LEO"
HOLLOW = DASHES[2]
POINTS = 40
"""With more of them they would touch: a line and a band, then, in place of points and whiskers."""
HEADER = ["panel", "method", "of", "index", "median", "p5", "p95", "mean"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this figure's options."""
    add = parser.add_argument
    add("--tasks", type=int, default=1000, metavar="N", help="test tasks (default: 1000)")
    add(
        "--other",
        type=_other,
        action="append",
        default=[],
        metavar="LABEL=FILE",
        help="another checkpoint to compare with, of LEO or of a method like MAML or Meta-SGD; again: more",
    )


def _other(text: str) -> tuple[str, Path]:
    label, equals, path = text.partition("=")
    if not (label and equals and path):
        raise argparse.ArgumentTypeError(f"expected LABEL=FILE, got {text!r:.80}")
    return label, Path(path)


def draw(
    subject: "Subject", tasks: int = 1000, other: Sequence[tuple[str, Path]] = ()
) -> tuple["Figure", list[list[Any]]]:
    """Three panels; points are the median of the tasks, whiskers their 5th and 95th percentile.

    (a) Absolute eigenvalues of the Hessian of the support loss where adaptation begins, in z and in θ, all
    that are not 0 for every θ. (b) Singular values of the decoder's matrix from z to the mean of θ. (c)
    Length of the way that each inner step moves θ. Other methods are measured on the same tasks; what is no
    LEO has the last panel alone, where θ is the weights of its linear head. See `geometry`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 3.2))
    axes = dict(zip("abc", figure.subplots(1, 3), strict=True))
    rows: list[list[Any]] = [HEADER]
    looks = {}
    for number, (label, each) in enumerate(_subjects(subject, other).items()):
        print(f"{'measured':11} {label}", flush=True)
        looks[label] = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        mine = [
            [panel, label, of, i, *numbers]
            for panel, of, first, values in _measured(each, tasks)
            for i, numbers in enumerate(_summary(values), first)
        ]
        for panel, ax in axes.items():
            _lines(ax, [row for row in mine if row[0] == panel], looks[label], 0.1 * number)
        rows += mine
    _labels(axes)
    _legend(figure, looks)
    return figure, rows


def _lines(ax: "Axes", rows: list[list[Any]], look: dict[str, Any], shift: float) -> None:
    """A method in a panel: singular values as a line, all others as points; hollow or dotted what is of θ."""
    for of in dict.fromkeys(row[2] for row in rows):
        x, median, low, high = (
            [row[i] + (shift if i == 3 else 0.0) for row in rows if row[2] == of] for i in range(3, 7)
        )
        if of == "decoder":
            ax.plot(x, median, color=look["color"])
            continue
        if len(x) > POINTS:
            ax.plot(x, median, color=look["color"], linestyle=HOLLOW if of == "θ" else "-")
            ax.fill_between(x, low, high, color=look["color"], alpha=0.12, linewidth=0)
            continue
        hollow = {"markerfacecolor": "white", "linestyle": HOLLOW} if of == "θ" else {}
        ends = [[abs(m - e) for m, e in zip(median, end, strict=True)] for end in (low, high)]
        ax.errorbar(x, median, ends, elinewidth=0.6, markersize=3, linewidth=0.8, **look | hollow)


def _labels(axes: "dict[str, Axes]") -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    labels = {
        "a": ("eigenvalues, by size", "|eigenvalue| of the Hessian"),
        "b": ("dimensions, by size", "singular value of the decoder"),
        "c": ("inner step", "length of the step in θ"),
    }
    for panel, (x, y) in labels.items():
        axes[panel].set(xlabel=x, ylabel=y, yscale="log")
        axes[panel].set_title(f"({panel})", loc="left")
        axes[panel].xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes["b"].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes["b"].yaxis.set_minor_locator(NullLocator())
    axes["b"].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _legend(figure: "Figure", looks: dict[str, dict[str, Any]]) -> None:
    from matplotlib.lines import Line2D

    spaces = {
        "curvature in z, steps in z": {"marker": "o"},
        "curvature in θ, steps in θ": {"marker": "o", "markerfacecolor": "white", "linestyle": HOLLOW},
    }
    handles = [
        *(Line2D([], [], label=label, **look) for label, look in looks.items()),
        *(Line2D([], [], color="#666666", label=label, **look) for label, look in spaces.items()),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)


def _subjects(subject: "Subject", others: Sequence[tuple[str, Path]]) -> dict[str, "Subject"]:
    """What is measured, by label."""
    from leo_lightning.commands.figures.subject import Subject
    from leo_lightning.learners.leo import LEO
    from leo_lightning.learners.parts.adapted_mlp import AdaptedMLP

    subject.leo()
    found = {LABEL: subject}
    for label, path in others:
        if label in found:
            raise InputError(f"--other: two methods are called {label!r:.60}; give one another label")
        other = Subject.load(path, like=subject)
        if not isinstance(other.learner, LEO | AdaptedMLP):
            name = type(other.learner).__name__
            raise InputError(f"{path}: holds a {name}, which has no inner steps; leave --other {label} out")
        found[label] = other
    return found


def _measured(subject: "Subject", tasks: int) -> list[tuple[str, str, int, Any]]:
    """Panel, what its numbers are of, that of the first, and they themselves: a row for each task."""
    import torch

    from leo_lightning.commands.figures.geometry import curvature, theta_steps
    from leo_lightning.learners.leo import LEO
    from leo_lightning.learners.parts.adapted_mlp import AdaptedMLP

    learner = subject.learner
    assert isinstance(learner, LEO | AdaptedMLP)
    spectra, steps = [], []
    with torch.inference_mode():
        for episode in subject.episodes("test", range(tasks)):
            steps.append(theta_steps(learner, episode.support))
            if isinstance(learner, LEO):
                spectra.append(curvature(learner, episode.support))
        found = []
        if isinstance(learner, LEO):
            in_z, in_theta = (torch.cat(each) for each in zip(*spectra, strict=True))
            values = torch.linalg.svdvals(learner.decoder.mean_weight)
            found = [("a", "z", 1, in_z), ("a", "θ", 1, in_theta), ("b", "decoder", 1, values[None])]
    moved = torch.cat(steps)
    T = learner.latent_steps if isinstance(learner, LEO) else 0
    return [*found, ("c", "z", 1, moved[:, :T]), ("c", "θ", T + 1, moved[:, T:])]


def _summary(values: Any) -> list[list[float]]:
    """Median, percentiles and mean of each column."""
    import numpy as np

    levels = np.quantile(values.numpy(), [0.5, 0.05, 0.95], axis=0)
    return np.concatenate([levels, values.mean(0, keepdim=True).numpy()]).T.tolist()
