"""Reference LEO: Algorithm 1 of the paper, line by line, in plain PyTorch.

Rusu, Rao, Sygnowski, Vinyals, Pascanu, Osindero, Hadsell: Meta-Learning with Latent Embedding Optimization.
ICLR 2019, arXiv:1807.05960. "Line" in a comment means a line of Algorithm 1, "Eq." an equation of the paper.
Where the paper and the authors' code (github.com/google-deepmind/leo at de9a0c2, model.py) differ, the code
made the published numbers and is followed; a comment says so.

Tasks are a batch dimension. All else is done the obvious way: every pair of codes is concatenated, all K
copies of a class's code and classifier are kept, and random numbers are drawn where they are used.
`leo_lightning.learners.leo.LEO` computes the same numbers several times faster; tests/parity.py compares both
with the authors' numbers.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from leo_lightning.learners.parts.noise import NO_NOISE, Noise


class ReferenceOutcome(NamedTuple):
    """Results of a meta-batch, and the values on the way to them."""

    loss: Float[Tensor, ""]
    logits: Float[Tensor, "B N Q N"]
    code: Float[Tensor, "B N K codes"]  # mean and raw standard deviation of z
    latents: list[Float[Tensor, "B N K H"]]  # z', before and after each latent step
    decoded: list[Float[Tensor, "B N K E"]]  # θ', decoded from each z'
    weights: list[Float[Tensor, "B N K E"]]  # θ', before and after each fine-tuning step
    task_terms: dict[str, Float[Tensor, " B"]]  # terms of Eq. 7, without their weights
    regularisers: dict[str, Float[Tensor, ""]]  # terms of Eq. 8, with their weights


class ReferenceLEO(nn.Module):
    """LEO for classification. Arguments as for `leo_lightning.learners.leo.LEO`, without its variants.

    `forward` is lines 6-15. Lines 2-5 and 16-17 are an ordinary training loop:

    >>> leo = ReferenceLEO(embedding_size=16, num_latents=8)
    >>> optimizer = torch.optim.Adam(leo.parameters(), lr=1e-3)
    >>> for _ in range(3):  # line 2: while not converged
    ...     support = torch.randn(4, 5, 1, 16)  # lines 3-5: sample 4 tasks of 5 classes,
    ...     query = torch.randn(4, 5, 15, 16)  # with 1 support image and 15 query images of each
    ...     optimizer.zero_grad()
    ...     leo(support, query).loss.backward()
    ...     _ = optimizer.step()  # line 16: φ ← φ - η ∇φ Σ Lᵛᵃˡ
    """

    def __init__(
        self,
        embedding_size: int,
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
        self.latent_steps, self.finetuning_steps, self.dropout = latent_steps, finetuning_steps, dropout
        self.kl_weight, self.encoder_penalty_weight = kl_weight, encoder_penalty_weight
        self.l2_penalty_weight = l2_penalty_weight
        self.orthogonality_penalty_weight = orthogonality_penalty_weight
        # Line 1: initialize φ = {φe, φr, φd, α}. No biases, and no ReLU after the last layer of φr.
        width = 2 * num_latents
        layers = [nn.Linear(width, width, bias=False) for _ in range(3)]
        self.encoder = nn.Linear(embedding_size, num_latents, bias=False)  # φe
        self.relation_net = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])  # φr
        self.decoder = nn.Linear(num_latents, 2 * embedding_size, bias=False)  # φd
        for weight in self.parameters():
            nn.init.xavier_uniform_(weight)
        # The authors' code learns a rate for each latent dimension, and η, one for each embedding dimension.
        self.alpha = nn.Parameter(torch.full((num_latents,), latent_lr))
        self.eta = nn.Parameter(torch.full((embedding_size,), finetuning_lr))

    @torch.enable_grad()  # evaluation needs inner gradients, too
    def forward(
        self, support: Float[Tensor, "B N K E"], query: Float[Tensor, "B N Q E"], noise: Noise = NO_NOISE
    ) -> ReferenceOutcome:
        """Adapt to each task's Dᵗʳ and judge it on its Dᵛᵃˡ. Training draws what `noise` leaves out."""
        K, T = support.shape[2], self.latent_steps
        steps = T + self.finetuning_steps
        draws = [None] * (T + 1) if noise.weights is None else noise.weights
        masks = [None] * steps if noise.support_masks is None else noise.support_masks

        # Line 6: encode Dᵗʳ to z using φe and φr (Eq. 3). The paper draws one z for a class; the authors'
        # code, one for each of its K images.
        code = self._relate(self.encoder(self._drop(support, noise.encoder_mask)))
        code = code[:, :, None].repeat(1, 1, K, 1)
        z, eps, std = self._sample(code, 0.0, noise.latents)
        # Line 7: decode z to initial parameters θ using φd (Eq. 4), drawn anew at every decoding.
        theta = self._decode(z, draws[0])
        # Line 8: z' = z, θ' = θ.
        latents, decoded = [z], [theta]
        # Line 9: for number of adaptation steps.
        for step in range(T):
            # Line 10: training loss Lᵗʳ(fθ') (Eq. 5).
            loss = self._support_loss(decoded[-1], support, masks[step])
            # Line 11: z' ← z' - α ∇z' Lᵗʳ(fθ') (Eq. 6). The outer gradient flows through this one.
            (gradient,) = torch.autograd.grad(loss, latents[-1], create_graph=True)
            latents.append(latents[-1] - self.alpha * gradient)
            # Line 12: decode z' to θ'.
            decoded.append(self._decode(latents[-1], draws[step + 1]))
        # Line 13: end for. Then fine-tuning, which Algorithm 1 leaves out: the same descent on θ' itself.
        weights = [decoded[-1]]
        for step in range(T, steps):
            loss = self._support_loss(weights[-1], support, masks[step])
            (gradient,) = torch.autograd.grad(loss, weights[-1], create_graph=True)
            weights.append(weights[-1] - self.eta * gradient)

        # Line 14: validation loss Lᵛᵃˡ(fθ'), the first term of Eq. 7.
        logits = _logits(self._drop(query, noise.query_mask), weights[-1])
        terms = {"cross_entropy": _cross_entropy(logits).flatten(1).mean(1)}
        # Second term: KL(q(z) || N(0, 1)) by the sample at hand; (z - mean) / std in log q(z) is eps.
        # Third term: ‖stopgrad(z') - z‖². Both are means over the task's numbers, and 0 in evaluation.
        kl, penalty = 0.5 * (z.square() - eps.square()) - std.log(), (latents[-1].detach() - z).square()
        for name, term in (("kl", kl), ("encoder_penalty", penalty)):
            terms[name] = term.flatten(1).mean(1) if self.training else torch.zeros(len(support)).to(z)
        # Line 15: end for. The tasks' losses enter as their mean, the regulariser R of Eq. 8 once.
        by_task = terms["cross_entropy"] + self.kl_weight * terms["kl"]
        by_task = by_task + self.encoder_penalty_weight * terms["encoder_penalty"]
        regularisers = self._regularisers()
        loss = by_task.mean() + torch.stack(list(regularisers.values())).sum()
        return ReferenceOutcome(loss, logits, code, latents, decoded, weights, terms, regularisers)

    def _drop(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if mask is None else x * mask

    def _relate(self, codes: Float[Tensor, "B N K H"]) -> Float[Tensor, "B N codes"]:
        """Eq. 3: φr on all ordered pairs of a task, mean over the partners and over a class's images."""
        B, N, K, H = codes.shape
        flat = codes.reshape(B, N * K, H)
        pairs = torch.broadcast_tensors(flat[:, :, None], flat[:, None])
        related = self.relation_net(torch.cat(pairs, dim=-1))
        return related.mean(2).reshape(B, N, K, 2 * H).mean(2)

    def _sample(self, code: Tensor, offset: float, eps: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """A sample of the Gaussian that `code` describes, its draw and std. In evaluation, the mean."""
        mean, raw = code.chunk(2, dim=-1)
        std = (raw.exp() - (1.0 - offset)).clamp_min(1e-10)
        if not self.training:
            return mean, torch.zeros_like(mean), std
        eps = torch.randn_like(mean) if eps is None else eps
        return mean + eps * std, eps, std

    def _decode(self, z: Float[Tensor, "B N K H"], eps: Tensor | None) -> Float[Tensor, "B N K E"]:
        """Eq. 4: weights of a linear classifier. The offset is their std where the raw one is 0."""
        offset = (2.0 / (z.shape[1] + len(self.eta))) ** 0.5
        return self._sample(self.decoder(z), offset, eps)[0]

    def _support_loss(self, theta: Tensor, support: Tensor, mask: Tensor | None) -> Float[Tensor, ""]:
        """Eq. 5: a *sum* over images, and over tasks, so that a task's gradient is that of its own loss."""
        return _cross_entropy(_logits(self._drop(support, mask), theta)).sum()

    def _regularisers(self) -> dict[str, Float[Tensor, ""]]:
        """Eq. 8. Its second term is a mean of squares in the authors' code, an L1 norm in the paper."""
        weights = [module.weight for module in self.modules() if isinstance(module, nn.Linear)]
        l2 = torch.stack([0.5 * weight.square().sum() for weight in weights]).sum()
        rows = F.normalize(self.decoder.weight.T, dim=1, eps=1e-32)
        excess = rows @ rows.T - torch.eye(len(rows), dtype=rows.dtype, device=rows.device)
        orthogonality = self.orthogonality_penalty_weight * excess.square().mean()
        return {"l2_penalty": self.l2_penalty_weight * l2, "orthogonality_penalty": orthogonality}


def _logits(images: Float[Tensor, "B N Q E"], theta: Float[Tensor, "B N K E"]) -> Float[Tensor, "B N Q N"]:
    """Logits x·w, mean over the K copies of each class's classifier."""
    return torch.einsum("bnqe,bmke->bnqmk", images, theta).mean(-1)


def _cross_entropy(logits: Float[Tensor, "B N Q N"]) -> Float[Tensor, "B N Q"]:
    """Cross-entropy of each image, whose label is its class's row."""
    return -logits.log_softmax(-1).diagonal(dim1=1, dim2=3).transpose(1, 2)
