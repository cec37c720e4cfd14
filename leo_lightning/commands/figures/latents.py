"""t-SNE of the latent codes of validation tasks before and after adaptation (Figure 3 of the paper)."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from leo_lightning.common.errors import InputError
from leo_lightning.common.figure_style import COLOURS, NAMED, WIDTH, class_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from leo_lightning.commands.figures.subject import Subject

GREY = "#cccccc"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this figure's options."""
    add = parser.add_argument
    add("--tasks", type=int, default=1000, metavar="N", help="validation tasks (default: 1000)")
    add(
        "--class",
        dest="highlighted",
        metavar="NAME",
        help="class that has a panel to itself (default: the one with most codes)",
    )


def draw(
    subject: "Subject", tasks: int = 1000, highlighted: str | None = None
) -> tuple["Figure", list[list[Any]]]:
    """Three panels of the same points: by phase, by class, and one class against all others.

    A point is the code of a class in a task: z is the mean, as in evaluation. z and z' of all tasks are
    embedded together. PCA is where t-SNE begins, and its seed is fixed.
    """
    import numpy as np
    from matplotlib.figure import Figure
    from sklearn.manifold import TSNE

    codes, of, numbers, names = _codes(subject, tasks, highlighted)
    chosen = highlighted or names[np.bincount(of).argmax()]
    if names.index(chosen) not in of:
        raise InputError(f"--class: {chosen} is in none of the tasks; raise --tasks")
    patience = ", a minute or two" if len(codes) > 4000 else ""
    print(f"{'t-SNE':11} of {len(codes):,} codes{patience}", flush=True)
    perplexity = min(30.0, (len(codes) - 1) / 3)
    points = TSNE(random_state=0, init="pca", perplexity=perplexity, n_jobs=1).fit_transform(codes)
    z, adapted = points[: len(of)], points[len(of) :]

    figure = Figure(figsize=(WIDTH, 2.9))
    axes = figure.subplots(1, 3)
    _by_phase(axes[0], z, adapted)
    _by_class(axes[1], z, adapted, of, names)
    _one_class(axes[2], z, adapted, of == names.index(chosen), chosen)
    for ax in axes:
        ax.set(xticks=[], yticks=[], box_aspect=1)
        ax.grid(False)
        ax.spines[["left", "bottom"]].set_visible(False)
    header = ["task", "class", "z_x", "z_y", "adapted_x", "adapted_y"]
    columns = np.concatenate([z, adapted], axis=1).astype(float).tolist()
    rows = [[task, names[c], *xy] for task, c, xy in zip(numbers, of, columns, strict=True)]
    return figure, [header, *rows]


def _codes(
    subject: "Subject", tasks: int, highlighted: str | None
) -> tuple[Any, Any, list[int], tuple[str, ...]]:
    """All z and then all z', numbers of the class and the task of each z, and the names of classes."""
    import torch

    from leo_lightning.runs.pictures.codes import collect

    leo, data = subject.leo()
    if not leo.latent_steps:
        raise InputError(f"{subject.name}: takes no latent steps, so that codes stay what they are")
    data.setup("validate")
    names = data.bank("val").class_names
    _check_class(highlighted, names)
    with torch.inference_mode():
        found = collect(leo, subject.episodes("validate", range(tasks)))
    assert found is not None
    codes = torch.cat([found.before, found.after]).float().numpy()
    return codes, found.number.numpy(), found.task.tolist(), names


def _check_class(name: str | None, known: Sequence[str]) -> None:
    from leo_lightning.common.errors import nearest

    if name is not None and name not in known:
        there = f"there are {', '.join(known[:NAMED])}{', …' if len(known) > NAMED else ''}"
        raise InputError(f"--class: no class is called {name!r:.60}{nearest(name, known, there)}")


def _by_phase(ax: "Axes", z: Any, adapted: Any) -> None:
    import numpy as np

    shades = np.repeat([COLOURS[1], COLOURS[0]], len(z))
    _scatter(ax, np.concatenate([z, adapted]), shades)
    ax.set_title("by phase")
    _legend(ax, {"z, before": COLOURS[1], "z′, after": COLOURS[0]})


def _by_class(ax: "Axes", z: Any, adapted: Any, of: Any, names: Sequence[str]) -> None:
    import numpy as np
    from matplotlib.colors import to_rgba

    shades = np.array([to_rgba(colour) for colour in class_colours(len(names))])[of]
    _scatter(ax, np.concatenate([z, adapted]), np.concatenate([shades, shades]))
    drawn = np.unique(of)
    if len(names) <= NAMED:
        places = _apart(
            {number: np.median(adapted[of == number], axis=0) for number in drawn.tolist()}, float(np.ptp(z))
        )
        plate = {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.4}
        for number, (x, y) in places.items():
            ax.text(x, y, names[number], fontsize=4.5, ha="center", va="center", bbox=plate)
    ax.set_title(f"by class, {len(drawn)} of them")
    if len(names) <= NAMED:
        ax.set_xlabel("names: where the median z′ is", fontsize=8)


def _apart(places: dict[int, Any], extent: float) -> dict[int, tuple[float, float]]:
    """Places of names, from below, each as high as it must be to cover none below it."""
    wide, high = 0.22 * extent, 0.032 * extent
    found: dict[int, tuple[float, float]] = {}
    for number, (x, y) in sorted(places.items(), key=lambda each: each[1][1]):
        for a, b in sorted(found.values(), key=lambda place: place[1]):
            if abs(a - x) < wide and abs(b - y) < high:
                y = b + high
        found[number] = (float(x), float(y))
    return found


def _one_class(ax: "Axes", z: Any, adapted: Any, chosen: Any, name: str) -> None:
    import numpy as np

    _scatter(ax, np.concatenate([z[~chosen], adapted[~chosen]]), GREY)
    shades = np.repeat([COLOURS[1], COLOURS[0]], chosen.sum())
    _scatter(ax, np.concatenate([z[chosen], adapted[chosen]]), shades)
    ax.set_title(f"class {name}")
    _legend(ax, {"its z": COLOURS[1], "its z′": COLOURS[0], "others": GREY})


def _scatter(ax: "Axes", points: Any, colours: Any) -> None:
    """Thousands of points: as pixels, in the SVG too, and in an order that hides no kind of them."""
    import numpy as np

    order = np.random.default_rng(0).permutation(len(points))
    shades = colours if isinstance(colours, str) else colours[order]
    ax.scatter(*points[order].T, s=1.0, c=shades, linewidths=0, rasterized=True)


def _legend(ax: "Axes", colours: dict[str, str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour, marker="o", linestyle="", label=label)
        for label, colour in colours.items()
    ]
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.02)}
    ax.legend(handles=handles, ncols=3, handletextpad=0, columnspacing=1, **place)
