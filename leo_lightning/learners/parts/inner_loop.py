"""The inner loop: gradient descent that the outer gradient can see through."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from leo_lightning.learners.learner import LinearClassifier
from leo_lightning.learners.parts.objectives import one_hot, support_gradient
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
        iterates.append(iterates[-1] - rate * gradient(iterates[-1], step))
    return iterates


def shortened(gradient: Float[Tensor, "*rows D"], longest: float | None) -> Float[Tensor, "*rows D"]:
    """Gradients of a length of at most `longest`; None: of any length."""
    if longest is None:
        return gradient
    length = gradient.norm(dim=-1, keepdim=True)
    return gradient * (longest / length.clamp_min(longest))


def finetuned(
    weight: Float[Tensor, "B N E"], rate: Float[Tensor, "*#tasks E"], steps: int, loss: SupportLoss
) -> list[Float[Tensor, "B N E"]]:
    """Classifiers before and after each step; without dropout, only the first and the last.

    All copies of a class's classifier take the same step, so their mean `weight` takes it too. Without
    dropout all steps together move it by a combination of the images, and the logits by one of the images'
    products: w_F = w - η ⊙ (Σₛ rₛ) X, with rₛ = softmax(logits) - onehot of step s.
    """
    support, masks, _, extra_logits, (_, _, image_weights) = loss
    (_, N, K, E), F = support.shape, steps

    # one by one, a step takes 4 N·NK·E multiplications and additions; by products of images, 2 N·(NK)²
    if masks is not None or N * K > 2 * E:

        def gradient(weight: Tensor, step: int) -> Tensor:
            images = support if masks is None else support * masks[len(masks) - F + step]
            return support_gradient(images, weight, extra_logits, image_weights)

        iterates = adapt(weight, gradient, rate, F)
        return iterates if masks is not None else [weight, *iterates[1:][-1:]]
    if not steps:
        return [weight]
    images = support.flatten(1, 2)
    moved = rate * images
    gram = torch.bmm(moved, images.transpose(1, 2))
    logits = torch.bmm(weight, images.transpose(1, 2))
    if extra_logits is not None:
        logits = logits + extra_logits
    residuals = torch.zeros_like(logits)
    target = one_hot(support.shape[1], support.shape[2], logits)
    for _ in range(steps):
        residual = logits.softmax(1) - target
        if image_weights is not None:
            residual = residual * image_weights
        residuals = residuals + residual
        logits = logits - torch.bmm(residual, gram)
    return [weight, weight - torch.bmm(residuals, moved)]
