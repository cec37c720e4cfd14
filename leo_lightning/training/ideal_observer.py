"""The best prediction of a sine or a line from a few noisy points: the yardstick of the regression.

Both families are linear in two numbers: a·sin(x - b) = u·sin x + v·cos x with u = a·cos b and v = -a·sin b,
and s·x + c. With a normal prior of the same mean and covariance, and normal noise, everything has a closed
form: the values at other points are normal, and so is the evidence for a family.
"""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from leo_lightning.data.functions import AMPLITUDE, FAMILIES, SLOPE
from leo_lightning.learners.parts.normal_mixture import Predictive


def predict(
    support: Float[Tensor, "B K 2"],
    inputs: Float[Tensor, "B M"],
    noise: float,
    family: Int64[Tensor, " B"] | None = None,
) -> Predictive:
    """Predict the values at the given inputs, knowing the families, their priors and the noise.

    Args:
        support: points of each task.
        inputs: x of the values to predict.
        noise: standard deviation of the values, above 0.
        family: number of each task's family; None: unknown, so both are weighed by their evidence.
    """
    x, y = support.double().unbind(-1)
    means, stds, evidence = [], [], []
    for number in range(len(FAMILIES)):
        prior_mean, prior_variance = _prior(number, x)
        seen, asked = _features(number, x), _features(number, inputs.double())
        gap = y - seen @ prior_mean
        shared = prior_variance * seen.mT  # (B, 2, K)
        covariance = seen @ shared + noise**2 * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        root = torch.linalg.cholesky(covariance)
        solved = torch.cholesky_solve(gap[..., None], root).squeeze(-1)
        means.append(asked @ prior_mean + (asked @ (shared @ solved[..., None])).squeeze(-1))
        explained = torch.linalg.solve_triangular(root, (asked @ shared).mT, upper=False)
        variance = (asked.square() @ prior_variance.squeeze(-1)) - explained.square().sum(1) + noise**2
        stds.append(variance.sqrt())
        logdet = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        evidence.append(-0.5 * (gap * solved).sum(-1) - logdet)
    if family is None:
        weight = torch.stack(evidence, dim=1).softmax(1)
    else:
        weight = torch.nn.functional.one_hot(family, len(FAMILIES)).to(x)
    parts = weight, torch.stack(means, dim=1), torch.stack(stds, dim=1)
    return Predictive(*(part.to(support.dtype) for part in parts))


def _features(family: int, x: Float[Tensor, "B M"]) -> Float[Tensor, "B M 2"]:
    return torch.stack([x.sin(), x.cos()] if family == 0 else [x, torch.ones_like(x)], dim=-1)


def _prior(family: int, like: Tensor) -> tuple[Float[Tensor, "2"], Float[Tensor, "2 1"]]:
    """Mean and variance of the two numbers of a family, which are uncorrelated."""
    if family == 1:
        variance = (SLOPE[1] - SLOPE[0]) ** 2 / 12
        return like.new_zeros(2), like.new_full((2, 1), variance)
    low, high = AMPLITUDE
    square = (high**3 - low**3) / (3 * (high - low)) / 2  # E a² · ½, for cos² and sin² alike
    v = -(high + low) / 2 * 2 / math.pi  # E sin b = 2 / π for b ~ U[0, π]
    return like.new_tensor([0.0, v]), like.new_tensor([[square], [square - v**2]])
