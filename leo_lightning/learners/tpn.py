"""TPN: label propagation through a learned embedding, with a learned length scale for each image.

Liu, Lee, Park, Kim, Yang, Hwang, Yang: Learning to Propagate Labels: Transductive Propagation Network for
Few-shot Learning. ICLR 2019, arXiv:1805.10002.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from leo_lightning.common.errors import check_least, check_positive
from leo_lightning.learners.label_propagation import check_alpha, logarithms, propagated, together
from leo_lightning.learners.parts.metric_learner import MetricLearner
from leo_lightning.learners.parts.query_set import QuerySet
from leo_lightning.learners.parts.transductive import weighted_labels
from leo_lightning.learners.parts.unequal_shots import Shots


class TPN(MetricLearner):
    """Label propagation with W = exp(-½ ‖f(x)/σ - f(x')/σ'‖²), where f and σ are trained through it.

    See `LabelPropagation` for the graph and the flow. f(x) has length 1, and σ is the exponential of a linear
    map of f(x), which begins as a constant. Training classifies the queries of a task together, as the test
    does; the paper's loss has the support, too. The paper's probabilities are a softmax of F, which is nearly
    flat where F is small; here they are each class's share. Its networks see pixels: a convolutional one for
    f, and another on top of it for σ.

    Args:
        alpha: α, how far labels flow; below 1.
        neighbors: k.
        length_scale: initial value of σ.
    """

    transductive = True
    compilable = False
    starts = ("length_scale",)

    def __init__(
        self,
        embedding_size: int | None = None,
        size: int | None = None,
        hidden: int = 0,
        dropout: float = 0.0,
        alpha: float = 0.8,
        neighbors: int = 20,
        length_scale: float = 0.5,
    ) -> None:
        check_alpha(alpha)
        check_least(1, {"neighbors": neighbors})
        check_positive({"length_scale": length_scale})
        self.alpha = alpha
        self.neighbors = neighbors
        self.length_scale = length_scale
        super().__init__(embedding_size, size, hidden, dropout)

    def make_weights(self, E: int) -> None:
        """Make the embedding and the map to log σ."""
        super().make_weights(E)
        self.log_length = nn.Linear(self.size or E, 1)
        nn.init.zeros_(self.log_length.weight)
        nn.init.constant_(self.log_length.bias, math.log(self.length_scale))

    def classifier(self, support: Float[Tensor, "B N K E"], shots: Shots) -> QuerySet:
        """The support, which waits for the queries."""
        return QuerySet(self, support, shots)

    def logits(
        self,
        support: Float[Tensor, "B N K E"],
        query: Float[Tensor, "B M E"],
        valid: Bool[Tensor, "B M"] | None,
        shots: Shots,
    ) -> Float[Tensor, "B M N"]:
        """Logits of all queries of B tasks; see `TransductiveLearner.logits`."""
        embedded = F.normalize(self.embedding(torch.cat([support.flatten(1, 2), query], dim=1)), dim=-1)
        there = together(support, query, valid, shots)
        images = embedded / self.log_length(embedded).exp()
        return logarithms(
            propagated(images, there, weighted_labels(support, shots), self.alpha, self.neighbors)
        )
