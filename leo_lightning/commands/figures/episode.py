"""One test task: its images, its latent codes, and the probabilities of each query."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from leo_lightning.common.errors import InputError, check_least
from leo_lightning.common.figure_style import WIDTH, class_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    from leo_lightning.commands.figures.subject import Subject

NAMED = 105
"""Queries whose names there is room for."""
LETTERS = 14
"""Of a name that there is room for."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this figure's options."""
    parser.add_argument(
        "--task", type=int, default=0, metavar="I", help="number of the test task (default: 0)"
    )


class _Task(NamedTuple):
    """What there is to draw; images in order of their classes, support first."""

    classes: list[str]
    shot: int
    images: list[str]
    places: "Tensor"
    """Of the images, two numbers each."""
    codes: "Tensor"
    """Before adaptation, then after it; two numbers each."""
    shares: list[list[float]]
    """Of the variance that the two numbers have, of images and codes."""
    chance: "Tensor"
    """Of each query, a probability for each class."""

    @property
    def support(self) -> int:
        """Number of images in the support."""
        return len(self.classes) * self.shot

    @property
    def true(self) -> list[int]:
        """Class of each query."""
        return [q * len(self.classes) // len(self.chance) for q in range(len(self.chance))]

    @property
    def answers(self) -> list[int]:
        """What each query is taken for."""
        return self.chance.argmax(1).tolist()


def draw(subject: "Subject", task: int = 0) -> tuple["Figure", list[list[Any]]]:
    """Three panels of a task: its embeddings, its codes, and the probabilities of its queries.

    Embeddings and codes are projected to their first two principal components. Where all images that are
    left would be queries, there are as many as in validation.
    """
    from matplotlib.figure import Figure

    found = _task(subject, task)
    figure = Figure(figsize=(WIDTH, 6.6))
    grid = figure.add_gridspec(2, 2)
    colours = class_colours(len(found.classes))
    _images(figure.add_subplot(grid[0, 0]), found, colours)
    _codes(figure.add_subplot(grid[1, 0]), found, colours)
    _probabilities(figure.add_subplot(grid[:, 1]), found, colours)
    return figure, _table(found)


def _task(subject: "Subject", number: int) -> _Task:
    import torch

    leo, data = subject.leo()
    if not 0 <= number < 2**63:
        check_least(0, {"--task": number})
        raise InputError(f"--task is {number}: it must be below 2^63")
    if data.test_query == "all":
        data.test_query = data.query
    with torch.inference_mode():
        episode = next(subject.episodes("test", range(number, number + 1)))
        adaptation = leo.every_step(episode.support)
        chance = leo.adapt(episode.support)(episode.query).softmax(-1)[0].flatten(0, 1)
        before, after = (z[0].mean(1) for z in (adaptation.latents[0], adaptation.latents[-1]))
        places = _projected(torch.cat([part[0].flatten(0, 1) for part in (episode.support, episode.query)]))
        codes = _projected(torch.cat([before, after]))
    rows, bank = episode.rows, data.bank("test")
    assert rows is not None
    assert rows.classes is not None
    numbers = [row for part in (rows.support, rows.query) for row in part.flatten().tolist()]
    return _Task(
        classes=[bank.class_names[each] for each in rows.classes[0].tolist()],
        shot=rows.support.shape[2],
        images=[bank.image_names[row] if bank.image_names else str(row) for row in numbers],
        places=places[0],
        codes=codes[0],
        shares=[places[1], codes[1]],
        chance=chance,
    )


def _projected(rows: "Tensor") -> tuple["Tensor", list[float]]:
    """First two principal components, the largest entry of each positive, and their shares of variance."""
    import torch

    centred = rows - rows.mean(0)
    left, values, _ = torch.linalg.svd(centred, full_matrices=False)
    scores = torch.nn.functional.pad(left * values, (0, 2))[:, :2]  # of one dimension, or none
    largest = scores.gather(0, scores.abs().argmax(0, keepdim=True))
    shares = (values.square() / values.square().sum().clamp_min(1e-30)).tolist()
    return scores * torch.where(largest < 0, -1.0, 1.0), [*shares, 0.0, 0.0][:2]


def _images(ax: "Axes", task: _Task, colours: Sequence[Any]) -> None:
    from matplotlib.lines import Line2D

    support, query = task.places[: task.support], task.places[task.support :]
    shades = [colours[n] for n in task.true]
    ax.scatter(*query.T.tolist(), s=14, c=shades, linewidths=0)
    wrong = query[[q for q, n in enumerate(task.true) if task.answers[q] != n]]
    ax.scatter(*wrong.T.tolist(), s=40, facecolors="none", edgecolors="black", linewidths=0.7)
    shades = [colour for colour in colours for _ in range(task.shot)]
    ax.scatter(*support.T.tolist(), s=110, c=shades, marker="*", edgecolors="black", linewidths=0.7, zorder=3)
    hits = len(task.chance) - len(wrong)
    ax.set_title(f"images: {hits} of {len(task.chance)} queries right")
    _components(ax, task.shares[0])
    looks = {
        "support": {"marker": "*", "markersize": 9},
        "query": {"marker": "o", "markersize": 4},
        "wrong answer": {"marker": "o", "markersize": 6.5, "markerfacecolor": "none"},
    }
    handles = [
        Line2D([], [], color="black", linestyle="", label=name, **look) for name, look in looks.items()
    ]
    ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=3, handletextpad=0.1)


