"""Distance to the nearest example: a score of queries that belong to none of the classes."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def nearest_distance(
    support: Float[Tensor, "B N K E"],
    query: Float[Tensor, "B *images E"],
    valid: Bool[Tensor, "B N K"] | None = None,
) -> Float[Tensor, "B *images"]:
    """Euclidean distance of each query to the nearest image of the support, of whatever class.

    Takes memory for all pairs of a query and an image; pass many queries in parts.

    Args:
        support: normalised embeddings.
        query: likewise.
        valid: False for padding of the support; None: no padding.
    """
    pairs = torch.cdist(query.flatten(1, -2), support.flatten(1, 2))
    if valid is not None:
        pairs = pairs.masked_fill(~valid.flatten(1)[:, None], torch.inf)
    return pairs.amin(-1).unflatten(1, query.shape[1:-1])
