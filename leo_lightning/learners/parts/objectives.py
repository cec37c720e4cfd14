"""Sampling, Kullback-Leibler divergence, penalties and the support loss: pure functions."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

MIN_STD = 1e-10


def std_from_raw(raw: Float[Tensor, "*shape"], offset: float) -> Float[Tensor, "*shape"]:
    """Standard deviation max(exp(u) - (1 - offset), 1e-10) of a raw output u; the offset where u = 0."""
    # `threshold` does what `where` does, here and in the backward pass, in a fraction of its time on a CPU
    return F.threshold(raw.expm1() + offset, MIN_STD, MIN_STD)


def kl_divergence(
    eps: Float[Tensor, "B *shape"], std: Float[Tensor, "B *shape"], sample: Float[Tensor, "B *shape"]
) -> Float[Tensor, " B"]:
    """One-sample estimate of KL(q || N(0, 1)) per task: log q(z) - log p(z), mean over the task's elements.

    The authors' code has this estimate, not the closed form. (z - mean) / std *is* eps: dividing again loses
    digits where std is clamped.
    """
    return (0.5 * (sample.square() - eps.square()) - std.log()).flatten(1).mean(1)


def encoder_penalty(
    initial: Float[Tensor, "B *shape"], adapted: Float[Tensor, "B *shape"]
) -> Float[Tensor, " B"]:
    """Mean of (stopgrad(z') - z)² per task (Eq. 7, third term): pulls the encoder to the adapted codes."""
    return (adapted.detach() - initial).square().flatten(1).mean(1)


def regularisers(
    l2_weight: float, weights: Iterable[Tensor], orthogonality_weight: float, decoder: Float[Tensor, "D H"]
) -> dict[str, Float[Tensor, ""]]:
    """R of Eq. 8: λ1 times half the sum of all squared weights, λ2 times `orthogonality_penalty`."""
    l2: Any = _HalfSquares.apply(*weights)
    orthogonality = orthogonality_weight * orthogonality_penalty(decoder.T)
    return {"l2_penalty": l2_weight * l2, "orthogonality_penalty": orthogonality}


class _HalfSquares(torch.autograd.Function):
    """Half the sum of all squared weights; its derivative by a weight is the weight."""

    @staticmethod
    def forward(ctx: Any, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(*weights)
        return 0.5 * torch.stack([torch.dot(w.flatten(), w.flatten()) for w in weights]).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return tuple(weight * grad for weight in ctx.saved_tensors)


def orthogonality_penalty(rows: Float[Tensor, "H D"]) -> Float[Tensor, ""]:
    """Mean squared entry of C - I, C the cosine similarities of the rows (Eq. 8, second term).

    The paper writes an L1 norm, of another scale; the authors' code, followed here, takes the mean of
    squares. Rows belong to latent dimensions: the transpose of the decoder's `nn.Linear.weight`.
    """
    return _Orthogonality.apply(rows)  # pyright: ignore[reportReturnType]


class _Orthogonality(torch.autograd.Function):
    """L = Σᵢⱼ (Cᵢⱼ - δᵢⱼ)² / H² from the Gram matrix G = R Rᵀ: Cᵢⱼ = Gᵢⱼ / (nᵢ nⱼ) with nᵢ = √Gᵢᵢ."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        gram = rows @ rows.T
        norms = gram.diagonal().clamp_min(1e-30).sqrt()  # a row of zeros correlates with nothing
        correlation = gram / norms / norms[:, None]
        excess = correlation - torch.eye(len(rows), dtype=rows.dtype, device=rows.device)
        ctx.save_for_backward(rows, norms, correlation, excess)
        return excess.square().mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        rows, norms, correlation, excess = ctx.saved_tensors
        # S = ∂L/∂C = 2 (C - I) / H²
        slope = excess * (2 * grad / excess.numel())
        # Gᵢⱼ is in Cᵢⱼ: Sᵢⱼ / (nᵢ nⱼ). Gᵢᵢ is, by way of nᵢ, also in row i and in column i of C:
        # ∂Cᵢⱼ/∂nᵢ = -Cᵢⱼ / nᵢ and ∂nᵢ/∂Gᵢᵢ = 1 / (2 nᵢ), twice as S and C are symmetric: -Σⱼ Sᵢⱼ Cᵢⱼ / nᵢ²
        by_gram = slope / norms / norms[:, None]
        by_gram.diagonal().sub_((slope * correlation).sum(1) / norms.square())
        # G = R Rᵀ: (∂L/∂G + its transpose) R
        return 2 * by_gram @ rows


def support_gradient(
    support: Float[Tensor, "B N K E"],
    weight: Float[Tensor, "B N E"],
    extra_logits: Float[Tensor, "B N #M"] | None = None,
    image_weights: Float[Tensor, "B 1 M"] | None = None,
) -> Float[Tensor, "B N E"]:
    """Gradient, with respect to the classifier, of the cross-entropy *summed* over the support (Eq. 5).

    Σᵢ vᵢ (softmax(xᵢ·w + bᵢ) - onehot(yᵢ)) xᵢᵀ, with extra logits b (None: 0) and image weights v (None: 1).
    It is written out rather than left to autograd, so that the outer gradient is an ordinary backward pass.
    """
    N, K = support.shape[1:3]
    images = support.flatten(1, 2)
    # classes before images: the backward pass then makes a contiguous gradient of the weight
    logits = torch.bmm(weight, images.transpose(1, 2))
    if extra_logits is not None:
        logits = logits + extra_logits
    residual = logits.softmax(1) - one_hot(N, K, weight)
    return torch.bmm(residual if image_weights is None else residual * image_weights, images)


def by_softmax(
    by_residual: Float[Tensor, "B N M"],
    chance: Float[Tensor, "B N M"],
    image_weights: Float[Tensor, "B 1 M"] | None,
) -> Float[Tensor, "B N M"]:
    """Derivative of a loss by logits l, from the one by v r, with r = p - onehot and p = softmax(l) `chance`.

    The Jacobian of the softmax is diag(p) - p pᵀ: by_l = p (by_p - Σₙ p by_p).
    """
    by_chance = by_residual if image_weights is None else by_residual * image_weights
    return torch.ops.aten._softmax_backward_data(by_chance, chance, 1, chance.dtype)


def one_hot(N: int, K: int, like: Float[Tensor, "..."]) -> Float[Tensor, "classes images"]:
    """1 where a class (row) is that of a support image (column), with the type and device of `like`."""
    return torch.eye(N, dtype=like.dtype, device=like.device).repeat_interleave(K, dim=1)


def query_cross_entropy(
    logits: Float[Tensor, "B N Q N"], valid: Bool[Tensor, "B N Q"] | None
) -> Float[Tensor, " B"]:
    """Mean cross-entropy per task over its queries; the label of a query is its class row."""
    B, N, Q, _ = logits.shape
    nll = -logits.log_softmax(-1).diagonal(dim1=1, dim2=3).transpose(1, 2)  # (B, N, Q)
    if valid is None:
        return nll.flatten(1).mean(1)
    return torch.where(valid, nll, 0.0).flatten(1).sum(1) / valid.flatten(1).sum(1)
