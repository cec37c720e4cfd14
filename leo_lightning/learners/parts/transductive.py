"""Base of the transductive methods: they look at all queries of a task together."""

from abc import abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from leo_lightning.learners.learner import Learner
from leo_lightning.learners.parts.query_set import QuerySet
from leo_lightning.learners.parts.unequal_shots import Shots, present


class TransductiveLearner(Learner):
    """A method whose answer to a query depends on the other queries of its task.

    Nothing can be adapted before the queries are there, so adaptation only keeps the support.
    """

    transductive = True
    unequal_shots = True
    compilable = False
    assumes: ClassVar[str] = ""
    """Assumption about a task's queries, as the end of the sentence "It assumes that"; empty: none."""

    @abstractmethod
    def logits(
        self,
        support: Float[Tensor, "B N K E"],
        query: Float[Tensor, "B M E"],
        valid: Bool[Tensor, "B M"] | None,
        shots: Shots,
    ) -> Float[Tensor, "B M N"]:
        """Logits of all queries of B tasks.

        Args:
            support: images of each class.
            query: all queries of each task, in any order; zeros where they are padding.
            valid: False for padding, which must have no influence; None: there is none.
            shots: as in `Learner.stages`.
        """

    def stages(self, support: Float[Tensor, "B N K E"], shots: Shots = None) -> dict[str, QuerySet]:
        """The one classifier, which still has to see the queries."""
        return {"final": QuerySet(self, support, shots)}


def weighted_labels(support: Float[Tensor, "B N K E"], shots: Shots) -> Float[Tensor, "B N*K N"]:
    """Labels of the support as one-hot rows, times weights that sum to 1 and are equal for all classes.

    Padding has weight 0.
    """
    N, K = support.shape[1:3]
    if shots is None:
        weight = torch.full_like(support[..., 0], 1 / (N * K))
    else:
        weight = present(support, shots) / (N * shots[..., None].to(support.dtype))
    return torch.diag_embed(weight.mT).transpose(1, 2).flatten(1, 2)
