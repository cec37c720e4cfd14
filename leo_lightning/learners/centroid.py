"""Nearest centroid: the classifier that a few-shot method has to beat.

Nothing is trained. With embeddings of unit length (`normalize: l2`, or `center_l2` for "CL2N") this is
SimpleShot: Wang, Chao, Weinberger, van der Maaten: SimpleShot: Revisiting Nearest-Neighbor Classification for
Few-Shot Learning. arXiv:1911.04623. The centroids are those of Prototypical Networks (Snell et al., NeurIPS
2017, Eq. 1) without an embedding of their own.
"""

from jaxtyping import Float, Int64
from torch import Tensor

from leo_lightning.learners.learner import LinearClassifier
from leo_lightning.learners.parts.not_trained import NotTrained
from leo_lightning.learners.parts.unequal_shots import class_mean


class NearestCentroid(NotTrained):
    """Classify by the squared Euclidean distance to the mean of a class's support."""

    def __init__(self) -> None:
        super().__init__()

    def stages(
        self, support: Float[Tensor, "B N K E"], shots: Int64[Tensor, "B N"] | None = None
    ) -> dict[str, LinearClassifier]:
        """See `Learner.stages`. -‖x - c‖² = 2x·c - ‖c‖² - ‖x‖², and ‖x‖² is the same for all classes."""
        centroids = class_mean(support, shots)
        return {"final": LinearClassifier(2 * centroids, -centroids.square().sum(-1))}
