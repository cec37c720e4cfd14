"""Reptile: the initialisation moves to where the inner loop leads.

Nichol, Achiam, Schulman: On First-Order Meta-Learning Algorithms. arXiv:1803.02999, Algorithm 2. The
network on the embeddings: see `adapted_mlp`. The head needs no outer step: the moves of its rows add up to
nothing.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from leo_lightning.data.episode import Episode
from leo_lightning.learners.learner import Outcome
from leo_lightning.learners.parts.adapted_mlp import (
    AdaptedMLP,
    check_rate,
    inner_slope,
    mean_cross_entropy_slope,
)
from leo_lightning.learners.parts.fast_weights import Layer, Rate, descend


class Reptile(AdaptedMLP):
    """Outer direction: initialisation minus the mean of the tasks' adapted weights.

    It goes to the outer optimiser in place of a gradient (Section 2 of the paper names Adam for it). Reptile
    does not divide a task: in training the inner loop sees support and queries together, as the authors train
    on more shots than they test on (their `train_shots`). Each step takes all these images at once, by plain
    gradient descent; the authors' steps take ten, by Adam without its first moment.

    The loss that is reported is that of the queries after adaptation to the support alone.

    Args:
        embedding_size: E, size of an image's embedding; taken from the data.
        hidden_size: D, size of the hidden layer, whose initialisation is learned.
        inner_lr: step size of the inner loop.
        steps: inner steps in training; the hidden layer moves from the second on.
        test_steps: inner steps in evaluation; null: as many as in training.
        dropout: dropout rate of embeddings in training.
    """

    def __init__(
        self,
        embedding_size: int = 640,
        hidden_size: int = 64,
        inner_lr: float = 0.5,
        steps: int = 5,
        test_steps: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(embedding_size, hidden_size, steps, test_steps, dropout)
        check_rate("inner_lr", inner_lr)
        self.inner_lr = inner_lr

    def adapted(
        self, support: Float[Tensor, "B N K E"], shots: Int64[Tensor, "B N"] | None = None
    ) -> list[Layer]:
        """See `AdaptedMLP.adapted`."""
        return descend(
            self.start(support.shape[1]),
            support.flatten(1, 2),
            inner_slope(support, shots),
            2 * [Rate(self.inner_lr, self.inner_lr)],
            self.current_steps,
        )

    def judge(self, episode: Episode) -> Outcome:
        """In training, a loss of the queries' value whose gradient is Reptile's direction."""
        if not self.training:
            return super().judge(episode)
        with torch.no_grad():
            outcome = super().judge(episode)
        weight, bias = self.direction(episode)
        # the value of the second part is 0
        moved = (weight * self.hidden.weight).sum() + (bias * self.hidden.bias).sum()
        loss = outcome.loss + (moved - moved.detach())
        return outcome._replace(loss=loss, terms={"cross_entropy": loss})

    @torch.no_grad()
    def direction(self, episode: Episode) -> tuple[Float[Tensor, "D E"], Float[Tensor, " D"]]:
        """θ - mean θ' of the hidden layer, with θ' adapted to all images of a task."""
        images = torch.cat([episode.support, episode.query], dim=2)
        valid = None
        if episode.valid is not None:
            there = episode.valid.new_ones(episode.support.shape[:3])
            valid = torch.cat([there, episode.valid], dim=2).flatten(1)
        hidden, _ = descend(
            self.start(images.shape[1]),
            images.flatten(1, 2),
            lambda logits: mean_cross_entropy_slope(logits, valid),
            2 * [Rate(self.inner_lr, self.inner_lr)],
            self.steps,
        )
        return self.hidden.weight - hidden.weight.mean(0), self.hidden.bias - hidden.bias.mean(0)
