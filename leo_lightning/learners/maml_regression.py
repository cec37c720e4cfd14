"""MAML for regression: gradient descent on all parameters of a network, from a meta-learned initialisation.

Finn, Abbeel, Levine: Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks. ICML 2017,
arXiv:1703.03400, Section 5.1.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leo_lightning.common.errors import check_least, check_positive
from leo_lightning.data.episode import Episode
from leo_lightning.learners.generated_mlp import Function, MLPRegressor
from leo_lightning.learners.learner import Classifier, Learner
from leo_lightning.learners.parts.inner_loop import adapt, shortened
from leo_lightning.learners.parts.normal_mixture import Predictive, of_samples


class MAMLRegression(Learner):
    """Model-agnostic meta-learning of a multilayer perceptron with one number as its output.

    Args:
        embedding_size: E, size of a point, whose last number is to be predicted; null: taken from the data.
        hidden_sizes: sizes of the hidden layers.
        inner_lr: initial value of α, step size of the inner loop.
        learn_rates: learn α, one for each parameter, as multiples of the initial value: Meta-SGD (Li et al.,
            2017, arXiv:1707.09835).
        steps: inner steps.
        gradient_clip: largest length that the inner gradient of a task may have; null: any.
    """

    predicts = "values"

    def __init__(
        self,
        embedding_size: int | None = None,
        hidden_sizes: Sequence[int] = (40, 40),
        inner_lr: float = 0.002,
        learn_rates: bool = False,
        steps: int = 10,
        gradient_clip: float | None = None,
    ) -> None:
        super().__init__()
        check_least(1, {"steps": steps})
        check_least(0, {"inner_lr": inner_lr})
        check_positive({"gradient_clip": gradient_clip})
        self.embedding_size = None
        self.hidden_sizes = list(hidden_sizes)
        self.inner_lr = inner_lr
        self.learn_rates = learn_rates
        self.steps = steps
        self.gradient_clip = gradient_clip
        self.take_size(embedding_size)

    def make_weights(self, E: int) -> None:
        """Make θ and its learned rates."""
        self.base = MLPRegressor(E - 1, self.hidden_sizes)
        self.theta = nn.Parameter(self.base.initial(E))
        self.alpha = nn.Parameter(torch.ones_like(self.theta)) if self.learn_rates else None

    def stages(self, support: Float[Tensor, "B N K E"]) -> dict[str, Function]:
        """Networks before adaptation and after it."""
        with torch.autocast(support.device.type, enabled=False):
            thetas = self._adapted(support)
        before, final = self.base.predictor(thetas[0]), self.base.predictor(thetas[-1])
        return {"before_adaptation": before, "final": final}

    def predictive(self, episode: Episode, final: Classifier) -> Predictive:
        """One function, without doubt."""
        return of_samples(final(episode.query)[..., 0], episode.noise)

    def _adapted(self, support: Float[Tensor, "B 1 K E"]) -> list[Float[Tensor, "B 1 D"]]:
        """θ before and after each step."""

        def gradient(theta: Tensor, step: int) -> Tensor:
            return shortened(self.base.support_gradient(theta, support), self.gradient_clip)

        multiple = torch.ones_like(self.theta) if self.alpha is None else self.alpha
        start = self.theta.expand(len(support), 1, -1)
        return adapt(start, gradient, self.inner_lr * multiple, self.steps)
