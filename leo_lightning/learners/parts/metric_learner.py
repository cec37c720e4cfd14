"""What the trained metric-based methods share: embed, compare, cross-entropy over the queries."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from leo_lightning.common.errors import check_least
from leo_lightning.data.episode import Episode
from leo_lightning.learners.learner import Classifier, Learner, Outcome
from leo_lightning.learners.parts.dropout import Masks, check_dropout, draw_masks
from leo_lightning.learners.parts.embedding import Embedding
from leo_lightning.learners.parts.objectives import query_cross_entropy


class MetricLearner(Learner):
    """A method that compares queries with the support in a learned space.

    There is no inner loop: adaptation is one pass through the embedding.

    Args:
        embedding_size: E, size of an image's embedding; taken from the data.
        size: D, size of the learned embedding; null: E.
        hidden: width of the hidden layer beside the linear map of the embedding; 0: none.
        dropout: dropout rate of embeddings in training, of support and query alike.
    """

    unequal_shots = True

    def __init__(self, embedding_size: int, size: int | None, hidden: int, dropout: float) -> None:
        super().__init__()
        check_dropout(dropout)
        check_least(1, {"size": size})
        check_least(0, {"hidden": hidden})
        self.embedding_size = embedding_size
        self.size = size
        self.hidden = hidden
        self.dropout = dropout
        self.embedding = Embedding(embedding_size, size, hidden)

    @abstractmethod
    def classifier(self, support: Float[Tensor, "B N K E"], shots: Int64[Tensor, "B N"] | None) -> Classifier:
        """The classifiers of B tasks; shots as in `Learner.stages`."""

    def terms(
        self, logits: Float[Tensor, "B N Q N"], valid: Bool[Tensor, "B N Q"] | None
    ) -> dict[str, Float[Tensor, ""]]:
        """The parts of the loss."""
        return {"cross_entropy": query_cross_entropy(logits, valid).mean()}

    def diagnostics(self) -> dict[str, Float[Tensor, ""]]:
        """What to log of the learner's own parameters."""
        return {}

    def draw_noise(self, episode: Episode, seeds: Sequence[int] | None) -> Masks:
        """See `Learner.draw_noise`."""
        return draw_masks(episode, seeds, self.dropout if self.training else 0.0)

    def outcome(self, episode: Episode, noise: Masks) -> Outcome:
        """See `Learner.outcome`."""
        episode = noise.on(episode)
        classifier = self.adapt(episode.support)
        with torch.autocast(episode.support.device.type, enabled=False):
            logits = classifier(episode.query)
            terms = self.terms(logits, episode.valid)
        with torch.no_grad():
            diagnostics = self.diagnostics()
        return Outcome(torch.stack(list(terms.values())).sum(), terms, logits, diagnostics)

    def stages(
        self, support: Float[Tensor, "B N K E"], shots: Int64[Tensor, "B N"] | None = None
    ) -> dict[str, Classifier]:
        """See `Learner.stages`. Not in half precision, in which distances hardly differ."""
        with torch.autocast(support.device.type, enabled=False):
            return {"final": self.classifier(support, shots)}
