"""What the metric-based methods train on top of precomputed embeddings, and a classifier in its space."""

from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from leo_lightning.learners.learner import Classifier


class Embedding(nn.Module):
    """Embedding to the space of a metric, E → D: A x, or A x + C relu(B x) with a hidden layer.

    The papers train a convolutional network from pixels. Here that network has been trained before, and its
    embeddings already tell new classes apart: so A begins as the identity, or as an orthogonal map if D
    differs from E, and C at zero. Training then starts from the geometry of the features, and a method from
    what it reaches without training. No biases in A and C: they would drop out of all distances, and move
    the origin of all cosines. Dropout of the input is the caller's.

    Args:
        embedding_size: E.
        size: D; None: E.
        hidden: width of the hidden layer; 0: none.
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


class Embedded(NamedTuple):
    """A classifier in the space of an embedding; queries that stand for all tasks are embedded once."""

    embedding: Embedding
    classifier: Classifier
    unit: bool = False
    """Whether embedded queries are scaled to length 1, for cosines."""

    def __call__(self, query: Float[Tensor, "#B *images E"]) -> Float[Tensor, "B *images N"]:
        """See `Classifier`."""
        embedded = self.embedding(query)
        return self.classifier(F.normalize(embedded, dim=-1) if self.unit else embedded)

    def select(self, tasks: Int64[Tensor, " P"]) -> "Embedded":
        """See `Classifier`."""
        return self._replace(classifier=self.classifier.select(tasks))
