"""BD-CSPN: prototypes rectified by the queries.

Liu, Song, Qin: Prototype Rectification for Few-Shot Learning. ECCV 2020, arXiv:1911.10713. Its cosine
network (CSPN) is the backbone that made the embeddings; the "bias diminishing" (BD) is all here.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from leo_lightning.common.errors import check_least, check_positive
from leo_lightning.learners.parts.query_set import share_of
from leo_lightning.learners.parts.transductive import TransductiveLearner
from leo_lightning.learners.parts.unequal_shots import Shots, class_mean, present_images

SCALE = 10.0
"""Factor of the cosines in the logits."""


class Rectification(NamedTuple):
    """How queries rectify prototypes."""

    epsilon: float
    """Scale of the cosines in the softmax over the images of a class."""
    most: int | None
    """Queries that a class takes, the most confident ones first; None: all."""

    def prototypes(
        self,
        support: Float[Tensor, "B N K E"],
        query: Float[Tensor, "B M E"],
        valid: Bool[Tensor, "B M"] | None,
        shots: Shots,
    ) -> Float[Tensor, "B N E"]:
        """Mean of a class's support and of the queries that look like it, weighted by their cosines.

        The queries are first shifted, so that their mean is that of the support ("cross-class bias"). Each is
        given to the class of the nearest mean. An image of a class weighs exp(ε cos), divided by the sum over
        the class's images ("intra-class bias").
        """
        N = support.shape[1]
        means = class_mean(support, shots)
        shift = means.mean(1) - (share_of(valid, query) * query).sum(1)
        images = torch.cat([support.flatten(1, 2), query + shift[:, None]], dim=1)
        cosines = F.normalize(images, dim=-1) @ F.normalize(means, dim=-1).mT
        own = torch.eye(N, dtype=torch.bool, device=support.device).repeat_interleave(support.shape[2], dim=0)
        known = own.expand(len(support), -1, -1)
        if (there := present_images(support, shots)) is not None:
            known = known & there[..., None]
        taken = _likely(self.epsilon * cosines[:, known.shape[1] :], valid, self.most)
        weights = (self.epsilon * cosines).masked_fill(~torch.cat([known, taken], dim=1), -torch.inf)
        return weights.softmax(1).mT @ images


def _likely(
    logits: Float[Tensor, "B M N"], valid: Bool[Tensor, "B M"] | None, most: int | None
) -> Bool[Tensor, "B M N"]:
    """Whether a query is given to a class: it is the likeliest one, and few queries are more certain."""
    probability = logits.softmax(-1)
    best = logits.argmax(-1, keepdim=True)
    taken = torch.zeros_like(probability, dtype=torch.bool).scatter(-1, best, True)
    if valid is not None:
        taken = taken & valid[..., None]
    if most is None or most >= logits.shape[1]:
        return taken
    certainty = probability.masked_fill(~taken, -1.0)
    limit = certainty.topk(most, dim=1).values[:, -1:]
    return taken & (certainty >= limit)


class BDCSPN(TransductiveLearner):
    """Cosines to prototypes that the queries have rectified (BD-CSPN).

    As in the code of easyfsl and of Veilleux et al. (NeurIPS 2021), the queries are shifted for the
    prototypes only, and answered as they are. easyfsl has ε = 1 and takes all queries; the paper takes the
    most confident ones. The logits are 10 times the cosines: the softmax of cosines is nearly flat.

    Args:
        epsilon: ε, scale of the cosines in the weights; with 10, a single image of the support outweighs the
            queries.
        most: queries with which a class rectifies its prototype, the most confident ones; null: all that are
            nearest to it.
    """

    trained = False
    assumes = (
        "the support and the queries have the same mean, as with about equally many queries in all classes"
    )

    def __init__(self, epsilon: float = 1.0, most: int | None = None) -> None:
        super().__init__()
        check_positive({"epsilon": epsilon})
        check_least(1, {"most": most})
        self.epsilon = epsilon
        self.most = most

    def logits(
        self,
        support: Float[Tensor, "B N K E"],
        query: Float[Tensor, "B M E"],
        valid: Bool[Tensor, "B M"] | None,
        shots: Shots,
    ) -> Float[Tensor, "B M N"]:
        """Cosines of the queries, times 10."""
        prototypes = Rectification(self.epsilon, self.most).prototypes(support, query, valid, shots)
        return SCALE * (F.normalize(query, dim=-1) @ F.normalize(prototypes, dim=-1).mT)
