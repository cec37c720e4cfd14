"""Predictions of the values of a function as mixtures of normal distributions, and who makes them."""

import math
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from leo_lightning.data.episode import Episode
from leo_lightning.learners.learner import Classifier


class Predictive(NamedTuple):
    """A mixture of normal distributions for the value at each of M points, noise included."""

    weight: Float[Tensor, "B S"]
    mean: Float[Tensor, "B S M"]
    std: Float[Tensor, "B S M"]

    def average(self) -> Float[Tensor, "B M"]:
        """Mean of the mixture."""
        return (self.weight[:, :, None] * self.mean).sum(1)

    def spread(self) -> Float[Tensor, "B M"]:
        """Standard deviation of the mixture."""
        second = (self.weight[:, :, None] * (self.mean.square() + self.std.square())).sum(1)
        return (second - self.average().square()).clamp_min(0).sqrt()

    def log_density(self, values: Float[Tensor, "B M"]) -> Float[Tensor, "B M"]:
        """Logarithm of the density at the given values."""
        gap = (values[:, None] - self.mean) / self.std
        of_parts = -0.5 * gap.square() - self.std.log() - 0.5 * math.log(2 * math.pi)
        return (of_parts + self.weight.log()[:, :, None]).logsumexp(1)

    def rank(self, values: Float[Tensor, "B M"]) -> Float[Tensor, "B M"]:
        """Probability of less than the given values."""
        below = torch.special.ndtr((values[:, None] - self.mean) / self.std)
        return (self.weight[:, :, None] * below).sum(1)


@runtime_checkable
class Regressor(Protocol):
    """A learner for tasks of one function each: N = 1, and a point is its inputs and the value there."""

    def predictive(self, episode: Episode, final: Classifier) -> Predictive:
        """Distribution of the value of each query, noise included; `final` is adapted to the support."""
        ...


def of_samples(means: Float[Tensor, "B S M"], noise: float) -> Predictive:
    """Mixture of S functions of these values, with normal noise of this standard deviation."""
    weight = torch.full_like(means[:, :, 0], 1 / means.shape[1])
    return Predictive(weight, means, torch.full_like(means, noise))
