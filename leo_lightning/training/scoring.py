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
    reliability: Float64[Tensor, "B bins 3"]
    """By bin of `final`'s confidence: number of queries, sum of their confidences, number of hits."""


def score(classifiers: Mapping[str, Classifier], episode: Episode) -> Scores:
    """Score the classifiers of an episode's tasks; where two classes tie, the earlier one is the answer."""
    if episode.pool is not None:
        return _score_pool(classifiers, episode)
    B, N, Q, _ = episode.query.shape
    device = episode.query.device
    valid = None if episode.valid is None else episode.valid.flatten(1)
    logits = _logits(list(classifiers.values()), episode.query.flatten(1, 2), valid)
    # a copy: with one query per class it would be a view of `logits`, which `add` changes
    own = logits.unflatten(3, (N, Q)).diagonal(dim1=2, dim2=3).transpose(2, 3).flatten(2).contiguous()
    label = torch.arange(N, device=device).repeat_interleave(Q)
    counted = None if valid is None else valid.double()
    sums = _Sums(B, list(classifiers), device)
    earlier = torch.arange(N, device=device)[:, None] < label
    sums.add(torch.arange(B, device=device), logits, own, earlier, counted)
    return sums.scores()


def _score_pool(classifiers: Mapping[str, Classifier], episode: Episode) -> Scores:
    """Score class by class: all images of a class, and the classifiers of all tasks that have it, at once.

    So no classifier sees a task's queries together: `MetaLearner.check_data` has refused those that must.
    """
    assert not any(isinstance(classifier, QuerySet) for classifier in classifiers.values())
    pool, rows = episode.pool, episode.rows
    assert pool is not None
    assert rows is not None
    assert rows.classes is not None
    (B, N), device = rows.classes.shape, episode.support.device
    sums = _Sums(B, list(classifiers), device)
    for number in rows.classes.unique().tolist():
        tasks, slots = (part.to(device) for part in (rows.classes == number).nonzero(as_tuple=True))
        images = pool.images(number)
        logits = _logits(
            [classifier.select(tasks) for classifier in classifiers.values()], images[None], None
        )
        own = logits[torch.arange(len(tasks), device=device), :, slots]
        earlier = torch.arange(N, device=device) < slots[:, None]
        counted = torch.ones(len(tasks), len(images), dtype=torch.float64, device=device)
        support = rows.support[tasks, slots] - pool.offsets[number].to(device)
        sums.add(tasks, logits, own, earlier[:, None, :, None], counted.scatter_(1, support, 0.0))
    return sums.scores()


class _Sums:
    """Sums over the queries of B tasks."""

    def __init__(self, tasks: int, stages: Sequence[str], device: torch.device) -> None:
        self.final = stages.index("final")
        self.hits = torch.zeros(tasks, len(stages), dtype=torch.float64, device=device)
        self.nll = torch.zeros(tasks, dtype=torch.float64, device=device)
        self.reliability = torch.zeros(tasks * BINS, 3, dtype=torch.float64, device=device)

    def add(
        self,
        tasks: Int64[Tensor, " P"],
        logits: Float[Tensor, "P S N M"],
        own: Float[Tensor, "P S M"],
        earlier: Bool[Tensor, "*#shape"],
        counted: Float64[Tensor, "P M"] | None,
    ) -> None:
        """Compare the logit of each query's own class with the others; changes `logits`.

        Args:
            tasks: numbers of P of the B tasks.
            logits: of N classes, for M queries of each task.
            own: logits of the queries' own classes.
            earlier: whether a class comes before the query's own.
            counted: 1 for a query, 0 for padding or an image of the support; None: all are queries.
        """
        logits -= own[:, :, None]
        # an earlier class wins a tie, as if it were a trifle above
        top = (logits + 1e-30 * earlier).amax(2)
        total = (logits[:, self.final] - top[:, self.final, None]).exp_().sum(1)
        right, confidence = (top <= 0).double(), total.reciprocal()
        nll = (total.log() + top[:, self.final]).double()
        weight = torch.ones_like(nll) if counted is None else counted
        self.hits.index_add_(0, tasks, (right * weight[:, None]).sum(2))
        self.nll.index_add_(0, tasks, (nll * weight).sum(1))
        bins = (confidence * BINS).ceil_().long().sub_(1).clamp_(0, BINS - 1) + tasks[:, None] * BINS
        columns = (weight, weight * confidence, weight * right[:, self.final])
        self.reliability.index_add_(0, bins.flatten(), torch.stack(columns, dim=2).flatten(0, 1))

    def scores(self) -> Scores:
        """Means over the queries of each task."""
        reliability = self.reliability.unflatten(0, (-1, BINS))
        count = reliability[..., 0].sum(1)
        return Scores(self.hits / count[:, None], self.nll / count, reliability)


def _logits(
    classifiers: Sequence[Classifier], query: Float[Tensor, "#B M E"], valid: Bool[Tensor, "B M"] | None
) -> Float[Tensor, "B S N M"]:
    """Logits of S classifiers, with classes in rows, so that what follows runs along the queries."""
    linear = [classifier for classifier in classifiers if isinstance(classifier, LinearClassifier)]
    if len(linear) < len(classifiers):
        logits = [answered(classifier, query, valid).transpose(1, 2) for classifier in classifiers]
        return torch.stack(logits, dim=1)
    weight = torch.stack([classifier.weight for classifier in linear], dim=1)
    zero = weight.new_zeros(weight.shape[0], weight.shape[2])
    bias = torch.stack([zero if one.bias is None else one.bias for one in linear], dim=1)
    # one product for all classifiers
    if len(query) == 1:
        logits = weight.flatten(0, 2) @ query[0].T
    else:
        logits = torch.bmm(weight.flatten(1, 2), query.transpose(1, 2))
    return logits.view(*weight.shape[:3], -1).add_(bias[..., None])
