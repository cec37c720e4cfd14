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

    def support_gradient(
        self, theta: Float[Tensor, "B N D"], support: Float[Tensor, "B N K E"]
    ) -> Float[Tensor, "B N D"]:
        """Gradient of the summed cross-entropy."""
        return objectives.support_gradient(support, theta)

    def query_loss(self, prediction: Float[Tensor, "B N Q outputs"], episode: Episode) -> Float[Tensor, " B"]:
        """Mean cross-entropy."""
        return objectives.query_cross_entropy(prediction, episode.valid)
