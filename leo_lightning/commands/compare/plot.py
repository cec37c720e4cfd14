"""The figure: accuracy over shots and over ways, all methods on the same tasks."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from leo_lightning.commands.compare.plan import Plan
from leo_lightning.commands.compare.tables import write_csv
from leo_lightning.common.figure_style import WIDTH, figure_style, line_styles, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHT = 2.8
LEGEND_LINE = 0.17
"""Height of a method in the legend, in inches."""


@dataclass(frozen=True)
class Point:
    """A method at a way and a shot, and a line of plot.csv; the note says why there is no accuracy."""

    method: str
    way: int
    shot: int
    accuracy: float | None = None
    ci95: float | None = None
    note: str = ""


def write(points: Sequence[Point], plan: Plan) -> list[Path]:
    """Draw the figure and write the numbers behind it; return the files."""
    from matplotlib.figure import Figure

    files = [plan.out / f"plot.{suffix}" for suffix in ("csv", "png", "svg")]
    write_csv(files[0], [field.name for field in fields(Point)], [vars(point) for point in points])
    with figure_style():
        figure = Figure(figsize=(WIDTH, max(HEIGHT, LEGEND_LINE * (len(plan.methods) + 2))))
        panels = [panel for panel in ("shots", "ways") if getattr(plan, panel)]
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for panel, ax in zip(panels, axes, strict=True):
            _draw(ax, panel, points, plan)
        axes[0].set_ylabel("accuracy, %")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", handlelength=3.2)
        for path in files[1:]:
            save_figure(figure, path)
    return files


def _draw(ax: "Axes", panel: str, points: Sequence[Point], plan: Plan) -> None:
    """Draw one panel. Variants of a method share its configuration, and therefore their colour."""
    labels = [method.label for method in plan.methods]
    styles = line_styles([str(method.configs[0]) for method in plan.methods], labels.index(plan.reference))
    ticks = getattr(plan, panel)
    for method, style in zip(plan.methods, styles, strict=True):
        curve = curve_of(points, method.label, panel, plan)
        if not curve:
            continue
        x, accuracy, half = zip(*curve, strict=True)
        ax.plot(x, accuracy, label=method.label, gid=f"{panel}-{method.slug}", **style)
        ax.errorbar(x, accuracy, half, fmt="none", ecolor=style["color"], elinewidth=0.8)
    ax.set_xscale("log")
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.minorticks_off()
    fixed = f"{plan.way}-way" if panel == "shots" else f"{plan.shot}-shot"
    ax.set_xlabel(f"{panel} ({fixed})")


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
