"""Sampling, Kullback-Leibler divergence, penalties and the support loss: pure functions."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

MIN_STD = 1e-10


def std_from_raw(
    raw: Float[Tensor, "*shape"], offset: float
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Standard deviation max(exp(u) - (1 - offset), 1e-10) of a network's raw output u, and dstd/du.

    The derivative is 0 where the clamp holds. The offset makes std = offset where u = 0.
    """
    rise = raw.expm1()
    shifted = rise + offset
    free = shifted > MIN_STD
    return shifted.clamp_min(MIN_STD), torch.where(free, rise + 1.0, 0.0)


def kl_divergence(
    eps: Float[Tensor, "B *shape"], std: Float[Tensor, "B *shape"], sample: Float[Tensor, "B *shape"]
) -> Float[Tensor, " B"]:
    """One-sample estimate of KL(q || N(0, 1)) per task: log q(z) - log p(z), mean over the task's elements.

    With z = mean + eps · std, (z - mean) / std *is* eps: dividing again loses digits where std is clamped.
    """
    return (0.5 * (sample.square() - eps.square()) - std.log()).flatten(1).mean(1)


def encoder_penalty(
    initial: Float[Tensor, "B *shape"], adapted: Float[Tensor, "B *shape"]
) -> Float[Tensor, " B"]:
    """Mean of (stopgrad(z') - z)² per task (Eq. 7, third term): pulls the encoder to the adapted codes."""
    return (adapted.detach() - initial).square().flatten(1).mean(1)


def l2_penalty(weights: Iterable[Float[Tensor, "..."]]) -> Float[Tensor, ""]:
    """Half the sum of all squared weights (Eq. 8, first term)."""
    return torch.stack([0.5 * w.square().sum() for w in weights]).sum()


def orthogonality_penalty(rows: Float[Tensor, "H D"]) -> Float[Tensor, ""]:
    """Mean squared entry of C - I, C the cosine similarities of the rows (Eq. 8, second term).

    The paper writes an L1 norm; the authors' code, followed here, takes the mean of squares. Rows belong to
    latent dimensions: pass the transpose of the decoder's `nn.Linear.weight`.
    """
    unit = F.normalize(rows, dim=1, eps=1e-32)
    identity = torch.eye(len(rows), dtype=rows.dtype, device=rows.device)
    return (unit @ unit.T - identity).square().mean()


def support_gradient(
    support: Float[Tensor, "B N K E"], weight: Float[Tensor, "B N E"]
) -> Float[Tensor, "B N E"]:
    """Gradient, with respect to the classifier, of the cross-entropy *summed* over the support (Eq. 5).

    Σᵢ (softmax(xᵢ·w) - onehot(yᵢ)) xᵢᵀ: written out rather than left to autograd, so that the outer
    gradient is an ordinary first-order backward pass.
    """
    N, K = support.shape[1:3]
    images = support.flatten(1, 2)
    target = torch.eye(N, dtype=weight.dtype, device=weight.device).repeat_interleave(K, dim=0)
    residual = torch.bmm(images, weight.transpose(1, 2)).softmax(-1) - target
    return torch.bmm(residual.transpose(1, 2), images)


def query_cross_entropy(
    logits: Float[Tensor, "B N Q N"], valid: Bool[Tensor, "B N Q"] | None
) -> Float[Tensor, " B"]:
    """Mean cross-entropy per task over its queries; the label of a query is its class row."""
    B, N, Q, _ = logits.shape
    nll = -logits.log_softmax(-1).diagonal(dim1=1, dim2=3).transpose(1, 2)  # (B, N, Q)
    if valid is None:
        return nll.flatten(1).mean(1)
    return torch.where(valid, nll, 0.0).flatten(1).sum(1) / valid.flatten(1).sum(1)
