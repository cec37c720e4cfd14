"""Siamese networks: how likely two images are of one class.

Koch, Zemel, Salakhutdinov: Siamese Neural Networks for One-shot Image Recognition. ICML Deep Learning
Workshop, 2015.
"""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from leo_lightning.common.errors import check_choice, check_positive
from leo_lightning.data.episode import Episode
from leo_lightning.learners.learner import Outcome
from leo_lightning.learners.parts.metric_learner import Embedded, MetricLearner
from leo_lightning.learners.parts.noise import Masks
from leo_lightning.learners.parts.unequal_shots import Shots, class_mean, present

UNRELATED = 2 / math.sqrt(math.pi)
"""Expected L1 distance of two random directions, divided by √D: the initial threshold."""


class PairSimilarity(nn.Module):
    """Log-odds that two embeddings are of one class: (t - Σ_j α_j |x_j - y_j| / √D) / τ.

    The paper's σ(Σ_j α_j |x_j - y_j|) has signs and scale in its α_j. Here t, τ and weights that begin at 1
    are learned beside each other: distances between embeddings of length 1 are large and differ little.
    """

    def __init__(self, size: int, temperature: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.threshold = nn.Parameter(torch.tensor(UNRELATED))
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))

    def forward(self, left: Float[Tensor, "#B P D"], right: Float[Tensor, "B M D"]) -> Float[Tensor, "B P M"]:
        """Log-odds of each pair. One distance for the weights above zero and one for those below."""
        above, below = (
            torch.cdist(left * part, right * part, p=1)
            for part in (self.weight.relu(), (-self.weight).relu())
        )
        distance = (above - below) / math.sqrt(right.shape[-1])
        return (self.threshold - distance) * self.log_temperature.neg().exp()


class SiameseClassifier(NamedTuple):
    """Comparison of embedded queries with every embedded support image."""

    support: Float[Tensor, "B N K D"]
    similarity: PairSimilarity
    pooling: str
    shots: Shots

    def pairs(self, query: Float[Tensor, "#B *images D"]) -> Float[Tensor, "B *images N K"]:
        """Log-odds of each query with each support image."""
        log_odds = self.similarity(query.flatten(1, -2), self.support.flatten(1, 2))
        return log_odds.unflatten(2, self.support.shape[1:3]).unflatten(1, query.shape[1:-1])

    def pooled(self, pairs: Float[Tensor, "B *images N K"]) -> Float[Tensor, "B *images N"]:
        """Log-odds of each class: the mean over its images, or the largest."""
        by_class = pairs.flatten(1, -3).transpose(1, 2).transpose(2, 3)  # (B, N, K, images)
        if self.pooling == "mean":
            logits = class_mean(by_class, self.shots)
        else:
            if self.shots is not None:
                by_class = by_class.where(present(by_class, self.shots)[..., None], -torch.inf)
            logits = by_class.amax(2)
        return logits.transpose(1, 2).unflatten(1, pairs.shape[1:-2])

    def __call__(self, query: Float[Tensor, "#B *images D"]) -> Float[Tensor, "B *images N"]:
        """Log-odds of each class."""
        return self.pooled(self.pairs(query))

    def select(self, tasks: Int64[Tensor, " P"]) -> "SiameseClassifier":
        """The classifiers of some of the tasks."""
        shots = None if self.shots is None else self.shots[tasks]
        return self._replace(support=self.support[tasks], shots=shots)


class SiameseNetworks(MetricLearner):
    """Verify pairs of images: weighted L1 distance, sigmoid, and binary cross-entropy over pairs.

    The pairs of a task are all of a query and a support image. Those of one class weigh as much together as
    those of two, as in the paper, which draws as many of either kind. For N classes the answer is the class
    of the most similar image; at more than one shot, which the paper does not have, `pooling` decides.
    Logits are log-odds: their softmax divides each class's odds by the sum of all.

    The paper's twin network is convolutional and ends in sigmoid units. Here the embedding, which begins as
    the identity, stands for it; a sigmoid would flatten features that were trained without one.

    Args:
        temperature: initial value of τ, by which distances are divided before the sigmoid; it is learned.
        pooling: log-odds of a class, from those of its images: their mean, or max, the most similar image.
    """

    starts = ("temperature",)

    def __init__(
        self,
        embedding_size: int | None = None,
        size: int | None = None,
        hidden: int = 0,
        dropout: float = 0.0,
        temperature: float = 0.05,
        pooling: Literal["mean", "max"] = "mean",
    ) -> None:
        check_positive({"temperature": temperature})
        check_choice("pooling", pooling, ("mean", "max"))
        self.temperature = temperature
        self.pooling = pooling
        super().__init__(embedding_size, size, hidden, dropout)

    def make_weights(self, E: int) -> None:
        """Make the embedding and the comparison."""
        super().make_weights(E)
        self.similarity = PairSimilarity(self.size or E, self.temperature)

    def comparison(self, support: Float[Tensor, "B N K E"], shots: Shots = None) -> SiameseClassifier:
        """The classifiers, for embedded queries."""
        return SiameseClassifier(self.embedding(support), self.similarity, self.pooling, shots)

    def classifier(self, support: Float[Tensor, "B N K E"], shots: Shots) -> Embedded:
        """The classifiers."""
        return Embedded(self.embedding, self.comparison(support, shots))

    def outcome(self, episode: Episode, noise: Masks) -> Outcome:
        """Binary cross-entropy of the pairs, and the log-odds of the classes."""
        episode = noise.on(episode)
        with torch.autocast(episode.support.device.type, enabled=False):
            comparison = self.comparison(episode.support)
            pairs = comparison.pairs(self.embedding(episode.query))
            terms = {"pair_cross_entropy": pair_cross_entropy(pairs, episode.valid).mean()}
            return Outcome.of(terms, comparison.pooled(pairs), self.diagnostics())

    def diagnostics(self) -> dict[str, Float[Tensor, ""]]:
        """The learned temperature, and the distance at which a pair is undecided."""
        similarity = self.similarity
        return {
            "temperature": similarity.log_temperature.exp().detach(),
            "threshold": similarity.threshold.detach(),
        }


def pair_cross_entropy(
    pairs: Float[Tensor, "B N Q N K"], valid: Bool[Tensor, "B N Q"] | None
) -> Float[Tensor, " B"]:
    """Mean over the pairs of one class and mean over the others, averaged."""
    N = pairs.shape[1]
    same = torch.eye(N, dtype=pairs.dtype, device=pairs.device)[:, None]
    loss = F.softplus(torch.where(same[..., None].bool(), -pairs, pairs)).mean(-1)
    of_query = (loss * (same + (1 - same) / max(1, N - 1))).sum(-1) / 2
    weights = torch.ones_like(of_query) if valid is None else valid.to(of_query)
    return (of_query * weights).flatten(1).sum(1) / weights.flatten(1).sum(1)
