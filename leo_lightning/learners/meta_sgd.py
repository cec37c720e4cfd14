"""Meta-SGD: MAML that learns a step size for every parameter, too.

Li, Zhou, Chen, Li: Meta-SGD: Learning to Learn Quickly for Few-Shot Learning. arXiv:1707.09835, Eq. 5 and
6. The network on the embeddings is described in `parts/adapted_mlp.py`.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leo_lightning.learners.parts.adapted_mlp import AdaptedMLP
from leo_lightning.learners.parts.fast_weights import Rate


class MetaSGD(AdaptedMLP):
    """Meta-learned initialisation, direction and rate of the inner loop.

    The rows of the head share their rates, so that the method serves any number of classes. A rate may become
    negative, as in the paper. The paper takes one inner step.

    Args:
        inner_lr: initial value of α, the learned step sizes.
    """

    starts = ("inner_lr",)

    def make_weights(self, E: int) -> None:
        """Make the hidden layer and the step sizes."""
        super().make_weights(E)
        self.hidden_weight_rate = nn.Parameter(torch.full_like(self.hidden.weight, self.inner_lr))
        self.hidden_bias_rate = nn.Parameter(torch.full_like(self.hidden.bias, self.inner_lr))
        self.head_weight_rate = nn.Parameter(torch.full((self.hidden_size,), self.inner_lr))
        self.head_bias_rate = nn.Parameter(torch.full((1,), self.inner_lr))

    def rates(self) -> tuple[Rate, Rate]:
        """Learned step sizes of the hidden layer and of the head."""
        hidden = Rate(self.hidden_weight_rate, self.hidden_bias_rate)
        return hidden, Rate(self.head_weight_rate, self.head_bias_rate)

    def diagnostics(self) -> dict[str, Float[Tensor, ""]]:
        """Means of the learned step sizes."""
        return {"hidden_lr": self.hidden_weight_rate.mean(), "head_lr": self.head_weight_rate.mean()}
