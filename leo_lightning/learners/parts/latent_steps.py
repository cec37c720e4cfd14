"""Latent steps of LEO (Algorithm 1, lines 7-13): with sampled classifier weights, and with their means.

With samples the adjoint is written out by hand: half of a training step is spent here. Autograd gives the
same gradients from `adapt` and the formulas below (test_latent_steps.py), with twice the memory traffic, and
with the weights' gradients step by step, where one matrix product serves all steps.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from leo_lightning.learners.parts.inner_loop import SupportLoss, adapt
from leo_lightning.learners.parts.objectives import MIN_STD, one_hot, support_gradient


def mean_latent_steps(
    z: Float[Tensor, "B N H"],
    rate: Float[Tensor, "*#tasks H"],
    steps: int,
    mean_weight: Float[Tensor, "E H"],
    loss: SupportLoss,
) -> tuple[list[Float[Tensor, "B N 1 H"]], list[Float[Tensor, "B N E"]]]:
    """Adapt codes with the mean classifier weights; the results are `latents` and `decoded` of `Adaptation`.

    The steps stay in H dimensions: x · (W_μ z) = (W_μᵀ x) · z.
    """
    support, masks, head, _, (_, _, image_weights) = loss
    images = support[None] if masks is None else support * masks[:steps]
    projected, extra_logits = images @ mean_weight, None
    if head is not None and len(images):  # with T = 0, masks leave none
        extra_logits = torch.stack([head(x).flatten(1, 2).mT for x in images])

    def gradient(z: Tensor, step: int) -> Tensor:
        i = 0 if masks is None else step
        return support_gradient(
            projected[i], z, None if extra_logits is None else extra_logits[i], image_weights
        )

    latents = adapt(z, gradient, rate, steps)
    kept = latents if masks is not None or steps == 0 else [latents[0], latents[-1]]
    decoded = [z @ mean_weight.T for z in kept]
    if head is not None:
        decoded = [weight + head.weight for weight in decoded]
    return [z[:, :, None] for z in latents], decoded


def sampled_latent_steps(
    z: Float[Tensor, "B N C H"],
    rate: Float[Tensor, "*#tasks H"],
    mean_weight: Float[Tensor, "E H"],
    raw_std_weight: Float[Tensor, "E H"],
    eps: Float[Tensor, "decodes B N C E"],
    offset: float,
    loss: SupportLoss,
) -> tuple[list[Float[Tensor, "B N C H"]], list[Float[Tensor, "B N E"]]]:
    """Adapt sampled codes with sampled classifier weights. Gradients flow to the last classifier alone.

    The rate is α / C (see `ShotWeights`), one for all tasks or (B, 1, 1, H); `eps` are the standard normal
    numbers of the T + 1 decodes; `std_from_raw` has the offset.
    """
    head = (None, None) if loss.head is None else loss.head
    rest = loss.support, *head, loss.masks, eps, offset, loss.shot_weights
    steps: Any = _SampledSteps.apply(z, rate, mean_weight, raw_std_weight, *rest)
    weight, latents, decoded = steps
    return [z, *latents[1:]], [*decoded[:-1], weight]


class _SampledSteps(torch.autograd.Function):
    """Steps on z, and their adjoint.

    At each decode, copy c of class n has u = W_σ z, the deviation d = ε std(u) and its slope s = ε std'(u).
    With a the weight of a copy, v the weight of an image, and W₀, b the centroid head:

        w  = Σ_c a (W_μ z + d) + W₀            classifier of a class
        r  = softmax(x·w + b) - onehot         residual of an image
        g  = Σ_i v r x                         gradient of the support loss by w
        m  = W_μᵀ g + W_σᵀ (s g)               1 / a of its gradient by z: a is in the rate
        z' = z - rate m
    """

    @staticmethod
    def forward(
        ctx, z, rate, mean_weight, raw_std_weight, support, head, bias, masks, eps, offset, shot_weights
    ) -> tuple[Tensor, Tensor, Tensor]:
        (B, N, K, E), T, C = support.shape, len(eps) - 1, eps.shape[3]
        _, copy_weights, image_weights = shot_weights
        target = one_hot(N, K, z)
        images = support.flatten(1, 2).expand(T, B, N * K, E)
        if masks is not None:
            images = z.new_empty(images.shape)
        latents, moves = z.new_empty(T + 1, *z.shape), z.new_empty(T, *z.shape)
        decoded, gradients = z.new_empty(T + 1, B, N, E), z.new_empty(T, B, N, E)
        residuals = z.new_empty(T, B, N, N * K)
        slopes = z.new_empty(eps.shape)  # s
        carried = z.new_empty(T, B, N, C, E)  # s g
        latents[0] = z
        for step in range(T + 1):
            z, draws, slope = latents[step], eps[step], slopes[step]
            # `std_from_raw` in place and times ε: exp(u) - 1 is clamped at MIN_STD - offset
            rise = (z @ raw_std_weight.T).expm1_()
            torch.threshold(rise, MIN_STD - offset, -1.0, out=slope)
            torch.addcmul(draws, draws, slope, out=slope)
            deviation = torch.threshold_(rise, MIN_STD - offset, MIN_STD - offset).mul_(draws)
            deviation.add_(draws, alpha=offset)
            mean = over_copies(z, copy_weights) @ mean_weight.T
            torch.add(mean, over_copies(deviation, copy_weights), out=decoded[step])
            if head is not None:
                decoded[step] += head
            if step == T:
                break
            x, g = images[step], gradients[step]
            if masks is not None:
                torch.mul(support, masks[step], out=x.view(support.shape))
            logits = torch.bmm(decoded[step], x.transpose(1, 2))
            if bias is not None:
                logits += bias[:, :, None]
            residual = torch.sub(logits.softmax(1), target, out=residuals[step])
            torch.bmm(residual if image_weights is None else residual * image_weights, x, out=g)
            torch.mul(g[:, :, None], slope, out=carried[step])
            torch.add(carried[step] @ raw_std_weight, (g @ mean_weight)[:, :, None], out=moves[step])
            torch.addcmul(z, rate, moves[step], value=-1, out=latents[step + 1])
        ctx.save_for_backward(
            *(rate, mean_weight, raw_std_weight, masks, copy_weights, image_weights, target, images, latents),
            *(moves, decoded, gradients, residuals, slopes, carried),
        )
        ctx.mark_non_differentiable(latents, decoded)
        return decoded[T].clone(), latents, decoded

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        """From the last decode to the first; `by_x` is the derivative of the loss by x."""
        rate, mean_weight, raw_std_weight, masks, copy_weights, image_weights, *rest = ctx.saved_tensors
        target, images, latents, moves, decoded, gradients, residuals, slopes, carried = rest
        T, B, N, C, E = carried.shape
        by_support = carried.new_zeros(B, N, target.shape[1] // N, E) if ctx.needs_input_grad[4] else None
        by_bias = grad.new_zeros(B, N) if ctx.needs_input_grad[6] else None
        by_raw = torch.empty_like(slopes)  # by u
        by_decoded = grad.new_empty(T + 1, B, N, E)
        by_moves = torch.empty_like(moves)
        by_z = torch.zeros_like(latents[0])
        by_rate = torch.zeros_like(rate)
        by_slope: Tensor | None = None
        by_decoded[T] = grad
        for step in reversed(range(T + 1)):
            slope = slopes[step]
            if step < T:
                x, residual = images[step], residuals[step]
                # z' = z - rate m: z' passes its derivative on to z as it is
                by_rate -= (by_z * moves[step]).sum_to_size(rate.shape)
                by_move = torch.mul(by_z, -rate, out=by_moves[step])
                # m = W_μᵀ g + W_σᵀ (s g), in which all copies share g
                by_carried = by_move @ raw_std_weight.T
                by_g = by_move.sum(2) @ mean_weight.T + (by_carried * slope).sum(2)
                by_slope = by_carried.mul_(gradients[step][:, :, None])
                # g = Σ_i v r x, and r has the derivatives of p = softmax(l) = r + onehot. The Jacobian of
                # the softmax is diag(p) - p pᵀ: by_l = p (by_p - Σ_n p by_p)
                by_chance, chance = torch.bmm(by_g, x.transpose(1, 2)), residual + target
                if image_weights is not None:
                    by_chance, residual = by_chance * image_weights, residual * image_weights
                by_logits = chance * (by_chance - (chance * by_chance).sum(1, keepdim=True))
                # l = x·w + b
                torch.bmm(by_logits, x, out=by_decoded[step])
                if by_bias is not None:
                    by_bias += by_logits.sum(2)
                if by_support is not None:  # x is in g and in l
                    by_x = residual.transpose(1, 2) @ by_g + by_logits.transpose(1, 2) @ decoded[step]
                    by_support += by_x.view_as(by_support) * (1.0 if masks is None else masks[step])
            # w = Σ_c a (W_μ z + d) + W₀
            by_copy = by_decoded[step][:, :, None]
            by_both = by_copy = by_copy / C if copy_weights is None else by_copy * copy_weights
            if by_slope is not None:
                by_both = by_slope.add_(by_both)
            # std' = exp(u) = std'', and both are 0 where std is clamped: the slope s is the derivative by u
            # of the deviation d and of s itself
            torch.mul(by_both, slope, out=by_raw[step])
            by_z.add_(by_raw[step] @ raw_std_weight).add_(by_copy @ mean_weight)
        # W_μ is in w and in m, and so is W_σ, by way of u: one product for all steps
        mean_latents = over_copies(latents, copy_weights).flatten(0, 2)
        by_mean_weight = by_decoded.flatten(0, 2).T @ mean_latents
        by_mean_weight.addmm_(gradients.flatten(0, 2).T, by_moves.sum(3).flatten(0, 2))
        by_raw_std_weight = by_raw.flatten(0, 3).T @ latents.flatten(0, 3)
        by_raw_std_weight.addmm_(carried.flatten(0, 3).T, by_moves.flatten(0, 3))
        by_head = by_decoded.sum(0) if ctx.needs_input_grad[5] else None
        by_inputs = by_z, by_rate, by_mean_weight, by_raw_std_weight, by_support, by_head, by_bias
        return *by_inputs, None, None, None, None


def over_copies(
    x: Float[Tensor, "*classes C D"], copy_weights: Float[Tensor, "B N C 1"] | None
) -> Float[Tensor, "*classes D"]:
    """Weighted mean over the copies of a class; None: plain mean."""
    if copy_weights is not None:
        return (x * copy_weights).sum(-2)
    return x.squeeze(-2) if x.shape[-2] == 1 else x.mean(-2)
