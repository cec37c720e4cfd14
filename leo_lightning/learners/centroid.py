"""Nearest centroid: the classifier that a few-shot method has to beat.

Nothing is trained. With embeddings of unit length (`normalize: l2`, or `center_l2` for "CL2N") this is
SimpleShot: Wang, Chao, Weinberger, van der Maaten: SimpleShot: Revisiting Nearest-Neighbor Classification for
Few-Shot Learning. arXiv:1911.04623. The centroids are those of Prototypical Networks (Snell et al., NeurIPS
2017, Eq. 1) without an embedding of their own.
"""

from jaxtyping import Float
from torch import Tensor

from leo_lightning.learners.learner import Learner, LinearClassifier
from leo_lightning.learners.parts.unequal_shots import Shots, class_mean


class NearestCentroid(Learner):
    """Classify by the squared Euclidean distance to the mean of a class's support."""

    trained = False
    unequal_shots = True

    def stages(self, support: Float[Tensor, "B N K E"], shots: Shots = None) -> dict[str, LinearClassifier]:
        """A linear classifier: -‖x - c‖² = 2x·c - ‖c‖² - ‖x‖², and ‖x‖² is the same for all classes."""
        centroids = class_mean(support, shots)
        return {"final": LinearClassifier(2 * centroids, -centroids.square().sum(-1))}
