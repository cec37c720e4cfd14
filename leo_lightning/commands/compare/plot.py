"""The figure: accuracy over shots and over ways, all methods on the same tasks."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from leo_lightning.commands.compare.plan import Plan
from leo_lightning.commands.compare.statistics import Interval
from leo_lightning.common.figure_style import WIDTH, figure_style, line_styles, save_figure
from leo_lightning.common.files import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = ("method", "way", "shot", "accuracy", "ci95", "note")
HEIGHT = 2.8
LEGEND_LINE = 0.17
"""Inches of the legend that a method takes."""


@dataclass(frozen=True)
class Point:
    """A method at a way and a shot."""

    method: str
    way: int
    shot: int
    accuracy: Interval | None
    """None if it could not be evaluated there."""
    note: str = ""
    """Why not."""


def write(points: Sequence[Point], plan: Plan) -> list[Path]:
    """Draw the figure and write the numbers behind it; the files."""
    from matplotlib.figure import Figure

    plan.out.mkdir(parents=True, exist_ok=True)
    files = [plan.out / "plot.csv"]
    with whole_file(files[0]) as part:
        part.write_text(spreadsheet(points), newline="")
    with figure_style():
        figure = Figure(figsize=(WIDTH, max(HEIGHT, LEGEND_LINE * (len(plan.methods) + 2))))
        panels = [panel for panel in ("shots", "ways") if getattr(plan, panel)]
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for panel, ax in zip(panels, axes, strict=True):
            _draw(ax, panel, points, plan)
        axes[0].set_ylabel("accuracy, %")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", handlelength=3.2)
        for kind in ("png", "svg"):
            files.append(plan.out / f"plot.{kind}")
            save_figure(figure, files[-1])
    return files


def _draw(ax: "Axes", panel: str, points: Sequence[Point], plan: Plan) -> None:
    """One panel. Variants of a method share its configuration, and with it their colour."""
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
    """Place, accuracy and half width, in percent, of a method along a panel."""
    curve = []
    for point in points:
        x, fixed, wanted = (
            (point.shot, point.way, plan.way) if panel == "shots" else (point.way, point.shot, plan.shot)
        )
        if (point.method, fixed) == (label, wanted) and x in getattr(plan, panel) and point.accuracy:
            curve.append((x, 100 * point.accuracy.mean, 100 * point.accuracy.half))
    return sorted(curve)


def spreadsheet(points: Sequence[Point]) -> str:
    """The numbers as CSV: shares between 0 and 1."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for point in points:
        writer.writerow([point.method, point.way, point.shot, *(point.accuracy or ("", "")), point.note])
    return file.getvalue()
