"""Accuracy and loss after each latent and each fine-tuning step, over test tasks."""

import argparse
from typing import TYPE_CHECKING, Any

from leo_lightning.common.figure_style import WIDTH

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from leo_lightning.commands.figures.subject import Subject

MEASURES = ("accuracy", "query_loss", "support_loss")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this figure's options."""
    parser.add_argument("--tasks", type=int, default=1000, metavar="N", help="test tasks (default: 1000)")


def draw(subject: "Subject", tasks: int = 1000) -> tuple["Figure", list[list[Any]]]:
    """Two panels, accuracy and loss: mean over tasks, its 95% interval, and the middle half of the tasks.

    Step 0 is what is decoded from z. Losses are means over the images; the inner loop has their sum. With
    `test_samples`, those of the mean code and weights.
    """
    import torch
    from matplotlib.figure import Figure

    from leo_lightning.runs.pictures.inner_loop import every_step, measured
    from leo_lightning.runs.pictures.inner_steps import HEADER, curve, phases, summary

    leo, _ = subject.leo()
    kinds: list[str] = []
    found: dict[str, list[Any]] = {measure: [] for measure in MEASURES}
    with torch.inference_mode():
        for episode in subject.episodes("test", range(tasks)):
            steps = every_step(leo, episode.support)
            kinds = [step.kind for step in steps]
            values = measured(steps, episode, values=False)
            for measure in MEASURES:
                found[measure].append(values[measure])
    rows = {measure: summary(kinds, measure, torch.cat(values)) for measure, values in found.items()}
    figure = Figure(figsize=(WIDTH, 2.9))
    axes = figure.subplots(1, 2)
    curve(axes[0], rows["accuracy"], "queries", 100.0)
    curve(axes[1], rows["query_loss"], "queries", 1.0)
    curve(axes[1], rows["support_loss"], "support", 1.0)
    axes[0].set_ylabel("accuracy, %")
    axes[1].set_ylabel("cross-entropy per image")
    axes[1].set_ylim(bottom=0)
    for ax in axes:
        phases(ax, kinds)
    # the curves of the second panel, and by that of both
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure, [HEADER, *(row for each in rows.values() for row in each)]
