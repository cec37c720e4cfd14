"""Base of the gradient-based methods: a network of one hidden layer, adapted to the support of each task.

The hidden layer (E → D, ReLU) is meta-learned. The linear head (D → N) begins at zero in every task, so the
method serves any number of classes and treats them all alike: the "zeroing trick" of Kao, Chiu, Chen: MAML is
a Noisy Contrastive Learner in Classification. ICLR 2022, arXiv:2106.15367. A learned vector for all rows of
the head to begin at (UNICORN-MAML: Ye, Chao, ICLR 2022, arXiv:2106.16245, Section 5) would be the same
method: it cancels in the softmax, before and after every inner step. At zero the head lets no gradient
through to the hidden layer: an inner loop adapts that layer from its second step on. The inner loss is the
mean cross-entropy over the N·K support images, as in the papers of these methods; LEO's is a sum.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from leo_lightning.common.errors import check_least, check_positive
from leo_lightning.learners.learner import Learner
from leo_lightning.learners.parts.fast_weights import Layer, MLPClassifier, Rate, descend
from leo_lightning.learners.parts.noise import check_dropout
from leo_lightning.learners.parts.objectives import one_hot
from leo_lightning.learners.parts.unequal_shots import Shots, present_images


class AdaptedMLP(Learner):
    """A network of one hidden layer, adapted by gradient descent.

    Args:
        embedding_size: E, size of an image's embedding; null: taken from the data.
        hidden_size: D, size of the hidden layer.
        inner_lr: α, step size of the inner loop.
        steps: inner steps; a hidden layer that adapts moves from the second on.
        dropout: dropout rate of embeddings in training.
    """

    unequal_shots = True
    first_order: bool = False
    """Whether the gradients of the inner loss are constants in the outer gradient."""

    def __init__(
        self,
        embedding_size: int | None = None,
        hidden_size: int = 64,
        inner_lr: float = 0.5,
        steps: int = 5,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_dropout(dropout)
        check_least(1, {"hidden_size": hidden_size, "steps": steps})
        self.embedding_size = None
        self.hidden_size = hidden_size
        self.inner_lr = inner_lr
        self.steps = steps
        self.dropout = dropout
        self.check_rate()
        self.take_size(embedding_size)

    def check_rate(self) -> None:
        """Refuse a step size that makes no sense."""
        check_positive({"inner_lr": self.inner_lr})

    def make_weights(self, E: int) -> None:
        """Make the hidden layer."""
        self.hidden = nn.Linear(E, self.hidden_size)

    def rates(self) -> Sequence[Rate]:
        """Step sizes of the hidden layer and of the head."""
        return 2 * [Rate(self.inner_lr, self.inner_lr)]

    def adapted(self, support: Float[Tensor, "B N K E"], shots: Shots, steps: int) -> list[Layer]:
        """Hidden layer and head after so many steps; shots as in `Learner.stages`."""
        start, slope = self.start(support.shape[1]), inner_slope(support, shots)
        return descend(start, support.flatten(1, 2), slope, self.rates(), steps, self.first_order)

    def every_step(self, support: Float[Tensor, "B N K E"]) -> list[list[Layer]]:
        """Hidden layer and head before adaptation and after each step."""
        return [self.adapted(support, None, steps) for steps in range(self.steps + 1)]

    def start(self, N: int) -> list[Layer]:
        """Hidden layer and head before adaptation, the same for all tasks."""
        weight, bias = self.hidden.weight[None], self.hidden.bias[None]
        return [Layer(weight, bias), Layer(weight.new_zeros(1, N, self.hidden_size), bias.new_zeros(1, N))]

    def stages(self, support: Float[Tensor, "B N K E"], shots: Shots = None) -> dict[str, MLPClassifier]:
        """The adapted network alone: before adaptation, all classes are alike."""
        with torch.autocast(support.device.type, enabled=False):
            return {"final": MLPClassifier(self.adapted(support, shots, self.steps))}


def inner_slope(support: Float[Tensor, "B N K E"], shots: Shots) -> Callable[[Tensor], Tensor]:
    """`mean_cross_entropy_slope` for a support set."""
    return partial(mean_cross_entropy_slope, valid=present_images(support, shots))


def mean_cross_entropy_slope(
    logits: Float[Tensor, "B M N"], valid: Bool[Tensor, "B M"] | None = None
) -> Float[Tensor, "B M N"]:
    """Gradient, by the logits, of each task's mean cross-entropy over M images in order of their classes."""
    M, N = logits.shape[1:]
    residual = logits.softmax(-1) - one_hot(N, M // N, logits).T
    if valid is None:
        return residual / M
    return residual * (valid.to(logits.dtype) / valid.sum(1, keepdim=True))[:, :, None]
