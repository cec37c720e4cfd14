"""Curves as plotly figures; a run has the same colour in all of them."""

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from leo_lightning.commands.report.run_folder import RunFolder
from leo_lightning.commands.report.tables import thinned
from leo_lightning.common.figure_style import COLOURS

GROUPS = {
    "val": "Validation",
    "train": "Training",
    "loss": "Terms of the loss",
    "inner": "Inner loop",
    "health": "Health",
    "throughput": "Throughput",
}
"""Prefixes of metrics in the order of the page; other prefixes follow."""
MOST_POINTS = 1000  # most points of a curve
DASHES = ("solid", "dash", "dot", "dashdot")


class Chart(NamedTuple):
    """A figure with its caption."""

    name: str
    figure: go.Figure
    wide: bool = False


def colour(number: int) -> str:
    """Colour of a run."""
    return COLOURS[number % len(COLOURS)]


def dash(number: int) -> str:
    """Dashes of a run, which distinguish runs of the same colour."""
    return DASHES[number // len(COLOURS) % len(DASHES)]


def score_chart(runs: Sequence[RunFolder]) -> Chart | None:
    """The metric that chooses the best checkpoint, with its intervals; None without a validation."""
    names = [f"val/{run.score}" for run in runs if f"val/{run.score}" in run.training]
    return Chart(names[0], _figure(names[0], runs, band=f"{names[0]}_ci95"), wide=True) if names else None


def groups(runs: Sequence[RunFolder]) -> list[tuple[str, list[Chart]]]:
    """Charts of all other metrics by prefix."""
    shown = score_chart(runs)
    grouped: dict[str, list[Chart]] = {prefix: [] for prefix in GROUPS}
    for name in dict.fromkeys(name for run in runs for name in run.training):
        if not name.endswith("_ci95") and (shown is None or name != shown.name):
            prefix = name.partition("/")[0] if "/" in name else ""
            grouped.setdefault(prefix, []).append(Chart(name, _figure(name, runs)))
    return [(GROUPS.get(prefix, prefix or "Others"), charts) for prefix, charts in grouped.items() if charts]


def as_json(charts: Mapping[str, Chart]) -> str:
    """Figures by the id of their element, escaped so that no text in them can end a script."""
    figures = {place: json.loads(chart.figure.to_json() or "") for place, chart in charts.items()}
    text = json.dumps(figures, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _figure(name: str, runs: Sequence[RunFolder], band: str = "") -> go.Figure:
    share = "accuracy" in name
    figure = _empty(share)
    number = ".2%" if share else ".4~g"
    curves = {i: run.training[name] for i, run in enumerate(runs) if name in run.training}
    drawn = {i: thinned(curve, MOST_POINTS) for i, curve in curves.items()}
    for i, (steps, values) in drawn.items():
        options: dict[str, Any] = {}
        label = f"%{{y:{number}}}"
        if band in runs[i].training:
            widths = dict(zip(*runs[i].training[band], strict=True))
            width = np.array([widths.get(step, np.nan) for step in steps])
            known = np.isfinite(width) & np.isfinite(values)
            x, low, high = steps[known], (values - width)[known], (values + width)[known]
            figure.add_scatter(
                x=np.concatenate([x, x[::-1]]), y=np.concatenate([high, low[::-1]]), fill="toself",
                fillcolor=_faint(i), line={"width": 0}, mode="lines", hoverinfo="skip", meta=i,
            )  # fmt: skip
            options["customdata"] = width
            if len(x) == 1:  # a band without breadth
                options["error_y"] = {"array": width, "color": colour(i)}
            label += f" ± %{{customdata:{number}}}"
        if len(runs) > 1:  # each run's point that is nearest to the pointer
            label = f"%{{fullData.name}}: {label} at step %{{x:,d}}"
        figure.add_scatter(
            x=steps, y=values, mode="lines+markers" if len(steps) <= 40 else "lines",
            name=html.escape(runs[i].name, quote=False), meta=i,  # plotly would show markup
            line={"color": colour(i), "dash": dash(i), "width": 2}, marker={"size": 5},
            hovertemplate=f"{label}<extra></extra>", **options,
        )  # fmt: skip
    every = np.concatenate([values for _, values in curves.values()])
    if (every == every[0]).all():  # plotly would show a range of ± 1, whatever the value
        figure.update_yaxes(range=sorted((0.0, 2.0 * every[0] or 1.0)))
    return figure


def _empty(share: bool) -> go.Figure:
    """A figure without curves, in the style of the page."""
    axis = {
        "gridcolor": "#e4e6ea", "zeroline": False, "linecolor": "#9aa1ab", "showline": True,
        "ticks": "outside", "tickcolor": "#9aa1ab",
    }  # fmt: skip
    title = {"text": "step", "font": {"size": 14}, "standoff": 6}
    step = {"rangemode": "tozero", "tickangle": 0, "tickformat": "~s", "title": title}
    return go.Figure(
        layout={
            "template": "none",
            "font": {"family": "system-ui, sans-serif", "size": 14, "color": "#1c2430"},
            "hovermode": "x unified",
            "hoverdistance": -1,  # the nearest point, however far
            "hoverlabel": {"namelength": -1, "bgcolor": "#ffffff", "font": {"size": 14}},
            # automatic margins in height, too, may grow and shrink forever
            "margin": {"l": 8, "r": 24, "t": 8, "b": 48},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "showlegend": False,
            "xaxis": axis | step | {"unifiedhovertitle": {"text": "step %{x:,d}"}},
            "yaxis": axis | {"automargin": "width", "tickformat": "~%" if share else "~g"},
        }
    )


def _faint(number: int) -> str:
    red, green, blue = bytes.fromhex(colour(number)[1:])
    return f"rgba({red},{green},{blue},0.15)"
