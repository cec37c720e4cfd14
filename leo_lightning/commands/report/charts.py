"""Curves as figures of plotly, runs in the same colours throughout."""

import html
import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
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
"""Prefixes of what is logged, in the order of the page; others follow."""
MOST_POINTS = 1000
"""Of one curve of one run."""
BINS = 25
DASHES = ("solid", "dash", "dot", "dashdot")


class Chart(NamedTuple):
    """A figure and where it goes."""

    name: str
    figure: go.Figure
    wide: bool = False


def colour(number: int) -> str:
    """Of a run."""
    return COLOURS[number % len(COLOURS)]


def dash(number: int) -> str:
    """Of a run: colours repeat, and are told apart by these."""
    return DASHES[number // len(COLOURS) % len(DASHES)]


def score_chart(runs: Sequence[RunFolder]) -> Chart | None:
    """What the best checkpoint is chosen by, with its intervals; None without a validation."""
    names = dict.fromkeys(f"val/{run.score}" for run in runs if f"val/{run.score}" in run.training)
    if not names:
        return None
    name = next(iter(names))
    return Chart(name, _figure(name, runs, band=f"{name}_ci95"), wide=True)


def groups(runs: Sequence[RunFolder]) -> list[tuple[str, list[Chart]]]:
    """All other curves by what they are about."""
    shown = score_chart(runs)
    every = dict.fromkeys(name for run in runs for name in run.training)
    left = [name for name in every if (shown is None or name != shown.name) and not name.endswith("_ci95")]
    prefixes = dict.fromkeys([*GROUPS, *(name.partition("/")[0] for name in left if "/" in name), ""])
    found = []
    for prefix in prefixes:
        mine = [name for name in left if (name.partition("/")[0] if "/" in name else "") == prefix]
        if mine:
            charts = [Chart(name, _figure(name, runs)) for name in mine]
            found.append((GROUPS.get(prefix, prefix or "Others"), charts))
    return found


def task_chart(runs: Sequence[RunFolder]) -> Chart | None:
    """How the scores of the test tasks are distributed; None before a test."""
    tested = [(i, run) for i, run in enumerate(runs) if run.tested and run.per_task]
    tested = [(i, run) for i, run in tested if run.score == tested[0][1].score]
    if not tested:
        return None
    values = {i: np.array([*run.per_task.values()]) for i, run in tested}
    values = {i: found[np.isfinite(found)] for i, found in values.items()}
    every = np.concatenate([*values.values()])
    score = tested[0][1].score
    share = score == "accuracy"
    limits = (0.0, 1.0) if share or not len(every) else (float(every.min()), float(every.max()))
    edges = np.linspace(*limits, BINS + 1)
    full = np.flatnonzero(np.histogram(every, edges)[0])
    edges = edges[full[0] if len(full) else 0 :]
    number = ".0%" if share else ".3g"
    between = [f"{low:{number}} to {high:{number}}" for low, high in pairwise(edges)]
    figure = _empty(share)
    for i, run in tested:
        counts, _ = np.histogram(values[i], edges)
        shares = counts / max(1, len(values[i]))
        figure.add_scatter(
            x=edges, y=[*shares, shares[-1]], customdata=[*between, between[-1]], mode="lines", meta=i,
            line={"shape": "hv", "color": colour(i), "dash": dash(i), "width": 2}, name=_plain(run.name),
            fill="tozeroy", fillcolor=_faint(i),
            hovertemplate="%{fullData.name}: %{y:.1%} of its tasks<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(
        title=_title(score),
        tickformat=".0%" if share else "~g",
        rangemode="normal",
        unifiedhovertitle={"text": f"{score} %{{customdata}}"},
    )
    figure.update_yaxes(title=_title("share of tasks"), tickformat=".0%", rangemode="tozero")
    return Chart(f"{score} of each test task", figure, wide=True)


def as_json(charts: Iterable[tuple[str, Chart]]) -> str:
    """Figures by the places that they go to; nothing in the text can end a script."""
    figures = {place: json.loads(chart.figure.to_json() or "") for place, chart in charts}
    text = json.dumps(figures, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def long(runs: Sequence[RunFolder]) -> bool:
    """Whether a curve has more points than are drawn."""
    return any(len(steps) > MOST_POINTS for run in runs for steps, _ in run.training.values())


def gaps(runs: Sequence[RunFolder]) -> bool:
    """Whether something that was logged is no finite number."""
    return any(not np.isfinite(values).all() for run in runs for _, values in run.training.values())


def _figure(name: str, runs: Sequence[RunFolder], band: str = "") -> go.Figure:
    share = "accuracy" in name
    figure = _empty(share)
    number = ".2%" if share else ".4~g"
    drawn = [thinned(run.training[name], MOST_POINTS)[0] for run in runs if name in run.training]
    alike = all(np.array_equal(steps, drawn[0]) for steps in drawn)
    for i, run in enumerate(runs):
        if name not in run.training:
            continue
        steps, values = thinned(run.training[name], MOST_POINTS)
        widths = dict(zip(*run.training[band], strict=True)) if band in run.training else {}
        width = np.array([widths.get(step, np.nan) for step in steps])
        more: dict[str, Any] = {}
        said = f"%{{y:{number}}}"
        if widths:
            known = np.isfinite(width) & np.isfinite(values)
            at, low, high = steps[known], (values - width)[known], (values + width)[known]
            figure.add_scatter(
                x=np.concatenate([at, at[::-1]]), y=np.concatenate([high, low[::-1]]), fill="toself",
                fillcolor=_faint(i), line={"width": 0}, mode="lines", hoverinfo="skip", meta=i,
            )  # fmt: skip
            more["customdata"] = width
            if len(at) == 1:  # a band of no breadth
                more["error_y"] = {"array": width, "color": colour(i)}
            said += f" ± %{{customdata:{number}}}"
        if not alike:  # each run's nearest point
            said += " at step %{x:,d}"
        if len(runs) > 1:
            said = f"%{{fullData.name}}: {said}"
        figure.add_scatter(
            x=steps, y=values, mode="lines+markers" if len(steps) <= 40 else "lines", name=_plain(run.name),
            line={"color": colour(i), "dash": dash(i), "width": 2}, marker={"size": 5}, meta=i,
            hovertemplate=f"{said}<extra></extra>", **more,
        )  # fmt: skip
    values = np.concatenate([run.training[name][1] for run in runs if name in run.training])
    if len(values) and (values == values[0]).all():  # plotly would show 1 above and below it, whatever it is
        figure.update_yaxes(range=sorted((0.0, 2.0 * values[0] or 1.0)))
    return figure


def _title(text: str) -> dict[str, Any]:
    return {"text": text, "font": {"size": 14}, "standoff": 6}


def _empty(share: bool) -> go.Figure:
    """A figure without curves, in the style of the page."""
    axis = {
        "gridcolor": "#e4e6ea", "zeroline": False, "linecolor": "#9aa1ab", "showline": True,
        "ticks": "outside", "tickcolor": "#9aa1ab", "fixedrange": False,
    }  # fmt: skip
    return go.Figure(
        layout={
            "template": "none",
            "font": {"family": "system-ui, sans-serif", "size": 14, "color": "#1c2430"},
            "hovermode": "x unified",
            "hoverdistance": -1,  # the nearest point, however far
            "hoverlabel": {"namelength": -1, "bgcolor": "#ffffff", "font": {"size": 14}},
            # only in width does plotly make room: in height, too, room and labels may chase each other
            "margin": {"l": 8, "r": 24, "t": 8, "b": 48},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "showlegend": False,
            "xaxis": axis
            | {
                "title": _title("step"),
                "tickangle": 0,
                "tickformat": "~s",
                "rangemode": "tozero",
                "unifiedhovertitle": {"text": "step %{x:,d}"},
            },
            "yaxis": axis | {"automargin": "width", "tickformat": "~%" if share else "~g"},
        }
    )


def _faint(number: int) -> str:
    red, green, blue = bytes.fromhex(colour(number)[1:])
    return f"rgba({red},{green},{blue},0.15)"


def _plain(name: str) -> str:
    """A name that plotly shows as it is."""
    return html.escape(name, quote=False)
