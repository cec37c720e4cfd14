"""Functions that LEO samples for sines and lines, two of them ambiguous (Figure 2 of the paper)."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from leo_lightning.commands.figures.subject import Subject
from leo_lightning.common.errors import InputError
from leo_lightning.common.figure_style import COLOURS, REFERENCE, WIDTH
from leo_lightning.data.function_data import FunctionDataModule
from leo_lightning.data.functions import FAMILIES, RANGE, sample_functions
from leo_lightning.learners.general_leo import GeneralLEO
from leo_lightning.training.ideal_observer import predict

CLEAR, AMBIGUOUS = 0.999, 0.3
"""Least probability given the support: of the true family in a clear task, of either in an ambiguous one."""
VISIBLE = 1.0  # least mean squared distance between both families' predictions in an ambiguous task
EXPLAINED = 0.75  # least share of a sample's variance that the closest function of its family explains
MIXED = 0.1  # least share of samples from either family where samples are of both
POINTS = 101  # inputs at which functions are drawn
TRUE = {"color": REFERENCE, "linewidth": 1.8, "linestyle": (0, (4, 1.5))}
NEITHER = "neither"
FAMILY_COLOURS = {"sine": COLOURS[0], "line": COLOURS[1], NEITHER: "#999999"}


class _Panel(NamedTuple):
    """A task to draw."""

    task: int
    family: str
    kind: str  # clear or ambiguous
    sine: float  # probability of a sine, given the support
    support: Tensor  # points: (shot, 2)
    true: Tensor  # values of the true function: (POINTS,)
    samples: Tensor  # values of the sampled functions: (samples, POINTS)
    families: list[str]  # family of each sample


def draw(subject: Subject, tasks: int = 10000, samples: int = 50) -> tuple[Figure, list[list[Any]]]:
    """Four panels: a clear sine, a clear line, an ambiguous sine, an ambiguous line.

    A task is clear or ambiguous to an observer who knows how tasks are made and has seen the support. Of the
    clear tasks of a family, the figure shows the one with LEO's median error. Of the ambiguous tasks whose
    families differ visibly elsewhere, it shows the one whose samples are divided most like the observer's
    belief. A sample belongs to the family whose closest function explains more of its variance, if that
    explains most of it.
    """
    x = torch.linspace(-RANGE, RANGE, POINTS, dtype=torch.float64)
    panels = list(_panels(subject, tasks, samples, x))
    figure = Figure(figsize=(WIDTH, 4.6))
    for ax, panel in zip(figure.subplots(2, 2, sharex=True).flat, panels, strict=True):
        _draw_panel(ax, panel, x)
    figure.supxlabel("x", fontsize=9)
    figure.supylabel("f(x)", fontsize=9)
    points = {"color": REFERENCE, "marker": "o", "markersize": 5, "linestyle": ""}
    handles = [Line2D([], [], label="true function", **TRUE), Line2D([], [], label="support", **points)]
    for family, colour in FAMILY_COLOURS.items():
        label = "sample of neither family" if family == NEITHER else f"sample like a {family}"
        handles.append(Line2D([], [], color=colour, label=label))
    figure.legend(handles=handles, loc="outside upper center", ncols=5, columnspacing=1.2, handlelength=1.6)
    return figure, _table(panels, x)


def _panels(subject: Subject, tasks: int, samples: int, x: Tensor) -> Iterator[_Panel]:
    learner, data = subject.learner, subject.data
    if not isinstance(learner, GeneralLEO) or not isinstance(data, FunctionDataModule):
        raise InputError(
            f"{subject.name}: holds a {type(learner).__name__} for the tasks of {type(data).__name__}; this "
            "figure is about LEO for functions, sines and lines: name a checkpoint of configs/regression.yaml"
        )
    functions = sample_functions(range(tasks), data.eval_seed, "test")
    values = functions(x.expand(tasks, -1))
    query = torch.stack([x, torch.zeros_like(x)], dim=-1)[None, None]
    supports, errors = [], []
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
    for kind, of_kind in kinds.items():
        for number, family in enumerate(FAMILIES):
            (chosen,) = (of_kind & (functions.family == number)).nonzero(as_tuple=True)
            if not len(chosen):
                raise InputError(f"--tasks is {tasks}: no {kind} {family} is among them; raise it")
            if kind == "clear":
                chosen = chosen[error[chosen].argsort()[[(len(chosen) - 1) // 2]]]
            asked = query.expand(len(chosen), -1, -1, -1)
            sampled = torch.stack(
                [sample(asked)[:, 0, :, 0] for sample in learner.samples(support[chosen], samples)], dim=1
            )
            families = _families(sampled, x)
            share = torch.stack([families == index for index in range(len(FAMILIES))], dim=2).double().mean(1)
            if kind == "ambiguous":
                both = int((share.amin(1) >= MIXED).sum())
                line = f"samples are of both families in {both} of {len(chosen)} tasks"
                print(f"{kind:11} {family}: {line}", flush=True)
            best = int((share - belief.weight[chosen]).abs().sum(1).argmin())
            task = int(chosen[best])
            yield _Panel(
                task=task,
                family=family,
                kind=kind,
                sine=belief.weight[task, 0].item(),
                support=support[task, 0],
                true=values[task],
                samples=sampled[best],
                families=[(*FAMILIES, NEITHER)[index] for index in families[best].tolist()],
            )


def _families(values: Tensor, x: Tensor) -> Tensor:
    """Number of each function's family by least squares; the number of families for neither."""
    distances = []
    for basis in ([x.sin(), x.cos()], [x, torch.ones_like(x)]):  # sines, lines
        features = torch.stack(basis, dim=1)
        projection = features @ torch.linalg.pinv(features)
        distances.append((values @ projection - values).square().mean(-1))
    least, family = torch.stack(distances).min(0)
    return torch.where(least <= (1 - EXPLAINED) * values.var(-1, correction=0), family, len(distances))


