"""Relation Networks: a learned comparison in place of a metric.

Sung, Yang, Zhang, Xiang, Torr, Hospedales: Learning to Compare: Relation Network for Few-Shot Learning.
CVPR 2018, arXiv:1711.06025.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from leo_lightning.common.errors import check_choice, check_least
from leo_lightning.data.episode import Episode
from leo_lightning.learners.parts.metric_learner import Embedded, MetricLearner
from leo_lightning.learners.parts.unequal_shots import Shots, class_sum


class RelationModule(nn.Module):
    """g of Eq. 1: class and query, both embedded and concatenated, through 2D → R → R → 1.

    ReLU between the layers; the sigmoid after the last one is the caller's. The paper's blocks of
    convolutions have batch normalisation; here either half of the input is scaled to length √D, so that its
    entries are about 1, without tasks that influence each other. The first layer acts on either half alone:
    it sees N + N·Q rows of a task in place of N·N·Q pairs.
    """

    def __init__(self, size: int, relation_size: int) -> None:
        super().__init__()
        self.first = nn.Linear(2 * size, relation_size)
        self.second = nn.Linear(relation_size, relation_size)
        self.last = nn.Linear(relation_size, 1)

    def forward(
        self, classes: Float[Tensor, "B N D"], queries: Float[Tensor, "#B M D"]
    ) -> Float[Tensor, "B M N"]:
        """Relation of each query to each class, before the sigmoid."""
        D = classes.shape[-1]
        left, right = (D**0.5 * F.normalize(half, dim=-1) for half in (classes, queries))
        left, right = left @ self.first.weight[:, :D].T, right @ self.first.weight[:, D:].T + self.first.bias
        hidden = (left[:, None] + right[:, :, None]).relu()
        return self.last(self.second(hidden).relu()).squeeze(-1)


class RelationClassifier(NamedTuple):
    """Relations of embedded queries to classes."""

    prototypes: Float[Tensor, "B N D"]
    """Sums of the embeddings of each class's support."""
    relation: RelationModule

    def __call__(self, query: Float[Tensor, "#B *images D"]) -> Float[Tensor, "B *images N"]:
        """Relation of each query to each class."""
        return self.relation(self.prototypes, query.flatten(1, -2)).unflatten(1, query.shape[1:-1])

    def select(self, tasks: Int64[Tensor, " P"]) -> "RelationClassifier":
        """The classifiers of some of the tasks."""
        return self._replace(prototypes=self.prototypes[tasks])


class RelationNetworks(MetricLearner):
    """Classify by a learned relation score between a query and each class (Eq. 1).

    The score is the sigmoid of the relation module's output, which is the logit: the softmax of logits
    divides each class's odds r / (1 - r) by the sum of all. The embeddings of several shots are summed; K may
    differ between training and evaluation, because the relation module scales the sum to one length.

    Args:
        relation_size: R, width of both hidden layers of the relation module.
        loss: mse, of scores to 1 for a query's own class and 0 for the others (Eq. 2, as a mean over the
            pairs in place of a sum); or cross_entropy, of the softmax of the logits.
    """

    def __init__(
        self,
        embedding_size: int | None = None,
        size: int | None = None,
        hidden: int = 0,
        dropout: float = 0.0,
        relation_size: int = 128,
        loss: Literal["mse", "cross_entropy"] = "mse",
    ) -> None:
        check_least(1, {"relation_size": relation_size})
        check_choice("loss", loss, ("mse", "cross_entropy"))
        self.relation_size = relation_size
        self.loss = loss
        super().__init__(embedding_size, size, hidden, dropout)

    def make_weights(self, E: int) -> None:
        """Make the embedding and the relation module."""
        super().make_weights(E)
        self.relation = RelationModule(self.size or E, self.relation_size)

    def classifier(self, support: Float[Tensor, "B N K E"], shots: Shots) -> Embedded:
        """Relations to the summed embeddings of each class."""
        prototypes = class_sum(self.embedding(support), shots)
        return Embedded(self.embedding, RelationClassifier(prototypes, self.relation))

    def terms(self, logits: Float[Tensor, "B N Q N"], episode: Episode) -> dict[str, Float[Tensor, ""]]:
        """Squared error of the scores, or cross-entropy."""
        if self.loss == "cross_entropy":
            return super().terms(logits, episode)
        own = torch.eye(logits.shape[1], dtype=logits.dtype, device=logits.device)[:, None]
        error = (logits.sigmoid() - own).square().mean(-1)
        weights = torch.ones_like(error) if episode.valid is None else episode.valid.to(error)
        return {"mse": ((error * weights).flatten(1).sum(1) / weights.flatten(1).sum(1)).mean()}
