"""Linear softmax classifier: the base learner of the paper's classification, one weight vector per class."""

import torch
from jaxtyping import Float
from torch import Tensor

from leo_lightning.data.episode import Episode
from leo_lightning.learners.learner import LinearClassifier
from leo_lightning.learners.parts import objectives
from leo_lightning.learners.parts.base_learner import BaseLearner


class LinearSoftmax(BaseLearner):
    """Logits x · w of N classes, and their cross-entropy. `LEO` is the same, and several times faster."""

    predicts = "classes"

    def initial(self, embedding_size: int) -> Float[Tensor, " D"]:
        """Zeros: all classes are as likely."""
        return torch.zeros(embedding_size)

    def predictor(self, theta: Float[Tensor, "B N D"]) -> LinearClassifier:
        """The classifiers with these weights."""
        return LinearClassifier(theta)

    def gradient(
        self, theta: Float[Tensor, "B N D"], support: Float[Tensor, "B N K E"], out: Float[Tensor, "B N D"]
    ) -> Float[Tensor, "B N M"]:
        """Gradient of the summed cross-entropy: Σᵢ (pᵢ - onehotᵢ) xᵢᵀ with p = softmax(x·w)."""
        (N, K), images = support.shape[1:3], support.flatten(1, 2)
        chance = torch.bmm(theta, images.mT).softmax(1)
        torch.bmm(chance - objectives.one_hot(N, K, theta), images, out=out)
        return chance

    def hessian_product(
        self,
        theta: Float[Tensor, "B N D"],
        support: Float[Tensor, "B N K E"],
        passed: Float[Tensor, "B N M"],
        direction: Float[Tensor, "B N D"],
        out: Float[Tensor, "B N D"],
    ) -> None:
        """Σᵢ J(pᵢ) (V xᵢ) xᵢᵀ with J the Jacobian of the softmax."""
        images = support.flatten(1, 2)
        torch.bmm(objectives.by_softmax(torch.bmm(direction, images.mT), passed, None), images, out=out)

    def query_loss(self, prediction: Float[Tensor, "B N Q outputs"], episode: Episode) -> Float[Tensor, " B"]:
        """Mean cross-entropy."""
        return objectives.query_cross_entropy(prediction, episode.valid)
