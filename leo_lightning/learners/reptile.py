"""Reptile: the initialisation moves to where the inner loop leads.

Nichol, Achiam, Schulman: On First-Order Meta-Learning Algorithms. arXiv:1803.02999, Algorithm 2. The network
on the embeddings is described in `parts/adapted_mlp.py`. The head needs no outer step: the moves of its rows
add up to nothing.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from leo_lightning.data.episode import Episode
from leo_lightning.learners.learner import Outcome
from leo_lightning.learners.parts.adapted_mlp import AdaptedMLP, mean_cross_entropy_slope
from leo_lightning.learners.parts.fast_weights import descend
from leo_lightning.learners.parts.noise import Masks


class Reptile(AdaptedMLP):
    """Outer direction: initialisation minus the mean of the tasks' adapted weights.

    It goes to the outer optimiser in place of a gradient. Reptile does not divide a task: in training the
    inner loop sees support and queries together, as the authors train on more shots than they test on (their
    `train_shots`). Each step takes all these images at once, by plain gradient descent; the authors' steps
    take ten, by Adam without its first moment. The loss that is reported is the loss of the queries after
    adaptation to the support alone.
    """

    def outcome(self, episode: Episode, noise: Masks) -> Outcome:
        """In training, a loss of the queries' value whose gradient is Reptile's direction."""
        if not self.training:
            return super().outcome(episode, noise)
        with torch.no_grad():
            outcome = super().outcome(episode, noise)
        with torch.autocast(episode.support.device.type, enabled=False):
            weight, bias = self.direction(noise.on(episode))
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
            support = episode.valid.new_ones(episode.support.shape[:3])
            valid = torch.cat([support, episode.valid], dim=2).flatten(1)
        hidden, _ = descend(
            self.start(images.shape[1]),
            images.flatten(1, 2),
            lambda logits: mean_cross_entropy_slope(logits, valid),
            self.rates(),
            self.steps,
        )
        return self.hidden.weight - hidden.weight.mean(0), self.hidden.bias - hidden.bias.mean(0)
