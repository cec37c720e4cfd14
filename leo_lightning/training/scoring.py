"""Accuracy, cross-entropy and reliability of classifiers on the queries of their tasks."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from leo_lightning.data.episode import Episode
from leo_lightning.learners.learner import Classifier, LinearClassifier
from leo_lightning.learners.parts.query_set import QuerySet, answered

BINS = 15
"""Bins of confidence, of equal width, in which hits are compared with confidence."""


class Scores(NamedTuple):
    """Scores of S classifiers on the queries of B tasks."""

    accuracy: Float64[Tensor, "B S"]
    """Fraction of a task's queries that each classifier gets right; float64, so that a mean has no noise."""
    cross_entropy: Float64[Tensor, " B"]
    """Mean over a task's queries, of the classifier named `final`."""
    reliability: Float64[Tensor, "bins 3"]
    """By bin of `final`'s confidence: number of queries, sum of their confidences, number of hits."""


class ShiftedClassifier(NamedTuple):
    """A linear classifier whose bias differs between the M queries that it is made for."""

    weight: Float[Tensor, "B N E"]
    bias: Float[Tensor, "B N M"]


def score(classifiers: Mapping[str, Classifier | ShiftedClassifier], episode: Episode) -> Scores:
    """Score the classifiers of an episode's tasks; where two classes tie, the earlier one is the answer."""
    if episode.pool is not None:
        return _score_pool(classifiers, episode)
    B, N, Q, _ = episode.query.shape
    device = episode.query.device
    valid = None if episode.valid is None else episode.valid.flatten(1)
    logits = _logits(list(classifiers.values()), episode.query.flatten(1, 2), valid)
    of_own_class = logits.unflatten(3, (N, Q)).diagonal(dim1=2, dim2=3)
    own = of_own_class.clone().transpose(2, 3).flatten(2)
    of_own_class.fill_(-torch.inf)
    label = torch.arange(N, device=device).repeat_interleave(Q)
    sums = _Sums(B, list(classifiers), device)
    earlier = torch.arange(N, device=device)[:, None] < label
    counted = None if valid is None else valid.double()
    sums.add(torch.arange(B, device=device), logits.sub_(own[:, :, None]), earlier, counted)
    return sums.scores()


def _score_pool(classifiers: Mapping[str, Classifier | ShiftedClassifier], episode: Episode) -> Scores:
    """Score class by class: all images of a class, and the classifiers of all tasks that have it, at once.

    So no classifier sees a task's queries together: `MetaLearner.check_data` has refused those that must.
    """
    pool, rows = episode.pool, episode.rows
    assert pool is not None
    assert rows is not None
    assert rows.classes is not None
    (B, N), device = rows.classes.shape, episode.support.device
    sums = _Sums(B, list(classifiers), device)
    differences = _Differences.of(list(classifiers.values()))
    for number in rows.classes.unique().tolist():
        tasks, slots = (part.to(device) for part in (rows.classes == number).nonzero(as_tuple=True))
        images = pool.images(number)
        others = (slots[:, None] + torch.arange(1, N, device=device)) % N
        counted = torch.ones(len(tasks), len(images), dtype=torch.float64, device=device)
        support = rows.support[tasks, slots] - pool.offsets[number].to(device)
        margins = differences(tasks, slots, others, images)
        earlier = (others < slots[:, None])[:, None, :, None]
        sums.add(tasks, margins, earlier, counted.scatter_(1, support, 0.0))
    return sums.scores()


class _Differences(NamedTuple):
    """How far the logits of other classes are above that of the images' own class."""

    weight: Float[Tensor, "classes S E"] | None
    """Weights and bias of S linear classifiers for the B·N classes of the tasks; None: there are others."""
    bias: Float[Tensor, "classes S"] | None
    classifiers: list[Classifier]

    @classmethod
    def of(cls, classifiers: Sequence[Classifier | ShiftedClassifier]) -> "_Differences":
        """Of the classifiers of B tasks."""
        assert not any(isinstance(each, QuerySet | ShiftedClassifier) for each in classifiers)
        linear = [each for each in classifiers if isinstance(each, LinearClassifier)]
        if len(linear) < len(classifiers):
            return cls(None, None, list(classifiers))  # pyright: ignore[reportArgumentType]
        weight = torch.stack([each.weight for each in linear], dim=2)
        zero = weight.new_zeros(weight.shape[:2])
        bias = torch.stack([zero if each.bias is None else each.bias for each in linear], dim=2)
        return cls(weight.flatten(0, 1), bias.flatten(0, 1), [])

    def __call__(
        self,
        tasks: Int64[Tensor, " P"],
        slots: Int64[Tensor, " P"],
        others: Int64[Tensor, "P others"],
        images: Float[Tensor, "M E"],
    ) -> Float[Tensor, "P S others M"]:
        """Of the M images of a class, which P tasks have at their `slots`.

        The difference of two linear classifiers is linear, too: one product serves all tasks.
        """
        if self.weight is None or self.bias is None:
            logits = _logits([each.select(tasks) for each in self.classifiers], images[None], None)
            rows = torch.arange(len(tasks), device=tasks.device)
            own = logits[rows, :, slots]
            return logits[rows[:, None], :, others].transpose(1, 2) - own[:, :, None]
        P, N = others.shape[0], others.shape[1] + 1
        own, others = tasks * N + slots, (tasks[:, None] * N + others).flatten()
        weight, bias = (
            part.index_select(0, others).unflatten(0, (P, -1)) - part.index_select(0, own)[:, None]
            for part in (self.weight, self.bias)
        )
        margins = torch.addmm(bias.flatten()[:, None], weight.flatten(0, 2), images.T)
        return margins.view(*bias.shape, -1).transpose(1, 2)


