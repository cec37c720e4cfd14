"""Which classes are taken for which, whatever tasks chance has put together."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from leo_lightning.common.figure_style import WIDTH
from leo_lightning.data.episode import Episode
from leo_lightning.learners.learner import Learner
from leo_lightning.runs.pictures.codes import shortened
from leo_lightning.runs.pictures.view import Picture, View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LISTED = 12
"""Pairs that are named."""
NUMBERS, NAMES = 20, 40
"""As many classes have a number in each cell, and their names at the sides."""
HEADER = ["class", "answered", "queries", "share"]


class Confusion(NamedTuple):
    """Counts over tasks."""

    asked: Float64[Tensor, "C C"]
    """Queries of class i, in tasks where class j was present, too."""
    answered: Float64[Tensor, "C C"]
    """Those of them that were answered j."""

    @property
    def share(self) -> Float64[Tensor, "C C"]:
        """Answered by asked; NaN for classes that never met."""
        return self.answered / self.asked


def draw(view: View) -> Picture | None:
    """A matrix and its largest entries off the diagonal; None of values."""
    if view.learner.predicts == "values":
        return None
    names = view.data.class_names("val")
    found = Confusion(*torch.zeros(2, len(names), len(names), dtype=torch.float64))
    for episode in view.episodes():
        add(found, episode, answers(view.learner, episode))
    share = found.share
    rows = [
        [names[i], names[j], int(found.asked[i, j]), share[i, j].item()]
        for i, j in found.asked.nonzero().tolist()
    ]
    return Picture([HEADER, *rows], _figure(share, most_confused(share), names))


def answers(learner: Learner, episode: Episode) -> Float64[Tensor, "B N N"]:
    """How many queries of each class (row) are taken for each class of their task (column), on the CPU."""
    # not the compiled method, which would be compiled anew for this number of tasks
    final = type(learner).stages(learner, episode.support)["final"]
    with torch.autocast(episode.support.device.type, enabled=False):
        chosen = final(episode.query).argmax(-1)
    return torch.nn.functional.one_hot(chosen, chosen.shape[1]).sum(2).double().cpu()


def add(found: Confusion, episode: Episode, answered: Float64[Tensor, "B N N"]) -> None:
    """Add tasks to the counts."""
    assert episode.rows is not None
    assert episode.rows.classes is not None
    classes, (N, Q) = episode.rows.classes, episode.query.shape[1:3]
    pair = (classes[:, :, None].expand(-1, -1, N), classes[:, None].expand(-1, N, -1))
    found.answered.index_put_(pair, answered, accumulate=True)
    found.asked.index_put_(pair, torch.full_like(answered, Q), accumulate=True)


def most_confused(share: Float[Tensor, "C C"]) -> list[tuple[int, int]]:
    """Pairs of a class and what it is taken for, worst first; none that are never confused."""
    wrong = share.nan_to_num(0.0).fill_diagonal_(0.0)
    order = wrong.flatten().argsort(descending=True, stable=True)[: min(LISTED, int((wrong > 0).sum()))]
    return [divmod(number, len(share)) for number in order.tolist()]


def _figure(share: Float[Tensor, "C C"], pairs: Sequence[tuple[int, int]], names: Sequence[str]) -> "Figure":
    import matplotlib
    from matplotlib.figure import Figure

    count, short = len(names), [shortened(name, 12) for name in names]
    off = 100 * share.clone().fill_diagonal_(torch.nan)
    top = max(off.nan_to_num(0.0).max().item(), 1.0)
    figure = Figure(figsize=(WIDTH, 4.6))
    ax, side = figure.subplots(1, 2, width_ratios=[2.6, 1])
    ground = matplotlib.colormaps["Blues"].with_extremes(bad="#eeeeee")
    image = ax.imshow(off.numpy(), cmap=ground, vmin=0, vmax=top)
    ax.grid(False)
    ax.set(xlabel="answered", ylabel="class of the query")
    if count <= NAMES:
        ax.set_xticks(range(count), short, rotation=90, fontsize=6, parse_math=False)
        ax.set_yticks(range(count), short, fontsize=6, parse_math=False)
    if count <= NUMBERS:
        for i, row in enumerate((100 * share).tolist()):
            for j, each in enumerate(row):
                if each >= 0.5:  # 0 says little, and text takes most of the time; not of NaN either
                    colour = "white" if i != j and each > 0.6 * top else "#777777" if i == j else "black"
                    ax.text(j, i, f"{each:.0f}", fontsize=5, ha="center", va="center", color=colour)
    bar = figure.colorbar(image, ax=ax, location="top", shrink=0.6, aspect=40)
    bar.set_label(
        "share of the class's queries where both were present, %; grey: right, or never met", size=7
    )
    side.axis("off")
    lines = [f"{100 * share[i, j]:.0f}%  {shortened(names[i])} → {shortened(names[j])}" for i, j in pairs]
    side.text(0, 1, "most confused", fontsize=8, fontweight="bold", va="bottom")
    side.text(0, 0.98, "\n".join(lines) or "none", fontsize=7, va="top", linespacing=1.6, parse_math=False)
    return figure
