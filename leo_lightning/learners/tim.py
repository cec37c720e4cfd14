"""TIM: the mutual information between the queries and their predictions.

Boudiaf, Ziko, Rony, Dolz, Piantanida, Ben Ayed: Transductive Information Maximization For Few-Shot Learning.
NeurIPS 2020, arXiv:2008.11297. The encoder stays as it is, as in the paper.
"""

from typing import Literal, NamedTuple

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from leo_lightning.common.errors import check_choice, check_least, check_positive
from leo_lightning.learners.parts.adam import adam
from leo_lightning.learners.parts.query_set import share_of
from leo_lightning.learners.parts.transductive import TransductiveLearner, weighted_labels
from leo_lightning.learners.parts.unequal_shots import Shots, class_mean


class _Task(NamedTuple):
    """Images of B tasks, all with their weight in a mean over the support or over the queries."""

    support: Float[Tensor, "B S E"]
    target: Float[Tensor, "B S N"]
    """1 for the class of each image, times the image's weight."""
    query: Float[Tensor, "B M E"]
    share: Float[Tensor, "B M 1"]


class TIM(TransductiveLearner):
    """Prototypes w that minimise λ CE - μ H(Y) + α H(Y|X).

    CE is the cross-entropy of the support, H(Y) the entropy of the mean prediction for the queries and H(Y|X)
    the mean entropy of the predictions. These are softmax over n of -τ/2 ‖w_n - x‖², and x has length 1. The
    start are the class means. easyfsl has cosines in place of the distances, which is another method after
    the first step; this one follows the paper and the authors' code. Where classes differ in their number of
    images, all classes weigh the same in CE.

    Args:
        solver: adm (alternating directions: closed-form updates of the predictions, then of w) or gd (Adam).
        steps: iterations; the authors take 150 with adm and 1000 with gd.
        rate: step size of gd.
        temperature: τ.
        support_weight: λ.
        marginal_weight: μ.
        conditional_weight: α.
    """

    trained = False
    assumes = "classes have about equally many queries: H(Y) pulls towards that"

    def __init__(
        self,
        solver: Literal["gd", "adm"] = "adm",
        steps: int = 150,
        rate: float = 1e-4,
        temperature: float = 15.0,
        support_weight: float = 0.1,
        marginal_weight: float = 1.0,
        conditional_weight: float = 0.1,
    ) -> None:
        super().__init__()
        check_choice("solver", solver, ("gd", "adm"))
        check_positive({"rate": rate, "temperature": temperature, "support_weight": support_weight})
        check_least(
            0, {"steps": steps, "marginal_weight": marginal_weight, "conditional_weight": conditional_weight}
        )
        self.solver: Literal["gd", "adm"] = solver
        self.steps = steps
        self.rate = rate
        self.temperature = temperature
        self.support_weight = support_weight
        self.marginal_weight = marginal_weight
        self.conditional_weight = conditional_weight

    def logits(
        self,
        support: Float[Tensor, "B N K E"],
        query: Float[Tensor, "B M E"],
        valid: Bool[Tensor, "B M"] | None,
        shots: Shots,
    ) -> Float[Tensor, "B M N"]:
        """Logits of the queries by the adapted prototypes."""
        support, query = F.normalize(support, dim=-1), F.normalize(query, dim=-1)
        weights = class_mean(support, shots)
        target = weighted_labels(support, shots)
        task = _Task(support.flatten(1, 2), target, query, share_of(valid, query))
        if self.solver == "gd":
            (weights,) = adam([weights], lambda now: [self._gradient(now[0], task)], self.rate, self.steps)
        else:
            for _ in range(self.steps):
                weights = self._alternated(weights, task)
        return self._predicted(weights, query)

    def _predicted(self, weights: Tensor, images: Tensor) -> Tensor:
        """-τ/2 ‖w - x‖², without ‖x‖², which is the same for all classes."""
        return self.temperature * (images @ weights.mT - weights.square().sum(-1)[:, None] / 2)

    def _gradient(self, weights: Float[Tensor, "B N E"], task: _Task) -> Float[Tensor, "B N E"]:
        """Gradient of the loss by the prototypes."""
        known = self._predicted(weights, task.support).softmax(-1)
        weight = task.target.sum(-1, keepdim=True)
        slope = self.support_weight * (weight * known - task.target)
        log_p = self._predicted(weights, task.query).log_softmax(-1)
        p = log_p.exp()
        mean = (task.share * p).sum(1, keepdim=True).log()
        asked = self.marginal_weight * mean - self.conditional_weight * log_p
        asked = task.share * p * (asked - (p * asked).sum(-1, keepdim=True))
        pulled = _pull(weights, task.support, slope) + _pull(weights, task.query, asked)
        return self.temperature * pulled

    def _alternated(self, weights: Float[Tensor, "B N E"], task: _Task) -> Float[Tensor, "B N E"]:
        """One iteration of TIM-ADM: first q, the auxiliary predictions, then w; KL(q, p) has weight 1."""
        known = self._predicted(weights, task.support).softmax(-1)
        p = self._predicted(weights, task.query).softmax(-1)
        power = p ** (1 + self.conditional_weight)
        total = (task.share * power).sum(1, keepdim=True)
        q = power / total ** (self.marginal_weight / (1 + self.marginal_weight))
        q = q / q.sum(-1, keepdim=True)
        weight = self.support_weight / (1 + self.conditional_weight)
        images = task.target.sum(-1, keepdim=True)
        pulled = _pull(weights, task.support, weight * (task.target - images * known))
        pulled = pulled + _pull(weights, task.query, task.share * (q - p))
        mass = weight * task.target.sum(1) + (task.share * q).sum(1)
        return weights + pulled / mass[..., None]


def _pull(
    weights: Float[Tensor, "B N E"], images: Float[Tensor, "B P E"], share: Float[Tensor, "B P N"]
) -> Float[Tensor, "B N E"]:
    """Sum of the ways from the prototypes to the images, by shares."""
    return share.mT @ images - share.sum(1)[..., None] * weights
