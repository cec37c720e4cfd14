"""MAML: gradient descent from a meta-learned initialisation.

Finn, Abbeel, Levine: Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks. ICML 2017,
arXiv:1703.03400, Algorithm 2. The network on the embeddings: see `adapted_mlp`.
"""

from jaxtyping import Float, Int64
from torch import Tensor

from leo_lightning.learners.parts.adapted_mlp import AdaptedMLP, check_rate, inner_slope
from leo_lightning.learners.parts.fast_weights import Layer, Rate, descend


class MAML(AdaptedMLP):
    """Model-agnostic meta-learning: the inner loop moves the hidden layer and the head (Eq. 1).

    Args:
        embedding_size: E, size of an image's embedding; taken from the data.
        hidden_size: D, size of the hidden layer, whose initialisation is learned.
        inner_lr: α, step size of the inner loop.
        steps: inner steps in training; the hidden layer moves from the second on.
        test_steps: inner steps in evaluation; null: as many as in training.
        first_order: leave second derivatives out of the outer gradient (FOMAML; Section 5.2 of the paper).
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

    def adapted(
        self, support: Float[Tensor, "B N K E"], shots: Int64[Tensor, "B N"] | None = None
    ) -> list[Layer]:
        """See `AdaptedMLP.adapted`."""
        return descend(
            self.start(support.shape[1]),
            support.flatten(1, 2),
            inner_slope(support, shots),
            2 * [Rate(self.inner_lr, self.inner_lr)],
            self.current_steps,
            self.first_order,
        )
