"""Accuracy and cross-entropy of classifiers on the queries of their tasks."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from leo_lightning.data.episode import Episode
from leo_lightning.learners.learner import LinearClassifier


class Scores(NamedTuple):
    """What S classifiers make of the queries of B tasks."""

    accuracy: Float64[Tensor, "B S"]
    """Share of a task's queries that each classifier gets right; float64, so that a mean has no noise."""
    cross_entropy: Float64[Tensor, " B"]
    """Mean over a task's queries, of the classifier named `final`."""


def score(classifiers: Mapping[str, LinearClassifier], episode: Episode) -> Scores:
    """Score the classifiers of an episode's tasks; where two classes tie, the earlier one is the answer."""
    weight = torch.stack([each.weight for each in classifiers.values()], dim=1)
    none = weight.new_zeros(weight.shape[0], weight.shape[2])
    biases = [none if each.bias is None else each.bias for each in classifiers.values()]
    bias, final = torch.stack(biases, dim=1), list(classifiers).index("final")
    if episode.pool is not None:
        return _score_pool(weight, bias, final, episode)
    B, S, N, _ = weight.shape
    Q = episode.query.shape[2]
    # one product for all classifiers, with classes in rows, so that what follows runs along the queries
    logits = torch.bmm(weight.flatten(1, 2), episode.query.flatten(1, 2).transpose(1, 2)).unflatten(1, (S, N))
    logits += bias[..., None]
    own = logits.unflatten(3, (N, Q)).diagonal(dim1=2, dim2=3).transpose(2, 3).flatten(2)
    label = torch.arange(N, device=logits.device).repeat_interleave(Q)
    right, nll = _judge(logits, own, torch.arange(N, device=logits.device)[:, None] < label, final)
    if episode.valid is None:
        return Scores(right.mean(2), nll.mean(1))
    valid = episode.valid.flatten(1)
    count = valid.sum(1)
    return Scores((right * valid[:, None]).sum(2) / count[:, None], (nll * valid).sum(1) / count)


def _score_pool(
    weight: Float[Tensor, "B S N E"], bias: Float[Tensor, "B S N"], final: int, episode: Episode
) -> Scores:
    """Class by class: all images of a class, and the classifiers of all tasks that have it, in one product.

    What the images of the support add is taken away again.
    """
    pool, rows = episode.pool, episode.rows
    assert pool is not None
    assert rows is not None
    assert rows.classes is not None
    (B, S, N, _), K, device = weight.shape, rows.support.shape[2], weight.device
    hits = torch.zeros(B, S, dtype=torch.float64, device=device)
    entropy = torch.zeros(B, dtype=torch.float64, device=device)
    count = torch.zeros(B, dtype=torch.float64, device=device)
    for number in rows.classes.unique().tolist():
        tasks, slots = (part.to(device) for part in (rows.classes == number).nonzero(as_tuple=True))
        images = pool.images(number)
        logits = (weight[tasks].flatten(0, 2) @ images.T).view(len(tasks), S, N, len(images))
        logits += bias[tasks][..., None]
        own = logits[torch.arange(len(tasks), device=device), :, slots]
        earlier = torch.arange(N, device=device) < slots[:, None]
        right, nll = _judge(logits, own, earlier[:, None, :, None], final)
        support = rows.support[tasks, slots] - pool.offsets[number].to(device)
        right_support = right.gather(2, support[:, None].expand(-1, S, -1))
        hits.index_add_(0, tasks, right.sum(2) - right_support.sum(2))
        entropy.index_add_(0, tasks, nll.sum(1) - nll.gather(1, support).sum(1))
        count.index_add_(0, tasks, count.new_full(tasks.shape, len(images) - K))
    return Scores(hits / count[:, None], entropy / count)


def _judge(
    logits: Float[Tensor, "P S N M"],
    own: Float[Tensor, "P S M"],
    earlier: Bool[Tensor, "*#shape"],
    final: int,
) -> tuple[Float64[Tensor, "P S M"], Float64[Tensor, "P M"]]:
    """Whether each of M queries is right, 1 or 0, and its loss by classifier `final`; changes `logits`.

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
    return (top <= 0).double(), (spread.exp_().sum(1).log_() + top[:, final]).double()
