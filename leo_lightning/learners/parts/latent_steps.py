"""The latent steps of training, and their adjoint written out by hand.

Half of a training step is spent here. Autograd would do it, too, from `adapt` and the same formulas
(test_latent_steps.py does), but with twice the memory traffic and with the weights' gradients
step by step, where one matrix product serves them all. Symbols as in `data/episode.py`.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from leo_lightning.learners.learner import LinearClassifier
from leo_lightning.learners.parts.objectives import MIN_STD, one_hot


class LatentSteps(NamedTuple):
    """What the latent steps make. Only `weight` has a gradient."""

    weight: Float[Tensor, "B N E"]
    """Classifier of the adapted codes, mean over the copies, and what is beside it."""
    latents: Float[Tensor, "decodes B N C H"]
    """z before each step, and after the last."""
    decoded: Float[Tensor, "decodes B N E"]
    """Classifier of each decode, mean over the copies; the last one is `weight`."""


def latent_steps(
    z: Float[Tensor, "B N C H"],
    rate: Float[Tensor, "*#tasks H"],
    mean_weight: Float[Tensor, "E H"],
    raw_std_weight: Float[Tensor, "E H"],
    support: Float[Tensor, "B N K E"],
    masks: Float[Tensor, "steps B N K E"] | None,
    eps: Float[Tensor, "decodes B N C E"],
    offset: float,
    beside: LinearClassifier | None = None,
    share: Float[Tensor, "B N C 1"] | None = None,
    counted: Float[Tensor, "B 1 M"] | None = None,
) -> LatentSteps:
    """Adapt sampled codes to every task (Algorithm 1, lines 7-11) with sampled classifier weights.

    Copy c of the C copies of a class's code decodes to w_c = W_μ z_c + eps_c · std(W_σ z_c), and the logits
    of an image x are x · mean_c w_c. With g the gradient of that mean, the gradient of z_c is
    (W_μᵀ g + W_σᵀ (eps_c · std' · g)) / C.

    Args:
        z: sampled codes.
        rate: α / C: each copy enters the logits through the mean over the C copies. One for all tasks, or
            (B, 1, 1, H).
        mean_weight: W_μ, the decoder's rows for the mean.
        raw_std_weight: W_σ, its rows for the raw standard deviation.
        support: the support images.
        masks: dropout factors of the images at step 0, 1, …; None: none.
        eps: standard normal numbers of the T + 1 decodes.
        offset: see `std_from_raw`.
        beside: what is added to every decoded classifier; None: nothing.
        share: weight of each copy in the mean over those of its class; None: 1 / C.
        counted: weight of each image in the support loss; None: 1.
    """
    added = (None, None) if beside is None else beside
    weights = mean_weight, raw_std_weight
    results = _LatentSteps.apply(z, rate, *weights, support, masks, eps, offset, *added, share, counted)
    return LatentSteps(*results)  # pyright: ignore[reportArgumentType]


class _LatentSteps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        rate: Tensor,
        mean_weight: Tensor,
        raw_std_weight: Tensor,
        support: Tensor,
        masks: Tensor | None,
        eps: Tensor,
        offset: float,
        added: Tensor | None,
        bias: Tensor | None,
        share: Tensor | None,
        counted: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        (B, N, K, E), T, C = support.shape, len(eps) - 1, eps.shape[3]
        target = one_hot(N, K, z)
        images = support.flatten(1, 2).expand(T, B, N * K, E)
        if masks is not None:
            images = z.new_empty(images.shape)
        latents, moves = z.new_empty(T + 1, *z.shape), z.new_empty(T, *z.shape)
        decoded, gradients = z.new_empty(T + 1, B, N, E), z.new_empty(T, B, N, E)
        residuals = z.new_empty(T, B, N, N * K)
        slopes = z.new_empty(eps.shape)  # eps · std' of every decode
        carried = z.new_empty(T, B, N, C, E)  # eps · std' · g
        latents[0] = z
        for step in range(T + 1):
            z, draws, slope = latents[step], eps[step], slopes[step]
            # `std_from_raw` in place and times eps: exp(u) - 1 is clamped at MIN_STD - offset
            rise = (z @ raw_std_weight.T).expm1_()
            torch.threshold(rise, MIN_STD - offset, -1.0, out=slope)
            torch.addcmul(draws, draws, slope, out=slope)
            deviation = torch.threshold_(rise, MIN_STD - offset, MIN_STD - offset).mul_(draws)
            deviation.add_(draws, alpha=offset)
            torch.add(over_copies(z, share) @ mean_weight.T, over_copies(deviation, share), out=decoded[step])
            if added is not None:
                decoded[step] += added
            if step == T:
                break
            x, g = images[step], gradients[step]
            if masks is not None:
                torch.mul(support, masks[step], out=x.view(support.shape))
            logits = torch.bmm(decoded[step], x.transpose(1, 2))
            if bias is not None:
                logits += bias[:, :, None]
            torch.sub(logits.softmax(1), target, out=residuals[step])
            torch.bmm(residuals[step] if counted is None else residuals[step] * counted, x, out=g)
            torch.mul(g[:, :, None], slope, out=carried[step])
            torch.add(carried[step] @ raw_std_weight, (g @ mean_weight)[:, :, None], out=moves[step])
            torch.addcmul(z, rate, moves[step], value=-1, out=latents[step + 1])
        ctx.save_for_backward(
            *(rate, mean_weight, raw_std_weight, masks, share, counted, target, images, latents),
            *(moves, decoded, gradients, residuals, slopes, carried),
        )
        ctx.mark_non_differentiable(latents, decoded)
        return decoded[T].clone(), latents, decoded

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        rate, mean_weight, raw_std_weight, masks, share, counted, *rest = ctx.saved_tensors
        target, images, latents, moves, decoded, gradients, residuals, slopes, carried = rest
        T, B, N, C, E = carried.shape
        by_support = carried.new_zeros(B, N, target.shape[1] // N, E) if ctx.needs_input_grad[4] else None
        by_raw = torch.empty_like(slopes)  # of W_σ z
        by_decoded = grad.new_empty(T + 1, B, N, E)
        by_moves = torch.empty_like(moves)
        by_z = torch.zeros_like(latents[0])
        by_rate = torch.zeros_like(rate)
        by_bias = grad.new_zeros(B, N) if ctx.needs_input_grad[9] else None
        by_slope: Tensor | None = None
        by_decoded[T] = grad
        for step in reversed(range(T + 1)):
            slope = slopes[step]
            if step < T:
                x, residual = images[step], residuals[step]
                by_rate -= (by_z * moves[step]).sum_to_size(rate.shape)
                by_move = torch.mul(by_z, -rate, out=by_moves[step])
                by_carried = by_move @ raw_std_weight.T
                by_g = by_move.sum(2) @ mean_weight.T + (by_carried * slope).sum(2)
                by_slope = by_carried.mul_(gradients[step][:, :, None])
                by_chance, chance = torch.bmm(by_g, x.transpose(1, 2)), residual + target
                if counted is not None:
                    by_chance, residual = by_chance * counted, residual * counted
                by_logits = chance * (by_chance - (chance * by_chance).sum(1, keepdim=True))
                torch.bmm(by_logits, x, out=by_decoded[step])
                if by_bias is not None:
                    by_bias += by_logits.sum(2)
                if by_support is not None:
                    by_x = residual.transpose(1, 2) @ by_g + by_logits.transpose(1, 2) @ decoded[step]
                    by_support += by_x.view_as(by_support) * (1.0 if masks is None else masks[step])
            by_copy = by_decoded[step][:, :, None]
            by_both = by_copy = by_copy / C if share is None else by_copy * share
            if by_slope is not None:
                by_both = by_slope.add_(by_both)
            # deviation and slope have the same derivative by u: the slope
            torch.mul(by_both, slope, out=by_raw[step])
            by_z.add_(by_raw[step] @ raw_std_weight).add_(by_copy @ mean_weight)
        over = over_copies(latents, share).flatten(0, 2)
        by_mean_weight = by_decoded.flatten(0, 2).T @ over
        by_mean_weight.addmm_(gradients.flatten(0, 2).T, by_moves.sum(3).flatten(0, 2))
        by_raw_std_weight = by_raw.flatten(0, 3).T @ latents.flatten(0, 3)
        by_raw_std_weight.addmm_(carried.flatten(0, 3).T, by_moves.flatten(0, 3))
        by_added = by_decoded.sum(0) if ctx.needs_input_grad[8] else None
        by_weights = (by_mean_weight, by_raw_std_weight)
        return by_z, by_rate, *by_weights, by_support, None, None, None, by_added, by_bias, None, None


def over_copies(
    x: Float[Tensor, "*classes C D"], share: Float[Tensor, "B N C 1"] | None
) -> Float[Tensor, "*classes D"]:
    """Mean over the copies of a class; see `latent_steps` for their shares."""
    if share is not None:
        return (x * share).sum(-2)
    return x.squeeze(-2) if x.shape[-2] == 1 else x.mean(-2)
