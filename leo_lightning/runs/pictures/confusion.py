"""Confusion of classes over validation tasks, whichever classes chance has put together in a task."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import torch
from jaxtyping import Float, Float64
from matplotlib.figure import Figure
from torch import Tensor

from leo_lightning.common.figure_style import WIDTH
from leo_lightning.data.episode import Episode
from leo_lightning.learners.learner import Learner
from leo_lightning.runs.pictures.codes import shortened
from leo_lightning.runs.pictures.view import Picture, View

LISTED = 12  # pairs listed beside the matrix
NUMBERS, NAMES = 20, 40  # most classes that have a number in each cell, and their names on the axes
HEADER: list[Any] = ["class", "answered", "queries", "share"]


def draw(view: View) -> Picture | None:
    """A matrix and its largest entries off the diagonal; None for learners that predict values."""
    if view.learner.predicts == "values":
        return None
    names = view.data.class_names("val")
    # queries of class i in tasks that contain class j, too, and the ones classified as j
    asked, answered = torch.zeros(2, len(names), len(names), dtype=torch.float64)
    for episode in view.episodes():
        assert episode.rows is not None
        assert episode.rows.classes is not None
        classes, (N, Q) = episode.rows.classes, episode.query.shape[1:3]
        pair = (classes[:, :, None].expand(-1, -1, N), classes[:, None].expand(-1, N, -1))
        counts = answers(view.learner, episode)
        answered.index_put_(pair, counts, accumulate=True)
        asked.index_put_(pair, torch.full_like(counts, Q), accumulate=True)
    share = answered / asked  # NaN for classes that never met
    rows = [[names[i], names[j], int(asked[i, j]), share[i, j].item()] for i, j in asked.nonzero().tolist()]
    return Picture([HEADER, *rows], _figure(share, names))


def answers(learner: Learner, episode: Episode) -> Float64[Tensor, "B N N"]:
    """Number of queries of each class (row) that are classified as each class (column), on the CPU."""
    # the uncompiled method: the compiled one would be compiled again for this number of tasks
    final = type(learner).stages(learner, episode.support)["final"]
    with torch.autocast(episode.support.device.type, enabled=False):
        chosen = final(episode.query).argmax(-1)
    return torch.nn.functional.one_hot(chosen, chosen.shape[1]).sum(2).double().cpu()


def _figure(share: Float[Tensor, "C C"], names: Sequence[str]) -> Figure:
    classes, short = len(names), [shortened(name, 12) for name in names]
    off = 100 * share.clone().fill_diagonal_(torch.nan)
    top = max(off.nan_to_num(0.0).max().item(), 1.0)
    figure = Figure(figsize=(WIDTH, 4.6))
    ax, side = figure.subplots(1, 2, width_ratios=[2.6, 1])
    colours = matplotlib.colormaps["Blues"].with_extremes(bad="#eeeeee")
    image = ax.imshow(off.numpy(), cmap=colours, vmin=0, vmax=top)
    ax.grid(False)
    ax.set(xlabel="answered", ylabel="class of the query")
    if classes <= NAMES:
        ax.set_xticks(range(classes), short, rotation=90, fontsize=6, parse_math=False)
        ax.set_yticks(range(classes), short, fontsize=6, parse_math=False)
    if classes <= NUMBERS:
        for i, j in share.ge(0.005).nonzero().tolist():  # 0 says little, and text takes most of the time
            percent = 100 * share[i, j].item()
            colour = "#777777" if i == j else "white" if percent > 0.6 * top else "black"
            ax.text(j, i, f"{percent:.0f}", fontsize=5, ha="center", va="center", color=colour)
    bar = figure.colorbar(image, ax=ax, location="top", shrink=0.6, aspect=40)
    bar.set_label(
        "share of the class's queries where both were present, %; grey: right, or never met", size=7
    )
    side.axis("off")
    lines = [
        f"{100 * share[i, j]:.0f}%  {shortened(names[i])} → {shortened(names[j])}"
        for i, j in most_confused(share)
    ]
    side.text(0, 1, "most confused", fontsize=8, fontweight="bold", va="bottom")
    side.text(0, 0.98, "\n".join(lines) or "none", fontsize=7, va="top", linespacing=1.6, parse_math=False)
    return figure


def most_confused(share: Float[Tensor, "C C"]) -> list[tuple[int, int]]:
    """Pairs of a class and the class it is mistaken for, worst first, without pairs never confused."""
    wrong = share.nan_to_num(0.0).fill_diagonal_(0.0)
    order = wrong.flatten().argsort(descending=True, stable=True)[: min(LISTED, int((wrong > 0).sum()))]
    return [divmod(number, len(share)) for number in order.tolist()]
