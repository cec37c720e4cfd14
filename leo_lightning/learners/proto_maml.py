"""ProtoMAML: MAML whose head begins as the classifier of Prototypical Networks.

Triantafillou et al.: Meta-Dataset: A Dataset of Datasets for Learning to Learn from Few Examples. ICLR 2020,
arXiv:1903.03096, the section on Proto-MAML. The network on the embeddings is described in
`parts/adapted_mlp.py`.
"""

from jaxtyping import Float
from torch import Tensor

from leo_lightning.learners.maml import MAML
from leo_lightning.learners.parts.adapted_mlp import inner_slope
from leo_lightning.learners.parts.fast_weights import Layer, activations, descend
from leo_lightning.learners.parts.unequal_shots import Shots, class_mean


class ProtoMAML(MAML):
    """MAML from a head that is each task's own: row 2c, bias -‖c‖², for the mean c of a class's features.

    Before adaptation the logits are -‖f - c‖² but for a number that all classes share. Features are those of
    the hidden layer, before it adapts. The outer gradient passes through the prototypes, also with
    `first_order` (the paper's fo-Proto-MAML). Unlike a head at zero this one lets a gradient through, so that
    the hidden layer moves from the first inner step on.
    """

    def adapted(self, support: Float[Tensor, "B N K E"], shots: Shots, steps: int) -> list[Layer]:
        """Hidden layer and head after so many steps from the prototypes."""
        (hidden, empty), images = self.start(support.shape[1]), support.flatten(1, 2)
        _, features, _ = activations([hidden, empty], images)
        prototypes = class_mean(features.unflatten(1, support.shape[1:3]), shots)
        head = Layer(2 * prototypes, -prototypes.square().sum(-1))
        slope = inner_slope(support, shots)
        return descend([hidden, head], images, slope, self.rates(), steps, self.first_order)
