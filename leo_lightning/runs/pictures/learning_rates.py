"""Learned step sizes of the inner loop, sorted."""

from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from leo_lightning.common.figure_style import COLOURS, REFERENCE, WIDTH
from leo_lightning.learners.general_leo import GeneralLEO
from leo_lightning.learners.learner import Learner
from leo_lightning.learners.leo import LEO
from leo_lightning.learners.maml_regression import MAMLRegression
from leo_lightning.learners.meta_sgd import MetaSGD
from leo_lightning.runs.pictures.view import Picture, View

SHOWN = 1000  # most rates drawn in a panel, evenly spaced among all
HEADER: list[Any] = ["rates", "rank", "entry", "rate"]


class Rates(NamedTuple):
    """Step sizes of one kind."""

    values: Tensor
    per: str  # what has a rate each
    initial: float


def draw(view: View) -> Picture | None:
    """A curve for each kind of rate; None for a learner that learns no rates."""
    learned = learned_rates(view.learner)
    if not learned:
        return None
    figure = Figure(figsize=(WIDTH, 2.8))
    table: list[list[object]] = [HEADER]
    axes = figure.subplots(1, len(learned), squeeze=False)[0]
    for ax, (name, rates) in zip(axes, learned.items(), strict=True):
        values, entries = rates.values.detach().flatten().double().cpu().sort(descending=True, stable=True)
        count = len(values)
        ranks = torch.linspace(0, count - 1, min(count, SHOWN), dtype=torch.float64).round().long()
        x, y = (ranks + 1).tolist(), values[ranks].tolist()
        table += [[name, *row] for row in zip(x, entries[ranks].tolist(), y, strict=True)]
        ax.plot(x, y, color=COLOURS[0], marker="." if count == 1 else "", linewidth=1.6, label="learned")
        ax.axhline(rates.initial, color=REFERENCE, linewidth=1.0, linestyle=(0, (5, 1.5)), label="initial")
        if values[-1] < 0:
            ax.axhline(0, color="#888888", linewidth=0.6)
        ax.set_title(f"{name}: mean {values.mean():.3g}, {values[-1]:.3g} to {values[0]:.3g}")
        ax.set_xlabel(f"{count:,} {rates.per}, sorted")
        ax.ticklabel_format(axis="y", useOffset=False)
    axes[0].set_ylabel("step size")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return Picture(table, figure)


def learned_rates(learner: Learner) -> dict[str, Rates]:
    """Learned rates by name."""
    if isinstance(learner, MetaSGD):
        rates = {}
        for name, layer in zip(("hidden layer", "head"), learner.rates(), strict=True):
            parts = [part.flatten() for part in layer if isinstance(part, Tensor)]
            rates[name] = Rates(torch.cat(parts), "weights and biases", learner.inner_lr)
        return rates
    named: dict[str, tuple[Tensor | None, str, float]] = {}
    if isinstance(learner, LEO | GeneralLEO):
        weights = "embedding dimensions" if isinstance(learner, LEO) else "parameters"
        named["α"] = (learner.alpha, "latent dimensions", learner.latent_lr)
        named["η"] = (learner.eta, weights, learner.finetuning_lr)
    elif isinstance(learner, MAMLRegression):
        named["α"] = (learner.alpha, "parameters", learner.inner_lr)
    return {
        # all but LEO learn multiples of the initial rate
        name: Rates(rate if isinstance(learner, LEO) else initial * rate, per, initial)
        for name, (rate, per, initial) in named.items()
        if rate is not None
    }
