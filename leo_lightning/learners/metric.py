"""What the trained metric-based methods share: embed, compare, cross-entropy over the queries."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from leo_lightning.data.episode import Episode
from leo_lightning.errors import InputError, check_least
from leo_lightning.learners.embedding import Embedding
from leo_lightning.learners.learner import Classifier, Learner, Outcome
from leo_lightning.learners.noise import draw
from leo_lightning.learners.objectives import query_cross_entropy


class Masks(NamedTuple):
    """Dropout factors of a training step: 0, or 1 / (1 - dropout)."""

    support: Float[Tensor, "B N K E"]
    query: Float[Tensor, "B N Q E"]


class MetricLearner(Learner):
    """A method that compares queries with the support in a learned space.

    There is no inner loop: adaptation is one pass through the embedding.

    Args:
        embedding_size: E, size of an image's embedding; taken from the data.
        size: D, size of the learned embedding; null: E.
        hidden: width of the hidden layer beside the linear map of the embedding; 0: none.
        dropout: dropout rate of embeddings in training, of support and query alike.
    """

    def __init__(self, embedding_size: int, size: int | None, hidden: int, dropout: float) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise InputError(f"dropout is {dropout}: it must be at least 0 and below 1")
        check_least(1, {"size": size})
        check_least(0, {"hidden": hidden})
        self.embedding_size = embedding_size
        self.size = size
        self.hidden = hidden
        self.dropout = dropout
        self.embedding = Embedding(embedding_size, size, hidden)

    @abstractmethod
    def classifier(self, support: Float[Tensor, "B N K E"]) -> Classifier:
        """The classifiers of B tasks."""

    def terms(
        self, logits: Float[Tensor, "B N Q N"], valid: Bool[Tensor, "B N Q"] | None
    ) -> dict[str, Float[Tensor, ""]]:
        """The parts of the loss."""
        return {"cross_entropy": query_cross_entropy(logits, valid).mean()}

    def diagnostics(self) -> dict[str, Float[Tensor, ""]]:
        """What to log of the learner's own parameters."""
        return {}

    def draw_noise(self, episode: Episode, seeds: Sequence[int] | None) -> Masks | None:
        """See `Learner.draw_noise`."""
        if not (self.training and self.dropout):
            return None
        support, query = episode.support[0].shape, episode.query[0].shape
        sizes = [support.numel(), query.numel()]
        _, factors = draw(episode.support, seeds, 0, sum(sizes), self.dropout)
        first, second = factors.split(sizes, dim=1)
        return Masks(first.unflatten(1, support), second.unflatten(1, query))

    def outcome(self, episode: Episode, noise: Masks | None) -> Outcome:
        """See `Learner.outcome`."""
        support, query = episode.support, episode.query
        if noise is not None:
            support, query = support * noise.support, query * noise.query
        classifier = self.adapt(support)
        with torch.autocast(support.device.type, enabled=False):
            logits = classifier(query)
            terms = self.terms(logits, episode.valid)
        with torch.no_grad():
            diagnostics = self.diagnostics()
        return Outcome(torch.stack(list(terms.values())).sum(), terms, logits, diagnostics)

    def stages(self, support: Float[Tensor, "B N K E"]) -> dict[str, Classifier]:
        """See `Learner.stages`. Not in half precision, in which distances hardly differ."""
        with torch.autocast(support.device.type, enabled=False):
            return {"final": self.classifier(support)}
