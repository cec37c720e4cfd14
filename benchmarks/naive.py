"""NaiveLEO: the batched LEO that one would write first, the yardstick of the benchmarks.

It computes the same numbers as `leo_lightning.learners.leo.LEO` (tests/benchmarks) by the obvious
means: every pair of codes concatenated, K copies of codes and classifiers kept throughout, random numbers
drawn where they are used, and an inner loop that `autograd.grad(create_graph=True)` differentiates.
"""

import inspect
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leo_lightning.learners.leo import LEO, NO_NOISE, Noise


class NaiveLEO(nn.Module):
    """LEO for classification; arguments as those of `leo_lightning.learners.leo.LEO`, without its options."""

    def __init__(
        self,
        embedding_size: int = 640,
        num_latents: int = 64,
        latent_steps: int = 5,
        finetuning_steps: int = 5,
        latent_lr: float = 1.0,
        finetuning_lr: float = 0.001,
        dropout: float = 0.5,
        kl_weight: float = 1e-3,
        encoder_penalty_weight: float = 1e-9,
        l2_penalty_weight: float = 1e-8,
        orthogonality_penalty_weight: float = 1e-3,
    ) -> None:
        super().__init__()
        self.latent_steps = latent_steps
        self.finetuning_steps = finetuning_steps
        self.dropout = dropout
        self.kl_weight = kl_weight
        self.encoder_penalty_weight = encoder_penalty_weight
        self.l2_penalty_weight = l2_penalty_weight
        self.orthogonality_penalty_weight = orthogonality_penalty_weight
        width = 2 * num_latents
        self.encoder = nn.Linear(embedding_size, num_latents, bias=False)
        self.relation_net = nn.Sequential(
            nn.Linear(width, width, bias=False),
            nn.ReLU(),
            nn.Linear(width, width, bias=False),
            nn.ReLU(),
            nn.Linear(width, width, bias=False),
        )
        self.decoder = nn.Linear(num_latents, 2 * embedding_size, bias=False)
        for weight in self.parameters():
            nn.init.xavier_uniform_(weight)
        self.alpha = nn.Parameter(torch.full((num_latents,), latent_lr))
        self.eta = nn.Parameter(torch.full((embedding_size,), finetuning_lr))

    @classmethod
    def like(cls, leo: LEO) -> "NaiveLEO":
        """One with the hyperparameters of `leo`, whose options are those of the authors' code."""
        names = list(inspect.signature(cls).parameters)
        return cls(**{name: getattr(leo, name) for name in names})

    @torch.enable_grad()  # evaluation needs inner gradients, too
    def forward(self, support: Tensor, query: Tensor, noise: Noise = NO_NOISE) -> tuple[Tensor, Tensor]:
        """Loss and query logits (B, N, Q, N). What `noise` leaves out is drawn in training mode."""
        B, N, K, E = support.shape
        T, steps = self.latent_steps, self.latent_steps + self.finetuning_steps
        eps_w = [None] * (T + 1) if noise.weights is None else noise.weights
        masks = [None] * steps if noise.support_masks is None else noise.support_masks

        code = self._relate(self.encoder(self._drop(support, noise.encoder_mask)))
        code = code[:, :, None].repeat(1, 1, K, 1)
        initial, eps, std = self._sample(code, 0.0, noise.latents)
        z = initial
        for step in range(T):
            loss = self._support_loss(self._decode(z, eps_w[step]), support, masks[step])
            (gradient,) = torch.autograd.grad(loss, z, create_graph=True)
            z = z - self.alpha * gradient
        w = self._decode(z, eps_w[T])
        for step in range(T, steps):
            loss = self._support_loss(w, support, masks[step])
            (gradient,) = torch.autograd.grad(loss, w, create_graph=True)
            w = w - self.eta * gradient

        logits = _logits(self._drop(query, noise.query_mask), w)
        loss = _cross_entropy(logits, "mean") + self._regularisers()
        if self.training:
            # (z - mean) / std in the log density is eps
            kl = 0.5 * (initial.square() - eps.square()) - std.log()
            penalty = (z.detach() - initial).square()
            loss = loss + self.kl_weight * kl.mean() + self.encoder_penalty_weight * penalty.mean()
        return loss, logits

    def _drop(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if mask is None else x * mask

    def _relate(self, codes: Tensor) -> Tensor:
        """Relation net on all pairs, averaged over partners and over the images of a class: (B, N, 2H)."""
        B, N, K, H = codes.shape
        flat = codes.reshape(B, N * K, H)
        left = flat[:, :, None].expand(B, N * K, N * K, H)
        right = flat[:, None].expand(B, N * K, N * K, H)
        related = self.relation_net(torch.cat([left, right], dim=-1))
        return related.mean(2).reshape(B, N, K, 2 * H).mean(2)

    def _sample(self, code: Tensor, offset: float, eps: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Sample (the mean, in evaluation), draw and std of the Gaussian that `code` describes."""
        mean, raw = code.chunk(2, dim=-1)
        std = (raw.exp() - (1.0 - offset)).clamp_min(1e-10)
        if not self.training:
            return mean, torch.zeros_like(mean), std
        eps = torch.randn_like(mean) if eps is None else eps
        return mean + eps * std, eps, std

    def _decode(self, z: Tensor, eps: Tensor | None) -> Tensor:
        """Classifier weights (B, N, K, E) of all copies."""
        offset = (2.0 / (z.shape[1] + self.eta.numel())) ** 0.5
        return self._sample(self.decoder(z), offset, eps)[0]

    def _support_loss(self, w: Tensor, support: Tensor, mask: Tensor | None) -> Tensor:
        """Summed over images and tasks: a task's gradient is that of its own loss."""
        return _cross_entropy(_logits(self._drop(support, mask), w), "sum")

    def _regularisers(self) -> Tensor:
        layers = [module for module in self.modules() if isinstance(module, nn.Linear)]
        l2 = sum(0.5 * layer.weight.square().sum() for layer in layers)
        rows = F.normalize(self.decoder.weight.T, dim=1, eps=1e-32)
        correlation = rows @ rows.T - torch.eye(len(rows), dtype=rows.dtype)
        return self.l2_penalty_weight * l2 + self.orthogonality_penalty_weight * correlation.square().mean()


def _logits(images: Tensor, w: Tensor) -> Tensor:
    """(B, N, Q, N): those of every copy of the classifier, averaged."""
    return torch.einsum("bnqe,bmke->bnqmk", images, w).mean(-1)


def _cross_entropy(logits: Tensor, reduction: str) -> Tensor:
    B, N, Q, _ = logits.shape
    labels = torch.arange(N)[:, None].expand(B, N, Q)
    return F.cross_entropy(logits.reshape(-1, N), labels.reshape(-1), reduction=reduction)


@torch.no_grad()
def clip_(parameters: Iterable[nn.Parameter], max_value: float = 0.1, max_norm: float = 0.1) -> None:
    """Clip every gradient by value, then by its own norm."""
    for parameter in parameters:
        assert parameter.grad is not None
        parameter.grad.clamp_(-max_value, max_value)
        norm = parameter.grad.norm()
        if norm > max_norm:
            parameter.grad.mul_(max_norm / norm)


def train_step(model: NaiveLEO, optimizer: torch.optim.Optimizer, support: Tensor, query: Tensor) -> None:
    """One training step."""
    optimizer.zero_grad()
    loss, _ = model(support, query)
    loss.backward()
    clip_(model.parameters())
    optimizer.step()
