"""LEO beside a nearest centroid. Ours, not the paper's."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leo_lightning.common.errors import check_positive
from leo_lightning.learners.learner import LinearClassifier
from leo_lightning.learners.leo import LEO
from leo_lightning.learners.parts.unequal_shots import Shots, class_mean


class CentroidLEO(LEO):
    """LEO whose decoded classifiers are added to a nearest-centroid classifier, the centroid head.

    The head's logits are -½ Σ s (x - c)², with c the mean of a class's support images and s a learned scale,
    one per embedding dimension, kept as its logarithm. Arguments that are not named here are those of `LEO`.

    Args:
        centroid_scale: initial value of s.
        centroid_map: measure distances after a learned linear map A, which begins as the identity: the logits
            are -½ ‖A √s (x - c)‖².
    """

    starts = (*LEO.starts, "centroid_scale")

    def __init__(
        self,
        embedding_size: int | None = None,
        num_latents: int = 64,
        latent_steps: int = 5,
        finetuning_steps: int = 5,
        latent_lr: float = 1.0,
        finetuning_lr: float = 0.001,
        dropout: float = 0.5,
        kl_weight: float = 1e-3,
        encoder_penalty_weight: float = 1e-9,
        l2_penalty_weight: float = 1e-8,
        orthogonality_penalty_weight: float = 1e-3,
        random_prior: bool = False,
        deterministic: bool = False,
        centroid_scale: float = 5.0,
        centroid_map: bool = False,
        test_samples: int = 0,
    ) -> None:
        check_positive({"centroid_scale": centroid_scale})
        self.centroid_scale = centroid_scale
        self.centroid_map = centroid_map
        super().__init__(
            embedding_size, num_latents, latent_steps, finetuning_steps, latent_lr, finetuning_lr, dropout,
            kl_weight, encoder_penalty_weight, l2_penalty_weight, orthogonality_penalty_weight,
            random_prior, deterministic, test_samples,
        )  # fmt: skip

    def make_weights(self, E: int) -> None:
        """Make the weights of LEO and of the centroid head."""
        super().make_weights(E)
        self.log_scale = nn.Parameter(torch.full((E,), math.log(self.centroid_scale)))
        self.map = nn.Parameter(torch.eye(E)) if self.centroid_map else None

    def centroid_head(self, support: Float[Tensor, "B N K E"], shots: Shots) -> LinearClassifier:
        """-½ ‖A √s (x - c)‖², less what is equal for all classes: linear in x."""
        scale, centroids = self.log_scale.exp(), class_mean(support, shots)
        if self.map is None:
            return LinearClassifier(scale * centroids, -0.5 * (centroids.square() @ scale))
        root = scale.sqrt()
        mapped = (root * centroids) @ self.map.T
        return LinearClassifier(root * (mapped @ self.map), -0.5 * mapped.square().sum(-1))
