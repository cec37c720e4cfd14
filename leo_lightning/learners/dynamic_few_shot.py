"""Dynamic few-shot learning: a generator of cosine classifiers that attends to weights of other classes.

Gidaris, Komodakis: Dynamic Few-Shot Visual Learning without Forgetting. CVPR 2018, arXiv:1804.09458. The
authors' code: github.com/gidariss/FewShotWithoutForgetting,
architectures/ClassifierWithFewShotGenerationModule.py at 997d42f.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from leo_lightning.common.errors import check_least, check_positive
from leo_lightning.learners.learner import LinearClassifier
from leo_lightning.learners.parts.metric_learner import Embedded, MetricLearner
from leo_lightning.learners.parts.unequal_shots import Shots, class_mean

SHARPNESS = 10.0
"""Initial γ, by which the cosines of the attention are multiplied, as in the authors' code; it is learned."""


class WeightGenerator(nn.Module):
    """Images of a class to its classification weight: their mean, and what they attend to in a memory.

    w = φ_avg ⊙ mean of z + φ_att ⊙ mean of Σ_b Att(φ_q z, k_b) w_b, over the K images z, of length 1. Att is
    the softmax over b of γ cos(φ_q z, k_b), and the w_b have length 1. φ_att begins at zero: at first the
    generator makes the class mean. In the authors' code it begins at one, with w_b that have been trained.
    """

    def __init__(self, size: int, bases: int) -> None:
        super().__init__()
        self.average_scale = nn.Parameter(torch.ones(size))
        self.attention_scale = nn.Parameter(torch.zeros(size))
        self.query = nn.Linear(size, size)
        nn.init.eye_(self.query.weight)
        nn.init.zeros_(self.query.bias)
        self.keys, self.weights = (nn.Parameter(torch.randn(bases, size) * size**-0.5) for _ in range(2))
        self.sharpness = nn.Parameter(torch.tensor(SHARPNESS))

    def forward(self, images: Float[Tensor, "B N K D"], shots: Shots) -> Float[Tensor, "B N D"]:
        """The weight of each class."""
        images = F.normalize(images, dim=-1)
        cosines = F.normalize(self.query(images), dim=-1) @ F.normalize(self.keys, dim=-1).T
        attention = class_mean((self.sharpness * cosines).softmax(-1), shots)
        recalled = attention @ F.normalize(self.weights, dim=-1)
        return self.average_scale * class_mean(images, shots) + self.attention_scale * recalled


class DynamicFewShot(MetricLearner):
    """Classify by cosines to weights that a generator makes, with attention to weights of base classes.

    p(n | x) = softmax over n of cos(f(x), w_n) / τ, with w_n from the `WeightGenerator`. In the paper the
    base weights w_b are those of the classifier of the training classes, trained first, by name; a base
    class that plays the new one is left out of the memory, and the loss is over base and new classes
    together. An episode tells a learner no class, so here the w_b are a memory of learned vectors, trained
    on episodes with all the rest, as the keys k_b are in the paper; the answers are new classes only. What
    the paper calls "without forgetting", the recognition of base classes beside the new ones, is left out.

    Args:
        bases: base weights in the memory; the paper has one for each training class, 64 in miniImageNet.
        temperature: initial value of τ, by which cosines are divided before the softmax; it is learned.
    """

    starts = ("temperature",)

    def __init__(
        self,
        embedding_size: int | None = None,
        size: int | None = None,
        hidden: int = 0,
        dropout: float = 0.0,
        bases: int = 64,
        temperature: float = 0.1,
    ) -> None:
        check_least(1, {"bases": bases})
        check_positive({"temperature": temperature})
        self.bases = bases
        self.temperature = temperature
        super().__init__(embedding_size, size, hidden, dropout)

    def make_weights(self, E: int) -> None:
        """Make the embedding, the generator and the temperature."""
        super().make_weights(E)
        self.generator = WeightGenerator(self.size or E, self.bases)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(self.temperature)))

    def classifier(self, support: Float[Tensor, "B N K E"], shots: Shots) -> Embedded:
        """Cosines to the generated weights, as a linear classifier."""
        weights = F.normalize(self.generator(self.embedding(support), shots), dim=-1)
        return Embedded(self.embedding, LinearClassifier(self.log_temperature.neg().exp() * weights), True)

    def diagnostics(self) -> dict[str, Float[Tensor, ""]]:
        """The learned temperature, the sharpness of the attention, and how much of it is used."""
        scale = self.generator.attention_scale.square().mean().sqrt()
        return {
            "temperature": self.log_temperature.exp(),
            "attention_sharpness": self.generator.sharpness,
            "attention_scale": scale,
        }
