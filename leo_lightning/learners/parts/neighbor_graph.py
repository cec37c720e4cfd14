"""Which images of a task are neighbours of which."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def squared_distances(
    images: Float[Tensor, "B M E"], others: Float[Tensor, "B P E"]
) -> Float[Tensor, "B M P"]:
    """Squared Euclidean distances; differentiable at distance 0 also."""
    squares = images.square().sum(-1)[..., None] + others.square().sum(-1)[:, None]
    return (squares - 2 * images @ others.mT).clamp_min(0)


def nearest(
    distance: Float[Tensor, "B M M"], k: int, valid: Bool[Tensor, "B M"] | None
) -> Bool[Tensor, "B M M"]:
    """Whether the image of the column is one of the k others that are nearest to the image of the row.

    Padding has no neighbours, and is none.
    """
    M = distance.shape[1]
    apart = torch.eye(M, dtype=torch.bool, device=distance.device).expand_as(distance)
    if valid is not None:
        apart = apart | ~valid[:, None] | ~valid[..., None]
    distance = distance.masked_fill(apart, torch.inf)
    places = distance.topk(min(k, M), largest=False).indices
    return torch.zeros_like(apart).scatter(-1, places, True) & ~apart
