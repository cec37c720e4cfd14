"""Fine-tuning steps of LEO on classifier weights w, after the latent ones.

With dropout the adjoint is written out by hand, as that of the latent steps is. Autograd gives the same
gradients from `adapt` and `support_gradient` (test_finetuning_steps.py), with three times as many calls.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from leo_lightning.learners.parts.inner_loop import SupportLoss, adapt
from leo_lightning.learners.parts.objectives import by_softmax, one_hot, support_gradient


def finetuned(
    weight: Float[Tensor, "B N E"], rate: Float[Tensor, "*#tasks E"], steps: int, loss: SupportLoss
) -> list[Float[Tensor, "B N E"]]:
    """Classifiers before and after each step; without dropout, only the first and the last.

    All copies of a class's classifier take the same step, so their mean `weight` takes it too. Without
    dropout all steps together move it by a combination of the images, and the logits by one of the images'
    products: w_F = w - η ⊙ (Σₛ rₛ) X, with rₛ = softmax(logits) - onehot of step s.
    """
    support, masks, _, extra_logits, (_, _, image_weights) = loss
    _, N, K, E = support.shape
    # one by one, a step takes 4 N·NK·E multiplications and additions; by products of images, 2 N·(NK)²
    if not steps:
        return [weight]
    if masks is not None:
        return _steps_with_dropout(weight, rate, masks[-steps:], loss)
    if N * K > 2 * E:

        def gradient(weight: Tensor, step: int) -> Tensor:
            return support_gradient(support, weight, extra_logits, image_weights)

        return [weight, adapt(weight, gradient, rate, steps)[-1]]
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


def _steps_with_dropout(
    weight: Float[Tensor, "B N E"],
    rate: Float[Tensor, "*#tasks E"],
    masks: Float[Tensor, "steps B N K E"],
    loss: SupportLoss,
) -> list[Float[Tensor, "B N E"]]:
    """Classifiers before and after each step; gradients flow to the last one alone."""
    image_weights = loss.shot_weights.image_weights
    results: Any = _StepsWithDropout.apply(
        weight, rate, loss.support, masks, loss.extra_logits, image_weights
    )
    last, iterates = results
    return [weight, *iterates[1:-1], last]


class _StepsWithDropout(torch.autograd.Function):
    """Steps on w, and their adjoint.

    With x an image as a step's dropout leaves it, v its weight, and b the bias of the centroid head:

        l  = x·w + b                         logits of an image
        g  = Σ_i v (softmax(l) - onehot) x   gradient of the support loss by w
        w' = w - rate g
    """

    @staticmethod
    def forward(ctx, weight, rate, support, masks, bias, image_weights) -> tuple[Tensor, Tensor]:
        (B, N, K, _), F = support.shape, len(masks)
        target = one_hot(N, K, weight)
        images = (support * masks).flatten(2, 3)
        iterates, gradients = weight.new_empty(F + 1, *weight.shape), weight.new_empty(F, *weight.shape)
        chances = weight.new_empty(F, B, N, N * K)
        iterates[0] = weight
        for step in range(F):
            x, w, g = images[step], iterates[step], gradients[step]
            logits = torch.bmm(w, x.transpose(1, 2))
            if bias is not None:
                logits += bias
            residual = torch.softmax(logits, 1, out=chances[step]) - target
            torch.bmm(residual if image_weights is None else residual * image_weights, x, out=g)
            torch.addcmul(w, rate, g, value=-1, out=iterates[step + 1])
        ctx.save_for_backward(rate, masks, image_weights, target, images, iterates, gradients, chances)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(iterates)
        return iterates[F].clone(), iterates

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, *unused: None) -> tuple[Tensor | None, ...]:
        """From the last step to the first; `by_x` is the derivative of the loss by x."""
        if grad is None:  # the loss does not depend on the classifiers
            return 6 * (None,)
        rate, masks, image_weights, target, images, iterates, gradients, chances = ctx.saved_tensors
        F, B, N, E = gradients.shape
        by_support = grad.new_zeros(B, N, images.shape[2] // N, E) if ctx.needs_input_grad[2] else None
        by_bias = grad.new_zeros(B, N, 1) if ctx.needs_input_grad[4] else None
        by_iterates, minus_rate = torch.empty_like(iterates), -rate
        by_iterates[F] = grad
        for step in reversed(range(F)):
            x, chance, by_w = images[step], chances[step], by_iterates[step + 1]
            # w' = w - rate g passes its derivative on to w as it is; g = Σ_i v r x
            by_g = by_w * minus_rate
            by_logits = by_softmax(torch.bmm(by_g, x.transpose(1, 2)), chance, image_weights)
            # l = x·w + b
            torch.baddbmm(by_w, by_logits, x, out=by_iterates[step])
            if by_bias is not None:
                by_bias += by_logits.sum(2, keepdim=True)
            if by_support is not None:  # x is in g and in l
                residual = chance - target if image_weights is None else (chance - target) * image_weights
                by_x = residual.transpose(1, 2) @ by_g + by_logits.transpose(1, 2) @ iterates[step]
                by_support += by_x.view_as(by_support) * masks[step]
        by_rate = -(by_iterates[1:] * gradients).sum(0).sum_to_size(rate.shape)
        return by_iterates[0], by_rate, by_support, None, by_bias, None
