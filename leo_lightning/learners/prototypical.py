"""Prototypical Networks: nearest centroid in a learned space.

Snell, Swersky, Zemel: Prototypical Networks for Few-shot Learning. NeurIPS 2017, arXiv:1703.05175.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from leo_lightning.common.errors import check_choice, check_positive
from leo_lightning.learners.learner import Classifier, LinearClassifier
from leo_lightning.learners.parts.metric_learner import Embedded, MetricLearner
from leo_lightning.learners.parts.unequal_shots import Shots, class_mean


class PrototypicalNetworks(MetricLearner):
    """Softmax over the distances of a query to the mean embedding of each class (Eq. 1 and 2).

    p(n | x) = softmax over n of -d(f(x), c_n) / τ, with d the squared Euclidean distance, or minus the
    cosine. The paper has τ = 1; here log τ is learned, as for cosines in Gidaris and Komodakis, Dynamic
    Few-Shot Visual Learning without Forgetting, CVPR 2018: between features of unit length squared distances
    are at most 4 and cosines at most 1, and a softmax of them is nearly flat.

    Args:
        distance: euclidean (squared) or cosine.
        temperature: initial value of τ, by which distances are divided before the softmax; it is learned.
    """

    starts = ("temperature",)

    def __init__(
        self,
        embedding_size: int | None = None,
        size: int | None = None,
        hidden: int = 0,
        dropout: float = 0.0,
        distance: Literal["euclidean", "cosine"] = "euclidean",
        temperature: float = 0.1,
    ) -> None:
        check_choice("distance", distance, ("euclidean", "cosine"))
        check_positive({"temperature": temperature})
        self.distance = distance
        self.temperature = temperature
        super().__init__(embedding_size, size, hidden, dropout)

    def make_weights(self, E: int) -> None:
        """Make the embedding and the temperature."""
        super().make_weights(E)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(self.temperature)))

    def classifier(self, support: Float[Tensor, "B N K E"], shots: Shots) -> Classifier:
        """Distances to the mean embeddings, as a linear classifier.

        -‖f - c‖² = 2 f·c - ‖c‖² - ‖f‖², and ‖f‖² is the same for all classes: linear in the embedding f of a
        query, and in the query itself if f is.
        """
        prototypes = class_mean(self.embedding(support), shots)
        scale = self.log_temperature.neg().exp()
        if self.distance == "cosine":
            return Embedded(self.embedding, LinearClassifier(scale * F.normalize(prototypes, dim=-1)), True)
        linear = LinearClassifier(2 * scale * prototypes, -scale * prototypes.square().sum(-1))
        return self.embedding.before(linear)

    def diagnostics(self) -> dict[str, Float[Tensor, ""]]:
        """The learned temperature."""
        return {"temperature": self.log_temperature.exp()}
