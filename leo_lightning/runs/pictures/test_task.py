"""One test task with its images: what the learner was shown, what it was asked, and its answers."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from leo_lightning.common.figure_style import COLOURS, WIDTH
from leo_lightning.data.datamodule import EpisodeDataModule
from leo_lightning.data.drawings import drawings_beside
from leo_lightning.learners.learner import Learner
from leo_lightning.learners.parts.query_set import answered
from leo_lightning.runs.pictures.codes import shortened

TASK = 0
"""The first test task: nobody has chosen it."""
QUERIES = 10  # most queries shown
ANSWERS = 3  # answers shown for each
SUPPORT, GAP, BLOCK = 2.95, 0.3, 1.85  # widths in inches: all of the support, a gap, a query and its answers
TILE = 0.62  # side of a query, inches
RIGHT, WRONG = COLOURS[2], COLOURS[1]


class Task(NamedTuple):
    """A task's images, and a learner's answers to its queries."""

    support: UInt8[np.ndarray, "N H W"]
    """The first image of each class."""
    query: UInt8[np.ndarray, "N Q H W"]
    valid: Bool[np.ndarray, "N Q"]
    """False where a class has fewer than Q queries."""
    probability: Float[np.ndarray, "N Q N"]
    names: list[str]
    shot: int


def read_task(learner: Learner, data: EpisodeDataModule, like: torch.Tensor) -> Task | None:
    """Return the first test task; None if its images are not at hand. `like` has the device and dtype."""
    episode = data.episode([TASK], "test", like.device).in_precision(like.dtype)
    rows, bank = episode.rows, data.bank("test")
    drawings = drawings_beside(data.root, bank.image_names)
    if drawings is None or rows is None or rows.classes is None or not episode.query.shape[2]:
        return None
    # the uncompiled method: the compiled one would be compiled again for one task
    final = type(learner).stages(learner, episode.support)["final"]
    with torch.autocast(like.device.type, enabled=False):
        logits = answered(final, episode.query, episode.valid)
        probability = logits[0].softmax(-1).double().cpu().numpy()
    names = [bank.class_names[number] for number in rows.classes[0].tolist()]
    support, query = rows.support[0].cpu(), rows.query[0].cpu()
    valid = np.ones(query.shape, bool) if rows.valid is None else rows.valid[0].cpu().numpy()
    return Task(drawings[support[:, 0]], drawings[query], valid, probability, names, support.shape[1])


def draw(task: Task, title: str) -> Figure:
    """Support on the left; on the right, queries with the likeliest answers."""
    N, Q = task.probability.shape[:2]
    asked = [(n, q) for q in range(Q) for n in range(N) if task.valid[n, q]][:QUERIES]
    columns, lines = math.ceil(math.sqrt(N)), math.ceil(len(asked) / 2)
    step = SUPPORT / columns
    below = math.ceil(N / columns) * (step + 0.05)  # the support
    height = 0.5 + max(below + 0.7, lines * (TILE + 0.14))
    figure = Figure(figsize=(WIDTH, height))
    figure.set_layout_engine("none")
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, WIDTH), ylim=(height, 0))
    ax.axis("off")
    ax.text(0.1, 0.15, title, fontsize=9, fontweight="bold", va="center", parse_math=False)
    known = "one drawing" if task.shot == 1 else f"{task.shot} drawings"
    ax.text(0.1, 0.37, f"Known: {known} of each class", fontsize=8, va="center")
    right = SUPPORT + GAP
    ax.text(right, 0.37, "Asked: new drawings, and the likeliest answers", fontsize=8, va="center")
    top = 0.5
    for n, name in enumerate(task.names):
        x, y, side = 0.1 + n % columns * step, top + n // columns * (step + 0.05), step - 0.13
        _show(ax, task.support[n], x, y, side, edgecolor="#999999", linewidth=0.6)
        label = shortened(name.replace("__character", " "), 14)
        ax.text(x + side / 2, y + side + 0.065, label, fontsize=5, ha="center", va="center", color="#444444")
    for place, (n, q) in enumerate(asked):
        x, y = right + place // lines * (BLOCK + 0.02), top + place % lines * (TILE + 0.14)
        _query(ax, task, n, q, x, y)
    count = int(task.valid.sum())
    hits = int((task.valid & (task.probability.argmax(-1) == np.arange(N)[:, None])).sum())
    lines_below = [
        f"Right: {hits} of the {count} queries of this task, {100 * hits / count:.1f}%.",
        f"Shown: the first {len(asked)} of them, not chosen.",
        "Black bar: probability of the right class.",
    ]
    ax.text(0.1, top + below + 0.12, "\n".join(lines_below), fontsize=8, va="top", linespacing=1.5)
    return figure


def _query(ax: Axes, task: Task, n: int, q: int, x: float, y: float) -> None:
    """A query of class n, framed by whether the answer is right, and the likeliest classes."""
    probability = task.probability[n, q]
    order: Int64[np.ndarray, " N"] = np.argsort(-probability, kind="stable")
    hit = order[0] == n
    look: dict[str, Any] = {"edgecolor": RIGHT, "linewidth": 1.8}
    if not hit:
        look = {"edgecolor": WRONG, "linewidth": 1.8, "linestyle": (0, (3, 1.5))}
    _show(ax, task.query[n, q], x, y, TILE, **look)
    colour, mark = (RIGHT, "✓") if hit else (WRONG, "✗")
    ax.text(x + TILE + 0.11, y + TILE / 2, mark, fontsize=10, color=colour, ha="center", va="center")
    shown = order[:ANSWERS].tolist()
    if n not in shown:
        shown[-1] = n
    small, left = TILE / ANSWERS, x + TILE + 0.22
    for line, answer in enumerate(shown):
        share, at = probability[answer], y + line * small
        _show(ax, task.support[answer], left, at, small - 0.02, edgecolor="#999999", linewidth=0.4)
        bar = {"facecolor": "#333333" if answer == n else "#bbbbbb", "linewidth": 0}
        ax.add_patch(Rectangle((left + small + 0.04, at + 0.04), 0.44 * share, small - 0.1, **bar))
        text = f"{100 * share:.0f}%"
        ax.text(
            left + small + 0.08 + 0.44 * share, at + small / 2 - 0.01, text, fontsize=6, va="center_baseline"
        )


def _show(ax: Axes, image: UInt8[np.ndarray, "H W"], x: float, y: float, side: float, **frame: Any) -> None:
    """An image in a frame; `x` and `y` are its upper left corner."""
    ax.imshow(image, cmap="gray", vmin=0, vmax=255, extent=(x, x + side, y + side, y), aspect="auto")
    ax.add_patch(Rectangle((x, y), side, side, facecolor="none", **frame))
