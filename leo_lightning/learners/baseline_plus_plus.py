"""Baseline++: a cosine classifier, fitted to the support by gradient steps.

Chen, Liu, Kira, Wang, Huang: A Closer Look at Few-shot Classification. ICLR 2019, arXiv:1904.04232, the
section on Baseline++.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from leo_lightning.common.errors import check_least, check_positive
from leo_lightning.learners.learner import Learner, LinearClassifier
from leo_lightning.learners.parts.objectives import one_hot
from leo_lightning.learners.parts.unequal_shots import Shots, balanced, class_mean


class CosineClassifier(NamedTuple):
    """Logits are a scale times the cosines of a query and the rows of the weight."""

    linear: LinearClassifier
    """For queries of length 1."""

    def __call__(self, query: Float[Tensor, "#B *images E"]) -> Float[Tensor, "B *images N"]:
        """Logits of the queries."""
        return self.linear(F.normalize(query, dim=-1))

    def select(self, tasks: Int64[Tensor, " P"]) -> "CosineClassifier":
        """The classifiers of some of the tasks."""
        return CosineClassifier(self.linear.select(tasks))


class BaselinePlusPlus(Learner):
    """Cosines with class weights that descend on the support's mean cross-entropy (Baseline++).

    The weights begin as the means of a class's embeddings of length 1, at length 1; the authors' begin at
    random. Every step is one of plain gradient descent on all images at once; theirs are 100 epochs of SGD
    with momentum on batches of four, with a scale of 2. They train the network before with a
    classifier of this kind; here it is the one that made the embeddings, and nothing else is trained. Where
    classes have unequal numbers of images, all classes weigh the same.

    Args:
        scale: factor of the cosines.
        inner_lr: step size.
        steps: gradient steps.
    """

    trained = False
    unequal_shots = True

    def __init__(self, scale: float = 10.0, inner_lr: float = 0.1, steps: int = 100) -> None:
        super().__init__()
        check_positive({"scale": scale, "inner_lr": inner_lr})
        check_least(1, {"steps": steps})
        self.scale = scale
        self.inner_lr = inner_lr
        self.steps = steps

    def stages(self, support: Float[Tensor, "B N K E"], shots: Shots = None) -> dict[str, CosineClassifier]:
        """The fitted classifiers; the gradient is written out, so that no autograd is needed."""
        with torch.autocast(support.device.type, enabled=False):
            N, K = support.shape[1:3]
            images, labels = F.normalize(support, dim=-1), one_hot(N, K, support)
            weight = F.normalize(class_mean(images, shots), dim=-1)
            images = images.flatten(1, 2)
            share = 1 / (N * K)
            if shots is not None:
                share = (balanced(support, shots) / shots.sum(1, keepdim=True))[:, None]
            for _ in range(self.steps):
                length = weight.norm(dim=-1, keepdim=True)
                unit = weight / length
                logits = self.scale * unit @ images.transpose(1, 2)
                by_unit = self.scale * ((logits.softmax(1) - labels) * share) @ images
                # of a unit vector, only what is orthogonal to it moves
                slope = (by_unit - (by_unit * unit).sum(-1, keepdim=True) * unit) / length
                weight = weight - self.inner_lr * slope
            return {"final": CosineClassifier(LinearClassifier(self.scale * F.normalize(weight, dim=-1)))}
