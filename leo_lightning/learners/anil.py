"""ANIL: MAML whose inner loop moves the head alone.

Raghu, Raghu, Bengio, Vinyals: Rapid Learning or Feature Reuse? Towards Understanding the Effectiveness of
MAML. ICLR 2020, arXiv:1909.09157, Section 4. The network on the embeddings is described in
`parts/adapted_mlp.py`.
"""

from jaxtyping import Float
from torch import Tensor

from leo_lightning.learners.parts.adapted_mlp import AdaptedMLP, inner_slope
from leo_lightning.learners.parts.fast_weights import Layer, activations, descend
from leo_lightning.learners.parts.unequal_shots import Shots


class ANIL(AdaptedMLP):
    """Almost no inner loop: the hidden layer is learned outside and the same in all tasks."""

    def adapted(self, support: Float[Tensor, "B N K E"], shots: Shots, steps: int) -> list[Layer]:
        """The hidden layer as it is, and the head after so many steps."""
        hidden, head = self.start(support.shape[1])
        _, features, _ = activations([hidden, head], support.flatten(1, 2))
        return [hidden, *descend([head], features, inner_slope(support, shots), self.rates()[1:], steps)]
