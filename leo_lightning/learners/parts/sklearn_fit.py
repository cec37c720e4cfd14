"""Linear classifiers of scikit-learn, which fits one task at a time, on the CPU, in float64."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from leo_lightning.common.errors import InputError
from leo_lightning.learners.learner import LinearClassifier
from leo_lightning.learners.parts.not_trained import NotTrained
from leo_lightning.learners.parts.unequal_shots import images_first, present


class TaskByTask(NotTrained):
    """A method whose classifier scikit-learn fits. Outer gradients do not reach the support.

    Args:
        C: weight of the support's loss against the penalty.
    """

    def __init__(self, C: float) -> None:
        super().__init__()
        if not 0 < C < math.inf:
            raise InputError(f"C is {C}: it must be a number above 0")
        self.C = C

    def check_compilable(self) -> None:
        """See `Learner.check_compilable`. scikit-learn is no graph of torch's."""
        raise InputError(f"model.compile cannot compile {type(self).__name__}; leave one of the two out")


def fit_each(
    support: Float[Tensor, "B N K E"],
    make: Callable[[], Any],
    pair: tuple[float, float],
    shots: Int64[Tensor, "B N"] | None = None,
) -> LinearClassifier:
    """Fit a classifier to the support of every task.

    A penalty on ‖w‖² leaves w in the span of the support, whose N·K images are usually far fewer than E: so
    what is fitted are coordinates in an orthonormal basis of it. The optimum is the same one.

    Args:
        support: images by class; outer gradients do not reach it.
        make: a new estimator with `fit`, and then `coef_` and `intercept_`.
        pair: of two classes scikit-learn fits one row, for the second against the first: the rows of both
            are so many times that one.
        shots: see `Learner.stages`.
    """
    B, N, K, _ = support.shape
    images = support.detach().to("cpu", torch.float64).flatten(1, 2)
    labels, counts = torch.arange(N).repeat_interleave(K).expand(B, -1), [N * K] * B
    if shots is not None:
        # so that the first vectors of the basis are those of the images
        order, counts = images_first(present(support, shots).flatten(1)).cpu(), shots.sum(1).tolist()
        images, labels = images.take_along_dim(order[..., None], 1), labels.take_along_dim(order, 1)
    basis, coordinates = torch.linalg.qr(images.transpose(1, 2))
    weights, biases = [], []
    for task, rows, count in zip(coordinates.transpose(1, 2).numpy(), labels.numpy(), counts, strict=True):
        fitted = make().fit(task[:count, :count], rows[:count])
        weights.append(F.pad(torch.from_numpy(fitted.coef_), (0, task.shape[1] - fitted.coef_.shape[1])))
        biases.append(torch.from_numpy(fitted.intercept_))
    weight, bias = torch.stack(weights) @ basis.transpose(1, 2), torch.stack(biases)
    if N == 2:
        factors = torch.tensor(pair, dtype=torch.float64)
        weight, bias = factors[:, None] * weight, factors * bias
    return LinearClassifier(weight.to(support), bias.to(support))
