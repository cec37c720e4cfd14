"""Functions that LEO samples for sines and lines, two of them ambiguous (Figure 2 of the paper)."""

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from leo_lightning.common.errors import InputError, check_least
from leo_lightning.common.figure_style import COLOURS, REFERENCE, WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    from leo_lightning.commands.figures.subject import Subject
    from leo_lightning.learners.general_leo import GeneralLEO

CLEAR, AMBIGUOUS = 0.999, 0.3
"""Probability given the support, of the true family: at least, where a task is clear. Of either family: at
least, where it is ambiguous."""
VISIBLE = 1.0
"""Mean squared distance of what the families say of an ambiguous task."""
EXPLAINED = 0.75
"""Share of a sample's variance: at least, by the closest function of its family."""
MIXED = 0.1
"""Share of samples of either family: at least, where they are of both."""
POINTS = 101
"""Inputs at which functions are drawn."""
TRUE = {"color": REFERENCE, "linewidth": 1.8, "linestyle": (0, (4, 1.5))}
NEITHER = "neither"
FAMILY_COLOURS = {"sine": COLOURS[0], "line": COLOURS[1], NEITHER: "#999999"}


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
    families: list[str]
    """Of each sample."""


def draw(subject: "Subject", tasks: int = 10000, samples: int = 50) -> tuple["Figure", list[list[Any]]]:
    """Four panels: a clear sine, a clear line, an ambiguous sine, an ambiguous line.

    Clear and ambiguous is what the support leaves to an observer who knows how tasks are made. Of the clear
    tasks of a family that one is drawn which LEO gets right as well as half of them; of the ambiguous ones,
    where the families differ visibly elsewhere, the one whose samples are divided most as the observer
    divides his belief. A sample is of a family if the closest function of that explains most of how it
    varies, and more than the other family does.
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
    from leo_lightning.data.functions import FAMILIES, sample_functions
    from leo_lightning.learners.general_leo import GeneralLEO
    from leo_lightning.training.ideal_observer import predict

    learner, data = subject.learner, subject.data
    if not isinstance(learner, GeneralLEO) or not isinstance(data, FunctionDataModule):
        raise InputError(
            f"{subject.name}: holds a {type(learner).__name__}; the figure is about LEO for "
            "functions, so name a checkpoint of configs/regression.yaml"
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
            families = _families(sampled, x)
            share = torch.stack([families == each for each in range(len(FAMILIES))], dim=2).double().mean(1)
            if kind == "ambiguous":
                both = int((share.amin(1) >= MIXED).sum())
                what = f"samples are of both families in {both} of {len(found)} tasks"
                print(f"{kind:11} {family}: {what}", flush=True)
            best = int((share - belief.weight[found]).abs().sum(1).argmin())
            task = int(found[best])
            yield _Panel(
                task=task,
                family=family,
                kind=kind,
                sine=belief.weight[task, 0].item(),
                support=support[task, 0],
                true=values[task],
                samples=sampled[best],
                families=[(*FAMILIES, NEITHER)[each] for each in families[best].tolist()],
            )


def _sampled(learner: "GeneralLEO", support: "Tensor", query: "Tensor", samples: int) -> "Tensor":
    """Functions sampled for each task, at the queries: (tasks, samples, M)."""
    import torch

    asked = query.expand(len(support), -1, -1, -1)
    with torch.inference_mode():
        return torch.stack([each(asked)[:, 0, :, 0] for each in learner.samples(support, samples)], dim=1)


def _families(values: "Tensor", x: "Tensor") -> "Tensor":
    """Number of the family that each function is of, by least squares; one more: of neither."""
    import torch

    distances = []
    for basis in ([x.sin(), x.cos()], [x, torch.ones_like(x)]):  # sines, lines
        features = torch.stack(basis, dim=1)
        projection = features @ torch.linalg.pinv(features)
        distances.append((values @ projection - values).square().mean(-1))
    least, family = torch.stack(distances).min(0)
    return torch.where(least <= (1 - EXPLAINED) * values.var(-1, correction=0), family, len(distances))


def _draw_panel(ax: "Axes", panel: _Panel, x: "Tensor") -> None:
    for values, family in zip(panel.samples.tolist(), panel.families, strict=True):
        look = {"color": FAMILY_COLOURS[family], "linewidth": 0.6, "alpha": 0.6, "rasterized": True}
        ax.plot(x.tolist(), values, **look)
    ax.plot(x.tolist(), panel.true.tolist(), **TRUE)
    ax.plot(*panel.support.T.tolist(), "o", color=REFERENCE, markersize=5, markeredgecolor="white", zorder=4)
    sines, lines = (panel.families.count(family) for family in ("sine", "line"))
    said = f"p(sine) {panel.sine:.2f}: {sines} sines, {lines} lines"
    ax.set_title(f"{panel.kind} {panel.family}, {said}", fontsize=8)
    middle = panel.samples.double().quantile(panel.samples.new_tensor([0.05, 0.95]).double(), dim=0)
    ends = [*panel.true.tolist(), *panel.support[:, 1].tolist(), *middle.flatten().tolist()]
    margin = 0.15 * max(max(ends) - min(ends), 2.0)
    ax.set(ylim=(min(ends) - margin, max(ends) + margin), xlim=(x[0].item(), x[-1].item()))


def _legend(figure: "Figure") -> None:
    from matplotlib.lines import Line2D

    points = {"color": REFERENCE, "marker": "o", "markersize": 5, "linestyle": ""}
    lines = [Line2D([], [], label="true function", **TRUE), Line2D([], [], label="support", **points)]
    for family, colour in FAMILY_COLOURS.items():
        what = "of neither family" if family == NEITHER else f"like a {family}"
        lines.append(Line2D([], [], color=colour, label=f"sample {what}"))
    figure.legend(handles=lines, loc="outside upper center", ncols=5, columnspacing=1.2, handlelength=1.6)


def _rows(panels: Sequence[_Panel], x: "Tensor") -> list[list[Any]]:
    count = len(panels[0].families)
    rows: list[list[Any]] = [
        ["task", "family", "p_sine", "what", "x", "value", *(f"sample_{number}" for number in range(count))]
    ]
    for panel in panels:
        begin, none = [panel.task, panel.family, panel.sine], [""] * count
        rows += [[*begin, "support", *point, *none] for point in panel.support.tolist()]
        rows.append([*begin, "family", "", panel.family, *panel.families])
        values = zip(x.tolist(), panel.true.tolist(), panel.samples.T.tolist(), strict=True)
        rows += [[*begin, "function", at, true, *sampled] for at, true, sampled in values]
    return rows
