"""The figure: accuracy over shots and over ways, all methods on the same tasks."""

import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leo_lightning.commands.compare.plan import Plan
from leo_lightning.commands.compare.tables import write_csv
from leo_lightning.common.figure_style import (
    COLOURS,
    DASHES,
    MARKERS,
    REFERENCE,
    as_written,
    figure_style,
    save_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMN, HEIGHT = 3.5, 2.5
"""Width of the figure, a column of a page, and height of a panel, in inches."""
NAME_LINE, NAME_WIDTH = 0.21, 20
"""Height of a line of a name, in inches of a panel with its margins, and its width in letters."""
STRONGEST = 3
GREY: dict[str, Any] = {"color": "#c4c4c4", "linewidth": 0.8, "zorder": 2}


@dataclass(frozen=True)
class Point:
    """A method at a way and a shot, and a line of plot.csv; the note says why there is no accuracy."""

    method: str
    way: int
    shot: int
    accuracy: float | None = None
    ci95: float | None = None
    note: str = ""


def write(points: Sequence[Point], plan: Plan, variants: Collection[str]) -> list[Path]:
    """Draw the figure and write the numbers behind it; return the files.

    Args:
        points: of all methods, without the transductive ones.
        plan: the comparison.
        variants: labels of LEO and its variants.
    """
    from matplotlib.figure import Figure

    files = [plan.out / f"plot.{suffix}" for suffix in ("csv", "png", "svg")]
    write_csv(files[0], [field.name for field in fields(Point)], [vars(point) for point in points])
    panels = [panel for panel in ("shots", "ways") if getattr(plan, panel)]
    styles = _styles(points, plan, variants)
    with figure_style():
        figure = Figure(figsize=(COLUMN, HEIGHT * len(panels)))
        for panel, ax in zip(panels, figure.subplots(len(panels), 1, squeeze=False)[:, 0], strict=True):
            _draw(ax, panel, points, plan, styles)
        for path in files[1:]:
            save_figure(figure, path)
    return files


def prominent(points: Sequence[Point], plan: Plan, variants: Collection[str]) -> list[str]:
    """Labels of the reference, the best other variant of LEO, and the three best of the rest."""
    accuracies: dict[str, list[float]] = {}
    for point in points:
        if point.accuracy is not None:
            accuracies.setdefault(point.method, []).append(point.accuracy)
    most = max(map(len, accuracies.values()), default=0)
    complete = [label for label, values in accuracies.items() if len(values) == most]
    ranked = sorted(complete, key=lambda label: -sum(accuracies[label]))
    others = [label for label in ranked if label != plan.reference]
    best_variant = [label for label in others if label in variants][:1]
    strongest = [label for label in others if label not in variants][:STRONGEST]
    return [label for label in (plan.reference, *best_variant, *strongest) if label in accuracies]


def _styles(points: Sequence[Point], plan: Plan, variants: Collection[str]) -> dict[str, dict[str, Any]]:
    """Styles of the lines that stand out. They differ in dashes and markers as well: no colour is needed."""
    styles: dict[str, dict[str, Any]] = {}
    colours = iter(COLOURS)
    for number, label in enumerate(prominent(points, plan, variants)):
        is_reference = label == plan.reference
        styles[label] = {
            "color": REFERENCE if is_reference else next(colours),
            "linestyle": DASHES[number % len(DASHES)],
            "marker": MARKERS[number],
            "linewidth": 2.0 if is_reference else 1.2,
            "zorder": 3 if is_reference else 4,
        }
    return styles


def _draw(
    ax: "Axes", panel: str, points: Sequence[Point], plan: Plan, styles: Mapping[str, Mapping[str, Any]]
) -> None:
    """Draw one panel: some lines with their names at the end, all others in grey."""
    ticks, ends, others = getattr(plan, panel), {}, 0
    for method in plan.methods:
        curve = curve_of(points, method.label, panel, plan)
        if not curve:
            continue
        x, accuracy, half = zip(*curve, strict=True)
        style = styles.get(method.label, GREY)
        ax.plot(x, accuracy, gid=f"{panel}-{method.slug}", **style)
        if method.label in styles:
            ax.errorbar(x, accuracy, half, fmt="none", ecolor=style["color"], elinewidth=0.8)
            ends[method.label] = (float(x[-1]), accuracy[-1])
        else:
            others += 1
    ax.set_xscale("log")
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.minorticks_off()
    fixed = f"{plan.way}-way" if panel == "shots" else f"{plan.shot}-shot"
    grey = f"\ngrey: {others} other method{'s' * (others > 1)}" if others else ""
    ax.set_xlabel(f"{panel} ({fixed}){grey}")
    ax.set_ylabel("accuracy, %")
    _name_ends(ax, ends, styles)


def _name_ends(
    ax: "Axes", ends: Mapping[str, tuple[float, float]], styles: Mapping[str, Mapping[str, Any]]
) -> None:
    """Write names to the right of the lines' ends, as near to them as their heights allow."""
    low, high = ax.get_ylim()
    labels = sorted(ends, key=lambda label: -ends[label][1])
    names = [textwrap.fill(as_written(label), NAME_WIDTH) for label in labels]
    heights = [(high - low) * NAME_LINE / HEIGHT * (name.count("\n") + 1) for name in names]
    gaps = [(above + below) / 2 for above, below in pairwise(heights)]
    down = [ends[label][1] for label in labels]
    up = [*down]
    for i, gap in enumerate(gaps):  # from above, each is pushed down by the one before; and from below, up
        down[i + 1] = min(down[i + 1], down[i] - gap)
    for i, gap in reversed(list(enumerate(gaps))):
        up[i] = max(up[i], up[i + 1] + gap)
    places = [(one + other) / 2 for one, other in zip(down, up, strict=True)]
    shift = max(0.0, low - (places[-1] - heights[-1] / 2)) if places else 0.0
    for label, name, place in zip(labels, names, places, strict=True):
        colour = styles[label]["color"]
        ax.annotate(
            name, ends[label], xytext=(1.06, (place + shift - low) / (high - low)),
            textcoords="axes fraction", va="center", color=colour, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.5, "shrinkB": 3, "relpos": (0, 0.5)},
        )  # fmt: skip


def curve_of(points: Sequence[Point], label: str, panel: str, plan: Plan) -> list[tuple[int, float, float]]:
    """Return shot or way, accuracy and half width in percent of a method along a panel."""
    axis, fixed = ("shot", "way") if panel == "shots" else ("way", "shot")
    return sorted(
        (getattr(point, axis), 100 * point.accuracy, 100 * point.ci95)
        for point in points
        if (point.method, getattr(point, fixed)) == (label, getattr(plan, fixed))
        and getattr(point, axis) in getattr(plan, panel)
        and point.accuracy is not None
        and point.ci95 is not None
    )
