"""Distance of a query to the nearest example of its task: large for an image of none of its classes."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_BLOCK = 1 << 22
"""Numbers that a block of queries may take in its largest tensor."""


def nearest_distance(
    support: Float[Tensor, "B N K E"],
    query: Float[Tensor, "#B *images E"],
    valid: Bool[Tensor, "B N K"] | None = None,
) -> Float[Tensor, "B *images"]:
    """Euclidean distance of each query to the nearest support image of its task, of whatever class.

    Pass embeddings as the learner sees them, normalised. The nearest image is found by matrix products of
    blocks of queries, so that many queries need little memory. The distance to it is the length of the
    difference: a query that is a support image has distance 0.

    Args:
        support: support images of B tasks, at least one for each task.
        query: queries in any arrangement; one task's may stand for all B.
        valid: False for padding of the support; None: all are images.
    """
    images = support.flatten(1, 2)
    # ‖s - q‖² = ‖s‖² - 2 s·q + ‖q‖², and ‖q‖² moves no minimum
    squares = images.square().sum(-1)
    if valid is not None:
        squares = squares.masked_fill(~valid.flatten(1), torch.inf)
    B, M, E = images.shape
    at_once = max(1, _BLOCK // (B * max(M, E)))
    parts = []
    for block in query.flatten(1, -2).split(at_once, dim=1):
        nearest = (squares[:, None] - 2 * (block @ images.transpose(1, 2))).argmin(-1)
        found = images.gather(1, nearest[..., None].expand(-1, -1, E))
        parts.append(torch.linalg.vector_norm(found - block, dim=-1))
    return torch.cat(parts, dim=1).unflatten(1, query.shape[1:-1])
