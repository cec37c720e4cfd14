"""What the gradient-based methods share: a network of one hidden layer, adapted to the support of each task.

The hidden layer (E → D, ReLU) is what is meta-learned. The linear head (D → N) begins at zero in every
task, so the method serves any number of classes and treats them all alike. A learned vector for all rows of
the head to begin at, as in UNICORN-MAML (Ye, Chao: How to Train Your MAML to Excel in Few-Shot
Classification. ICLR 2022, arXiv:2106.16245, Section 5), is no other method: in the softmax what all classes
share cancels, before and after every inner step, so that the vector would change no answer and get no
gradient. Zeros are also the "zeroing trick" of Kao, Chiu, Chen: MAML is a Noisy Contrastive Learner in
Classification. ICLR 2022, arXiv:2106.15367. At zero the head lets no gradient through to the hidden layer:
an inner loop adapts that from its second step on.

The inner loss is the mean cross-entropy over the N·K support images, as in the papers of these methods;
that of LEO is a sum.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from leo_lightning.common.errors import InputError, check_least
from leo_lightning.data.episode import Episode
from leo_lightning.learners.learner import Learner, Outcome
from leo_lightning.learners.parts.dropout import Masks, check_dropout, draw_masks
from leo_lightning.learners.parts.fast_weights import Layer, MLPClassifier
from leo_lightning.learners.parts.objectives import one_hot, query_cross_entropy
from leo_lightning.learners.parts.unequal_shots import present


class AdaptedMLP(Learner):
    """A network of one hidden layer that some kind of gradient descent adapts.

    Args:
        embedding_size: E, size of an image's embedding; taken from the data.
        hidden_size: D, size of the hidden layer.
        steps: inner steps in training.
        test_steps: inner steps in evaluation; null: as many as in training.
        dropout: dropout rate of embeddings in training.
    """

    unequal_shots = True

    def __init__(
        self, embedding_size: int, hidden_size: int, steps: int, test_steps: int | None, dropout: float
    ) -> None:
        super().__init__()
        check_least(1, {"hidden_size": hidden_size, "steps": steps, "test_steps": test_steps})
        check_dropout(dropout)
        self.embedding_size = embedding_size
        self.hidden_size = hidden_size
        self.steps = steps
        self.test_steps = test_steps
        self.dropout = dropout
        self.hidden = nn.Linear(embedding_size, hidden_size)

    @abstractmethod
    def adapted(
        self, support: Float[Tensor, "B N K E"], shots: Int64[Tensor, "B N"] | None = None
    ) -> list[Layer]:
        """Hidden layer and head after adaptation; shots as in `Learner.stages`."""

    def every_step(self, support: Float[Tensor, "B N K E"]) -> list[list[Layer]]:
        """Hidden layer and head before adaptation and after each step of evaluation; call `.eval()` first."""
        wanted, found = self.test_steps, []
        try:
            for steps in range(self.current_steps + 1):
                self.test_steps = steps
                found.append(self.adapted(support))
        finally:
            self.test_steps = wanted
        return found

    @property
    def current_steps(self) -> int:
        """Inner steps in the present mode."""
        return self.steps if self.training or self.test_steps is None else self.test_steps

    def start(self, N: int) -> list[Layer]:
        """Hidden layer and head before adaptation, the same for all tasks."""
        weight, bias = self.hidden.weight[None], self.hidden.bias[None]
        return [Layer(weight, bias), Layer(weight.new_zeros(1, N, self.hidden_size), bias.new_zeros(1, N))]

    def stages(
        self, support: Float[Tensor, "B N K E"], shots: Int64[Tensor, "B N"] | None = None
    ) -> dict[str, MLPClassifier]:
        """See `Learner.stages`. Before adaptation there is nothing to see: all classes are alike."""
        with torch.autocast(support.device.type, enabled=False):
            return {"final": MLPClassifier(self.adapted(support, shots))}

    def draw_noise(self, episode: Episode, seeds: Sequence[int] | None) -> Masks:
        """See `Learner.draw_noise`. One mask for all inner steps."""
        return draw_masks(episode, seeds, self.dropout if self.training else 0.0)

    def outcome(self, episode: Episode, noise: Masks) -> Outcome:
        """See `Learner.outcome`."""
        with torch.autocast(episode.support.device.type, enabled=False):
            return self.judge(noise.on(episode))

    def judge(self, episode: Episode) -> Outcome:
        """Adapt to the support and answer the queries."""
        logits = MLPClassifier(self.adapted(episode.support))(episode.query)
        loss = query_cross_entropy(logits, episode.valid).mean()
        return Outcome(loss, {"cross_entropy": loss}, logits, self.diagnostics())

    def diagnostics(self) -> dict[str, Float[Tensor, ""]]:
        """See `Outcome.diagnostics`."""
        return {}


def check_rate(name: str, rate: float) -> None:
    """Check a step size.

    Raises:
        InputError: it is not above 0.
    """
    if not rate > 0:
        raise InputError(f"{name} is {rate}: it must be above 0")


def inner_slope(
    support: Float[Tensor, "B N K E"], shots: Int64[Tensor, "B N"] | None
) -> Callable[[Float[Tensor, "B M N"]], Float[Tensor, "B M N"]]:
    """`mean_cross_entropy_slope` of a support: logits to the gradient of its mean cross-entropy."""
    valid = None if shots is None else present(support, shots).flatten(1)
    return partial(mean_cross_entropy_slope, valid=valid)


def mean_cross_entropy_slope(
    logits: Float[Tensor, "B M N"], valid: Bool[Tensor, "B M"] | None = None
) -> Float[Tensor, "B M N"]:
    """Gradient with respect to the logits of each task's cross-entropy, mean over its M images.

    Args:
        logits: of images in order of their classes, with as many for each.
        valid: False for what is no image.
    """
    M, N = logits.shape[1:]
    residual = logits.softmax(-1) - one_hot(N, M // N, logits).T
    if valid is None:
        return residual / M
    return residual * (valid.to(logits.dtype) / valid.sum(1, keepdim=True))[:, :, None]
