"""Classifiers that are drawn from a distribution and answer together."""

import math
from typing import NamedTuple

from jaxtyping import Float, Int64
from torch import Tensor


class SampledClassifier(NamedTuple):
    """S linear classifiers of each task, drawn from the learner's distribution, that answer together."""

    weight: Float[Tensor, "B S N E"]
    bias: Float[Tensor, "B N"] | None = None

    def __call__(self, query: Float[Tensor, "#B *images E"]) -> Float[Tensor, "B *images N"]:
        """Logarithm of the mean of the samples' probabilities."""
        return self._log_probabilities(query).logsumexp(1) - math.log(self.weight.shape[1])

    def spread(self, query: Float[Tensor, "#B *images E"]) -> Float[Tensor, "B *images N"]:
        """Standard deviation of each class's probability over the samples: how little they agree."""
        return self._log_probabilities(query).exp().std(1, correction=0)

    def select(self, tasks: Int64[Tensor, " P"]) -> "SampledClassifier":
        """The classifiers of some of the tasks."""
        return SampledClassifier(self.weight[tasks], None if self.bias is None else self.bias[tasks])

    def _log_probabilities(self, query: Float[Tensor, "#B *images E"]) -> Float[Tensor, "B S *images N"]:
        logits = self.weight.flatten(1, 2) @ query.flatten(1, -2).transpose(1, 2)
        logits = logits.unflatten(1, self.weight.shape[1:3]).transpose(2, 3)
        if self.bias is not None:
            logits = logits + self.bias[:, None, None]
        return logits.log_softmax(-1).unflatten(2, query.shape[1:-1])