class _Sums:
    """Sums over the queries of B tasks."""

    def __init__(self, tasks: int, stages: Sequence[str], device: torch.device) -> None:
        self.final = stages.index("final")
        self.hits = torch.zeros(tasks, len(stages), dtype=torch.float64, device=device)
        self.nll = torch.zeros(tasks, dtype=torch.float64, device=device)
        self.queries = torch.zeros(tasks, dtype=torch.float64, device=device)
        self.reliability = torch.zeros(BINS, 3, dtype=torch.float64, device=device)

    def add(
        self,
        tasks: Int64[Tensor, " P"],
        margins: Float[Tensor, "P S others M"],
        earlier: Bool[Tensor, "*#shape"],
        counted: Float64[Tensor, "P M"] | None,
    ) -> None:
        """Count the queries whose own class is above all others.

        Args:
            tasks: numbers of P of the B tasks.
            margins: logits of the other classes minus that of the query's own, for M queries of each task;
                -inf for a class that is to be left out.
            earlier: whether a class comes before the query's own.
            counted: 1 for a query, 0 for padding or an image of the support; None: all are queries.
        """
        # an earlier class wins a tie, as if it were a trifle above
        top = (margins + 1e-30 * earlier).amax(2)
        right = (top <= 0).double()
        peak = top[:, self.final].clamp_min(0.0)  # the own class has the margin 0
        total = (margins[:, self.final] - peak[:, None]).exp_().sum(1) + peak.neg().exp_()
        confidence, nll = total.reciprocal().double(), (total.log() + peak).double()
        weight = torch.ones_like(nll) if counted is None else counted
        self.hits.index_add_(0, tasks, (right * weight[:, None]).sum(2))
        self.nll.index_add_(0, tasks, (nll * weight).sum(1))
        self.queries.index_add_(0, tasks, weight.sum(1))
        bins = (confidence * BINS).ceil_().long().sub_(1).clamp_(0, BINS - 1).flatten()
        for column, part in enumerate((weight, weight * confidence, weight * right[:, self.final])):
            self.reliability[:, column] += torch.bincount(bins, part.flatten(), minlength=BINS)

    def scores(self) -> Scores:
        """Means over the queries of each task."""
        return Scores(self.hits / self.queries[:, None], self.nll / self.queries, self.reliability)


def _logits(
    classifiers: Sequence[Classifier | ShiftedClassifier],
    query: Float[Tensor, "#B M E"],
    valid: Bool[Tensor, "B M"] | None,
) -> Float[Tensor, "B S N M"]:
    """Logits of S classifiers, with classes in rows, so that what follows runs along the queries."""
    linear = [each for each in classifiers if isinstance(each, LinearClassifier | ShiftedClassifier)]
    images = query.transpose(1, 2)
    if len(linear) == len(classifiers):
        weight = torch.stack([each.weight for each in linear], dim=1)
        logits = (weight.flatten(1, 2) @ images).unflatten(1, weight.shape[1:3])  # one product for all
    else:
        logits = torch.stack([
            each.weight @ images
            if isinstance(each, LinearClassifier | ShiftedClassifier)
            else answered(each, query, valid).transpose(1, 2)
            for each in classifiers
        ], dim=1)  # fmt: skip
    for own, each in zip(logits.unbind(1), classifiers, strict=True):
        if isinstance(each, ShiftedClassifier):
            own += each.bias
        elif isinstance(each, LinearClassifier) and each.bias is not None:
            own += each.bias[..., None]
    return logits