def _codes(ax: "Axes", task: _Task, colours: Sequence[Any]) -> None:
    from matplotlib.lines import Line2D

    before, after = (part.tolist() for part in task.codes.chunk(2))
    for start, end, colour in zip(before, after, colours, strict=True):
        ax.plot(*zip(start, end, strict=True), color=colour)
        ax.plot(*start, marker="o", color=colour, markerfacecolor="white", markersize=5)
        ax.plot(*end, marker="o", color=colour, markersize=6)
    ax.set_title("codes: from z (hollow) to z′ (filled)")
    _components(ax, task.shares[1])
    handles = [
        Line2D([], [], color=colour, marker="o", linestyle="", label=_short(name))
        for name, colour in zip(task.classes, colours, strict=True)
    ]
    ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=3, handletextpad=0.1)


def _components(ax: "Axes", shares: Sequence[float]) -> None:
    for axis, (number, share) in zip((ax.xaxis, ax.yaxis), enumerate(shares, 1), strict=True):
        axis.set_label_text(f"component {number}, {100 * share:.0f}% of the variance")


def _probabilities(ax: "Axes", task: _Task, colours: Sequence[Any]) -> None:
    N, queries = len(task.classes), len(task.chance)
    image = ax.pcolormesh(task.chance.numpy(), cmap="Greys", vmin=0, vmax=1)
    for n, colour in enumerate(colours):
        ax.axhline(n * queries / N, color="black", linewidth=0.5)
        ax.plot(
            [0, 0],
            [n * queries / N, (n + 1) * queries / N],
            color=colour,
            linewidth=5,
            clip_on=False,
            solid_capstyle="butt",
        )
    names = [
        _short(name, task.classes[n]) for name, n in zip(task.images[task.support :], task.true, strict=True)
    ]
    places = range(queries) if queries <= NAMED else ()
    ax.set_yticks([q + 0.5 for q in places], [names[q] for q in places], fontsize=4.6)
    ax.set_xticks(
        [n + 0.5 for n in range(N)], [_short(name) for name in task.classes], rotation=30, ha="right"
    )
    ax.tick_params(length=0, pad=4)
    ax.grid(False)
    ax.invert_yaxis()
    ax.set(xlabel="class", ylabel="query, by its class", title="probability of each class")
    ax.figure.colorbar(image, ax=ax, fraction=0.04, pad=0.02)


def _short(name: str, known: str = "") -> str:
    """A name that fits, without its ending, and without the class that is said elsewhere."""
    stem = name.rpartition("/")[2].rpartition(".")[0] or name
    stem = (stem.removeprefix(known).lstrip("_-/ ") if known else stem) or stem
    return stem if len(stem) <= LETTERS else "…" + stem[1 - LETTERS :]


def _table(task: _Task) -> list[list[Any]]:
    names, empty = task.classes, [""] * len(task.classes)
    rows: list[list[Any]] = [
        ["part", "image", "class", "predicted", "x", "y", *(f"p({name})" for name in names)]
    ]
    places = task.places.tolist()
    for i in range(task.support):
        rows.append(["support", task.images[i], names[i // task.shot], "", *places[i], *empty])
    for q, (n, answer, chance) in enumerate(zip(task.true, task.answers, task.chance.tolist(), strict=True)):
        i = task.support + q
        rows.append(["query", task.images[i], names[n], names[answer], *places[i], *chance])
    for part, ends in zip(("z", "z'"), task.codes.chunk(2), strict=True):
        rows += [[part, "", name, "", *end, *empty] for name, end in zip(names, ends.tolist(), strict=True)]
    return rows
