"""LEO's variants in plain PyTorch: every copy is kept, and autograd makes the inner gradients.

Written from the paper (Algorithm 1, Eq. 3-8), for what tests/oracles/leo_numpy.py does not have: one latent
per class, no encoder, nothing drawn, a nearest centroid beside the decoded weights. It shares no code with
the package.
"""

import math

import torch
from torch import Tensor


def std_of(raw: Tensor, offset: float) -> Tensor:
    return (raw.exp() - (1 - offset)).clamp_min(1e-10)


def cross_entropy(x: Tensor, w: Tensor, beside: Tensor) -> Tensor:
    """Loss of every image; x (N, K, E), w (N, C, E), other logits (N, K, N)."""
    logits = torch.einsum("nke,mce->nkcm", x, w).mean(2) + beside
    return torch.stack([-logits[n].log_softmax(-1)[:, n] for n in range(len(x))])


def encode(weights: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and std of each class's z from images (N, K, E)."""
    N, K, _ = x.shape
    codes = (x @ weights["encoder.weight"].T).flatten(0, 1)
    total = []
    for i in range(N * K):
        h = torch.cat([codes[i].expand(N * K, -1), codes], 1)
        h = (h @ weights["relation_net.layers.0.weight"].T).relu()
        h = (h @ weights["relation_net.layers.1.weight"].T).relu()
        total.append((h @ weights["relation_net.layers.2.weight"].T).mean(0))
    mean, raw = torch.stack(total).view(N, K, -1).mean(1).chunk(2, -1)
    return mean, std_of(raw, 0.0)


def task(
    weights: dict[str, Tensor],
    support: Tensor,
    query: Tensor,
    steps: tuple[int, int],
    copies: int,
    eps_z: Tensor | None,
    eps_w: Tensor | None,
    encoder_mask: Tensor | None = None,
    masks: Tensor | None = None,
    query_mask: Tensor | None = None,
) -> dict[str, Tensor]:
    """One task: query loss, codes before and after, and the classifiers (N, C, E).

    `weights` are a learner's parameters by name. eps None: the means. Masks None: no dropout.
    """
    N, _, E = support.shape
    T, F = steps
    ones = torch.ones_like(support)
    if "encoder.weight" in weights:
        mean, std = encode(weights, support * (ones if encoder_mask is None else encoder_mask))
    else:
        mean = support.new_zeros(N, weights["decoder.weight"].shape[1])
        std = torch.ones_like(mean)
    z = mean[:, None].expand(-1, copies, -1)
    if eps_z is not None:
        z = z + eps_z * std[:, None]
    start = z
    if not z.requires_grad:
        z = z.clone().requires_grad_()

    def centroid_logits(x: Tensor) -> Tensor:
        """-½ ‖A (√s ⊙ (x - c))‖², in full."""
        if "log_scale" not in weights:
            return x.new_zeros(())
        gap = weights["log_scale"].exp().sqrt() * (x[..., None, :] - support.mean(1))
        if "map" in weights:
            gap = gap @ weights["map"].T
        return -0.5 * gap.square().sum(-1)

    def decode(z: Tensor, step: int) -> Tensor:
        w, raw = (z @ weights["decoder.weight"].T).chunk(2, -1)
        if eps_w is not None:
            w = w + eps_w[step] * std_of(raw, math.sqrt(2 / (N + E)))
        return w

    def images(step: int) -> Tensor:
        return support if masks is None else support * masks[step]

    for step in range(T):
        loss = cross_entropy(images(step), decode(z, step), centroid_logits(images(step))).sum()
        z = z - weights["alpha"] * torch.autograd.grad(loss, z, create_graph=True)[0]
    w = decode(z, T)
    for step in range(F):
        loss = cross_entropy(images(T + step), w, centroid_logits(images(T + step))).sum()
        w = w - weights["eta"] * torch.autograd.grad(loss, w, create_graph=True)[0]
    asked = query if query_mask is None else query * query_mask
    logits = torch.einsum("nke,mce->nkcm", asked, w).mean(2) + centroid_logits(asked)
    loss = cross_entropy(asked, w, centroid_logits(asked)).mean()
    return {"loss": loss, "logits": logits, "mean": mean, "std": std, "start": start, "end": z, "w": w}
