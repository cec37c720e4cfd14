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
from leo_lightning.learners.parts.objectives import MIN_STD, by_softmax, one_hot, support_gradient


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
    eps: Float[Tensor, "decodes #B N C E"],
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
        p  = softmax(x·w + b)                  probabilities of an image
        g  = Σ_i v (p - onehot) x              gradient of the support loss by w
        m  = W_μᵀ g + W_σᵀ (s g)               1 / a of its gradient by z: a is in the rate
        z' = z - rate m

    Inside, copies and classes are rows of matrices: B·N·C rows for z, u, d, s and m, B·N for w and g.
    """

    @staticmethod
    def forward(
        ctx, z, rate, mean_weight, raw_std_weight, support, head, bias, masks, eps, offset, shot_weights
    ) -> tuple[Tensor, Tensor, Tensor]:
        (B, N, K, E), T, (C, H) = support.shape, len(eps) - 1, z.shape[2:]
        _, copy_weights, image_weights = shot_weights
        target = one_hot(N, K, z)
        images = support.flatten(1, 2).expand(T, B, N * K, E)
        if masks is not None:
            images = z.new_empty(images.shape)
        latents, moves = z.new_empty(T + 1, B * N * C, H), z.new_empty(T, B * N * C, H)
        decoded, gradients = z.new_empty(T + 1, B * N, E), z.new_empty(T, B * N, E)
        chances = z.new_empty(T, B, N, N * K)
        slopes = z.new_empty(T + 1, B * N * C, E)
        carried = z.new_empty(T, B * N * C, E)  # s g
        latents[0] = z.reshape(-1, H)
        rows_rate = rate if rate.dim() == 1 else rate.expand_as(z).reshape(-1, H)
        least = MIN_STD + 1.0 - offset  # exp(u) where std is clamped
        for step in range(T + 1):
            z, w, slope = latents[step], decoded[step], slopes[step]
            draws = eps[step].expand(B, N, C, E).reshape(-1, E)
            # `std_from_raw` in place and times ε; exp takes a sixth of the time of expm1
            exp = torch.mm(z, raw_std_weight.T).exp_()
            torch.threshold(exp, least, 0.0, out=slope).mul_(draws)
            deviation = torch.threshold_(exp, least, least).sub_(1.0 - offset).mul_(draws)
            torch.addmm(
                mean_over(deviation, C, copy_weights), mean_over(z, C, copy_weights), mean_weight.T, out=w
            )
            if head is not None:
                w += head.view_as(w)
            if step == T:
                break
            x, g, m = images[step], gradients[step], moves[step]
            if masks is not None:
                torch.mul(support, masks[step], out=x.view(support.shape))
            logits = torch.bmm(w.view(B, N, E), x.transpose(1, 2))
            if bias is not None:
                logits += bias[:, :, None]
            residual = torch.softmax(logits, 1, out=chances[step]) - target
            residual = residual if image_weights is None else residual * image_weights
            torch.bmm(residual, x, out=g.view(B, N, E))
            torch.mul(g[:, None], slope.view(-1, C, E), out=carried[step].view(-1, C, E))
            torch.mm(carried[step], raw_std_weight, out=m).view(-1, C, H).add_(
                torch.mm(g, mean_weight)[:, None]
            )
            torch.addcmul(z, rows_rate, m, value=-1, out=latents[step + 1])
        ctx.save_for_backward(
            *(rate, mean_weight, raw_std_weight, masks, copy_weights, image_weights, target, images, latents),
            *(moves, decoded, gradients, chances, slopes, carried),
        )
        ctx.set_materialize_grads(False)
        all_latents, all_decoded = latents.view(T + 1, B, N, C, H), decoded.view(T + 1, B, N, E)
        ctx.mark_non_differentiable(all_latents, all_decoded)
        return all_decoded[T].clone(), all_latents, all_decoded

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, *unused: None) -> tuple[Tensor | None, ...]:
        """From the last decode to the first; `by_x` is the derivative of the loss by x."""
        if grad is None:  # the loss does not depend on the classifiers
            return 11 * (None,)
        rate, mean_weight, raw_std_weight, masks, copy_weights, image_weights, *rest = ctx.saved_tensors
        target, images, latents, moves, decoded, gradients, chances, slopes, carried = rest
        (T, B, M, E), N, H = images.shape, len(target), latents.shape[2]
        C, shape = latents.shape[1] // (B * N), (B, N, -1, H)
        by_support = carried.new_zeros(B, N, M // N, E) if ctx.needs_input_grad[4] else None
        by_bias = grad.new_zeros(B, N) if ctx.needs_input_grad[6] else None
        by_raw = torch.empty_like(slopes)  # by u
        by_decoded = torch.empty_like(decoded)
        by_latents, by_moves = torch.empty_like(latents), torch.empty_like(moves)  # by z' and by m
        minus_rate = -(rate if rate.dim() == 1 else rate.expand(B, N, C, H).reshape(-1, H))
        by_decoded[T] = grad.reshape(-1, E)
        by_slope = torch.zeros_like(slopes[T])
        for step in reversed(range(T + 1)):
            slope, by_w, by_z = slopes[step], by_decoded[step], by_latents[step]
            if step < T:
                x, chance, by_move = images[step], chances[step], by_moves[step]
                # z' = z - rate m
                torch.mul(by_latents[step + 1], minus_rate, out=by_move)
                # m = W_μᵀ g + W_σᵀ (s g), in which all copies share g
                by_carried = torch.mm(by_move, raw_std_weight.T)
                by_g = (
                    sum_over(by_carried * slope, C).addmm(sum_over(by_move, C), mean_weight.T).view(B, N, E)
                )
                by_slope = by_carried
                by_slope.view(-1, C, E).mul_(gradients[step][:, None])
                # g = Σ_i v (p - onehot) x
                by_logits = by_softmax(torch.bmm(by_g, x.transpose(1, 2)), chance, image_weights)
                # l = x·w + b
                torch.bmm(by_logits, x, out=by_w.view(B, N, E))
                if by_bias is not None:
                    by_bias += by_logits.sum(2)
                if by_support is not None:  # x is in g and in l
                    residual = chance - target if image_weights is None else (chance - target) * image_weights
                    by_x = residual.transpose(1, 2) @ by_g + by_logits.transpose(1, 2) @ decoded[step].view(
                        B, N, E
                    )
                    by_support += by_x.view_as(by_support) * (1.0 if masks is None else masks[step])
            # w = Σ_c a (W_μ z + d) + W₀. std' = exp(u) = std'', and both are 0 where std is clamped: the
            # slope s is the derivative by u of the deviation d and of s itself
            torch.mul(add_shares(by_slope, by_w, C, copy_weights), slope, out=by_raw[step])
            torch.mm(by_raw[step], raw_std_weight, out=by_z)
            add_shares(by_z, torch.mm(by_w, mean_weight), C, copy_weights)
            if step < T:
                by_z += by_latents[step + 1]  # z' passes its derivative on to z as it is
        by_rate = -(by_latents[1:] * moves).sum(0).view(shape).sum_to_size(rate.shape)
        # W_μ is in w and in m, and so is W_σ, by way of u: one product for all steps, whose transpose takes
        # less time
        by_mean_weight = mean_over(latents.flatten(0, 1), C, copy_weights).T @ by_decoded.flatten(0, 1)
        by_mean_weight.addmm_(sum_over(by_moves.flatten(0, 1), C).T, gradients.flatten(0, 1))
        by_raw_std_weight = latents.flatten(0, 1).T @ by_raw.flatten(0, 1)
        by_raw_std_weight.addmm_(by_moves.flatten(0, 1).T, carried.flatten(0, 1))
        by_head = by_decoded.sum(0).view(B, N, E) if ctx.needs_input_grad[5] else None
        by_weights = by_mean_weight.T, by_raw_std_weight.T
        return by_latents[0].view(shape), by_rate, *by_weights, by_support, by_head, by_bias, *4 * (None,)


def mean_over(
    rows: Float[Tensor, "rows D"], C: int, copy_weights: Float[Tensor, "B N C 1"] | None
) -> Float[Tensor, "classes D"]:
    """Weighted mean of the C copies of each class; None: plain mean."""
    if C == 1:
        return rows
    if copy_weights is None:
        return rows.view(-1, C, rows.shape[1]).mean(1)
    weights = copy_weights.flatten(0, 1)
    return (rows.view(-1, *weights.shape[:2], rows.shape[1]) * weights).sum(2).flatten(0, 1)


def sum_over(rows: Float[Tensor, "rows D"], C: int) -> Float[Tensor, "classes D"]:
    """Sum of the C copies of each class."""
    return rows if C == 1 else rows.view(-1, C, rows.shape[1]).sum(1)


def add_shares(
    rows: Float[Tensor, "rows D"],
    of_class: Float[Tensor, "classes D"],
    C: int,
    copy_weights: Float[Tensor, "B N C 1"] | None,
) -> Float[Tensor, "rows D"]:
    """Add to each copy, in place, its weight in `mean_over` times the row of its class."""
    copies = rows.view(-1, C, rows.shape[1])
    if copy_weights is None:
        copies.add_(of_class[:, None], alpha=1 / C)
    else:
        copies.addcmul_(of_class[:, None], copy_weights.flatten(0, 1))
    return rows