def _draw_panel(ax: Axes, panel: _Panel, x: Tensor) -> None:
    for values, family in zip(panel.samples.tolist(), panel.families, strict=True):
        look = {"color": FAMILY_COLOURS[family], "linewidth": 0.6, "alpha": 0.6, "rasterized": True}
        ax.plot(x.tolist(), values, **look)
    ax.plot(x.tolist(), panel.true.tolist(), **TRUE)
    ax.plot(*panel.support.T.tolist(), "o", color=REFERENCE, markersize=5, markeredgecolor="white", zorder=4)
    counts = ", ".join(f"{panel.families.count(family)} {family}s" for family in FAMILIES)
    ax.set_title(f"{panel.kind} {panel.family}, p(sine) {panel.sine:.2f}: {counts}", fontsize=8)
    middle = panel.samples.double().quantile(panel.samples.new_tensor([0.05, 0.95]).double(), dim=0)
    ends = [*panel.true.tolist(), *panel.support[:, 1].tolist(), *middle.flatten().tolist()]
    margin = 0.15 * max(max(ends) - min(ends), 2.0)
    ax.set(ylim=(min(ends) - margin, max(ends) + margin), xlim=(x[0].item(), x[-1].item()))


def _table(panels: Sequence[_Panel], x: Tensor) -> list[list[Any]]:
    count = len(panels[0].families)
    table: list[list[Any]] = [
        ["task", "family", "p_sine", "what", "x", "value", *(f"sample_{number}" for number in range(count))]
    ]
    for panel in panels:
        begin, empty = [panel.task, panel.family, panel.sine], [""] * count
        table += [[*begin, "support", *point, *empty] for point in panel.support.tolist()]
        table.append([*begin, "family", "", panel.family, *panel.families])
        values = zip(x.tolist(), panel.true.tolist(), panel.samples.T.tolist(), strict=True)
        table += [[*begin, "function", at, true, *sampled] for at, true, sampled in values]
    return table
