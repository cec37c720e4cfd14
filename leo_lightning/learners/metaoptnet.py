"""MetaOptNet: a support vector machine on a learned map, differentiated at its optimum.

Lee, Maji, Ravichandran, Soatto: Meta-Learning with Differentiable Convex Optimization. CVPR 2019,
arXiv:1904.03758, Section 3.2.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leo_lightning.common.errors import check_positive
from leo_lightning.learners.learner import Classifier, LinearClassifier
from leo_lightning.learners.parts.crammer_singer import machines
from leo_lightning.learners.parts.metric_learner import MetricLearner
from leo_lightning.learners.parts.objectives import one_hot
from leo_lightning.learners.parts.unequal_shots import Shots, balanced


class MetaOptNet(MetricLearner):
    """Multi-class support vector machine (Crammer, Singer) on the embedded support: MetaOptNet-SVM.

    It minimises ½ Σₖ ‖wₖ‖² + C Σᵢ ξᵢ with margins of 1 between an image's class and every other one. The
    logits are γ z·wₖ, with a learned scale γ. The paper solves the dual problem with qpth;
    `parts/crammer_singer.py` solves it for a batch of tasks in float64, and has the gradient. Where classes
    have unequal numbers of images, ξᵢ are weighted so that classes count alike.

    The paper trains a residual network from pixels, with label smoothing, 15 shots in training at any shot
    in the test, and DropBlock; here the map on embeddings is trained, as all methods are.

    Args:
        C: weight of the support's errors against the penalty; 0.1 in the authors' code.
        scale: initial value of γ; it is learned.
    """

    compilable = False  # the solver stops when all tasks are solved
    starts = ("scale",)

    def __init__(
        self,
        embedding_size: int | None = None,
        size: int | None = None,
        hidden: int = 0,
        dropout: float = 0.0,
        C: float = 0.1,
        scale: float = 10.0,
    ) -> None:
        check_positive({"C": C, "scale": scale})
        self.C = C
        self.scale = scale
        super().__init__(embedding_size, size, hidden, dropout)

    def make_weights(self, E: int) -> None:
        """Make the embedding and γ."""
        super().make_weights(E)
        self.log_scale = nn.Parameter(torch.tensor(math.log(self.scale)))

    def classifier(self, support: Float[Tensor, "B N K E"], shots: Shots) -> Classifier:
        """The machine, as a linear classifier."""
        B, N, K, _ = support.shape
        images, root = self.embedding(support).flatten(1, 2), math.sqrt(self.C)
        weights = support.new_ones(B, N * K) if shots is None else balanced(support, shots)
        machine = root * machines(root * images, one_hot(N, K, support), weights)
        return self.embedding.before(LinearClassifier(self.log_scale.exp() * machine))

    def diagnostics(self) -> dict[str, Float[Tensor, ""]]:
        """The learned γ."""
        return {"scale": self.log_scale.exp()}
