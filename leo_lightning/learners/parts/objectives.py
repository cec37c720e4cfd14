"""Sampling, Kullback-Leibler divergence, penalties and the support loss: pure functions."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

MIN_STD = 1e-10


def std_from_raw(
    raw: Float[Tensor, "*shape"], offset: float
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Standard deviation max(exp(u) - (1 - offset), 1e-10) of a network's raw output u, and dstd/du.

    The derivative is exp(u), or 0 where the clamp holds. The offset makes std = offset where u = 0.
    """
    shifted = raw.expm1() + offset
    # `threshold` does what `where` does, here and in the backward pass, in a fraction of its time on a CPU
    return (
        F.threshold(shifted, MIN_STD, MIN_STD),
        F.threshold(shifted, MIN_STD, offset - 1.0) + (1.0 - offset),
    )


def kl_divergence(
    eps: Float[Tensor, "B *shape"], std: Float[Tensor, "B *shape"], sample: Float[Tensor, "B *shape"]
) -> Float[Tensor, " B"]:
    """One-sample estimate of KL(q || N(0, 1)) per task: log q(z) - log p(z), mean over the task's elements.

    With z = mean + eps · std, (z - mean) / std *is* eps: dividing again loses digits where std is clamped.
    """
    return (0.5 * (sample.square() - eps.square()) - std.log()).flatten(1).mean(1)


def exact_kl_divergence(
    mean: Float[Tensor, "B *shape"], std: Float[Tensor, "B *shape"]
) -> Float[Tensor, " B"]:
    """KL(N(mean, std²) || N(0, 1)) per task, mean over its elements: what `kl_divergence` estimates."""
    return (0.5 * (mean.square() + std.square() - 1.0) - std.log()).flatten(1).mean(1)


def encoder_penalty(
    initial: Float[Tensor, "B *shape"], adapted: Float[Tensor, "B *shape"]
) -> Float[Tensor, " B"]:
    """Mean of (stopgrad(z') - z)² per task (Eq. 7, third term): pulls the encoder to the adapted codes."""
    return (adapted.detach() - initial).square().flatten(1).mean(1)


def l2_penalty(weights: Iterable[Float[Tensor, "..."]]) -> Float[Tensor, ""]:
    """Half the sum of all squared weights (Eq. 8, first term)."""
    return 0.5 * torch.stack([torch.dot(w.flatten(), w.flatten()) for w in weights]).sum()


def orthogonality_penalty(rows: Float[Tensor, "H D"]) -> Float[Tensor, ""]:
    """Mean squared entry of C - I, C the cosine similarities of the rows (Eq. 8, second term).

    The paper writes an L1 norm (`orthogonality_norm`); the authors' code, followed here, takes the mean of
    squares. Rows belong to latent dimensions: pass the transpose of the decoder's `nn.Linear.weight`.
    """
    return _Orthogonality.apply(rows)  # pyright: ignore[reportReturnType]


def orthogonality_norm(rows: Float[Tensor, "H D"]) -> Float[Tensor, ""]:
    """Sum of the absolute entries of C - I, C the cosine similarities of the rows, as Eq. 8 has it.

    Of H · (H - 1) entries where `orthogonality_penalty` has a mean: its weight λ2 has another scale.
    """
    unit = F.normalize(rows, dim=1)
    correlation = unit @ unit.T
    return (correlation - torch.eye(len(rows), dtype=rows.dtype, device=rows.device)).abs().sum()


class _Orthogonality(torch.autograd.Function):
    """From the Gram matrix G of the rows: C_ij = G_ij / (n_i n_j) with n_i² = G_ii, all of it H by H."""

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
        slope = excess * (2 * grad / excess.numel())
        by_gram = slope / norms / norms[:, None]
        by_gram.diagonal().sub_((slope * correlation).sum(1) / norms.square())
        return 2 * by_gram @ rows


def support_gradient(
    support: Float[Tensor, "B N K E"],
    weight: Float[Tensor, "B N E"],
    known: Float[Tensor, "B N #M"] | None = None,
    counted: Float[Tensor, "B 1 M"] | None = None,
) -> Float[Tensor, "B N E"]:
    """Gradient, with respect to the classifier, of the cross-entropy *summed* over the support (Eq. 5).

    Σᵢ (softmax(xᵢ·w) - onehot(yᵢ)) xᵢᵀ: written out rather than left to autograd, so that the outer
    gradient is an ordinary first-order backward pass.

    Args:
        support: x.
        weight: w.
        known: what else is in the logits of the M = N·K images; None: nothing.
        counted: weight of each image in the sum; None: 1.
    """
    N, K = support.shape[1:3]
    images = support.flatten(1, 2)
    # classes before images: the backward pass then makes a contiguous gradient of the weight
    logits = torch.bmm(weight, images.transpose(1, 2))
    if known is not None:
        logits = logits + known
    residual = logits.softmax(1) - one_hot(N, K, weight)
    return torch.bmm(residual if counted is None else residual * counted, images)


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
