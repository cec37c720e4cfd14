"""Principal components: a plane in which high-dimensional points can be drawn."""

import torch
from jaxtyping import Float
from torch import Tensor


def principal_components(points: Float[Tensor, "points D"]) -> tuple[Float[Tensor, "points 2"], list[float]]:
    """Coordinates along the first two principal components, and their shares of the variance.

    The sign of a component is free: here its largest coordinate is positive. Components that do not exist,
    as the second of one-dimensional points, are zero.
    """
    centred = points - points.mean(0)
    left, singular, _ = torch.linalg.svd(centred, full_matrices=False)
    shares = singular.square() / singular.square().sum().clamp_min(torch.finfo(points.dtype).tiny)
    scores = torch.nn.functional.pad(left * singular, (0, 2))[:, :2]
    largest = scores.gather(0, scores.abs().argmax(0, keepdim=True))
    return scores * torch.where(largest < 0, -1.0, 1.0), [*shares.tolist(), 0.0, 0.0][:2]
