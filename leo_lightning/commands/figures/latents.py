"""t-SNE of the latent codes of validation tasks before and after adaptation (Figure 3 of the paper)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from sklearn.manifold import TSNE

from leo_lightning.commands.figures.subject import Subject
from leo_lightning.common.errors import InputError, nearest
from leo_lightning.common.figure_style import COLOURS, NAMED, WIDTH, as_written, class_colours, dots
from leo_lightning.runs.pictures.codes import collect

ITERATIONS = 500
"""Half of scikit-learn's: 18 instead of 21% of a code's neighbours stay its neighbours, in half the time."""
BEFORE, AFTER, GREY = COLOURS[1], COLOURS[0], "#cccccc"


def draw(
    subject: Subject, tasks: int = 250, highlighted: str | None = None
) -> tuple[Figure, list[list[Any]]]:
    """Three panels of the same points: by phase, by class, and one class against all others.

    A point is the code of a class in a task; z is the mean, as in evaluation. z and z' of all tasks are
    embedded together. t-SNE starts from the principal components with a fixed seed.
    """
    leo, data = subject.leo()
    if not leo.latent_steps:
        raise InputError(f"{subject.name}: takes no latent steps, so its codes do not change")
    data.setup("validate")
    names = data.bank("val").class_names
    if highlighted is not None and highlighted not in names:
        listed = f"there are {', '.join(names[:NAMED])}{', …' if len(names) > NAMED else ''}"
        raise InputError(
            f"--class: no class is called {highlighted!r:.60}{nearest(highlighted, names, listed)}"
        )
    codes = collect(leo, subject.episodes("validate", range(tasks)))
    assert codes is not None
    labels = codes.label.numpy()
    chosen = highlighted or names[np.bincount(labels).argmax()]
    mine = labels == names.index(chosen)
    if not mine.any():
        raise InputError(f"--class: {chosen} is in none of the tasks; raise --tasks")

    points = torch.cat([codes.before, codes.after]).float().numpy()
    patience = ", half a minute or more" if len(points) > 4000 else ""
    print(f"{'t-SNE':11} of {len(points):,} codes{patience}", flush=True)
    perplexity = min(30.0, (len(points) - 1) / 3)
    tsne = TSNE(random_state=0, init="pca", perplexity=perplexity, max_iter=ITERATIONS, n_jobs=1)
    points = tsne.fit_transform(points)
    z, adapted = np.split(points, 2)

    figure = Figure(figsize=(WIDTH, 2.9))
    by_phase, by_class, one_class = figure.subplots(1, 3)
    _phases(by_phase, z, adapted)
    by_phase.set_title("by phase")
    _legend(by_phase, {"z, before": BEFORE, "z′, after": AFTER})
    _classes(by_class, z, adapted, labels, names)
    _scatter(one_class, np.concatenate([z[~mine], adapted[~mine]]), GREY)
    _phases(one_class, z[mine], adapted[mine])
    one_class.set_title(f"class {as_written(chosen)}")
    _legend(one_class, {"its z": BEFORE, "its z′": AFTER, "others": GREY})
    for ax in (by_phase, by_class, one_class):
        ax.set(xticks=[], yticks=[], box_aspect=1)
        ax.grid(False)
        ax.spines[["left", "bottom"]].set_visible(False)
    return figure, codes.rows(names, *torch.from_numpy(points).double().chunk(2))


def _phases(ax: Axes, z: Any, adapted: Any) -> None:
    _scatter(ax, np.concatenate([z, adapted]), np.repeat([BEFORE, AFTER], len(z)))


def _classes(ax: Axes, z: Any, adapted: Any, labels: Any, names: Sequence[str]) -> None:
    shades = np.array([to_rgba(colour) for colour in class_colours(len(names))])[labels]
    _scatter(ax, np.concatenate([z, adapted]), np.concatenate([shades, shades]))
    drawn = np.unique(labels).tolist()
    ax.set_title(f"by class, {len(drawn)} of them")
    if len(names) <= NAMED:
        medians = {label: np.median(adapted[labels == label], axis=0) for label in drawn}
        plate = {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.4}
        for label, (x, y) in _apart(medians, float(np.ptp(z))).items():
            ax.text(x, y, as_written(names[label]), fontsize=4.5, ha="center", va="center", bbox=plate)
        ax.set_xlabel("names: where the median z′ is", fontsize=8)


def _apart(places: dict[int, Any], extent: float) -> dict[int, tuple[float, float]]:
    """Places of names, raised from the bottom up until no name covers another one."""
    width, height = 0.22 * extent, 0.032 * extent
    placed: dict[int, tuple[float, float]] = {}
    for label, (x, y) in sorted(places.items(), key=lambda place: place[1][1]):
        for other_x, other_y in sorted(placed.values(), key=lambda place: place[1]):
            if abs(other_x - x) < width and abs(other_y - y) < height:
                y = other_y + height
        placed[label] = (float(x), float(y))
    return placed


def _scatter(ax: Axes, points: Any, colours: Any) -> None:
    """Thousands of points, rasterized even in an SVG, in an order that hides no colour."""
    order = np.random.default_rng(0).permutation(len(points))
    shades = colours if isinstance(colours, str) else colours[order]
    ax.scatter(*points[order].T, s=1.0, c=shades, linewidths=0, rasterized=True)


def _legend(ax: Axes, colours: dict[str, str]) -> None:
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.02)}
    ax.legend(
        handles=dots(colours.keys(), colours.values()), ncols=3, handletextpad=0, columnspacing=1, **place
    )
