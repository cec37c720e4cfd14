"""Latent codes of validation tasks before and after adaptation, along their two principal components."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from matplotlib.figure import Figure
from torch import Tensor

from leo_lightning.common.figure_style import NAMED, WIDTH, as_written, class_colours, dots
from leo_lightning.data.episode import Episode
from leo_lightning.learners.learner import Learner
from leo_lightning.runs.pictures import inner_loop
from leo_lightning.runs.pictures.principal_components import principal_components
from leo_lightning.runs.pictures.view import Picture, View

HEADER: list[Any] = ["task", "class", "z_x", "z_y", "adapted_x", "adapted_y"]


class TaskCodes(NamedTuple):
    """A code for each class of each task."""

    before: Float[Tensor, "codes H"]
    after: Float[Tensor, "codes H"]
    task: Int64[Tensor, " codes"]
    label: Int64[Tensor, " codes"]  # number of the class within its split

    def rows(
        self, names: Sequence[str], z: Float[Tensor, "codes 2"], adapted: Float[Tensor, "codes 2"]
    ) -> list[list[object]]:
        """A table of the codes at their places in a plane."""
        places = torch.cat([z, adapted], dim=1).tolist()
        numbers = zip(self.task.tolist(), self.label.tolist(), places, strict=True)
        return [HEADER, *([task, names[label], *xy] for task, label, xy in numbers)]


def collect(learner: Learner, episodes: Iterable[Episode]) -> TaskCodes | None:
    """Codes of all tasks, on the CPU; None if the learner adapts no codes."""
    parts = []
    for episode in episodes:
        codes, rows = inner_loop.codes(learner, episode.support), episode.rows
        if codes is None:
            return None
        assert rows is not None
        assert rows.classes is not None
        tasks = rows.task.repeat_interleave(rows.classes.shape[1])
        before, after = (z.flatten(0, 1).cpu() for z in codes)
        parts.append((before, after, tasks, rows.classes.flatten()))
    return TaskCodes(*(torch.cat(field) for field in zip(*parts, strict=True)))


def draw(view: View) -> Picture | None:
    """Two panels with the same axes, z and z'; a point is the code of a class in a task."""
    codes = collect(view.learner, view.episodes())
    if codes is None:
        return None
    points, shares = principal_components(torch.cat([codes.before, codes.after]).double())
    z, adapted = points.chunk(2)
    names = view.data.class_names("val")
    palette = class_colours(len(names))
    shades = [palette[label] for label in codes.label.tolist()]
    figure = Figure(figsize=(WIDTH, 3.3))
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for ax, points, title in zip(axes, (z, adapted), ("z, before adaptation", "z′, after it"), strict=True):
        ax.scatter(*points.T.tolist(), s=7, c=shades, linewidths=0, alpha=0.8)
        ax.set_title(title)
        ax.set_xlabel(f"first direction, {shares[0]:.0%} of the variance")
    axes[0].set_ylabel(f"second, {shares[1]:.0%}")
    if len(names) <= NAMED:
        handles = dots(map(shortened, names), palette)
        legend = figure.legend(handles=handles, loc="outside right center", handletextpad=0.1, fontsize=7)
        for text in legend.get_texts():
            text.set_parse_math(False)
    else:
        figure.supxlabel(f"a colour for each of {len(names)} classes", fontsize=8)
    return Picture(codes.rows(names, z, adapted), figure)


def shortened(name: str, length: int = 16) -> str:
    """A name of at most `length` characters, cut in its middle: names often differ at their ends."""
    return as_written(name if len(name) <= length else f"{name[: length - 5]}…{name[-4:]}")
