"""Queries of unknown classes: how well a score tells them from queries of the task's classes."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from leo_lightning.data.episode import Episode
from leo_lightning.learners.learner import Classifier
from leo_lightning.learners.parts.nearest_example import nearest_distance

SCORES = ("distance", "entropy", "probability")
"""Scores that should be larger for a query of an unknown class."""


def auroc(unknown: Float[Tensor, "B unknown"], known: Float[Tensor, "B known"]) -> Float64[Tensor, " B"]:
    """Area under the ROC curve: the fraction of pairs in which the unknown query has the larger score.

    A tie counts half. Counts come from sorted scores, so that memory grows with the queries and not with the
    pairs. A task with a score that is NaN has no area: NaN.
    """
    ordered = known.sort(dim=1).values
    below = torch.searchsorted(ordered, unknown.contiguous())
    not_above = torch.searchsorted(ordered, unknown.contiguous(), right=True)
    wins = (below + not_above).sum(1).double() / 2
    missing = unknown.isnan().any(1) | known.isnan().any(1)
    return (wins / (unknown.shape[1] * known.shape[1])).masked_fill(missing, torch.nan)


def unknown_aurocs(final: Classifier, episode: Episode) -> dict[str, Float64[Tensor, " B"]]:
    """AUROC of telling the unknown queries from the others, for each of `SCORES`.

    These are the distance to the nearest support example, the entropy of the probabilities, and 1 - the
    largest probability. The last two are computed in float64: where a classifier is nearly certain, float32
    would make ties of different scores.
    """
    assert episode.unknown is not None
    unknown, known = (_scores(final, episode.support, part) for part in (episode.unknown, episode.query))
    return {name: auroc(unknown[name], known[name]) for name in SCORES}


def _scores(
    final: Classifier, support: Float[Tensor, "B N K E"], query: Float[Tensor, "B C Q E"]
) -> dict[str, Float[Tensor, "B queries"]]:
    """Each of `SCORES` of the queries of some classes."""
    probability = final(query).double().softmax(-1)
    scores = (
        nearest_distance(support, query),
        torch.special.entr(probability).sum(-1),
        1 - probability.amax(-1),
    )
    return {name: score.flatten(1) for name, score in zip(SCORES, scores, strict=True)}
