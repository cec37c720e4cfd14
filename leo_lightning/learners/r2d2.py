"""R2-D2: ridge regression on a learned map, differentiated in closed form.

Bertinetto, Henriques, Torr, Vedaldi: Meta-learning with Differentiable Closed-form Solvers. ICLR 2019,
arXiv:1805.08136, Section 3.2.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leo_lightning.common.errors import check_positive
from leo_lightning.learners.learner import Classifier, LinearClassifier
from leo_lightning.learners.parts.metric_learner import MetricLearner
from leo_lightning.learners.parts.objectives import one_hot
from leo_lightning.learners.parts.unequal_shots import Shots, balanced


class R2D2(MetricLearner):
    """Ridge regression from the embedded support to one-hot labels; gradients pass through its solution.

    W = argmin ‖Z W - Y‖² + λ ‖W‖² = Zᵀ (Z Zᵀ + λ I)⁻¹ Y, by the Woodbury identity: the system has as many
    equations as the support has images, far fewer than D. The logits are α z·W. λ and α are learned, as
    logarithms. The paper's β, a number added to all logits of a query, cancels in the softmax and is left
    out, as is the weight of a constant 1 that the authors' code appends to Z. Where classes have unequal
    numbers of images, errors are weighted so that classes count alike.

    The paper trains a convolutional network from pixels, here the map on embeddings is trained; its logistic
    regression (LR-D2) is left out.

    Args:
        ridge: initial value of λ; it is learned.
        scale: initial value of α; it is learned.
    """

    starts = ("ridge", "scale")

    def __init__(
        self,
        embedding_size: int | None = None,
        size: int | None = None,
        hidden: int = 0,
        dropout: float = 0.0,
        ridge: float = 1.0,
        scale: float = 10.0,
    ) -> None:
        check_positive({"ridge": ridge, "scale": scale})
        self.ridge = ridge
        self.scale = scale
        super().__init__(embedding_size, size, hidden, dropout)

    def make_weights(self, E: int) -> None:
        """Make the embedding, λ and α."""
        super().make_weights(E)
        self.log_ridge = nn.Parameter(torch.tensor(math.log(self.ridge)))
        self.log_scale = nn.Parameter(torch.tensor(math.log(self.scale)))

    def classifier(self, support: Float[Tensor, "B N K E"], shots: Shots) -> Classifier:
        """Regression of the labels on the embeddings, as a linear classifier."""
        N, K = support.shape[1:3]
        images, labels = self.embedding(support).flatten(1, 2), one_hot(N, K, support).T
        if shots is not None:  # rows of Z and Y times √v: Σ vᵢ ‖zᵢ W - yᵢ‖²
            root = balanced(support, shots).sqrt()[..., None]
            images, labels = images * root, labels * root
        gram = images @ images.transpose(1, 2)
        identity = torch.eye(N * K, dtype=gram.dtype, device=gram.device)
        # without a check that the factor exists, for which a GPU would have to wait
        factor, _ = torch.linalg.cholesky_ex(gram + self.log_ridge.exp() * identity)
        solution = torch.cholesky_solve(labels.expand(len(gram), -1, -1), factor)
        weight = self.log_scale.exp() * solution.transpose(1, 2) @ images
        return self.embedding.before(LinearClassifier(weight))

    def diagnostics(self) -> dict[str, Float[Tensor, ""]]:
        """The learned λ and α."""
        return {"ridge": self.log_ridge.exp(), "scale": self.log_scale.exp()}
