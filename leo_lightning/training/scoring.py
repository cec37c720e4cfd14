"""Accuracy, cross-entropy and reliability of classifiers on the queries of their tasks."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from leo_lightning.data.episode import Episode
from leo_lightning.learners.learner import Classifier, LinearClassifier

BINS = 15
"""Bins of confidence, of equal width, in which hits are compared with confidence."""


class Scores(NamedTuple):
    """What S classifiers make of the queries of B tasks."""

    accuracy: Float64[Tensor, "B S"]
    """Share of a task's queries that each classifier gets right; float64, so that a mean has no noise."""
    cross_entropy: Float64[Tensor, " B"]
    """Mean over a task's queries, of the classifier named `final`."""
    reliability: Float64[Tensor, "B bins 3"]
    """Of `final`, by bin of confidence: number of queries, sum of their confidences, number of hits."""


class _Judgement(NamedTuple):
    """What is known of M queries."""

    right: Float64[Tensor, "P S M"]
    """1 where a classifier is right, else 0."""
    nll: Float64[Tensor, "P M"]
    """Loss by `final`."""
    confidence: Float[Tensor, "P M"]
    """Probability that `final` gives to its own answer."""

    def pick(self, queries: Int64[Tensor, "P k"]) -> "_Judgement":
        """The judgement of some of the queries."""
        right = self.right.gather(2, queries[:, None].expand(-1, self.right.shape[1], -1))
        return _Judgement(right, self.nll.gather(1, queries), self.confidence.gather(1, queries))


class _Sums:
    """Scores of B tasks as they add up."""

    def __init__(self, tasks: int, stages: Sequence[str], device: torch.device) -> None:
        self.final = stages.index("final")
        self.hits = torch.zeros(tasks, len(stages), dtype=torch.float64, device=device)
        self.nll = torch.zeros(tasks, dtype=torch.float64, device=device)
        self.reliability = torch.zeros(tasks * BINS, 3, dtype=torch.float64, device=device)

    def add(
        self,
        found: _Judgement,
        tasks: Int64[Tensor, " P"],
        counted: Float64[Tensor, "P M"] | None = None,
        sign: float = 1.0,
    ) -> None:
        """Add queries of some tasks, or with sign -1 take them away again.

        Args:
            found: of their queries.
            tasks: which of the B.
            counted: 0 for what is no query.
            sign: 1 or -1.
        """
        weight = torch.full_like(found.nll, sign) if counted is None else sign * counted
        self.hits.index_add_(0, tasks, (found.right * weight[:, None]).sum(2))
        self.nll.index_add_(0, tasks, (found.nll * weight).sum(1))
        bins = (found.confidence * BINS).ceil_().long().sub_(1).clamp_(0, BINS - 1)
        bins += tasks[:, None] * BINS
        columns = (weight, weight * found.confidence, weight * found.right[:, self.final])
        self.reliability.index_add_(0, bins.flatten(), torch.stack(columns, dim=2).flatten(0, 1))

    def scores(self) -> Scores:
        """Means over the queries of each task."""
        reliability = self.reliability.unflatten(0, (-1, BINS))
        count = reliability[..., 0].sum(1)
        return Scores(self.hits / count[:, None], self.nll / count, reliability)


def score(classifiers: Mapping[str, Classifier], episode: Episode) -> Scores:
    """Score the classifiers of an episode's tasks; where two classes tie, the earlier one is the answer."""
    if episode.pool is not None:
        return _score_pool(classifiers, episode)
    B, N, Q, _ = episode.query.shape
    device = episode.query.device
    logits = _logits(list(classifiers.values()), episode.query.flatten(1, 2))
    # a copy: with one query per class it would be a view of `logits`, which `_judge` changes
    own = logits.unflatten(3, (N, Q)).diagonal(dim1=2, dim2=3).transpose(2, 3).flatten(2).contiguous()
    label = torch.arange(N, device=device).repeat_interleave(Q)
    sums = _Sums(B, list(classifiers), device)
    found = _judge(logits, own, torch.arange(N, device=device)[:, None] < label, sums.final)
    counted = None if episode.valid is None else episode.valid.flatten(1).double()
    sums.add(found, torch.arange(B, device=device), counted)
    return sums.scores()


def _score_pool(classifiers: Mapping[str, Classifier], episode: Episode) -> Scores:
    """Class by class: all images of a class, and the classifiers of all tasks that have it, at once.

    What the images of the support add is taken away again.
    """
    pool, rows = episode.pool, episode.rows
    assert pool is not None
    assert rows is not None
    assert rows.classes is not None
    (B, N), device = rows.classes.shape, episode.support.device
    sums = _Sums(B, list(classifiers), device)
    for number in rows.classes.unique().tolist():
        tasks, slots = (part.to(device) for part in (rows.classes == number).nonzero(as_tuple=True))
        images = pool.images(number)
        logits = _logits([each.select(tasks) for each in classifiers.values()], images[None])
        own = logits[torch.arange(len(tasks), device=device), :, slots]
        earlier = torch.arange(N, device=device) < slots[:, None]
        found = _judge(logits, own, earlier[:, None, :, None], sums.final)
        sums.add(found, tasks)
        support = rows.support[tasks, slots] - pool.offsets[number].to(device)
        sums.add(found.pick(support), tasks, sign=-1.0)
    return sums.scores()


def _logits(classifiers: Sequence[Classifier], query: Float[Tensor, "#B M E"]) -> Float[Tensor, "B S N M"]:
    """Logits of S classifiers, with classes in rows, so that what follows runs along the queries."""
    linear = [each for each in classifiers if isinstance(each, LinearClassifier)]
    if len(linear) < len(classifiers):
        return torch.stack([each(query).transpose(1, 2) for each in classifiers], dim=1)
    weight = torch.stack([each.weight for each in linear], dim=1)
    none = weight.new_zeros(weight.shape[0], weight.shape[2])
    bias = torch.stack([none if each.bias is None else each.bias for each in linear], dim=1)
    # one product for all classifiers
    if len(query) == 1:
        logits = weight.flatten(0, 2) @ query[0].T
    else:
        logits = torch.bmm(weight.flatten(1, 2), query.transpose(1, 2))
    return logits.view(*weight.shape[:3], -1).add_(bias[..., None])


def _judge(
    logits: Float[Tensor, "P S N M"],
    own: Float[Tensor, "P S M"],
    earlier: Bool[Tensor, "*#shape"],
    final: int,
) -> _Judgement:
    """Compare each of M queries' own class with the others; changes `logits`.

    Args:
        logits: of the N classes.
        own: that of a query's own class.
        earlier: whether a class comes before the query's own.
        final: number of the classifier.
    """
    logits -= own[:, :, None]
    # an earlier class wins a tie, as if it were a trifle above
    top = (logits + 1e-30 * earlier).amax(2)
    spread = logits[:, final] - top[:, final, None]
    total = spread.exp_().sum(1)
    return _Judgement((top <= 0).double(), (total.log() + top[:, final]).double(), total.reciprocal())
