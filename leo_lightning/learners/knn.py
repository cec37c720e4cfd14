"""Nearest neighbours among the support images.

Cover, Hart: Nearest Neighbor Pattern Classification. IEEE Transactions on Information Theory 13, 1967. The
similarity is the cosine, as in the nearest-neighbour baseline of Vinyals et al., Matching Networks for One
Shot Learning, NeurIPS 2016.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from leo_lightning.common.errors import check_least
from leo_lightning.learners.learner import Learner
from leo_lightning.learners.parts.unequal_shots import Shots, present_images


class NeighborClassifier(NamedTuple):
    """Votes of the k support images nearest to a query."""

    support: Float[Tensor, "B N K E"]
    """Images of length 1."""
    k: int
    valid: Bool[Tensor, "B M"]
    """False where `support`, class by class, is padding."""

    def __call__(self, query: Float[Tensor, "#B *images E"]) -> Float[Tensor, "B *images N"]:
        """Logits: a class's number of votes, plus a fraction that only breaks ties."""
        N, K = self.support.shape[1:3]
        images = F.normalize(query.flatten(1, -2), dim=-1)
        similarity = images @ self.support.flatten(1, 2).transpose(1, 2)
        k = min(self.k, N * K)
        voters = self.valid.sum(1)[:, None, None].clamp_max(k)
        similarity = similarity.masked_fill(~self.valid[:, None], -torch.inf)
        # stable: of images that are equally near, the first
        nearest, index = similarity.sort(dim=-1, descending=True, stable=True)
        votes = 1 + (1 + nearest[..., :k]) / (2 * (voters + 1))
        votes = votes.clamp_min(0)  # none from padding
        logits = torch.zeros_like(similarity).scatter(-1, index[..., :k], votes)
        return logits.unflatten(-1, (N, K)).sum(-1).unflatten(1, query.shape[1:-1])

    def select(self, tasks: Int64[Tensor, " P"]) -> "NeighborClassifier":
        """The classifiers of some of the tasks."""
        return self._replace(support=self.support[tasks], valid=self.valid[tasks])


class NearestNeighbors(Learner):
    """The class that most of the k nearest support images have, by cosine similarity.

    Where classes have equally many votes, the one whose voters are more similar in sum wins: a voter counts
    1 + (1 + cosine) / (2 (k + 1)), and k such fractions stay below 1. That sum is the logit of a class, and
    the softmax of logits is not a calibrated probability.

    Args:
        k: number of images that vote; all of a task's if it has fewer.
    """

    trained = False
    unequal_shots = True

    def __init__(self, k: int = 1) -> None:
        super().__init__()
        check_least(1, {"k": k})
        self.k = k

    def stages(self, support: Float[Tensor, "B N K E"], shots: Shots = None) -> dict[str, NeighborClassifier]:
        """The support at length 1: nothing is fitted."""
        valid, images = present_images(support, shots), torch.ones_like(support[..., 0], dtype=torch.bool)
        valid = images.flatten(1) if valid is None else valid
        return {"final": NeighborClassifier(F.normalize(support, dim=-1), self.k, valid)}
