"""Accuracy and loss after each latent and each fine-tuning step, over test tasks."""

import argparse
from typing import TYPE_CHECKING, Any

from leo_lightning.figure_style import COLOURS, WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from leo_lightning.figures.subject import Subject

MEASURES = {"accuracy": "queries", "query_loss": "queries", "support_loss": "support"}
HEADER = ["step", "kind", "measure", "mean", "ci95", "p25", "p75"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this figure's options."""
    parser.add_argument("--tasks", type=int, default=1000, metavar="N", help="test tasks (default: 1000)")


def draw(subject: "Subject", tasks: int = 1000) -> tuple["Figure", list[list[Any]]]:
    """Two panels, accuracy and loss: mean over tasks, its 95% interval, and the middle half of the tasks.

    Step 0 is what is decoded from z. Losses are means over the images; the inner loop has their sum. With
    `test_samples`, those of the mean code and weights.
    """
    from matplotlib.figure import Figure

    leo, _ = subject.leo()
    T, F = leo.latent_steps, leo.finetuning_steps
    found = _measured(subject, tasks)
    kinds = ["start", *["latent"] * T, *["fine-tuning"] * F]
    rows: list[list[Any]] = [HEADER]
    rows += [
        [step, kinds[step], measure, *numbers]
        for measure, values in found.items()
        for step, numbers in enumerate(_summary(values))
    ]
    figure = Figure(figsize=(WIDTH, 2.9))
    axes = figure.subplots(1, 2)
    shown = {measure: [row for row in rows if row[2] == measure] for measure in MEASURES}
    _curve(axes[0], shown["accuracy"], 100.0, COLOURS[0], "o", "queries")
    _curve(axes[1], shown["query_loss"], 1.0, COLOURS[0], "o", "queries")
    _curve(axes[1], shown["support_loss"], 1.0, COLOURS[1], "s", "support")
    axes[0].set_ylabel("accuracy, %")
    axes[1].set_ylabel("cross-entropy per image")
    axes[1].set_ylim(bottom=0)
    for ax in axes:
        _phases(ax, T, F)
    # the curves of the second panel, and by that of both
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure, rows


def _measured(subject: "Subject", tasks: int) -> dict[str, Any]:
    """Of each measure a number for each task (row) and step (column)."""
    import torch

    from leo_lightning.learners.learner import LinearClassifier
    from leo_lightning.learners.objectives import query_cross_entropy
    from leo_lightning.scoring import score

    leo, _ = subject.leo()
    found: dict[str, list[Any]] = {measure: [] for measure in MEASURES}
    with torch.inference_mode():
        for episode in subject.episodes("test", range(tasks)):
            steps = leo.every_step(episode.support)
            classifiers = [
                LinearClassifier(weight, steps.bias) for weight in [*steps.decoded, *steps.weights[1:]]
            ]
            scores = [score({"final": each}, episode) for each in classifiers]
            support = [query_cross_entropy(each(episode.support), None) for each in classifiers]
            found["accuracy"].append(torch.stack([each.accuracy[:, 0] for each in scores], dim=1))
            found["query_loss"].append(torch.stack([each.cross_entropy for each in scores], dim=1))
            found["support_loss"].append(torch.stack(support, dim=1))
    return {measure: torch.cat(values) for measure, values in found.items()}


def _summary(values: Any) -> list[list[float]]:
    """Of each step: mean over tasks, half width of its interval, and the quartiles."""
    import numpy as np

    from leo_lightning.metrics import half_width

    quartiles = np.quantile(values.numpy(), [0.25, 0.75], axis=0).T
    return [
        [column.mean().item(), half_width(column), *ends.tolist()]
        for column, ends in zip(values.T, quartiles, strict=True)
    ]


def _curve(ax: "Axes", rows: list[list[Any]], factor: float, colour: str, marker: str, label: str) -> None:
    steps = [row[0] for row in rows]
    mean, half, low, high = ([factor * row[i] for row in rows] for i in range(3, 7))
    ax.fill_between(
        steps, low, high, color=colour, alpha=0.15, linewidth=0, label=f"{label}: middle half of tasks"
    )
    ax.errorbar(
        steps, mean, half, color=colour, marker=marker, capsize=2, label=f"{label}: mean, 95% interval"
    )


def _phases(ax: "Axes", T: int, F: int) -> None:
    """Steps on the axis, and where latent ones end."""
    ax.set_xticks(range(T + F + 1))
    parts = [f"{T} latent" if T else "", f"{F} fine-tuning" if F else ""]
    ax.set_xlabel(f"inner step ({', then '.join(filter(None, parts)) or 'none'})")
    if T and F:
        ax.axvline(T + 0.5, color="#888888", linewidth=0.8, linestyle=(0, (4, 3)))
    ax.set_xlim(-0.3, T + F + 0.3)
