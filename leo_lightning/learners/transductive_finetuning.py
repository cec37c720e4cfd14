"""Transductive fine-tuning: certain predictions for the queries.

Dhillon, Chaudhari, Ravichandran, Soatto: A Baseline for Few-Shot Image Classification. ICLR 2020,
arXiv:1909.02729. The paper fine-tunes the backbone, too; here there is none, and only the classifier learns.
"""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from leo_lightning.common.errors import check_least, check_positive
from leo_lightning.learners.parts.adam import adam
from leo_lightning.learners.parts.query_set import share_of
from leo_lightning.learners.parts.transductive import TransductiveLearner, weighted_labels
from leo_lightning.learners.parts.unequal_shots import Shots, class_mean


class TransductiveFinetuning(TransductiveLearner):
    """A linear classifier that minimises the cross-entropy of the support plus the entropy of the queries.

    Logits are τ (w·x + b), with x of length 1. It starts as the paper's "support-based initialisation": w is
    the class's mean at length 1, b is 0. easyfsl has distances in place of w·x. Centre the features
    (`normalize: center_l2`): where all cosines are large, the entropy drives the queries to one class. Where
    classes differ in their number of images, all classes weigh the same.

    Args:
        steps: steps of Adam.
        rate: its step size. The paper's 5e-5, for all weights of a network, hardly moves a classifier.
        temperature: τ.
        entropy_weight: weight of the entropy of the queries' predictions; the paper's is 1.
    """

    trained = False

    def __init__(
        self,
        steps: int = 25,
        rate: float = 1e-3,
        temperature: float = 15.0,
        entropy_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_least(0, {"steps": steps, "entropy_weight": entropy_weight})
        check_positive({"rate": rate, "temperature": temperature})
        self.steps = steps
        self.rate = rate
        self.temperature = temperature
        self.entropy_weight = entropy_weight

    def logits(
        self,
        support: Float[Tensor, "B N K E"],
        query: Float[Tensor, "B M E"],
        valid: Bool[Tensor, "B M"] | None,
        shots: Shots,
    ) -> Float[Tensor, "B M N"]:
        """Logits of the queries by the fine-tuned classifier."""
        support, query = F.normalize(support, dim=-1), F.normalize(query, dim=-1)
        target, known, share = weighted_labels(support, shots), support.flatten(1, 2), share_of(valid, query)
        image = target.sum(-1, keepdim=True)

        def gradients(weights: list[Tensor]) -> list[Tensor]:
            of_support = image * self._predicted(weights, known).softmax(-1) - target
            log_p = self._predicted(weights, query).log_softmax(-1)
            p = log_p.exp()
            of_query = self.entropy_weight * share * p * ((p * log_p).sum(-1, keepdim=True) - log_p)
            weight = of_support.mT @ known + of_query.mT @ query
            bias = (of_support.sum(1) + of_query.sum(1))[:, None]
            return [self.temperature * weight, self.temperature * bias]

        means = F.normalize(class_mean(support, shots), dim=-1)
        start = [means, means.new_zeros(len(means), 1, means.shape[1])]
        return self._predicted(adam(start, gradients, self.rate, self.steps), query)

    def _predicted(self, weights: list[Tensor], images: Tensor) -> Tensor:
        """τ (w·x + b)."""
        weight, bias = weights
        return self.temperature * (images @ weight.mT + bias)
