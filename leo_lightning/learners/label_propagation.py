"""Label propagation on the graph of a task's images.

Zhou, Bousquet, Lal, Weston, Schölkopf: Learning with Local and Global Consistency. NeurIPS 2003. Liu et al.
(ICLR 2019) brought it to few-shot tasks; `tpn.py` trains an embedding through it, as they do.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from leo_lightning.common.errors import InputError, check_least, check_positive
from leo_lightning.learners.parts.neighbor_graph import nearest, squared_distances
from leo_lightning.learners.parts.transductive import TransductiveLearner, weighted_labels
from leo_lightning.learners.parts.unequal_shots import Shots, present_images


class LabelPropagation(TransductiveLearner):
    """F = (I - αS)⁻¹ Y: labels of the support that flow along the graph of nearest neighbours.

    Two images are joined if one is among the k nearest others of the other, by W = exp(-‖x - x'‖² / 2σ²), and
    S = D^(-1/2) W D^(-1/2). Embeddings are scaled to length 1. The probability of a class is its share in a
    query's row of F. Where classes differ in their number of images, all classes send equally much.

    Args:
        alpha: α, how far labels flow; below 1.
        neighbors: k.
        length_scale: σ.
    """

    trained = False

    def __init__(self, alpha: float = 0.8, neighbors: int = 10, length_scale: float = 0.5) -> None:
        super().__init__()
        check_alpha(alpha)
        check_least(1, {"neighbors": neighbors})
        check_positive({"length_scale": length_scale})
        self.alpha = alpha
        self.neighbors = neighbors
        self.length_scale = length_scale

    def logits(
        self,
        support: Float[Tensor, "B N K E"],
        query: Float[Tensor, "B M E"],
        valid: Bool[Tensor, "B M"] | None,
        shots: Shots,
    ) -> Float[Tensor, "B M N"]:
        """Logarithms of F: their softmax is the share of each class."""
        images = F.normalize(torch.cat([support.flatten(1, 2), query], dim=1), dim=-1) / self.length_scale
        there = together(support, query, valid, shots)
        flow = propagated(images, there, weighted_labels(support, shots), self.alpha, self.neighbors)
        return logarithms(flow)


def logarithms(flow: Float[Tensor, "B M N"]) -> Float[Tensor, "B M N"]:
    """Logarithms of F, finite where no label arrives: their softmax is the share of each class."""
    return flow.clamp_min(torch.finfo(flow.dtype).tiny).log()


def check_alpha(alpha: float) -> None:
    """Raise an InputError unless labels flow, and the flow ends."""
    if not 0 < alpha < 1:
        raise InputError(f"alpha is {alpha}: it must be between 0 and 1")


def together(
    support: Float[Tensor, "B N K E"],
    query: Float[Tensor, "B M E"],
    valid: Bool[Tensor, "B M"] | None,
    shots: Shots,
) -> Bool[Tensor, "B N*K+M"] | None:
    """Which rows of support and queries are images; None if all are."""
    known = present_images(support, shots)
    if known is None and valid is None:
        return None
    known = known if known is not None else torch.ones_like(support[..., 0], dtype=torch.bool).flatten(1)
    valid = valid if valid is not None else torch.ones_like(query[..., 0], dtype=torch.bool)
    return torch.cat([known, valid], dim=1)


def propagated(
    images: Float[Tensor, "B P D"],
    there: Bool[Tensor, "B P"] | None,
    labels: Float[Tensor, "B S N"],
    alpha: float,
    neighbors: int,
) -> Float[Tensor, "B M N"]:
    """Rows of F of the queries, the P - S images behind the support.

    Args:
        images: divided by their length scales; the support comes first.
        there: False for padding.
        labels: of the support.
        alpha: α.
        neighbors: k.
    """
    distance = squared_distances(images, images)
    joined = nearest(distance, neighbors, there)
    affinity = (-distance / 2).exp() * (joined | joined.mT)
    root = affinity.sum(-1).clamp_min(torch.finfo(affinity.dtype).tiny).rsqrt()
    system = torch.eye(images.shape[1], dtype=images.dtype, device=images.device)
    system = system - alpha * root[..., None] * affinity * root[:, None]
    asked = images.shape[1] - labels.shape[1]
    return torch.linalg.solve(system, F.pad(labels, (0, 0, 0, asked)))[:, labels.shape[1] :]
