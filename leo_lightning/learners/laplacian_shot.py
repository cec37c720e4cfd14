"""LaplacianShot: neighbouring queries get the same class.

Ziko, Dolz, Granger, Ben Ayed: Laplacian Regularized Few-Shot Learning. ICML 2020, arXiv:2006.15486,
Algorithm 1, with the prototypes of BD-CSPN ("proto-rectification").
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from leo_lightning.common.errors import check_least
from leo_lightning.learners.bdcspn import Rectification
from leo_lightning.learners.parts.neighbor_graph import nearest, squared_distances
from leo_lightning.learners.parts.transductive import TransductiveLearner
from leo_lightning.learners.parts.unequal_shots import Shots

TOLERANCE = 1e-6
"""Relative change of the bound at which a task's iterations end."""


class LaplacianShot(TransductiveLearner):
    """Soft assignments of queries to prototypes that agree between nearest neighbours.

    y ← softmax(-a + λ W y), with a the squared distances to the prototypes and W the directed graph of
    nearest neighbours among the queries (1 or 0), from y = softmax(-a). Embeddings are scaled to length 1, as
    in the paper. Prototypes are rectified as by easyfsl, with weights that add up to 1 over the images of a
    class; the authors' code weighs by a softmax over classes.

    Args:
        regularization: λ, weight of the neighbours.
        neighbors: of each query. The authors' and easyfsl's k = 3 counts the query itself, and so is 2 here.
        steps: most iterations; a task whose bound no longer changes stops before.
        epsilon: ε of the rectification, as in BD-CSPN.
    """

    trained = False
    assumes = "support and queries have the same mean, as with about equally many queries in all classes"

    def __init__(
        self, regularization: float = 0.7, neighbors: int = 2, steps: int = 20, epsilon: float = 1.0
    ) -> None:
        super().__init__()
        check_least(0, {"regularization": regularization, "steps": steps, "epsilon": epsilon})
        check_least(1, {"neighbors": neighbors})
        self.regularization = regularization
        self.neighbors = neighbors
        self.steps = steps
        self.epsilon = epsilon

    def logits(
        self,
        support: Float[Tensor, "B N K E"],
        query: Float[Tensor, "B M E"],
        valid: Bool[Tensor, "B M"] | None,
        shots: Shots,
    ) -> Float[Tensor, "B M N"]:
        """The assignments, as logits."""
        support, query = F.normalize(support, dim=-1), F.normalize(query, dim=-1)
        prototypes = Rectification(self.epsilon, None).prototypes(support, query, valid, shots)
        distance = squared_distances(query, prototypes)
        graph = nearest(squared_distances(query, query), self.neighbors, valid).to(query.dtype)
        logits, bound = -distance, None
        done = torch.zeros_like(distance[:, :1, :1], dtype=torch.bool)
        for step in range(self.steps):
            pull = self.regularization * (graph @ logits.softmax(-1))
            logits = logits.where(done, pull - distance)
            before, bound = bound, self._bound(logits, distance, graph, valid)
            # easyfsl compares from the third iteration on
            if step > 1 and before is not None:
                done = done | ((bound - before).abs() <= TOLERANCE * before.abs())
                if done.all():
                    break
        return logits

    def _bound(
        self,
        logits: Float[Tensor, "B M N"],
        distance: Float[Tensor, "B M N"],
        graph: Float[Tensor, "B M M"],
        valid: Bool[Tensor, "B M"] | None,
    ) -> Float[Tensor, "B 1 1"]:
        """Σ y (log y + a - λ W y), which no iteration increases."""
        log_y = logits.log_softmax(-1)
        y = log_y.exp()
        terms = y * (log_y + distance - self.regularization * (graph @ y))
        if valid is not None:
            terms = terms * valid[..., None]
        return terms.sum((1, 2), keepdim=True)
