"""Latent codes of validation tasks before and after adaptation, in their two main directions."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from leo_lightning.common.figure_style import NAMED, WIDTH, class_colours
from leo_lightning.data.episode import Episode
from leo_lightning.learners.learner import Learner
from leo_lightning.runs.pictures import inner_loop
from leo_lightning.runs.pictures.view import Picture, View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEADER = ["task", "class", "z_x", "z_y", "adapted_x", "adapted_y"]


class TaskCodes(NamedTuple):
    """A code for each class of each task."""

    before: Float[Tensor, "codes H"]
    after: Float[Tensor, "codes H"]
    task: Int64[Tensor, " codes"]
    number: Int64[Tensor, " codes"]
    """Of the class."""


def collect(learner: Learner, episodes: Iterable[Episode]) -> TaskCodes | None:
    """The codes of all tasks, on the CPU; None of a learner that adapts none."""
    parts = []
    for episode in episodes:
        found, rows = inner_loop.codes(learner, episode.support), episode.rows
        if found is None:
            return None
        assert rows is not None
        assert rows.classes is not None
        tasks = rows.task.repeat_interleave(rows.classes.shape[1])
        before, after = (codes.flatten(0, 1).cpu() for codes in found)
        parts.append((before, after, tasks, rows.classes.flatten()))
    return TaskCodes(*(torch.cat(each) for each in zip(*parts, strict=True)))


def draw(view: View) -> Picture | None:
    """Two panels of the same axes, z and z'; a point is the code of a class in a task."""
    codes = collect(view.learner, view.episodes())
    if codes is None:
        return None
    points, shares = principal(torch.cat([codes.before, codes.after]).double())
    z, adapted = points.chunk(2)
    names = view.data.class_names("val")
    columns = torch.cat([z, adapted], dim=1).tolist()
    rows = zip(codes.task.tolist(), codes.number.tolist(), columns, strict=True)
    return Picture(
        [HEADER, *([task, names[number], *xy] for task, number, xy in rows)],
        _figure(z, adapted, codes.number, names, shares),
    )


def principal(points: Float[Tensor, "points H"]) -> tuple[Float[Tensor, "points 2"], list[float]]:
    """Points along the two directions in which they vary most, and the shares of the variance there.

    A direction and its opposite are one: the larger part of each points to the right, or up.
    """
    centred = points - points.mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred)
    values, vectors = values.flip(0)[:2].clamp_min(0), vectors.flip(1)[:, :2]
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    total = centred.square().sum().clamp_min(torch.finfo(points.dtype).tiny)
    found = centred @ (vectors * largest.sign())
    if found.shape[1] == 1:  # one latent dimension
        found, values = torch.nn.functional.pad(found, (0, 1)), torch.nn.functional.pad(values, (0, 1))
    return found, (values / total).tolist()


def _figure(
    z: Tensor, adapted: Tensor, number: Int64[Tensor, " codes"], names: Sequence[str], shares: Sequence[float]
) -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    palette = class_colours(len(names))
    shades = [palette[each] for each in number.tolist()]
    figure = Figure(figsize=(WIDTH, 3.3))
    axes: Any = figure.subplots(1, 2, sharex=True, sharey=True)
    for ax, points, title in zip(axes, (z, adapted), ("z, before adaptation", "z′, after it"), strict=True):
        ax.scatter(*points.T.tolist(), s=7, c=shades, linewidths=0, alpha=0.8)
        ax.set_title(title)
        ax.set_xlabel(f"first direction, {shares[0]:.0%} of the variance")
    axes[0].set_ylabel(f"second, {shares[1]:.0%}")
    if len(names) <= NAMED:
        handles = [
            Line2D([], [], color=colour, marker="o", linestyle="", label=shortened(name))
            for colour, name in zip(palette, names, strict=True)
        ]
        legend = figure.legend(handles=handles, loc="outside right center", handletextpad=0.1, fontsize=7)
        for text in legend.get_texts():
            text.set_parse_math(False)
    else:
        figure.supxlabel(f"a colour for each of {len(names)} classes", fontsize=8)
    return figure


def shortened(name: str, most: int = 16) -> str:
    """A name that leaves room for others."""
    return name if len(name) <= most else f"{name[: most - 1]}…"
