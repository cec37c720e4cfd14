"""Functions that LEO samples for sines and lines, two of them ambiguous (Figure 2 of the paper)."""

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from leo_lightning.errors import InputError, check_least
from leo_lightning.figure_style import COLOURS, REFERENCE, WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    from leo_lightning.figures.subject import Subject
    from leo_lightning.learners.general_leo import GeneralLEO

CLEAR, AMBIGUOUS = 0.999, 0.3
"""Probability given the support, of the true family: at least, where a task is clear. Of either family: at
least, where it is ambiguous."""
VISIBLE = 1.0
"""Mean squared distance of what the families say of an ambiguous task."""
MIXED = 0.1
"""Share of samples of either family: at least, where they are of both."""
POINTS = 101
"""Inputs at which functions are drawn."""
TRUE = {"color": REFERENCE, "linewidth": 1.8, "linestyle": (0, (4, 1.5))}
FAMILY_COLOURS: dict[str, str] = {"sine": COLOURS[0], "line": COLOURS[1]}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this figure's options."""
    add = parser.add_argument
    add("--tasks", type=int, default=10000, metavar="N", help="test tasks to find four in (default: 10000)")
    add("--samples", type=int, default=50, metavar="N", help="functions sampled for a task (default: 50)")


class _Panel(NamedTuple):
    """A task, and what is drawn of it."""

    task: int
    family: str
    kind: str
    sine: float
    """Probability of a sine, given the support."""
    support: "Tensor"
    """Of each point, x and the value there."""
    true: "Tensor"
    samples: "Tensor"
    closest: list[str]
    """Family of each sample."""


def draw(subject: "Subject", tasks: int = 10000, samples: int = 50) -> tuple["Figure", list[list[Any]]]:
    """Four panels: a clear sine, a clear line, an ambiguous sine, an ambiguous line.

    Clear and ambiguous is what the support leaves to an observer who knows how tasks are made. Of the clear
    tasks of a family that one is drawn which LEO gets right as well as half of them; of the ambiguous ones,
    where the families differ visibly elsewhere, the one whose samples are divided most as the observer
    divides his belief. The colour of a sample is that of the family that has the function closest to it.
    """
    import torch
    from matplotlib.figure import Figure

    from leo_lightning.data.functions import RANGE

    check_least(1, {"--samples": samples})
    x = torch.linspace(-RANGE, RANGE, POINTS, dtype=torch.float64)
    panels = list(_panels(subject, tasks, samples, x))
    figure = Figure(figsize=(WIDTH, 4.6))
    for ax, panel in zip(figure.subplots(2, 2, sharex=True).flat, panels, strict=True):
        _draw_panel(ax, panel, x)
    figure.supxlabel("x", fontsize=9)
    figure.supylabel("f(x)", fontsize=9)
    _legend(figure)
    return figure, _rows(panels, x)


