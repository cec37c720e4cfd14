"""MAML: gradient descent from a meta-learned initialisation.

Finn, Abbeel, Levine: Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks. ICML 2017,
arXiv:1703.03400, Algorithm 2. The network on the embeddings is described in `parts/adapted_mlp.py`.
"""

from leo_lightning.learners.parts.adapted_mlp import AdaptedMLP


class MAML(AdaptedMLP):
    """Model-agnostic meta-learning: the inner loop moves the hidden layer and the head (Eq. 1).

    Args:
        first_order: leave second derivatives out of the outer gradient (FOMAML; Section 5.2 of the paper).
    """

    def __init__(
        self,
        embedding_size: int | None = None,
        hidden_size: int = 64,
        inner_lr: float = 0.5,
        steps: int = 5,
        first_order: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(embedding_size, hidden_size, inner_lr, steps, dropout)
        self.first_order = first_order
