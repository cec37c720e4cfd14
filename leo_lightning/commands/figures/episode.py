"""One test task: its images, its latent codes, and the class probabilities of each query."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from leo_lightning.commands.figures.subject import Subject
from leo_lightning.common.figure_style import WIDTH, as_written, class_colours, dots
from leo_lightning.runs.pictures.principal_components import principal_components

NAMED = 105  # most queries whose image names fit
LETTERS = 14  # most letters of a name that fit


class _Task(NamedTuple):
    """A task to draw; images are in order of their classes, support first."""

    classes: list[str]
    shot: int
    images: list[str]
    places: Tensor  # plane coordinates of the images
    codes: Tensor  # plane coordinates of the codes before adaptation, then after it
    shares: list[list[float]]  # shares of the variance along both coordinates, of images and of codes
    chance: Tensor  # probabilities: (queries, classes)
    true: list[int]  # class of each query
    answers: list[int]  # predicted class of each query


def draw(subject: Subject, task: int = 0) -> tuple[Figure, list[list[Any]]]:
    """Three panels of a task: its embeddings, its codes, and the probabilities of its queries.

    Embeddings and codes are projected to their first two principal components. If tests take all remaining
    images as queries, the figure takes as many as validation.
    """
    episode = _task(subject, task)
    figure = Figure(figsize=(WIDTH, 6.6))
    grid = figure.add_gridspec(2, 2)
    colours = class_colours(len(episode.classes))
    _images(figure.add_subplot(grid[0, 0]), episode, colours)
    _codes(figure.add_subplot(grid[1, 0]), episode, colours)
    _probabilities(figure.add_subplot(grid[:, 1]), episode, colours)
    return figure, _table(episode)


def _task(subject: Subject, number: int) -> _Task:
    leo, data = subject.leo()
    if data.test_query == "all":
        data.test_query = data.query
    episode = next(subject.episodes("test", range(number, number + 1)))
    chance = leo.adapt(episode.support)(episode.query).softmax(-1)[0]
    N, Q = chance.shape[:2]
    chance = chance.flatten(0, 1)
    latents = leo.every_step(episode.support).latents
    codes, code_shares = principal_components(torch.cat([latents[i][0].mean(1) for i in (0, -1)]))
    images = torch.cat([part[0].flatten(0, 1) for part in (episode.support, episode.query)])
    places, image_shares = principal_components(images)
    rows, bank = episode.rows, data.bank("test")
    assert rows is not None
    assert rows.classes is not None
    numbers = [*rows.support.flatten().tolist(), *rows.query.flatten().tolist()]
    return _Task(
        classes=[bank.class_names[label] for label in rows.classes[0].tolist()],
        shot=rows.support.shape[2],
        images=[bank.image_names[row] if bank.image_names else str(row) for row in numbers],
        places=places,
        codes=codes,
        shares=[image_shares, code_shares],
        chance=chance,
        true=[n for n in range(N) for _ in range(Q)],
        answers=chance.argmax(1).tolist(),
    )


def _images(ax: Axes, task: _Task, colours: Sequence[Any]) -> None:
    support, query = task.places.split([len(task.classes) * task.shot, len(task.true)])
    ax.scatter(*query.T.tolist(), s=14, c=[colours[n] for n in task.true], linewidths=0)
    wrong = query[torch.tensor(task.true) != torch.tensor(task.answers)]
    ax.scatter(*wrong.T.tolist(), s=40, facecolors="none", edgecolors="black", linewidths=0.7)
    shades = [colour for colour in colours for _ in range(task.shot)]
    ax.scatter(*support.T.tolist(), s=110, c=shades, marker="*", edgecolors="black", linewidths=0.7, zorder=3)
    ax.set_title(f"images: {len(query) - len(wrong)} of {len(query)} queries right")
    looks = {
        "support": {"marker": "*", "markersize": 9},
        "query": {"marker": "o", "markersize": 4},
        "wrong answer": {"marker": "o", "markersize": 6.5, "markerfacecolor": "none"},
    }
    handles = [
        Line2D([], [], color="black", linestyle="", label=name, **look) for name, look in looks.items()
    ]
    _components(ax, task.shares[0], handles)


def _codes(ax: Axes, task: _Task, colours: Sequence[Any]) -> None:
    before, after = (part.tolist() for part in task.codes.chunk(2))
    for start, end, colour in zip(before, after, colours, strict=True):
        ax.plot(*zip(start, end, strict=True), color=colour)
        ax.plot(*start, marker="o", color=colour, markerfacecolor="white", markersize=5)
        ax.plot(*end, marker="o", color=colour, markersize=6)
    ax.set_title("codes: from z (hollow) to z′ (filled)")
    _components(ax, task.shares[1], dots(map(_short, task.classes), colours))


def _components(ax: Axes, shares: Sequence[float], handles: list[Line2D]) -> None:
    """Label a plane of principal components, and put its legend below it."""
    for axis, (number, share) in zip((ax.xaxis, ax.yaxis), enumerate(shares, 1), strict=True):
        axis.set_label_text(f"component {number}, {100 * share:.0f}% of the variance")
    ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=3, handletextpad=0.1)


def _probabilities(ax: Axes, task: _Task, colours: Sequence[Any]) -> None:
    N, queries = len(task.classes), len(task.chance)
    image = ax.pcolormesh(task.chance.numpy(), cmap="Greys", vmin=0, vmax=1)
    for n, colour in enumerate(colours):
        ends = [n * queries / N, (n + 1) * queries / N]
        ax.axhline(ends[0], color="black", linewidth=0.5)
        ax.plot([0, 0], ends, color=colour, linewidth=5, clip_on=False, solid_capstyle="butt")
    if queries <= NAMED:
        names = [
            _short(name, task.classes[n]) for name, n in zip(task.images[-queries:], task.true, strict=True)
        ]
        ax.set_yticks([q + 0.5 for q in range(queries)], names, fontsize=4.6)
    else:
        ax.set_yticks([])
    ticks = [n + 0.5 for n in range(N)]
    ax.set_xticks(ticks, [_short(name) for name in task.classes], rotation=30, ha="right")
    ax.tick_params(length=0, pad=4)
    ax.grid(False)
    ax.invert_yaxis()
    ax.set(xlabel="class", ylabel="query, by its class", title="probability of each class")
    ax.figure.colorbar(image, ax=ax, fraction=0.04, pad=0.02)


def _short(name: str, known: str = "") -> str:
    """A name that fits, without its file extension and without the class, which is shown elsewhere."""
    stem = name.rpartition("/")[2].rpartition(".")[0] or name
    stem = (stem.removeprefix(known).lstrip("_-/ ") if known else stem) or stem
    return as_written(stem if len(stem) <= LETTERS else "…" + stem[1 - LETTERS :])


def _table(task: _Task) -> list[list[Any]]:
    names, empty = task.classes, [""] * len(task.classes)
    table: list[list[Any]] = [
        ["part", "image", "class", "predicted", "x", "y", *(f"p({name})" for name in names)]
    ]
    places, support = task.places.tolist(), len(names) * task.shot
    for i in range(support):
        table.append(["support", task.images[i], names[i // task.shot], "", *places[i], *empty])
    for i, (n, answer, chance) in enumerate(
        zip(task.true, task.answers, task.chance.tolist(), strict=True), support
    ):
        table.append(["query", task.images[i], names[n], names[answer], *places[i], *chance])
    for part, ends in zip(("z", "z'"), task.codes.chunk(2), strict=True):
        table += [[part, "", name, "", *end, *empty] for name, end in zip(names, ends.tolist(), strict=True)]
    return table
