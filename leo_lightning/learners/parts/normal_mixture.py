"""Predictive: what a method says of the values of a function, as a distribution."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Predictive(NamedTuple):
    """A mixture of normal distributions for the value at each of M points, noise included."""

    weight: Float[Tensor, "B S"]
    mean: Float[Tensor, "B S M"]
    std: Float[Tensor, "B S M"]

    def average(self) -> Float[Tensor, "B M"]:
        """The mean of the mixture."""
        return (self.weight[:, :, None] * self.mean).sum(1)

    def spread(self) -> Float[Tensor, "B M"]:
        """The standard deviation of the mixture."""
        second = (self.weight[:, :, None] * (self.mean.square() + self.std.square())).sum(1)
        return (second - self.average().square()).clamp_min(0).sqrt()

    def log_density(self, values: Float[Tensor, "B M"]) -> Float[Tensor, "B M"]:
        """Logarithm of the density at the given values."""
        gap = (values[:, None] - self.mean) / self.std
        each = -0.5 * gap.square() - self.std.log() - 0.5 * math.log(2 * math.pi)
        return (each + self.weight.log()[:, :, None]).logsumexp(1)

    def rank(self, values: Float[Tensor, "B M"]) -> Float[Tensor, "B M"]:
        """Probability of less than the given values."""
        below = torch.special.ndtr((values[:, None] - self.mean) / self.std)
        return (self.weight[:, :, None] * below).sum(1)


def of_samples(means: Float[Tensor, "B S M"], noise: float) -> Predictive:
    """What S functions say whose values have normal noise; a single one is sure of itself.

    Args:
        means: their values.
        noise: standard deviation.
    """
    weight = torch.full_like(means[:, :, 0], 1 / means.shape[1])
    return Predictive(weight, means, torch.full_like(means, noise))