def _panels(subject: "Subject", tasks: int, samples: int, x: "Tensor") -> Iterator[_Panel]:
    import torch

    from leo_lightning.data.function_data import FunctionDataModule
    from leo_lightning.data.function_posterior import predict
    from leo_lightning.data.functions import FAMILIES, sample_functions
    from leo_lightning.learners.general_leo import GeneralLEO

    learner, data = subject.learner, subject.data
    if not isinstance(learner, GeneralLEO) or not isinstance(data, FunctionDataModule):
        raise InputError(
            f"{subject.name}: holds a {type(learner).__name__}; the figure is about functions that a LEO "
            "samples, so name a checkpoint of configs/regression.yaml"
        )
    supports, errors = [], []
    functions = sample_functions(range(tasks), data.eval_seed, "test")
    values = functions(x.expand(tasks, -1))
    query = torch.stack([x, torch.zeros_like(x)], dim=-1)[None, None]
    with torch.inference_mode():
        for episode in subject.episodes("test", range(tasks)):
            assert episode.rows is not None
            answer = learner.adapt(episode.support)(query.expand(len(episode.support), -1, -1, -1))
            errors.append((answer[:, 0, :, 0] - values[episode.rows.task]).square().mean(1))
            supports.append(episode.support)
    support, error = torch.cat(supports), torch.cat(errors)
    belief = predict(support[:, 0], x.expand(tasks, -1), data.noise)
    right = belief.weight.gather(1, functions.family[:, None])[:, 0]
    apart = (belief.mean[:, 0] - belief.mean[:, 1]).square().mean(1)
    kinds = {
        "clear": right >= CLEAR,
        "ambiguous": (belief.weight.amin(1) >= AMBIGUOUS) & (apart >= VISIBLE),
    }
    for kind, wanted in kinds.items():
        for number, family in enumerate(FAMILIES):
            (found,) = (wanted & (functions.family == number)).nonzero(as_tuple=True)
            if not len(found):
                raise InputError(f"--tasks is {tasks}: no {kind} {family} is among them; raise it")
            if kind == "clear":
                found = found[error[found].argsort()[[(len(found) - 1) // 2]]]
            sampled = _sampled(learner, support[found], query, samples)
            closest = _closest(sampled, x)
            sine = belief.weight[found, 0]
            share = (closest == FAMILIES.index("sine")).double().mean(1)
            if kind == "ambiguous":
                both = int(((share >= MIXED) & (share <= 1 - MIXED)).sum())
                what = f"samples are of both families in {both} of {len(found)} tasks"
                print(f"{kind:11} {family}: {what}", flush=True)
            best = int((share - sine).abs().argmin())
            task = int(found[best])
            yield _Panel(
                task=task,
                family=family,
                kind=kind,
                sine=sine[best].item(),
                support=support[task, 0],
                true=values[task],
                samples=sampled[best],
                closest=[FAMILIES[each] for each in closest[best].tolist()],
            )


def _sampled(learner: "GeneralLEO", support: "Tensor", query: "Tensor", samples: int) -> "Tensor":
    """Functions sampled for each task, at the queries: (tasks, samples, M)."""
    import torch

    asked = query.expand(len(support), -1, -1, -1)
    with torch.inference_mode():
        return torch.stack([each(asked)[:, 0, :, 0] for each in learner.samples(support, samples)], dim=1)


def _closest(values: "Tensor", x: "Tensor") -> "Tensor":
    """Number of the family with the function closest to each, by squared distance."""
    import torch

    distances = []
    for basis in ([x.sin(), x.cos()], [x, torch.ones_like(x)]):  # sines, lines
        features = torch.stack(basis, dim=1)
        projection = features @ torch.linalg.pinv(features)
        distances.append((values @ projection - values).square().mean(-1))
    return torch.stack(distances).argmin(0)


def _draw_panel(ax: "Axes", panel: _Panel, x: "Tensor") -> None:
    for values, family in zip(panel.samples.tolist(), panel.closest, strict=True):
        look = {"color": FAMILY_COLOURS[family], "linewidth": 0.6, "alpha": 0.6, "rasterized": True}
        ax.plot(x.tolist(), values, **look)
    ax.plot(x.tolist(), panel.true.tolist(), **TRUE)
    ax.plot(*panel.support.T.tolist(), "o", color=REFERENCE, markersize=5, markeredgecolor="white", zorder=4)
    share = panel.closest.count("sine") / len(panel.closest)
    ax.set_title(f"{panel.kind} {panel.family}: p(sine) {panel.sine:.2f}, samples {share:.2f}")
    ends = [*panel.true.tolist(), *panel.support[:, 1].tolist()]
    margin = 0.35 * max(max(ends) - min(ends), 2.0)
    ax.set(ylim=(min(ends) - margin, max(ends) + margin), xlim=(x[0].item(), x[-1].item()))


def _legend(figure: "Figure") -> None:
    from matplotlib.lines import Line2D

    points = {"color": REFERENCE, "marker": "o", "markersize": 5, "linestyle": ""}
    lines = [Line2D([], [], label="true function", **TRUE), Line2D([], [], label="support", **points)]
    for family, colour in FAMILY_COLOURS.items():
        lines.append(Line2D([], [], color=colour, label=f"sample, closest to a {family}"))
    figure.legend(handles=lines, loc="outside upper center", ncols=4)


def _rows(panels: Sequence[_Panel], x: "Tensor") -> list[list[Any]]:
    count = len(panels[0].closest)
    rows: list[list[Any]] = [
        ["task", "family", "p_sine", "what", "x", "value", *(f"sample_{number}" for number in range(count))]
    ]
    for panel in panels:
        begin, none = [panel.task, panel.family, panel.sine], [""] * count
        rows += [[*begin, "support", *point, *none] for point in panel.support.tolist()]
        rows.append([*begin, "family", "", panel.family, *panel.closest])
        values = zip(x.tolist(), panel.true.tolist(), panel.samples.T.tolist(), strict=True)
        rows += [[*begin, "function", at, true, *sampled] for at, true, sampled in values]
    return rows
