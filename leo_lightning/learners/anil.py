"""ANIL: MAML whose inner loop moves the head alone.

Raghu, Raghu, Bengio, Vinyals: Rapid Learning or Feature Reuse? Towards Understanding the Effectiveness of
MAML. ICLR 2020, arXiv:1909.09157, Section 4. The network on the embeddings: see `adapted_mlp`.
"""

from jaxtyping import Float, Int64
from torch import Tensor

from leo_lightning.learners.parts.adapted_mlp import AdaptedMLP, check_rate, inner_slope
from leo_lightning.learners.parts.fast_weights import Layer, Rate, activations, descend


class ANIL(AdaptedMLP):
    """Almost no inner loop: the hidden layer is learned outside and the same in all tasks.

    Args:
        embedding_size: E, size of an image's embedding; taken from the data.
        hidden_size: D, size of the hidden layer.
        inner_lr: α, step size of the inner loop.
        steps: inner steps in training.
        test_steps: inner steps in evaluation; null: as many as in training.
        dropout: dropout rate of embeddings in training.
    """

    def __init__(
        self,
        embedding_size: int = 640,
        hidden_size: int = 64,
        inner_lr: float = 0.5,
        steps: int = 5,
        test_steps: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(embedding_size, hidden_size, steps, test_steps, dropout)
        check_rate("inner_lr", inner_lr)
        self.inner_lr = inner_lr

    def adapted(
        self, support: Float[Tensor, "B N K E"], shots: Int64[Tensor, "B N"] | None = None
    ) -> list[Layer]:
        """See `AdaptedMLP.adapted`."""
        hidden, head = self.start(support.shape[1])
        _, features, _ = activations([hidden, head], support.flatten(1, 2))
        rates = [Rate(self.inner_lr, self.inner_lr)]
        slope = inner_slope(support, shots)
        return [hidden, *descend([head], features, slope, rates, self.current_steps)]
