"""PT-MAP: power transform, then maximum a posteriori with balanced classes.

Hu, Gripon, Pateux: Leveraging the Feature Distribution in Transfer-based Few-Shot Learning. 2020,
arXiv:2006.03806. The backbone is the one that made the embeddings.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from leo_lightning.common.errors import check_least, check_positive
from leo_lightning.learners.parts.neighbor_graph import squared_distances
from leo_lightning.learners.parts.query_set import share_of
from leo_lightning.learners.parts.transductive import TransductiveLearner, weighted_labels
from leo_lightning.learners.parts.unequal_shots import Shots, class_mean, class_sum

SHIFT = 1e-6
"""Added to the embeddings before the power."""
MOST, TOLERANCE = 1000, 1e-6
"""Iterations of Sinkhorn's algorithm, and the change of a query's total at which a task's end."""


class PTMAP(TransductiveLearner):
    """Optimal transport of the queries to the classes, each of which gets equally many.

    Embeddings are raised to the power β, scaled to length 1, centred (support and queries each by their own
    mean) and scaled again, as in the authors' code; easyfsl only takes the power. Negative numbers, which the
    features of the paper do not have, keep their sign: x becomes -(|x| + 1e-6)^β. In each iteration the
    centres move by `rate` towards the means that the transport plan suggests.

    Args:
        power: β.
        regularization: λ of the transport: large is hard.
        rate: part of the way that the centres move in an iteration.
        steps: iterations.
    """

    trained = False
    assumes = "all classes have equally many queries"

    def __init__(
        self, power: float = 0.5, regularization: float = 10.0, rate: float = 0.2, steps: int = 20
    ) -> None:
        super().__init__()
        check_positive({"power": power, "regularization": regularization, "rate": rate})
        check_least(0, {"steps": steps})
        self.power = power
        self.regularization = regularization
        self.rate = rate
        self.steps = steps

    def logits(
        self,
        support: Float[Tensor, "B N K E"],
        query: Float[Tensor, "B M E"],
        valid: Bool[Tensor, "B M"] | None,
        shots: Shots,
    ) -> Float[Tensor, "B M N"]:
        """Logarithms of the transport plan."""
        support, query = self._transformed(support), self._transformed(query)
        support = F.normalize(support - class_mean(support, shots).mean(1)[:, None, None], dim=-1)
        share = share_of(valid, query)
        query = F.normalize(query - (share * query).sum(1, keepdim=True), dim=-1)
        labels = weighted_labels(support, shots)
        known = class_sum(support, shots)
        count = (labels > 0).sum(1)[..., None]
        centres = class_mean(support, shots)
        there = (share > 0).to(query.dtype)
        for _ in range(self.steps):
            plan = self._plan(squared_distances(query, centres), there)
            means = (known + plan.mT @ query) / (count + plan.sum(1)[..., None])
            centres = centres + self.rate * (means - centres)
        return self._plan(squared_distances(query, centres), there).clamp_min(1e-30).log()

    def _transformed(self, images: Float[Tensor, "*images E"]) -> Float[Tensor, "*images E"]:
        """The power of all numbers; then each image at length 1."""
        powers = (images.abs() + SHIFT) ** self.power
        return F.normalize(powers.where(images >= 0, -powers), dim=-1)

    def _plan(self, cost: Float[Tensor, "B M N"], there: Float[Tensor, "B M 1"]) -> Float[Tensor, "B M N"]:
        """Sinkhorn's algorithm: each query in all classes together 1, and each class M / N."""
        of_class = there.sum(1, keepdim=True) / cost.shape[-1]
        # a factor for each query changes no plan: the largest number is 1, and none is lost
        plan = there * (-self.regularization * (cost - cost.amin(-1, keepdim=True))).exp()
        done = torch.zeros_like(plan[:, :1, :1], dtype=torch.bool)
        for _ in range(MOST):
            totals = plan.sum(-1, keepdim=True)
            step = plan / totals.clamp_min(1e-30)
            step = step * (of_class / step.sum(1, keepdim=True).clamp_min(1e-30))
            plan = plan.where(done, step)
            # the first totals are not yet those of a plan
            done = done | ((plan.sum(-1, keepdim=True) - totals).abs().amax(1, keepdim=True) < TOLERANCE)
            if done.all():
                break
        return plan
