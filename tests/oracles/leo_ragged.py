"""LEO for classes with unequal numbers of images: a list for each class, one pair and one copy at a time.

Written from the paper (Algorithm 1, Eq. 3-6) and from what the package says of unequal shots: a copy of a
class's code for each of its images, the code itself a mean over all pairs, a support loss that is a sum over
all images in which all classes weigh the same, and rates for the mean over the copies that are divided by the
mean number of images of a class.
Autograd makes the inner gradients. It shares no code with the package.
"""

import math

import torch
from torch import Tensor

Copies = list[list[Tensor]]
"""By class, then by copy."""


def std_of(raw: Tensor, offset: float) -> Tensor:
    return (raw.exp() - (1 - offset)).clamp_min(1e-10)


def encode(weights: dict[str, Tensor], support: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Mean and std of each class's z."""
    H = weights["decoder.weight"].shape[1]
    if "encoder.weight" not in weights:
        return [(support[0].new_zeros(H), support[0].new_ones(H)) for _ in support]
    first, second, third = (weights[f"relation_net.layers.{i}.weight"] for i in range(3))
    found = []
    for own in support:
        pairs = []
        for image in own:
            for other in support:
                for partner in other:
                    codes = [weights["encoder.weight"] @ x for x in (image, partner)]
                    pairs.append(third @ (second @ (first @ torch.cat(codes)).relu()).relu())
        mean, raw = torch.stack(pairs).mean(0).chunk(2)
        found.append((mean, std_of(raw, 0.0)))
    return found


def centroid_logits(weights: dict[str, Tensor], support: list[Tensor], image: Tensor) -> Tensor:
    """-½ ‖A (√s ⊙ (x - c))‖² of each class; zeros without a centroid."""
    if "log_scale" not in weights:
        return image.new_zeros(len(support))
    logits = []
    for own in support:
        gap = weights["log_scale"].exp().sqrt() * (image - sum(own) / len(own))
        if "map" in weights:
            gap = weights["map"] @ gap
        logits.append(-0.5 * gap.square().sum())
    return torch.stack(logits)


def logits_of(weights: dict[str, Tensor], support: list[Tensor], w: Copies, image: Tensor) -> Tensor:
    scores = torch.stack([sum(image @ copy for copy in copies) / len(copies) for copies in w])
    return scores + centroid_logits(weights, support, image)


def support_loss(weights: dict[str, Tensor], support: list[Tensor], w: Copies) -> Tensor:
    """Cross-entropy, summed over all images, of a class of k in proportion to 1 / k."""
    average = sum(map(len, support)) / len(support)
    losses = [
        -logits_of(weights, support, w, image).log_softmax(0)[n] * average / len(own)
        for n, own in enumerate(support)
        for image in own
    ]
    return torch.stack(losses).sum()


def descended(x: Copies, loss: Tensor, rate: Tensor, divisor: float) -> Copies:
    """Each copy after a step along the gradient by the mean of its class's copies."""
    slopes = iter(torch.autograd.grad(loss, [copy for copies in x for copy in copies], create_graph=True))
    return [[copy - rate / divisor * len(copies) * next(slopes) for copy in copies] for copies in x]


def stages(
    weights: dict[str, Tensor],
    support: list[Tensor],
    steps: tuple[int, int],
    eps_z: list[Tensor] | None = None,
    eps_w: list[list[Tensor]] | None = None,
) -> list[Copies]:
    """Classifiers of one task as they are decoded first, after the latent steps, and in the end.

    Args:
        weights: a learner's parameters by name.
        support: the images of each class (k, E).
        steps: latent and fine-tuning ones.
        eps_z: noise of each class's copies (k, H); None: the means.
        eps_w: noise of each decode, for each class (k, E); None: the means.
    """
    N, E = len(support), support[0].shape[1]
    counts = [len(own) for own in support]
    divisor = sum(counts) / N
    z: Copies = []
    for n, (mean, std) in enumerate(encode(weights, support)):
        z.append([mean + (0.0 if eps_z is None else eps_z[n][c] * std) for c in range(counts[n])])
        if not z[-1][0].requires_grad:
            z[-1] = [copy.clone().requires_grad_() for copy in z[-1]]

    def decode(z: Copies, number: int) -> Copies:
        w: Copies = []
        for n, copies in enumerate(z):
            w.append([])
            for c, copy in enumerate(copies):
                mean, raw = (weights["decoder.weight"] @ copy).chunk(2)
                noise = 0.0 if eps_w is None else eps_w[number][n][c] * std_of(raw, math.sqrt(2 / (N + E)))
                w[-1].append(mean + noise)
        return w

    found = [decode(z, 0)]
    for step in range(steps[0]):
        z = descended(z, support_loss(weights, support, decode(z, step)), weights["alpha"], divisor)
    w = decode(z, steps[0])
    found.append(w)
    for _ in range(steps[1]):
        w = descended(w, support_loss(weights, support, w), weights["eta"], divisor)
    return [*found, w]
