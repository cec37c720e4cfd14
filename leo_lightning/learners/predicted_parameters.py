"""Parameters from activations: a learned map from a class's mean embedding to its classification weight.

Qiao, Liu, Shen, Yuille: Few-Shot Image Recognition by Predicting Parameters from Activations. CVPR 2018,
arXiv:1706.03466. The authors' code: github.com/joe-siyuan-qiao/FewShot-CVPR,
MiniImageNet/few_shot/WeightNet.lua at 3c96cf2.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from leo_lightning.common.errors import InputError, check_least, check_positive
from leo_lightning.data.episode import Episode
from leo_lightning.learners.learner import Learner, LinearClassifier
from leo_lightning.learners.parts.metric_learner import Embedding
from leo_lightning.learners.parts.noise import Masks, check_dropout, draw
from leo_lightning.learners.parts.unequal_shots import Shots, class_mean


class Statistics(NamedTuple):
    """Dropout factors of an episode's images, and the statistic that stands for each class in training."""

    masks: Masks
    weights: Float[Tensor, "B N K"]
    """Weights of a class's images: 1 / K each, or 1 for one of them."""

    def on(self, episode: Episode) -> Episode:
        """The episode with one support image for each class: the mean of its images, or one of them."""
        episode = self.masks.on(episode)
        return episode._replace(support=(self.weights[..., None] * episode.support).sum(2, keepdim=True))


class PredictedParameters(Learner):
    """Predict the weights of a linear classifier from the mean embedding of each class.

    p(n | x) = softmax over n of x · φ(a_n) / τ, with a_n the mean of class n. In training a_n is now and
    then a single image of the class, so that φ learns from what one example looks like too. One map φ
    serves all classes: φ(a) = A â + C relu(B â + b), scaled to length 1, with â = a / ‖a‖. The authors' φ
    is C relu(A â), of the width of â, and begins as the identity, as â has no negative numbers; here
    embeddings may be centred, and the linear map A beside the hidden layer is what begins as the identity.

    The paper draws a_n from all images of a training class; here they are those of the support. Its loss is
    over all training classes together, here over the N of a task. The network is left as it was, as in the
    paper, so queries are not mapped: in Prototypical Networks they are. log τ is learned.

    Args:
        embedding_size: E, size of an image's embedding; null: taken from the data.
        hidden: width of the hidden layer of φ; 0: φ is a linear map.
        dropout: dropout rate of embeddings in training, of support and query alike.
        temperature: initial value of τ, by which logits are divided before the softmax; it is learned.
        mean_probability: probability in training that the mean stands for a class, and not a single image;
            at 1-shot they are the same.
    """

    unequal_shots = True
    starts = ("temperature",)

    def __init__(
        self,
        embedding_size: int | None = None,
        hidden: int = 256,
        dropout: float = 0.0,
        temperature: float = 0.1,
        mean_probability: float = 0.9,
    ) -> None:
        super().__init__()
        check_dropout(dropout)
        check_least(0, {"hidden": hidden})
        check_positive({"temperature": temperature})
        if not 0 <= mean_probability <= 1:
            raise InputError(f"mean_probability is {mean_probability}: it must be from 0 to 1")
        self.embedding_size = None
        self.hidden = hidden
        self.dropout = dropout
        self.temperature = temperature
        self.mean_probability = mean_probability
        self.take_size(embedding_size)

    def make_weights(self, E: int) -> None:
        """Make φ and the temperature."""
        self.predictor = Embedding(E, None, self.hidden)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(self.temperature)))

    def draw_noise(self, episode: Episode, seeds: Sequence[int] | None) -> Masks | Statistics:
        """Dropout masks, and the choice of a statistic for each class, from a task's seed."""
        _, N, K, _ = episode.support.shape
        if not (K > 1 and self.mean_probability < 1):
            return super().draw_noise(episode, seeds)
        shapes = {name: tuple(getattr(episode, name).shape[1:]) for name in Masks._fields if self.dropout}
        drawn = draw(episode.support, seeds, {"single": (N, 1), "image": (N, K)}, shapes, self.dropout)
        # a standard normal number is above the quantile with the probability of a single image
        quantile = NormalDist().inv_cdf(self.mean_probability) if self.mean_probability else -math.inf
        one = F.one_hot(drawn["image"].argmax(-1), K).to(episode.support)
        weights = torch.where(drawn["single"] > quantile, one, 1 / K)
        return Statistics(Masks(*(drawn.get(name) for name in Masks._fields)), weights)

    def stages(self, support: Float[Tensor, "B N K E"], shots: Shots = None) -> dict[str, LinearClassifier]:
        """The one classifier. Not in half precision, in which the logits hardly differ."""
        with torch.autocast(support.device.type, enabled=False):
            activations = F.normalize(class_mean(support, shots), dim=-1)
            weight = F.normalize(self.predictor(activations), dim=-1)
            return {"final": LinearClassifier(self.log_temperature.neg().exp() * weight)}

    def diagnostics(self) -> dict[str, Float[Tensor, ""]]:
        """The learned temperature."""
        return {"temperature": self.log_temperature.exp()}
