"""The inner loop: gradient descent that the outer gradient can see through."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from leo_lightning.learners.learner import LinearClassifier
from leo_lightning.learners.parts.unequal_shots import ShotWeights


class SupportLoss(NamedTuple):
    """Support loss of B tasks for LEO (Eq. 5)."""

    support: Float[Tensor, "B N K E"]
    masks: Float[Tensor, "steps B N K E"] | None
    """Dropout factors of the images at each of T latent and F fine-tuning steps; None: no dropout."""
    head: LinearClassifier | None
    """Centroid head, which every decoded classifier is added to; None: none."""
    extra_logits: Float[Tensor, "B N 1"] | None
    """Bias of the head."""
    shot_weights: ShotWeights


def adapt(
    start: Float[Tensor, "*shape D"],
    gradient: Callable[[Float[Tensor, "*shape D"], int], Float[Tensor, "*shape D"]],
    rate: Float[Tensor, "*#shape D"],
    steps: int,
) -> list[Float[Tensor, "*shape D"]]:
    """Adapt `start` to every task by differentiable gradient descent (Algorithm 1, lines 9-13; Eq. 6).

    x ← x − rate ⊙ ∇ₓ Lᵗʳ(x), `steps` times. Serves latents z (D = H) and classifier weights w (D = E), with
    α or η as the rate. The gradient, of (x, step), is itself an ordinary tensor expression, so that second
    derivatives reach `start`, `rate` and all that `gradient` closes over, without `create_graph` and also
    under `inference_mode`, where it is merely evaluated. The loss is a sum over images, as the rate expects.

    Returns:
        All iterates, `start` first.
    """
    iterates = [start]
    for step in range(steps):
        iterates.append(torch.addcmul(iterates[-1], rate, gradient(iterates[-1], step), value=-1))
    return iterates


def shortened(gradient: Float[Tensor, "*rows D"], longest: float | None) -> Float[Tensor, "*rows D"]:
    """Gradients of a length of at most `longest`; None: of any length."""
    if longest is None:
        return gradient
    length = gradient.norm(dim=-1, keepdim=True)
    return gradient * (longest / length.clamp_min(longest))
