"""Learned step sizes of the inner loop, sorted."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from leo_lightning.common.figure_style import COLOURS, REFERENCE, WIDTH
from leo_lightning.learners.general_leo import GeneralLEO
from leo_lightning.learners.learner import Learner
from leo_lightning.learners.leo import LEO
from leo_lightning.learners.maml_regression import MAMLRegression
from leo_lightning.learners.meta_sgd import MetaSGD
from leo_lightning.runs.pictures.view import Picture, View

SHOWN = 1000
"""At most so many of a kind: of more, evenly spaced ones."""
HEADER = ["rates", "rank", "entry", "rate"]


class Rates(NamedTuple):
    """Step sizes of one kind."""

    values: Tensor
    per: str
    """What each belongs to."""
    initial: float
    """What all began with."""


def draw(view: View) -> Picture | None:
    """A curve for each kind of rate; None for a learner that learns none."""
    kinds = learned_rates(view.learner)
    if not kinds:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 2.8))
    rows: list[list[object]] = []
    for ax, (name, rates) in zip(
        figure.subplots(1, len(kinds), squeeze=False)[0], kinds.items(), strict=True
    ):
        values, entries = rates.values.detach().flatten().double().cpu().sort(descending=True, stable=True)
        count = len(values)
        ranks = torch.linspace(0, count - 1, min(count, SHOWN), dtype=torch.float64).round().long()
        shown, numbers = values[ranks].tolist(), (ranks + 1).tolist()
        rows += [[name, *row] for row in zip(numbers, entries[ranks].tolist(), shown, strict=True)]
        ax.plot(
            numbers, shown, color=COLOURS[0], marker="." if count == 1 else "", linewidth=1.6, label="learned"
        )
        ax.axhline(rates.initial, color=REFERENCE, linewidth=1.0, linestyle=(0, (5, 1.5)), label="initial")
        if values[-1] < 0:
            ax.axhline(0, color="#888888", linewidth=0.6)
        ax.set_title(f"{name}: mean {values.mean():.3g}, {values[-1]:.3g} to {values[0]:.3g}")
        ax.set_xlabel(f"{count:,} {rates.per}, sorted")
        ax.ticklabel_format(axis="y", useOffset=False)
    figure.axes[0].set_ylabel("step size")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return Picture([HEADER, *rows], figure)


def learned_rates(learner: Learner) -> Mapping[str, Rates]:
    """By name; empty where none is learned."""
    found: dict[str, Rates] = {}
    if isinstance(learner, LEO):
        if learner.alpha is not None:
            found["α"] = Rates(learner.alpha, "latent dimensions", learner.latent_lr)
        if learner.eta is not None:
            found["η"] = Rates(learner.eta, "embedding dimensions", learner.finetuning_lr)
    elif isinstance(learner, GeneralLEO):
        if learner.alpha is not None:
            found["α"] = _multiples(learner.alpha, "latent dimensions", learner.latent_lr)
        if learner.eta is not None:
            found["η"] = _multiples(learner.eta, "parameters", learner.finetuning_lr)
    elif isinstance(learner, MAMLRegression) and learner.alpha is not None:
        found["α"] = _multiples(learner.alpha, "parameters", learner.inner_lr)
    elif isinstance(learner, MetaSGD):
        for name, rate in zip(("hidden layer", "head"), learner.rates(), strict=True):
            parts = [part.flatten() for part in rate if isinstance(part, Tensor)]
            found[name] = Rates(torch.cat(parts), "weights and biases", learner.inner_lr)
    return found


def _multiples(of: Tensor, per: str, initial: float) -> Rates:
    """Rates that are learned as multiples of what they began with."""
    return Rates(initial * of, per, initial)
