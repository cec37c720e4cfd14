"""Base of the trained metric-based methods: embed, compare, cross-entropy over the queries."""

from abc import abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from leo_lightning.common.errors import check_least
from leo_lightning.learners.learner import Classifier, Learner, LinearClassifier
from leo_lightning.learners.parts.noise import check_dropout
from leo_lightning.learners.parts.unequal_shots import Shots


class Embedding(nn.Module):
    """Embedding to the space of a metric, E → D: A x, or A x + C relu(B x) with a hidden layer.

    The papers train a convolutional network from pixels. Here that network has been trained before, and its
    embeddings already tell new classes apart: so A begins as the identity, or as an orthogonal map if D
    differs from E, and C at zero. No biases in A and C: they would drop out of all distances, and move the
    origin of all cosines.
    """

    def __init__(self, embedding_size: int, size: int | None, hidden: int) -> None:
        super().__init__()
        size = size or embedding_size
        self.linear = nn.Linear(embedding_size, size, bias=False)
        if size == embedding_size:
            nn.init.eye_(self.linear.weight)
        else:
            nn.init.orthogonal_(self.linear.weight)
        self.branch = None
        if hidden:
            last = nn.Linear(hidden, size, bias=False)
            nn.init.zeros_(last.weight)
            self.branch = nn.Sequential(nn.Linear(embedding_size, hidden), nn.ReLU(), last)

    def forward(self, images: Float[Tensor, "*images E"]) -> Float[Tensor, "*images D"]:
        """Embeddings of images, in any arrangement."""
        embedded = self.linear(images)
        return embedded if self.branch is None else embedded + self.branch(images)

    def before(self, classifier: LinearClassifier) -> Classifier:
        """A linear classifier of embeddings as one of images: still linear if the embedding is."""
        if self.branch is not None:
            return Embedded(self, classifier)
        return classifier._replace(weight=classifier.weight @ self.linear.weight)


class Embedded(NamedTuple):
    """A classifier in the space of an embedding; queries that stand for all tasks are embedded once."""

    embedding: Embedding
    classifier: Classifier
    unit: bool = False
    """Whether embedded queries are scaled to length 1, for cosines."""

    def __call__(self, query: Float[Tensor, "#B *images E"]) -> Float[Tensor, "B *images N"]:
        """Logits of the embedded queries."""
        embedded = self.embedding(query)
        return self.classifier(F.normalize(embedded, dim=-1) if self.unit else embedded)

    def select(self, tasks: Int64[Tensor, " P"]) -> "Embedded":
        """The classifiers of some of the tasks."""
        return self._replace(classifier=self.classifier.select(tasks))


class MetricLearner(Learner):
    """A method that compares queries with the support in a learned space.

    There is no inner loop: adaptation is one pass through the embedding.

    Args:
        embedding_size: E, size of an image's embedding; null: taken from the data.
        size: D, size of the learned embedding; null: E.
        hidden: width of the hidden layer beside the linear map of the embedding; 0: none.
        dropout: dropout rate of embeddings in training, of support and query alike.
    """

    unequal_shots = True

    def __init__(self, embedding_size: int | None, size: int | None, hidden: int, dropout: float) -> None:
        super().__init__()
        check_dropout(dropout)
        check_least(1, {"size": size})
        check_least(0, {"hidden": hidden})
        self.embedding_size = None
        self.size = size
        self.hidden = hidden
        self.dropout = dropout
        self.take_size(embedding_size)

    def make_weights(self, E: int) -> None:
        """Make the embedding."""
        self.embedding = Embedding(E, self.size, self.hidden)

    @abstractmethod
    def classifier(self, support: Float[Tensor, "B N K E"], shots: Shots) -> Classifier:
        """The classifiers of B tasks; shots as in `Learner.stages`."""

    def stages(self, support: Float[Tensor, "B N K E"], shots: Shots = None) -> dict[str, Classifier]:
        """The one classifier. Not in half precision, in which distances hardly differ."""
        with torch.autocast(support.device.type, enabled=False):
            return {"final": self.classifier(support, shots)}
