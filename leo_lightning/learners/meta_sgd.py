"""Meta-SGD: MAML that learns a step size for every parameter, too.

Li, Zhou, Chen, Li: Meta-SGD: Learning to Learn Quickly for Few-Shot Learning. arXiv:1707.09835, Eq. 5 and
6. The network on the embeddings: see `adapted_mlp`.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from leo_lightning.learners.parts.adapted_mlp import AdaptedMLP, check_rate, inner_slope
from leo_lightning.learners.parts.fast_weights import Layer, Rate, descend


class MetaSGD(AdaptedMLP):
    """Meta-learned initialisation, direction and rate of the inner loop.

    The rates of the head are shared by its rows, so that the method serves any number of classes. A rate may
    become negative, as in the paper.

    Args:
        embedding_size: E, size of an image's embedding; taken from the data.
        hidden_size: D, size of the hidden layer, whose initialisation is learned.
        inner_lr: initial value of α, the learned step sizes.
        steps: inner steps in training, 1 in the paper; the hidden layer moves from the second on.
        test_steps: inner steps in evaluation; null: as many as in training.
        first_order: leave second derivatives out of the outer gradient.
        dropout: dropout rate of embeddings in training.
    """

    def __init__(
        self,
        embedding_size: int = 640,
        hidden_size: int = 64,
        inner_lr: float = 0.5,
        steps: int = 5,
        test_steps: int | None = None,
        first_order: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(embedding_size, hidden_size, steps, test_steps, dropout)
        check_rate("inner_lr", inner_lr)
        self.inner_lr = inner_lr
        self.first_order = first_order
        self.hidden_weight_rate = nn.Parameter(torch.full((hidden_size, embedding_size), inner_lr))
        self.hidden_bias_rate = nn.Parameter(torch.full((hidden_size,), inner_lr))
        self.head_weight_rate = nn.Parameter(torch.full((hidden_size,), inner_lr))
        self.head_bias_rate = nn.Parameter(torch.full((1,), inner_lr))

    def rates(self) -> tuple[Rate, Rate]:
        """Step sizes of the hidden layer and of the head."""
        hidden = Rate(self.hidden_weight_rate, self.hidden_bias_rate)
        return hidden, Rate(self.head_weight_rate, self.head_bias_rate)

    def adapted(
        self, support: Float[Tensor, "B N K E"], shots: Int64[Tensor, "B N"] | None = None
    ) -> list[Layer]:
        """See `AdaptedMLP.adapted`."""
        return descend(
            self.start(support.shape[1]),
            support.flatten(1, 2),
            inner_slope(support, shots),
            self.rates(),
            self.current_steps,
            self.first_order,
        )

    @torch.no_grad()
    def diagnostics(self) -> dict[str, Float[Tensor, ""]]:
        """See `Outcome.diagnostics`."""
        return {"hidden_lr": self.hidden_weight_rate.mean(), "head_lr": self.head_weight_rate.mean()}
