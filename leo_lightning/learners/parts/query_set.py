"""QuerySet: answers of a transductive method, which sees all queries of a task together."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from leo_lightning.learners.parts.unequal_shots import Shots


class QuerySet(NamedTuple):
    """A classifier that answers the queries of one call together: each answer depends on the others."""

    learner: Any
    """Has the method `logits`; see `TransductiveLearner`."""
    support: Float[Tensor, "B N K E"]
    shots: Shots

    def __call__(
        self, query: Float[Tensor, "#B *images E"], valid: Bool[Tensor, "B *images"] | None = None
    ) -> Float[Tensor, "B *images N"]:
        """Logits of the queries, in any arrangement; `valid` is False for padding, which has no influence."""
        B = len(self.support)
        images, arrangement = query.flatten(1, -2), query.shape[1:-1]
        mask = None if valid is None or valid.all() else valid.flatten(1)
        if mask is not None:
            images = images.where(mask[..., None], 0.0)
        # without parameters nothing needs the graph of all iterations
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.learner.trained):
            logits = self.learner.logits(self.support, images.expand(B, -1, -1), mask, self.shots)
        return logits.unflatten(1, arrangement)

    def select(self, tasks: Int64[Tensor, " P"]) -> "QuerySet":
        """The classifiers of some of the tasks."""
        shots = None if self.shots is None else self.shots[tasks]
        return self._replace(support=self.support[tasks], shots=shots)


def answered(
    classifier: Any, query: Float[Tensor, "#B *images E"], valid: Bool[Tensor, "B *images"] | None
) -> Float[Tensor, "B *images N"]:
    """Logits of a `Classifier` for the queries; one that sees them together is told which are padding."""
    return classifier(query, valid) if isinstance(classifier, QuerySet) else classifier(query)


def share_of(valid: Bool[Tensor, "B M"] | None, like: Float[Tensor, "B M E"]) -> Float[Tensor, "B M 1"]:
    """Weight of each query in the mean over a task's queries: 1 / their number, 0 for padding."""
    if valid is None:
        return torch.full_like(like[..., :1], 1 / like.shape[1])
    weight = valid.to(like.dtype)
    return (weight / weight.sum(1, keepdim=True))[..., None]
